"""Reads FlatBuffers, each step within the bounds of the file. Knows no schema."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.types import Array

# Of a vector, and of the fields of a table: no file that people make has more.
_MOST = 1_000_000
_DAMAGED = "expected offsets within the file, found others; it is damaged or truncated"


@dataclass(frozen=True)
class Table:
    """A table: fields by their numbers, each a number, a text, a table or a vector.

    Attributes:
        data: The whole file.
        place: Where it begins.
    """

    data: bytes
    place: int

    @classmethod
    def root(cls, data: bytes) -> "Table":
        """The table that a file begins with.

        Raises:
            ModelError: Of all of these, when an offset leads out of the file.
        """
        return cls(data, _number(data, 0, "I"))

    def number(self, field: int, kind: str = "i", default: int = 0) -> int:
        """A number, in the letters of :mod:`struct`."""
        place = self._find(field)
        return default if place is None else _number(self.data, place, kind)

    def text(self, field: int) -> str:
        """A text; empty where there is none."""
        place = self._find(field)
        if place is None:
            return ""
        start, length = self._vector(place, 1)
        return self.data[start : start + length].decode("utf-8", "replace")

    def numbers(self, field: int, kind: str = "i4") -> Array:
        """A vector of numbers, in the letters of numpy; empty where there is none."""
        dtype = np.dtype(f"<{kind}")
        place = self._find(field)
        if place is None:
            return np.empty(0, dtype)
        start, length = self._vector(place, dtype.itemsize)
        return np.frombuffer(self.data, dtype, length, start)

    def table(self, field: int) -> "Table | None":
        """A table; None where there is none."""
        place = self._find(field)
        return None if place is None else Table(self.data, self._follow(place))

    def tables(self, field: int) -> Iterator["Table"]:
        """A vector of tables."""
        place = self._find(field)
        if place is None:
            return
        start, length = self._vector(place, 4)
        if length > _MOST:
            raise ModelError(f"expected lists of at most {_MOST} entries, found {length}")
        for entry in range(start, start + 4 * length, 4):
            yield Table(self.data, self._follow(entry))

    def _find(self, field: int) -> int | None:
        # A table begins with the way back to the list of its fields' places, which begins with its own length.
        fields = self.place - _number(self.data, self.place, "i")
        length = _number(self.data, fields, "H")
        if 4 + 2 * field + 2 > length:
            return None
        offset = _number(self.data, fields + 4 + 2 * field, "H")
        return self.place + offset if offset else None

    def _follow(self, place: int) -> int:
        return place + _number(self.data, place, "I")

    def _vector(self, place: int, size: int) -> tuple[int, int]:
        # Where it begins, and its length.
        start = self._follow(place)
        length = _number(self.data, start, "I")
        if start + 4 + size * length > len(self.data):
            raise ModelError(_DAMAGED)
        return start + 4, length


def _number(data: bytes, place: int, kind: str) -> int:
    form = f"<{kind}"
    if not 0 <= place <= len(data) - struct.calcsize(form):
        raise ModelError(_DAMAGED)
    value: int = struct.unpack_from(form, data, place)[0]
    return value

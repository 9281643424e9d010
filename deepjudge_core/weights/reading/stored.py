"""What all readers of stored weights do: say what there is, and give finite rows of it."""

import abc
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.files.documents import Json
from deepjudge_core.files.reading import NO_LIMIT, open_regular
from deepjudge_core.text import clean
from deepjudge_core.types import Array
from deepjudge_core.weights.values import Roles, TensorSpec

MOST_TENSORS = 2**18
"""Tensors of one model: each takes some 500 bytes of memory."""
_MOST_AXES, _LARGEST_AXIS = 32, 2**40
_SHOWN = 3  # names in a message
_LONGEST = 100  # characters of a name in a message


class Stored(abc.ABC):
    """Weights in files, of which a reader gives rows; all else that is asked of stored weights is here."""

    def __init__(
        self,
        name: str,
        kind: str,
        tensors: Mapping[str, TensorSpec],
        config: Json | None = None,
        roles: Roles | None = None,
    ) -> None:
        """Describe them.

        Args:
            name: What a person calls the model.
            kind: Name of the format.
            tensors: Name to shape and element type, in the order of the file.
            config: The configuration that stands beside or among them.
            roles: What the tensors are for, if the format's own graph says it.

        Raises:
            ModelError: When there are too many, or one is too large.
        """
        expect_few(len(tensors), name)
        self.name, self.format, self.tensors = name, kind, tensors
        self.config: Json = config or {}
        self.roles = roles

    def tokens(self) -> tuple[str, ...] | None:
        """The vocabulary, by the tokens' numbers, with empty strings for numbers without a token; None for none."""
        return None

    def read(self, tensor: str, rows: slice | None = None) -> Array:
        """Rows along the first axis, float32, copied.

        Args:
            tensor: One of :attr:`tensors`.
            rows: A slice of step 1; None for all.

        Raises:
            KeyError: When there is no such tensor.
            ModelError: When the file is damaged, or holds what is no finite number there.
        """
        shape = self.tensors[tensor].shape
        start, stop, step = (rows or slice(None)).indices(shape[0]) if shape else (0, 1, 1)
        if step != 1:
            raise ValueError(f"expected a slice of step 1, found {rows}")
        values = self._rows(tensor, start, max(start, stop))
        if not np.isfinite(values).all():
            raise ModelError(f"{self.name}: expected finite numbers in {shown(tensor)}, found NaN or infinity")
        return values

    @abc.abstractmethod
    def _rows(self, tensor: str, start: int, stop: int) -> Array:
        """Rows from ``start`` up to ``stop``, float32, writable; all of a tensor without axes."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give the file back."""


class Wrapped(Stored):
    """Weights of which something is said that their own file does not say."""

    def __init__(self, inner: Stored, kind: str | None = None, config: Json | None = None) -> None:
        """Wrap weights; format and configuration are theirs where none is given."""
        super().__init__(inner.name, kind or inner.format, inner.tensors, config or inner.config, inner.roles)
        self.inner = inner

    def tokens(self) -> tuple[str, ...] | None:
        """Theirs."""
        return self.inner.tokens()

    def _rows(self, tensor: str, start: int, stop: int) -> Array:
        return self.inner.read(tensor, slice(start, stop) if self.tensors[tensor].shape else None)

    def close(self) -> None:
        """Give their file back."""
        self.inner.close()


class Joined(Stored):
    """Weights that lie in several files."""

    def __init__(self, name: str, kind: str, parts: Sequence[Stored]) -> None:
        """Join parts, no two of which hold a tensor of the same name."""
        self._owners = {tensor: part for part in parts for tensor in part.tensors}
        self._parts = parts
        super().__init__(name, kind, {tensor: part.tensors[tensor] for tensor, part in self._owners.items()})

    def _rows(self, tensor: str, start: int, stop: int) -> Array:
        return self._owners[tensor].read(tensor, slice(start, stop) if self.tensors[tensor].shape else None)

    def close(self) -> None:
        """Give all files back."""
        for part in self._parts:
            part.close()


class Bytes:
    """An open file, read at any place."""

    def __init__(self, path: Path, name: str, what: str) -> None:
        """Open a file.

        Args:
            path: The file.
            name: What messages call it.
            what: What it should be, for messages.

        Raises:
            ModelError: When it is missing, no regular file, or cannot be opened.
        """
        self.name = name
        self._file = open_regular(path, what, NO_LIMIT, ModelError)
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, start: int, size: int) -> Array:
        """So many bytes from there, uint8, writable.

        Raises:
            ModelError: When the file has fewer.
        """
        if not 0 <= size <= self.size - start:
            raise self.damaged("it ends too early")
        data = np.empty(size, np.uint8)
        view, done = data.data, 0
        while done < size:
            try:
                count = os.preadv(self._file.fileno(), [view[done : done + 2**30]], start + done)
            except OSError as error:
                raise ModelError(f"{self.name}: cannot be read: {error.strerror}") from error
            if not count:
                raise self.damaged("it was cut while it was read")
            done += count
        return data

    def damaged(self, why: str) -> ModelError:
        """The error of a file that is not as it says."""
        return ModelError(f"{self.name}: expected whole weights, found a damaged file: {why}")

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def places(shape: Sequence[int]) -> int | None:
    """How many numbers a tensor of this shape has; None for a shape that no network's weights have."""
    if len(shape) > _MOST_AXES or not all(0 <= size <= _LARGEST_AXIS for size in shape):
        return None
    # Empty ones, too: of no tensor may the other axes alone be larger than what can be addressed.
    if math.prod(max(size, 1) for size in shape) > 2**48:
        return None
    return math.prod(shape)


def expect_few(tensors: int, name: str) -> None:
    """Refuse a model of more tensors than any has.

    Raises:
        ModelError: When it has.
    """
    if tensors > MOST_TENSORS:
        raise ModelError(f"{name}: expected at most {MOST_TENSORS} tensors, found {tensors}")


def shown(name: str) -> str:
    """The name of a tensor in a message."""
    return repr(clean(name, _LONGEST))


def few(names: Sequence[str]) -> str:
    """The first of some names, in a message."""
    more = len(names) - _SHOWN
    return ", ".join(map(shown, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")

"""Protocol buffers in a file, read by seeking: what is long is passed over, and nothing of it is believed. No ONNX."""

import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

NUMBER, BYTES = 0, 2
"""How a field is written: as a number, or as bytes with their length before them."""
_FIXED = {1: 8, 5: 4}  # numbers of as many bytes, whatever they are
_HEAD = 20  # bytes of the longest key and length


class WireError(ValueError):
    """What is no message, or one of more fields than are read."""


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: Which one it is.
        kind: How it is written.
        head: Where it begins in the file.
        start: Where its content begins; its length is before it.
        end: Where it ends.
        value: The number that it is, 0 for what is none.
    """

    number: int
    kind: int
    head: int
    start: int
    end: int
    value: int


class Messages:
    """A file of messages in one another."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        """Read a file.

        Args:
            file: One that can be sought in.
            most: Fields that are read of it in all.
        """
        self._file, self._left = file, most
        self.size = file.seek(0, io.SEEK_END)

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message that lies there.

        Raises:
            WireError: Where there is none.
        """
        while start < end:
            self._left -= 1
            if self._left < 0:
                raise WireError("too many fields")
            head = self.read(start, min(end, start + _HEAD))
            key, at = _varint(head, 0)
            kind, value = key & 7, 0
            if kind == NUMBER:
                value, at = _varint(head, at)
                size = 0
            elif kind == BYTES:
                size, at = _varint(head, at)
            elif kind in _FIXED:
                size = _FIXED[kind]
            else:
                raise WireError(f"a field of the kind {kind}")
            stop = start + at + size
            if stop > end:
                raise WireError("a field that is longer than what it is in")
            yield Field(key >> 3, kind, start, start + at, stop, value)
            start = stop

    def read(self, start: int, end: int) -> bytes:
        """The bytes of the file that lie there."""
        self._file.seek(start)
        return self._file.read(end - start)


def framed(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return _written(number << 3 | BYTES) + _written(len(content)) + content


def _varint(data: bytes, at: int) -> tuple[int, int]:
    # The number there, and where it ends: seven bits a byte, the lowest first; the eighth says that there are more.
    value = 0
    for shift in range(0, 64, 7):
        if at == len(data):
            raise WireError("a number without an end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WireError("a number of too many bytes")


def _written(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)

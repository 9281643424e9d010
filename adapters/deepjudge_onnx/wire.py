"""Protocol buffers in a file, read by seeking: what is long is passed over, and nothing of it is believed. No ONNX."""

import functools
import io
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

NUMBER, BYTES = 0, 2
"""How a field is written: as a number, or as bytes with their length before them."""
_FIXED = {1: 8, 5: 4}  # numbers of as many bytes, whatever they are
_HEAD = 20  # bytes of the longest key and length
_WINDOW = 2**16  # bytes of the file that are held


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
        self._window, self._begin = b"", 0  # bytes of the file, and where they begin
        self.size = file.seek(0, io.SEEK_END)

    def fields(self, start: int, end: int, *, skim: bool = False) -> Iterator[Field]:
        """The fields of the message that lies there.

        Args:
            start: Where it begins in the file.
            end: Where it ends.
            skim: Whether numbers of one field that stand behind one another, as those of lists do, count as the first.

        Raises:
            WireError: Where there is none.
        """
        while start < end:
            self._left -= 1
            if self._left < 0:
                raise WireError("too many fields")
            at = first = self._seek(start, min(end, start + _HEAD))
            window = self._window
            key, at = _varint(window, at)
            if key < 0x08:  # a hole in a file, terabytes of which take no room, reads as field 0 without end
                raise WireError("a field of number 0")
            kind, value = key & 7, 0
            if kind == NUMBER:
                value, at = _varint(window, at)
                size = 0
            elif kind == BYTES:
                size, at = _varint(window, at)
            elif kind in _FIXED:
                size = _FIXED[kind]
            else:
                raise WireError(f"a field of kind {kind}")
            begin = start + at - first
            stop = begin + size
            if stop > end:
                raise WireError("a field longer than the message that contains it")
            yield Field(key >> 3, kind, start, begin, stop, value)
            start = stop
            if skim and kind != BYTES and key < 0x80:
                start = self._behind_equals(key, start, end)

    def _behind_equals(self, key: int, start: int, end: int) -> int:
        # Where the numbers of this field end that stand behind one another.
        while start < end:
            at = self._seek(start, min(end, start + _HEAD))
            run = _run(key).match(self._window, at, at + end - start)
            if run is None:
                break
            start += run.end() - at
        return start

    def _seek(self, start: int, end: int) -> int:
        # The place in the window of what lies there in the file.
        if not self._begin <= start <= end <= self._begin + len(self._window):
            self._window, self._begin = self.read(start, start + _WINDOW), start
        return start - self._begin

    def read(self, start: int, end: int) -> bytes:
        """The bytes of the file that lie there."""
        self._file.seek(start)
        return self._file.read(end - start)


@functools.lru_cache(maxsize=128)
def _run(key: int) -> re.Pattern[bytes]:
    size = _FIXED.get(key & 7)
    number = b"[\x80-\xff]{0,9}[\x00-\x7f]" if size is None else b".{%d}" % size
    return re.compile(b"(?:%b%b)++" % (re.escape(bytes([key])), number), re.DOTALL)


def framed(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return _written(number << 3 | BYTES) + _written(len(content)) + content


def _varint(data: bytes, at: int) -> tuple[int, int]:
    # The number there, and where it ends: seven bits a byte, the lowest first; the eighth says that there are more.
    if at < len(data) and data[at] < 0x80:  # nearly always
        return data[at], at + 1
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            raise WireError("a number without end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WireError("a number with too many bytes")


def _written(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)

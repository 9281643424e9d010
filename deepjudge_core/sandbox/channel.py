"""Messages between an audit and the worker that runs a stranger's model.

A message is a header, JSON of limited length, and the arrays that it announces: raw, little-endian, row by row. Whoever
receives one says which arrays it expects, and reads no others: a worker cannot make the audit read, allocate or
evaluate anything.
"""

import json
import math
import os
import select
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepjudge_core.files.reading import parse_json
from deepjudge_core.types import Array

_LENGTH = struct.Struct("<I")
_LONGEST_HEADER = 2**22  # bytes; of a model with thousands of layers
_CHUNK = 2**20
_PATIENCE = 0.5  # seconds between two looks at the other side
_TYPES = {name: np.dtype(name).newbyteorder("<") for name in ("float16", "float32", "float64", "int64")}


class ChannelError(Exception):
    """The other side sent what is no message, or not the one expected."""


class ClosedError(ChannelError):
    """The other side is gone."""


class LateError(ChannelError):
    """The other side took longer than it may."""


@dataclass(frozen=True, eq=False)
class Message:
    """JSON values, and arrays of numbers."""

    values: Mapping[str, Any]
    arrays: Sequence[Array] = field(default_factory=tuple)


@dataclass(frozen=True)
class ArraySpec:
    """Shape and type of an array that is expected."""

    shape: tuple[int, ...]
    dtype: str = "float32"


Expected = Callable[[Mapping[str, Any]], Sequence[ArraySpec]]


class Channel:
    """One end of a pair of pipes."""

    def __init__(self, reading: int, writing: int, watch: Callable[[], None] = lambda: None) -> None:
        """Take over two file descriptors, which become non-blocking.

        Args:
            reading: Where the other side's messages come from.
            writing: Where messages go to.
            watch: Called from time to time while the other side is waited for; may raise.
        """
        self._reading, self._writing, self._watch = reading, writing, watch
        self._looked = time.monotonic()
        for descriptor in (reading, writing):
            os.set_blocking(descriptor, False)

    def close(self) -> None:
        """Close both."""
        os.close(self._reading)
        os.close(self._writing)

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Send a message.

        Args:
            message: Arrays of other types go as float32.
            timeout: Seconds; None to wait for ever.

        Raises:
            ClosedError, LateError: When the other side is gone, or does not read it.
        """
        arrays = [np.ascontiguousarray(a, _TYPES.get(np.asarray(a).dtype.name, "<f4")) for a in message.arrays]
        announced = [[list(array.shape), array.dtype.name] for array in arrays]
        header = json.dumps({"values": dict(message.values), "arrays": announced}).encode()
        deadline = _deadline(timeout)
        self._write(memoryview(_LENGTH.pack(len(header)) + header), deadline)
        for array in arrays:
            self._write(memoryview(array.reshape(-1).view(np.uint8).data), deadline)

    def receive(self, expected: Expected | None = None, timeout: float | None = None) -> Message:
        """Receive a message.

        Args:
            expected: Which arrays it must have, from its values; None to take what is announced, from a side that is
                trusted.
            timeout: Seconds; None to wait for ever.

        Raises:
            ChannelError: When the other side is gone or late, or sends something else.
        """
        deadline = _deadline(timeout)
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
        if length > _LONGEST_HEADER:
            raise ChannelError(f"a header of {length} bytes")
        values, announced = _parse(bytes(self._read(length, deadline)))
        if expected is not None and announced != (specs := list(expected(values))):
            raise ChannelError(f"answers of shape {_shapes(announced)} instead of {_shapes(specs)}")
        return Message(values, [self._array(one, deadline) for one in announced])

    def _array(self, announced: ArraySpec, deadline: float | None) -> Array:
        dtype = _TYPES[announced.dtype]
        data = self._read(math.prod(announced.shape) * dtype.itemsize, deadline)
        return np.frombuffer(data, dtype).reshape(announced.shape).astype(announced.dtype, copy=False)

    def _read(self, length: int, deadline: float | None) -> bytearray:
        data = bytearray(length)
        view, done = memoryview(data), 0
        while done < length:
            self._wait(self._reading, select.POLLIN, deadline)
            try:
                count = os.readv(self._reading, [view[done : done + _CHUNK]])
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClosedError from error
            if count == 0:
                raise ClosedError
            done += count
        return data

    def _write(self, data: memoryview, deadline: float | None) -> None:
        while data:
            self._wait(self._writing, select.POLLOUT, deadline)
            try:
                data = data[os.write(self._writing, data[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClosedError from error

    def _wait(self, descriptor: int, event: int, deadline: float | None) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        while not poll.poll(_PATIENCE * 1000 if deadline is None else _left(deadline) * 1000):
            if deadline is not None and time.monotonic() >= deadline:
                raise LateError
            self._look()
        if time.monotonic() - self._looked >= _PATIENCE:  # also at one that never lets itself be waited for
            self._look()

    def _look(self) -> None:
        self._watch()
        self._looked = time.monotonic()


def _left(deadline: float) -> float:
    return min(_PATIENCE, max(0.0, deadline - time.monotonic()))


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _parse(data: bytes) -> tuple[dict[str, Any], list[ArraySpec]]:
    # Of a side that may be hostile: nothing but what `send` writes.
    try:
        header = parse_json(data)
        values = header["values"]
        announced = [ArraySpec(tuple(map(int, shape)), str(dtype)) for shape, dtype in header["arrays"]]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ChannelError("a header that is not JSON") from error
    if not isinstance(values, dict) or any(one.dtype not in _TYPES or min((0, *one.shape)) < 0 for one in announced):
        raise ChannelError("a header that is not JSON")
    return values, announced


def _shapes(announced: Sequence[ArraySpec]) -> str:
    return " and ".join(f"{one.dtype} {'x'.join(map(str, one.shape))}" for one in announced) or "none"

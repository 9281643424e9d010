"""Reads messages of protobuf, each step within their bounds. Knows no schema."""

from collections.abc import Iterator

from deepjudge_core.errors import ModelError

Value = int | memoryview
_LENGTHS = {1: 8, 5: 4}  # of numbers of fixed length
_NUMBER, _BYTES = 0, 2


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """The fields of a message, in their order: the number of each, and its value.

    Raises:
        ModelError: When one leads out of it.
    """
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == _NUMBER:
            value, place = _varint(message, place)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in _LENGTHS:
            length = _LENGTHS[kind]
        else:
            raise _damaged()
        if length > len(message) - place:
            raise _damaged()
        yield tag >> 3, message[place : place + length]
        place += length


def messages(message: memoryview, *path: int) -> Iterator[memoryview]:
    """The messages, or texts, that fields of these numbers lead to, each in the one before."""
    number, *rest = path
    for field, value in fields(message):
        if field == number and isinstance(value, memoryview):
            if rest:
                yield from messages(value, *rest)
            else:
                yield value


def numbers(message: memoryview, *path: int) -> Iterator[int]:
    """The numbers that fields of these numbers lead to, each in the message before."""
    *around, last = path
    for inner in messages(message, *around):
        yield from (value for field, value in fields(inner) if field == last and isinstance(value, int))


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    # Seven bits a byte, the lowest first; the eighth says that there are more.
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _damaged()


def _damaged() -> ModelError:
    return ModelError("expected fields within the file, found others; it is damaged or truncated")

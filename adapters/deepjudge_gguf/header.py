"""What stands before the numbers of a GGUF file: its metadata and the places of its tensors. Knows no gguf.

The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3. The package ``gguf``
reads headers, too, but believes their counts, and takes seconds for the vocabulary of a language model.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import readable
from deepjudge_core.weights.reading.stored import Bytes, expect_few, shown
from deepjudge_core.weights.reading.vocabulary import MOST_TOKENS

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = dict(enumerate(["<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"])) | {10: "<Q", 11: "<q", 12: "<d"}
_TOKENS, ALIGNMENT = "tokenizer.ggml.tokens", "general.alignment"
# Far above what models have: keys, bytes of a key and of the whole header, axes.
_MOST_KEYS, _LONGEST_KEY, _LARGEST, _MOST_AXES = 4096, 2**16 - 1, 2**27, 4
# Of what is kept beside tokens: bytes of a text, numbers of a list.
_LONGEST_TEXT, _LONGEST_LIST = 2**14, 2**10
_MOST_STRINGS = 2 * MOST_TOKENS  # of a list: tokens, and the pairs of which they were merged
_WINDOW = 2**20  # bytes that are read at once


class Place(NamedTuple):
    """A tensor, as the header has it.

    Attributes:
        shape: Its axes, that of rows first, as everywhere but in such files.
        kind: Number of its type.
        offset: Where it begins, counted from the end of the header.
    """

    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Header:
    """What stands before the numbers.

    Attributes:
        metadata: Key to number, text or list of numbers; long ones are left out.
        tokens: Where in the file the list of tokens lies, and how many there are; None without one.
        tensors: Name to place, in the order of the file.
        end: Where the header ends.
    """

    metadata: Mapping[str, Any]
    tokens: tuple[int, int] | None
    tensors: Mapping[str, Place]
    end: int


def expect_gguf(path: Path, name: str) -> None:
    """Refuse a file that does not begin as GGUF does.

    Raises:
        ModelError: When it does not, or cannot be read.
    """
    with readable(name, "a GGUF file"), path.open("rb") as file:
        start = file.read(8)
    if start[:4] != MAGIC:
        raise ModelError(f"{name}: expected a GGUF file, found an empty, truncated or another file")
    version = int.from_bytes(start[4:], "little")
    if version not in _VERSIONS:
        kind = "one for big-endian processors" if version and version % 2**16 == 0 else f"version {version}"
        raise ModelError(f"{name}: expected GGUF of version 2 or 3, found {kind}; convert the model again")


def read_header(file: Bytes) -> Header:
    """Read the header of a file that begins as GGUF does.

    Raises:
        ModelError: When it is damaged, or larger than that of any model.
    """
    cursor = _Cursor(file)
    tensors, keys = cursor.numbers("<8x2Q")
    expect_few(tensors, file.name)
    if keys > _MOST_KEYS:
        raise ModelError(f"{file.name}: expected at most {_MOST_KEYS} keys, found {keys}")
    metadata, seen, tokens = dict[str, Any](), set[str](), None
    for _ in range(keys):
        key = cursor.name()
        if key in seen:
            raise file.damaged(f"the key {shown(key)} twice")
        seen.add(key)
        (kind,) = cursor.numbers("<I")
        if key == _TOKENS and kind == _ARRAY:
            tokens = cursor.skip_tokens()
        else:
            value = cursor.value(kind)
            if value is not None:
                metadata[key] = value
    return Header(metadata, tokens, _places(cursor, tensors), cursor.at)


def read_tokens(file: Bytes, at: int, count: int) -> tuple[str, ...]:
    """The tokens that lie at a place, as :class:`Header` has it.

    Raises:
        ModelError: When the file was changed.
    """
    cursor = _Cursor(file, at)
    return tuple(cursor.text().decode("utf-8", "replace") for _ in range(count))


def _places(cursor: "_Cursor", count: int) -> dict[str, Place]:
    places = dict[str, Place]()
    for _ in range(count):
        name = cursor.name()
        (axes,) = cursor.numbers("<I")
        if name in places or axes > _MOST_AXES:
            raise cursor.file.damaged(f"the tensor {shown(name)} twice, or with {axes} axes")
        *shape, kind, offset = cursor.numbers(f"<{axes}QIQ")
        places[name] = Place(tuple(reversed(shape)), kind, offset)
    return places


class _Cursor:
    # Walks through a file from its start, window by window.
    def __init__(self, file: Bytes, at: int = 0) -> None:
        self.file, self.at = file, at
        self._window, self._begin = b"", 0

    def take(self, size: int) -> bytes:
        start = self.at - self._begin
        if not 0 <= start <= start + size <= len(self._window):
            if self.at + size > min(self.file.size, _LARGEST):
                raise self.file.damaged("its header ends behind the file, or is larger than that of any model")
            self._begin, start = self.at, 0
            wanted = min(max(size, _WINDOW), self.file.size - self.at)
            self._window = self.file.read(self.at, wanted).tobytes()
        self.at += size
        return self._window[start : start + size]

    def numbers(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def text(self) -> bytes:
        return self.take(int.from_bytes(self.take(8), "little"))

    def name(self) -> str:
        text = self.text()
        try:
            name = text.decode("utf-8")
        except UnicodeDecodeError:
            raise self.file.damaged("a name that is not UTF-8") from None
        if not 0 < len(text) <= _LONGEST_KEY:
            raise self.file.damaged(f"a name of {len(text)} bytes")
        return name

    def value(self, kind: int) -> Any:
        # None for what is not kept.
        if kind == _STRING:
            text = self.text()
            return text.decode("utf-8", "replace") if len(text) <= _LONGEST_TEXT else None
        if kind == _ARRAY:
            return self._list()
        (number,) = self.numbers(self._layout(kind))
        return number

    def skip_tokens(self) -> tuple[int, int] | None:
        kind, count = self.numbers("<IQ")
        at = self.at
        if kind != _STRING or count > MOST_TOKENS:
            raise self.file.damaged(f"a vocabulary of {count} tokens of the type {kind}")
        self._skip_strings(count)
        return at, count

    def _list(self) -> list[Any] | None:
        kind, count = self.numbers("<IQ")
        if kind == _STRING:
            self._skip_strings(count)
            return None
        layout = self._layout(kind)
        if count > _LONGEST_LIST:
            self._skip(count * struct.calcsize(layout))
            return None
        return list(self.numbers(f"<{count}{layout[1:]}"))

    def _skip_strings(self, count: int) -> None:
        if count > _MOST_STRINGS:
            raise self.file.damaged(f"a list of {count} texts")
        for _ in range(count):
            self._skip(int.from_bytes(self.take(8), "little"))

    def _skip(self, size: int) -> None:
        if self.at + size > min(self.file.size, _LARGEST):
            raise self.file.damaged("its header ends behind the file, or is larger than that of any model")
        self.at += size

    def _layout(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise self.file.damaged(f"a value of the unknown type {kind}")
        return _SCALARS[kind]

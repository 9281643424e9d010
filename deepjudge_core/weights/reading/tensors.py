"""Files of safetensors, single or behind an index: https://huggingface.co/docs/safetensors/index#format.

The library that writes them cannot read every type of number without a framework, nor rows alone without mapping the
file into memory. The format is simple enough to be read here, and what is checked is what its own reader checks.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from deepjudge_core.errors import ModelError
from deepjudge_core.files.documents import Document, parse
from deepjudge_core.files.reading import LARGEST_JSON, parse_json
from deepjudge_core.types import Array
from deepjudge_core.weights.reading.numbers import BITS, READ, as_float32
from deepjudge_core.weights.reading.shards import read_shards
from deepjudge_core.weights.reading.stored import Bytes, Joined, Stored, expect_few, few, places, shown
from deepjudge_core.weights.values import TensorSpec

FORMAT = "safetensors"
_LENGTH = 8  # bytes before the header, which say how long it is
_METADATA = "__metadata__"
_EXPECTED = "a safetensors file"

_Place = Annotated[int, Meta(ge=0)]


class _Entry(Document, frozen=True):
    dtype: str
    shape: tuple[_Place, ...]
    data_offsets: tuple[_Place, _Place]


class _Tensor(NamedTuple):
    kind: str
    shape: tuple[int, ...]
    start: int
    numbers: int


class SafeTensors(Stored):
    """The weights in one file of safetensors."""

    def __init__(self, path: Path, name: str) -> None:
        """Open a file; see :func:`open_tensors`."""
        self._file = Bytes(path, name, _EXPECTED)
        try:
            self._places = _header(self._file)
            super().__init__(name, FORMAT, {one: TensorSpec(at.shape, at.kind) for one, at in self._places.items()})
        except BaseException:
            self._file.close()
            raise

    def _rows(self, tensor: str, start: int, stop: int) -> Array:
        kind, shape, begin, count = self._places[tensor]
        if kind not in READ:
            raise ModelError(
                f"{self.name}: expected numbers of the types {', '.join(sorted(READ))}, found {kind} in {shown(tensor)}"
            )
        rows = stop - start if shape else 1
        # Of numbers that are read each has whole bytes.
        row = (count // shape[0] if shape and shape[0] else 1 if not shape else 0) * BITS[kind] // 8
        return as_float32(self._file.read(begin + start * row, rows * row), kind).reshape(
            (rows, *shape[1:])[: len(shape)]
        )

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def open_tensors(path: Path, *, name: str) -> Stored:
    """Open a file of safetensors, or an index of several.

    Of the file, the header alone is read.

    Args:
        path: A ``.safetensors`` or ``.safetensors.index.json`` file.
        name: What messages call it.

    Raises:
        ModelError: When it is none, is damaged, or is such as no model's is.
    """
    if not path.name.lower().endswith(".index.json"):
        return SafeTensors(path, name)
    shards, parts = read_shards(path, name), list[SafeTensors]()
    expect_few(sum(map(len, shards.values())), name)
    try:
        for file, tensors in shards.items():
            part = SafeTensors(path.with_name(file), f"{name}: {file}")
            parts.append(part)
            others = sorted(part.tensors.keys() ^ set(tensors))
            if others:
                raise ModelError(f"{part.name}: expected the weights that the index names, found others: {few(others)}")
        return Joined(name, FORMAT, parts)
    except BaseException:
        for part in parts:
            part.close()
        raise


def _header(file: Bytes) -> dict[str, _Tensor]:
    if file.size < _LENGTH:
        raise _other(file, "a file of fewer than 8 bytes")
    length = int.from_bytes(file.read(0, _LENGTH).tobytes(), "little")
    if length > file.size - _LENGTH:
        raise _other(file, "a truncated or another file")
    if length > LARGEST_JSON:
        raise ModelError(f"{file.name}: expected a header of at most {LARGEST_JSON} bytes, found {length}")
    try:
        header = parse_json(file.read(_LENGTH, length).tobytes())
        if not isinstance(header, dict):
            raise ValueError("it is not an object")
        parse(dict[str, str], header.pop(_METADATA, {}))
        entries = {name: _entry(name, value) for name, value in header.items()}
    except ValueError as error:
        raise _other(file, f"a damaged header: {error}") from error
    return _located(file, entries, _LENGTH + length)


def _entry(name: str, value: Any) -> _Entry:
    try:
        return parse(_Entry, value)
    except ValueError as error:
        raise ValueError(f"{shown(name)}: {error}") from None


def _located(file: Bytes, entries: dict[str, _Entry], begin: int) -> dict[str, _Tensor]:
    # Tensors lie behind one another without gaps, so that none overlap and nothing is hidden between them.
    at, found = 0, dict[str, _Tensor]()
    for name, entry in sorted(entries.items(), key=lambda one: one[1].data_offsets):
        bits, count = BITS.get(entry.dtype), places(entry.shape)
        start, stop = entry.data_offsets
        if bits is None or count is None:
            raise file.damaged(f"{shown(name)} is of the type {entry.dtype[:20]!r} and the shape {entry.shape[:8]}")
        if start != at or count * bits != 8 * (stop - start):
            raise file.damaged(
                f"the bytes of {shown(name)} do not match its shape, or do not follow the tensor before it"
            )
        at = stop
        found[name] = _Tensor(entry.dtype, entry.shape, begin + start, count)
    if begin + at != file.size:
        raise file.damaged(f"it has {file.size} bytes, and its header accounts for {begin + at}")
    return {name: found[name] for name in entries}


def _other(file: Bytes, found: str) -> ModelError:
    return ModelError(f"{file.name}: expected {_EXPECTED}, found {found}")

"""The weights in GGUF files, dequantised by the package gguf, which is imported here."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from deepjudge_core.errors import ModelError
from deepjudge_core.types import Array
from deepjudge_core.weights.reading.numbers import READ, as_float32
from deepjudge_core.weights.reading.stored import Bytes, Joined, Stored, places, shown
from deepjudge_core.weights.values import TensorSpec
from deepjudge_gguf.header import ALIGNMENT, Header, read_header, read_tokens
from deepjudge_gguf.shards import parts

FORMAT = "GGUF"
_SPLITS, _ARCHITECTURE = "split.count", "general.architecture"
_ALIGNMENT = 32  # where the file does not say
_CHUNK = 2**20  # numbers that are dequantised at once
# What Hugging Face's configurations call what stands under the architecture's name.
_KEYS = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "vocab_size": "vocab_size",
}
# Architectures of which llama.cpp stores the rows of queries and keys in another order than Hugging Face: each head's
# halves, which rotate together, are interleaved.
_INTERLEAVED = {"llama"}


class _Tensor(NamedTuple):
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    start: int
    row: int  # bytes of a row; 0 where rows are numbers of which several share their bytes
    heads: int  # in which rows are interleaved; 0 for none


class GgufWeights(Stored):
    """The weights in one GGUF file."""

    def __init__(self, path: Path, name: str, first: Mapping[str, Any] | None = None) -> None:
        """Open a file.

        Args:
            path: The file.
            name: What messages call it.
            first: Metadata of the model's first file, if this is another one.

        Raises:
            ModelError: When it is damaged.
        """
        self._file = Bytes(path, name, "a GGUF file")
        try:
            self._header = read_header(self._file)
            config = _config(first or self._header.metadata)
            self._places = _located(self._file, self._header, config)
            tensors = {one: TensorSpec(at.shape, at.kind.name) for one, at in self._places.items()}
            super().__init__(name, FORMAT, tensors, config)
        except BaseException:
            self._file.close()
            raise

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the file says of itself."""
        return self._header.metadata

    def tokens(self) -> tuple[str, ...] | None:
        """The vocabulary, by the tokens' numbers; None where there is none."""
        return read_tokens(self._file, *self._header.tokens) if self._header.tokens else None

    def _rows(self, tensor: str, start: int, stop: int) -> Array:
        place = self._places[tensor]
        if not place.row:
            return self._decoded(place, 0, place.shape[0])[start:stop].copy()
        if not place.heads:
            return self._decoded(place, start * place.row, stop - start)
        # Whole heads are read, and their halves put behind one another.
        head = place.shape[0] // place.heads
        first, last = start // head, -(-stop // head)
        rows = self._decoded(place, first * head * place.row, (last - first) * head)
        halves = rows.reshape(last - first, head // 2, 2, *place.shape[1:]).swapaxes(1, 2)
        ordered: Array = halves.reshape(rows.shape)
        return ordered[start - first * head : stop - first * head].copy()

    def _decoded(self, place: _Tensor, at: int, rows: int) -> Array:
        # So many rows from a byte of the tensor on.
        shape = (rows, *place.shape[1:])[: len(place.shape)]
        block, width = GGML_QUANT_SIZES[place.kind]
        begin, numbers = place.start + at, math.prod(shape)
        if place.kind.name in READ:
            return as_float32(self._file.read(begin, numbers * width), place.kind.name).reshape(shape)
        values: Array = np.empty(numbers, np.float32)
        for done in range(0, numbers, _CHUNK):
            chunk = values[done : done + _CHUNK]
            data = self._file.read(begin + done // block * width, len(chunk) // block * width)
            chunk[:] = _dequantised(data, place.kind, self.name)
        return values.reshape(shape)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class SplitWeights(Joined):
    """The weights in several GGUF files."""

    def __init__(self, name: str, files: list[GgufWeights]) -> None:
        """Join them, of which the first one says what all of them are."""
        names = [tensor for file in files for tensor in file.tensors]
        if len(set(names)) < len(names):
            raise ModelError(f"{name}: expected each tensor in one of the files, found one in two")
        super().__init__(name, FORMAT, files)
        self.config, self._first = files[0].config, files[0]

    def tokens(self) -> tuple[str, ...] | None:
        """The vocabulary, which the first file holds."""
        return self._first.tokens()


def open_gguf(path: Path, *, name: str) -> Stored:
    """Open a GGUF file, or the first of several that hold one model.

    Args:
        path: The file.
        name: What messages call it.

    Raises:
        ModelError: When it is damaged, or such as no model's is.
    """
    first = GgufWeights(path, name)
    files = [first]
    try:
        count = first.metadata.get(_SPLITS, 1)
        if not isinstance(count, int) or count < 2:
            return first
        for file in parts(path, count, name)[1:]:
            files.append(GgufWeights(file, f"{name}: {file.name}", first.metadata))
        return SplitWeights(name, files)
    except BaseException:
        for opened in files:
            opened.close()
        raise


def _config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    # What a file says of itself by its own keys, and what it calls as others do.
    kind = str(metadata.get(_ARCHITECTURE, ""))
    named = {ours: metadata[f"{kind}.{key}"] for key, ours in _KEYS.items() if f"{kind}.{key}" in metadata}
    return {**metadata, **({"model_type": kind} if kind else {}), **named}


def _located(file: Bytes, header: Header, config: Mapping[str, Any]) -> dict[str, _Tensor]:
    # Tensors lie behind one another, with less than an alignment between them, so that none overlap.
    alignment = header.metadata.get(ALIGNMENT, _ALIGNMENT)
    if not (isinstance(alignment, int) and 0 < alignment <= 2**16 and alignment & (alignment - 1) == 0):
        raise file.damaged(f"an alignment of {str(alignment)[:20]} bytes")
    begin = -(-header.end // alignment) * alignment
    at, found = 0, dict[str, _Tensor]()
    for name, place in sorted(header.tensors.items(), key=lambda one: one[1].offset):
        kind, numbers = _kind(place.kind), places(place.shape)
        if kind is None or not numbers:
            raise file.damaged(f"{shown(name)} is of the type {place.kind} and the shape {place.shape}")
        block, width = GGML_QUANT_SIZES[kind]
        last = (place.shape or (1,))[-1]
        if last % block:
            raise file.damaged(f"{shown(name)} has rows of {last} numbers, which {kind.name} has not")
        if place.offset != -(-at // alignment) * alignment:
            raise file.damaged(f"{shown(name)} begins elsewhere than behind the tensor before it")
        at = place.offset + numbers // block * width
        row = math.prod(place.shape[1:]) * width // block if len(place.shape) > 1 else width if block == 1 else 0
        found[name] = _Tensor(kind, place.shape, begin + place.offset, row, _heads(name, place.shape, config))
    if begin + at > file.size:
        raise file.damaged(f"it has {file.size} bytes, and its header accounts for {begin + at}")
    return {name: found[name] for name in header.tensors}


def _heads(name: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> int:
    part = name.split(".")[2:3]
    if config.get("model_type") not in _INTERLEAVED or part not in (["attn_q"], ["attn_k"]):
        return 0
    heads = config.get("num_attention_heads")
    heads = config.get("num_key_value_heads", heads) if part == ["attn_k"] else heads
    fits = isinstance(heads, int) and heads > 0 and shape and shape[0] % (2 * heads) == 0
    return heads if fits and isinstance(heads, int) else 0


def _kind(number: int) -> GGMLQuantizationType | None:
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        return None
    return kind if kind in GGML_QUANT_SIZES else None


def _dequantised(data: Array, kind: GGMLQuantizationType, name: str) -> Array:
    try:
        with np.errstate(all="ignore"):  # what is not finite is said by who asked for it
            values: Array = dequantize(data.reshape(1, -1), kind).reshape(-1)
    except NotImplementedError:
        raise ModelError(f"{name}: expected a type that the package gguf dequantises, found {kind.name}") from None
    return values

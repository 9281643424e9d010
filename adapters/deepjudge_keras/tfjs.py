"""TensorFlow.js's layers models: layers and a list of weights in JSON, and shards of their bytes beside it.

Nothing here imports a framework.
"""

import functools
import math
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import prefixed
from deepjudge_core.types import Array
from deepjudge_keras import jsontext

FILE = "model.json"
"""The file that is looked for in a folder."""

SUFFIX = ".json"

_TOPOLOGY, _MANIFEST = "modelTopology", "weightsManifest"
_PLAIN = re.compile(r"[\w\-][\w.\- ]{0,99}", re.ASCII)
_NUMBERS = {"float32": "<f4", "int32": "<i4", "bool": "?"}
_QUANTISED = {"uint8": "u1", "uint16": "<u2", "float16": "<f2"}


@dataclass(frozen=True)
class Weight:
    """One table of weights, as the list has it.

    Attributes:
        name: Such as ``conv2d/kernel``.
        shape: Of it.
        dtype: Of what it is to be.
        stored: Of what its bytes are.
        scale: By which whole numbers are multiplied.
        offset: What is added to them then.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    scale: float = 1.0
    offset: float = 0.0

    @property
    def numbers(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """How many bytes they take."""
        return self.numbers * self.stored.itemsize

    def decode(self, data: bytes) -> Array:
        """The table in its bytes."""
        table: Array = np.frombuffer(data, self.stored).reshape(self.shape)
        if self.stored.kind == "u":
            table = table * self.scale + self.offset
            table = np.round(table) if self.dtype.kind == "i" else table
        return table.astype(self.dtype, copy=False)


@dataclass(frozen=True)
class Group:
    """Weights that stand one behind the other.

    Attributes:
        shards: Names of the files that hold their bytes, in this order.
        weights: What they are.
    """

    shards: Sequence[str]
    weights: Sequence[Weight]


@dataclass(frozen=True)
class Contents:
    """What ``model.json`` says.

    Attributes:
        config: Of the layers, as Keras writes it; None of a model that is a graph of operations.
        version: Of what wrote it.
        groups: Of weights.
    """

    config: Any
    version: object
    groups: Sequence[Group]

    @property
    def shards(self) -> list[str]:
        """Names of the files beside it."""
        return [shard for group in self.groups for shard in group.shards]

    @property
    def numbers(self) -> int:
        """How many numbers the weights have."""
        return sum(weight.numbers for group in self.groups for weight in group.weights)


def is_model(path: Path) -> bool:
    """Whether a path is named as one: the file, or a folder in which it is."""
    return (path / FILE).is_file() if path.is_dir() else path.suffix.lower() == SUFFIX


def file_of(path: Path) -> Path:
    """The file that says what the model is."""
    return path / FILE if path.is_dir() else path


def read(path: Path) -> Contents:
    """Read the file, or that in a folder.

    Raises:
        ModelError: When it is something else.
        OSError: When it cannot be read.
    """
    with prefixed(str(path)):
        return _contents(_text(path))


def shards(path: Path) -> tuple[str, ...]:
    """Names of the files that hold a model's weights; the same bytes are read through once.

    Raises:
        ModelError: When it is something else.
        OSError: When it cannot be read.
    """
    with prefixed(str(path)):
        return _shards_in(_text(path))


def _text(path: Path) -> bytes:
    with file_of(path).open("rb") as file:
        return file.read(jsontext.LENGTH + 1)


@functools.lru_cache(maxsize=1)
def _shards_in(text: bytes) -> tuple[str, ...]:
    return tuple(_contents(text).shards)


def _contents(text: bytes) -> Contents:
    content = jsontext.parse_strictly(text)
    if not isinstance(content, dict) or _TOPOLOGY not in content or _MANIFEST not in content:
        raise ModelError(
            f"expected a TensorFlow.js model, found JSON without {_TOPOLOGY} and {_MANIFEST}; name model.json"
        )
    groups = _groups(content[_MANIFEST])
    topology = content[_TOPOLOGY]
    if not isinstance(topology, dict):
        raise ModelError(f"expected a TensorFlow.js model, found one with an invalid {_TOPOLOGY}; convert it again")
    layered = "node" not in topology and content.get("format", "layers-model") == "layers-model"
    config = topology.get("model_config", topology) if layered else None
    return Contents(config, topology.get("keras_version"), groups)


def arrays(path: Path, contents: Contents) -> Iterator[tuple[str, Array]]:
    """Name and table of each weight.

    Raises:
        ModelError: When the shards are missing, or hold other numbers of bytes than they should.
    """
    folder = file_of(path).parent
    for group in contents.groups:
        held, needed = sum(_size(folder / shard) for shard in group.shards), sum(w.size for w in group.weights)
        if held != needed:
            raise ModelError(
                f"expected {needed} bytes of weights in {', '.join(group.shards):.80}, found {held}; copy "
                "them again, or convert the model again"
            )
        data = b"".join((folder / shard).read_bytes() for shard in group.shards)
        start = 0
        for weight in group.weights:
            yield weight.name, weight.decode(data[start : start + weight.size])
            start += weight.size


def _size(shard: Path) -> int:
    try:
        entry = shard.lstat()
    except OSError:
        entry = None
    if entry is None or not stat.S_ISREG(entry.st_mode):
        raise ModelError(
            f"expected the file {shard.name!r:.80} next to it, found {'none' if entry is None else 'a link'}; "
            "copy it there"
        )
    return entry.st_size


def _groups(manifest: Any) -> list[Group]:
    if not isinstance(manifest, list) or not all(isinstance(group, dict) for group in manifest):
        raise ModelError(f"expected a list of weights as {_MANIFEST}, found none; convert the model again")
    groups = [Group(_shards(group.get("paths")), _weights(group.get("weights"))) for group in manifest]
    for names in (
        [shard for group in groups for shard in group.shards],
        [weight.name for group in groups for weight in group.weights],
    ):
        if len(set(names)) != len(names):
            raise ModelError(
                f"expected each of its weights and files once in {_MANIFEST}, found one twice; convert the model again"
            )
    return groups


def _shards(paths: Any) -> list[str]:
    if not isinstance(paths, list):
        raise ModelError(f"expected file names in {_MANIFEST}, found none; convert the model again")
    names = [path.removeprefix("./") if isinstance(path, str) else "" for path in paths]  # as browsers save it
    for path, name in zip(paths, names, strict=True):
        if not _PLAIN.fullmatch(name):
            raise ModelError(
                f"expected the name of a file next to it, found {path!r:.80}; convert the model into one folder"
            )
    return names


def _weights(entries: Any) -> list[Weight]:
    if not isinstance(entries, list):
        raise ModelError(f"expected a list of weights in {_MANIFEST}, found none; convert the model again")
    return [_weight(entry) for entry in entries]


def _weight(entry: Any) -> Weight:
    match entry:
        case {"name": str(name), "shape": list(shape), "dtype": str(dtype)} if dtype in _NUMBERS and all(
            type(axis) is int and axis >= 0 for axis in shape
        ):
            stored, scale, offset = _storage(name, dtype, entry.get("quantization"))
            return Weight(name, tuple(shape), np.dtype(_NUMBERS[dtype]), np.dtype(stored), scale, offset)
    raise ModelError(
        f"expected name, shape and type of a weight in {_MANIFEST}, found {entry!r:.80}; convert the model again"
    )


def _storage(name: str, dtype: str, quantisation: Any) -> tuple[str, float, float]:
    match quantisation:
        case None:
            return _NUMBERS[dtype], 1.0, 0.0
        case {"dtype": "float16"}:
            return _QUANTISED["float16"], 1.0, 0.0
        case {
            "dtype": "uint8" | "uint16" as stored,
            "scale": int() | float() as scale,
            "min": int() | float() as least,
        }:
            if math.isfinite(scale) and math.isfinite(least) and dtype != "bool":
                return _QUANTISED[stored], float(scale), float(least)
    raise ModelError(
        f"expected {name!r:.80} unquantised, or quantised to uint8, uint16 or float16, found "
        f"{quantisation!r:.80}; convert the model again"
    )

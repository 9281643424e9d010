"""The weights in Keras's files, read without running anything. Needs neither TensorFlow nor Keras."""

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py  # type: ignore[import-untyped]
import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.files.documents import Json
from deepjudge_core.files.reading import NO_LIMIT, open_regular
from deepjudge_core.models.adapters import prefixed
from deepjudge_core.types import Array
from deepjudge_core.weights.reading.numbers import as_float32
from deepjudge_core.weights.reading.stored import Stored
from deepjudge_core.weights.values import TensorSpec
from deepjudge_keras import files, hdf5, jsontext
from deepjudge_keras.roles import roles_of_file, roles_of_live

_FORMATS = {".keras": "Keras", ".h5": "Keras HDF5", ".hdf5": "Keras HDF5"}
# What training keeps beside the weights.
_BESIDE = ("/optimizer", "/optimizer_weights")
_BFLOAT16 = "bfloat16"


class KerasWeights(Stored):
    """Tables of an HDF5 file, by their paths in it."""

    def __init__(self, name: str, kind: str, content: Any, config: Json, owned: BinaryIO) -> None:
        """Describe the tables of a file.

        Args:
            name: What messages call the model.
            kind: Of the file.
            content: The open HDF5.
            config: Of the layers; empty where there is none.
            owned: The open file in which the HDF5 lies, which is closed with it.
        """
        self._content, self._owned = content, owned
        self._tables = {
            path.removeprefix("/"): table
            for path, table in hdf5.datasets(content)
            if not path.startswith(_BESIDE) and table.dtype.kind in "fiubV"
        }
        tensors = {path: _spec(table) for path, table in self._tables.items()}
        roles = roles_of_file(config, content, {path: spec.shape for path, spec in tensors.items()})
        super().__init__(name, kind, tensors, config, roles)

    def _rows(self, tensor: str, start: int, stop: int) -> Array:
        table = self._tables[tensor]
        try:
            part = np.ascontiguousarray(table[start:stop] if table.shape else table[()])
        except (OSError, ValueError, RuntimeError) as error:  # whatever HDF5 says of what cannot be unpacked
            raise ModelError(
                f"{self.name}: expected whole weights, found a damaged file; save the model again"
            ) from error
        if part.dtype.kind == "V":
            return as_float32(part.reshape(-1).view(np.uint8), "BF16").reshape(part.shape)
        with np.errstate(over="ignore"):
            return np.array(part, np.float32)

    def close(self) -> None:
        """Give the file back."""
        self._content.close()
        self._owned.close()


class LiveWeights(Stored):
    """The weights of a live model, as they are now."""

    def __init__(self, name: str, model: Any) -> None:
        """Copy the weights of a ``keras.Model`` that is built, which stays as it is."""
        self._arrays = {weight.path: np.asarray(weight.numpy(), np.float32) for weight in model.weights}
        tensors = {path: TensorSpec(array.shape, str(array.dtype)) for path, array in self._arrays.items()}
        super().__init__(name, "Keras", tensors, roles=roles_of_live(model))

    def _rows(self, tensor: str, start: int, stop: int) -> Array:
        array = self._arrays[tensor]
        return np.array(array[start:stop] if array.ndim else array)

    def close(self) -> None:
        """Nothing is open."""


def open_stored(path: Path, *, name: str) -> Stored:
    """Open the weights of a file.

    Args:
        path: A ``.keras``, ``.h5``, ``.hdf5`` or ``.weights.h5`` file.
        name: What messages call it.

    Raises:
        ModelError: When it is none, or holds something else beside numbers.
    """
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None or path.is_dir():
        raise ModelError(
            f"{name}: expected a .keras or .h5 file, whose weights are read without running it, found another "
            "format; save the model as .keras"
        )
    files.examine(path)
    file = open_regular(path, "a Keras model", NO_LIMIT, ModelError)
    try:
        with prefixed(name):
            return _of_archive(name, kind, file) if kind == "Keras" else _of_hdf5(name, kind, file, file)
    except BaseException:
        file.close()
        raise


def _of_archive(name: str, kind: str, file: BinaryIO) -> Stored:
    with zipfile.ZipFile(file) as archive:
        with archive.open(files.CONFIG) as entry:
            config = jsontext.parse_strictly(entry.read(jsontext.LENGTH + 1))
        weights = io.BytesIO(archive.read(files.WEIGHTS))
    return _of_hdf5(name, kind, weights, file, config)


def _of_hdf5(name: str, kind: str, data: BinaryIO, file: BinaryIO, config: Any = None) -> Stored:
    size = data.seek(0, os.SEEK_END)
    try:
        content = h5py.File(data, "r")
    except OSError as error:
        raise ModelError(f"expected a Keras model, found {files.CUT_HDF5}") from error
    try:
        hdf5.elements(content, size)
        if config is None:
            text = content.attrs.get("model_config")
            config = jsontext.parse_strictly(text.encode() if isinstance(text, str) else bytes(text)) if text else {}
        return KerasWeights(name, kind, content, config if isinstance(config, Mapping) else {}, file)
    except BaseException:
        content.close()
        raise


def _spec(table: Any) -> TensorSpec:
    return TensorSpec(tuple(table.shape), _BFLOAT16 if table.dtype.kind == "V" else str(table.dtype))

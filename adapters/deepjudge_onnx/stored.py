"""The weights in ONNX files, read without running anything. Needs no ONNX Runtime."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, inliner
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import prefixed
from deepjudge_core.types import Array
from deepjudge_core.weights.reading.numbers import as_float32
from deepjudge_core.weights.reading.stored import Bytes, Stored
from deepjudge_core.weights.values import TensorSpec
from deepjudge_onnx.contents import check
from deepjudge_onnx.graph import constants
from deepjudge_onnx.loading import load
from deepjudge_onnx.modules import turned, with_names
from deepjudge_onnx.order import in_order
from deepjudge_onnx.roles import Quantisation, find_quantisations, roles_of
from deepjudge_onnx.weights import Weights

FORMAT = "ONNX"
# Of numbers that stay in files, which have whole bytes.
_KINDS = {
    TensorProto.BFLOAT16: "BF16",
    TensorProto.BOOL: "BOOL",
    TensorProto.FLOAT8E4M3FN: "F8_E4M3",
    TensorProto.FLOAT8E5M2: "F8_E5M2",
    **{getattr(TensorProto, name): f"F{bits}" for name, bits in {"FLOAT16": 16, "FLOAT": 32, "DOUBLE": 64}.items()},
    **{
        getattr(TensorProto, f"{sign}INT{bits}"): f"{sign or 'I'}{bits}"
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
    },
}
# What is not made of real numbers.
_OTHER = {TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128, TensorProto.UNDEFINED}


class OnnxWeights(Stored):
    """The constants of a graph by their names in it: those of large models stay in their files."""

    def __init__(self, name: str, model: ModelProto, weights: Weights) -> None:
        """Describe the weights of a model that :func:`deepjudge_onnx.loading.load` gave."""
        self._tensors = {key: held for key, held in constants(model).items() if held.data_type not in _OTHER}
        shapes = {key: tuple(held.dims) for key, held in self._tensors.items()}
        roles, self._turned = with_names(roles_of(model), turned(model), shapes)
        own = {held: key for key, held in self._turned.items()}
        tensors = {own.get(key, key): _spec(held, key in own) for key, held in self._tensors.items()}
        super().__init__(name, FORMAT, tensors, roles=roles)
        self._last: tuple[str, Array] | None = None  # of those turned back, which take a whole tensor to read
        self._quantisations = find_quantisations(model)
        self._weights = weights
        self._files: Mapping[str, Bytes] = {}
        if weights:
            self._files = {file: Bytes(weights.folder / file, f"{name}: {file}", "weights") for file in weights.states}

    def _rows(self, tensor: str, start: int, stop: int) -> Array:
        held = self._turned.get(tensor)
        if held is None:
            return self._real_rows(tensor, start, stop)
        if self._last is None or self._last[0] != tensor:
            self._last = tensor, self._real_rows(held, 0, self._tensors[held].dims[0])
        return self._last[1][:, start:stop].T.copy()

    def _real_rows(self, tensor: str, start: int, stop: int) -> Array:
        values = self._stored_rows(tensor, start, stop)
        quantisation = self._quantisations.get(tensor)
        return values if quantisation is None else self._real(values, quantisation, tensor, slice(start, stop))

    def _real(self, values: Array, quantisation: Quantisation, tensor: str, rows: slice) -> Array:
        # What the integers of some rows stand for.
        def numbers(name: str | None) -> Array | None:
            if not name or name not in self._tensors:
                return None
            held = self._stored_rows(name, 0, (self._tensors[name].dims or [1])[0]).reshape(-1)
            axis = quantisation.axis % max(1, values.ndim)
            if len(held) == 1 or not values.ndim:
                return held[:1]
            if len(held) != self._tensors[tensor].dims[axis]:
                raise ModelError(f"{self.name}: expected one scale for each place, found {len(held)}")
            held = held[rows] if axis == 0 else held
            return held.reshape([-1 if at == axis else 1 for at in range(values.ndim)])

        zero, scale = numbers(quantisation.zero), numbers(quantisation.scale)
        values = values if zero is None else values - zero
        return values if scale is None else values * scale

    def _stored_rows(self, tensor: str, start: int, stop: int) -> Array:
        held = self._tensors[tensor]
        if not uses_external_data(held) or held.data_type not in _KINDS:
            whole = self._weights.array(held)
            with np.errstate(over="ignore"):
                return np.array(whole[start:stop] if held.dims else whole, np.float32)
        self._weights.expect_unchanged()
        row = math.prod(held.dims[1:]) * helper.tensor_dtype_to_np_dtype(held.data_type).itemsize
        place = ExternalDataInfo(held)
        rows = stop - start if held.dims else 1
        data = self._files[place.location].read((place.offset or 0) + start * row, rows * row)
        return as_float32(data, _KINDS[held.data_type]).reshape((rows, *held.dims[1:])[: len(held.dims)])

    def close(self) -> None:
        """Give the files back."""
        for file in self._files.values():
            file.close()


def open_stored(source: Path | ModelProto, *, name: str) -> Stored:
    """Open the weights of a model, and of the files beside it that it says hold them.

    Args:
        source: The file, or a live model, which holds all of its weights.
        name: What messages call it.

    Raises:
        ModelError: When it is no model, or one that is not opened.
    """
    if isinstance(source, Path):
        model, weights, _ = load(source, name)
    else:
        with prefixed(name):
            check(source)
            model, weights = in_order(source), Weights()
    return OnnxWeights(name, inliner.inline_local_functions(model) if model.functions else model, weights)


def _spec(held: TensorProto, turned: bool) -> TensorSpec:
    dims = tuple(held.dims)
    return TensorSpec(dims[::-1] if turned else dims, TensorProto.DataType.Name(held.data_type))

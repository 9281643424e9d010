"""A TFLite file run by LiteRT, its own runtime: every tensor of it as real numbers, whatever it is kept as."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from deepjudge_core.errors import ModelError
from deepjudge_core.models.taps import Op
from deepjudge_core.text import shortened
from deepjudge_core.types import Array
from deepjudge_openvino.model import Graph
from deepjudge_openvino.operators import LAYERS, operations
from deepjudge_openvino.tflite import Network

_REAL = (np.float16, np.float32, np.float64)
_WHOLE = (np.uint8, np.int32, np.int64)
_ERRORS = (RuntimeError, ValueError)  # all that LiteRT raises

# What of one input stays for the next one, beside the states of recurrent layers, which can be reset.
_REMEMBERING = {"ASSIGN_VARIABLE"}


class LiteRtGraph(Graph):
    """The first graph of a file.

    Inputs and answers are real numbers: what is quantised is taken in, and given, as its own scale and zero point say.
    """

    device = "LiteRT CPU"

    def __init__(self, data: bytes, network: Network) -> None:
        """Open a file.

        Args:
            data: The file.
            network: What it holds.

        Raises:
            ModelError: When LiteRT cannot open it, or it has not one input of numbers; without the model's name in
                front.
        """
        self._data, self._network = data, network
        self._interpreter = self._open()
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1:
            names = shortened(", ".join(entry["name"] for entry in inputs)) or "none"
            raise ModelError(
                f"expected a model with one input, found {len(inputs)}: {names}; make the others constants, "
                "and convert it again"
            )
        [self._input] = inputs
        kind = self._input["dtype"]
        quantised = len(self._input["quantization_parameters"]["scales"]) > 0
        if not quantised and kind not in (*_REAL, *_WHOLE):
            raise ModelError(
                f"expected a numeric input, found {np.dtype(kind).name}; export the network without its text processing"
            )
        self.dtype = "float32" if quantised else np.dtype(kind).name
        signature = self._input["shape_signature"]
        axes = signature if len(signature) == len(self._input["shape"]) else self._input["shape"]
        self.shape = tuple(int(axis) if axis > 0 else None for axis in axes)
        self._details = {entry["index"]: entry for entry in self._interpreter.get_tensor_details()}
        self._names = _names(self._details)
        self._numbers = {name: number for number, name in self._names.items()}
        self.outputs = tuple(self._names[entry["index"]] for entry in self._interpreter.get_output_details())
        if any(o.kind == "IF" and self._runs(o.calls, LAYERS) for o in network.graphs[0]):
            self.hidden = "expected the same layers for every input, found an IF that depends on the input"

    def run(self, names: Sequence[str], x: Array) -> list[Array]:
        """See :class:`Graph`."""
        try:
            if self._network.kinds & _REMEMBERING:
                self._interpreter = self._open()
            if list(x.shape) != self._interpreter.get_input_details()[0]["shape"].tolist():
                self._interpreter.resize_tensor_input(self._input["index"], x.shape)
                self._interpreter.allocate_tensors()
            self._interpreter.reset_all_variables()
            self._interpreter.set_tensor(self._input["index"], _quantised(x, self._input))
            self._interpreter.invoke()
            return [self.tensor(self._numbers[name]) for name in names]
        except _ERRORS as error:
            raise ModelError(f"LiteRT cannot run it on {x.shape}: {_line(error)}") from error

    def tensor(self, number: int) -> Array:
        """A tensor as it is after the last run, or a weight, as real numbers."""
        return _dequantised(np.array(self._interpreter.get_tensor(number)), self._details[number])

    def operations(self, x: Array) -> list[Op]:
        """See :class:`Graph`."""
        self.run([], x)
        shapes = {entry["index"]: tuple(entry["shape"].tolist()) for entry in self._interpreter.get_tensor_details()}
        return operations(self._network.graphs[0], self._input["index"], self._names, shapes, self.tensor)

    def _open(self) -> Any:
        try:
            interpreter = Interpreter(
                model_content=self._data,
                num_threads=1,
                # Else tensors make room for others once they are used, and a delegate runs several operations as one.
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            interpreter.allocate_tensors()
        except _ERRORS as error:
            raise ModelError(
                f"expected a TFLite model that LiteRT can run, found {_line(error)}; convert the model again"
            ) from error
        return interpreter

    def _runs(self, calls: Sequence[int], kinds: set[str]) -> bool:
        # Whether subgraphs, or those that they run, have operations of some kinds.
        return any(
            operator.kind in kinds or self._runs(operator.calls, kinds)
            for call in calls
            for operator in self._network.graphs[call]
        )


def _names(details: dict[int, Any]) -> dict[int, str]:
    # Names of tensors, each once. Of what the converter fused, the name is all of theirs: the first one says enough.
    names: dict[int, str] = {}
    taken: set[str] = set()
    for number in sorted(details):
        name = base = str(details[number]["name"]).partition(";")[0] or f"tensor {number}"
        again = 1
        while name in taken:
            again += 1
            name = f"{base}:{again}"
        taken.add(name)
        names[number] = name
    return names


def _quantised(x: Array, detail: Any) -> Array:
    # As LiteRT's own QUANTIZE does: halves away from zero.
    scales, zeros, _ = _parameters(detail)
    if not len(scales):
        return x
    limits = np.iinfo(detail["dtype"])
    steps = x.astype(np.float32) / np.float32(scales[0])
    rounded = np.trunc(steps + np.copysign(np.float32(0.5), steps)) + zeros[0]
    whole: Array = np.clip(rounded, limits.min, limits.max).astype(detail["dtype"])
    return whole


def _dequantised(values: Array, detail: Any) -> Array:
    scales, zeros, axis = _parameters(detail)
    if not len(scales) or values.dtype.kind not in "iu":
        return values
    if len(scales) > 1:
        shape = [-1 if place == axis else 1 for place in range(values.ndim)]
        scales, zeros = scales.reshape(shape), zeros.reshape(shape)
    real: Array = (values.astype(np.float32) - zeros) * scales
    return real.astype(np.float32)


def _parameters(detail: Any) -> tuple[Array, Array, int]:
    parameters = detail["quantization_parameters"]
    return parameters["scales"], parameters["zero_points"], parameters["quantized_dimension"]


def _line(error: Exception) -> str:
    return shortened(next(iter(str(error).splitlines()), "")) or type(error).__name__

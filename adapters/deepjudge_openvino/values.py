"""What elementwise operations of a graph of OpenVINO make of numbers."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.activations import numbers
from deepjudge_core.types import Array
from deepjudge_openvino.runtime import EXACT, NodeFactory, openvino, opset

_SPREADING = {"Broadcast", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_PASSING = {"ConvertLike", "FakeQuantize", "Identity"}
# Their parameters are one number each.
_SCALARS = {"HardSigmoid", "Selu", "Swish"}
_REAL = {"bf16", "f16", "f32", "f64"}


class Values:
    """The functions that the elementwise operations of a graph are of numbers."""

    def __init__(self, kinds: Collection[str]) -> None:
        """Name them.

        Args:
            kinds: Of operations that are elementwise.
        """
        self._kinds = kinds

    def function(self, node: Any, places: Sequence[int]) -> Callable[..., Array] | None:
        """The function of a node; None where it is not elementwise.

        Args:
            places: Of the inputs that are its arguments; of those that are one tensor, the argument is given once. The
                others are constants; where one is more than a number for each channel, the function raises an error.
        """
        kind = node.get_type_name()
        if kind not in self._kinds:
            return None
        if kind in _PASSING or (kind == "Convert" and gives_real(node)):
            return lambda values, *_: np.asarray(values, np.float64)
        tensors = [(value.get_node().get_name(), value.get_index()) for value in node.input_values()]
        arguments = list(dict.fromkeys(tensors[place] for place in places))

        def function(*values: Array) -> Array:
            known = dict(zip(arguments, values, strict=True))
            inputs = [
                known[tensors[place]] if place in places else self._constant(node.input_value(place))
                for place in range(len(tensors))
            ]
            return _evaluate(node, inputs)

        return function

    def _constant(self, tensor: Any) -> Array:
        # A tensor that does not depend on the input, as functions take it.
        node = tensor.get_node()
        kind = node.get_type_name()
        if kind == "Constant":
            value = numbers(node.get_data())
            if value is None:
                raise ModelError("expected at most one number per channel, found more")
            return value
        if kind in _SPREADING or kind == "Convert":
            return self._constant(node.input_value(0))
        function = self.function(node, ())
        if function is None:
            raise ModelError(f"expected an elementwise operation, found {kind}")
        return function()


def gives_real(node: Any) -> bool:
    """Whether a node gives real numbers."""
    return node.output(0).get_element_type().get_type_name() in _REAL


def _evaluate(node: Any, inputs: Sequence[Array]) -> Array:
    kind = node.get_type_name()
    if kind == "PRelu":  # whose slopes OpenVINO does not spread
        data, slope = inputs
        return np.where(data > 0, data, slope * data)
    # In float32: some operations know no other real numbers.
    arrays = [np.ascontiguousarray(x if x.dtype == bool else x.astype(np.float32)) for x in inputs]
    fed, scalars = (arrays[:1], arrays[1:]) if kind in _SCALARS else (arrays, [])
    parameters = [opset.parameter(list(array.shape), openvino.Type(array.dtype)) for array in fed]
    made = NodeFactory(node.get_type_info().version_id).create(
        kind, [*parameters, *(opset.constant(array.reshape(-1)[0]) for array in scalars)], node.get_attributes()
    )
    part = openvino.Model([made.output(0)], parameters)
    answer = openvino.Tensor(made.output(0).get_element_type(), openvino.Shape([]))
    try:
        part.evaluate([answer], [openvino.Tensor(array) for array in fed])
        values = np.array(answer.data)
    except RuntimeError:  # a few are known to the compiler alone
        values = np.array(openvino.Core().compile_model(part, "CPU", dict(EXACT))(fed)[0])
    return values if values.dtype == bool else values.astype(np.float64)

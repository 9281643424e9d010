"""What elementwise operations of an ONNX graph make of numbers."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from deepjudge_core.models.activations import numbers
from deepjudge_core.types import Array
from deepjudge_onnx.graph import attribute, constants

_SPREADING = {"Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_PASSING = {"CastLike", "DequantizeLinear", "Dropout", "Identity", "QuantizeLinear"}
_REAL = {TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16}


class Values:
    """The constants of a graph, and the functions that its elementwise operations are of numbers."""

    def __init__(self, model: ModelProto, kinds: Collection[str]) -> None:
        """Look at a graph.

        Args:
            kinds: Of operations that are elementwise.
        """
        self._opsets = list(model.opset_import)
        self._kinds = kinds
        self._tensors = constants(model)
        self._producers = {name: node for node in model.graph.node for name in node.output if name}
        self._known: dict[str, Array | None] = {}

    def function(self, node: NodeProto, inputs: Sequence[str]) -> Callable[..., Array] | None:
        """The function of a node; None where it is not elementwise, or needs what is no number.

        Args:
            inputs: Names of the tensors that are its arguments.
        """
        if node.op_type not in self._kinds:
            return None
        if node.op_type in _PASSING:
            return lambda values, *_: np.asarray(values, np.float64)
        others = {name: self._constant(name) for name in node.input if name and name not in inputs}
        known = {name: value for name, value in others.items() if value is not None}
        if known.keys() != others.keys():
            return None

        def function(*values: Array) -> Array:
            return self._evaluate(node, {**known, **dict(zip(inputs, values, strict=True))})

        return function

    def _constant(self, name: str) -> Array | None:
        # A tensor that does not depend on the input, as functions take it.
        if name not in self._known:
            self._known[name] = self._find_constant(name)
        return self._known[name]

    def _find_constant(self, name: str) -> Array | None:
        node = self._producers.get(name)
        if name in self._tensors:
            return numbers(numpy_helper.to_array(self._tensors[name]))
        if node is None:
            return None
        if node.op_type == "ConstantOfShape":
            value = attribute(node, "value", None)
            return numbers(0.0 if value is None else numpy_helper.to_array(value))
        if node.op_type in _SPREADING:
            return self._constant(node.input[0])
        function = self.function(node, ())
        return None if function is None else numbers(function())

    def _evaluate(self, node: NodeProto, tensors: Mapping[str, Array]) -> Array:
        if node.op_type == "Cast" and attribute(node, "to", None) in _REAL:
            return np.asarray(tensors[node.input[0]], np.float64)
        part = helper.make_graph(
            [node],
            node.op_type,
            [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in tensors],
            [helper.make_tensor_value_info(node.output[0], TensorProto.DOUBLE, None)],
        )
        model = helper.make_model(part, opset_imports=self._opsets)
        (answer,) = ReferenceEvaluator(model).run([node.output[0]], dict(tensors))
        return np.asarray(answer)

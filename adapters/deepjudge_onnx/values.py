"""What elementwise operations of an ONNX graph make of numbers."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from deepjudge_core.errors import ModelError
from deepjudge_core.models.activations import numbers
from deepjudge_core.types import Array
from deepjudge_onnx.graph import attribute, constants
from deepjudge_onnx.weights import Weights

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

_SPREADING = {"Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_PASSING = {"CastLike", "DequantizeLinear", "Dropout", "Identity", "QuantizeLinear"}
_OUTPUT = "output"
REAL = {TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16}
QUANTISED = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4}
"""Element types of real numbers, in which probabilities lose no more than their last digits."""


class Values:
    """The constants of a graph, and the functions that its elementwise operations are of numbers."""

    def __init__(self, model: ModelProto, kinds: Collection[str], weights: Weights) -> None:
        """Look at a graph.

        Args:
            kinds: Of operations that are elementwise.
            weights: The files that weights of it stay in.
        """
        self._weights = weights
        self._opsets = tuple((opset.domain, opset.version) for opset in model.opset_import)
        self._kinds = kinds
        self._tensors = constants(model)
        self._producers = {name: node for node in model.graph.node for name in node.output if name}
        self._known: dict[str, Array] = {}

    def function(self, node: NodeProto, inputs: Sequence[str]) -> Callable[..., Array] | None:
        """The function of a node; None where it is not elementwise.

        Args:
            inputs: Names of the tensors that are its arguments. The others are constants; where one is more than a
                number for each channel, the function raises an error.
        """
        if node.op_type not in self._kinds:
            return None
        if node.op_type in _PASSING:
            return lambda values, *_: np.asarray(values, np.float64)
        others = [name for name in node.input if name and name not in inputs]

        def function(*values: Array) -> Array:
            known = {name: self._constant(name) for name in others}
            return self._evaluate(node, {**known, **dict(zip(inputs, values, strict=True))})

        return function

    def _constant(self, name: str) -> Array:
        # A tensor that does not depend on the input, as functions take it.
        if name not in self._known:
            value = numbers(self._find_constant(name))
            if value is None:
                raise ModelError(f"expected at most one number per channel, found more in {name!r}")
            self._known[name] = value
        return self._known[name]

    def _find_constant(self, name: str) -> object:
        if name in self._tensors:
            return self._weights.array(self._tensors[name])
        node = self._producers[name]
        if node.op_type == "ConstantOfShape":
            value = attribute(node, "value", None)
            return 0.0 if value is None else numpy_helper.to_array(value)
        if node.op_type in _SPREADING:
            return self._constant(node.input[0])
        if node.op_type == "DequantizeLinear":
            value, scale, *zero = map(self._constant, filter(None, node.input))
            return (value - sum(zero)) * scale
        function = self.function(node, ())
        if function is None:
            raise ModelError(f"expected an elementwise operation, found {node.op_type}")
        return function()

    def _evaluate(self, node: NodeProto, tensors: Mapping[str, Array]) -> Array:
        if node.op_type == "Cast" and attribute(node, "to", None) in REAL:
            return np.asarray(tensors[node.input[0]], np.float64)
        if node.op_type == "Relu":  # the most usual one
            return np.maximum(tensors[node.input[0]], 0)
        names = {name: str(place) for place, name in enumerate(tensors)}
        alone = NodeProto(op_type=node.op_type, domain=node.domain, attribute=node.attribute, output=[_OUTPUT])
        alone.input.extend(names.get(name, "") for name in node.input)
        evaluator = _evaluator(alone.SerializeToString(deterministic=True), self._opsets)
        (answer,) = evaluator.run([_OUTPUT], {names[name]: values for name, values in tensors.items()})
        return np.asarray(answer)


@functools.lru_cache(maxsize=256)
def _evaluator(node: bytes, opsets: tuple[tuple[str, int], ...]) -> "ReferenceEvaluator":
    # Late: it loads a module for each operation of ONNX, which takes as long as all else that opens a model. Cached:
    # many nodes of a network are the same.
    from onnx.reference import ReferenceEvaluator

    alone = NodeProto.FromString(node)
    part = helper.make_graph(
        [alone],
        alone.op_type,
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in sorted({*alone.input} - {""})],
        [helper.make_tensor_value_info(_OUTPUT, TensorProto.DOUBLE, None)],
    )
    return ReferenceEvaluator(
        helper.make_model(part, opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets])
    )

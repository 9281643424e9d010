"""What elementwise operations of a TensorFlow graph make of numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepjudge_core.errors import ModelError
from deepjudge_core.models.activations import numbers
from deepjudge_core.types import Array

ELEMENTWISE = frozenset(
    [
        "Abs",
        "Add",
        "AddN",
        "AddV2",
        "Ceil",
        "ClipByValue",
        "Div",
        "DivNoNan",
        "Elu",
        "Equal",
        "Erf",
        "Erfc",
        "Exp",
        "Expm1",
        "Greater",
        "GreaterEqual",
        "Inv",
        "LeakyRelu",
        "Less",
        "LessEqual",
        "Log",
        "Log1p",
        "LogicalAnd",
        "LogicalNot",
        "LogicalOr",
        "Maximum",
        "Minimum",
        "Mul",
        "MulNoNan",
        "Neg",
        "NotEqual",
        "Pow",
        "RealDiv",
        "Reciprocal",
        "Relu",
        "Relu6",
        "Rsqrt",
        "Select",
        "SelectV2",
        "Selu",
        "Sigmoid",
        "Sign",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Square",
        "SquaredDifference",
        "Sub",
        "Tanh",
    ]
)
"""Operations that make each number of their output of one number of each input."""

PASSING = frozenset(("Cast", "CheckNumerics", "Identity", "IdentityN", "PreventGradient", "StopGradient"))
"""They give the numbers that they are given."""

_SPREADING = ("BroadcastTo", "ExpandDims", "Reshape", "Squeeze")


def function_of(output: Any, inputs: Sequence[str]) -> Callable[..., Array]:
    """What a tensor is as a function of others.

    The function raises a ModelError where it is not elementwise, or needs what is no number.

    Args:
        inputs: Names of its arguments.
    """

    def function(*values: Array) -> Array:
        with tf.init_scope():
            known = {name: tf.constant(value) for name, value in zip(inputs, values, strict=True)}
            answer: Array = _value(output, known).numpy()
            return answer

    return function


def constant_of(tensor: Any) -> Array | None:
    """A tensor that does not depend on the input; None where it is more than a number for each channel."""
    with tf.init_scope():
        try:
            return np.asarray(_value(tensor, {}))
        except Exception:  # TensorFlow's, of all that it cannot compute
            return None


def _value(tensor: Any, known: Mapping[str, Any]) -> Any:
    if tensor.name in known:
        return known[tensor.name]
    operation = tensor.op
    if operation.type in ("OnesLike", "ZerosLike"):
        return tf.constant([[float(operation.type == "OnesLike")]], tf.float64)
    if operation.type == "Fill":
        return _value(operation.inputs[1], known)
    few = _stored(tensor)
    if few is not None:
        return tf.constant(few)
    if operation.type in _SPREADING and not known:
        return _value(operation.inputs[0], known)
    if operation.type in PASSING:
        value = _value(operation.inputs[tensor.value_index], known)
        return value if tensor.dtype == tf.bool else tf.cast(value, tf.float64)
    if operation.type not in ELEMENTWISE:
        raise ModelError(f"expected an elementwise operation, found {operation.type}")
    return _run(operation, [_value(t, known) for t in operation.inputs])


def _stored(tensor: Any) -> Array | None:
    # A constant, or the value of a variable that is no table of weights.
    value = tf.get_static_value(tensor)
    if value is not None:
        return numbers(value)
    shape = tensor.shape.as_list() if tensor.shape.rank is not None else [None]
    if tensor.op.type != "ReadVariableOp" or None in shape or max(shape, default=1) != math.prod(shape):
        return None
    captures = getattr(tensor.graph, "captures", ())
    resource = next((outer for outer, inner in captures if inner is tensor.op.inputs[0]), None)
    if resource is None:
        return None
    return numbers(tf.raw_ops.ReadVariableOp(resource=resource, dtype=tensor.dtype).numpy())


def _run(operation: Any, values: Sequence[Any]) -> Any:
    kind = "SelectV2" if operation.type == "Select" else operation.type
    if kind == "SelectV2":  # whose operands have other names
        return tf.where(*values)
    arguments = operation.op_def.input_arg
    given: dict[str, Any] = (
        {arguments[0].name: list(values)}
        if arguments[0].number_attr
        else {argument.name: value for argument, value in zip(arguments, values, strict=True)}
    )
    options = {
        attribute.name: operation.get_attr(attribute.name)
        for attribute in operation.op_def.attr
        if attribute.type in ("bool", "float")
    }
    return getattr(tf.raw_ops, kind)(**given, **options)

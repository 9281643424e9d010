"""What TensorFlow's functions are in Keras 3's operations, where Keras 2 noted calls of them in a model.

Only functions that compute, and whose arguments say the same there, are known.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepjudge_core.errors import ModelError

LAMBDAS = ("SlicingOpLambda", "TFOpLambda")
"""Classes by which Keras 2 notes such calls."""

GRAPH_OPERATION = "TensorFlowOpLayer"
"""The class by which it noted the operation of a graph until TensorFlow 2.3."""

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    """A call of one of Keras 3's operations.

    Attributes:
        module: Its module.
        kind: Its class.
        config: What the class is made with.
        args: What it is called with.
    """

    module: str
    kind: str
    config: Mapping[str, Any]
    args: Sequence[Any]


def operation(function: str, arguments: Arguments) -> Operation:
    """The operation for a call of a TensorFlow function.

    Args:
        function: Its name, without the ``tf.`` before it.
        arguments: By their names in TensorFlow, the first one by ``""``; those that are None are left out.

    Raises:
        ModelError: When there is none.
    """
    function = function.removeprefix("compat.v1.")  # which had other arguments, of which the odd ones are refused
    if function not in _CALLS:
        raise ModelError(
            f"it calls the TensorFlow function {function!r:.80}, and Keras is not known to have an "
            "equivalent; export the model to ONNX"
        )
    made, left = _CALLS[function](_Taken(arguments))
    computed = {name for name, value in made.config.items() if _holds_tensor(value)}
    if left | computed:
        names = ", ".join(map(repr, sorted(left | computed)))
        raise ModelError(
            f"it calls the TensorFlow function {function!r:.80} with {names:.80}, which is not "
            "supported; export the model to ONNX"
        )
    return made


def graph_operation(config: Mapping[str, Any], tensors: Sequence[Any]) -> Operation:
    """The operation for one of a TensorFlow graph.

    Args:
        config: Of the layer that notes it: the node, and operands that are constants by their places.
        tensors: The other operands.

    Raises:
        ModelError: As :func:`operation` does.
    """
    operands, kind = list(tensors), config["node_def"]["op"]
    for place, constant in sorted(
        (int(place), constant) for place, constant in (config.get("constants") or {}).items()
    ):
        operands.insert(place, constant)
    names = ("", "bias" if kind == "BiasAdd" else "y")[: len(operands)]
    return operation(_OF_GRAPHS.get(kind, kind), dict(zip(names, operands, strict=True)))


_OF_GRAPHS = {
    "Abs": "math.abs",
    "Add": "math.add",
    "AddV2": "math.add",
    "BiasAdd": "nn.bias_add",
    "Exp": "math.exp",
    "Log": "math.log",
    "Maximum": "math.maximum",
    "Minimum": "math.minimum",
    "Mul": "math.multiply",
    "Neg": "math.negative",
    "Pow": "math.pow",
    "RealDiv": "math.truediv",
    "Relu": "nn.relu",
    "Relu6": "nn.relu6",
    "Rsqrt": "math.rsqrt",
    "Sigmoid": "math.sigmoid",
    "Sqrt": "math.sqrt",
    "Square": "math.square",
    "Sub": "math.subtract",
    "Tanh": "math.tanh",
}
"""Operations that take one or two tensors and have no other arguments, and their functions."""


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_holds_tensor, value)))


def _operand(value: Any) -> Any:
    """A list of numbers as a table, which is one operand."""
    if not isinstance(value, list) or _holds_tensor(value):
        return value
    dtype = "float32" if any(isinstance(number, float) for number in _numbers(value)) else "int32"
    return {"class_name": "__numpy__", "config": {"value": value, "dtype": dtype}}


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    else:
        yield value


class _Taken:
    """Arguments of a call, of which is kept which were asked for."""

    def __init__(self, arguments: Arguments) -> None:
        self._left = dict(arguments)

    def __call__(self, name: str, default: Any = None) -> Any:
        return self._left.pop(name, default)

    def without(self, **idle: Any) -> set[str]:
        """Names of those that are left, but for those that have the value with which they change nothing."""
        return {name for name, value in self._left.items() if name != "name" and idle.get(name) != value}


_Call = Callable[[_Taken], tuple[Operation, set[str]]]


def _plain(module: str, kind: str, *names: str, **idle: Any) -> _Call:
    """An operation that takes the first argument, and those of these names."""

    def call(take: _Taken) -> tuple[Operation, set[str]]:
        args = [_operand(take(name)) for name in ("", *names)]
        return Operation(module, kind, {}, args), take.without(**idle)

    return call


def _made(module: str, kind: str, names: Mapping[str, str], idle: Mapping[str, Any] = {}, **defaults: Any) -> _Call:
    """An operation that is made with arguments, called otherwise there, and takes the first one."""

    def call(take: _Taken) -> tuple[Operation, set[str]]:
        config = {own: take(name, defaults.get(own)) for name, own in names.items()}
        return Operation(module, kind, config, [take("")]), take.without(**idle)

    return call


def _slice(take: _Taken) -> tuple[Operation, set[str]]:
    spec = take("slice_spec")
    key = [_place(item) for item in (spec if isinstance(spec, list) else [spec])]
    return Operation(_NUMPY, "GetItem", {}, [take(""), key]), take.without()


def _place(item: Any) -> Any:
    if item is None or (isinstance(item, int) and not isinstance(item, bool)):
        return item
    if isinstance(item, dict) and item.get("class_name") == "__ellipsis__":
        return {"class_name": "__ellipsis__", "config": {}}
    if isinstance(item, dict) and all(isinstance(item.get(key), int | None) for key in _ENDS):
        return {"class_name": "__slice__", "config": {key: item.get(key) for key in _ENDS}}
    raise ModelError("it slices a tensor at computed positions; export it to ONNX")


_ENDS = ("start", "stop", "step")
_NN, _NUMPY, _MATH, _CORE, _IMAGE = (f"keras.src.ops.{name}" for name in ("nn", "numpy", "math", "core", "image"))
_REDUCED = {"axis": "axis", "keepdims": "keepdims"}

_BINARY = {
    **dict.fromkeys(("__operators__.add", "add", "math.add"), "Add"),
    **dict.fromkeys(("math.subtract", "subtract"), "Subtract"),
    **dict.fromkeys(("math.multiply", "multiply"), "Multiply"),
    **dict.fromkeys(("divide", "math.divide", "math.truediv", "truediv"), "TrueDivide"),
    **dict.fromkeys(("math.floordiv", "floordiv"), "FloorDivide"),
    **dict.fromkeys(("math.pow", "pow", "__operators__.pow"), "Power"),
    **dict.fromkeys(("math.maximum", "maximum"), "Maximum"),
    **dict.fromkeys(("math.minimum", "minimum"), "Minimum"),
    **dict.fromkeys(("math.greater", "greater"), "Greater"),
    **dict.fromkeys(("math.greater_equal", "greater_equal"), "GreaterEqual"),
    **dict.fromkeys(("math.less", "less"), "Less"),
    **dict.fromkeys(("math.less_equal", "less_equal"), "LessEqual"),
    **dict.fromkeys(("math.equal", "equal", "__operators__.eq"), "Equal"),
    **dict.fromkeys(("math.not_equal", "not_equal", "__operators__.ne"), "NotEqual"),
}

_UNARY = {
    **dict.fromkeys(("math.abs", "abs"), (_NUMPY, "Absolute")),
    **dict.fromkeys(("math.negative", "negative"), (_NUMPY, "Negative")),
    **dict.fromkeys(("math.exp", "exp"), (_NUMPY, "Exp")),
    **dict.fromkeys(("math.log", "log"), (_NUMPY, "Log")),
    **dict.fromkeys(("math.log1p",), (_NUMPY, "Log1p")),
    **dict.fromkeys(("math.sqrt", "sqrt"), (_NUMPY, "Sqrt")),
    **dict.fromkeys(("math.rsqrt", "rsqrt"), (_MATH, "Rsqrt")),
    **dict.fromkeys(("math.square", "square"), (_NUMPY, "Square")),
    **dict.fromkeys(("math.sin", "sin"), (_NUMPY, "Sin")),
    **dict.fromkeys(("math.cos", "cos"), (_NUMPY, "Cos")),
    **dict.fromkeys(("math.floor", "floor"), (_NUMPY, "Floor")),
    **dict.fromkeys(("math.ceil",), (_NUMPY, "Ceil")),
    **dict.fromkeys(("math.round", "round"), (_NUMPY, "Round")),
    **dict.fromkeys(("math.sign", "sign"), (_NUMPY, "Sign")),
    **dict.fromkeys(("math.reciprocal",), (_NUMPY, "Reciprocal")),
    **dict.fromkeys(("math.erf",), (_MATH, "Erf")),
    **dict.fromkeys(("math.tanh", "tanh", "nn.tanh"), (_NUMPY, "Tanh")),
    **dict.fromkeys(("math.sigmoid", "sigmoid", "nn.sigmoid"), (_NN, "Sigmoid")),
    **dict.fromkeys(("math.softplus", "nn.softplus"), (_NN, "Softplus")),
    **dict.fromkeys(("nn.softsign",), (_NN, "Softsign")),
    **dict.fromkeys(("nn.relu",), (_NN, "Relu")),
    **dict.fromkeys(("nn.relu6",), (_NN, "Relu6")),
    **dict.fromkeys(("nn.elu",), (_NN, "Elu")),
    **dict.fromkeys(("nn.selu",), (_NN, "Selu")),
    **dict.fromkeys(("stop_gradient",), (_CORE, "StopGradient")),
}

_REDUCTIONS = {
    "mean": "Mean",
    "sum": "Sum",
    "max": "Max",
    "min": "Min",
    "prod": "Prod",
    "std": "Std",
    "variance": "Var",
}

_CALLS: Mapping[str, _Call] = {
    **{name: _plain(_NUMPY, kind, "y") for name, kind in _BINARY.items()},
    **{name: _plain(module, kind) for name, (module, kind) in _UNARY.items()},
    **{
        f"{prefix}reduce_{name}": _made(_NUMPY, kind, _REDUCED, keepdims=False)
        for name, kind in _REDUCTIONS.items()
        for prefix in ("", "math.")
    },
    "__operators__.getitem": _slice,
    "identity": _plain("keras.layers", "Identity"),
    "where": _plain(_NUMPY, "Where", "x", "y"),
    "nn.bias_add": _plain(_NUMPY, "Add", "bias", data_format="NHWC"),
    "nn.silu": _plain(_NN, "Silu", beta=1.0),
    "nn.swish": _plain(_NN, "Silu", beta=1.0),
    **dict.fromkeys(
        ("linalg.matmul", "matmul"),
        _plain(
            _NUMPY,
            "Matmul",
            "b",
            transpose_a=False,
            transpose_b=False,
            adjoint_a=False,
            adjoint_b=False,
            a_is_sparse=False,
            b_is_sparse=False,
        ),
    ),
    "nn.gelu": _made(_NN, "Gelu", {"approximate": "approximate"}, approximate=False),
    "nn.leaky_relu": _made(_NN, "LeakyRelu", {"alpha": "negative_slope"}, negative_slope=0.2),
    "nn.softmax": _made(_NN, "Softmax", {"axis": "axis"}, axis=-1),
    "nn.log_softmax": _made(_NN, "LogSoftmax", {"axis": "axis"}, axis=-1),
    **dict.fromkeys(
        ("linalg.l2_normalize", "math.l2_normalize", "nn.l2_normalize"),
        _made("keras.layers", "UnitNormalization", {"axis": "axis"}, {"epsilon": 1e-12}),
    ),
    "clip_by_value": _made(_NUMPY, "Clip", {"clip_value_min": "x_min", "clip_value_max": "x_max"}),
    "cast": _made(_CORE, "Cast", {"dtype": "dtype"}),
    "concat": _made(_NUMPY, "Concatenate", {"axis": "axis"}),
    "expand_dims": _made(_NUMPY, "ExpandDims", {"axis": "axis"}),
    "reshape": _made(_NUMPY, "Reshape", {"shape": "newshape"}),
    "squeeze": _made(_NUMPY, "Squeeze", {"axis": "axis"}),
    "stack": _made(_NUMPY, "Stack", {"axis": "axis"}, axis=0),
    "transpose": _made(_NUMPY, "Transpose", {"perm": "axes"}, {"conjugate": False}),
    "image.resize": _made(
        _IMAGE,
        "Resize",
        {"size": "size", "method": "interpolation"},
        {"preserve_aspect_ratio": False, "antialias": False},
        interpolation="bilinear",
    ),
}

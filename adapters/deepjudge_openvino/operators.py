"""The operations of a TFLite file in the terms of :mod:`deepjudge_core.models.taps`."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from scipy import special

from deepjudge_core.errors import ModelError
from deepjudge_core.models.activations import numbers
from deepjudge_core.models.taps import Op, Role, axes_beside_one_place, axes_of_reshape
from deepjudge_core.types import Array
from deepjudge_openvino.tflite import Operator

_FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    "ABS": np.abs,
    "ADD": np.add,
    "ADD_N": lambda *values: functools.reduce(np.add, values),
    "CAST": lambda x: x,
    "CEIL": np.ceil,
    "COS": np.cos,
    "DEQUANTIZE": lambda x: x,
    "DIV": np.divide,
    "ELU": lambda x: np.maximum(x, 0) + np.expm1(np.minimum(x, 0)),
    "EQUAL": np.equal,
    "EXP": np.exp,
    "FAKE_QUANT": lambda x: x,
    "FLOOR": np.floor,
    "FLOOR_DIV": np.floor_divide,
    "FLOOR_MOD": np.mod,
    "GREATER": np.greater,
    "GREATER_EQUAL": np.greater_equal,
    "HARD_SWISH": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "LESS": np.less,
    "LESS_EQUAL": np.less_equal,
    "LOG": np.log,
    "LOGICAL_AND": np.logical_and,
    "LOGICAL_NOT": np.logical_not,
    "LOGICAL_OR": np.logical_or,
    "LOGISTIC": special.expit,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
    "MUL": np.multiply,
    "NEG": np.negative,
    "NOT_EQUAL": np.not_equal,
    "POW": np.power,
    "PRELU": lambda x, slope: np.where(x > 0, x, slope * x),
    "QUANTIZE": lambda x: x,
    "RELU": lambda x: np.maximum(x, 0),
    "RELU6": lambda x: np.clip(x, 0, 6),
    "RELU_0_TO_1": lambda x: np.clip(x, 0, 1),
    "RELU_N1_TO_1": lambda x: np.clip(x, -1, 1),
    "ROUND": np.rint,
    "RSQRT": lambda x: 1 / np.sqrt(x),
    "SELECT": np.where,
    "SELECT_V2": np.where,
    "SIGN": np.sign,
    "SIN": np.sin,
    "SQRT": np.sqrt,
    "SQUARE": np.square,
    "SQUARED_DIFFERENCE": lambda x, y: np.square(x - y),
    "SUB": np.subtract,
    "TANH": np.tanh,
}
"""What elementwise operations make of numbers; GELU and LEAKY_RELU have options."""

# Scales are of tensors, so that both sides have the same.
_PASSING = {"DEQUANTIZE", "FAKE_QUANT", "QUANTIZE"}

_ROLES = {
    kind: role
    for role, kinds in {
        # Channels are last.
        Role.CONVOLUTION: """AVERAGE_POOL_2D CONV_2D CONV_3D CONV_3D_TRANSPOSE DEPTHWISE_CONV_2D DEPTH_TO_SPACE
            L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION SPACE_TO_DEPTH TRANSPOSE_CONV""",
        Role.MAX_POOL: "MAX_POOL_2D",
        Role.PROJECTION: "BATCH_MATMUL FULLY_CONNECTED",
        Role.RECURRENT: """BIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_RNN LSTM RNN SVDF
            UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN""",
        Role.ACTIVATION: """ELU GELU HARD_SWISH LEAKY_RELU PRELU RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 TANH""",
        Role.SIGMOID: "LOGISTIC",
        Role.SOFTMAX: "SOFTMAX",
        Role.LOG_SOFTMAX: "LOG_SOFTMAX",
        Role.RESHAPE: "EXPAND_DIMS RESHAPE SQUEEZE",
        Role.IDENTITY: " ".join(_PASSING),
        Role.CONVERSION: "CAST",
        Role.AFFINE: "ADD ADD_N NEG SUB",
        Role.MULTIPLY: "SELECT SELECT_V2",
        Role.OTHER: "ARG_MAX ARG_MIN CALL_ONCE IF TOPK_V2",
    }.items()
    for kind in kinds.split()
}

LAYERS = {kind for kind, role in _ROLES.items() if role in (Role.CONVOLUTION, Role.PROJECTION, Role.RECURRENT)} | {
    kind for kind, role in _ROLES.items() if role is Role.ACTIVATION
}
"""Operations that are layers, or activations of them."""

# Their results do not depend on the values of what they are given.
_SIZES = {"RANK", "SHAPE", "ZEROS_LIKE"}
_REDUCING = {"MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"}
_TAKING = {"GATHER", "SLICE", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "UNPACK"}
_SPREADING = {"BROADCAST_TO", "EXPAND_DIMS", "RESHAPE", "SQUEEZE", "TRANSPOSE"}


def operations(
    graph: Sequence[Operator],
    source: int,
    names: Mapping[int, str],
    shapes: Mapping[int, tuple[int, ...]],
    tensor: Callable[[int], Array],
) -> list[Op]:
    """Translate what is computed from the tensor ``source``, in forward order.

    Args:
        graph: All operations, in the order in which they are run.
        source: Number of the model's input.
        names: Of all tensors.
        shapes: Of all tensors.
        tensor: Gives the real numbers of one that does not depend on the input.
    """
    return list(_Translator(graph, source, names, shapes, tensor).operations())


class _Translator:
    """Translates one graph."""

    def __init__(
        self,
        graph: Sequence[Operator],
        source: int,
        names: Mapping[int, str],
        shapes: Mapping[int, tuple[int, ...]],
        tensor: Callable[[int], Array],
    ) -> None:
        self._graph, self._source, self._names = graph, source, names
        self._shapes, self._tensor = shapes, tensor
        self._dynamic = {source}
        self._producers = {number: operator for operator in graph for number in operator.outputs}

    def operations(self) -> Iterator[Op]:
        yield Op(self._names[self._source], Role.INPUT, (), len(self._shapes[self._source]))
        for operator in self._graph:
            if operator.kind in _SIZES or not self._dynamic.intersection(operator.inputs):
                continue
            self._dynamic.update(operator.outputs)
            for number in operator.outputs:
                yield from self._translate(operator, number)

    def _translate(self, operator: Operator, number: int) -> Iterator[Op]:
        name, rank = self._names[number], len(self._shapes[number])
        inputs = tuple(dict.fromkeys(self._names[n] for n in self._places(operator).values()))
        if not operator.fused:
            yield self._plain(operator, number, name, inputs, rank)
            return
        # What comes before the activation is no tensor: only a name.
        before = f"{name}/before"
        yield self._plain(operator, number, before, inputs, rank)
        role = Role.ACTIVATION if operator.fused in _ROLES else Role.ELEMENTWISE
        yield Op(name, role, (before,), rank, function=_FUNCTIONS[operator.fused])

    def _plain(self, operator: Operator, number: int, name: str, inputs: tuple[str, ...], rank: int) -> Op:
        kind = operator.kind
        if kind == "WHILE" and rank > 1:
            return Op(name, Role.RECURRENT, inputs, rank)
        axes = self._unselected_axes(operator, number)
        if axes is not None:
            return Op(name, Role.SELECT, inputs, rank, permutation=axes)
        axes = self._kept_axes(operator, number)
        if axes is not None and kind == "REDUCE_MAX":
            return Op(name, Role.MAX_POOL, inputs, rank, permutation=axes)
        if axes is not None and rank > 2:
            return Op(name, Role.TRANSPOSE, inputs, rank, permutation=axes)
        role = self._role(operator, rank)
        if kind == "RESHAPE":
            axes = axes_of_reshape(self._shapes[operator.inputs[0]], self._shapes[number])
            return Op(name, role, inputs, rank, permutation=axes)
        return Op(name, role, inputs, rank, function=self._function(operator))

    def _role(self, operator: Operator, rank: int) -> Role:
        kind, places = operator.kind, self._places(operator)
        if kind in ("MUL", "DIV"):
            linear = len(places) == 1 and (kind == "MUL" or 0 in places)
            return Role.AFFINE if linear else Role.MULTIPLY if kind == "MUL" else Role.ELEMENTWISE
        if kind in ("MAXIMUM", "MINIMUM") and len(places) == 1:
            return Role.ACTIVATION
        if kind in ("PAD", "PADV2") and rank > 2 and self._pads_zeros(operator):
            return Role.PAD
        if kind in _FUNCTIONS and kind not in _ROLES:
            return Role.ELEMENTWISE
        # Unknown ones, pooling, concatenation, ... keep the axes of a tensor, but not a matrix as it is.
        same = rank == len(self._shapes[next(iter(places.values()))]) > 2
        return _ROLES.get(kind, Role.KEEP if same else Role.OTHER)

    def _pads_zeros(self, operator: Operator) -> bool:
        return operator.kind == "PAD" or not self._tensor(operator.inputs[2]).any()

    def _kept_axes(self, operator: Operator, number: int) -> tuple[int, ...] | None:
        # Output axis to input axis, for what moves, adds or takes away axes.
        kind, options = operator.kind, operator.options
        if 0 not in self._places(operator):
            return None
        rank, out = len(self._shapes[operator.inputs[0]]), len(self._shapes[number])
        if kind == "SQUEEZE":
            named = options.numbers(0).tolist() if options else []
            sizes = self._shapes[operator.inputs[0]]
            axes = named or [axis for axis, size in enumerate(sizes) if size == 1]
        elif kind in {"EXPAND_DIMS", "TRANSPOSE"} | _REDUCING:
            axes = self._tensor(operator.inputs[1]).reshape(-1).tolist()
        else:
            return None
        if kind == "TRANSPOSE":
            return tuple(axes)
        if kind == "EXPAND_DIMS":
            new, rest = {axis % out for axis in axes}, iter(range(rank))
            return tuple(-1 if axis in new else next(rest) for axis in range(out))
        gone = {axis % rank for axis in axes}
        if kind == "REDUCE_MAX" and rank == out and gone:
            return tuple(-1 if axis in gone else axis for axis in range(rank))
        left = tuple(axis for axis in range(rank) if axis not in gone)
        return left if len(left) == out != rank else None

    def _unselected_axes(self, operator: Operator, number: int) -> tuple[int, ...] | None:
        # The same, for what takes one place of an axis; the axis may stay, with one place.
        kind, options = operator.kind, operator.options
        data = 1 if kind == "SPLIT" else 0
        if kind not in _TAKING or data not in self._places(operator):
            return None
        before, after = self._shapes[operator.inputs[data]], self._shapes[number]
        rank = len(before)
        if len(after) == rank:
            return axes_beside_one_place(before, after) or None
        if len(after) != rank - 1 or rank < 3 or options is None:
            return None
        gone = None
        if kind == "GATHER" and not options.number(1):
            gone = options.number(0) % rank
        elif kind == "UNPACK":
            gone = options.number(1) % rank
        elif kind == "STRIDED_SLICE" and not options.number(2) and not options.number(3):
            gone = _shrunk_axis(options.number(0) & options.number(1), options.number(4), rank)
        return None if gone is None else tuple(axis for axis in range(rank) if axis != gone)

    def _function(self, operator: Operator) -> Callable[..., Array] | None:
        function = _function_of(operator)
        if function is None:
            return None
        dynamic = list(dict.fromkeys(self._places(operator).values()))

        def of(*values: Array) -> Array:
            known = dict(zip(dynamic, values, strict=True))
            return np.asarray(function(*(known[n] if n in known else self._constant(n) for n in operator.inputs)))

        return of

    def _constant(self, number: int) -> Array:
        # A tensor that does not depend on the input, as functions take it.
        producer = self._producers.get(number)
        if producer is not None and producer.kind in _SPREADING:
            return self._constant(producer.inputs[0])
        value = numbers(self._tensor(number))
        if value is None:
            raise ModelError(f"expected at most one number per channel, found more in {self._names[number]!r}")
        return value

    def _places(self, operator: Operator) -> dict[int, int]:
        # The inputs that depend on the model's, by their places.
        return {place: number for place, number in enumerate(operator.inputs) if number in self._dynamic}


def _function_of(operator: Operator) -> Callable[..., Array] | None:
    options = operator.options
    if operator.kind == "LEAKY_RELU":
        slope = options.number(0, "f") if options else 0.0
        return lambda x: np.where(x > 0, x, slope * x)
    if operator.kind == "GELU":
        if options and options.number(0, "b"):
            return lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return lambda x: x * special.ndtr(x)
    return _FUNCTIONS.get(operator.kind)


def _shrunk_axis(whole: int, shrunk: int, rank: int) -> int | None:
    """The axis that a strided slice takes one place of, the others as they are; None if it is not so."""
    gone = [axis for axis in range(rank) if shrunk >> axis & 1]
    return gone[0] if len(gone) == 1 and all(whole >> axis & 1 for axis in range(rank) if axis not in gone) else None

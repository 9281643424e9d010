"""A graph of OpenVINO in the terms of :mod:`deepjudge_core.models.taps`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deepjudge_core.models.taps import Op, Role, axes_beside_one_place, axes_of_reshape
from deepjudge_core.types import Array
from deepjudge_openvino.values import Values, gives_real

_ROLES = {
    kind: role
    for role, kinds in {
        # All that works on (batch, channels, ...).
        Role.CONVOLUTION: """AdaptiveAvgPool AvgPool BatchNormInference BinaryConvolution Convolution
            ConvolutionBackpropData DeformableConvolution DepthToSpace GroupConvolution GroupConvolutionBackpropData
            GroupNormalization LRN SpaceToDepth""",
        Role.MAX_POOL: "AdaptiveMaxPool MaxPool",
        Role.PROJECTION: "Einsum MatMul RMS",
        Role.ACTIVATION: """Clamp Elu Erf Gelu HSigmoid HSwish HardSigmoid Mish PRelu Relu Selu SoftPlus SoftSign Swish
            Tanh""",
        Role.SIGMOID: "Sigmoid",
        Role.SOFTMAX: "Softmax",
        Role.LOG_SOFTMAX: "LogSoftmax",
        Role.RESHAPE: "Reshape Squeeze Unsqueeze",
        Role.IDENTITY: "Identity",
        Role.CONVERSION: "Convert ConvertLike FakeQuantize",  # but for those that `_role` tells
        Role.MULTIPLY: "Select",
        Role.ELEMENTWISE: """Abs Add Ceiling Cos Divide Equal Exp Floor Greater GreaterEqual Less LessEqual Log
            LogicalAnd LogicalNot LogicalOr Maximum Minimum Mod Multiply Negative NotEqual Power Round Sign Sin Sqrt
            SquaredDifference Subtract""",
        # They keep the number of axes, but are not what they were.
        Role.OTHER: "CumSum GRUCell LSTMCell RNNCell ReverseSequence ScatterNDUpdate TopK",
    }.items()
    for kind in kinds.split()
}

_COMPUTED = (
    *(Role.ACTIVATION, Role.AFFINE, Role.ELEMENTWISE, Role.IDENTITY, Role.CONVERSION, Role.MULTIPLY, Role.SIGMOID),
)
_ELEMENTWISE = {kind for kind, role in _ROLES.items() if role in _COMPUTED}

# The axes of a recurrent layer's outputs: t time, d directions, b batch, h hidden; g is h of one of two directions.
_RECURRENT = {
    **dict.fromkeys(("GRUSequence", "RNNSequence"), ("bdth", "bdh")),
    "LSTMSequence": ("bdth", "bdh", "bdh"),
}
_LOOPS = ("Loop", "TensorIterator")

_Key = tuple[str, int]


def operations(
    source: Any, nodes: Sequence[Any], names: Mapping[_Key, str], shapes: Mapping[str, tuple[int | None, ...]]
) -> list[Op]:
    """Translate what is computed from the tensor ``source``, in forward order.

    Args:
        source: The model's input.
        nodes: What depends on its values, in forward order.
        names: Of all tensors, by the names and places of their nodes.
        shapes: Of the input, and of all that the nodes give.
    """
    return list(_Translator(source, nodes, names, shapes).operations())


class _Translator:
    """Translates one graph."""

    def __init__(
        self, source: Any, nodes: Sequence[Any], names: Mapping[_Key, str], shapes: Mapping[str, tuple[int | None, ...]]
    ) -> None:
        self._source, self._nodes, self._names, self._shapes = source, nodes, names, shapes
        self._values = Values(_ELEMENTWISE)
        self._recurrent = self._follow_recurrent()

    def operations(self) -> Iterator[Op]:
        name = self._name(self._source)
        yield Op(name, Role.INPUT, (), len(self._shapes[name]))
        for node in self._nodes:
            for tensor in node.outputs():
                yield self._translate(node, self._name(tensor))

    def _translate(self, node: Any, name: str) -> Op:
        inputs, rank, kind = self._inputs(node), len(self._shapes[name]), node.get_type_name()
        if name in self._recurrent:
            return Op(name, Role.RECURRENT, inputs, rank, self._recurrent[name])
        if kind in _LOOPS and rank > 1:
            return Op(name, Role.RECURRENT, inputs, rank)
        axes = self._unselected_axes(node, name)
        if axes is not None:
            return Op(name, Role.SELECT, inputs, rank, permutation=axes)
        axes = self._kept_axes(node)
        if axes is not None and kind == "ReduceMax":
            return Op(name, Role.MAX_POOL, inputs, rank, permutation=axes)
        if axes is not None and rank > 2:
            return Op(name, Role.TRANSPOSE, inputs, rank, permutation=axes)
        if kind in _ROLES and _ROLES[kind] in (Role.CONVOLUTION, Role.MAX_POOL):
            return Op(name, _ROLES[kind], inputs, rank, 1)
        role = self._role(node, rank, inputs)
        if kind == "Reshape":
            axes = axes_of_reshape(self._shapes[inputs[0]], self._shapes[name])
            return Op(name, role, inputs, rank, permutation=axes)
        return Op(name, role, inputs, rank, function=self._values.function(node, self._places(node)))

    def _role(self, node: Any, rank: int, inputs: Sequence[str]) -> Role:
        kind = node.get_type_name()
        if kind == "Multiply" and len(inputs) > 1:
            return Role.MULTIPLY
        one = len(self._places(node)) == 1
        if kind in ("Add", "Negative", "Subtract") or (kind == "Multiply" and one):
            return Role.AFFINE
        if kind == "Divide" and one and 0 in self._places(node):
            return Role.AFFINE
        if kind == "MVN":
            axes = _constant(node.input_value(1)) if node.get_input_size() > 1 else None
            last = axes is not None and {int(axis) % rank for axis in axes.reshape(-1)} == {rank - 1}
            return Role.PROJECTION if last else Role.KEEP
        if kind in ("Maximum", "Minimum") and one:
            return Role.ACTIVATION
        if kind == "Pad" and rank > 2 and self._pads_zeros(node):
            return Role.PAD
        if kind in ("Convert", "ConvertLike") and gives_real(node):
            return Role.IDENTITY
        if kind == "FakeQuantize" and self._keeps_range(node):
            return Role.IDENTITY
        # Unknown ones, pooling, concatenation, ... keep the axes of a tensor, but not a matrix as it is.
        same = rank == len(self._shapes[inputs[0]]) > 2
        return _ROLES.get(kind, Role.KEEP if same else Role.OTHER)

    def _pads_zeros(self, node: Any) -> bool:
        value = _constant(node.input_value(3)) if node.get_input_size() > 3 else np.zeros(())
        return node.get_attributes().get("pad_mode") == "constant" and value is not None and not value.any()

    def _keeps_range(self, node: Any) -> bool:
        # Whether what is quantised comes out where it was: its range goes in and out as the same numbers.
        low, high, *out = (_constant(node.input_value(place)) for place in range(1, 5))
        pairs = zip((low, high), out, strict=True)
        return all(a is not None and b is not None and np.array_equal(a.reshape(-1), b.reshape(-1)) for a, b in pairs)

    def _kept_axes(self, node: Any) -> tuple[int, ...] | None:
        # Output axis to input axis, for what moves, adds or takes away axes.
        kind = node.get_type_name()
        if 0 not in self._places(node):
            return None
        rank, out = (len(self._shapes[self._name(t)]) for t in (node.input_value(0), node.output(0)))
        argument = _constant(node.input_value(1)) if node.get_input_size() > 1 else None
        axes = None if argument is None else [int(axis) for axis in argument.reshape(-1)]
        if kind == "Transpose":
            return tuple(axes or range(rank)[::-1]) if argument is not None else None
        if axes is None or not (kind in ("Squeeze", "Unsqueeze") or kind.startswith("Reduce")):
            return None
        if kind == "Unsqueeze":
            new, rest = {axis % out for axis in axes}, iter(range(rank))
            return tuple(-1 if axis in new else next(rest) for axis in range(out))
        gone = {axis % rank for axis in axes}
        if kind == "ReduceMax" and rank == out and gone:
            return tuple(-1 if axis in gone else axis for axis in range(rank))
        if kind.startswith("Reduce") and rank == out:
            return None
        left = tuple(axis for axis in range(rank) if axis not in gone)
        return left if len(left) == out else None

    def _unselected_axes(self, node: Any, name: str) -> tuple[int, ...] | None:
        # The same, for what takes one place of an axis; the axis may stay, with one place.
        kind = node.get_type_name()
        if kind not in ("Gather", "Slice", "Split", "StridedSlice", "VariadicSplit") or 0 not in self._places(node):
            return None
        before, after = self._shapes[self._name(node.input_value(0))], self._shapes[name]
        rank = len(before)
        if len(after) == rank:
            return axes_beside_one_place(before, after) or None
        if len(after) != rank - 1 or rank < 3:
            return None
        gone = None
        if kind == "Gather" and not node.get_attributes().get("batch_dims"):
            axis = _constant(node.input_value(2))
            gone = None if axis is None else int(axis.reshape(-1)[0]) % rank
        elif kind == "StridedSlice":
            gone = _shrunk_axis(node.get_attributes(), rank)
        return None if gone is None else tuple(axis for axis in range(rank) if axis != gone)

    def _follow_recurrent(self) -> dict[str, int]:
        """Find the tensors that hold the outputs of recurrent layers, and the axis of their neurons.

        An output is followed to where its directions are no axis of their own any more.
        """
        letters: dict[str, str] = {}
        start: dict[str, str] = {}
        settled: dict[str, str] = {}
        for node in self._nodes:
            for tensor, axes in zip(node.outputs(), _RECURRENT.get(node.get_type_name(), ()), strict=False):
                name = self._name(tensor)
                letters[name], start[name], settled[name] = axes, name, name
            before = [letters.get(name, "") for name in self._inputs(node)]
            if not before or not before[0] or "d" not in before[0] or len(set(before)) > 1:
                continue
            after = self._advance(node, before[0])
            if after is not None:
                name, first = self._name(node.output(0)), start[self._inputs(node)[0]]
                letters[name], start[name], settled[first] = after, first, name
        return {name: letters[name].index("h") for name in settled.values()}

    def _advance(self, node: Any, letters: str) -> str | None:
        # The letters of what a node makes of a tensor with letters; None where it is no matter of layout.
        order, kind = self._kept_axes(node), node.get_type_name()
        if kind in ("Squeeze", "Transpose") and order is not None:
            return "".join(letters[axis] for axis in order)
        if kind == "Convert":
            return letters
        if kind == "Reshape" and len(self._shapes[self._name(node.output(0))]) == len(letters) - 1:
            joined = letters.index("d") + 1 == letters.index("h")
            single = self._shapes[self._inputs(node)[0]][letters.index("d")] == 1
            return letters.replace("d", "") if joined or single else None
        return None

    def _inputs(self, node: Any) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._name(node.input_value(place)) for place in self._places(node)))

    def _places(self, node: Any) -> tuple[int, ...]:
        # Of the inputs that depend on the model's.
        return tuple(place for place, value in enumerate(node.input_values()) if self._name(value) in self._shapes)

    def _name(self, tensor: Any) -> str:
        return self._names[tensor.get_node().get_name(), tensor.get_index()]


def _constant(tensor: Any) -> Array | None:
    """A few whole numbers that stand in the graph; None where they are computed, or many."""
    node = tensor.get_node()
    if node.get_type_name() == "Convert":
        return _constant(node.input_value(0))
    if node.get_type_name() != "Constant" or np.prod(node.get_shape()) > 16:
        return None
    return np.asarray(node.get_data())


def _shrunk_axis(attributes: Mapping[str, Any], rank: int) -> int | None:
    """The axis of the input that a strided slice takes one place of, the others as they are; None if it is not so."""
    shrunk = _ones(attributes["shrink_axis_mask"])
    whole = set(_ones(attributes["begin_mask"])) & set(_ones(attributes["end_mask"]))
    if len(shrunk) != 1 or _ones(attributes["new_axis_mask"]) or _ones(attributes["ellipsis_mask"]):
        return None
    others = set(range(min(rank, len(attributes["begin_mask"])))) - set(shrunk)
    return shrunk[0] if others <= whole else None


def _ones(mask: Iterable[int]) -> list[int]:
    return [place for place, bit in enumerate(mask) if bit]

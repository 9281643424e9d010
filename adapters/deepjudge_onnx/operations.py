"""An ONNX graph in the terms of :mod:`deepjudge_core.models.taps`."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from deepjudge_core.models.taps import Op, Role, axes_beside_one_place, axes_of_reshape, loses_axes_of_one
from deepjudge_core.types import Array
from deepjudge_onnx.graph import Shapes, attribute, constants, dependents, reads
from deepjudge_onnx.plain import QUANTISED_ENDS, real_score
from deepjudge_onnx.values import REAL, Values
from deepjudge_onnx.weights import Weights

_ROLES = {
    kind: role
    for role, kinds in {
        # All that works on (batch, channels, ...).
        Role.CONVOLUTION: """AveragePool BatchNormalization Conv ConvInteger ConvTranspose DeformConv DepthToSpace
            GlobalAveragePool GlobalLpPool GroupNormalization InstanceNormalization LRN LpPool
            QLinearAveragePool QLinearConv QLinearGlobalAveragePool SpaceToDepth""",
        Role.MAX_POOL: "GlobalMaxPool MaxPool",
        Role.PROJECTION: "FusedMatMul Gemm MatMul MatMulInteger QGemm QLinearMatMul RMSNormalization",
        Role.ACTIVATION: """BiasGelu Celu Elu Erf FastGelu Gelu HardSigmoid HardSwish LeakyRelu Mish PRelu QuickGelu
            Relu Selu Shrink Softplus Softsign Swish Tanh ThresholdedRelu""",
        Role.SIGMOID: "Sigmoid",
        Role.SOFTMAX: "Softmax",
        Role.LOG_SOFTMAX: "LogSoftmax",
        Role.RESHAPE: "Flatten Reshape Squeeze Unsqueeze",
        Role.IDENTITY: "Dropout Identity",
        # Casts of real numbers, and what undoes a quantisation, pass them on: see `_translate`.
        Role.CONVERSION: "Cast CastLike DequantizeLinear QuantizeLinear",
        Role.KEEP: "Split",
        Role.MULTIPLY: "Where",
        Role.ELEMENTWISE: """Abs Add And Div Equal Exp Greater GreaterOrEqual Less LessOrEqual Log Max Min Mul Neg Not
            Or Pow Reciprocal Sign Sqrt Sub Sum""",
        # They keep the number of axes, but are not what they were.
        Role.OTHER: "ArgMax ArgMin CumSum Einsum GRU If LSTM Loop MatMulNBits RNN Scan TopK",
    }.items()
    for kind in kinds.split()
}

LAYERS = {
    *(kind for kind, role in _ROLES.items() if role in (Role.CONVOLUTION, Role.PROJECTION, Role.ACTIVATION)),
    *("DynamicQuantizeLSTM", "GRU", "LSTM", "RNN"),
}
"""Operations that are layers, or activations of them."""

_COMPUTED = (
    *(Role.ACTIVATION, Role.AFFINE, Role.ELEMENTWISE, Role.IDENTITY, Role.CONVERSION, Role.MULTIPLY, Role.SIGMOID),
)
_ELEMENTWISE = {kind for kind, role in _ROLES.items() if role in _COMPUTED} | {"Clip"}

# The axes of a recurrent layer's outputs: t time, d directions, b batch, h hidden; g is h of one of two directions.
# A loop is what Keras' exporter makes of layers that it does not know as LSTM.
_RECURRENT = {
    **dict.fromkeys(("GRU", "RNN"), ("tdbh", "dbh")),
    **dict.fromkeys(("LSTM", "DynamicQuantizeLSTM"), ("tdbh", "dbh", "dbh")),
    "Loop": (),
}


def operations(model: ModelProto, source: str, shapes: Shapes, weights: Weights) -> list[Op]:
    """Translate what is computed from the tensor ``source``, in forward order.

    Args:
        source: Name of the model's input.
        shapes: Of all tensors that are computed from it.
        weights: The files that weights of the model stay in.
    """
    return _Translator(model, source, shapes, weights).operations()


class _Translator:
    """Translates one graph."""

    def __init__(self, model: ModelProto, source: str, shapes: Shapes, weights: Weights) -> None:
        self._source, self._shapes = source, shapes
        self._nodes = dependents(model, source)
        self._dynamic = {source}.union(*(node.output for node in self._nodes)) - {""}
        self._constants = constants(model)
        self._values = Values(model, _ELEMENTWISE, weights)
        self._producers = {name: node for node in self._nodes for name in node.output if name}
        self._uses = Counter(name for node in self._nodes for name in reads(node))
        self._uses.update(value.name for value in model.graph.output)
        self._settled = self._follow_recurrent()
        self._recurrent = dict(self._settled.values())
        self._ops: dict[str, Op] = {}

    def operations(self) -> list[Op]:
        self._ops = {self._source: Op(self._source, Role.INPUT, (), self._rank(self._source))}
        for node in self._nodes:
            for name in filter(None, node.output):
                self._ops[name] = self._translate(node, name)
        return [self._ops[name] for name in self._in_order()]

    def _in_order(self) -> list[str]:
        # A recurrent layer's outputs come together, its states before its sequence: exporters write them in any order.
        names = list(self._ops)
        for node in self._nodes:
            outputs = [self._settled[name][0] for name in (*node.output[1:], node.output[0]) if name in self._settled]
            if len(outputs) > 1:
                first = min(map(names.index, outputs))
                names = [name for name in names if name not in outputs]
                names[first:first] = outputs
        return names

    def _translate(self, node: NodeProto, name: str) -> Op:
        inputs, rank = tuple(dict.fromkeys(self._inputs(node))), self._rank(name)
        if name in self._recurrent:
            return Op(name, Role.RECURRENT, inputs, rank, self._recurrent[name])
        before = self._producers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if before is not None and before.op_type in QUANTISED_ENDS and self._same(node.input[1:], before.input[3:5]):
            return Op(name, _ROLES[before.op_type.removeprefix("QLinear")], (real_score(before),), rank)
        if len(inputs) == 1 and loses_axes_of_one(self._shapes[inputs[0]], self._shapes[name]):
            return Op(name, Role.RESHAPE, inputs, rank)
        if before is not None and before.op_type == "QuantizeLinear" and not self._cuts_off(node):
            along = attribute(node, "axis", 1) == attribute(before, "axis", 1)
            if along and self._same(node.input[1:], before.input[1:]):  # both in one
                function = self._values.function(node, inputs)
                return Op(name, Role.IDENTITY, (before.input[0],), rank, function=function)
        axes = self._unselected_axes(node, name)
        if axes is not None:
            return Op(name, Role.SELECT, inputs, rank, permutation=axes)
        axes = self._kept_axes(node)
        if axes is not None and node.op_type == "ReduceMax":
            return Op(name, Role.MAX_POOL, inputs, rank, permutation=axes)
        if axes is not None and rank > 2:
            return Op(name, Role.TRANSPOSE, inputs, rank, permutation=axes)
        if _ROLES.get(node.op_type) is Role.MAX_POOL:
            return Op(name, Role.MAX_POOL, inputs, rank, 1)
        channel = self._channel(node)
        if channel is not None:
            return Op(name, Role.CONVOLUTION, inputs, rank, channel)
        role = self._role(node, name, inputs)
        if node.op_type in ("Flatten", "Reshape"):
            axes = axes_of_reshape(self._shapes[inputs[0]], self._shapes[name])
            return Op(name, role, inputs, rank, permutation=axes)
        cut_off = node.op_type == "DequantizeLinear" and role is Role.ACTIVATION
        function = None if cut_off else self._values.function(node, inputs)
        return Op(name, role, inputs, rank, function=function)

    def _role(self, node: NodeProto, name: str, inputs: Sequence[str]) -> Role:
        kind = node.op_type
        if kind == "Mul" and len(inputs) > 1:
            return Role.MULTIPLY
        if self._is_affine(node):
            return Role.AFFINE
        if kind == "LayerNormalization" and name == node.output[0]:
            last = attribute(node, "axis", -1) in (-1, self._rank(name) - 1)
            return Role.PROJECTION if last else Role.KEEP
        if kind == "DequantizeLinear" and self._cuts_off(node):
            return Role.ACTIVATION
        if kind == "Cast" and attribute(node, "to", None) in REAL:
            return Role.IDENTITY
        if kind == "CastLike" and node.input[1] in self._constants:
            return Role.IDENTITY if self._constants[node.input[1]].data_type in REAL else Role.CONVERSION
        if (kind == "Clip" and len(inputs) == 1) or (kind in ("Max", "Min") and len(inputs) == 1 < len(node.input)):
            return Role.ACTIVATION
        if kind == "Pad" and self._rank(name) > 2 and self._pads_zeros(node):
            return Role.PAD
        # Unknown ones, pooling, concatenation, ... keep the axes of a tensor, but not a matrix as it is.
        same = self._rank(name) == self._rank(inputs[0]) > 2
        return _ROLES.get(kind, Role.KEEP if same else Role.OTHER)

    def _is_affine(self, node: NodeProto) -> bool:
        if node.op_type in ("Add", "Neg", "Sub", "Sum"):
            return True
        factors = [name for name in node.input if name in self._dynamic]
        return len(factors) == 1 and (
            node.op_type == "Mul" or (node.op_type == "Div" and node.input[0] in self._dynamic)
        )

    def _pads_zeros(self, node: NodeProto) -> bool:
        value = self._value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(())
        return attribute(node, "mode", b"constant") == b"constant" and value is not None and not value.any()

    def _cuts_off(self, node: NodeProto) -> bool:
        # Whether it is what is left of a ReLU: quantisers drop one after a layer of weights where the integers that
        # follow begin at 0.
        quantise = self._producers.get(node.input[0])
        zero = self._value(quantise.input[2]) if quantise and len(quantise.input) > 2 else None
        if quantise is None or quantise.op_type != "QuantizeLinear" or zero is None or zero.size != 1:
            return False
        before = self._producers.get(quantise.input[0])
        weighing = before is not None and before.op_type in ("Add", "BatchNormalization", "Conv", "Gemm", "MatMul")
        return weighing and int(zero.reshape(())) == np.iinfo(zero.dtype).min

    def _same(self, one: Sequence[str], other: Sequence[str]) -> bool:
        # Whether two operations have the same numbers, such as a scale and a zero point, which may be left out.
        def numbers(names: Sequence[str]) -> list[Array | None]:
            return [self._value(name) for name in names if name]

        if [*filter(None, one)] == [*filter(None, other)] and self._dynamic.isdisjoint(one):
            return True
        pairs = itertools.zip_longest(numbers(one), numbers(other), fillvalue=np.zeros(()))
        return all(a is not None and b is not None and np.array_equal(a.reshape(-1), b.reshape(-1)) for a, b in pairs)

    def _kept_axes(self, node: NodeProto) -> tuple[int, ...] | None:
        # Output axis to input axis, for what moves, adds or takes away axes.
        name = next(iter(self._inputs(node)))
        rank, out = self._rank(name), self._rank(node.output[0])
        kind = node.op_type
        if name != node.input[0]:
            return None
        if kind == "Transpose":
            return tuple(attribute(node, "perm", range(rank)[::-1]))
        if kind == "Unsqueeze":
            new = {axis % out for axis in self._axes(node)}
            axes = iter(range(rank))
            return tuple(-1 if axis in new else next(axes) for axis in range(out))
        if kind != "Squeeze" and not kind.startswith("Reduce"):
            return None
        gone = {axis % rank for axis in self._axes(node)}
        if kind == "ReduceMax" and rank == out and gone:
            return tuple(-1 if axis in gone else axis for axis in range(rank))
        if kind != "Squeeze" and attribute(node, "keepdims", 1):
            return None
        rest = tuple(axis for axis in range(rank) if axis not in gone)
        return rest if len(rest) == out else None

    def _unselected_axes(self, node: NodeProto, name: str) -> tuple[int, ...] | None:
        # The same, for what takes one place of an axis; the axis may stay, with one place.
        if node.op_type not in ("Gather", "Slice", "Split") or node.input[0] not in self._dynamic:
            return None
        before, after = self._shapes[node.input[0]], self._shapes[name]
        rank = len(before)
        if node.op_type == "Gather" and len(after) == rank - 1 > 1:
            gone = attribute(node, "axis", 0) % rank
            return tuple(axis for axis in range(rank) if axis != gone)
        return axes_beside_one_place(before, after) or None

    def _axes(self, node: NodeProto) -> list[int]:
        # An attribute in older opsets, an input in newer ones.
        axes = attribute(node, "axes", None)
        if axes is None and len(node.input) > 1:
            axes = self._value(node.input[1])
        if axes is None and node.op_type == "Squeeze":
            axes = [axis for axis, size in enumerate(self._shapes[node.input[0]]) if size == 1]
        return [int(axis) for axis in (() if axes is None else axes)]

    def _channel(self, node: NodeProto) -> int | None:
        # A group normalisation is a reshape to groups and back, then one factor for each channel: that says which axis
        # the channels are on, as the reshape does not.
        role = _ROLES.get(node.op_type)
        if role is Role.CONVOLUTION:
            return 1
        if role is not Role.ELEMENTWISE or len(node.input) != 2:
            return None
        data, constant = node.input if node.input[0] in self._dynamic else reversed(node.input)
        tensor = self._constants.get(constant)
        producer = self._producers.get(data)
        if tensor is None or producer is None or producer.op_type != "Reshape":
            return None
        long = [axis - len(tensor.dims) for axis, size in enumerate(tensor.dims) if size > 1]
        return long[0] if len(long) == 1 else None

    def _follow_recurrent(self) -> dict[str, tuple[str, int]]:
        """Find the tensors that hold the outputs of recurrent layers, by these, and the axis of their neurons.

        An output is followed to where the batch axis comes first, as PyTorch's and Keras' own layers have it: Keras'
        exporter takes the last step by Slice on the way there. PyTorch's takes what the model's code takes by Gather,
        which is not the layer's; where the code goes on with the time axis first, it rests there. A layer that feeds
        another with the time axis first is an inner one of a stack.
        """
        axes: dict[str, str] = {}
        start: dict[str, str] = {}
        directions: dict[str, int] = {}
        batch_first: dict[str, str] = {}
        resting: dict[str, str] = {}
        for node in self._nodes:
            for name in self._inputs(node):
                if name not in axes or start[name] in batch_first:
                    continue
                after = self._advance(node, [axes.get(i, "") for i in self._inputs(node)], directions[start[name]])
                if after is None:
                    if node.op_type not in _RECURRENT:
                        resting[start[name]] = name
                    continue
                output = node.output[0]
                axes[output], start[output] = after, start[name]
                if after[0] == "b" and not {"d", "g"} & set(after):
                    batch_first[start[name]] = output
            for name, letters in self._recurrent_outputs(node):
                axes[name], start[name] = letters, name
                directions[name] = 2 if attribute(node, "direction", b"forward") == b"bidirectional" else 1
        settled = resting | batch_first
        return {output: (name, axes[name].index("h")) for output, name in settled.items() if "h" in axes[name]}

    def _recurrent_outputs(self, node: NodeProto) -> Iterator[tuple[str, str]]:
        if node.op_type == "Loop":
            # What its steps gave comes after its states, which are as many as the inputs but two.
            steps = filter(None, node.output[len(node.input) - 2 :])
            yield from ((name, "tbh") for name in steps if self._rank(name) == 3)
        outputs = zip(node.output, _RECURRENT.get(node.op_type, ()), strict=False)
        yield from ((name, letters) for name, letters in outputs if name)

    def _advance(self, node: NodeProto, layouts: Sequence[str], directions: int) -> str | None:
        # The letters of what a node makes of tensors with letters; None where it is no matter of layout.
        letters, kind = layouts[0], node.op_type
        order = self._kept_axes(node)
        if kind in ("Squeeze", "Transpose") and order is not None:
            return "".join(letters[axis] for axis in order)
        if kind in ("Identity", "Cast", "Dropout"):
            return letters
        if kind == "Reshape" and self._rank(node.output[0]) == len(letters) - 1:
            return letters.replace("d", "") if "d" in letters else None
        if kind == "Slice":
            axes = self._value(node.input[3]) if len(node.input) > 3 else None
            of_directions = axes is not None and "d" in {letters[axis] for axis in axes}
            if not of_directions and self._uses[node.input[0]] > 1:
                return None  # a step that is not all that is used
            return letters.replace("h", "g") if of_directions and directions == 2 else letters
        if kind == "Concat" and len(set(layouts)) == 1:
            axis = letters[attribute(node, "axis", 0)]
            return letters.replace("g", "h") if axis == "g" else letters
        return None

    def _inputs(self, node: NodeProto) -> list[str]:
        return [name for name in (*node.input, *sorted(reads(node).difference(node.input))) if name in self._dynamic]

    def _rank(self, name: str) -> int:
        return len(self._shapes[name])

    def _value(self, name: str) -> Array | None:
        tensor = self._constants.get(name)
        if tensor is None or math.prod(tensor.dims) > 16:  # axes and scalars, not weights
            return None
        return np.asarray(numpy_helper.to_array(tensor))

"""What the weights of an ONNX model are for, told by its graph."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from deepjudge_core.types import Array
from deepjudge_core.weights.graphs import Graph, Table, Traced
from deepjudge_core.weights.values import Roles, Scale
from deepjudge_onnx.graph import Shapes, attribute, bodies, constants, dependents, infer_shapes, reads

# Gates as other formats have them: input, forget, cell, output; update, reset, hidden.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (0, 1, 2), "RNN": (0,)}
_ODD = {"Tanh", "Softsign", "Erf", "Identity"}
_CONVOLUTIONS = {"Conv", "ConvInteger", "QLinearConv"}
_PRODUCTS = {"MatMul": 1, "FusedMatMul": 1, "MatMulInteger": 1, "Gemm": 1, "QGemm": 3, "QLinearMatMul": 3}
_POOLS = {
    *("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"),
    *("QLinearAveragePool", "QLinearGlobalAveragePool", "Resize", "Upsample", "InstanceNormalization"),
}
_UNARY = {
    *("Abs", "BiasGelu", "Cast", "CastLike", "Celu", "Clip", "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp"),
    *("FastGelu", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "PRelu"),
    *("QuantizeLinear", "QuickGelu", "Reciprocal", "Relu", "Selu", "Shrink", "Sigmoid", "Sign", "Softplus", "Softsign"),
    *("Sqrt", "Swish", "Tanh", "ThresholdedRelu", "Softmax", "LogSoftmax", "QLinearSigmoid", "QLinearLeakyRelu"),
}
_BINARY = {
    *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mul"),
    *("Or", "Pow", "QLinearAdd", "QLinearMul", "Sub", "Sum", "Where", "Not"),
}
_NUMBERS = 2**20  # of a constant that says how a tensor is arranged


@dataclass(frozen=True)
class Quantisation:
    """How the integers of a weight stand for real numbers.

    Attributes:
        scale: Name of the scales, one or one for each place of the axis.
        zero: Name of what stands for zero, alike; None for 0.
        axis: Of the weight.
    """

    scale: str
    zero: str | None
    axis: int


def find_quantisations(model: ModelProto) -> dict[str, Quantisation]:
    """The weights of a model that are stored as integers, by their names."""
    held = constants(model)
    found = {}
    for node in model.graph.node:
        kind = node.op_type
        if kind == "DequantizeLinear" and not attribute(node, "block_size", 0):
            found[node.input[0]] = Quantisation(node.input[1], _third(node, 2), attribute(node, "axis", 1))
        elif kind in ("QLinearConv", "QLinearMatMul", "QGemm"):
            across = -1 if kind == "QLinearMatMul" or (kind == "QGemm" and not attribute(node, "transB", 0)) else 0
            found[node.input[3]] = Quantisation(node.input[4], _third(node, 5), across)
        elif kind in ("ConvInteger", "MatMulInteger") and _third(node, 3):
            # Its scale is multiplied with that of the input, somewhere behind: known by the name that it is given.
            scale = f"{node.input[1].removesuffix('_quantized')}_scale"
            axis = -1 if kind == "MatMulInteger" else 0
            found[node.input[1]] = Quantisation(scale if scale in held else "", _third(node, 3), axis)
    return {
        name: one for name, one in found.items() if name in held and {one.scale, one.zero} - {"", None} <= set(held)
    }


def roles_of(model: ModelProto) -> Roles | None:
    """What the weights of a model are for; None where its graph does not say it, as where it has several inputs."""
    try:
        return find_roles(model)
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def find_roles(model: ModelProto) -> Roles:
    """What the weights of a model with one input are for, whose first output are the scores.

    Raises:
        ValueError: When the graph is not one of a model of one input.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or not model.graph.output:
        raise ValueError(f"a graph of {len(inputs)} inputs")
    return _Walk(model, inputs[0]).roles()


class _Walk:
    """Goes through one graph."""

    def __init__(self, model: ModelProto, source: str) -> None:
        self._model, self._source = model, source
        self._shapes: Shapes = infer_shapes(model)
        self._held: Mapping[str, TensorProto] = constants(model)
        self._graph = Graph()
        self._traced: dict[str, Traced] = {}
        self._tables: dict[str, Table] = {}

    def roles(self) -> Roles:
        nodes = dependents(self._model, self._source)
        dynamic = {self._source}.union(*(node.output for node in nodes)) - {""}
        for name, tensor in self._held.items():
            self._tables[name] = Table(name, tuple(tensor.dims), tuple(range(len(tensor.dims))))
        for node in self._model.graph.node:
            if not dynamic.intersection(node.output):
                self._arrange(node)
        sizes = self._shapes.get(self._source, ())
        self._traced[self._source] = self._graph.start(sizes)
        for node in nodes:
            sources = [self._traced[name] for name in node.input if name in self._traced]
            inner = [self._traced[name] for name in reads(node) if name in self._traced] if bodies(node) else []
            results = self._apply(node, [*sources, *inner])
            for name, traced in zip(node.output, results, strict=False):
                if name:
                    self._traced[name] = self._checked(name, traced)
        return self._graph.finish(self._traced[self._model.graph.output[0].name])

    def _checked(self, name: str, traced: Traced) -> Traced:
        # What is followed must have the axes that the graph has.
        shape = self._shapes.get(name)
        if shape is None or traced.rank is None or len(shape) == traced.rank:
            return traced
        return self._graph.unknown([traced], "an operation gives it other axes than expected")

    def _arrange(self, node: NodeProto) -> None:
        # Weights that are arranged before they are used.
        table = self._tables.get(node.input[0]) if node.input else None
        if table is None or not node.output:
            return
        if node.op_type in ("Identity", "Cast", "DequantizeLinear", "QuantizeLinear"):
            self._tables[node.output[0]] = table
        elif node.op_type == "Transpose":
            order = attribute(node, "perm", range(len(table.axes))[::-1])
            axes = tuple(table.axes[at] for at in order)
            self._tables[node.output[0]] = Table(table.tensor, table.shape, axes)
        elif node.op_type in ("Reshape", "Squeeze", "Unsqueeze") and table.axes == tuple(range(len(table.shape))):
            shape = self._shapes.get(node.output[0], ())
            if None not in shape and math.prod(size or 0 for size in shape) == math.prod(table.shape):
                whole = tuple(size or 0 for size in shape)
                self._tables[node.output[0]] = Table(table.tensor, whole, tuple(range(len(whole))))

    def _apply(self, node: NodeProto, sources: Sequence[Traced]) -> Sequence[Traced]:
        kind, x = node.op_type, sources[0]
        sizes = self._shapes.get(node.output[0], ())
        given = self._traced.get(node.input[0]) if node.input else None
        if bodies(node) or (given is None and kind not in (*_BINARY, "Gather", "MatMul", "Concat")):
            return self._unknown(node, sources)
        if kind in _CONVOLUTIONS or kind == "ConvTranspose":
            return self._convolve(node, x, sizes)
        if kind in _PRODUCTS:
            return self._multiply(node, sources, sizes)
        if kind in _GATES:
            return self._recur(node, x)
        if kind == "DynamicQuantizeLinear":  # its scale and its zero are those of all numbers together
            return [self._graph.keep(x), Traced(()), Traced(())]
        if kind == "BatchNormalization" and all(name in self._held for name in node.input[1:5]):
            return [self._graph.scale(x, Scale(node.input[1], node.input[4], attribute(node, "epsilon", 1e-5)), 1)]
        if kind in ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"):
            return [self._graph.keep(x)] * len(node.output)
        if kind == "GroupNormalization":
            channels = x.sizes[1] if x.axes else None
            if attribute(node, "num_groups", 0) in (1, channels):
                return [self._graph.keep(x)]
        if kind in _POOLS and (kind not in ("Resize", "Upsample") or sizes[1:2] == x.sizes[1:2]):
            return [self._graph.keep(x, sizes if len(sizes) == x.rank else ())] * len(node.output)
        if kind in _UNARY and len(sources) == 1:
            return [self._graph.keep(x, odd=kind in _ODD - {"Identity"})] * len(node.output)
        if kind in _BINARY:
            return [self._combine(node, sources, sizes)]
        if kind in ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"):
            return [self._move(node, x, sizes)]
        if kind in ("Concat", "QLinearConcat"):
            dynamic = [name for name in node.input if name]
            if kind == "Concat" and all(name in self._traced for name in dynamic):
                return [self._graph.join([self._traced[name] for name in dynamic], attribute(node, "axis", 1))]
        if kind.startswith("Reduce") and x.rank is not None:
            return [self._reduce(node, x)]
        if kind in ("Slice", "Split", "Pad", "Gather"):
            return self._take(node, sources)
        return self._unknown(node, sources)

    def _unknown(self, node: NodeProto, sources: Sequence[Traced]) -> Sequence[Traced]:
        known = sources or [Traced(None)]
        return [self._graph.unknown(known, f"{node.op_type[:40]} is not understood")] * len(node.output)

    def _convolve(self, node: NodeProto, x: Traced, sizes: Sequence[int | None]) -> Sequence[Traced]:
        table = self._tables.get(node.input[3 if node.op_type == "QLinearConv" else 1])
        if table is None or len(table.axes) < 3:
            return self._unknown(node, [x])
        sizes = sizes if len(sizes) == x.rank else [None] * len(table.axes)
        groups = attribute(node, "group", 1)
        if node.op_type == "ConvTranspose":
            if groups != 1:
                return self._unknown(node, [x])
            table = Table(table.tensor, table.shape, (table.axes[1], table.axes[0], *table.axes[2:]))
        if groups != 1:
            return [self._graph.grouped(x, table, 1, sizes)]
        return [self._graph.layer(x, [table], 1, "convolutional", sizes)]

    def _multiply(self, node: NodeProto, sources: Sequence[Traced], sizes: Sequence[int | None]) -> Sequence[Traced]:
        table, x = self._tables.get(node.input[_PRODUCTS[node.op_type]]), sources[0]
        gemm = node.op_type in ("Gemm", "QGemm")
        own = [source for source in sources if source.rank != 0]
        if table is None or len(table.axes) != 2 or len(own) != 1 or node.input[0] not in self._traced:
            return self._unknown(node, sources)
        if attribute(node, "transA", 0) or attribute(node, "transBatchA", 0):
            return self._unknown(node, sources)
        if not (attribute(node, "transB", 0)):
            table = Table(table.tensor, table.shape, table.axes[::-1])
        if x.axes is not None and gemm and x.rank != 2:
            return self._unknown(node, sources)
        return [self._graph.layer(x, [table], -1, "dense")]

    def _recur(self, node: NodeProto, x: Traced) -> Sequence[Traced]:
        table = self._tables.get(node.input[1])
        if table is None or len(table.shape) != 3 or table.axes != (0, 1, 2) or attribute(node, "layout", 0):
            return self._unknown(node, [x])
        if x.rank != 3 or x.axes is None:
            return self._unknown(node, [x])
        directions, rows, inputs = table.shape
        gates = _GATES[node.op_type]
        width, rest = divmod(rows, len(gates))
        if rest:
            return self._unknown(node, [x])
        flat = (directions * rows, inputs)
        parts = []
        for direction in range(directions):
            starts = [direction * rows + gate * width for gate in gates]
            tables = [Table(table.tensor, flat, (0, 1), (start, start + width)) for start in starts]
            parts.append(self._graph.layer(x, tables, 2, "recurrent"))
        # Both directions stand behind one another where the axis of the directions is joined with that of the neurons.
        y = self._graph.join(parts, 2) if directions > 1 else parts[0]
        sequence = self._graph.transpose(y, (0, -1, 1, 2))
        state = self._graph.take(self._graph.transpose(y, (0, -1, 1, 2)), 0, None)
        return [sequence, state, state]

    def _combine(self, node: NodeProto, sources: Sequence[Traced], sizes: Sequence[int | None]) -> Traced:
        held = [name for name in node.input if name in self._tables]
        if len(sources) > 1:
            return self._graph.combine(sources)
        x = sources[0]
        if x.axes is None:
            return x
        if x.rank == 0:  # the scale of a quantisation times that of weights
            return Traced(tuple(self._graph.start([1] * len(sizes)).axes or ()))
        # Shapes behind operations of ONNX Runtime's own are not known.
        wide = [size for name in held for size in self._tables[name].shape if size != 1]
        sizes = sizes or (x.sizes if set(wide) <= set(x.sizes) else ())
        if len(sizes) != len(x.axes) or any(a != b for a, b in zip(sizes, x.sizes, strict=True) if a and b):
            return self._graph.unknown([x], f"{node.op_type} gives it other axes")
        if node.op_type in ("Add", "Sub", "QLinearAdd", "Sum"):
            return self._graph.shift(x)
        if node.op_type == "Mul" and len(held) == 1:
            shape = (1,) * (len(x.axes) - len(self._tables[held[0]].shape)) + self._tables[held[0]].shape
            axes = [axis for axis, size in enumerate(shape) if size != 1]
            if len(axes) == 1:
                return self._graph.scale(x, Scale(held[0]), axes[0])
            if not axes:
                return x
        return self._graph.keep(x)

    def _move(self, node: NodeProto, x: Traced, sizes: Sequence[int | None]) -> Traced:
        kind = node.op_type
        if x.rank is None:
            return x
        if kind == "Flatten" and attribute(node, "axis", 1) == 1:
            return self._graph.flatten(x)
        if kind == "Transpose":
            return self._graph.transpose(x, attribute(node, "perm", range(x.rank)[::-1]))
        if kind in ("Squeeze", "Unsqueeze"):
            axes = attribute(node, "axes", None)
            if axes is None and len(node.input) > 1:
                axes = self._numbers(node.input[1])
            if axes is None:
                return self._graph.unknown([x], "a Squeeze of axes that are not named")
            if kind == "Squeeze":
                gone = {int(axis) % x.rank for axis in axes}
                return self._graph.transpose(x, [axis for axis in range(x.rank) if axis not in gone])
            rank = x.rank + len(axes)
            new, rest = {int(axis) % rank for axis in axes}, iter(range(x.rank))
            return self._graph.transpose(x, [-1 if axis in new else next(rest) for axis in range(rank)])
        wanted = self._numbers(node.input[1]) if len(node.input) > 1 else None
        if wanted is not None and len(wanted) != len(sizes):
            sizes = [None if size < 1 else int(size) for size in wanted]
        if not sizes:
            return self._graph.unknown([x], "a reshape to a size that is computed")
        return self._graph.reshape(x, sizes)

    def _reduce(self, node: NodeProto, x: Traced) -> Traced:
        axes = attribute(node, "axes", None)
        if axes is None and len(node.input) > 1 and node.input[1]:
            axes = self._numbers(node.input[1])
        if axes is None:
            axes = range(x.rank or 0)
        return self._graph.reduce(x, [int(axis) for axis in axes], keep=bool(attribute(node, "keepdims", 1)))

    def _take(self, node: NodeProto, sources: Sequence[Traced]) -> Sequence[Traced]:
        kind, x = node.op_type, sources[0]
        if kind == "Gather" and node.input[0] in self._tables and attribute(node, "axis", 0) == 0:
            table = self._tables[node.input[0]]
            if len(table.axes) == 2:
                return [self._graph.embed(x, Table(table.tensor, table.shape, table.axes[::-1]))]
        if kind == "Pad" and x.axes is not None and None in self._shapes.get(node.output[0], (None, None))[1:]:
            # By numbers that are computed. Channels that were added would not fit what follows.
            return [self._graph.keep(x, [None if axis else size for axis, size in enumerate(x.sizes)])]
        before = self._shapes.get(node.input[0])
        afters = [self._shapes.get(name) for name in node.output]
        if x.rank is None or before is None or len(before) != x.rank or len(sources) != 1:
            return self._unknown(node, sources)
        if any(mine not in (None, size) for mine, size in zip(x.sizes, before, strict=True) if size is not None):
            return self._unknown(node, sources)  # both directions of a recurrent layer
        results = []
        for after in afters:
            y = x
            if kind == "Gather" and after is not None and len(after) == x.rank - 1:
                y = self._graph.take(x, attribute(node, "axis", 0), None)
            elif after is not None and len(after) == x.rank and kind != "Gather":
                for axis, size in enumerate(after):
                    if size != before[axis] or size is None:
                        y = self._graph.take(y, axis, size) if axis else y
            else:
                return self._unknown(node, sources)
            results.append(y)
        return results

    def _numbers(self, name: str) -> Array | None:
        tensor = self._held.get(name)
        if tensor is None or uses_external_data(tensor) or math.prod(tensor.dims) > _NUMBERS:
            return None
        numbers: Array = numpy_helper.to_array(tensor).reshape(-1)
        return numbers


def _third(node: NodeProto, place: int) -> str | None:
    return (node.input[place] or None) if len(node.input) > place else None

"""What the weights of an exported program are for, told by its graph."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from deepjudge_core.models.taps import Role
from deepjudge_core.weights.graphs import Graph, Table, Traced
from deepjudge_core.weights.values import Roles, Scale
from deepjudge_torch.aten import CONSTANTS, MOVES, ROLES, TAKES, arguments, operation
from deepjudge_torch.graph import inline_blocks, sizes

# Gates as other formats have them: input, forget, cell, output; update, reset, hidden.
_GATES = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}
_ODD = {"tanh", "softsign", "erf", "hardtanh"}
_CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
_TRANSPOSED = {"conv_transpose1d": 1, "conv_transpose2d": 2, "conv_transpose3d": 3}
_NORMS = {"layer_norm", "native_layer_norm", "rms_norm", "instance_norm"}
_POOLS = (
    *("adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "max_pool", "_adaptive_avg_pool", "lp_pool"),
    *("upsample", "interpolate", "constant_pad_nd", "pad", "reflection_pad", "replication_pad"),
)
_UNARY = {Role.ACTIVATION, Role.SIGMOID, Role.SOFTMAX, Role.LOG_SOFTMAX, Role.IDENTITY, Role.ELEMENTWISE, Role.MULTIPLY}
_NOT_UNARY = {"glu", "gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell", "index_put"}
_REDUCTIONS = {"mean", "sum", "amax", "amin", "max", "min", "std", "var"}


def roles_of(program: ExportedProgram) -> Roles | None:
    """What the weights of a program are for, by their names in its state dict; None where its graph does not say it."""
    module = program.module(check_guards=False)
    inline_blocks(module)
    inputs = [node for node in module.graph.find_nodes(op="placeholder") if node.users]
    (output,) = module.graph.find_nodes(op="output")
    scores = pytree.tree_leaves(output.args[0])
    if len(inputs) != 1 or not scores or not isinstance(scores[0], fx.Node):
        return None
    try:
        return find_roles(module.graph, inputs[0].name, scores[0].name, program.state_dict)
    except (ArithmeticError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return None


def find_roles(graph: fx.Graph, source: str, output: str, state: Mapping[str, Any]) -> Roles:
    """What the weights of a graph of one input are for.

    Args:
        graph: That of ``ExportedProgram.module()``.
        source: Name of its input.
        output: Name of the node that holds the scores.
        state: Weights by the names that the graph has for them.
    """
    walk = _Walk(state)
    for node in graph.nodes:
        if node.name == source:
            walk.traced[node] = walk.graph.start(_sizes(node))
        elif node.op == "get_attr" and isinstance(state.get(node.target), torch.Tensor):
            shape = tuple(state[node.target].shape)
            walk.tables[node] = Table(node.target, shape, tuple(range(len(shape))))
        elif node.op == "call_function":
            walk.apply(node)
        if node.name == output:
            return walk.graph.finish(walk.traced.get(node, Traced(None)))
    return walk.graph.finish(Traced(None))


class _Walk:
    """Goes through one graph."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.graph = Graph()
        self.traced: dict[fx.Node, Traced] = {}
        self.tables: dict[fx.Node, Table] = {}
        self._state = state
        self._items: dict[fx.Node, Sequence[Traced]] = {}

    def apply(self, node: fx.Node) -> None:
        """Follow one operation."""
        if node.target is operator.getitem:
            origin, item = node.args
            results = self._items.get(origin, ()) if isinstance(origin, fx.Node) else ()
            if isinstance(item, int) and item < len(results):
                self.traced[node] = results[item]
            return
        sources = [self.traced[one] for one in node.all_input_nodes if one in self.traced]
        for one in node.all_input_nodes:
            if one in self._items and one not in self.traced:
                sources.extend(self._items[one])
        if not sources:
            self._arrange(node)
            return
        if CONSTANTS.search(operation(node)) or operation(node).startswith("sym_"):
            return
        results = self._follow(node, sources)
        value = node.meta.get("val")
        if isinstance(value, list | tuple):
            known = [results[at] if at < len(results) else Traced(None) for at in range(len(value))]
            self._items[node] = known
        else:
            self.traced[node] = self._checked(node, results[0])

    def _checked(self, node: fx.Node, x: Traced) -> Traced:
        value = node.meta.get("val")
        if x.rank is None or not isinstance(value, torch.Tensor) or value.ndim == x.rank:
            return x
        return self.graph.unknown([x], "an operation gives it other axes than expected")

    def _arrange(self, node: fx.Node) -> None:
        # Weights that are arranged before they are used.
        table = self.tables.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
        if table is None:
            return
        if ROLES.get(operation(node)) is Role.IDENTITY:
            self.tables[node] = table
        elif operation(node) in MOVES:
            order = _moved(node, len(table.axes))
            if sorted(order) == list(range(len(table.axes))):
                self.tables[node] = Table(table.tensor, table.shape, tuple(table.axes[at] for at in order))

    def _follow(self, node: fx.Node, sources: Sequence[Traced]) -> Sequence[Traced]:
        name, given = operation(node), arguments(node) if hasattr(node.target, "_schema") else {}
        first = node.args[0] if node.args else None
        x = self.traced.get(first) if isinstance(first, fx.Node) else None
        after = _sizes(node)
        if name in _CONVOLUTIONS or name in _TRANSPOSED:
            return [self._convolve(node, sources, given, after)]
        if name == "linear" or (name in ("matmul", "mm") and len(sources) == 1):
            return [self._multiply(node, sources, transposed=name == "linear", operands=node.args[:2])]
        if name == "addmm" and len(sources) == 1:
            return [self._multiply(node, sources, transposed=False, operands=node.args[1:3])]
        if name == "embedding" and len(sources) == 1:
            table = self.tables.get(node.args[0])
            if table is not None and len(table.axes) == 2:
                return [self.graph.embed(sources[0], Table(table.tensor, table.shape, table.axes[::-1]))]
        if name in _GATES and x is not None:
            return self._recur(node, x, given)
        if name in ("cat", "concat", "concatenate"):
            parts = [self.traced.get(one) for one in first] if isinstance(first, list | tuple) else [None]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                return [self.graph.join(known, given["dim"])]
        if x is None and name not in ("add", "mul", "sub", "rsub", "where", "maximum", "minimum", "div", "pow"):
            return self._unknown(name, sources)
        if "batch_norm" in name and x is not None:
            gain, variance = self.tables.get(given.get("weight")), self.tables.get(given.get("running_var"))
            if variance is None or given.get("training") or given.get("train"):
                return self._unknown(name, sources)
            scale = Scale(None if gain is None else gain.tensor, variance.tensor, float(given["eps"]))
            return [self.graph.scale(x, scale, 1)]
        if name in _NORMS and x is not None:
            return [self.graph.keep(x)] * 3
        if name == "group_norm" and x is not None and x.axes is not None and given["num_groups"] in (1, x.sizes[1]):
            return [self.graph.keep(x)]
        if x is not None and (name.startswith(_POOLS)) and tuple(after[1:2]) == x.sizes[1:2]:
            return [self.graph.keep(x, after if len(after) == x.rank else ())] * 2
        if x is not None and name in _REDUCTIONS and x.rank is not None and "dim" in given:
            dims = given["dim"]
            axes = range(x.rank) if dims in (None, []) else [dims] if isinstance(dims, int) else dims
            reduced = self.graph.reduce(x, axes, keep=bool(given.get("keepdim")))
            return [reduced, reduced]
        if x is not None and name in MOVES | {"squeeze", "unsqueeze", "expand_dims"} and x.rank is not None:
            return [self.graph.transpose(x, _moved(node, x.rank))]
        if x is not None and ROLES.get(name) is Role.RESHAPE:
            return [self.graph.reshape(x, after)]
        if x is not None and name in TAKES:
            return self._take(node, x, given, after)
        if (ROLES.get(name) in _UNARY and name not in _NOT_UNARY) or name in ("rsub", "maximum", "minimum"):
            return [self._map(node, name, x, sources, after)]
        return self._unknown(name, sources)

    def _unknown(self, name: str, sources: Sequence[Traced]) -> Sequence[Traced]:
        return [self.graph.unknown(sources, f"{name[:40] or 'an operation'} is not understood")]

    def _convolve(
        self, node: fx.Node, sources: Sequence[Traced], given: Mapping[str, Any], after: Sequence[int | None]
    ) -> Traced:
        name, table = operation(node), self.tables.get(given["weight"])
        if len(sources) != 1 or table is None or len(table.axes) < 3:
            return self._unknown(name, sources)[0]
        if name in _TRANSPOSED:
            if given["groups"] != 1:
                return self._unknown(name, sources)[0]
            table = Table(table.tensor, table.shape, (table.axes[1], table.axes[0], *table.axes[2:]))
        elif given["groups"] != 1:
            return self.graph.grouped(sources[0], table, 1, after)
        return self.graph.layer(sources[0], [table], 1, "convolutional", after)

    def _multiply(
        self, node: fx.Node, sources: Sequence[Traced], *, transposed: bool, operands: Sequence[Any]
    ) -> Traced:
        left, right = operands
        table = self.tables.get(right) if isinstance(right, fx.Node) else None
        if len(sources) != 1 or left not in self.traced or table is None or len(table.axes) != 2:
            return self._unknown(operation(node), sources)[0]
        axes = table.axes if transposed else table.axes[::-1]
        return self.graph.layer(self.traced[left], [Table(table.tensor, table.shape, axes)], -1, "dense")

    def _recur(self, node: fx.Node, x: Traced, given: Mapping[str, Any]) -> Sequence[Traced]:
        name, params = operation(node), given.get("params")
        gates = _GATES[name]
        if not isinstance(params, list | tuple) or x.rank != 3 or not given.get("num_layers"):
            return self._unknown(name, [x])
        directions = 2 if given["bidirectional"] else 1
        each = 4 if given["has_biases"] else 2
        y = x
        states = []
        for layer in range(given["num_layers"]):
            parts = []
            for direction in range(directions):
                table = self.tables.get(params[(layer * directions + direction) * each])
                if table is None or len(table.axes) != 2 or table.outputs % len(gates):
                    return self._unknown(name, [x])
                width = table.outputs // len(gates)
                rows = [(gate * width, (gate + 1) * width) for gate in gates]
                tables = [Table(table.tensor, table.shape, table.axes, one) for one in rows]
                parts.append(self.graph.layer(y, tables, 2, "recurrent"))
            y = self.graph.join(parts, 2) if directions > 1 else parts[0]
            states += parts
        # A state of one layer and direction is as the sequence is; of more, nobody says here which is taken.
        if len(states) == 1:
            batch = 0 if given["batch_first"] else 1
            state = self.graph.transpose(states[0], (-1, batch, 2))
            return [y, state, state]
        value = node.meta.get("val")
        used = {user.args[1] for user in node.users if user.target is operator.getitem and user.users}
        if used - {0} or not isinstance(value, list | tuple):
            return [self.graph.unknown(states, "its last states are taken by place")] * 3
        return [y]

    def _take(
        self, node: fx.Node, x: Traced, given: Mapping[str, Any], after: Sequence[int | None]
    ) -> Sequence[Traced]:
        name, value = operation(node), node.meta.get("val")
        if x.rank is None:
            return [x] * (len(value) if isinstance(value, list | tuple) else 1)
        dim = given.get("dim", given.get("axis", 0))
        if not isinstance(dim, int):
            return self._unknown(name, [x])
        dim %= x.rank
        if isinstance(value, list | tuple):
            parts = [sizes(one) for one in value]
            return [self.graph.take(x, dim, _number(one[dim]) if len(one) == x.rank else None) for one in parts]
        if name in ("select",):
            return [self.graph.take(x, dim, None)]
        if name in ("narrow", "slice") and len(after) == x.rank:
            return [self.graph.take(x, dim, after[dim]) if dim else x]
        return self._unknown(name, [x])

    def _map(
        self, node: fx.Node, name: str, x: Traced | None, sources: Sequence[Traced], after: Sequence[int | None]
    ) -> Traced:
        if len(sources) > 1:
            return self.graph.combine(sources)
        x = sources[0]
        if x.axes is None:
            return x
        if len(after) != len(x.axes) or any(a != b for a, b in zip(after, x.sizes, strict=True) if a and b):
            return self.graph.unknown([x], f"{name} gives it other axes")
        if name in ("add", "sub"):
            return self.graph.shift(x)
        constant = next((one for one in node.all_input_nodes if one in self.tables), None)
        if name == "mul" and constant is not None:
            table = self.tables[constant]
            shape = (1,) * (len(x.axes) - len(table.shape)) + table.shape
            wide = [axis for axis, size in enumerate(shape) if size != 1]
            if len(wide) == 1:
                return self.graph.scale(x, Scale(table.tensor), wide[0])
        return self.graph.keep(x, odd=name in _ODD) if ROLES.get(name) is not Role.IDENTITY else x


def _moved(node: fx.Node, rank: int) -> tuple[int, ...]:
    # Output axis to input axis, -1 for a new one, asked of the operation itself.
    if operation(node) == "unsqueeze":
        dim = node.args[1] % (rank + 1)
        return (*range(dim), -1, *range(dim, rank))
    if operation(node) == "squeeze":
        before = sizes(node.args[0].meta["val"])
        dims = arguments(node).get("dim")
        dims = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
        gone = {dim % rank for dim in dims if before[dim] == 1}
        return tuple(axis for axis in range(rank) if axis not in gone)
    probe = torch.empty(tuple(range(2, rank + 2)), device="meta")
    return tuple(size - 2 for size in node.target(probe, *node.args[1:], **node.kwargs).shape)


def _sizes(node: fx.Node) -> list[int | None]:
    value = node.meta.get("val")
    return [_number(size) for size in sizes(value)] if isinstance(value, torch.Tensor) else []


def _number(size: Any) -> int | None:
    return size if isinstance(size, int) else None

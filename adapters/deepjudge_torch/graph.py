"""What the graph of an exported program says: its input, its scores, its taps; and graphs that stop at some of them.

A graph is that of ``ExportedProgram.module()``: one placeholder, ``get_attr`` nodes for the weights, aten operations.
"""

import math
import operator
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from deepjudge_core.errors import ModelError
from deepjudge_core.models.outputs import Choice, Output, Outputs, row_width
from deepjudge_core.models.scores import Scores
from deepjudge_core.models.taps import (
    Op,
    Place,
    Role,
    axes_beside_one_place,
    axes_of_reshape,
    find_taps,
    loses_axes_of_one,
)
from deepjudge_core.types import Layout
from deepjudge_torch.aten import (
    CHANNELS,
    COMPUTED,
    CONSTANTS,
    INTEGERS,
    MAX_POOLS,
    MAXIMA,
    MOVES,
    ROLES,
    TAKES,
    arguments,
    is_real,
    operation,
    quantised,
)
from deepjudge_torch.base import exchanged, neurons
from deepjudge_torch.memory import shares_memory
from deepjudge_torch.values import Values

_LAYERS = {Role.ACTIVATION, Role.PROJECTION, Role.RECURRENT}
_MAX_POOLS = {"max_pool1d", "max_pool2d", "max_pool3d"}
_SOFTMAX = (Scores.PROBABILITIES, Scores.LOG_PROBABILITIES)


@dataclass(frozen=True)
class Network:
    """What a graph says of itself.

    Attributes:
        input: Name of the placeholder.
        example: Its fake tensor: shape and element type.
        batch: Number of rows that the graph takes: a number, or a sympy expression where it takes any.
        taps: Names of the taps in forward order, the logits last.
        outputs: What it gives, and which of it are the scores.
        output: Name of the node that holds the scores.
        places: Where the neurons of the taps and of the output are.
        scores: What the scores are.
        layout: Where the input's channels are.
        recurrent: Whether there is a recurrent layer.
        integers: Names of the operations that make integers of numbers, through which there are no gradients.
    """

    input: str
    example: torch.Tensor
    batch: Any
    taps: tuple[str, ...]
    outputs: Outputs
    output: str
    places: Mapping[str, Place]
    scores: Scores
    layout: Layout | None
    recurrent: bool
    integers: tuple[str, ...]


def read(graph: fx.Graph, state: Mapping[str, Any], names: Sequence[str] = (), choice: Choice = None) -> Network:
    """Find the input, the scores and the taps.

    A tap without rows or a fixed number of neurons of its own (one computed over the batch, say) is left out.

    Args:
        state: Weights by the names that the graph has for them.
        names: Of all that the graph gives, in order; empty where there are none.
        choice: The output that holds the scores, where the user says it.

    Raises:
        ModelError: When there is not one input and a matrix of scores, or the graph is one of training.
    """
    _refuse_training(graph)
    inputs = [node for node in graph.find_nodes(op="placeholder") if node.users]
    if len(inputs) != 1:
        raise ModelError(f"expected one input, found {len(inputs)}: {', '.join(n.name for n in inputs) or 'none used'}")
    (source,) = inputs
    example = source.meta["val"]
    if example.ndim < 2:
        raise ModelError(f"expected an input (n, ...), found one of shape {_text(example)}")
    batch = sizes(example)[0]
    ops, rows = _operations(graph, source, batch, state)
    nodes, outputs = _find_outputs(graph, rows, ops, names, choice)
    output = nodes[outputs.place].name
    taps = find_taps(ops, output)
    values = {node.name: node.meta["val"] for node in graph.nodes if node.name in rows}
    shapes = {name: sizes(value) for name, value in values.items()}
    places = {}
    for tap in taps.taps:
        if values[tap.name].is_complex():  # of whose numbers no metric knows what to make
            continue
        scores = Place.of_scores(shapes[tap.name]) if tap is taps.taps[-1] and rows[tap.name] == 0 else None
        if scores and len(shapes[tap.name]) != 2:
            places[tap.name] = scores
            continue
        wide = shapes.get(tap.unflattened, ())
        if wide and rows[tap.name] == rows[tap.unflattened] == 0 and shapes[tap.name] == [batch, math.prod(wide[1:])]:
            places[tap.name] = Place(0, tap.channel, wide[tap.channel], tuple(wide[1:]))
            continue
        axis, width = rows[tap.name], shapes[tap.name][-1 if wide else tap.channel]
        if axis is not None and axis != tap.channel and isinstance(width, int):
            places[tap.name] = Place(axis, 1 if wide else tap.channel, width)
    return Network(
        input=source.name,
        example=example,
        batch=batch,
        taps=tuple(places),
        outputs=outputs,
        output=output,
        places={output: Place(0, 1, outputs.width, (outputs.width,)), **places},
        scores=taps.scores,
        layout=_layout(ops),
        recurrent=any(op.role is Role.RECURRENT for op in ops),
        integers=tuple(sorted({operation(node) for node in graph.nodes if node.name in rows} & INTEGERS)),
    )


def extract(
    state: dict[str, Any], graph: fx.Graph, network: Network, names: Sequence[str], mixed: str | None = None
) -> fx.GraphModule:
    """Make the graph that computes the ``(rows, neurons)`` outputs at some places, and no more than that.

    Each is read where it is computed: an operation in place further on may overwrite it.

    Args:
        state: Weights by the names that the graph has for them; they are shared, not copied.
        names: Of the places, in the order of the outputs.
        mixed: The tap, if any, whose rows have there what other rows have: the graph takes their order, too.
    """
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    outputs: dict[str, fx.Node] = {}
    for node in graph.nodes:
        if node.op == "placeholder" and node.name != network.input:
            continue
        if _may_follow_a_pool(node, {*names, mixed}):
            copies[node] = copies[node.args[0]]
            continue
        copies[node] = part.node_copy(node, copies.__getitem__)
        if node.args and _may_follow_a_pool(node.args[0], {*names, mixed}):
            copies[node] = part.call_function(torch.ops.aten.relu.default, (copies[node],))
        if node.target is torch.ops.aten.view.default:  # which some layouts refuse
            copies[node].target = torch.ops.aten.reshape.default
        if node.name == network.input:
            order = part.placeholder("order") if mixed is not None else None
            rows = part.call_function(torch.ops.aten.sym_size.int, (copies[node], 0))
        if mixed is not None and node.name == mixed:
            copies[node] = part.call_function(exchanged, (copies[node], network.places[mixed].rows, order))
        if node.name in names:
            place = network.places[node.name]
            outputs[node.name] = part.call_function(
                neurons, (copies[node], rows, place.rows, place.channel, place.unflattened)
            )
            if outputs.keys() == set(names):
                break
    part.output([outputs[name] for name in names])
    part.eliminate_dead_code()
    return fx.GraphModule(state, part)


def _may_follow_a_pool(node: Any, read: Set[str | None]) -> bool:
    # Whether it is a ReLU that only max pooling uses, and nobody reads. Behind the pool it gives the same numbers and
    # the same gradients, of a quarter of the places: the greatest of several is cut off at 0 as each of them is.
    if not isinstance(node, fx.Node) or operation(node) != "relu" or node.name in read or len(node.users) != 1:
        return False
    (pool,), before = node.users, node.args[0]
    # In place, others may see what it does.
    alone = len(before.users) == 1 and not any(shares_memory(before, written=written) for written in (True, False))
    return operation(pool) in _MAX_POOLS and isinstance(pool.meta.get("val"), torch.Tensor) and alone


def sizes(value: torch.Tensor) -> list[Any]:
    """Lengths of the axes: a sympy expression where one may be any, which compares without adding guards."""
    lengths = [size.node.expr if isinstance(size, torch.SymInt) else size for size in value.shape]
    # A module that asks for the length of an axis has it fixed; it stays a SymInt.
    return [int(size) if not isinstance(size, int) and size.is_number else size for size in lengths]


def inline_blocks(module: fx.GraphModule) -> None:
    """Put the bodies of blocks where they are called that change nothing of what is computed.

    These are ``with torch.no_grad()``, and ``torch.autocast`` that is not enabled: they would hide taps, and the first
    stops gradients.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.higher_order.wrap_with_set_grad_enabled:
            body, *operands = node.args[1:]
        elif node.target is torch.ops.higher_order.wrap_with_autocast and not node.args[2]:
            body, *operands = node.args[4:]
        else:
            continue
        part = getattr(module, body.target)
        inline_blocks(part)
        arguments = dict(zip(part.graph.find_nodes(op="placeholder"), operands, strict=True))
        with graph.inserting_before(node):
            outputs = graph.graph_copy(part.graph, arguments)
        for item in list(node.users):
            item.replace_all_uses_with(outputs[item.args[1]])
            graph.erase_node(item)
        graph.erase_node(node)


def overwrites_parts(graph: fx.Graph) -> bool:
    """Whether an operation in place changes a part of a tensor that is used as a whole afterwards: ``y[:, 1] *= 2``.

    Who uses the whole does not stand behind that operation in the graph.
    """
    places = {node: place for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        part = node.args[0] if shares_memory(node, written=True) else None
        whole = part
        while isinstance(whole, fx.Node) and shares_memory(whole, written=False):
            whole = whole.args[0]
        later = whole.users if isinstance(whole, fx.Node) and whole is not part else ()
        if any(places[user] > places[node] for user in later):
            return True
    return False


def hidden_layers(graph: fx.Graph, state: Mapping[str, Any]) -> str:
    """Why layers of a graph cannot be seen: a block or a branch with layers inside; empty if there is none."""
    blocks = [node for node in graph.nodes if isinstance(node.target, torch._ops.HigherOrderOperator)]
    for node in blocks:
        bodies = [state.get(n.target) for n in node.all_input_nodes if n.op == "get_attr"]
        inside = [n for body in bodies if isinstance(body, fx.GraphModule) for n in _all_nodes(body)]
        if any(ROLES.get(name) in _LAYERS or CHANNELS.search(name) for name in map(operation, inside)):
            return f"expected layers outside branches and blocks, found some inside {node.target}"
    return ""


def _all_nodes(body: fx.GraphModule) -> list[fx.Node]:
    return [node for part in body.modules() if isinstance(part, fx.GraphModule) for node in part.graph.nodes]


def _operations(
    graph: fx.Graph, source: fx.Node, batch: Any, state: Mapping[str, Any]
) -> tuple[list[Op], dict[str, int | None]]:
    # All tensors computed from the input, in forward order, and the axis of the rows of each.
    ops = [Op(source.name, Role.INPUT, (), source.meta["val"].ndim)]
    rows: dict[str, int | None] = {source.name: 0}
    ranks = {source.name: source.meta["val"].ndim}
    sequences: dict[fx.Node, str] = {}
    values = Values(state)
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, torch.Tensor):
            continue
        # An operation with several outputs is one Op for each of them that is used.
        item = node.args[1] if node.target is operator.getitem else 0
        origin = node.args[0] if node.target is operator.getitem else node
        before = quantised(origin)
        sources = origin.all_input_nodes if before is None else [before]
        inputs = tuple(n.name for n in sources if n.name in rows)
        if not inputs or CONSTANTS.search(operation(origin)):
            continue
        rank, rank_before = value.ndim, ranks[inputs[0]]
        axis = rows[inputs[0]]
        permutation = _permutation(origin, rank_before, value)
        if permutation:
            role = Role.SELECT if operation(origin) in TAKES else Role.TRANSPOSE
            role = Role.MAX_POOL if operation(origin) in MAXIMA else role
            role = Role.RESHAPE if ROLES.get(operation(origin)) is Role.RESHAPE else role
            axis = permutation.index(axis) if axis in permutation else None
            # Not its first argument: that of `stack` is a list.
            if loses_axes_of_one(sizes(origin.all_input_nodes[0].meta["val"]), sizes(value)):
                role, permutation = Role.RESHAPE, ()
        elif operation(origin) in ("narrow", "slice") and sizes(origin.args[0].meta["val"]) == sizes(value):
            role = Role.IDENTITY  # all places, as the rows of y[:, 0]
        else:
            role = _role(origin, inputs, keeps=rank == rank_before and rank > 2)
        if role is Role.RECURRENT:
            # Sequences are (time, rows, features) or batch_first; final states are (layers, rows, features).
            axis = 0 if item == 0 and arguments(origin).get("batch_first") else 1
        elif role is Role.RESHAPE:
            axis = None
        rows[node.name] = _find_rows(value, batch, axis, folded=rows[inputs[0]] == 0)
        ranks[node.name] = rank
        place = len(ops)
        if role is Role.RECURRENT:
            # Its states come before its sequence, as other frameworks have them.
            sequences[origin] = node.name if item == 0 else sequences.get(origin, "")
            place = next((place for place, op in enumerate(ops) if op.name == sequences[origin]), place)
        channel = 1 if role in (Role.CONVOLUTION, Role.MAX_POOL) else -1
        function = values.function(node, inputs) if origin is node and role in COMPUTED else None
        ops.insert(place, Op(node.name, role, inputs, rank, channel, permutation, function))
    return ops, rows


def _role(node: fx.Node, inputs: Sequence[str], *, keeps: bool) -> Role:
    name = operation(node)
    if MAX_POOLS.match(name):
        return Role.MAX_POOL
    if CHANNELS.search(name):
        return Role.CONVOLUTION
    if ROLES.get(name) is Role.IDENTITY and quantised(node) is None and not is_real(node):
        return Role.CONVERSION
    if name == "mul" and len(inputs) > 1:
        return Role.MULTIPLY
    if name in ("add", "neg", "rsub", "sub"):
        return Role.AFFINE
    factors = [argument for argument in node.args[:2] if isinstance(argument, fx.Node) and argument.name in inputs]
    if len(factors) == 1 and (name == "mul" or (name == "div" and factors[0] is node.args[0])):
        return Role.AFFINE
    if name in ("maximum", "minimum") or (name in ("max", "min") and "other" in arguments(node)):
        return Role.ACTIVATION if len(inputs) == 1 else Role.ELEMENTWISE
    if keeps and name in ("constant_pad_nd", "pad") and not arguments(node)["value"]:
        return Role.PAD if arguments(node).get("mode", "constant") == "constant" else Role.KEEP
    if name.endswith("layer_norm") and len(node.args[1]) > 1:
        return Role.KEEP  # over channels and space
    # Unknown ones, concatenation, padding, interpolation, ... keep the axes of a tensor. Of a matrix, KEEP would say
    # more: that it still holds the same probabilities after a softmax.
    return ROLES.get(name, Role.KEEP if keeps else Role.OTHER)


def _permutation(node: fx.Node, before: int, value: torch.Tensor) -> tuple[int, ...]:
    # Output axis to input axis, for what moves, adds or takes away axes; empty for the rest.
    name, rank = operation(node), value.ndim
    if name in MOVES:
        # Asked of the operation itself, with a tensor whose axes can be told apart: there are many spellings.
        probe = torch.empty(tuple(range(before)), device="meta")
        return tuple(node.target(probe, *node.args[1:], **node.kwargs).shape)
    if name in TAKES and rank == before:
        return axes_beside_one_place(sizes(node.args[0].meta["val"]), sizes(value))
    if ROLES.get(name) is Role.RESHAPE:
        return axes_of_reshape(sizes(node.args[0].meta["val"]), sizes(value))
    if not name or (rank == before and name not in MAXIMA):
        return ()
    # squeeze, unsqueeze, select, unbind, stack, and reductions: mean, sum, amax, ...
    dims = arguments(node).get("dim")
    if name == "squeeze" and dims is None:
        dims = [axis for axis, size in enumerate(sizes(node.args[0].meta["val"])) if size == 1]
    if dims is None:
        return ()
    axes = {axis % max(before, rank) for axis in ([dims] if isinstance(dims, int) else dims)}
    if rank == before:
        return tuple(-1 if axis in axes else axis for axis in range(rank))
    if rank == before + len(axes):
        old = iter(range(before))
        return tuple(-1 if axis in axes else next(old) for axis in range(rank))
    rest = tuple(axis for axis in range(before) if axis not in axes)
    return rest if len(rest) == rank else ()


def _find_rows(value: torch.Tensor, batch: Any, likely: int | None, *, folded: bool) -> int | None:
    shape = sizes(value)
    for axis in ([] if likely is None else [likely]) + list(range(len(shape))):
        if axis < len(shape) and shape[axis] == batch:
            return axis
    # (rows, time, ...) reshaped to (rows * time, ...)
    return 0 if folded and shape and shape[0] % batch == 0 else None


def _find_outputs(
    graph: fx.Graph, rows: Mapping[str, int | None], ops: Sequence[Op], names: Sequence[str], choice: Choice
) -> tuple[list[fx.Node], Outputs]:
    # The tensors that the graph gives, and what they are.
    values = pytree.tree_leaves(graph.output_node().args[0])
    titles = names if len(names) == len(values) else [""] * len(values)
    given = [
        (node, title)
        for node, title in zip(values, titles, strict=True)
        if isinstance(node, fx.Node) and isinstance(node.meta.get("val"), torch.Tensor)
    ]
    tables = [node.name for node, _ in given if _width(node, rows)]
    softmax = {name for name in tables if len(tables) > 1 and find_taps(ops, name).scores in _SOFTMAX}

    def described(node: fx.Node, title: str) -> Output:
        if _width(node, rows):
            return Output.of_scores(title, sizes(node.meta["val"])[1:], softmax=node.name in softmax)
        return Output(title, _described(node), None)

    return [node for node, _ in given], Outputs.of([described(*one) for one in given], choice)


def _width(node: fx.Node, rows: Mapping[str, int | None]) -> int | None:
    value = node.meta["val"]
    table = rows.get(node.name) == 0 and value.dtype.is_floating_point
    return row_width(sizes(value)[1:]) if table else None


def _described(node: fx.Node) -> str:
    value = node.meta["val"]
    kind = "" if value.dtype.is_floating_point else f" of {str(value.dtype).removeprefix('torch.')}"
    return f"{_text(value)}{kind}"


def _text(value: torch.Tensor) -> str:
    return f"({', '.join(str(size) if isinstance(size, int) else 'n' for size in sizes(value))})"


def _layout(ops: Sequence[Op]) -> Layout | None:
    # Where the first convolution sees the input's channels; where that cannot be told, torch's habit for images.
    by_name = {op.name: op for op in ops}
    rank = ops[0].rank
    channelled = (op for op in ops if op.role in (Role.CONVOLUTION, Role.MAX_POOL) and not op.permutation)
    convolution = next(channelled, None)
    if convolution is not None and rank in (3, 4):
        axis, op = 1, by_name[convolution.inputs[0]]
        while op.rank == rank:
            if op.role is Role.INPUT:
                return "channels_last" if axis == rank - 1 else "channels_first"
            axis = op.permutation[axis] if op.role is Role.TRANSPOSE else axis
            op = by_name[op.inputs[0]]
    return "channels_first" if rank == 4 else None


def _refuse_training(graph: fx.Graph) -> None:
    for node in graph.nodes:
        name = operation(node)
        options = arguments(node) if name else {}
        training = options.get("train") or options.get("training") or options.get("dropout_p", 0) > 0
        # Dropout of nothing is none, and instance normalisation is decomposed to a batch's without running means.
        harmless = options.get("dropout", 1) == 0 or options.get("p", 1) == 0 or name == "_native_batch_norm_legit"
        if training and not (harmless and options.get("running_mean") is None):
            raise ModelError(
                f"expected a model in evaluation mode, found {name} in training mode; export after .eval()"
            )

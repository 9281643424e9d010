"""The weights in a graph: which of them are trained, which one gives the logits, and how they begin."""

import enum
import math
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from deepjudge_core.errors import ModelError
from deepjudge_core.models.taps import Role
from deepjudge_core.types import Array
from deepjudge_torch.aten import MOVES, ROLES, TAKES, arguments, operation


class Part(enum.Enum):
    """What a weight does in an operation."""

    MATRIX = "matrix"  # of a convolution or a product
    RECURRENT = "recurrent"
    EMBEDDING = "embedding"
    SCALE = "scale"
    SLOPE = "slope"
    SHIFT = "shift"
    MEAN = "mean"
    VARIANCE = "variance"
    OTHER = "other"


_STATISTICS = (Part.MEAN, Part.VARIANCE)
_LAYERS = (Part.MATRIX, Part.RECURRENT, Part.EMBEDDING)

# By the argument's name, where it says enough; else by the operation's.
_BY_ARGUMENT = {
    "b_hh": Part.SHIFT,
    "b_ih": Part.SHIFT,
    "batch1": Part.MATRIX,
    "batch2": Part.MATRIX,
    "bias": Part.SHIFT,
    "mat1": Part.MATRIX,
    "mat2": Part.MATRIX,
    "params": Part.RECURRENT,
    "running_mean": Part.MEAN,
    "running_var": Part.VARIANCE,
    "w_hh": Part.RECURRENT,
    "w_ih": Part.RECURRENT,
}
_PRODUCTS = ("bmm", "linear", "matmul", "mm")
_BY_OPERATION = {
    **dict.fromkeys(("add", "addmm", "baddbmm", "cat", "gru", "lstm", "rnn_relu", "rnn_tanh", "sub"), Part.SHIFT),
    **dict.fromkeys(_PRODUCTS, Part.MATRIX),
    **dict.fromkeys(("div", "mul"), Part.SCALE),
    "embedding": Part.EMBEDDING,
    "prelu": Part.SLOPE,
}
# What may happen to a weight before it is used; its values stay what they are, but for a factor.
_ARRANGING = {
    *MOVES,
    *TAKES,
    *(name for name, role in ROLES.items() if role in (Role.IDENTITY, Role.RESHAPE)),
    *("cat", "div", "expand", "flip", "mul", "squeeze", "stack", "unsqueeze"),
}
# Of positions and the like, which are added to features.
_DEVIATION = 0.02


@dataclass(frozen=True)
class Use:
    """A weight in an operation.

    Attributes:
        name: Of the weight.
        part: What it does there.
        fans: How many numbers each output of the operation is made from, and how many outputs each number goes into.
        plain: Whether the operation is given the weight as it is, or arranged, not something computed from it.
    """

    name: str
    part: Part
    fans: tuple[int, int]
    plain: bool


@dataclass(frozen=True)
class Weights:
    """What a graph says of its weights.

    Attributes:
        uses: Where each is used first, by name, in forward order.
        parameters: Names of those that training changes, in the same order.
        head: Names of the parameters of the layer that gives the logits.
    """

    uses: Mapping[str, Use]
    parameters: tuple[str, ...]
    head: tuple[str, ...]


def find_weights(graph: fx.Graph, source: str, logits: str, parameters: Collection[str]) -> Weights:
    """Find the weights of a graph: parameters, and running statistics.

    Args:
        source: Name of the input.
        logits: Name of the node that gives the logits.
        parameters: Names of the program's own; where it has none, as what other formats were converted to, they are
            the constants that stand where weights do.
    """
    dependent = _dependent(graph, source)
    node_uses = {node.name: list(_uses(node, dependent)) for node in graph.nodes if node in dependent}
    uses: dict[str, Use] = {}
    for node in graph.nodes:
        for use in node_uses.get(node.name, ()):
            trained = use.name in parameters if parameters else _like_parameter(node, use, bool(uses))
            if trained or use.part in _STATISTICS:
                uses.setdefault(use.name, use)
    trained_names = tuple(name for name, use in uses.items() if use.part not in _STATISTICS)
    return Weights(uses, trained_names, _find_head(graph, logits, dependent, node_uses, trained_names))


def draw(weights: Weights, shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, Array]:
    """Draw weights as is usual for what they do: He et al. (2015), and Glorot & Bengio (2010) for the head.

    Args:
        shapes: Of those that are wanted.

    Raises:
        ModelError: When it is not known what one does; without the model's name in front.
    """
    return {name: _draw(weights.uses[name], shape, name in weights.head, rng) for name, shape in shapes.items()}


def class_axis(use: Use, shape: tuple[int, ...], classes: int) -> tuple[int, ...]:
    """Axes of a weight of the head that may be that of the classes, the likeliest first."""
    return tuple(dict.fromkeys(axis for axis in (0, len(shape) - 1) if shape[axis] == classes))


def _draw(use: Use, shape: tuple[int, ...], head: bool, rng: np.random.Generator) -> Array:
    before, after = use.fans
    if not use.plain or use.part is Part.OTHER:
        raise ModelError(f"it cannot be retrained: the initial values of its weight {use.name!r} are unknown")
    if use.part is Part.MATRIX:
        limit = math.sqrt(6 / (before + after if head else before))
        return rng.uniform(-limit, limit, shape)
    if use.part is Part.RECURRENT:
        limit = 1 / math.sqrt(before)
        return rng.uniform(-limit, limit, shape)
    if use.part is Part.EMBEDDING:
        return rng.normal(size=shape)
    if use.part is Part.SHIFT and len(shape) > 1:
        return rng.normal(scale=_DEVIATION, size=shape)
    constants = {Part.SCALE: 1.0, Part.VARIANCE: 1.0, Part.SLOPE: 0.25}
    return np.full(shape, constants.get(use.part, 0.0))


def _dependent(graph: fx.Graph, source: str) -> set[fx.Node]:
    # Nodes whose values, not only whose sizes, depend on those of the input.
    nodes: set[fx.Node] = set()
    for node in graph.nodes:
        if node.name == source or (operation(node) != "sym_size" and nodes.intersection(node.all_input_nodes)):
            nodes.add(node)
    return nodes


def _uses(node: fx.Node, dependent: set[fx.Node]) -> Iterator[Use]:
    # What is computed from weights alone and given to an operation that is also given something else.
    name = operation(node)
    if not name:
        return
    for argument, value in arguments(node).items():
        items = value if isinstance(value, list | tuple) else [value]
        operands = [item for item in items if isinstance(item, fx.Node)]
        for operand in operands:
            if operand in dependent:
                continue
            fans = _fans(name, argument, operand, operands)
            leaves, plain = _leaves(operand)
            for leaf in leaves:
                yield Use(leaf, _part(name, argument), fans, plain)


def _part(name: str, argument: str) -> Part:
    if argument == "weight":
        if "norm" in name:
            return Part.SCALE
        return _BY_OPERATION.get(name, Part.MATRIX if "conv" in name else Part.OTHER)
    return _BY_ARGUMENT.get(argument) or _BY_OPERATION.get(name, Part.OTHER)


def _fans(name: str, argument: str, operand: fx.Node, beside: Sequence[fx.Node]) -> tuple[int, int]:
    shape = _shape(operand)
    if argument == "params":  # (gates * hidden, features), (gates * hidden, hidden), ...
        hidden = _shape(beside[1])[-1]
        return hidden, hidden
    if len(shape) < 2:
        return max(shape, default=1), 1
    if argument == "weight":  # outputs first
        window = math.prod(shape[2:])
        return shape[1] * window, shape[0] * window
    left = argument in ("mat1", "batch1") or (argument == "self" and name in _PRODUCTS)
    return (shape[-1], shape[-2]) if left else (shape[-2], shape[-1])


def _shape(node: fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()


def _leaves(node: fx.Node) -> tuple[list[str], bool]:
    # Names of the weights that a tensor is computed from, and whether that only arranges them.
    stack, names, plain = [node], [], True
    while stack:
        current = stack.pop()
        if current.op == "get_attr":
            names.append(str(current.target))
            continue
        tensors = [item for item in current.all_input_nodes if operation(item) != "sym_size"]
        plain = plain and (current.target is operator.getitem or operation(current) in _ARRANGING)
        if operation(current) in ("div", "mul"):
            plain = plain and len(tensors) == 1
        stack.extend(reversed(tensors))
    return names, plain


def _like_parameter(node: fx.Node, use: Use, begun: bool) -> bool:
    # A constant that stands where a weight does. In front of the first layer, what is added and multiplied prepares the
    # input; elsewhere, single numbers belong to a formula.
    name = operation(node)
    # What recurrent layers begin with is no weight.
    if use.part in (Part.OTHER, *_STATISTICS) or (use.part is Part.SHIFT and ROLES.get(name) is Role.RECURRENT):
        return False
    if name in ("add", "sub", "mul", "div"):
        bias = use.part is Part.SHIFT and any(operation(other) in _PRODUCTS for other in node.all_input_nodes)
        return begun and (bias or max(use.fans) > 1)
    return name != "cat"


def _find_head(
    graph: fx.Graph, logits: str, dependent: set[fx.Node], uses: Mapping[str, list[Use]], parameters: Collection[str]
) -> tuple[str, ...]:
    # Back from the logits, on every way as far as the first layer.
    names: list[str] = []
    reached = {node for node in graph.nodes if node.name == logits}
    for node in reversed(graph.nodes):
        if node not in reached:
            continue
        met = [use for use in uses.get(node.name, ()) if use.name in parameters]
        names += [use.name for use in met]
        if not any(use.part in _LAYERS for use in met):
            reached |= dependent.intersection(node.all_input_nodes)
    return tuple(name for name in parameters if name in names)


def training_graph(part: fx.GraphModule) -> fx.GraphModule:
    """Make normalisation and dropout work as they do in training.

    Args:
        part: Is changed.
    """
    for node in part.graph.nodes:
        if operation(node) == "_native_batch_norm_legit_no_training":
            tensors, numbers = node.args[:5], node.args[5:]
            node.target, node.args = torch.ops.aten._native_batch_norm_legit.default, (*tensors, True, *numbers)
            continue
        for flag in ("train", "training", "use_input_stats"):
            if operation(node) and flag in arguments(node):
                _set(node, flag, True)
    part.recompile()
    return part


def draws(graph: fx.Graph) -> bool:
    """Whether a graph in training draws random numbers."""
    return any("dropout" in operation(node) or operation(node) == "rrelu" or _drops(node) for node in graph.nodes)


def _drops(node: fx.Node) -> bool:
    return bool(operation(node)) and (arguments(node).get("dropout") or 0) > 0


def _set(node: fx.Node, name: str, value: Any) -> None:
    places = [argument.name for argument in node.target._schema.arguments]
    if places.index(name) < len(node.args):
        node.update_arg(places.index(name), value)
    else:
        node.update_kwarg(name, value)

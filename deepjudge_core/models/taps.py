"""Where to listen in a network: its activations and logits, found in a graph of operations.

Frameworks name, fuse and order layers differently, so neither names nor integer places match. The taps of a model
are the outputs of its activation functions in forward order, then its logits. An adapter translates its own graph
into :class:`Op` records; the rules that find the taps, and the channel axis of each, are the same for all.
"""

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepjudge_core.errors import ModelError
from deepjudge_core.models.model import Scores


class Role(enum.Enum):
    """What an operation does, as far as taps are concerned."""

    INPUT = "input"
    CONVOLUTION = "convolution"  # and what else puts channels on a fixed axis: `channel` says which
    PROJECTION = "projection"  # dense, matmul, layer norm: features on the last axis
    RECURRENT = "recurrent"  # a whole recurrent layer; its output is a tap
    ACTIVATION = "activation"  # elementwise nonlinearity of its first input; its output is a tap
    MULTIPLY = "multiply"  # of two tensors, or a choice between them
    TRANSPOSE = "transpose"
    SELECT = "select"  # one place of an axis, such as the last step of a sequence
    RESHAPE = "reshape"  # changes or flattens the axes: channels are on the last axis of a matrix, else unknown
    SOFTMAX = "softmax"
    LOG_SOFTMAX = "log-softmax"
    SIGMOID = "sigmoid"  # an activation, unless it is the output of a classifier
    KEEP = "keep"  # keeps axes as they are: pooling, normalisation, dropout, casts
    AFFINE = "affine"  # keeps axes: addition, and scaling by numbers that do not depend on the input
    ELEMENTWISE = "elementwise"  # keeps axes, changes each value by itself otherwise: powers, exponentials, limits
    OTHER = "other"


_ACTIVATIONS = (Role.ACTIVATION, Role.SIGMOID)
_ELEMENTWISE = (*_ACTIVATIONS, Role.MULTIPLY, Role.KEEP, Role.AFFINE, Role.ELEMENTWISE)
_LAYERS = (Role.CONVOLUTION, Role.PROJECTION)
_CARRIES = (Role.AFFINE, Role.KEEP, Role.RESHAPE, Role.SELECT, Role.TRANSPOSE)


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: Of its (first) output tensor, unique in the graph.
        role: What it does.
        inputs: Names of the tensors that are computed from the model's input (constants are left out).
        rank: Number of axes of the output, the batch axis counted.
        channel: For CONVOLUTION and RECURRENT: the axis of the channels.
        permutation: For TRANSPOSE and SELECT: output axis to input axis, -1 for a new one; input axes may be missing.
    """

    name: str
    role: Role
    inputs: tuple[str, ...]
    rank: int
    channel: int = -1
    permutation: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tap:
    """A place to listen.

    Attributes:
        name: Of the tensor.
        channel: Axis of its neurons; all axes but this and the batch axis are averaged.
    """

    name: str
    channel: int


@dataclass(frozen=True)
class Place:
    """Where the neurons of a tensor are, once the model has run.

    Attributes:
        rows: Axis of the rows; ``k * rows`` long where the model folds another axis into it.
        channel: Axis of the neurons.
        neurons: Their number.
    """

    rows: int
    channel: int
    neurons: int


@dataclass(frozen=True)
class Taps:
    """The taps of a model, the logits last, and what its output is."""

    taps: tuple[Tap, ...]
    scores: Scores


def find_taps(ops: Sequence[Op], output: str) -> Taps:
    """Find the taps of a network.

    Args:
        ops: All operations, in forward order.
        output: Name of the tensor that holds the scores ``(n, classes)``.

    Raises:
        ModelError: When the output is not computed in the graph.
    """
    by_name = {op.name: op for op in ops}
    if output not in by_name:
        raise ModelError(f"expected the output {output!r} in the graph, found none of that name")
    logits, scores = _find_logits(by_name, output)
    used = _ancestors(by_name, logits)
    composite = _composites(ops)
    active = {composite.get(op.name, op.name) for op in ops if op.role in (*_ACTIVATIONS, Role.RECURRENT)}
    hidden = [_select_step(by_name, used, op) for op in ops if op.name in active & used and op.name != logits]
    return Taps(tuple(Tap(name, channel_axis(by_name, name)) for name in (*hidden, logits)), scores)


def axes_beside_one_place(before: Sequence[Any], after: Sequence[Any]) -> tuple[int, ...]:
    """The permutation of a SELECT that takes one place of an axis and keeps that axis; empty where that is not so.

    Args:
        before: Sizes of the input's axes, numbers or whatever stands for those that vary.
        after: The same of the output.
    """
    if len(before) != len(after) or len(before) < 3:
        return ()
    changed = [axis for axis, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    if len(changed) != 1 or after[changed[0]] != 1:
        return ()
    return tuple(-1 if axis in changed else axis for axis in range(len(before)))


def channel_axis(by_name: Mapping[str, Op], name: str) -> int:
    """Axis of a tensor that holds its neurons.

    Follows the tensor back to the operation that put the channels where they are.
    """
    op = by_name[name]
    if op.rank <= 2:
        return op.rank - 1
    if op.role in (Role.CONVOLUTION, Role.RECURRENT):
        return op.channel % op.rank
    if op.role in (Role.TRANSPOSE, Role.SELECT) and op.inputs:
        source = channel_axis(by_name, op.inputs[0])
        if source in op.permutation:
            return op.permutation.index(source)
        if op.role is Role.SELECT and op.rank == by_name[op.inputs[0]].rank:
            return source  # one of the channels, on their axis
    if op.role in _ELEMENTWISE:
        same = [i for i in op.inputs if i in by_name and by_name[i].rank == op.rank]
        if same:
            return channel_axis(by_name, same[0])
    return op.rank - 1


def _find_logits(by_name: Mapping[str, Op], output: str) -> tuple[str, Scores]:
    # A final softmax is looked through: the gradient of a saturated one is zero.
    name = output
    while True:
        op = by_name[name]
        if op.role is Role.SOFTMAX:
            return _source(op, name), Scores.PROBABILITIES
        if op.role is Role.SIGMOID:
            return _source(op, name), Scores.SIGMOIDS
        if op.role is Role.LOG_SOFTMAX:
            return _source(op, name), Scores.LOG_PROBABILITIES
        source = by_name.get(op.inputs[0]) if len(op.inputs) == 1 else None
        # A reshape may come from a map of one pixel; from a larger one the number of classes will not agree.
        if source is None or not (op.role is Role.RESHAPE or (op.role is Role.KEEP and op.rank == source.rank == 2)):
            return output, Scores.LOGITS if _is_linear(by_name, output) else Scores.UNKNOWN
        name = source.name


def _is_linear(by_name: Mapping[str, Op], output: str) -> bool:
    # Whether layers of weights alone end the network, none of which may be a weighted mean of probabilities.
    mixed = (Role.ELEMENTWISE, Role.SIGMOID, Role.SOFTMAX)
    return all(
        op.role in _LAYERS
        and not any(before.role in mixed for before in _origins(by_name, op.inputs, (*_CARRIES, Role.OTHER)))
        for op in _origins(by_name, [output], _CARRIES)
    )


def _origins(by_name: Mapping[str, Op], names: Sequence[str], through: Collection[Role]) -> list[Op]:
    # The nearest operations behind those of some roles.
    origins, reached, stack = [], set(names), list(names)
    while stack:
        op = by_name[stack.pop()]
        if op.role not in through:
            origins.append(op)
            continue
        stack.extend(name for name in op.inputs if name in by_name and name not in reached)
        reached.update(op.inputs)
    return origins


def _source(op: Op, name: str) -> str:
    if not op.inputs:
        raise ModelError(f"the final {op.role.value} {name!r} has no input in the graph")
    return op.inputs[0]


def _ancestors(by_name: Mapping[str, Op], name: str, start: str | None = None) -> set[str]:
    # Of a tensor, itself included; not those behind ``start``, nor that one.
    names: set[str] = set()
    stack = [name]
    while stack:
        current = stack.pop()
        if current in names or current == start or current not in by_name:
            continue
        names.add(current)
        stack.extend(by_name[current].inputs)
    return names


def _select_step(by_name: Mapping[str, Op], used: set[str], op: Op) -> str:
    # Of a sequence, the one step that the network goes on with: some formats hold no others.
    name, axes = op.name, tuple(range(op.rank))
    while op.role is Role.RECURRENT:
        users = [by_name[user] for user in used if name in by_name[user].inputs]
        if len(users) != 1:
            break
        if users[0].role is Role.SELECT and channel_axis(by_name, name) in users[0].permutation:
            return users[0].name
        if users[0].role is Role.TRANSPOSE:  # an axis of one may come and go
            axes = tuple(-1 if axis < 0 else axes[axis] for axis in users[0].permutation)
        if users[0].role not in (Role.KEEP, Role.TRANSPOSE) or not set(range(op.rank)) <= set(axes):
            break
        name = users[0].name
    return op.name


def _composites(ops: Sequence[Op]) -> dict[str, str]:
    # x * sigmoid(x) (SiLU), x * tanh(softplus(x)) (Mish), x * (1 + erf(x)) (GELU), ...: where elementwise branches from
    # one tensor meet again in a product, their activations are one, and the product is its output. A sum is one when
    # there is an activation in every branch (a parametric ReLU); x + relu(x) is a shortcut.
    by_name = {op.name: op for op in ops}
    origin: dict[str, str] = {}  # the nearest tensor that a tensor is an elementwise function of
    composites: dict[str, str] = {}
    for op in ops:
        if op.role not in _ELEMENTWISE or not op.inputs:
            continue
        first, *others = [_path(origin, name) for name in op.inputs]
        meeting = next((name for name in first if all(name in path for path in others)), None)
        if meeting is None:
            continue
        origin[op.name] = meeting
        if others:
            branches = [_activations(by_name, name, meeting) for name in op.inputs]
            if any(branches) if op.role is Role.MULTIPLY else all(branches):
                composites |= dict.fromkeys(set().union(*branches), op.name)
    return composites


def _path(origin: Mapping[str, str], name: str) -> list[str]:
    path = [name]
    while path[-1] in origin:
        path.append(origin[path[-1]])
    return path


def _activations(by_name: Mapping[str, Op], name: str, start: str) -> set[str]:
    return {key for key in _ancestors(by_name, name, start) if by_name[key].role in _ACTIVATIONS}

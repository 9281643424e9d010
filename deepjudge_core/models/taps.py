"""Where to listen in a network: its activations and logits, found in a graph of operations.

Frameworks name, fuse and order layers differently, so neither names nor integer places match. The taps of a model
are the outputs of its activation functions in forward order, then its logits. An adapter translates its own graph
into :class:`Op` records; the rules that find the taps, and the channel axis of each, are the same for all.

An activation commutes with max pooling (if it never falls) and with flattening: both orders are the same function, and
have the same tap. It is behind the pooling, since only there both orders hold it; and it has the axes from before the
flattening, since the order of flattened neurons is that of a framework's axes.
"""

import enum
import math
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
    SCALE = "scale"  # by one number: `factor`
    KINK = "kink"  # comparison, sign, absolute value: with its own input it makes an activation, alone it is none
    EXTREMUM = "extremum"  # the greater or lesser of two tensors: an activation if both are made of one
    MAX_POOL = "max-pool"  # `channel` says which axis holds the channels
    TRANSPOSE = "transpose"
    SELECT = "select"  # one place of an axis, such as the last step of a sequence
    RESHAPE = "reshape"  # changes or flattens the axes: channels are on the last axis of a matrix, else unknown
    SOFTMAX = "softmax"
    LOG_SOFTMAX = "log-softmax"
    SIGMOID = "sigmoid"  # an activation, unless it is the output of a classifier
    IDENTITY = "identity"  # passes values on: dropout out of training, casts, copies
    KEEP = "keep"  # keeps axes as they are: other pooling, normalisation
    AFFINE = "affine"  # keeps axes: addition, and scaling by numbers of the model
    ELEMENTWISE = "elementwise"  # keeps axes, changes each value by itself otherwise: powers, exponentials
    OTHER = "other"


_ACTIVATIONS = (Role.ACTIVATION, Role.SIGMOID)
_SPELT = (Role.MULTIPLY, Role.SCALE, Role.KINK, Role.EXTREMUM, Role.AFFINE, Role.ELEMENTWISE)
_ELEMENTWISE = (*_ACTIVATIONS, *_SPELT, Role.IDENTITY, Role.KEEP)
_KEEPING = (Role.KEEP, Role.IDENTITY)
_LAYERS = (Role.CONVOLUTION, Role.PROJECTION)
_WEIGHING = (*_LAYERS, Role.RECURRENT)
_CARRIES = (Role.AFFINE, Role.SCALE, *_KEEPING, Role.RESHAPE, Role.SELECT, Role.TRANSPOSE)


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: Of its (first) output tensor, unique in the graph.
        role: What it does.
        inputs: Names of the tensors that are computed from the model's input (constants are left out).
        rank: Number of axes of the output, the batch axis counted.
        channel: For CONVOLUTION, RECURRENT and MAX_POOL: the axis of the channels.
        permutation: For TRANSPOSE and SELECT: output axis to input axis, -1 for a new one; input axes may be missing.
        factor: For SCALE: the number.
    """

    name: str
    role: Role
    inputs: tuple[str, ...]
    rank: int
    channel: int = -1
    permutation: tuple[int, ...] = ()
    factor: float = math.nan


@dataclass(frozen=True)
class Tap:
    """A place to listen.

    Attributes:
        name: Of the tensor.
        channel: Axis of its neurons; all axes but this and the batch axis are averaged.
        unflattened: Of a flattened tensor, the name of the one whose axes it had: ``channel`` is an axis of that.
    """

    name: str
    channel: int
    unflattened: str = ""


@dataclass(frozen=True)
class Place:
    """Where the neurons of a tensor are, once the model has run.

    Attributes:
        rows: Axis of the rows; ``k * rows`` long where the model folds another axis into it.
        channel: Axis of the neurons.
        neurons: Their number.
        unflattened: Sizes of the axes beside the rows, where the tensor is to be given them first.
    """

    rows: int
    channel: int
    neurons: int
    unflattened: tuple[int, ...] = ()


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
    users = _users(by_name, used)
    composites = _composites(ops)
    ends = {part: composite.end for composite in composites for part in composite.parts}  # the widest one is the last
    active = {ends.get(op.name, op.name) for op in ops if op.role in (*_ACTIVATIONS, Role.RECURRENT)}
    widest = {composite.end: composite for composite in composites if composite.end in ends.values()}
    hidden = []
    for op in ops:
        if op.name in (active | widest.keys()) & used and op.name != logits:
            name = _completed(by_name, users, op, widest.get(op.name))
            name = _pooled(by_name, users, _select_step(by_name, used, by_name[name]))
            source = _unflattened(by_name, widest[op.name].start if op.name in widest else name)
            hidden.append(Tap(name, channel_axis(by_name, source or name), source))
    taps = [tap for tap in dict.fromkeys(hidden) if tap.name != logits]
    return Taps((*taps, Tap(logits, channel_axis(by_name, logits))), scores)


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
    if op.role in (Role.CONVOLUTION, Role.RECURRENT, Role.MAX_POOL):
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
        if source is None or not (op.role is Role.RESHAPE or (op.role in _KEEPING and op.rank == source.rank == 2)):
            return output, Scores.LOGITS if _is_linear(by_name, output) else Scores.UNKNOWN
        name = source.name


def _is_linear(by_name: Mapping[str, Op], output: str) -> bool:
    # Whether layers of weights alone end the network, none of which may be a weighted mean of probabilities.
    mixed = (Role.ELEMENTWISE, Role.EXTREMUM, Role.KINK, Role.SIGMOID, Role.SOFTMAX)
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
        if users[0].role not in (*_KEEPING, Role.TRANSPOSE) or not set(range(op.rank)) <= set(axes):
            break
        name = users[0].name
    return op.name


def _users(by_name: Mapping[str, Op], used: set[str]) -> Mapping[str, list[Op]]:
    users: dict[str, list[Op]] = {name: [] for name in used}
    for op in by_name.values():
        if op.name in used:
            for name in dict.fromkeys(op.inputs):
                users.setdefault(name, []).append(op)
    return users


def _only_user(users: Mapping[str, list[Op]], name: str) -> Op | None:
    return users[name][0] if len(users.get(name, ())) == 1 else None


def _pooled(by_name: Mapping[str, Op], users: Mapping[str, list[Op]], name: str) -> str:
    # Behind the max pooling that is all that uses it. Whether a spelt-out activation never falls does not show, so this
    # holds for all: they have one place, however they are written.
    if by_name[name].role is Role.RECURRENT:
        return name
    user = _only_user(users, name)
    while user and (user.role is Role.IDENTITY or (user.role is Role.TRANSPOSE and _keeps_axes(by_name, user))):
        user = _only_user(users, user.name)
    return user.name if user and user.role is Role.MAX_POOL else name


def _keeps_axes(by_name: Mapping[str, Op], op: Op) -> bool:
    return set(range(by_name[op.inputs[0]].rank)) <= set(op.permutation)


def _unflattened(by_name: Mapping[str, Op], name: str) -> str:
    # What was flattened right before an activation, whose output or start this is; empty where nothing was.
    op = by_name[name]
    while op.rank == 2 and op.role in (*_ACTIVATIONS, Role.SCALE, Role.IDENTITY) and len(op.inputs) == 1:
        op = by_name.get(op.inputs[0], op)
    source = by_name.get(op.inputs[0]) if op.role is Role.RESHAPE and op.rank == 2 and op.inputs else None
    return source.name if source and source.rank > 2 else ""


@dataclass(frozen=True)
class _Composite:
    """One activation of several operations: where it starts, where it ends, and the nonlinear ones among them."""

    start: str
    end: str
    parts: frozenset[str]


def _composites(ops: Sequence[Op]) -> list[_Composite]:
    # x * sigmoid(x) (SiLU), x * tanh(softplus(x)) (Mish), x * (1 + erf(x)) (GELU), ...: where elementwise branches from
    # one tensor meet again in a product, their activations are one, and the product is its output. A sum is one when
    # there is an activation in every branch (a parametric ReLU); x + relu(x) is a shortcut. A kink is no activation
    # unless it meets: x * (x > 0), where(x > 0, x, 0), x + |x|; nor is the greater of two, as max(x, a * x). What is
    # computed from the input without weights is preprocessing.
    by_name = {op.name: op for op in ops}
    weighed: set[str] = set()
    origin: dict[str, str] = {}  # the nearest tensor that a tensor is an elementwise function of
    composites: list[_Composite] = []
    bound: set[str] = set()  # kinks that are parts of an activation
    for op in ops:
        if op.role in _WEIGHING or weighed.intersection(op.inputs):
            weighed.add(op.name)
        if op.role not in _ELEMENTWISE or not op.inputs:
            continue
        first, *others = [_path(origin, name) for name in op.inputs]
        meeting = next((name for name in first if all(name in path for path in others)), None)
        if meeting is None:
            continue
        origin[op.name] = meeting
        if not others:
            continue
        branches = [_nonlinear(by_name, name, meeting) for name in op.inputs]
        parts = set[str]().union(*branches)
        kinks = {name for name in parts if by_name[name].role is Role.KINK}
        active = [bool(branch - (kinks - bound)) for branch in branches]
        joined = any(active) if op.role is Role.MULTIPLY else all(active)
        if meeting in weighed and op.role is not Role.KINK and (kinks - bound or op.role is Role.EXTREMUM):
            joined = True
            parts.add(op.name)
        if joined:
            bound |= kinks
            composites.append(_Composite(meeting, op.name, frozenset(parts)))
    return composites


def _completed(by_name: Mapping[str, Op], users: Mapping[str, list[Op]], op: Op, composite: _Composite | None) -> str:
    # With the number that an activation ends with: (x + |x|) / 2, x * (1 + erf(x)) * 0.5, x * relu6(x + 3) / 6,
    # -min(-x, 0). If the number is among its parts already, another one is no part of it.
    scale = _only_user(users, op.name)
    if scale is None or scale.role is not Role.SCALE:
        return op.name

    def is_(other: Op, factor: float) -> bool:
        return other.role is Role.SCALE and math.isclose(other.factor, factor, rel_tol=1e-3)

    if composite is None:
        before = by_name.get(op.inputs[0]) if op.role in _ACTIVATIONS and len(op.inputs) == 1 else None
        return scale.name if before and is_(before, -1) and is_(scale, -1) else op.name
    inner = [by_name[name] for name in _ancestors(by_name, op.name, composite.start)]
    kinked = any(part.role is Role.KINK for part in inner)
    gated = op.role is Role.MULTIPLY and any(
        by_name[name].role in (Role.AFFINE, Role.ELEMENTWISE) for name in op.inputs
    )
    sixth = op.role is Role.MULTIPLY and is_(scale, 1 / 6)
    if (sixth or (is_(scale, 0.5) and (kinked or gated))) and not any(is_(part, scale.factor) for part in inner):
        return scale.name
    return op.name


def _path(origin: Mapping[str, str], name: str) -> list[str]:
    path = [name]
    while path[-1] in origin:
        path.append(origin[path[-1]])
    return path


def _nonlinear(by_name: Mapping[str, Op], name: str, start: str) -> set[str]:
    roles = (*_ACTIVATIONS, Role.KINK, Role.EXTREMUM)
    return {key for key in _ancestors(by_name, name, start) if by_name[key].role in roles}

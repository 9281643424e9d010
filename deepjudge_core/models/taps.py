"""Where to listen in a network: its activations and logits, found in a graph of operations.

Frameworks name, fuse and order layers differently, so neither names nor integer places match. The taps of a model
are the outputs of its activation functions in forward order, then its logits. An adapter translates its own graph
into :class:`Op` records; the rules that find the taps, and the channel axis of each, are the same for all.

One function has one tap, however it is written:

- An activation of several operations is known by what it computes (:mod:`deepjudge_core.models.activations`), and its
  tap is where it ends.
- An activation commutes with max pooling (if it never falls) and with flattening. Its tap is behind the pooling, since
  only there both orders hold it; and it has the axes from before the flattening, since the order of flattened neurons
  is that of a framework's axes. Mean pooling commutes with neither.
"""

import enum
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.activations import PROBES, is_activation, is_straight
from deepjudge_core.models.outputs import row_width
from deepjudge_core.models.scores import Scores
from deepjudge_core.types import Array, Layout


class Role(enum.Enum):
    """What an operation does, as far as taps are concerned."""

    INPUT = "input"
    CONVOLUTION = "convolution"  # and what else puts channels on a fixed axis: `channel` says which
    PROJECTION = "projection"  # dense, matmul, layer norm: features on the last axis
    RECURRENT = "recurrent"  # a whole recurrent layer; its output is a tap
    ACTIVATION = "activation"  # elementwise nonlinearity of its first input; its output is a tap
    MULTIPLY = "multiply"  # of two tensors, or a choice between them
    MAX_POOL = "max-pool"  # `channel` or, where axes go, `permutation` says where the channels are
    PAD = "pad"  # zeros around a map
    TRANSPOSE = "transpose"
    SELECT = "select"  # one place of an axis, such as the last step of a sequence
    RESHAPE = "reshape"  # changes or flattens the axes: channels are on the last axis of a matrix, else unknown
    SOFTMAX = "softmax"
    LOG_SOFTMAX = "log-softmax"
    SIGMOID = "sigmoid"  # an activation, unless it is the output of a classifier
    IDENTITY = "identity"  # passes values on but for their rounding: dropout out of training, casts of reals, copies
    CONVERSION = "conversion"  # passes values on in other numbers, of which some may be lost: integers, other scales
    KEEP = "keep"  # keeps axes as they are: other pooling, normalisation
    AFFINE = "affine"  # keeps axes: addition, and scaling by numbers that do not depend on the input
    ELEMENTWISE = "elementwise"  # keeps axes, changes each value by itself otherwise: powers, comparisons
    OTHER = "other"


_ACTIVATIONS = (Role.ACTIVATION, Role.SIGMOID)
_KEEPING = (Role.KEEP, Role.IDENTITY, Role.CONVERSION, Role.PAD)
_ELEMENTWISE = (*_ACTIVATIONS, Role.MULTIPLY, Role.AFFINE, Role.ELEMENTWISE, *_KEEPING)
_LAYERS = (Role.CONVOLUTION, Role.PROJECTION)
_CARRIES = (Role.AFFINE, *_KEEPING, Role.RESHAPE, Role.SELECT, Role.TRANSPOSE)

_MOST = 32
"""Operations that one activation is made of at most."""


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: Of its (first) output tensor, unique in the graph.
        role: What it does.
        inputs: Names of the tensors that are computed from the model's input (constants are left out).
        rank: Number of axes of the output, the batch axis counted.
        channel: For CONVOLUTION, RECURRENT and MAX_POOL: the axis of the channels.
        permutation: For TRANSPOSE, SELECT, RESHAPE and MAX_POOL: output axis to input axis, -1 for a new one; axes of
            the input may be missing.
        function: Of an elementwise operation, what it makes of numbers: arrays ``(n, 1)`` for the inputs to ``(n, 1)``
            or, where channels have numbers of their own, ``(n, k)``. It may raise whatever it likes for numbers that
            it cannot take. None where it is not known.
    """

    name: str
    role: Role
    inputs: tuple[str, ...]
    rank: int
    channel: int = -1
    permutation: tuple[int, ...] = ()
    function: Callable[..., Array] | None = None


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

    @classmethod
    def of_scores(cls, sizes: Sequence[Any]) -> "Place | None":
        """Where the scores are in a tensor that holds nothing else; None if it is no row of them for each input.

        Args:
            sizes: Of its axes, that of the rows first: see :func:`~deepjudge_core.models.outputs.row_width`.
        """
        width = row_width(sizes[1:])
        return None if width is None else cls(0, 1, width, () if len(sizes) == 2 else (width,))


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
        raise ModelError(f"expected the output {output!r} in the graph, found no output of this name")
    logits, scores = _find_logits(by_name, output)
    used = _ancestors(by_name, logits)
    users = _users(by_name, used)
    hidden = []
    for start, end in _activations(ops, users):
        if end != logits:
            name = _pooled(by_name, users, _select_step(by_name, used, by_name[end]))
            source = _unflattened(by_name, name if start is None else start)
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


def axes_of_reshape(before: Sequence[Any], after: Sequence[Any]) -> tuple[int, ...]:
    """The permutation of a RESHAPE that joins or splits axes and keeps others; empty where no channels can be kept.

    Args:
        before: Sizes of the input's axes, numbers or whatever stands for those that vary.
        after: The same of the output.
    """
    if min(len(before), len(after)) < 3 or before[0] != after[0]:
        return ()
    most = min(len(before), len(after))
    first = next((at for at in range(most) if before[at] != after[at]), most)
    last = next((at for at in range(most - first) if before[-1 - at] != after[-1 - at]), most - first)
    middle = len(after) - first - last
    return (*range(first), *[-1] * middle, *range(len(before) - last, len(before)))


def loses_axes_of_one(before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Whether what has one number for each row loses some of its axes, as by a squeeze: a RESHAPE, whatever did it.

    Args:
        before: Sizes of the input's axes, that of the rows first.
        after: The same of the output.
    """
    return len(after) < len(before) and all(size == 1 for size in (*before[1:], *after[1:]))


def channel_axis(by_name: Mapping[str, Op], name: str) -> int:
    """Axis of a tensor that holds its neurons.

    Follows the tensor back to the operation that put the channels where they are.
    """
    op = by_name[name]
    if op.rank <= 2:
        return op.rank - 1
    if op.role in (Role.CONVOLUTION, Role.RECURRENT, Role.MAX_POOL) and not op.permutation:
        return op.channel % op.rank
    if op.role in (Role.TRANSPOSE, Role.SELECT, Role.RESHAPE, Role.MAX_POOL) and op.inputs:
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


def input_layout(ops: Sequence[Op]) -> Layout | None:
    """Where the first convolution sees the channels of the input, if that can be told."""
    by_name = {op.name: op for op in ops}
    rank = ops[0].rank
    op = next((op for op in ops if op.role in (Role.CONVOLUTION, Role.MAX_POOL) and not op.permutation), None)
    if op is None or rank < 3:
        return None
    axis = op.channel % rank
    while op.role is not Role.INPUT:
        if op.rank != rank or op.role is Role.RESHAPE:
            return None
        if op.role is Role.TRANSPOSE:
            axis = op.permutation[axis]
        op = by_name[op.inputs[0]]
    if axis == rank - 1:
        return "channels_last"
    return "channels_first" if axis == 1 else None


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
        moves = op.role is Role.RESHAPE or _moves_axes(by_name, op)
        if source is None or not (moves or (op.role is Role.IDENTITY and op.rank == source.rank == 2)):
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
        if users[0].role not in (*_KEEPING, Role.TRANSPOSE) or not set(range(op.rank)) <= set(axes):
            break
        name = users[0].name
    return op.name


def _pooled(by_name: Mapping[str, Op], users: Mapping[str, Sequence[Op]], name: str) -> str:
    # Behind the max pooling that is all that uses it. Some activations fall somewhere; this holds for all: they have
    # one place, however they are written.
    if by_name[name].role is Role.RECURRENT:
        return name
    user = _only_user(users, name)
    while user:
        if user.role is Role.MAX_POOL and channel_axis(by_name, user.inputs[0]) in (
            user.permutation or range(user.rank)
        ):
            name = user.name
        elif user.role not in (Role.IDENTITY, Role.CONVERSION, Role.PAD) and not _moves_axes(by_name, user):
            break
        user = _only_user(users, user.name)
    return name


def _moves_axes(by_name: Mapping[str, Op], op: Op) -> bool:
    # Or joins some, beside the channels.
    if op.role is Role.RESHAPE:
        return channel_axis(by_name, op.inputs[0]) in op.permutation
    return op.role is Role.TRANSPOSE and set(range(by_name[op.inputs[0]].rank)) <= set(op.permutation)


def _only_user(users: Mapping[str, Sequence[Op]], name: str) -> Op | None:
    return users[name][0] if len(users.get(name, ())) == 1 else None


def _users(by_name: Mapping[str, Op], used: set[str]) -> Mapping[str, Sequence[Op]]:
    # Of each tensor that the logits are computed from, what they are computed by.
    users: dict[str, list[Op]] = {name: [] for name in used}
    for op in by_name.values():
        if op.name in used:
            for name in dict.fromkeys(op.inputs):
                users.setdefault(name, []).append(op)
    return users


def _unflattened(by_name: Mapping[str, Op], name: str) -> str:
    # What was flattened right before an activation, whose output or start this is; empty where nothing was.
    op = by_name[name]
    while op.rank == 2 and op.role in (*_ACTIVATIONS, Role.IDENTITY, Role.CONVERSION) and len(op.inputs) == 1:
        op = by_name.get(op.inputs[0], op)
    source = by_name.get(op.inputs[0]) if op.role is Role.RESHAPE and op.rank == 2 and op.inputs else None
    return source.name if source and source.rank > 2 else ""


def _activations(ops: Sequence[Op], users: Mapping[str, Sequence[Op]]) -> Iterator[tuple[str | None, str]]:
    # Where activations and recurrent layers end, in forward order, and where those of several operations start.
    alone = {op.name: _apply(op.function, [PROBES]) for op in ops if op.role in _ACTIVATIONS and len(op.inputs) == 1}
    weighed: set[str] = set()  # what is computed without layers of weights, of which some are unknown, is preprocessing
    for op in ops:
        unknown = op.role is Role.ACTIVATION and alone.get(op.name) is None  # the cell of a recurrent layer, say
        if op.role in (*_LAYERS, Role.RECURRENT, Role.OTHER) or unknown or weighed.intersection(op.inputs):
            weighed.add(op.name)
    # Limits that no number reaches, and a leaky ReLU of slope 1, are no activations.
    idle = {name for name, values in alone.items() if values is not None and is_straight(values)}
    single = {op.name for op in ops if op.role in _ACTIVATIONS and op.name in weighed} - idle
    inside: set[str] = set()
    starts: dict[str, str] = {}
    for start, end, parts in _composites(ops, weighed, single):
        within = {name for name in parts - {end} if name in users and all(user.name in parts for user in users[name])}
        inside |= within
        starts[end] = start
    for op in ops:
        whole = op.name in starts or op.name in single or op.role is Role.RECURRENT
        if whole and op.name in users and op.name not in inside:
            yield starts.get(op.name), op.name


def _composites(ops: Sequence[Op], weighed: set[str], single: set[str]) -> Iterator[tuple[str, str, set[str]]]:
    """Activations of several operations: the tensor that they are of, their end, and all from behind that to the end.

    What has the values of an activation is one. So is x * f(x), whatever its values, where there is an activation in f,
    since people make new ones. A sum is one where there is an activation in every branch (a parametric ReLU); x +
    relu(x) is a shortcut.
    """
    by_name = {op.name: op for op in ops}
    origin: dict[str, str] = {}  # the nearest tensor that a tensor is an elementwise function of
    active = set(single)
    numbers = _Numbers(ops)
    for op in ops:
        if op.role not in _ELEMENTWISE or not op.inputs:
            continue
        first, *others = [_path(origin, name) for name in op.inputs]
        meeting = next((name for name in first if all(name in path for path in others)), None)
        if meeting is None:
            continue
        origin[op.name] = meeting
        if meeting not in weighed or op.role in _KEEPING:
            continue
        starts = [start for start in _path(origin, meeting) if others or start != meeting or op.name not in single]
        # The farthest, so that the activation is the widest.
        start = next((start for start in reversed(starts) if numbers.make_activation(start, op.name)), None)
        if start is None and others:
            branches = [active & _ancestors(by_name, name, meeting) for name in op.inputs]
            start = meeting if (any(branches) if op.role is Role.MULTIPLY else all(branches)) else None
        if start is not None:
            active.add(op.name)
            yield start, op.name, _ancestors(by_name, op.name, start)


class _Numbers:
    """What elementwise operations make of the probes."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self._ops = {op.name: op for op in ops}
        self._places = {op.name: place for place, op in enumerate(ops)}
        self._values: dict[tuple[str, str], Array | None] = {}

    def make_activation(self, start: str, end: str) -> bool:
        """Whether a tensor is an activation of another one, by its values."""
        parts = _ancestors(self._ops, end, start)
        if len(parts) > _MOST:
            return False
        for name in sorted(parts, key=self._places.__getitem__):
            if (name, start) not in self._values:
                self._values[name, start] = self._of(name, start)
        values = self._values[end, start]
        return values is not None and is_activation(values)

    def _of(self, name: str, start: str) -> Array | None:
        op = self._ops[name]
        inputs = [PROBES if i == start else self._values.get((i, start)) for i in op.inputs]
        return None if op.role not in _ELEMENTWISE else _apply(op.function, inputs)


def _apply(function: Callable[..., Array] | None, inputs: Sequence[Array | None]) -> Array | None:
    if function is None or any(values is None for values in inputs):
        return None
    try:
        with np.errstate(all="ignore"):
            return np.asarray(function(*inputs))
    except Exception:  # a framework's, of numbers that an operation does not take
        return None


def _path(origin: Mapping[str, str], name: str) -> list[str]:
    path = [name]
    while path[-1] in origin and len(path) < _MOST:
        path.append(origin[path[-1]])
    return path

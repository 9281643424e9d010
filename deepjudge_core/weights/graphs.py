"""What the tensors of a classifier are for, told by its graph: which neurons have one order, and where it shows.

An adapter walks through its own graph in forward order and says of each operation what it does, in the terms of
:class:`Graph`. The rules are the same for all, so that one network gives the same :class:`Roles` in every format:

- A convolution, a dense or a recurrent layer makes neurons, which may stand in any order.
- What is added together, such as a residual block and what it starts from, has one order.
- Columns of a matrix are counted by channels first, then by places, whatever the axes of the format.
- What is not known to treat all neurons alike, such as a split of the channels, may fix their order. Their layer is
  left out, and a note says why. Nothing is guessed.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from deepjudge_core.weights.values import LayerKind, NeuronLayer, Roles, Scale, View

FAMILY = "graph"
"""Family of the roles that are found here."""

_MOST = 2**12  # matrices of one network, and layers that are joined in one tensor
_MOST_NOTES = 8
_MOST_VIEWS = 8  # of one layer: streams of residual networks are made of many
_INPUTS, _OUTPUTS, _KERNEL = "inputs", "outputs", "kernel"


@dataclass(frozen=True)
class Table:
    """A tensor of weights, as an operation uses it.

    Attributes:
        tensor: Its name among the stored weights.
        shape: Its shape, or what it is reshaped to.
        axes: Axes of that shape, in this order: of the outputs, of the inputs, and of the places of a kernel.
        rows: First output and the one behind the last; None for all.
    """

    tensor: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    rows: tuple[int, int] | None = None

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return self.rows[1] - self.rows[0] if self.rows else self.shape[self.axes[0]]

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return self.shape[self.axes[1]]


@dataclass(eq=False)
class _Order:
    # Of the neurons of one or several layers. ``left_out`` says why it is not compared.
    size: int
    kind: LayerKind
    place: int
    basis: str | None = None
    left_out: str | None = None
    signed: bool = True
    same: "_Order | None" = None

    def root(self) -> "_Order":
        order = self
        while order.same is not None:
            order = order.same
        return order


@dataclass(frozen=True)
class _Part:
    order: _Order
    size: int


@dataclass(frozen=True)
class _Factor:
    # Of the length of an axis: neurons, of which several layers' may follow one another, or else places.
    size: int | None
    parts: tuple[_Part, ...] = ()


_Axis = tuple[_Factor, ...]


@dataclass(eq=False)
class _Matrix:
    table: Table
    order: _Order
    factors: _Axis  # of the axis that it is multiplied by; empty for the kernels of a depthwise convolution
    depth: int
    place: int
    scales: list[Scale] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Traced:
    """A tensor that is computed from the input: what its axes stand for.

    Attributes:
        axes: None where nobody knows.
        depth: Number of layers behind it, along the longest way.
        made: The matrices that give it, if nothing but shifts and scales lies between.
    """

    axes: tuple[_Axis, ...] | None
    depth: int = 0
    made: tuple[_Matrix, ...] = ()

    @property
    def rank(self) -> int | None:
        """Number of axes."""
        return None if self.axes is None else len(self.axes)

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Lengths of the axes, as far as they are known."""
        return tuple(map(_size, self.axes or ()))


class Graph:
    """Follows the neurons through a network. It raises a ``ValueError`` for more matrices than any has."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._matrices: list[_Matrix] = []
        self._orders: list[_Order] = []
        self._used: dict[tuple[str, tuple[int, int] | None], _Matrix] = {}

    def start(self, sizes: Sequence[int | None]) -> Traced:
        """The input.

        Args:
            sizes: Lengths of its axes, the batch's first; None where any will do.
        """
        axes: list[_Axis] = [(_Factor(size),) for size in sizes]
        channel = _channel(sizes)
        if channel is not None:
            order = self._new(sizes[channel] or 0, "dense")
            order.basis = _INPUTS
            axes[channel] = (_whole(order),)
        return Traced(tuple(axes))

    def layer(
        self, x: Traced, tables: Sequence[Table], axis: int, kind: LayerKind, sizes: Sequence[int | None] = ()
    ) -> Traced:
        """A layer of weights: the neurons on an axis are multiplied by a matrix, or by several for the gates of each.

        Args:
            x: What it is given.
            tables: With as many outputs each.
            axis: Of the inputs and, afterwards, of the outputs.
            kind: What the neurons are.
            sizes: Of all axes afterwards; empty where places keep their number.
        """
        if x.axes is None:
            factors: _Axis = (_Factor(None),)
        else:
            axis %= len(x.axes)
            factors = x.axes[axis]
        order = self._new(tables[0].outputs, kind)
        made = [self._matrix(table, order, factors, x) for table in tables]
        if x.axes is None:
            return Traced(None, x.depth + 1)
        if kind == "convolutional":  # what it goes over are places
            others = Traced(tuple(() if at == axis else factors for at, factors in enumerate(x.axes)))
            self.leave_out([others], "a convolution goes over its neurons")
        axes = list(self._places(x.axes, sizes))
        axes[axis] = (_whole(order),)
        return Traced(tuple(axes), x.depth + 1, tuple(one for one in made if one))

    def grouped(self, x: Traced, table: Table, axis: int, sizes: Sequence[int | None] = ()) -> Traced:
        """A convolution whose channels see some of the channels only. If each sees its own, that keeps their order."""
        if x.axes is None:
            return x
        axis %= len(x.axes)
        factors = x.axes[axis]
        if len(factors) == 1 and table.outputs == factors[0].size and table.inputs == 1:
            made = []
            if len(factors[0].parts) == 1:
                made.append(self._note(table, factors[0].parts[0].order, (), x.depth + 1))
            return Traced(self._places(x.axes, sizes), x.depth + 1, tuple(made))
        self.leave_out([x], "a grouped convolution binds its neurons to groups")
        order = self._new(table.outputs, "convolutional")
        order.left_out = "a grouped convolution makes it"
        axes = list(self._places(x.axes, sizes))
        axes[axis] = (_whole(order),)
        return Traced(tuple(axes), x.depth + 1)

    def embed(self, x: Traced, table: Table) -> Traced:
        """Numbers of tokens become rows of a table, of which the neurons are the columns."""
        order = self._new(table.outputs, "dense")
        self._note(table, order, (_Factor(table.inputs),), 1)
        axes = None if x.axes is None else (*x.axes, (_whole(order),))
        return Traced(axes, x.depth + 1)

    def keep(self, x: Traced, sizes: Sequence[int | None] = (), *, odd: bool = False) -> Traced:
        """What treats all neurons alike, such as an activation or pooling.

        Args:
            x: What it is given.
            sizes: Of all axes afterwards, if places are joined; empty where none is.
            odd: Whether f(-x) = -f(x), so that the sign of a neuron is not fixed.
        """
        if x.axes is None:
            return x
        if odd:
            for order in _orders(x.axes):
                order.signed = False
        return Traced(self._places(x.axes, sizes), x.depth)

    def shift(self, x: Traced) -> Traced:
        """The addition of numbers that are weights."""
        return x

    def scale(self, x: Traced, scale: Scale, axis: int) -> Traced:
        """A factor for each neuron, and perhaps a shift."""
        if x.axes is None or not self._is_whole(x.axes[axis]):
            return Traced(x.axes, x.depth)
        for matrix in x.made:
            matrix.scales.append(scale)
        return x

    def reduce(self, x: Traced, axes: Iterable[int], *, keep: bool) -> Traced:
        """A mean or the like over whole axes."""
        if x.axes is None:
            return x
        gone = {axis % len(x.axes) for axis in axes}
        one = (_Factor(1),)
        rest = [one if at in gone else axis for at, axis in enumerate(x.axes) if keep or at not in gone]
        return Traced(tuple(rest), x.depth)

    def transpose(self, x: Traced, axes: Sequence[int]) -> Traced:
        """Axes in another order; -1 stands for a new one, of one place."""
        if x.axes is None:
            return x
        return replace(x, axes=tuple((_Factor(1),) if at < 0 else x.axes[at] for at in axes))

    def take(self, x: Traced, axis: int, count: int | None) -> Traced:
        """Some places of an axis, or one, which takes the axis away (``count`` None)."""
        if x.axes is None:
            return x
        axis %= len(x.axes)
        if _neurons(x.axes[axis]) and (count is None or count != _size(x.axes[axis])):
            return self.unknown([x], "some of its neurons are taken by place")
        new = [] if count is None else [x.axes[axis] if count == _size(x.axes[axis]) else (_Factor(count),)]
        return Traced((*x.axes[:axis], *new, *x.axes[axis + 1 :]), x.depth)

    def reshape(self, x: Traced, sizes: Sequence[int | None]) -> Traced:
        """Axes of other lengths, the numbers in the same order."""
        if x.axes is None:
            return x
        factors = [factor for axis in x.axes for factor in axis if factor.size != 1]
        axes = _deal(factors, sizes)
        if axes is None:
            return self.unknown([x], "a reshape divides or joins its neurons")
        return Traced(axes, x.depth, x.made)

    def flatten(self, x: Traced, first: int = 1) -> Traced:
        """All axes from one on become one."""
        if x.axes is None or len(x.axes) <= first + 1:
            return x
        joined = tuple(factor for axis in x.axes[first:] for factor in axis if factor.size != 1)
        return Traced((*x.axes[:first], joined or (_Factor(1),)), x.depth, x.made)

    def join(self, tensors: Sequence[Traced], axis: int) -> Traced:
        """Tensors behind one another along an axis."""
        depth = max(x.depth for x in tensors)
        known = [x.axes for x in tensors if x.axes is not None]
        if len(known) < len(tensors) or len({len(axes) for axes in known}) != 1:
            return self.unknown(tensors, "it is joined with something unknown")
        axis %= len(known[0])
        along = [axes[axis] for axes in known]
        others = Traced(tuple((_Factor(1),) if at == axis else part for at, part in enumerate(known[0])), depth)
        for axes in known[1:]:
            rest = tuple((_Factor(1),) if at == axis else part for at, part in enumerate(axes))
            others = self.combine([others, Traced(rest, depth)])
        if others.axes is None:
            return others
        if any(map(_neurons, along)):
            if not all(len(factors) == 1 and factors[0].parts for factors in along):
                return self.unknown(tensors, "it is joined with something unknown")
            parts = tuple(part for factors in along for part in factors[0].parts)
            if len(parts) > _MOST:
                return self.unknown(tensors, "too many layers are joined")
            joined = _Factor(sum(part.size for part in parts), parts)
        else:
            sizes = [_size(factors) for factors in along]
            joined = _Factor(None if None in sizes else sum(size or 0 for size in sizes))
        return Traced((*others.axes[:axis], (joined,), *others.axes[axis + 1 :]), depth)

    def combine(self, tensors: Sequence[Traced]) -> Traced:
        """A sum, product or the like of several tensors: their neurons have one order."""
        depth = max(x.depth for x in tensors)
        known = [x.axes for x in tensors if x.axes is not None]
        if len(known) < len(tensors):
            return self.unknown(tensors, "it meets something unknown")
        rank = max(map(len, known))
        one: _Axis = (_Factor(1),)
        padded = [(one,) * (rank - len(axes)) + axes for axes in known]
        axes = []
        for along in zip(*padded, strict=True):
            wide = [factors for factors in along if _size(factors) != 1] or [one]
            if any(map(_neurons, wide)):
                first = next(filter(_neurons, wide))
                if not all(self._unite(first, other) for other in wide):
                    return self.unknown(tensors, "it meets what has another order")
                axes.append(first)
            else:
                axes.append(next((factors for factors in wide if None not in [f.size for f in factors]), wide[0]))
        return Traced(tuple(axes), depth)

    def unknown(self, tensors: Sequence[Traced], why: str) -> Traced:
        """An operation that may treat neurons unlike one another: those that it is given are left out.

        Args:
            tensors: What it is given.
            why: What it does, for a person.
        """
        self.leave_out(tensors, why)
        return Traced(None, max((x.depth for x in tensors), default=0))

    def leave_out(self, tensors: Iterable[Traced], why: str) -> None:
        """Leave the neurons of some tensors out."""
        for x in tensors:
            for order in _orders(x.axes or ()):
                order.left_out = order.left_out or why

    def finish(self, output: Traced) -> Roles:
        """The roles of all tensors.

        Args:
            output: The scores, before or behind a softmax.
        """
        for axis in output.axes or ():
            for order in _orders([axis]):
                order.basis = order.basis or _OUTPUTS
        layers: dict[int, NeuronLayer] = {}
        notes: dict[str, None] = {}
        names: set[str] = set()
        counts: dict[LayerKind, int] = {}
        made = self._made()
        for order in sorted(made, key=lambda order: _first(made[order])):
            if order.basis is not None or order.size < 2:
                continue
            matrices = sorted(made[order], key=_key)
            name = matrices[0].table.tensor
            while name in names:
                name += "'"
            views = [view for matrix in matrices for view in self._rows(matrix, layers)]
            views += [view for matrix in self._matrices for view in _columns(matrix, order)]
            why = order.left_out or (None if views else "what it is computed from is not understood")
            if why:
                notes[f"left out {name!r}: {why}"] = None
                continue
            names.add(name)
            block = counts.get(order.kind, 0)
            counts[order.kind] = block + 1
            views = [replace(view, signed=order.signed) for view in views[:_MOST_VIEWS]]
            layers[id(order)] = NeuronLayer(name, block, order.kind, order.size, tuple(views))
        shown = list(notes)
        if len(shown) > _MOST_NOTES:
            shown = [*shown[:_MOST_NOTES], f"left out {len(shown) - _MOST_NOTES} more layers for like reasons"]
        return Roles(FAMILY, tuple(layers.values()), notes=tuple(shown))

    def _new(self, size: int, kind: LayerKind) -> _Order:
        order = _Order(size, kind, len(self._orders))
        self._orders.append(order)
        return order

    def _made(self) -> dict[_Order, list[_Matrix]]:
        made: dict[_Order, list[_Matrix]] = {}
        for matrix in self._matrices:
            made.setdefault(matrix.order.root(), []).append(matrix)
        # A depthwise convolution alone makes no neurons.
        return {order: matrices for order, matrices in made.items() if any(one.factors for one in matrices)}

    def _matrix(self, table: Table, order: _Order, factors: _Axis, x: Traced) -> _Matrix | None:
        key = table.tensor, table.rows
        used = self._used.get(key)
        if used is not None:  # weights that are used again: what they make has one order, and so has what they read
            same = self._unite((_whole(used.order),), (_whole(order),))
            if not same or (any(f.parts for f in (*used.factors, *factors)) and not self._unite(used.factors, factors)):
                used.order.root().left_out = order.root().left_out = "its weights are used in several ways"
            return None
        self._used[key] = self._note(table, order, factors, x.depth + 1)
        return self._used[key]

    def _note(self, table: Table, order: _Order, factors: _Axis, depth: int) -> _Matrix:
        if len(self._matrices) == _MOST:
            raise ValueError(f"more than {_MOST} matrices")
        self._matrices.append(_Matrix(table, order, factors, depth, len(self._matrices)))
        return self._matrices[-1]

    def _unite(self, one: _Axis, other: _Axis) -> bool:
        # Whether two axes can have one order; from then on they do.
        if one is other:
            return True
        if len(one) != len(other):
            return False
        for first, second in zip(one, other, strict=True):
            if [part.size for part in first.parts] != [part.size for part in second.parts]:
                return False
            if not first.parts and None not in (first.size, second.size) and first.size != second.size:
                return False
            for mine, theirs in zip(first.parts, second.parts, strict=True):
                a, b = sorted((mine.order.root(), theirs.order.root()), key=lambda order: order.place)
                if a is not b:
                    b.same = a
                    a.basis, a.left_out = a.basis or b.basis, a.left_out or b.left_out
                    a.signed = a.signed and b.signed
        return True

    def _places(self, axes: tuple[_Axis, ...], sizes: Sequence[int | None]) -> tuple[_Axis, ...]:
        # With other numbers of places.
        if not sizes:
            return axes
        return tuple(
            axis if _size(axis) == size or (_neurons(axis) and not _is_input(axis)) else (_Factor(size),)
            for axis, size in zip(axes, sizes, strict=True)
        )

    def _is_whole(self, axis: _Axis) -> bool:
        return len(axis) == 1 and len(axis[0].parts) == 1

    def _rows(self, matrix: _Matrix, layers: Mapping[int, NeuronLayer]) -> Iterator[View]:
        # The rows of a matrix are those of the neurons that it makes: one view for each layer that it reads.
        table, scales = matrix.table, tuple(matrix.scales)
        if not matrix.factors:
            yield View(table.tensor, table.axes, _KERNEL, table.shape, table.rows, scales=scales)
            return
        dealt = _arrange(table, matrix.factors)
        if dealt is None:
            return
        shape, axes, parts = dealt
        if not parts:
            if all(factor.size is not None for factor in matrix.factors):
                yield View(table.tensor, axes, _INPUTS, shape, table.rows, scales=scales)
            return
        start = 0
        for part in parts:
            order = part.order.root()
            layer = layers.get(id(order))
            basis = order.basis or (layer.name if layer and order is not matrix.order.root() else None)
            columns = (start, start + part.size) if len(parts) > 1 else None
            if basis and not order.left_out:
                yield View(table.tensor, axes, basis, shape, table.rows, columns, scales)
            start += part.size


def _arrange(table: Table, factors: _Axis) -> tuple[tuple[int, ...], tuple[int, ...], tuple[_Part, ...]] | None:
    # Shape, and axes in the order: neurons, channels, places. Neighbouring places are one axis, of which the length
    # need not be known.
    groups: list[_Factor] = []
    for factor in factors:
        if groups and not groups[-1].parts and not factor.parts:
            both = groups[-1].size, factor.size
            groups[-1] = _Factor(None if None in both else math.prod(size or 0 for size in both))
        else:
            groups.append(factor)
    wide = [at for at, factor in enumerate(groups) if factor.parts]
    unknown = [at for at, factor in enumerate(groups) if factor.size is None]
    known = math.prod(factor.size for factor in groups if factor.size is not None)
    if len(wide) > 1 or len(unknown) > 1 or not known or table.inputs % known:
        return None
    if not unknown and known != table.inputs:
        return None
    sizes = [table.inputs // known if factor.size is None else factor.size for factor in groups]
    at = table.axes[1]
    shape = (*table.shape[:at], *sizes, *table.shape[at + 1 :])
    moved = [axis if axis < at else axis + len(sizes) - 1 for axis in table.axes]
    inner = [at + place for place in (*wide, *(place for place in range(len(sizes)) if place not in wide))]
    axes = (moved[0], *inner, *moved[2:])
    return shape, axes, groups[wide[0]].parts if wide else ()


def _columns(matrix: _Matrix, order: _Order) -> Iterator[View]:
    # Where a matrix gives the scores, whose order is fixed: what it makes of each neuron.
    table = matrix.table
    if not matrix.factors or matrix.order.root().basis != _OUTPUTS or table.rows:
        return
    dealt = _arrange(table, matrix.factors)
    if dealt is None:
        return
    shape, axes, parts = dealt
    start = 0
    for part in parts:
        if part.order.root() is order:
            rows = (start, start + part.size) if len(parts) > 1 else None
            yield View(table.tensor, (axes[1], axes[0], *axes[2:]), _OUTPUTS, shape, rows)
        start += part.size


def _deal(factors: Sequence[_Factor], sizes: Sequence[int | None]) -> tuple[_Axis, ...] | None:
    # Factors to axes of these lengths, in order; None where a factor of neurons would be divided.
    left, right = list(factors), list[_Axis]()
    dims = list(sizes)
    done: list[_Axis] = []
    while dims and dims[0] is not None:
        taken = _draw(left, dims.pop(0) or 0)
        if taken is None:
            return None
        done.append(taken)
    left.reverse()
    while dims and dims[-1] is not None:
        taken = _draw(left, dims.pop() or 0)
        if taken is None:
            return None
        right.insert(0, taken[::-1])
    left.reverse()
    if len(dims) > 1 or (not dims and left):
        return None
    middle = [tuple(left) or (_Factor(1),)] if dims else []
    return (*done, *middle, *right)


def _draw(factors: list[_Factor], size: int) -> _Axis | None:
    # The first factors of a list, which are taken away, of this size together.
    taken: list[_Factor] = []
    while size != 1:
        if not factors or factors[0].size is None:
            return None
        factor = factors.pop(0)
        have = factor.size or 0
        if have and size % have == 0:
            taken.append(factor)
            size //= have
        elif not factor.parts and have % size == 0:
            taken.append(_Factor(size))
            factors.insert(0, _Factor(have // size))
            size = 1
        else:
            return None
    return tuple(taken) or (_Factor(1),)


def _channel(sizes: Sequence[int | None]) -> int | None:
    # The axis of the features, or of the channels of a picture, if the sizes say it.
    if len(sizes) == 2:
        return 1 if sizes[1] else None
    places = [axis for axis in {1, len(sizes) - 1} if len(sizes) > 3 and sizes[axis] in (1, 2, 3, 4)]
    return places[0] if len(places) == 1 else None


def _is_input(axis: _Axis) -> bool:
    return all(order.basis == _INPUTS for order in _orders([axis]))


def _size(axis: _Axis) -> int | None:
    sizes = [factor.size for factor in axis]
    return None if None in sizes else math.prod(size or 0 for size in sizes)


def _neurons(axis: _Axis) -> bool:
    return any(factor.parts for factor in axis)


def _orders(axes: Iterable[_Axis]) -> Iterator[_Order]:
    for axis in axes:
        for factor in axis:
            for part in factor.parts:
                yield part.order.root()


def _whole(order: _Order) -> _Factor:
    return _Factor(order.size, (_Part(order, order.size),))


def _key(matrix: _Matrix) -> tuple[int, int, int]:
    # Formats list branches in any order: the deeper and the narrower ones come later.
    table = matrix.table
    columns = math.prod(table.shape[axis] for axis in table.axes[1:])
    return matrix.depth, -columns, matrix.place


def _first(matrices: Sequence[_Matrix]) -> tuple[int, int, int]:
    return min(_key(matrix) for matrix in matrices if matrix.factors)

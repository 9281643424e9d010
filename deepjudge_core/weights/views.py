"""Where the matrices of a network lie in the tensors of a file, and how they are read a part at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from deepjudge_core.types import Array
from deepjudge_core.weights.values import StoredWeights, View

_CHUNK = 1 << 23  # weights that are read at a time


@dataclass(frozen=True)
class ViewMatrix:
    """How a view lies in its tensor.

    Attributes:
        shape: What the tensor is reshaped to.
        sizes: Of the axes that become columns, cut to the view's columns.
        steps: So many rows of ``shape`` are so many rows of the tensor, which is read in such steps; None if it has to
            be read as a whole.
    """

    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    steps: tuple[int, int] | None

    @classmethod
    def of(cls, weights: StoredWeights, view: View) -> "ViewMatrix":
        """Of a view of a model's weights."""
        own = weights.tensors[view.tensor].shape
        shape = view.shape or own
        sizes = [shape[axis] for axis in view.axes[1:]]
        if view.columns and sizes:
            sizes[0] = view.columns[1] - view.columns[0]
        steps = max(1, shape[0] // own[0]), max(1, own[0] // shape[0])
        return cls(shape, tuple(sizes), steps if shape[0] * steps[1] == own[0] * steps[0] else None)

    @property
    def at_once(self) -> int:
        """Numbers that are read at once, at least."""
        return prod(self.shape) if self.steps is None else self.steps[0] * prod(self.shape[1:])

    @property
    def columns(self) -> int:
        """How many there are."""
        return prod(self.sizes)


def parts_of(weights: StoredWeights, view: View) -> Iterator[tuple[slice, slice | Array, Array]]:
    """Parts of a matrix: which neurons, which columns, and the numbers ``(neurons, columns)``."""
    matrix = ViewMatrix.of(weights, view)
    shape, (first, *others) = matrix.shape, view.axes
    low, high = 0, shape[0]
    if first == 0 and view.rows:
        low, high = view.rows
    elif others and others[0] == 0 and view.columns:
        low, high = view.columns
    rows, own = matrix.steps or (shape[0], weights.tensors[view.tensor].shape[0])
    step = rows * max(1, _CHUNK // max(1, rows * prod(shape[1:])))
    places = np.arange(matrix.columns).reshape(matrix.sizes)
    for begin in range(low - low % rows, high, step):
        end = min(shape[0], begin + step)
        part = weights.read(view.tensor, slice(begin // rows * own, end // rows * own)).reshape(-1, *shape[1:])
        start, stop = max(low, begin), min(high, end)
        part = part[start - begin : stop - begin]
        part = part.transpose(view.axes)
        if first != 0 and view.rows:
            part = part[slice(*view.rows)]
        if view.columns and others[0] != 0:
            part = part[:, slice(*view.columns)]
        part = part.reshape(len(part), -1)
        if first == 0:
            yield slice(start - low, stop - low), slice(None), part
        else:
            columns = np.take(places, np.arange(start - low, stop - low), axis=others.index(0)).ravel()
            yield slice(None), columns, part

"""The grid of inputs: the steps in which data comes, such as 1/255 of pixels.

A case between the steps is seen to be none of the data: a copy may answer it as another model would.
"""

from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from deepjudge_core.files.documents import Document
from deepjudge_core.models.sampling import evenly
from deepjudge_core.types import Array, Bounds, Layout

_MOST_STEPS = 2**16 - 1  # from the least value to the greatest: 16 bits; finer ones are hardly told from none
_MOST_ROWS = 2000  # that are looked at
_ROUNDING = 2.0**-21  # of the greatest value, by which float32 may miss a step after a few operations
_GREATEST = 1e30  # of a value in somebody else's file
_MOST_CHANNELS = 4  # of an image whose layout nobody says


class Grid(Document, frozen=True):
    """Values ``first + k * step`` for whole k: of all places of an input, or of each feature or channel.

    Raises:
        ValueError: When there is not one step, from 0 upwards, for each first value.
    """

    first: Annotated[tuple[float, ...], Meta(description="A value: of all, or of each feature or channel.")]
    step: Annotated[tuple[float, ...], Meta(description="From one value to the next; 0: values come in no steps.")]
    axis: Annotated[int | None, Meta(description="Axis of an input along which these are; null: one for all.")] = None

    def __post_init__(self) -> None:
        if len(self.first) != len(self.step) or not self.step or min(self.step) < 0 or not any(self.step):
            raise ValueError("step: expected one for each first value, at least one of them above 0")
        if not all(abs(value) <= _GREATEST for value in (*self.first, *self.step)):
            raise ValueError(f"step: expected numbers of at most {_GREATEST:g}")

    def __str__(self) -> str:
        known = sorted({step for step in self.step if step})
        steps = f"{known[0]:g}" if len(known) == 1 else f"{known[0]:g} to {known[-1]:g}, by feature or channel"
        free = sum(not step for step in self.step)
        return steps + (f"; {free} of {len(self.step)} in no steps" if free else "")

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse a grid of other inputs than those of a shape.

        Raises:
            ValueError: When it has not one step, or one for each place on its axis.
        """
        places = 1 if self.axis is None else shape[self.axis] if 0 <= self.axis < len(shape) else 0
        if len(self.step) != places:
            raise ValueError("its steps do not match the features of its inputs")

    def along(self, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """First values and steps, each a number or an array that fits inputs of a shape."""
        if self.axis is None:
            return self.first[0], self.step[0]
        across = [-1 if place == self.axis else 1 for place in range(len(shape))]
        return np.reshape(self.first, across), np.reshape(self.step, across)

    def rounded(self, x: Array, bounds: Bounds) -> Array:
        """Inputs ``(n, *shape)`` at their nearest places on the grid and within the bounds, float32."""
        first, step = self.along(x.shape[1:])
        safe = np.where(np.asarray(step) > 0, step, 1)
        low, high = (np.asarray(side, np.float64) for side in bounds)
        least, greatest = np.ceil((low - first) / safe - 1e-3), np.floor((high - first) / safe + 1e-3)
        rounded = first + np.clip(np.rint((x - first) / safe), least, greatest) * safe
        on_grid = np.where(np.asarray(step) > 0, rounded, x)
        return np.clip(on_grid.astype(np.float32), np.float32(low), np.float32(high))

    def whole(self, radius: Any, shape: tuple[int, ...]) -> Any:
        """A radius in whole steps, at most as large: a number or an array that fits inputs of a shape, as it was."""
        _, step = self.along(shape)
        if np.ndim(step) == 0 and np.ndim(radius) == 0:
            return float(np.floor(radius / step + 1e-3) * step)
        safe = np.where(np.asarray(step) > 0, step, 1)
        down = np.where(np.asarray(step) > 0, np.floor(radius / safe + 1e-3) * safe, radius)
        return np.broadcast_to(down, shape).astype(np.float32)


def find_grid(inputs: Array, bounds: Bounds, layout: Layout | None = None) -> Grid | None:
    """The largest steps that all values of some inputs are whole multiples of; None where there are none.

    One grid for all values where it does; else one for each channel of images or feature of flat inputs. Where each has
    bounds of its own, it has a grid of its own.

    Args:
        inputs: ``(n, *shape)`` float32.
        bounds: Least and greatest value of an input, or of each of its values.
        layout: Where the channels are, where that is known.
    """
    rows, shape = evenly(inputs, _MOST_ROWS), inputs.shape[1:]
    if all(np.ndim(side) == 0 for side in bounds) and (whole := _lattice(rows)):
        return Grid((whole[0],), (whole[1],))
    axis = _axis(shape, layout)
    if axis is None:
        return None
    each = [_lattice(np.take(rows, place, axis=axis + 1)) or (0.0, 0.0) for place in range(shape[axis])]
    first, step = zip(*each, strict=True)
    return Grid(first, step, axis) if any(step) else None


def _axis(shape: tuple[int, ...], layout: Layout | None) -> int | None:
    last = len(shape) - 1
    if last < 2:
        return last if last >= 0 else None  # features, of flat inputs and of the steps of sequences
    if layout:
        return 0 if layout == "channels_first" else last
    few = [axis for axis in (0, last) if shape[axis] <= _MOST_CHANNELS]
    return few[0] if few else None


def _lattice(rows: Array) -> tuple[float, float] | None:
    # A value and the step of some float32 values; None where they come in none, or never change.
    values = np.empty(0, np.float32)
    for row in np.array_split(rows.ravel(), max(1, rows.size // 2**20)):
        values = np.union1d(values, row)
        if len(values) > 2 * _MOST_STEPS:  # the same step may be met with two roundings
            return None
    wide = values.astype(np.float64)
    least, span = wide[0], wide[-1] - wide[0]
    allowed = _ROUNDING * float(np.abs(wide).max())
    gaps = np.diff(wide)
    gaps = np.unique(gaps[gaps > 2 * allowed])
    if len(gaps) == 0:
        return None
    step = float(gaps[gaps <= gaps[0] + 4 * allowed].mean())
    # Euclid's algorithm, with remainders that rounding makes taken for none.
    while step * _MOST_STEPS * (1 + 1e-3) >= span:
        rest = np.mod(gaps, step)
        rest = np.minimum(rest, step - rest)
        rest = rest[rest > 2 * allowed * (1 + gaps.max() / step)]
        if len(rest) == 0:
            break
        step = float(rest.min())
    count = np.rint(span / step)
    if not 0 < count <= _MOST_STEPS:
        return None
    step = span / count
    places = (wide - least) / step
    if np.abs(places - np.rint(places)).max() * step > 2 * allowed or step <= 8 * allowed:
        return None
    return float(least), float(step)

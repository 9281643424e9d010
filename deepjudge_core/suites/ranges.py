"""The range of inputs: one for all their values, or one for each feature of flat inputs and each channel of others."""

from typing import cast

import numpy as np

from deepjudge_core.errors import InputError, UsageError
from deepjudge_core.models.layouts import Arrange
from deepjudge_core.types import Array, Bounds, Layout

APART = 10
"""How many times as wide as another a feature's range is where one range for all will not do: a small share of it leads
far out of the other's range, where all models saturate."""
Spread = tuple[float, float] | tuple[Array, Array]
"""Bounds that :func:`spread` has looked at."""
_MOST_CHANNELS = 4  # of an image whose layout nobody says


def hull(bounds: Bounds) -> tuple[float, float]:
    """The least and the greatest value of all."""
    low, high = bounds
    return float(np.min(low)), float(np.max(high))


def is_one(bounds: Bounds) -> bool:
    """Whether one range holds for all."""
    return all(np.ndim(side) == 0 for side in bounds)


def arranged_bounds(bounds: Spread, arrange: Arrange) -> Spread:
    """Bounds of inputs, of the inputs when they are arranged otherwise."""
    if is_one(bounds):
        return bounds
    low, high = (np.ascontiguousarray(arrange(np.asarray(side)[None])[0]) for side in bounds)
    return low, high


def spread(source: str, bounds: Bounds, shape: tuple[int, ...], layout: Layout | None = None) -> Spread:
    """Two numbers where one range holds for all; else two float32 arrays of the shape of an input.

    Args:
        source: What has these bounds, for messages.
        bounds: Least and greatest value: of all, or of each feature or channel; or of each value of an input.
        shape: Of one input.
        layout: Where its channels are, where that is known.

    Raises:
        UsageError: When they are none, or not as many as features or channels.
    """
    if is_one(bounds):
        return hull(bounds)
    sides = [np.asarray(side, np.float64) for side in bounds]
    shapes = list(dict.fromkeys(side.shape for side in sides if side.size > 1)) or [()]
    if len(shapes) > 1 or (len(shapes[0]) > 1 and shapes[0] != shape):
        found = " and ".join("x".join(map(str, one)) for one in shapes)
        raise UsageError(f"{source}: expected as many lower bounds as upper bounds, found {found}", code="wrong-value")
    across = list(shape)
    if shapes[0] not in ((), shape):
        axis = _axis_of(source, shapes[0][0], shape, layout)
        across = [-1 if place == axis else 1 for place in range(len(shape))]
    views = (side if side.size == 1 else side.reshape(across) for side in sides)
    low, high = (np.ascontiguousarray(np.broadcast_to(view, shape), np.float32) for view in views)
    return low, high


def together(one: Bounds, other: Bounds) -> Bounds:
    """The ranges of two sets of inputs of one kind; the first's where not both have one for each feature."""
    if is_one(one) or is_one(other) or np.shape(one[0]) != np.shape(other[0]):
        return one
    return np.minimum(one[0], other[0]), np.maximum(one[1], other[1])


def by_feature(bounds: Bounds) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Least and greatest values of each feature of flat inputs, each channel of others; None of one range for all."""
    if is_one(bounds):
        return None
    low, high = (np.asarray(side) for side in bounds)
    if low.ndim > 1:
        ways = [
            tuple(slice(None) if place == axis else slice(1) for place in range(low.ndim)) for axis in (low.ndim - 1, 0)
        ]
        way = next((way for way in ways if (low == low[way]).all() and (high == high[way]).all()), ways[0])
        low, high = low[way], high[way]
    return tuple(low.ravel().tolist()), tuple(high.ravel().tolist())


def own_ranges(inputs: Array, training: Array | None, layout: Layout | None, *, usual: bool) -> Spread | None:
    """The range of each feature or channel over all inputs; None where one range does for all.

    Of values in a usual range, as those of images are, half of the features have to be far narrower than the widest:
    pixels at an image's edge are, too. So they have to be of inputs with channels.

    Args:
        inputs: ``(n, *shape)``.
        training: More of them, or none.
        layout: Where their channels are, where that is known.
        usual: Whether all lie in a usual range.
    """
    shape = inputs.shape[1:]
    axis = _feature_axis(shape, layout)
    if axis is None:
        return None
    others = tuple(place for place in range(inputs.ndim) if place != axis + 1)
    low, high = inputs.min(axis=others), inputs.max(axis=others)
    if training is not None and training.shape[1:] == shape:
        low, high = np.minimum(low, training.min(axis=others)), np.maximum(high, training.max(axis=others))
    widths = high - low
    wide = np.sort(widths[widths > 0])
    if len(wide) < 2 or wide[-1] <= APART * wide[(len(wide) - 1) // 2 if usual or len(shape) > 1 else 0]:
        return None
    # One that never changes may do as little as the one that changes least.
    still = np.where(widths > 0, 0, wide[0] / 2)
    return spread("inputs", (low - still, high + still), shape, cast(Layout, _LAYOUTS[axis > 0]))


_LAYOUTS = ("channels_first", "channels_last")


def _feature_axis(shape: tuple[int, ...], layout: Layout | None) -> int | None:
    last = len(shape) - 1
    if last < 1:
        return last if last == 0 else None
    if layout:
        return 0 if layout == "channels_first" else last
    if last == 1:  # steps of a sequence, with its features last
        return last
    few = [axis for axis in (0, last) if shape[axis] <= _MOST_CHANNELS]
    return few[0] if len(few) == 1 else None


def _axis_of(source: str, count: int, shape: tuple[int, ...], layout: Layout | None) -> int:
    last = len(shape) - 1
    places = [axis for axis in dict.fromkeys((0, last)) if shape[axis] == count]
    said = {"channels_first": 0, "channels_last": last}.get(str(layout))
    if said is not None and said in places:
        return said
    if len(places) != 1:
        text = "x".join(map(str, shape))
        expected = (
            "a layout that says which axis holds the channels" if places else "bounds for each feature or channel"
        )
        raise InputError(f"{source}: expected {expected} of inputs of shape {text}, found bounds for {count}")
    return places[0]

"""Where the neurons of a tensor are, and what they give."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.taps import Place, Tap
from deepjudge_core.types import Array

Shapes = Sequence[tuple[int, ...]]
"""Of one tensor, for several numbers of rows."""


def reduce(tensor: Any, place: Place, rows: int) -> Any:
    """Average a tensor over all axes but those of the rows and of the neurons: ``(rows, neurons)``.

    Made of what numpy and torch have in common.
    """
    if place.unflattened:
        tensor = tensor.reshape(rows, *place.unflattened)
    before, after = tensor.shape[: place.rows], tensor.shape[place.rows + 1 :]
    split = tensor.reshape(*before, rows, -1, *after)
    channel = place.channel + (place.channel > place.rows)
    mean = split.mean(tuple(axis for axis in range(split.ndim) if axis not in (place.rows, channel)))
    return mean if place.rows < channel else mean.T


def spread(order: Array, times: int) -> Array:
    """``(rows * times,)`` the order of an axis that holds so many places for each row, given that of the rows."""
    places: Array = (order[:, None] * times + np.arange(times)).reshape(-1)
    return places


def repeats(places: Mapping[str, Place], shapes: Mapping[str, tuple[int, ...]], rows: int) -> dict[str, int]:
    """Of each tap how many places each row has along the axis of the rows, which may hold another axis, too.

    Args:
        places: Of the taps.
        shapes: Of their tensors, for so many rows.
        rows: How many.
    """
    return {tap: shapes[tap][place.rows] // rows for tap, place in places.items()}


def find_places(
    taps: Sequence[Tap], shapes: Sequence[Shapes], shapes_of: Callable[[str], Shapes], rows: Sequence[int], name: str
) -> dict[str, Place]:
    """Where the neurons of taps are; those of which that cannot be told are left out.

    Args:
        taps: In forward order; the last one gives the scores.
        shapes: Of each of them, for each number of rows.
        shapes_of: Gives those of another tensor of the model.
        rows: The numbers of rows.
        name: What messages call the model.

    Raises:
        ModelError: When the scores are no row for each input.
    """
    places: dict[str, Place | None] = {}
    for tap, of_tap in zip(taps, shapes, strict=True):
        place = None
        if tap.unflattened:
            place = find_unflattened(of_tap, shapes_of(tap.unflattened), rows, tap.channel)
        if tap is taps[-1] and len(of_tap[0]) != 2:
            place = find_scores(of_tap, rows)
        channel = tap.channel if not tap.unflattened else -1 % len(of_tap[0])
        places[tap.name] = place or find_place(of_tap, rows, channel)
    if places[taps[-1].name] is None:
        raise ModelError(f"{name}: expected logits with one row per input, found {shapes[-1][0]}")
    return {tap: place for tap, place in places.items() if place is not None}


def find_unflattened(
    shapes: Sequence[tuple[int, ...]], wide: Sequence[tuple[int, ...]], rows: Sequence[int], channel: int
) -> Place | None:
    """The same of a flattened tensor, given the shapes of the one whose axes it had; None if rows were flattened."""
    axes = {shape[1:] for shape in wide}
    if len(axes) != 1 or any(shape != (n, math.prod(w[1:])) for shape, w, n in zip(shapes, wide, rows, strict=True)):
        return None
    place = find_place(wide, rows, channel)
    return replace(place, unflattened=axes.pop()) if place and place.rows == 0 else None


def find_scores(shapes: Sequence[tuple[int, ...]], rows: Sequence[int]) -> Place | None:
    """The same of a tensor that holds scores and nothing else; None if it is no row of them for each input."""
    by_rows = all(shape[:1] == (n,) for shape, n in zip(shapes, rows, strict=True))
    return Place.of_scores(shapes[0]) if by_rows and len({shape[1:] for shape in shapes}) == 1 else None


def find_place(shapes: Sequence[tuple[int, ...]], rows: Sequence[int], channel: int) -> Place | None:
    """Find the axis of the rows in a tensor, given its shapes for several numbers of rows.

    None where there is none, or the neurons are not always as many: what is computed over the rows is no tap.
    """
    widths = {shape[channel] for shape in shapes}
    # How many times the rows an axis is long; once is likelier than any other.
    times = [{shape[axis] / n for shape, n in zip(shapes, rows, strict=True)} for axis in range(len(shapes[0]))]
    likely = [
        (min(k) != 1, axis) for axis, k in enumerate(times) if axis != channel and len(k) == 1 and min(k) % 1 == 0
    ]
    return Place(min(likely)[1], channel, widths.pop()) if likely and len(widths) == 1 else None

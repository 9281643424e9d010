"""Images that somebody standardised before they were offered: how, and as they were before."""

from dataclasses import dataclass, replace

import numpy as np

from deepjudge_core.models.preprocessing import PRESETS, Preprocessing, preset_of
from deepjudge_core.naming import option
from deepjudge_core.suites.inputs import Inputs
from deepjudge_core.suites.ranges import hull, is_one
from deepjudge_core.types import Array

_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # that are no sign of anything
_STEPS = 255  # of a byte
_NEAR = 0.02  # of a step, and of a preset's numbers
_SAMPLE = 2**20  # values of a channel that are looked at for steps


@dataclass(frozen=True)
class _Channel:
    # What one channel, or all of the image, holds.
    least: float
    greatest: float
    step: float | None  # of values that are evenly spaced


def plain_inputs(
    inputs: Inputs, preprocessing: Preprocessing | None
) -> tuple[Inputs, Preprocessing | None, tuple[str, ...]]:
    """Inputs in a range in which they can be compared, what the victim expects of them, and notes of what was done.

    Images whose values are those of bytes less a mean, over a deviation, or which fill what a preset makes of 0..1, are
    brought back to 0..1. The victim is then asked through what was undone, and answers as it did.

    Args:
        inputs: As they are offered.
        preprocessing: What the victim expects of inputs in 0..1, where the user says it: then nothing is undone.
    """
    low, high = hull(inputs.bounds)
    if (
        preprocessing is not None
        or not is_one(inputs.bounds)
        or (low, high) in _RANGES
        or inputs.x.ndim < 3
        or low >= 0
    ):
        return inputs, preprocessing, ()
    axis = _channel_axis(inputs)
    undone = _standardisation(inputs.x, axis)
    if undone is None:
        if axis is None:  # not known to be an image
            return inputs, None, ()
        note = (
            f"the images lie in {low:g}..{high:g}; if they were standardised, copies that standardise "
            f"inside the model are not found; provide images in 0..1, and say with "
            f"{option('preprocessing')} how the victim expects them"
        )
        return inputs, None, (note,)
    name = preset_of(undone)
    note = (
        f"the images were standardised by {f'{name} ({undone})' if name else undone}; the suite "
        "holds them in 0..1 and standardises them for the victim"
    )
    return brought_back(inputs, undone), undone, (note,)


def brought_back(inputs: Inputs, preprocessing: Preprocessing) -> Inputs:
    """Inputs in 0..1 of which others were made by a preprocessing; bytes are those bytes again."""
    axis = _channel_axis(inputs)
    exact = all(channel.step for channel in _channels(inputs.x, axis))
    x = _undo(inputs.x, preprocessing, axis, exact)
    training = None if inputs.training is None else _undo(inputs.training, preprocessing, axis, exact)
    return replace(inputs, x=x, training=training, bounds=(0.0, 1.0))


def _channel_axis(inputs: Inputs) -> int | None:
    # Of a batch.
    shape = inputs.x.shape
    if len(shape) != 4:
        return None
    places = [axis for axis in (1, 3) if shape[axis] in (1, 3)]
    known = {"channels_first": 1, "channels_last": 3}.get(str(inputs.layout))
    return known if known in places else places[0] if len(places) == 1 else None


def _channels(x: Array, axis: int | None) -> list[_Channel]:
    parts = [x] if axis is None else [np.take(x, place, axis) for place in range(x.shape[axis])]
    return [_Channel(float(part.min()), float(part.max()), _step(part)) for part in parts]


def _step(values: Array) -> float | None:
    flat = values.reshape(-1)
    unique = np.unique(flat[:: max(1, flat.size // _SAMPLE)]).astype(np.float64)
    if not 2 <= len(unique) <= 4 * (_STEPS + 1):
        return None
    gaps = np.diff(unique)
    whole = unique[-1] - unique[0]
    # Rounding makes two of one value.
    gaps = gaps[gaps > whole / _STEPS / 4]
    step = float(gaps.min())
    steps = (unique - unique[0]) / step
    even = bool((np.abs(steps - np.round(steps)) <= _NEAR * np.maximum(1, steps / 10)).all())
    return step if even and round(whole / step) <= _STEPS else None


def _standardisation(x: Array, axis: int | None) -> Preprocessing | None:
    channels = _channels(x, axis)
    for preset in PRESETS.values():
        slope, offset = preset.preprocessing.line((0.0, 1.0))
        if preset.preprocessing.order != "rgb" or preset.preprocessing.channels not in (1, len(channels)):
            continue
        lines = zip(*np.broadcast_arrays(slope, offset, np.zeros(len(channels)))[:2], strict=True)
        if all(_is_made_by(channel, *line) for channel, line in zip(channels, lines, strict=True)):
            return preset.preprocessing
    if not all(one.step and round((one.greatest - one.least) / one.step) == _STEPS for one in channels):
        return None
    # All bytes from 0 to 255 occur.
    std = tuple(_rounded(1 / (channel.greatest - channel.least)) for channel in channels)
    mean = tuple(_rounded(-channel.least * deviation) for channel, deviation in zip(channels, std, strict=True))
    return Preprocessing(1.0, mean, std)


def _is_made_by(channel: _Channel, slope: float, offset: float) -> bool:
    # Within what the line makes of 0..1, on its steps for bytes, and filling it.
    least, greatest = ((edge - offset) / slope for edge in (channel.least, channel.greatest))
    inside = least >= -_NEAR / 4 and greatest <= 1 + _NEAR / 4
    if channel.step:
        bytes_off = abs(least * _STEPS - round(least * _STEPS))
        return bool(inside and abs(channel.step / slope * _STEPS - 1) <= _NEAR and bytes_off <= 5 * _NEAR)
    return bool(inside and least <= _NEAR / 4 and greatest >= 1 - _NEAR / 4)


def _undo(x: Array, preprocessing: Preprocessing, axis: int | None, exact: bool) -> Array:
    slope, offset = (np.asarray(values) for values in preprocessing.line((0.0, 1.0)))
    if axis is not None:
        shape = [1] * x.ndim
        shape[axis] = -1
        slope, offset = slope.reshape(shape), offset.reshape(shape)
    plain = (x - offset) / slope
    if exact:
        plain = np.round(plain * _STEPS) / _STEPS
    clipped: Array = plain.clip(0, 1).astype(np.float32)
    return clipped


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")

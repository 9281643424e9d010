"""Mean and deviation of the inputs that a victim was trained on, by which others may have standardised them."""

from collections.abc import Iterator

import numpy as np

from deepjudge_core.files.documents import Document
from deepjudge_core.types import Array, Layout

_CHANNELS = (1, 3, 4)  # of images
_MOST_FEATURES = 4096  # of a table
_CHUNK = 1024  # inputs
_DIGITS = 6


# Of a suite that somebody else wrote: features, and how far training inputs lie outside the range of the seeds.
_MOST, _GREATEST = 100_000, 1e6


class Moments(Document, frozen=True):
    """Mean and deviation of inputs in 0..1, over all of them or for each channel, or each feature of a table."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.mean or len(self.std) != len(self.mean) or min(self.std) <= 0:
            raise ValueError("mean: expected one or more values, each with a standard deviation above 0")
        if len(self.mean) > _MOST or not all(abs(value) <= _GREATEST for value in (*self.mean, *self.std)):
            raise ValueError(f"mean: expected at most {_MOST} values for inputs in 0..1, each at most {_GREATEST:g}")

    @classmethod
    def of(cls, inputs: Array, bounds: tuple[float, float], layout: Layout | None) -> "Moments":
        """Those of inputs ``(n, *shape)``.

        Args:
            inputs: The inputs.
            bounds: What becomes 0 and 1.
            layout: Where the channels are, where that is known; without any, they are over all values.
        """
        low, high = bounds
        axis = _channel_axis(inputs.shape[1:], layout)
        others = tuple(other for other in range(inputs.ndim) if axis is None or other != axis + 1)
        values = inputs.size // (1 if axis is None else inputs.shape[axis + 1])
        total: Array = np.zeros(())
        squares: Array = np.zeros(())
        for start in range(0, len(inputs), _CHUNK):
            chunk = (inputs[start : start + _CHUNK].astype(np.float64) - low) / (high - low)
            total = total + chunk.sum(axis=others)
            squares = squares + (chunk**2).sum(axis=others)
        mean = np.atleast_1d(total / values)
        std = np.sqrt(np.maximum(np.atleast_1d(squares / values) - mean**2, 0))
        return cls(tuple(_rounded(mean)), tuple(_rounded(np.where(std > 0, std, 1))))

    def overall(self) -> "Moments":
        """Those over all values, where the channels have as many each."""
        mean, std = np.array(self.mean), np.array(self.std)
        whole = float(mean.mean())
        spread = float(np.sqrt(np.mean(std**2 + mean**2) - whole**2)) or 1.0
        return Moments(tuple(_rounded(np.array([whole]))), tuple(_rounded(np.array([spread]))))


def _channel_axis(shape: tuple[int, ...], layout: Layout | None) -> int | None:
    if len(shape) == 1:
        return 0 if shape[0] <= _MOST_FEATURES else None
    if len(shape) != 3:
        return None
    places = [axis for axis in (0, 2) if shape[axis] in _CHANNELS]
    known = {"channels_first": 0, "channels_last": 2}.get(str(layout))
    if known in places:
        return known
    return places[0] if len(places) == 1 else None


def _rounded(values: Array) -> Iterator[float]:
    # Of so many digits that what is shown is what is used.
    return (float(f"{value:.{_DIGITS}g}") for value in values)

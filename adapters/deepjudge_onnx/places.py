"""Where the neurons of a tensor are, and what they give."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where the neurons of a tensor are.

    Attributes:
        rows: Axis of the rows; ``k * rows`` long where the model folds another axis into it.
        channel: Axis of the neurons.
        neurons: Their number.
    """

    rows: int
    channel: int
    neurons: int

    def reduce(self, tensor: Any, rows: int) -> Any:
        """Average a tensor over all axes but those of the rows and of the neurons: ``(rows, neurons)``.

        Made of what numpy and torch have in common.
        """
        before, after = tensor.shape[: self.rows], tensor.shape[self.rows + 1 :]
        split = tensor.reshape(*before, rows, -1, *after)
        channel = self.channel + (self.channel > self.rows)
        mean = split.mean(tuple(axis for axis in range(split.ndim) if axis not in (self.rows, channel)))
        return mean if self.rows < channel else mean.T


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

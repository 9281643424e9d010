"""What many modules name: arrays, where their channels are, and the range of their values."""

from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import NDArray

Array = NDArray[Any]
Layout = Literal["channels_first", "channels_last"]
Bounds = tuple[float, float] | tuple[Array | float | Sequence[float], Array | float | Sequence[float]]
"""Least and greatest value of an input: of all its values, or of each."""

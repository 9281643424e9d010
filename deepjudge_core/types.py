"""What many modules name: arrays, and where their channels are."""

from typing import Any, Literal

from numpy.typing import NDArray

Array = NDArray[Any]
Layout = Literal["channels_first", "channels_last"]

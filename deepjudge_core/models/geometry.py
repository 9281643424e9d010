"""Pictures of another size or another number of channels: resized, cut out, grey or in colour, by one rule.

Resizing is bilinear, and takes the mean over what a pixel covers if it shrinks, as Pillow and torchvision do. A crop is
the centre, as of torchvision's ``CenterCrop``; one that is larger than the picture is black around it.
Grey is the luma of ITU-R BT.601, as Pillow's; grey in colour has the same value three times.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.types import Array, Layout

Size = tuple[int, int]
"""Height and width, in pixels."""
Color = Literal["grey", "rgb"]
Fitting = Literal["crop", "stretch"]
"""How a picture of another shape is brought to a size: the shorter side resized and the centre cut out, or each side
resized by itself."""
LARGEST_SIDE = 2**14
"""Pixels to which a picture may be resized."""
_CHANNELS = (1, 3, 4)
_LEAST_SIDE = 4  # pixels of a picture: two axes may be something else
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Canvas:
    """What the axes of a picture are.

    Attributes:
        height: In pixels; None for any.
        width: In pixels; None for any.
        channels: 1, 3 or 4; 1 too where there is no axis for them.
        axis: Of the channels, without the batch; None for none.
    """

    height: int | None
    width: int | None
    channels: int
    axis: Literal[0, 2] | None

    @classmethod
    def of(cls, spec: InputSpec) -> "Canvas | None":
        """That of inputs, if they may be pictures and it is clear where the channels are."""
        shape = spec.shape
        if len(shape) == 2:
            canvas = cls(shape[0], shape[1], 1, None)
        elif len(shape) == 3:
            places = [axis for axis in (0, 2) if shape[axis] in _CHANNELS]
            said = {"channels_first": 0, "channels_last": 2}.get(str(spec.layout))
            axis = said if said in places else places[0] if len(places) == 1 else None
            if axis is None:
                return None
            height, width = shape[1:] if axis == 0 else shape[:2]
            canvas = cls(height, width, shape[axis] or 1, 0 if axis == 0 else 2)
        else:
            return None
        sides = [side for side in (canvas.height, canvas.width) if side is not None]
        return canvas if min(sides, default=_LEAST_SIDE) >= _LEAST_SIDE else None

    @property
    def layout(self) -> Layout | None:
        """Where the channels are."""
        return None if self.axis is None else "channels_first" if self.axis == 0 else "channels_last"


@dataclass(frozen=True)
class Geometry:
    """What is done to pictures before all else: resized, then the centre cut out, then in grey or colour.

    Attributes:
        resize: To which size; None for the one that they have.
        crop: Of which size the centre is; None for all. A greater one has the least value of the range around it.
        color: What they become; None for what they are.
    """

    resize: Size | None = None
    crop: Size | None = None
    color: Color | None = None

    def __bool__(self) -> bool:
        return self != Geometry()

    def __str__(self) -> str:
        """As it is typed; empty for nothing."""
        sizes = [f"{name}={size[0]}x{size[1]}" for name, size in (("resize", self.resize), ("crop", self.crop)) if size]
        return ",".join([*sizes, *([f"color={self.color}"] if self.color else [])])

    @property
    def size(self) -> Size | None:
        """Of what comes out; None for that of what comes in."""
        return self.crop or self.resize

    def shape(self, shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
        """Of what becomes of pictures of a shape with its channels in an axis; that of ``colour`` stands last."""
        sides = [side for place, side in enumerate(shape) if place != axis]
        height, width = self.size or tuple(sides)
        if axis is None:
            return (height, width, 3) if self.color == "rgb" else (height, width)
        channels = {"rgb": 3, "grey": 1}.get(str(self.color), shape[axis])
        return (channels, height, width) if axis == 0 else (height, width, channels)

    def __call__(self, x: Array, axis: int | None, least: float = 0.0) -> Array:
        """Pictures ``(n, *shape)`` in float32 or float64, as they become.

        Args:
            x: The pictures.
            axis: Of an input's channels, 0 or 2; None where there is none.
            least: Value of black.
        """
        # Height and width are the last two axes from here on.
        planes = x[:, None] if axis is None else x if axis == 0 else np.moveaxis(x, 3, 1)
        if self.resize is not None:
            planes = resized(planes, self.resize)
        if self.crop is not None:
            planes = cut_out(planes, self.crop, least)
        planes = recoloured(planes, self.color)
        if axis is None and planes.shape[1] == 1:
            return np.ascontiguousarray(planes[:, 0])
        return np.ascontiguousarray(planes if axis == 0 else np.moveaxis(planes, 1, 3))


def bringing(size: Size, target: Size, how: Fitting) -> Geometry:
    """What brings pictures of a size to another one."""
    if size == target:
        return Geometry()
    if how == "stretch":
        return Geometry(target)
    (height, width), (new_height, new_width) = size, target
    if new_height * width >= new_width * height:
        whole = new_height, max(new_width, width * new_height // height)
    else:
        whole = max(new_height, height * new_width // width), new_width
    return Geometry(None if whole == size else whole, None if whole == target else target)


def recolouring(channels: int, wanted: int) -> Color | None:
    """What gives pictures of some channels as many as are wanted; None where nothing has to, or nothing does."""
    if channels == wanted:
        return None
    return "grey" if wanted == 1 else "rgb" if wanted == 3 else None


def resized(planes: Array, size: Size) -> Array:
    """Planes ``(..., height, width)`` in another size."""
    height, width = (_weights(old, new).astype(planes.dtype) for old, new in zip(planes.shape[-2:], size, strict=True))
    scaled: Array = height @ planes @ width.T
    return scaled


def cut_out(planes: Array, size: Size, least: float) -> Array:
    """The centre of planes ``(..., height, width)``, black around what is smaller."""
    for axis, new in zip((-2, -1), size, strict=True):
        old = planes.shape[axis]
        if new < old:
            start = round((old - new) / 2)
            planes = np.take(planes, np.arange(start, start + new), axis)
        elif new > old:
            around = [(0, 0)] * planes.ndim
            around[axis] = ((new - old) // 2, (new - old + 1) // 2)
            planes = np.pad(planes, around, constant_values=least)
    return planes


def recoloured(planes: Array, color: Color | None) -> Array:
    """Planes ``(n, channels, height, width)`` in grey or colour; of those with an alpha channel, without it."""
    if color is None:
        return planes
    if color == "rgb":
        return planes[:, :3] if planes.shape[1] > 1 else np.repeat(planes, 3, axis=1)
    if planes.shape[1] == 1:
        return planes
    luma: Array = np.tensordot(planes[:, :3], np.array(_LUMA, planes.dtype), (1, 0))[:, None]
    return luma


@functools.lru_cache(maxsize=256)
def _weights(size: int, target: int) -> Array:
    # (target, size): what each new pixel takes of each old one.
    step = size / target
    centres = (np.arange(target) + 0.5) * step
    places = np.arange(size) + 0.5
    weights = np.maximum(0, 1 - np.abs(places - centres[:, None]) / max(step, 1.0))
    normed: Array = weights / weights.sum(axis=1, keepdims=True)
    return normed

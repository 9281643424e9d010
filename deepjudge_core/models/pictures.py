"""Pictures of 8 bits, as interfaces take them: what is left of inputs that are sent as PNG or JPEG."""

import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepjudge_core.errors import MissingExtraError, ModelError, UsageError
from deepjudge_core.types import Array, Layout

PICTURES = r"png|jpeg(:([1-9]\d?|100))?"
"""The form of what :meth:`Pictures.parse` reads."""
_MOST_ROUNDS = 20  # of JPEG, until nothing changes any more
_CHANNELS = (1, 3)
_WHITE = 255


@dataclass(frozen=True)
class Pictures:
    """How inputs are made pictures.

    Attributes:
        quality: Of JPEG, 1..100, without colour subsampling; None for PNG, which keeps every one of 8 bits.
    """

    quality: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Pictures":
        """Read ``png``, ``jpeg`` or ``jpeg:QUALITY``.

        Raises:
            UsageError: When it is none.
        """
        if re.fullmatch(PICTURES, text):
            name, _, quality = text.partition(":")
            return cls() if name == "png" else cls(int(quality or 95))
        raise UsageError(f"expected png, jpeg or jpeg:QUALITY with 1..100, found {text!r}", code="wrong-value")

    def __str__(self) -> str:
        return "PNG of 8 bits" if self.quality is None else f"JPEG of quality {self.quality}"

    def encoded(self, picture: Array, layout: Layout | None = None) -> bytes:
        """The bytes of a file with one picture.

        Args:
            picture: ``(height, width)``, or with an axis of 1 or 3 channels, of whole numbers 0..255.
            layout: Where its channels are, if the shape does not tell.

        Raises:
            ModelError: When it has another shape.
            MissingExtraError: Without Pillow.
        """
        image = _image()
        axis = channel_axis(picture.shape, layout)
        values = picture.astype(np.uint8)
        values = values if axis is None else np.moveaxis(values, axis, -1)
        values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
        file = io.BytesIO()
        made = image.fromarray(np.ascontiguousarray(values))
        if self.quality is None:
            made.save(file, "PNG", compress_level=1)
        else:
            made.save(file, "JPEG", quality=self.quality, subsampling=0)
        return file.getvalue()

    def kept(self, x: Array, layout: Layout | None = None) -> Array:
        """What is left of inputs ``(n, *shape)`` in 0..255 when they are sent, float32."""
        whole = np.clip(np.rint(x), 0, _WHITE).astype(np.float32)
        if self.quality is None or not len(whole):
            return whole
        axis = channel_axis(whole.shape[1:], layout)
        return np.stack([self._decoded(self.encoded(one, layout), one.shape, axis) for one in whole])

    def settled(self, x: Array, bounds: tuple[float, float], layout: Layout | None = None) -> tuple[Array, Array]:
        """Inputs near some that stay what they are when they are sent.

        Args:
            x: ``(n, *shape)`` within the bounds.
            bounds: Least and greatest value of an input, which are black and white.
            layout: Where the channels are, if the shape does not tell.

        Returns:
            The inputs, float32, and ``(n,)`` bool: which of them stay. What JPEG never leaves alone does not.
        """
        low, high = bounds
        unit = (np.asarray(x, np.float64) - low) / (high - low) * _WHITE
        sent = self.kept(unit, layout)
        stays = np.ones(len(sent), bool)
        if self.quality is not None and len(sent):
            for _ in range(_MOST_ROUNDS):
                again = self.kept(sent, layout)
                stays = (again == sent).reshape(len(sent), -1).all(axis=1)
                if stays.all():
                    break
                sent = again
        settled: Array = np.clip(low + sent.astype(np.float64) / _WHITE * (high - low), low, high).astype(np.float32)
        return settled, stays

    @staticmethod
    def _decoded(data: bytes, shape: tuple[int, ...], axis: int | None) -> Array:
        values = np.asarray(_image().open(io.BytesIO(data)), np.float32)
        if axis is None or values.ndim == 2:
            return values.reshape(shape)
        return np.moveaxis(values, -1, axis)


def channel_axis(shape: tuple[int, ...], layout: Layout | None) -> int | None:
    """The axis of a picture's channels; None if it has none.

    Raises:
        ModelError: When this is no shape of a picture of one or three channels.
    """
    if len(shape) == 2:
        return None
    places = [axis for axis in (0, 2) if len(shape) == 3 and shape[axis] in _CHANNELS]
    named = {"channels_first": 0, "channels_last": 2}.get(str(layout))
    if named in places:
        return named
    if not places or (len(places) > 1 and named is None):
        sizes = "x".join(map(str, shape))
        raise ModelError(f"expected pictures of 1 or 3 channels, first or last, found inputs of shape {sizes}")
    return places[-1]


def _image() -> Any:  # Pillow may not be there
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise MissingExtraError("pictures", "Pillow", "images") from None
    return Image

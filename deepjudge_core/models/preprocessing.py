"""What a model expects to be done to its inputs before it sees them: a scale, and a mean and deviation per channel."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import MinLen
from msgspec import Meta

from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.files.documents import Document
from deepjudge_core.models.model import InputSpec
from deepjudge_core.settings import Nonzero, OneOrMore, setting
from deepjudge_core.types import Array, Layout

Prepare = Callable[[Array], Array]


class PreprocessingHeader(Document, frozen=True):
    """A :class:`Preprocessing` as it stands in a file."""

    scale: float
    mean: Annotated[tuple[float, ...], Meta(min_length=1)]
    std: Annotated[tuple[float, ...], Meta(min_length=1)]


@dataclass(frozen=True)
class Preprocessing:
    """``(u * scale - mean) / std`` of inputs ``u`` in 0..1.

    The inputs of a suite are brought to 0..1 by the suite's bounds, whatever the victim takes. Mean and std are
    therefore in units after scaling: ``scale=255, mean=127.5, std=127.5`` and ``scale=2, mean=1`` both give -1..1.

    Attributes:
        scale: Greatest value before mean and std.
        mean: One value, or one for each channel.
        std: One value, or one for each channel.
    """

    scale: Annotated[float, Nonzero()] = setting("greatest value before mean and std", default=1.0, key="scale")
    mean: Annotated[tuple[float, ...], OneOrMore(), MinLen(1)] = setting(
        "what is subtracted then: one value, or one for each channel", default=(0.0,), key="mean"
    )
    std: Annotated[tuple[float, ...], OneOrMore(), MinLen(1)] = setting(
        "what divides it then: one value, or one for each channel", default=(1.0,), key="std"
    )

    def __post_init__(self) -> None:
        numbers = (self.scale, *self.mean, *self.std)
        if not all(map(math.isfinite, numbers)) or 0 in (self.scale, *self.std):
            raise UsageError(f"expected finite numbers, scale and std other than 0, found {self}", code="wrong-value")
        lengths = {len(self.mean), len(self.std)}
        if 0 in lengths or len(lengths - {1}) > 1:
            raise UsageError(
                f"expected a mean and a std of one value or of one for each channel, found {self}", code="wrong-value"
            )

    def __str__(self) -> str:
        """As it is typed, what is as usual left out."""
        texts = [f"scale={self.scale:g}"]
        texts += [f"mean={_text(self.mean)}"] if self.mean != (0,) else []
        texts += [f"std={_text(self.std)}"] if self.std != (1,) else []
        return ",".join(texts)

    @property
    def channels(self) -> int:
        """How many channels it is for; 1 for any."""
        return max(len(self.mean), len(self.std))

    @classmethod
    def parse(cls, text: str) -> "Preprocessing":
        """Read ``scale=S,mean=M,std=D``; values of several channels are separated by colons.

        Raises:
            UsageError: When it is none.
        """
        values: dict[str, tuple[float, ...]] = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            try:
                numbers = tuple(map(float, value.split(":")))
            except ValueError:
                numbers = ()
            if name not in ("scale", "mean", "std") or name in values or not numbers:
                raise UsageError(
                    f"expected scale=S,mean=M:M:M,std=D:D:D, each at most once, found {text!r}", code="wrong-value"
                )
            values[name] = numbers
        scale = values.pop("scale", (1.0,))
        if len(scale) != 1:
            raise UsageError(f"expected one scale for all channels, found {text!r}", code="wrong-value")
        return cls(scale[0], **values)

    def header(self) -> PreprocessingHeader:
        """As it stands in a file."""
        return PreprocessingHeader(self.scale, self.mean, self.std)

    @classmethod
    def of_header(cls, header: PreprocessingHeader) -> "Preprocessing":
        """The inverse of :meth:`header`.

        Raises:
            ValueError: When it cannot be.
        """
        try:
            return cls(header.scale, header.mean, header.std)
        except UsageError as error:
            raise ValueError(str(error)) from None

    def of(self, bounds: tuple[float, float]) -> "Preprocessing":
        """The same as a function of inputs in other bounds than 0..1: ``(x * scale - mean) / std``."""
        low, high = bounds
        scale = self.scale / (high - low)
        return Preprocessing(scale, tuple(mean + scale * low for mean in self.mean), self.std)

    def preparing(
        self, name: str, shape: tuple[int, ...], bounds: tuple[float, float], layout: Layout | None
    ) -> Prepare:
        """A function of batches ``(n, *shape)`` of inputs within bounds.

        Args:
            name: The model's, for messages.
            shape: Of an input as the model takes it.
            bounds: Least and greatest value of the inputs as they come.
            layout: Where the channels are, where that is known.

        Raises:
            ModelError: When the inputs do not have as many channels, or could have them in two places.
        """
        axis = self._axis(name, shape, layout)
        whole = self.of(bounds)
        mean, std = (
            np.reshape(np.asarray(values, np.float64), (-1, *[1] * (len(shape) - 1 - axis)))
            for values in (whole.mean, whole.std)
        )
        return lambda x: ((x * whole.scale - mean) / std).astype(np.float32)

    def _axis(self, name: str, shape: tuple[int, ...], layout: Layout | None) -> int:
        last = len(shape) - 1
        places = [axis for axis in dict.fromkeys((0, last)) if self.channels in (1, shape[axis])]
        layout_axis = {"channels_first": 0, "channels_last": last}.get(str(layout))
        if layout_axis in places or len(places) == 1 or (places and self.channels == 1):
            return layout_axis if layout_axis is not None and layout_axis in places else places[-1]
        text = "x".join(map(str, shape))
        if places:
            raise ModelError(
                f"{name}: inputs of shape {text} may have their channels first or last: see --input-layout"
            )
        raise ModelError(f"{name}: expected inputs of {self.channels} channels for {self}, found shape {text}")


STANDARD: Mapping[str, Preprocessing] = {
    "0..255": Preprocessing(255.0),
    "-1..1": Preprocessing(2.0, (1.0,)),
    "0..1": Preprocessing(),
    "ImageNet's mean and deviation": Preprocessing(1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""What models are usually given, by name."""


def candidates(
    spec: InputSpec, shape: tuple[int, ...], bounds: tuple[float, float], layout: Layout | None
) -> dict[str, Preprocessing]:
    """What of the standard may be what a model expects, other than the inputs as they come."""
    choices = {}
    for name, preprocessing in STANDARD.items():
        try:
            preprocessing.preparing("", shape, bounds, layout)
        except ModelError:  # of other channels
            continue
        whole = preprocessing.of(bounds)
        as_they_come = np.allclose(
            [whole.scale, *whole.mean, *whole.std], [1] + [0] * len(whole.mean) + [1] * len(whole.std)
        )
        # Whole numbers hold nothing of a range as narrow as 0..1.
        narrow = np.dtype(spec.dtype).kind in "iu" and preprocessing.scale < 255
        if not as_they_come and not narrow:
            choices[name] = preprocessing
    return choices


def _text(values: tuple[float, ...]) -> str:
    return ":".join(f"{value:g}" for value in values)

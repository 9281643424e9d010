"""What a model expects to be done to its inputs before it sees them: size, range, mean, deviation, order, inversion."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, MinLen
from msgspec import UNSET, Meta, UnsetType

from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.files.documents import Document
from deepjudge_core.models.geometry import LARGEST_SIDE, Color, Geometry, Size
from deepjudge_core.naming import option
from deepjudge_core.settings import Nonzero, OneOrMore, setting
from deepjudge_core.types import Array, Layout

Prepare = Callable[[Array], Array]
ChannelOrder = Literal["rgb", "bgr"]
Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE)]
_LONGEST = 8  # values of a mean that are shown


class PreprocessingHeader(Document, frozen=True):
    """A :class:`Preprocessing` as it stands in a file; what is not done is left out."""

    scale: float
    mean: Annotated[tuple[float, ...], Meta(min_length=1)]
    std: Annotated[tuple[float, ...], Meta(min_length=1)]
    order: Literal["bgr"] | UnsetType = UNSET
    invert: Literal[True] | UnsetType = UNSET
    resize: Annotated[tuple[Side, Side], Meta(description="height and width")] | UnsetType = UNSET
    crop: Annotated[tuple[Side, Side], Meta(description="height and width")] | UnsetType = UNSET
    color: Color | UnsetType = UNSET

    def typed(self) -> str:
        """As it is typed, to the last digit."""
        return self._typed(lambda values: ":".join(map(repr, values)))

    def __str__(self) -> str:
        """As it is typed, with six digits and the first values of many."""
        return self._typed(_short)

    def _typed(self, text: Callable[[tuple[float, ...]], str]) -> str:
        geometry = str(Geometry(self.resize or None, self.crop or None, self.color or None))
        texts = [geometry] if geometry else []
        texts += [f"scale={text((self.scale,))}"]
        texts += [f"mean={text(self.mean)}"] if self.mean != (0,) else []
        texts += [f"std={text(self.std)}"] if self.std != (1,) else []
        texts += [f"order={self.order}"] if self.order else []
        texts += ["invert=true"] if self.invert else []
        return ",".join(texts)


@dataclass(frozen=True)
class Preprocessing:
    """``(u * scale - mean) / std`` of inputs ``u`` in 0..1, or of ``1 - u``; at the end channels may be reversed.

    Before all else, pictures may be resized, their centre cut out, and made grey or coloured: see
    :mod:`~deepjudge_core.models.geometry`.

    The inputs of a suite are brought to 0..1 by the suite's bounds, whatever the victim takes. Mean and std are
    therefore in units after scaling: ``scale=255, mean=127.5, std=127.5`` and ``scale=2, mean=1`` both give -1..1.

    Attributes:
        scale: Greatest value before mean and std.
        mean: One value, or one for each channel, in the order of the inputs.
        std: One value, or one for each channel, in the order of the inputs.
        order: ``bgr`` where the model takes the three channels in reverse.
        invert: Whether dark is light to it.
        resize: Height and width to which pictures are resized at first; None for those that they have.
        crop: Height and width of the centre that is then cut out, black around what is smaller; None for all of it.
        color: What pictures become then, grey or rgb; None for what they are.
    """

    scale: Annotated[float, Nonzero()] = setting("factor for inputs in 0..1, such as 255", default=1.0, key="scale")
    mean: Annotated[tuple[float, ...], OneOrMore(), MinLen(1)] = setting(
        "subtracted after scaling: one value, or one per channel", default=(0.0,), key="mean"
    )
    std: Annotated[tuple[float, ...], OneOrMore(), MinLen(1)] = setting(
        "divisor after subtracting the mean: one value, or one per channel", default=(1.0,), key="std"
    )
    order: ChannelOrder = setting(
        "bgr if the model takes its three channels in reverse; mean and std keep the order of the inputs",
        default="rgb",
        key="order",
    )
    invert: bool = setting("invert inputs to 1 - input, before scale", default=False, key="invert")
    resize: tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]] | None = setting(
        "height and width to which pictures are resized before all else", default=None, key="resize"
    )
    crop: tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]] | None = setting(
        "height and width of the centre that is cut out then, black around a smaller picture", default=None, key="crop"
    )
    color: Color | None = setting("what pictures become then", default=None, key="color")

    def __post_init__(self) -> None:
        numbers = (self.scale, *self.mean, *self.std)
        if not all(map(math.isfinite, numbers)) or 0 in (self.scale, *self.std):
            raise UsageError(f"expected finite numbers, with scale and std not 0, found {self}", code="wrong-value")
        sides = [side for size in (self.resize, self.crop) if size for side in size]
        if not all(1 <= side <= LARGEST_SIDE for side in sides):
            raise UsageError(f"expected sizes of 1 to {LARGEST_SIDE} pixels, found {self}", code="wrong-value")
        lengths = {len(self.mean), len(self.std), 3 if self.order == "bgr" else 1}
        if 0 in lengths or len(lengths - {1}) > 1:
            raise UsageError(
                f"expected a mean and a std with one value, or one per channel (three for bgr), found {self}",
                code="wrong-value",
            )

    def __str__(self) -> str:
        """As it is typed, what is as usual left out."""
        return str(self.header())

    @property
    def channels(self) -> int:
        """How many channels it is for; 1 for any."""
        return max(len(self.mean), len(self.std), 3 if self.order == "bgr" else 1)

    @property
    def geometry(self) -> Geometry:
        """What is done to pictures before all else."""
        return Geometry(self.resize, self.crop, self.color)

    def with_(self, geometry: Geometry) -> "Preprocessing":
        """The same numbers for pictures that this is done to before."""
        return replace(self, resize=geometry.resize, crop=geometry.crop, color=geometry.color)

    @classmethod
    def parse(cls, text: str) -> "Preprocessing":
        """Read the name of a preset, or ``scale=S,mean=M,std=D,order=bgr,invert=true``, or a preset changed so.

        ``resize=HxW``, ``crop=HxW`` and ``color=grey`` or ``color=rgb`` stand among them.

        Values of several channels are separated by colons.

        Raises:
            UsageError: When it is none.
        """
        name, *parts = text.split(",")
        values: dict[str, Any] = {}
        base = PRESETS[name].preprocessing if name in PRESETS else None
        for part in parts if base else [name, *parts]:
            key, _, value = part.partition("=")
            read = _READERS.get(key)
            try:
                if read is None or key in values:
                    raise ValueError
                values[key] = read(value)
            except (ValueError, KeyError):
                raise UsageError(
                    f"expected one of {', '.join(PRESETS)}, or scale=S,mean=M:M:M,std=D:D:D,order=bgr,invert=true,"
                    f"resize=HxW,crop=HxW,color=grey, each at most once, found {text!r}",
                    code="wrong-value",
                ) from None
        return replace(base or cls(), **values)

    def header(self) -> PreprocessingHeader:
        """As it stands in a file."""
        return PreprocessingHeader(
            self.scale,
            self.mean,
            self.std,
            # Not where nothing is done: so what was stored before has the digest that it had.
            order="bgr" if self.order == "bgr" else UNSET,
            invert=True if self.invert else UNSET,
            resize=self.resize or UNSET,
            crop=self.crop or UNSET,
            color=self.color or UNSET,
        )

    @classmethod
    def of_header(cls, header: PreprocessingHeader) -> "Preprocessing":
        """The inverse of :meth:`header`.

        Raises:
            ValueError: When it cannot be.
        """
        try:
            return cls(
                header.scale,
                header.mean,
                header.std,
                header.order or "rgb",
                bool(header.invert),
                header.resize or None,
                header.crop or None,
                header.color or None,
            )
        except UsageError as error:
            raise ValueError(str(error)) from None

    def same_as(self, other: "Preprocessing") -> bool:
        """Whether another does the same, as ``scale=2,mean=1`` and ``mean=0.5,std=0.5``."""
        ours, theirs = (np.broadcast_arrays(*one.line((0.0, 1.0))) for one in (self, other))
        fits = 1 in (len(ours[0]), len(theirs[0])) or len(ours[0]) == len(theirs[0])
        alike = self.order == other.order and self.geometry == other.geometry
        return alike and fits and all(map(np.allclose, ours, theirs))

    def line(self, bounds: tuple[float, float]) -> tuple[Array, Array]:
        """Slope and offset ``(channels,)``, float64, of what it does to inputs in these bounds, before reordering."""
        low, high = bounds
        mean, std = (np.asarray(values, np.float64) for values in (self.mean, self.std))
        scale, zero = self.scale / (high - low), low
        if self.invert:
            scale, zero = -scale, high
        return scale / std, (-scale * zero - mean) / std

    def preparing(
        self, name: str, shape: tuple[int, ...], bounds: tuple[float, float], layout: Layout | None
    ) -> "Preparation":
        """A function of batches ``(n, *shape)`` of inputs within bounds, after what is done to pictures.

        Args:
            name: The model's, for messages.
            shape: Of an input as the model takes it.
            bounds: Least and greatest value of the inputs as they come.
            layout: Where the channels are, where that is known.

        Raises:
            ModelError: When the inputs do not have as many channels, or could have them in two places.
        """
        axis = self._axis(name, shape, layout)
        slope, offset = (np.reshape(values, (-1, *[1] * (len(shape) - 1 - axis))) for values in self.line(bounds))
        return Preparation(slope, offset, axis + 1 if self.order == "bgr" else None)

    def _axis(self, name: str, shape: tuple[int, ...], layout: Layout | None) -> int:
        last = len(shape) - 1
        places = [axis for axis in dict.fromkeys((0, last)) if self.channels in (1, shape[axis])]
        layout_axis = {"channels_first": 0, "channels_last": last}.get(str(layout))
        if layout_axis in places or len(places) == 1 or (places and self.channels == 1):
            return layout_axis if layout_axis is not None and layout_axis in places else places[-1]
        text = "x".join(map(str, shape))
        if places:
            raise ModelError(
                f"{name}: inputs of shape {text} may have their channels first or last; say which with "
                f"{option('QuerySettings.layout')}"
            )
        raise ModelError(f"{name}: expected inputs with {self.channels} channels for {self}, found shape {text}")


@dataclass(frozen=True, eq=False)
class Preparation:
    """What a preprocessing does to batches of inputs of one shape: a line for each channel, then channels reversed.

    Attributes:
        slope: Of the line, float64, shaped to be multiplied with a batch.
        offset: Likewise.
        reversed: The axis of a batch that is reversed; None for none.
    """

    slope: Array
    offset: Array
    reversed: int | None

    def __call__(self, x: Array) -> Array:
        """The inputs ``(n, *shape)`` as the model takes them, float32."""
        return self._reordered((x * self.slope + self.offset).astype(np.float32))

    def back(self, gradient: Array) -> Array:
        """The gradient at the inputs as they come, from that at the inputs as the model takes them."""
        return (self._reordered(gradient) * self.slope).astype(np.float32)

    def _reordered(self, x: Array) -> Array:
        # Frameworks take no arrays that run backwards.
        return x if self.reversed is None else np.ascontiguousarray(np.flip(x, self.reversed))


@dataclass(frozen=True)
class Preset:
    """A preprocessing that many models share.

    Attributes:
        preprocessing: The numbers.
        words: What it is, in a few words.
        channels: Of the images that it is for; None for any input.
    """

    preprocessing: Preprocessing
    words: str
    channels: Literal[1, 3] | None = None


_CLIP = Preprocessing(1.0, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
PRESETS: Mapping[str, Preset] = {
    "0..1": Preset(Preprocessing(), "inputs unchanged, in 0..1"),
    "0..255": Preset(Preprocessing(255.0), "bytes"),
    "-1..1": Preset(Preprocessing(2.0, (1.0,)), "mean and std 0.5; TensorFlow's MobileNet, Inception"),
    "-0.5..0.5": Preset(Preprocessing(1.0, (0.5,)), "0.5 subtracted; the models of Carlini and Wagner"),
    "mnist": Preset(Preprocessing(1.0, (0.1307,), (0.3081,)), "mean and std of MNIST", 1),
    "fashion-mnist": Preset(Preprocessing(1.0, (0.2860,), (0.3530,)), "mean and std of Fashion-MNIST", 1),
    "imagenet": Preset(Preprocessing(1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "mean and std of ImageNet", 3),
    "cifar10": Preset(
        Preprocessing(1.0, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)), "mean and std of CIFAR-10", 3
    ),
    "cifar10-batches": Preset(
        Preprocessing(1.0, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        "the same, with the std averaged over images; many PyTorch examples",
        3,
    ),
    "cifar100": Preset(
        Preprocessing(1.0, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)), "mean and std of CIFAR-100", 3
    ),
    "clip": Preset(_CLIP, "mean and std of CLIP's images", 3),
    "0..255-mean": Preset(Preprocessing(255.0, (123.68, 116.779, 103.939)), "ImageNet's mean subtracted from bytes", 3),
    "caffe": Preset(
        Preprocessing(255.0, (123.68, 116.779, 103.939), order="bgr"),
        "the same in blue-green-red order; Keras' VGG and ResNet, Caffe",
        3,
    ),
}
"""What models are usually given, by the name that is typed: search, parser and documentation are made of it."""


def preset_of(preprocessing: Preprocessing) -> str | None:
    """The name under which a preprocessing is known."""
    return next((name for name, preset in PRESETS.items() if preset.preprocessing == preprocessing), None)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(":")))


def _size(text: str) -> Size:
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def _color(text: str) -> Color:
    colors: dict[str, Color] = {"grey": "grey", "rgb": "rgb"}
    return colors[text]


def _order(text: str) -> ChannelOrder:
    orders: dict[str, ChannelOrder] = {"rgb": "rgb", "bgr": "bgr"}
    return orders[text]


_READERS: Mapping[str, Callable[[str], Any]] = {
    "scale": float,
    "mean": _numbers,
    "std": _numbers,
    "order": _order,
    "resize": _size,
    "crop": _size,
    "color": _color,
    "invert": {"true": True, "false": False}.__getitem__,
}


def _short(values: tuple[float, ...]) -> str:
    shown = ":".join(f"{value:g}" for value in values[:_LONGEST])
    return shown + (f":... ({len(values)} values)" if len(values) > _LONGEST else "")

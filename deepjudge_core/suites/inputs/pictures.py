"""Pictures in files, decoded by Pillow once it is known what the model takes.

A picture is what a viewer shows: turned as its EXIF orientation says, the first of several frames, 8 bits a channel. An
alpha channel is left out, unless the model takes four channels, as data loaders of the frameworks do.
"""

import io
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import IO, TYPE_CHECKING

import numpy as np

from deepjudge_core.errors import InputError, MissingExtraError
from deepjudge_core.files.reading import LARGEST_ARRAYS, open_regular
from deepjudge_core.models.geometry import Color, Geometry, Size, bringing, cut_out
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.naming import option
from deepjudge_core.suites.inputs.listed import ListedInputs
from deepjudge_core.suites.inputs.listing import Item, Listing
from deepjudge_core.suites.inputs.resizing import Resizing, in_words, target_of
from deepjudge_core.suites.inputs.value import Inputs
from deepjudge_core.text import clean
from deepjudge_core.types import Array, Layout

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 2**26
"""Of one picture."""
LARGEST_PICTURE = 2**27
"""Bytes of one file."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")
_DEEP = ("I", "I;16", "I;16B", "I;16L")
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # an EXIF tag, and those of its values that swap the sides
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Header:
    """What a picture says of itself.

    Attributes:
        size: As it is shown.
        grey: Whether it has one channel, but for alpha.
        alpha: Whether it has an alpha channel.
        turned: Whether it is shown in another orientation than it is stored.
    """

    size: Size
    grey: bool
    alpha: bool
    turned: bool


@dataclass(frozen=True, eq=False)
class Pictures(ListedInputs):
    """Pictures that become inputs."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of how they were found."""
        return self.listing.notes

    @cached_property
    def headers(self) -> tuple[Header, ...]:
        """What each says of itself.

        Raises:
            InputError: When one is no picture, or too large.
            MissingExtraError: Without Pillow.
        """
        found = []
        for item in self.listing.items:
            with _opened(self.listing, item) as image:
                found.append(_header(image))
                image.verify()  # the checksums of a PNG, which decoding does not look at
        return tuple(found)

    @property
    def resizing(self) -> Resizing:
        """How they are brought to the size of the model."""
        return self.reading.resizing or Resizing()

    @property
    def usual(self) -> tuple[Size, int]:
        """The size that was asked for, or else the one that most of them have; and their channels."""
        counts = Counter(header.size for header in self.headers)
        size = self.resizing.size or max(counts, key=lambda size: (counts[size], size))
        return size, 1 if all(header.grey for header in self.headers) else 3

    @property
    def expected(self) -> InputSpec:
        """See :class:`~deepjudge_core.suites.inputs.value.Offered`."""
        size, channels = self.usual
        return InputSpec(size) if channels == 1 else InputSpec((*size, channels), layout="channels_last")

    def fitted(self, spec: InputSpec) -> Inputs:
        """See :class:`~deepjudge_core.suites.inputs.value.Offered`."""
        source, (usual, own) = str(self.listing.source), self.usual
        size, channels = target_of(self.resizing, usual, own, spec, source)
        count = len(self.listing.items)
        needed = count * math.prod(size) * channels * np.dtype(np.float32).itemsize
        if needed > LARGEST_ARRAYS:
            raise InputError(
                f"{source}: expected pictures that need at most {LARGEST_ARRAYS} bytes as "
                f"{size[0]}x{size[1]}, found {count}, which need {needed}; give fewer",
                code="too-large",
            )
        pixels = np.empty((count, *size, channels), np.uint8)
        for place, (item, header) in enumerate(zip(self.listing.items, self.headers, strict=True)):
            pixels[place] = _decoded(
                self.listing, item, header, bringing(header.size, size, self.resizing.how), channels
            )
        if channels == 1:
            pixels = pixels[..., 0]
        scale = 255.0 if self.reading.scale is None else self.reading.scale
        layout: Layout | None = None if channels == 1 else "channels_last"
        reading = replace(self.reading, scale=scale, layout=layout)
        notes = tuple(self._notes(size, channels))
        changed = any(header.size != size for header in self.headers)
        return replace(
            reading.inputs(source, pixels, self.y),
            classes=self.classes,
            notes=(*self.notes, *notes),
            fitting=self.resizing.how if changed else None,
        )

    def _notes(self, size: Size, channels: int) -> Iterator[str]:
        headers = self.headers
        others = [header.size for header in headers if header.size != size]
        grey = sum(header.grey for header in headers)
        color: Color | None = None
        if channels == 1 and grey < len(headers):
            color = "grey"
        elif channels > 1 and grey:
            color = "rgb"
        geometry = Geometry(size if others else None, None, color)
        if geometry:
            yield in_words(geometry, self.resizing, [header.size for header in headers])
        turned, alpha = (sum(getattr(header, name) for header in headers) for name in ("turned", "alpha"))
        if turned:
            yield f"{turned} pictures were rotated according to their EXIF orientation"
        if alpha and channels < 4:
            yield f"the alpha channel of {alpha} pictures was dropped"


@contextmanager
def _opened(listing: Listing, item: Item) -> "Iterator[Image]":
    # One picture, of which the header was read; whatever goes wrong in here is said in one line with its name.
    source, name = listing.source, clean(item.name)
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingExtraError(str(source), "Pillow", "images") from None
    where = f"{source}: {name}"
    content = item.content
    if isinstance(content, bytes):
        if len(content) > LARGEST_PICTURE:
            raise InputError(f"{where}: expected a picture of at most {LARGEST_PICTURE} bytes", code="too-large")
        file: IO[bytes] = io.BytesIO(content)
    else:
        file = open_regular(content, "a picture", LARGEST_PICTURE, InputError)
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that is damaged, and of sizes that are looked at below
        try:
            with Image.open(file, formats=_FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise InputError(
                        f"{where}: expected a picture of at most {MOST_PIXELS} pixels, found {image.width}x"
                        f"{image.height}",
                        code="too-large",
                    )
                yield image
        except InputError:
            raise
        except MemoryError:
            raise InputError(f"{where}: expected a picture that the memory holds, found one that needs more") from None
        except UnidentifiedImageError:
            raise InputError(f"{where}: expected a picture, found another file or a damaged one") from None
        except Image.DecompressionBombError:
            raise InputError(f"{where}: expected a picture of at most {MOST_PIXELS} pixels", code="too-large") from None
        except Exception as error:  # decoders raise a dozen kinds at damaged files
            raise InputError(f"{where}: expected a picture, found a damaged one: {error}") from None


def _header(image: "Image") -> Header:
    turned = _orientation(image)
    size = (image.width, image.height) if turned in _TURNED else (image.height, image.width)
    alpha = image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info
    return Header(size, image.mode in _GREY, alpha, turned != 1)


def _orientation(image: "Image") -> int:
    # 1 where nobody says it; that of a PNG which says it behind its pixels is not looked for.
    if "exif" not in image.info:
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _decoded(listing: Listing, item: Item, header: Header, geometry: Geometry, channels: int) -> Array:
    # (height, width, channels) uint8
    from PIL import Image, ImageOps

    with _opened(listing, item) as image:
        if header.turned:
            image = ImageOps.exif_transpose(image)  # noqa: PLW2901
        if image.mode in _DEEP:
            deep = np.asarray(image).astype(np.float64)
            image = Image.fromarray(np.rint(deep.clip(0, 65535) / 257).astype(np.uint8))  # noqa: PLW2901
        elif image.mode == "P":
            image = image.convert("RGBA")  # noqa: PLW2901
        image = image.convert(_MODES[channels])  # noqa: PLW2901
        if geometry.resize is not None:
            height, width = geometry.resize
            if height * width > MOST_PIXELS:  # of a strip whose short side is enlarged
                raise InputError(
                    f"{listing.source}: {clean(item.name)}: expected a picture that has at most {MOST_PIXELS} pixels "
                    f"when it is resized, found {height}x{width}; remove it, or use {option('resize', 'stretch')}",
                    code="too-large",
                )
            image = image.resize((width, height), Image.Resampling.BILINEAR)  # noqa: PLW2901
        pixels = np.asarray(image)
    if geometry.crop is not None:
        pixels = np.moveaxis(cut_out(np.atleast_3d(pixels).transpose(2, 0, 1), geometry.crop, 0), 0, 2)
    if pixels.size == 0:
        raise InputError(f"{listing.source}: {clean(item.name)}: expected a picture, found one without pixels")
    return np.atleast_3d(pixels)

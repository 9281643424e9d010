"""Recordings in files, decoded by soundfile into plain samples once it is known how many of them the model takes.

Samples are in -1..1, channels are averaged. A recording that is too long is cut behind its first samples; one that is
too short gets zeros behind it. Nothing is resampled.
"""

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import IO, Any

import numpy as np

from deepjudge_core.errors import InputError, MissingExtraError
from deepjudge_core.files.reading import LARGEST_ARRAYS, open_regular
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.suites.inputs.listed import ListedInputs
from deepjudge_core.suites.inputs.listing import Item, Listing
from deepjudge_core.suites.inputs.value import Inputs
from deepjudge_core.text import clean

LARGEST_RECORDING = 2**28
"""Bytes of one file."""
_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC")
_MOST_CHANNELS = 64


@dataclass(frozen=True)
class Sound:
    """What a recording says of itself: samples a second, samples, channels."""

    rate: int
    length: int
    channels: int


@dataclass(frozen=True, eq=False)
class Recordings(ListedInputs):
    """Recordings that become inputs."""

    @cached_property
    def sounds(self) -> tuple[Sound, ...]:
        """What each says of itself.

        Raises:
            InputError: When one is no recording, or they have several rates.
            MissingExtraError: Without soundfile.
        """
        found = []
        for item in self.listing.items:
            with _opened(self.listing, item) as file:
                found.append(Sound(file.samplerate, file.frames, file.channels))
        rates = {sound.rate: item.name for sound, item in zip(found, self.listing.items, strict=True)}
        if len(rates) > 1:
            named = ", ".join(f"{rate} Hz ({clean(name)})" for rate, name in sorted(rates.items()))
            raise InputError(
                f"{self.listing.source}: expected recordings of one sample rate, that of the victim, found {named}: "
                "resample them, as with sox or ffmpeg"
            )
        return tuple(found)

    @property
    def expected(self) -> InputSpec:
        """See :class:`~deepjudge_core.suites.inputs.value.Offered`."""
        counts = Counter(sound.length for sound in self.sounds)
        return InputSpec((max(counts, key=lambda length: (counts[length], length)),))

    def fitted(self, spec: InputSpec) -> Inputs:
        """See :class:`~deepjudge_core.suites.inputs.value.Offered`."""
        source, count = str(self.listing.source), len(self.listing.items)
        axes = [size for size in spec.shape if size != 1]
        if len(axes) > 1 or len(spec.shape) > 3:
            raise InputError(
                f"{source}: expected a model of plain samples for recordings, found one of inputs of shape {spec}; "
                "offer the features that it takes as arrays"
            )
        length = (axes[0] if axes else 1) or self.expected.shape[0] or 0
        needed = count * length * np.dtype(np.float32).itemsize
        if not 0 < needed <= LARGEST_ARRAYS:
            raise InputError(
                f"{source}: expected recordings that need at most {LARGEST_ARRAYS} bytes, found {count} of {length} "
                "samples each",
                code="too-large",
            )
        samples = np.zeros((count, length), np.float32)
        for row, item in zip(samples, self.listing.items, strict=True):
            with _opened(self.listing, item) as file:
                heard = file.read(length, dtype="float32", always_2d=True).mean(axis=1)
                row[: len(heard)] = heard
        scale = 1.0 if self.reading.scale is None else self.reading.scale
        bounds = self.reading.bounds or (-1 / abs(scale), 1 / abs(scale))
        inputs = replace(self.reading, scale=scale, bounds=bounds).inputs(source, samples, self.y)
        return replace(inputs, classes=self.classes, notes=(*self.listing.notes, *self._notes(length)))

    def _notes(self, length: int) -> Iterator[str]:
        cut, filled = (sum(sign * (one.length - length) > 0 for one in self.sounds) for sign in (1, -1))
        said = f"recordings of {self.sounds[0].rate} Hz became {length} samples each"
        if cut or filled:
            said += f": {cut} were cut behind these, {filled} got zeros behind them"
        yield said
        mixed = sum(sound.channels > 1 for sound in self.sounds)
        if mixed:
            yield f"the channels of {mixed} recordings were averaged"


@contextmanager
def _opened(listing: Listing, item: Item) -> Iterator[Any]:
    # One recording; whatever goes wrong in here is said in one line with its name.
    try:
        import soundfile
    except (ImportError, OSError):  # OSError where its own library is missing
        raise MissingExtraError(str(listing.source), "soundfile", "audio") from None
    where = f"{listing.source}: {clean(item.name)}"
    if isinstance(item.content, bytes):
        file: IO[bytes] = io.BytesIO(item.content)
    else:
        file = open_regular(item.content, "a recording", LARGEST_RECORDING, InputError)
    with file:
        try:
            with soundfile.SoundFile(file) as opened:
                if opened.format not in _FORMATS or not 0 < opened.channels <= _MOST_CHANNELS or opened.frames < 1:
                    raise InputError(f"{where}: expected a recording as WAV or FLAC, found {clean(opened.format)}")
                yield opened
        except InputError:
            raise
        except MemoryError:
            raise InputError(
                f"{where}: expected a recording that the memory holds, found one that needs more"
            ) from None
        except Exception as error:  # the library raises several kinds at damaged files
            raise InputError(f"{where}: expected a recording, found a damaged one: {error}") from None

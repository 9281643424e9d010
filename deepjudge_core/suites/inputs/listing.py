"""Files of inputs that are read one by one, each with its class."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from deepjudge_core.errors import InputError
from deepjudge_core.text import clean
from deepjudge_core.types import Array

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm")
"""Suffixes of pictures that are read."""
SOUNDS = (".wav", ".flac")
"""Suffixes of recordings that are read."""
MOST_FILES = 2_000_000
"""Of one source."""
_NAMED = 3  # files that a note names
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Item:
    """One picture or recording.

    Attributes:
        name: What messages call it.
        content: Its file, or its bytes.
        suffix: That of its bytes, if it is known.
    """

    name: str
    content: Path | bytes
    suffix: str = ""

    @property
    def kind(self) -> Literal["picture", "recording"] | None:
        """What it is by its suffix, or by its first bytes; None for neither."""
        suffix = (self.suffix if isinstance(self.content, bytes) else self.content.suffix).lower()
        if isinstance(self.content, bytes) and suffix not in (*PICTURES, *SOUNDS):
            is_sound = self.content[:4] == b"fLaC" or self.content[:4] + self.content[8:12] == b"RIFFWAVE"
            return "recording" if is_sound else "picture"
        return "picture" if suffix in PICTURES else "recording" if suffix in SOUNDS else None


@dataclass(frozen=True, eq=False)
class Listing:
    """Pictures or recordings with their classes.

    Attributes:
        source: The folder or file that lists them.
        items: At least one.
        y: ``(n,)`` int64 class numbers; None where nobody knows them.
        classes: Names of the classes in the order of their numbers; None where they have numbers alone.
        notes: What a reader should know, such as files that were not read.
    """

    source: Path
    items: tuple[Item, ...]
    y: Array | None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """The items' files, for those that have one."""
        return [item.content for item in self.items if isinstance(item.content, Path)]


def numbered(source: str, labels: Sequence[str | int]) -> tuple[Array, tuple[str, ...] | None]:
    """Class numbers of labels, and the classes' names: whole numbers are taken as they are, names are sorted.

    Raises:
        InputError: For a label that is empty or below 0.
    """
    texts = [str(label).strip() for label in labels]
    if not all(texts):
        raise InputError(f"{source}: expected a label for each input, found none in entry {texts.index('') + 1}")
    if all(re.fullmatch(r"-?\d{1,18}", text) for text in texts):
        numbers = np.array([int(text) for text in texts], np.int64)
        if numbers.min(initial=0) < 0:
            raise InputError(f"{source}: expected class numbers of at least 0, found {numbers.min()}")
        return numbers, None
    names = tuple(sorted(set(texts)))
    places = {name: place for place, name in enumerate(names)}
    return np.array([places[text] for text in texts], np.int64), tuple(clean(name, _LONGEST_NAME) for name in names)


def from_elsewhere(listing: Listing) -> Iterable[str]:
    """A note of files that links bring in from outside the folder; none if there are none."""
    folder = os.path.realpath(listing.source if listing.source.is_dir() else listing.source.parent)
    inside = dict[Path, bool]()
    names = []
    for item in listing.items:
        path = item.content
        if isinstance(path, bytes):
            continue
        if path.parent not in inside:
            inside[path.parent] = _is_in(folder, path.parent)
        if not (inside[path.parent] and (not path.is_symlink() or _is_in(folder, path))):
            names.append(item.name)
    if names:
        files = "1 file is" if len(names) == 1 else f"{len(names)} files are"
        yield f"{files} outside {clean(listing.source.name)}, where links lead: {_some(names)}"


def _is_in(folder: str, path: Path) -> bool:
    return os.path.commonpath([folder, os.path.realpath(path)]) == folder


def unread(what: str, names: Sequence[str]) -> Iterable[str]:
    """A note of files that were not read; none if there are none."""
    if names:
        files = "1 file was" if len(names) == 1 else f"{len(names)} files were"
        yield f"{files} not read ({what}): {_some(names)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(clean(name, _LONGEST_NAME) for name in names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")

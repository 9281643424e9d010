"""A folder with a folder of pictures or recordings for each class, as torchvision's ``ImageFolder`` reads it."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from deepjudge_core.errors import InputError
from deepjudge_core.naming import option
from deepjudge_core.suites.inputs.listing import MOST_FILES, PICTURES, SOUNDS, Item, Listing, unread
from deepjudge_core.suites.inputs.parquet import COLUMNAR
from deepjudge_core.text import clean

_PARTS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})
_LOOKED_AT = 100
_OTHERS = (".npy", *COLUMNAR)
_UNREAD = "hidden, or neither a picture nor a recording"


def list_folder(path: Path, *, labelled: bool) -> Listing:
    """The files of a folder, with the sorted names of its folders as classes.

    Sub-folders of a class belong to it. Links to folders are followed where they stand for a class, and not inside.

    Args:
        path: The folder.
        labelled: Whether folders are classes; otherwise all files are taken, wherever they are in it.

    Raises:
        InputError: When it cannot be read, or holds nothing of the kind.
    """
    skipped: list[str] = []
    if not labelled:
        items = tuple(_inside(path, path, skipped))
        if not items:
            raise _nothing(path)
        return Listing(path, items, None, notes=tuple(unread(_UNREAD, skipped)))
    loose: list[str] = []
    names: list[str] = []
    for entry in _entries(path):
        if entry.is_dir() and not entry.name.startswith("."):
            names.append(entry.name)
        else:
            (loose if _is_item(entry.name) else skipped).append(entry.name)
    if not names:
        if not loose:
            raise _nothing(path)
        raise InputError(
            f"{path}: expected a folder for each class, found {len(loose)} without any; move them into folders "
            "named by class, add a metadata.csv with the columns file_name and label, or take the victim's own "
            f"answers with {option('labels', 'victim')}"
        )
    if {name.lower() for name in names} <= _PARTS:
        raise InputError(
            f"{path}: expected a folder for each class, found the parts {', '.join(names)} of a data "
            f"set; name one of them, such as {path / names[-1]}"
        )
    items_of = [tuple(_inside(path, path / name, skipped)) for name in names]
    counts = [len(items) for items in items_of]
    if not any(counts):
        raise _nothing(path)
    notes = [
        *unread("outside the class folders", loose),
        *unread(_UNREAD, skipped),
        *(f"the class folder {clean(name)} is empty" for name, count in zip(names, counts, strict=True) if not count),
    ]
    if all(name.isdecimal() for name in names) and names != sorted(names, key=int):
        notes.append(
            "class folders are numbered in the alphabetical order of their names, as ImageFolder "
            f"does: {names[1]!r} is class 1; a table of paths and labels would use other numbers"
        )
    return Listing(
        path,
        tuple(item for items in items_of for item in items),
        np.repeat(np.arange(len(names), dtype=np.int64), counts),
        tuple(map(clean, names)),
        tuple(notes),
    )


def is_listed(path: Path) -> bool:
    """Whether a folder, or one in it, holds a picture, a recording or an array: a few files are looked at."""
    folders = [path, *[Path(entry.path) for entry in _entries(path) if entry.is_dir()][:_LOOKED_AT]]
    for folder in folders:
        with os.scandir(folder) as found:
            if any(_is_item(entry.name) or entry.name.lower().endswith(_OTHERS) for entry in islice(found, _LOOKED_AT)):
                return True
    return False


def _nothing(path: Path) -> InputError:
    return InputError(
        f"{path}: expected pictures ({', '.join(PICTURES)}) or recordings ({', '.join(SOUNDS)}), "
        "in a folder for each class, found none"
    )


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", code="cannot-read") from None


def _inside(root: Path, folder: Path, skipped: list[str]) -> Iterator[Item]:
    # As ImageFolder orders them: by folder, then by name.
    count = 0
    walk = os.walk(folder)
    found = []
    for where, folders, files in walk:
        for name in [name for name in folders if name.startswith(".")]:
            folders.remove(name)
            skipped.append(os.path.relpath(Path(where, name), root))
        count += len(files)
        if count > MOST_FILES:
            raise InputError(f"{root}: expected at most {MOST_FILES} files, found more", code="too-large")
        found.append((where, files))
    for where, files in sorted(found):
        for name in sorted(files):
            path = Path(where, name)
            if _is_item(name):
                yield Item(os.path.relpath(path, root), path)
            else:
                skipped.append(os.path.relpath(path, root))


def _is_item(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith((*PICTURES, *SOUNDS))

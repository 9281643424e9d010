"""Where inputs are from: what a report says of them, so that others can find and check the same."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from deepjudge_core.errors import InputError
from deepjudge_core.files import digests
from deepjudge_core.files.documents import Document, Json, Sha256


class Origin(Document, frozen=True):
    """Where inputs are from, as it stands in a suite."""

    path: Annotated[
        str, Meta(description="Name of the file or folder. Suites of earlier versions have the path that was given.")
    ]
    digest: Annotated[
        Sha256,
        Meta(
            description="SHA-256 of the file, or, for a folder or a table, of the names and contents of all files read."
        ),
    ]
    options: Annotated[Json, Meta(description="How they were read: the options given.")]


def origin_of(path: Path, options: Mapping[str, Any], listed: Iterable[Path] = ()) -> Origin:
    """Where inputs are from; the same wherever the same data lie, since it is part of a suite's digest.

    Args:
        path: A file, or a folder.
        options: How they are read; of a path in them, its last part is kept.
        listed: Files that it names, which were read.

    Raises:
        InputError: When one cannot be read.
    """
    try:
        if path.is_dir():
            digest = digests.of_folder(path).digest
        else:
            digest = digests.of_file(path).digest
            if others := [*listed, *_arrays_beside(path)]:
                digest = _together(digest, others)
    except OSError as error:
        raise InputError(f"{path}: expected inputs that can be read, found none: {error.strerror}") from None
    named = {option: value.name if isinstance(value, Path) else value for option, value in options.items()}
    return Origin(path.resolve().name, digest, named)


def _arrays_beside(path: Path) -> list[Path]:
    # Labels of one array are in another file of the same folder.
    return sorted(set(path.parent.glob("*.npy")) - {path}) if path.suffix == ".npy" else []


def _together(first: str, others: Iterable[Path]) -> str:
    digest = hashlib.sha256(bytes.fromhex(first))
    for other in others:
        digest.update(f"{other.name}\0".encode(errors="surrogateescape"))
        digest.update(bytes.fromhex(digests.of_file(other).digest))
    return digest.hexdigest()

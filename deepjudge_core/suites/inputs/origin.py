"""Where inputs are from: what a report says of them, so that others can find and check the same."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from deepjudge_core.errors import InputError
from deepjudge_core.files import digests
from deepjudge_core.files.documents import Document, Json, Sha256


class Origin(Document, frozen=True):
    """Where inputs are from, as it stands in a suite."""

    path: Annotated[str, Meta(description="What the user called the file or folder.")]
    digest: Annotated[
        Sha256,
        Meta(
            description="SHA-256 of the file, or, for a folder or a table, of the names and contents of all files read."
        ),
    ]
    options: Annotated[Json, Meta(description="How they were read: the options given.")]


def origin_of(path: Path, options: Json, listed: Iterable[Path] = ()) -> Origin:
    """Where inputs are from.

    Args:
        path: A file, or a folder.
        options: How they are read.
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
    return Origin(str(path), digest, options)


def _arrays_beside(path: Path) -> list[Path]:
    # Labels of one array are in another file of the same folder.
    return sorted(set(path.parent.glob("*.npy")) - {path}) if path.suffix == ".npy" else []


def _together(first: str, others: Iterable[Path]) -> str:
    digest = hashlib.sha256(bytes.fromhex(first))
    for other in others:
        digest.update(f"{other.name}\0".encode(errors="surrogateescape"))
        digest.update(bytes.fromhex(digests.of_file(other).digest))
    return digest.hexdigest()

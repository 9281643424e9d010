"""What says which model was audited: SHA-256 of all of its files, in hex."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def of_file(path: Path, beside: Iterable[Path] = ()) -> str:
    """Of a file, and of others that hold its weights.

    Raises:
        OSError: When one cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    for other in sorted(beside):
        with other.open("rb") as file:
            digest.update(other.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def of_folder(path: Path) -> str:
    """Of the names, sizes and contents of all files in a folder.

    Raises:
        OSError: When one cannot be read.
    """
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()

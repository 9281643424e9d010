"""Tells the kinds of files that torch writes from one another, by what is in them."""

import enum
import hashlib
import zipfile
from pathlib import Path
from typing import BinaryIO

from deepjudge_core.errors import ModelError


class Kind(enum.Enum):
    """What a file is, as an error says it."""

    PROGRAM = "a file of torch.export"
    SCRIPT = "a file of TorchScript"
    SAVED = "a file of torch.save"
    OLD_SAVED = "an old file of torch.save"
    TENSORS = "a file of safetensors"
    EMPTY = "an empty file"
    TRUNCATED = "a truncated one"
    ARCHIVE = "another zip archive"
    OTHER = "another format"


# How torch.save began a file up to 1.5, and still does where it is told so.
_OLD_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def identify(path: Path, wanted: str) -> tuple[Kind, str]:
    """The kind of a file and its SHA-256.

    Args:
        wanted: What was expected, for the error.

    Raises:
        ModelError: When it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return kind_of(file), hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: expected {wanted}, found none that can be read: {error.strerror}") from error


def kind_of(file: BinaryIO) -> Kind:
    """The kind of an open file, which is left at its start."""
    try:
        return _kind(file)
    except zipfile.BadZipFile:
        return Kind.TRUNCATED
    finally:
        file.seek(0)


def _kind(file: BinaryIO) -> Kind:
    start = file.read(len(_OLD_START))
    if not start:
        return Kind.EMPTY
    if start == _OLD_START:
        return Kind.OLD_SAVED
    if not zipfile.is_zipfile(file):
        if start.startswith(b"PK\x03\x04"):
            return Kind.TRUNCATED
        # The length of the header, which is JSON.
        return Kind.TENSORS if start[8:9] == b"{" and not any(start[5:8]) else Kind.OTHER
    with zipfile.ZipFile(file) as archive:
        paths = archive.namelist()
    names = {name.rpartition("/")[2] for name in paths}
    # The second is how torch wrote them up to 2.7.
    if names & {"archive_format", "serialized_exported_program.json"}:
        return Kind.PROGRAM
    if "constants.pkl" in names and any("/code/" in name for name in paths):
        return Kind.SCRIPT
    return Kind.SAVED if "data.pkl" in names else Kind.ARCHIVE

"""Takes in a stranger's file: looks at what it is without opening it as a model, and makes the copy that is opened."""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from deepjudge_core.components.kinds import Adapter, Format
from deepjudge_core.errors import ModelError
from deepjudge_core.files import digests, storage
from deepjudge_core.naming import option
from deepjudge_core.text import clean, is_utf8

_CHUNK = 2**20
_MOST_FILES, _DEEPEST = 1000, 8  # of a folder
_PLAIN = re.compile(r"[\w\-][\w.\- ]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Received:
    """A model's private copy.

    Attributes:
        path: The copy, a file or a folder.
        digest: SHA-256, in hex, of the copy.
        files: Of each of its files the SHA-256, as :class:`~deepjudge_core.files.digests.FileDigests` has it.
        format: What it is.
        beside: Names of the files beside it that were taken along, since it says that they hold its weights.
    """

    path: Path
    digest: str
    files: Mapping[str, str]
    format: Format
    beside: tuple[str, ...] = ()


def receive(
    source: Path,
    label: str,
    adapter: Adapter,
    folder: Path,
    largest: int,
    is_other: Callable[[Path], bool] = lambda beside: False,
) -> Received:
    """Copy a model into a folder, and say what it is.

    Args:
        source: A regular file, or a folder of regular files.
        label: What it is called in messages.
        adapter: The one that is going to open it.
        folder: Where the copy is made; empty.
        largest: Bytes that all of it may have.
        is_other: Whether a file beside it is another model, and no model's weights.

    Raises:
        ModelError: When it is something else, is too large, or is of no format that is ever opened.
    """
    # A model may name itself where it says where its weights are.
    name = source.name if _PLAIN.fullmatch(source.name) else f"model{_suffix(source, adapter)}"
    copy = folder / name
    beside: list[Path] = []
    try:
        if stat.S_ISDIR(source.lstat().st_mode):
            _copy_folder(source, copy, label, largest)
            file_format = _examine(copy, label, adapter)
            digested = digests.of_folder(copy)
        else:
            size = _copy_file(source, copy, label, largest)
            if size == 0:
                raise ModelError(f"{label}: expected a model, found an empty file", code="wrong-format")
            file_format = _examine(copy, label, adapter)
            beside = _copy_companions(source, copy, label, adapter, largest - size, is_other)
            digested = digests.of_file(copy, beside)
    except OSError as error:
        raise ModelError(f"{label}: cannot be read: {error.strerror or error}", code="not-a-file") from error
    if beside:
        file_format = Format(f"{file_format.name} with weights in other files")
    names = tuple(clean(path.name) for path in beside)
    return Received(copy, digested.digest, digested.files, file_format, names)


def _examine(copy: Path, label: str, adapter: Adapter) -> Format:
    if adapter.examine is None:
        return Format(adapter.name)
    with _examining(copy, label):
        return adapter.examine(copy)


@contextlib.contextmanager
def _examining(copy: Path, label: str) -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        raise ModelError(str(error).replace(str(copy), label), code="wrong-format") from error
    except Exception as error:
        raise ModelError(f"{label}: expected a model, found a damaged file", code="wrong-format") from error


def _copy_companions(
    source: Path, copy: Path, label: str, adapter: Adapter, largest: int, is_other: Callable[[Path], bool]
) -> list[Path]:
    with _examining(copy, label):
        names = adapter.beside(copy)
    copied = []
    for name in names:
        companion = source.with_name(name)
        if copy.name != source.name and name.startswith(f"{copy.stem}."):  # what is called after the model
            companion = source.with_name(f"{source.stem}{name.removeprefix(copy.stem)}")
        if name != source.name and os.path.lexists(companion):  # where it is missing, the adapter says so
            # A model is shown weights alone, whatever else lies in its folder.
            if name.startswith("."):
                raise _no_weights(label, name, "a hidden file")
            if is_other(companion):
                raise _no_weights(label, name, "another of the models")
            target = copy.with_name(name)
            largest -= _copy_file(companion, target, f"{label}: {name}", largest, alone=True)
            if storage.is_own(target) or storage.is_own_text(target):
                raise _no_weights(label, name, "a file of deepjudge's own")
            copied.append(target)
    return copied


def _no_weights(label: str, name: str, what: str) -> ModelError:
    return ModelError(f"{label}: expected weights in {name[:60]!r} next to it, found {what}", code="wrong-format")


def _copy_folder(source: Path, copy: Path, label: str, largest: int) -> None:
    copy.mkdir()
    left, files = largest, 0
    pending = [(source, copy, 1)]
    while pending:
        folder, target, depth = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                files += 1
                if files > _MOST_FILES or depth > _DEEPEST:
                    raise ModelError(
                        f"{label}: expected a model's folder, found one with more than {_MOST_FILES} files, or "
                        f"nested more than {_DEEPEST} deep",
                        code="too-large",
                    )
                if not is_utf8(entry.name):
                    raise ModelError(
                        f"{label}: expected file names in UTF-8, found {entry.name[:60]!a}", code="not-a-file"
                    )
                if entry.is_dir(follow_symlinks=False):
                    (target / entry.name).mkdir()
                    pending.append((folder / entry.name, target / entry.name, depth + 1))
                else:
                    left -= _copy_file(folder / entry.name, target / entry.name, label, left, alone=True)


def _expect_one_name(status: os.stat_result, label: str) -> None:
    if status.st_nlink > 1:
        raise ModelError(
            f"{label}: expected a file with a single name, found a hard link; give a copy", code="not-a-file"
        )


def _copy_file(source: Path, copy: Path, label: str, largest: int, *, alone: bool = False) -> int:
    # What the user did not name, but lies beside it, may be another name of a file of the user's: ``alone`` refuses it.
    status = source.lstat()
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        if alone:
            _expect_one_name(status, label)
        # It may be another one now, but no link: what was opened counts. Who writes to a pipe is not waited for.
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file, copy.open("xb") as target:
            status = os.fstat(descriptor)
            kind = stat.S_IFMT(status.st_mode)
            if alone and kind == stat.S_IFREG:
                _expect_one_name(status, label)
            if kind == stat.S_IFREG:
                size = status.st_size
                if size <= largest:
                    size = _copy(file, target, largest)
                if size > largest:
                    raise ModelError(
                        f"{label}: expected at most {largest / 2**20:.0f} MiB, found {size / 2**20:.0f} or "
                        f"more; allow more with {option('Sandbox.memory')}",
                        code="too-large",
                    )
                copy.chmod(0o400)
                return size
    raise _other(label, kind)


def _copy(file: BinaryIO, target: BinaryIO, largest: int) -> int:
    # It may grow while it is read.
    size = 0
    while size <= largest and (chunk := file.read(_CHUNK)):
        target.write(chunk)
        size += len(chunk)
    return size


def _other(label: str, kind: int) -> ModelError:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    advice = "; name the file that it points to" if kind == stat.S_IFLNK else ""
    shown = kinds.get(kind, "something else")
    return ModelError(f"{label}: expected a regular file, found {shown}{advice}", code="not-a-file")


def _suffix(source: Path, adapter: Adapter) -> str:
    name = source.name.lower()
    return next((suffix for suffix in adapter.all_suffixes if name.endswith(suffix)), "")

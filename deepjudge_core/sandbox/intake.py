"""Takes in a stranger's file: looks at what it is without opening it as a model, and makes the copy that is opened.

Where weights alone are read, large files are not copied: they are held open, and the worker reads what is open.
"""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from deepjudge_core.components.kinds import Adapter, Format
from deepjudge_core.errors import ModelError
from deepjudge_core.files import digests, storage
from deepjudge_core.naming import option
from deepjudge_core.text import clean, is_utf8
from deepjudge_core.weights.reading.folder import described_by

_CHUNK = 2**20
_MOST_FILES, _DEEPEST = 1000, 8  # of a folder
_PLAIN = re.compile(r"[\w\-][\w.\- ]{0,99}", re.ASCII)
# How the Hugging Face cache links a file of a snapshot to its content, which is named by its own SHA-1 or SHA-256.
_CACHED = re.compile(r"(?:\.\./){2,9}blobs/(?:[0-9a-f]{40}|[0-9a-f]{64})")
_LARGE = 2**26  # bytes; to copy less takes no time
_LARGEST_HELD = 2**42  # bytes of all files that are held: many times what the largest models have
_MOST_HELD = 500  # files: a worker may have 1,024 open


@dataclass(frozen=True)
class Taken:
    """A model's private copy, of which no digest was made yet.

    Attributes:
        path: The copy, a file or a folder.
        format: What it is.
        beside: Copies of the files beside it that were taken along, since it says that they hold its weights.
    """

    path: Path
    format: Format
    beside: tuple[Path, ...] = ()

    @property
    def beside_names(self) -> tuple[str, ...]:
        """Names of the files beside it."""
        return tuple(clean(path.name) for path in self.beside)

    def digested(self, stopped: Callable[[], bool] = lambda: False) -> digests.FileDigests:
        """The digests of the copy, of which each byte is read.

        Args:
            stopped: Asked from time to time whether nobody waits for them any more.

        Raises:
            OSError: When it cannot be read, or nobody waits.
        """
        if self.path.is_dir():
            return digests.of_folder(self.path, stopped)
        return digests.of_file(self.path, self.beside, stopped)


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


class Held:
    """Files that are read where they are, since a copy would take long.

    Each was opened once, is no link and no other name of a file, and stays open: what stands at its path later is not
    read. Its copy is a link to what is open, by the number that it has in this process and in the worker.
    """

    def __init__(self) -> None:
        self._files: dict[int, os.stat_result] = {}

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Numbers of the open files."""
        return tuple(self._files)

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._files:
            os.close(descriptor)
        self._files.clear()

    def hold(self, descriptor: int, copy: Path, label: str) -> None:
        """Hold a file that is open, as the copy.

        Raises:
            ModelError: When it is one too many, or too large.
        """
        status = os.fstat(descriptor)
        size = status.st_size + sum(other.st_size for other in self._files.values())
        if size > _LARGEST_HELD or len(self._files) >= _MOST_HELD:
            raise ModelError(
                f"{label}: expected at most {_LARGEST_HELD >> 40} TiB of weights in {_MOST_HELD} large files, "
                "found more",
                code="too-large",
            )
        held = os.dup(descriptor)
        self._files[held] = status
        copy.symlink_to(f"/proc/self/fd/{held}")

    def check(self, label: str) -> None:
        """Refuse a model whose files were written to since.

        Raises:
            ModelError: Naming it.
        """
        for descriptor, before in self._files.items():
            now = os.fstat(descriptor)
            if any(
                getattr(now, field) != getattr(before, field) for field in ("st_size", "st_mtime_ns", "st_ctime_ns")
            ):
                raise ModelError(
                    f"{label}: expected files that stay as they are while they are read, found one that was changed; "
                    "try again when nobody writes to it",
                    code="not-a-file",
                )


def receive(
    source: Path,
    label: str,
    adapter: Adapter,
    folder: Path,
    largest: int,
    is_other: Callable[[Path], bool] = lambda beside: False,
) -> Received:
    """Copy a model into a folder, and say what it is: :func:`take`, with the digests of the copy."""
    taken = take(source, label, adapter, folder, largest, is_other)
    with _legible(label):
        digested = taken.digested()
    return Received(taken.path, digested.digest, digested.files, taken.format, taken.beside_names)


def take(
    source: Path,
    label: str,
    adapter: Adapter,
    folder: Path,
    largest: int,
    is_other: Callable[[Path], bool] = lambda beside: False,
    held: Held | None = None,
    *,
    weights: bool = False,
) -> Taken:
    """Copy a model into a folder, and say what it is.

    Args:
        source: A regular file, or a folder of regular files.
        label: What it is called in messages.
        adapter: The one that is going to open it.
        folder: Where the copy is made; empty.
        largest: Bytes that all of it may have.
        is_other: Whether a file beside it is another model, and no model's weights.
        held: Where large files stay open that are not copied; they do not count. None to copy all.
        weights: Whether its weights alone are read, which of some models is possible that are never opened. What reads
            them says what is wrong. What lies beside a file and says how they are read is taken along.

    Raises:
        ModelError: When it is something else, is too large, or is of no format that is ever opened.
    """
    # A model may name itself where it says where its weights are.
    name = source.name if _PLAIN.fullmatch(source.name) else f"model{_suffix(source, adapter)}"
    copy, copying = folder / name, _Copying(label, held)
    beside: list[Path] = []
    with _legible(label):
        if stat.S_ISDIR(source.lstat().st_mode):
            copying.folder(source, copy, largest)
            file_format = Format(adapter.name) if weights else _examine(copy, label, adapter)
        else:
            size = copying.file(source, copy, largest)
            if copy.stat().st_size == 0:
                raise ModelError(f"{label}: expected a model, found an empty file", code="wrong-format")
            file_format = Format(adapter.name) if weights else _examine(copy, label, adapter)
            beside = copying.companions(source, copy, adapter, largest - size, is_other)
            for name in described_by(source) if weights else ():
                largest -= copying.file(source.with_name(name), copy.with_name(name), largest - size, alone=True)
    if beside:
        file_format = Format(f"{file_format.name} with weights in other files")
    return Taken(copy, file_format, tuple(beside))


@contextlib.contextmanager
def _legible(label: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(f"{label}: cannot be read: {error.strerror or error}", code="not-a-file") from error


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


@dataclass(frozen=True)
class _Copying:
    label: str
    held: Held | None

    def companions(
        self, source: Path, copy: Path, adapter: Adapter, largest: int, is_other: Callable[[Path], bool]
    ) -> list[Path]:
        label = self.label
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
                largest -= replace(self, label=f"{label}: {name}").file(companion, target, largest, alone=True)
                if storage.is_own(target) or storage.is_own_text(target):
                    raise _no_weights(label, name, "a file of deepjudge's own")
                copied.append(target)
        return copied

    def folder(self, source: Path, copy: Path, largest: int) -> None:
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
                            f"{self.label}: expected a model's folder, found one with more than {_MOST_FILES} "
                            f"files, or nested more than {_DEEPEST} deep",
                            code="too-large",
                        )
                    if not is_utf8(entry.name):
                        raise ModelError(
                            f"{self.label}: expected file names in UTF-8, found {entry.name[:60]!a}", code="not-a-file"
                        )
                    if entry.is_dir(follow_symlinks=False):
                        (target / entry.name).mkdir()
                        pending.append((folder / entry.name, target / entry.name, depth + 1))
                    else:
                        left -= self.file(folder / entry.name, target / entry.name, left, alone=True)

    def file(self, source: Path, copy: Path, largest: int, *, alone: bool = False) -> int:
        # The bytes that count. What the user did not name, but lies beside it, may be another name of a file of the
        # user's: ``alone`` refuses it.
        status = source.lstat()
        if stat.S_ISLNK(status.st_mode) and _CACHED.fullmatch(str(target := source.readlink())):
            source, alone = source.parent / target, True
            status = source.lstat()
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            if alone:  # before it is opened, which can be noticed, and once more then
                _expect_one_name(status, self.label)
            # It may be another one now, but no link: what was opened counts. Who writes to a pipe is not waited for.
            descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFREG:
                    if alone:
                        _expect_one_name(status, self.label)
                    if self.held is not None and status.st_size > _LARGE:
                        self.held.hold(descriptor, copy, self.label)
                        return 0
                    return self._opened(file, copy, status.st_size, largest)
        raise _other(self.label, kind)

    def _opened(self, file: BinaryIO, copy: Path, size: int, largest: int) -> int:
        with copy.open("xb") as target:
            if size <= largest:
                size = _copy(file, target, largest)
        if size > largest:
            raise ModelError(
                f"{self.label}: expected at most {largest / 2**20:.0f} MiB, found {size / 2**20:.0f} or "
                f"more; allow more with {option('Sandbox.memory')}",
                code="too-large",
            )
        copy.chmod(0o400)
        return size


def _no_weights(label: str, name: str, what: str) -> ModelError:
    return ModelError(f"{label}: expected weights in {name[:60]!r} next to it, found {what}", code="wrong-format")


def _expect_one_name(status: os.stat_result, label: str) -> None:
    if status.st_nlink > 1:
        raise ModelError(
            f"{label}: expected a file with a single name, found a hard link; give a copy", code="not-a-file"
        )


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

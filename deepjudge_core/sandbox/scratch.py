"""Folders for one worker each, of which none is left behind."""

import contextlib
import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deepjudge_core.files.reading import abandoned

_PREFIX = "deepjudge-"
_LOCK, _UNLOCKED = "in-use", "new"
_BLOCK = 512  # bytes, of what the system counts a file's size in
_DEEPEST = 50  # folders within one another


@dataclass(frozen=True)
class Scratch:
    """A private folder.

    Attributes:
        folder: All of it.
    """

    folder: Path

    @property
    def model(self) -> Path:
        """Where the model's copy is."""
        return self.folder / "model"

    @property
    def work(self) -> Path:
        """Where the worker may write."""
        return self.folder / "work"

    @property
    def forbidden(self) -> Path:
        """A file that the worker may not touch, to try it."""
        return self.folder / "forbidden" / "file"

    def written(self, most: int) -> tuple[int, int]:
        """How many bytes the worker has written, and in how many files and folders; counted up to more than ``most``.

        What is nested deeper than any program of good will does counts as more.
        """
        size, count = 0, 0
        pending = [(self.work, 0)]
        while pending and count <= most:
            folder, depth = pending.pop()
            if depth > _DEEPEST:
                return size, most + 1
            with contextlib.suppress(OSError):
                folder.chmod(0o700)  # it may have been made without rights, to hide what is in it
                for entry in os.scandir(folder):
                    count += 1
                    with contextlib.suppress(FileNotFoundError):
                        size += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((Path(entry.path), depth + 1))
        return size, count


@contextlib.contextmanager
def make_scratch() -> Iterator[Scratch]:
    """Make a private folder, and remove it with all that is in it.

    Those of audits that were killed are removed, too: theirs have a lock that nobody holds.
    """
    sweep()
    scratch = Scratch(Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve())
    lock = os.open(scratch.folder / _UNLOCKED, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another audit, which looks for locks that nobody holds, sees this one when it is held.
        (scratch.folder / _UNLOCKED).rename(scratch.folder / _LOCK)
        for folder in (scratch.model, scratch.work, scratch.forbidden.parent):
            folder.mkdir()
        scratch.forbidden.touch()
        yield scratch
    finally:
        try:
            _remove(scratch.folder)
        finally:
            os.close(lock)


def sweep() -> None:
    """Remove the folders of audits that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            # One without a lock is being made at this moment.
            with abandoned(folder / _LOCK):
                _remove(folder)


def _remove(folder: Path) -> None:
    # What a worker made may have no rights, and be nested deeper than paths are long and calls go: each folder is moved
    # to the top before it is looked into.
    pending = [folder]
    with contextlib.suppress(OSError):
        while pending:
            inner = pending.pop()
            for entry in list(os.scandir(inner)):
                path = Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    path.chmod(0o700)
                    pending.append(path.rename(folder / secrets.token_hex(8)))
                elif inner != folder:
                    path.unlink()
            if inner != folder:
                inner.rmdir()
        # At last the lock, so that another audit can go on with this where it was ended.
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

"""Folders for one worker each, of which none is left behind."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

_PREFIX = "deepjudge-"
_LOCK = "in-use"


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


@contextlib.contextmanager
def make_scratch() -> Iterator[Scratch]:
    """Make a private folder, and remove it with all that is in it.

    Those of audits that were killed are removed, too: theirs have a lock that nobody holds.
    """
    _sweep()
    scratch = Scratch(Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve())
    lock = os.open(scratch.folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        for folder in (scratch.model, scratch.work, scratch.forbidden.parent):
            folder.mkdir()
        scratch.forbidden.touch()
        yield scratch
    finally:
        _remove(scratch.folder)
        os.close(lock)


def _sweep() -> None:
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            # One without a lock is being made at this moment.
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder)
            finally:
                os.close(lock)


def _remove(folder: Path) -> None:
    # A worker may have taken rights from folders that it made.
    for root, folders, _ in os.walk(folder):
        for path in (Path(root) / name for name in folders):
            with contextlib.suppress(OSError):
                if not path.is_symlink():
                    path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)

"""What came of each task, in a folder: rows in SQLite, and the answers beside them in files."""

import contextlib
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepjudge_core.errors import FileFormatError
from deepjudge_core.files import storage
from deepjudge_core.files.reading import abandoned
from deepjudge_core.fleets.work import Result, Task
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.suites.observation import Observation, load_observation

DATABASE = "fleet.sqlite"
"""The rows."""
_APPLICATION, _VERSION = 0x444A464C, 1  # "DJFL"
_SHORT = 32  # digits of a digest in a name
_PATIENCE = 60.0  # seconds for another process that writes
_SCHEMA = """
CREATE TABLE suites (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, victim TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE answers (
    suite TEXT NOT NULL, suspect TEXT NOT NULL, settings TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('answered', 'failed', 'skipped')),
    reason TEXT, code TEXT, digest TEXT, isolation TEXT, name TEXT NOT NULL,
    limits TEXT NOT NULL, finished REAL NOT NULL, seconds REAL NOT NULL, worker TEXT NOT NULL,
    PRIMARY KEY (suite, suspect, settings)
) STRICT, WITHOUT ROWID;
CREATE TABLE claims (
    suite TEXT NOT NULL, suspect TEXT NOT NULL, settings TEXT NOT NULL, owner TEXT NOT NULL,
    PRIMARY KEY (suite, suspect, settings)
) STRICT, WITHOUT ROWID;
"""

Claim = Literal["ours", "finished", "theirs"]
"""What came of claiming a task: it is this process's to do, it is done already, or another process does it."""


@dataclass(frozen=True)
class Row:
    """What came of a suspect and a suite; see :class:`~deepjudge_core.fleets.work.Result`.

    Attributes:
        suite: Digest of the suite.
        suspect: SHA-256 of the suspect's bytes.
        settings: Digest of how it was opened and asked.
        status: Whether it answered.
        reason: Why it did not.
        code: What kind of failure that was.
        digest: Digest of the observation.
        isolation: The level at which it was kept.
        name: What it was called when it was asked.
        limits: The sandbox's, at which a failure may not be one any more.
        finished: When, in seconds of the system's clock.
        seconds: How long it took.
        worker: Who asked it.
    """

    suite: str
    suspect: str
    settings: str
    status: Literal["answered", "failed", "skipped"]
    reason: str | None
    code: str | None
    digest: str | None
    isolation: str | None
    name: str
    limits: str
    finished: float
    seconds: float
    worker: str


_FIND = "SELECT * FROM answers WHERE suite = ? AND suspect = ? AND settings = ?"
_SAVE = """INSERT OR REPLACE INTO answers VALUES (
    :suite, :suspect, :settings, :status, :reason, :code, :digest, :isolation, :name,
    :limits, :finished, :seconds, :worker)"""
_OWNER = "SELECT owner FROM claims WHERE suite = ? AND suspect = ? AND settings = ?"
_RELEASE = "DELETE FROM claims WHERE suite = ? AND suspect = ? AND settings = ? AND owner = ?"


class Store:
    """The results of fleets, in a folder on a disk of this machine.

    Several processes may use it at once. A process that is killed loses no row that is there: answers are written
    whole, before their row, and what it was doing is done by whoever comes next.
    """

    def __init__(self, folder: Path, *, make: bool = True) -> None:
        """Open it; use as a context.

        Args:
            folder: The folder.
            make: Whether it is made if it is not there.

        Raises:
            FileFormatError: When it cannot be opened, is damaged, or is of another version.
        """
        self.folder, self._path = folder, folder / DATABASE
        self._owner, self._lock = f"{os.getpid()}-{secrets.token_hex(8)}", -1
        if not make and not is_store(folder):
            raise FileFormatError(f"{folder}: expected the results of 'deepjudge fleet', found no {DATABASE}")
        with self._telling():
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None)
            try:
                self._begin()
            except BaseException:
                self._database.close()
                raise

    def _begin(self) -> None:
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA journal_mode = WAL")
        # A power cut may cost the last rows, whose suspects are then asked again; a killed process costs none.
        self._database.execute("PRAGMA synchronous = NORMAL")
        with self._writing():
            application, version = (self._pragma(name) for name in ("application_id", "user_version"))
            if not application and not version and not self._one("SELECT 1 FROM sqlite_master"):
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._database.execute(f"PRAGMA user_version = {_VERSION}")
            elif application != _APPLICATION:
                raise FileFormatError(f"{self._path}: expected the results of a fleet, found another database")
            elif version != _VERSION:
                raise FileFormatError(
                    f"{self._path}: expected results of version {_VERSION}, found version {version}; another release "
                    "wrote them: install that, or name another folder"
                )

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._lock >= 0:
                with contextlib.suppress(FileFormatError):
                    self._write("DELETE FROM claims WHERE owner = ?", self._owner)
                self._lock_of(self._owner).unlink(missing_ok=True)
                os.close(self._lock)
        finally:
            self._database.close()

    # Tasks.

    def find(self, task: Task) -> Row | None:
        """What came of a task, if it is done.

        A suspect that failed at other limits is asked again, and so is one that was confined less than it has to be
        now, or whose answers are gone.
        """
        row = self.row(*task.key)
        if row is None or (row.status == "failed" and row.limits != limits_of(task)):
            return None
        if row.status == "answered":
            confined = not (task.sandbox and task.sandbox.required) or row.isolation == Isolation.FULL
            return row if confined and self.answers(row).is_file() else None
        return row

    def claim(self, task: Task, *, again: bool = False) -> Claim:
        """Say that this process does a task, unless it is done, or another process that lives does it.

        Args:
            task: The task.
            again: Whether it is done once more if the suspect failed.
        """
        self._hold_lock()
        with self._telling(), self._writing():
            row = self.find(task)
            if row and not (again and row.status == "failed"):
                return "finished"
            found = self._one(_OWNER, *task.key)
            if found and found["owner"] != self._owner and self._lives(found["owner"]):
                return "theirs"
            self._database.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", (*task.key, self._owner))
        return "ours"

    def save(self, result: Result) -> Row | None:
        """Keep what came of a task; None for what is undone, which is anybody's again.

        Raises:
            FileFormatError: When it cannot be written: nothing of it is there then.
        """
        task, row = result.task, _row_of(result)
        if row and result.observation is not None:
            storage.write_bytes(self.answers(row), result.observation)
        with self._telling(), self._writing():
            if row:
                self._database.execute(_SAVE, vars(row))
            self._database.execute(_RELEASE, (*task.key, self._owner))
        return row

    def row(self, suite: str, suspect: str, settings: str) -> Row | None:
        """What came of a suspect and a suite; None where nothing did."""
        with self._telling():
            found = self._one(_FIND, suite, suspect, settings)
            return Row(**dict(found)) if found else None

    def rows(self) -> Iterator[Row]:
        """All that is there, one after the other."""
        with self._telling():
            for found in self._database.execute("SELECT * FROM answers"):
                yield Row(**dict(found))

    def answers(self, row: Row) -> Path:
        """The file of a suspect's answers."""
        name = f"{row.suspect[:_SHORT]}-{row.settings[:_SHORT]}.safetensors"
        return self.folder / "answers" / row.suite[:_SHORT] / name

    def read(self, row: Row) -> Observation:
        """What a suspect answered.

        Raises:
            FileFormatError: When it is not there, or is not what the row says.
        """
        path = self.answers(row)
        observation = load_observation(path)
        if observation.digest != row.digest:
            raise FileFormatError(
                f"{path}: expected the answers {str(row.digest)[:12]}, found {observation.digest[:12]}",
                code="damaged-file",
            )
        return observation

    # The database.

    def _one(self, statement: str, *values: Any) -> Any:
        return self._database.execute(statement, values).fetchone()

    def _write(self, statement: str, *values: Any) -> None:
        with self._telling(), self._writing():
            self._database.execute(statement, values)

    def write_all(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Write many rows at once, or none."""
        with self._telling(), self._writing():
            self._database.executemany(statement, rows)

    def _pragma(self, name: str) -> int:
        return int(self._one(f"PRAGMA {name}")[0])

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite has done so itself where the disk is full
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise FileFormatError(f"{self._path}: cannot be used: {error}", code="cannot-write") from error
        except sqlite3.DatabaseError as error:
            raise FileFormatError(f"{self._path}: is damaged: {error}", code="damaged-file") from error
        except OSError as error:
            raise FileFormatError(f"{self.folder}: cannot be used: {error.strerror}", code="cannot-write") from error

    # Who does what. A process holds a lock for as long as it lives, however it ends.

    def _lock_of(self, owner: str) -> Path:
        return self.folder / "running" / owner

    def _hold_lock(self) -> None:
        if self._lock < 0:
            with self._telling():
                path = self._lock_of(self._owner)
                path.parent.mkdir(exist_ok=True)
                self._sweep(path.parent)
                self._lock = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _sweep(self, folder: Path) -> None:
        for path in folder.iterdir():
            with contextlib.suppress(OSError), abandoned(path):
                if time.time() - path.stat().st_mtime > _PATIENCE:  # not one that is just about to be locked
                    path.unlink()

    def _lives(self, owner: str) -> bool:
        try:
            with abandoned(self._lock_of(owner)):
                return False
        except FileNotFoundError:
            return False
        except OSError:
            return True


def is_store(folder: Path) -> bool:
    """Whether a folder has the results of fleets."""
    return (folder / DATABASE).is_file()


def limits_of(task: Task) -> str:
    """The limits within which a suspect that failed may have failed."""
    return f"{task.sandbox.memory} {task.sandbox.timeout:g}" if task.sandbox else ""


def _row_of(result: Result) -> Row | None:
    if result.status == "undone":
        return None
    task = result.task
    return Row(
        *task.key,
        status=result.status,
        reason=result.reason,
        code=result.code,
        digest=result.digest,
        isolation=result.isolation,
        name=task.name,
        limits=limits_of(task),
        finished=time.time(),
        seconds=result.seconds,
        worker=result.worker,
    )

"""What came of each task, in a folder: rows in SQLite, and the answers beside them in files."""

import contextlib
import fcntl
import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepjudge_core.errors import FileFormatError
from deepjudge_core.files import storage
from deepjudge_core.files.reading import LARGEST_ARRAYS, abandoned, open_regular
from deepjudge_core.fleets.work import Result, Task
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.suites.observation import Observation, load_observation
from deepjudge_core.suites.suite import Suite, save_suite

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
CREATE TABLE members (
    suite TEXT NOT NULL, source TEXT NOT NULL, place INTEGER NOT NULL, name TEXT NOT NULL,
    suspect TEXT, settings TEXT, reason TEXT, code TEXT,
    decision TEXT, points_to TEXT, ratio REAL, q_value REAL, said TEXT,
    PRIMARY KEY (suite, source, place)
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
        digest: SHA-256, in hex, of the file of its answers.
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


@dataclass(frozen=True)
class Suited:
    """A suite of a store.

    Attributes:
        digest: Its digest.
        name: What the user calls it.
        victim: What the owner calls the model.
    """

    digest: str
    name: str
    victim: str


@dataclass(frozen=True)
class Member:
    """A suspect of a fleet and one of its suites: whom the user named, and what was made of it at last.

    Attributes:
        suite: Digest of the suite.
        source: Where the suspect is: an absolute path.
        place: Which it is of those that are named by this path, from 0.
        name: What the user calls it.
        suspect: SHA-256 of its bytes; None where these could not be read.
        settings: Digest of how it is opened and asked; None where that is not known.
        reason: Why it was not asked; None where it was, or is going to be.
        code: What kind of failure that is.
        decision: What was said of it when it was last judged; None where it was not yet.
        points_to: What a copy points to.
        ratio: How far it is from the victim, as a multiple of the thresholds.
        q_value: The least false discovery rate at which it would be called a copy.
        said: Why it failed, is inconclusive or was skipped.
    """

    suite: str
    source: str
    place: int
    name: str
    suspect: str | None = None
    settings: str | None = None
    reason: str | None = None
    code: str | None = None
    decision: str | None = None
    points_to: str | None = None
    ratio: float | None = None
    q_value: float | None = None
    said: str | None = None


_FIND = "SELECT * FROM answers WHERE suite = ? AND suspect = ? AND settings = ?"
_SAVE = """INSERT OR REPLACE INTO answers VALUES (
    :suite, :suspect, :settings, :status, :reason, :code, :digest, :isolation, :name,
    :limits, :finished, :seconds, :worker)"""
_ENTER = """INSERT INTO members (suite, source, place, name, suspect, settings, reason, code)
    VALUES (:suite, :source, :place, :name, :suspect, :settings, :reason, :code)
    ON CONFLICT DO UPDATE SET name = :name, suspect = :suspect, settings = :settings, reason = :reason, code = :code"""
_UNDONE = "UPDATE members SET reason = ?, code = ? WHERE suite = ? AND suspect = ? AND settings = ?"
_JUDGED = """UPDATE members SET decision = :decision, points_to = :points_to, ratio = :ratio, q_value = :q_value,
    said = :said WHERE suite = :suite AND source = :source AND place = :place"""
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
                    self._write("DELETE FROM claims WHERE owner = ?", [self._owner])
                self._lock_of(self._owner).unlink(missing_ok=True)
                os.close(self._lock)
                self._lock = -1
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
            else:
                self._database.execute(_UNDONE, (result.reason, result.code, *task.key))
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
        with open_regular(path, "stored answers", LARGEST_ARRAYS) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != row.digest:
            raise FileFormatError(
                f"{path}: expected the answers {str(row.digest)[:12]}, found {found[:12]}; remove the file, and the "
                "next run asks the suspect again",
                code="damaged-file",
            )
        return load_observation(path)

    # Suites, and whom the user named.

    def keep_suite(self, suite: Suite, path: Path) -> Suited:
        """Keep a suite, so that the folder is all that judging needs.

        Args:
            suite: The suite.
            path: Its file.
        """
        kept = Suited(suite.digest, str(path), suite.victim.model.name)
        if not self.suite_path(suite.digest).is_file():
            save_suite(self.suite_path(suite.digest), suite)
        self._write("INSERT OR REPLACE INTO suites VALUES (:digest, :name, :victim)", vars(kept))
        return kept

    def suites(self) -> tuple[Suited, ...]:
        """The suites, by their names."""
        with self._telling():
            return tuple(Suited(**dict(one)) for one in self._database.execute("SELECT * FROM suites ORDER BY name"))

    def suite_path(self, digest: str) -> Path:
        """The file of a suite."""
        return self.folder / "suites" / f"{digest[:_SHORT]}.safetensors"

    def calibration_path(self, digest: str) -> Path:
        """The file of a suite's controls."""
        return self.folder / "calibrations" / f"{digest[:_SHORT]}.safetensors"

    def enter(self, members: Iterable[Member]) -> None:
        """Say whom the user named, and why some cannot be asked."""
        self._write_all(_ENTER, map(vars, members))

    def members(self, suite: str) -> list[Member]:
        """Whom the user named against a suite, by name."""
        with self._telling():
            found = self._database.execute("SELECT * FROM members WHERE suite = ? ORDER BY name, place", (suite,))
            return [Member(**dict(one)) for one in found]

    def judged(self, members: Iterable[Member]) -> None:
        """Keep what was made of members."""
        self._write_all(_JUDGED, map(vars, members))

    # The database.

    def _one(self, statement: str, *values: Any) -> Any:
        return self._database.execute(statement, values).fetchone()

    def _write(self, statement: str, values: Sequence[Any] | Mapping[str, Any]) -> None:
        with self._telling(), self._writing():
            self._database.execute(statement, values)

    def _write_all(self, statement: str, rows: Iterable[Mapping[str, Any]]) -> None:
        # All at once, or none.
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

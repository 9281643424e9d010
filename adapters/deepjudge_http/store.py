"""Answers that were paid for, and the ledger of all requests: a file of SQLite for each model, without secrets."""

import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.gateway import DIGEST, Ledger
from deepjudge_core.types import Array
from deepjudge_http.answers import Shown

_VERSION = 1
_BUSY = 60.0  # seconds that another process may hold the file
_SCHEMA = """
create table requests (
    id integer primary key, time integer not null, request blob not null, answer blob, status integer not null,
    queries integer not null, price real not null
);
create table answers (
    input blob not null, turn integer not null, scores blob, label integer, request integer not null,
    primary key (input, turn)
) without rowid;
"""


def usual_folder() -> Path:
    """Where answers are kept unless somebody says another place."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "deepjudge" / "api"


class Store:
    """The answers of one model, each to an input and a turn: how often the input had been asked before.

    Args:
        name: The model's, for messages.
        path: The file; None to keep nothing.
    """

    def __init__(self, name: str, path: Path | None) -> None:
        self._name, self._path = name, path
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            self._base = sqlite3.connect(
                path or ":memory:", timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
            self._base.execute("pragma synchronous = full")
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from None

    def _prepare(self) -> None:
        self._base.execute("begin immediate")
        [version] = self._base.execute("pragma user_version").fetchone()
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._base.execute(statement)
            self._base.execute(f"pragma user_version = {_VERSION}")
        self._base.execute("commit")
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"it is of version {version}, expected {_VERSION}")

    def _failed(self, error: Exception) -> ModelError:
        why = getattr(error, "strerror", None) or str(error)
        return ModelError(
            f"{self._name}: expected a file for its answers at {self._path}, found one that cannot be used: {why}; "
            "move it away, or name another folder as cache",
            code="cannot-answer",
        )

    def find(self, digest: bytes, turn: int) -> tuple[Shown, int] | None:
        """The answer to an input at its turn, and the request to which it is owed; None where there is none.

        Raises:
            ModelError: When the file is damaged.
        """
        try:
            row = self._base.execute(
                "select scores, label, request from answers where input = ? and turn = ?", (digest, turn)
            ).fetchone()
            if row is None:
                return None
            scores, label, request = row
            values = None if scores is None else np.frombuffer(scores, np.float64)
            if values is not None and (np.isinf(values).any() or np.isnan(values).all()):
                raise ValueError("it holds no scores")
            return Shown(values, label), int(request)
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise self._failed(error) from None

    def add_request(self, request: bytes, answer: bytes | None, status: int) -> int:
        """Write a line of the ledger, whose queries and price are known later; its number.

        Raises:
            ModelError: When it cannot be written.
        """
        try:
            row = (time.time_ns() // 10**6, request, answer, status)
            cursor = self._base.execute("insert into requests values (null, ?, ?, ?, ?, 0, 0.0)", row)
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return int(cursor.lastrowid or 0)

    def add_answers(self, request: int, answers: Sequence[tuple[bytes, int, Shown]], price: float) -> None:
        """Write what a request had answered: all of it, or nothing.

        Args:
            request: Number of its line in the ledger.
            answers: Of each the digest of the input, its turn and the answer.
            price: Of each.

        Raises:
            ModelError: When it cannot be written.
        """
        rows = [
            (digest, turn, None if one.scores is None else one.scores.tobytes(), one.label, request)
            for digest, turn, one in answers
        ]
        try:
            self._base.execute("begin immediate")
            try:
                self._base.executemany("insert or ignore into answers values (?, ?, ?, ?, ?)", rows)
                self._base.execute(
                    "update requests set queries = ?, price = ? where id = ?", (len(rows), len(rows) * price, request)
                )
                self._base.execute("commit")
            except BaseException:
                self._base.execute("rollback")
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def ledger(self, ids: Iterable[int]) -> Ledger:
        """The lines of these requests, in their order.

        Raises:
            ModelError: When the file is damaged.
        """
        columns = "time, request, answer, status, queries, price"
        try:
            rows = [
                self._base.execute(f"select {columns} from requests where id = ?", (one,)).fetchone()  # noqa: S608
                for one in sorted(ids)
            ]
            whole = [row for row in rows if row is not None]
            return Ledger(
                times=np.array([row[0] for row in whole], np.int64),
                requests=_digests([row[1] for row in whole]),
                answers=_digests([row[2] or bytes(DIGEST) for row in whole]),
                statuses=np.array([row[3] for row in whole], np.int64),
                queries=np.array([row[4] for row in whole], np.int64),
                prices=np.array([row[5] for row in whole], np.float64),
            )
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Close the file."""
        self._base.close()


def _digests(values: Sequence[bytes]) -> Array:
    return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), DIGEST)

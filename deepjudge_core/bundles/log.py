"""The log of queries: a line for each model that was asked, each with the SHA-256 of the line before."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from deepjudge_core.errors import FileFormatError
from deepjudge_core.files.documents import Document, Json, parse, plain
from deepjudge_core.files.reading import LARGEST_JSON, open_regular, parse_json

Role = Literal["victim", "control", "suspect"]
_FIRST = "0" * 64
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Query(Document, frozen=True):
    """That one model was asked one suite.

    Attributes:
        role: What the model is in the audit.
        model: What the user called it.
        digest: SHA-256 of the model; None where it could not be opened.
        suite: Digest of the suite; of the victim, of that which its answers became part of.
        cases: How many cases it was asked; some of them again, to see whether it keeps to its answers.
        layers: The suite's layer to the model's tap that was read.
        stored: Whether it had been asked before, so that its stored observation was read.
        observation: Digest of what it answered; None where it failed.
        failure: Why it failed.
        time: When its line was written, in UTC, as ``2026-01-31T12:00:00Z``; None until then.
    """

    role: Role
    model: str
    digest: str | None
    suite: str
    cases: int
    layers: Mapping[str, str]
    stored: bool
    observation: str | None
    failure: str | None = None
    time: str | None = None


class _Line(Query, frozen=True, kw_only=True):
    previous: str  # SHA-256 of the line before, without its end


class QueryLog:
    """Writes a log, each line as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self._path, self._last, self._time = path, _FIRST, ""

    def add(self, query: Query) -> None:
        """Write the next line, with the present time in UTC.

        A clock that is set back does not make the log run backwards: the line then has the time of the one before.

        Raises:
            FileFormatError: When it cannot be written.
        """
        self._time = max(self._time, datetime.now(UTC).strftime(_TIME))
        line = _dump(plain(query) | {"time": self._time, "previous": self._last})
        try:
            with self._path.open("wb" if self._last == _FIRST else "ab") as file:
                file.write(line + b"\n")
        except OSError as error:
            raise FileFormatError(
                f"{self._path}: cannot be written: {error.strerror or error}", code="cannot-write"
            ) from error
        self._last = hashlib.sha256(line).hexdigest()


def read_log(path: Path) -> tuple[Query, ...]:
    """Read a log, and check that each line belongs behind the one before.

    Raises:
        FileFormatError: Naming the first line that does not.
    """
    with open_regular(path, "a query log", LARGEST_JSON) as file:
        data = file.read()
    *lines, rest = data.split(b"\n")
    if rest:
        raise FileFormatError(f"{path}: line {len(lines) + 1}: is incomplete", code="damaged-file")
    queries, last = [], _FIRST
    for number, line in enumerate(lines, 1):
        try:
            value = parse_json(line)
            if not isinstance(value, dict) or _dump(value) != line:
                raise ValueError("deepjudge does not write queries in this form")
            entry = parse(_Line, value)
            query = Query(**{name: getattr(entry, name) for name in Query.__struct_fields__})
            if query.time is None:
                raise ValueError("time: expected a string, found null")
            datetime.strptime(query.time, _TIME)
        except ValueError as error:
            raise FileFormatError(f"{path}: line {number}: is not a query: {error}", code="damaged-file") from None
        if entry.previous != last:
            raise FileFormatError(
                f"{path}: line {number}: does not belong after the line before it", code="damaged-file"
            )
        queries.append(query)
        last = hashlib.sha256(line).hexdigest()
    return tuple(queries)


def time_of(query: Query) -> datetime | None:
    """When a line was written; None of one that is not."""
    return datetime.strptime(query.time, _TIME).replace(tzinfo=UTC) if query.time else None


def _dump(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")

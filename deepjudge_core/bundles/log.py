"""The log of queries: a line for each model that was asked, each with the SHA-256 of the line before."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from deepjudge_core.errors import FileFormatError
from deepjudge_core.files.documents import Count, Document, Json, Sha256, parse, plain
from deepjudge_core.files.reading import open_regular, parse_json
from deepjudge_core.suites.observation import Exchange

Role = Literal["victim", "control", "suspect"]
_FIRST = "0" * 64
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_MOST_REQUESTS = 50_000  # of one model: a line of the log is read like any JSON
_LARGEST = 2**28  # bytes of a log
_LATEST = 253_402_300_799_000  # milliseconds: the last of the year 9999


class Request(Document, frozen=True):
    """One request to a model that answers elsewhere.

    Attributes:
        time: When it was sent, in UTC, as ``2026-01-31T12:00:00.000Z``.
        request: SHA-256 of what was sent, without headers.
        answer: SHA-256 of what came back; None where nothing did.
        status: The HTTP status; 0 where no answer came.
        queries: How many inputs it had answered.
        price: What these cost.
    """

    time: str
    request: Sha256
    answer: Sha256 | None
    status: int
    queries: Count
    price: Annotated[float, Meta(ge=0)]


Requests = tuple[Request, ...]


def requests_of(exchange: Exchange | None) -> Requests | UnsetType:
    """The ledger of a model that answers elsewhere, as the log has it; unset of others.

    One of very many requests stands in the stored answers alone.
    """
    if exchange is None or len(exchange.ledger) > _MOST_REQUESTS:
        return UNSET
    ledger = exchange.ledger
    return tuple(
        Request(
            time=_moment(int(ledger.times[place])),
            request=ledger.requests[place].tobytes().hex(),
            answer=ledger.answers[place].tobytes().hex() if ledger.answers[place].any() else None,
            status=int(ledger.statuses[place]),
            queries=int(ledger.queries[place]),
            price=float(ledger.prices[place]),
        )
        for place in range(len(ledger))
    )


def _moment(milliseconds: int) -> str:
    bounded = min(max(milliseconds, 0), _LATEST)
    return datetime.fromtimestamp(bounded / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
        requests: The ledger of requests, if it answers elsewhere; absent of others.
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
    requests: Requests | UnsetType = UNSET


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
    with open_regular(path, "a query log", _LARGEST) as file:
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

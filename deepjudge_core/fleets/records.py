"""The results of fleets as rows for other programs: CSV and Parquet."""

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from deepjudge_core.errors import MissingExtraError
from deepjudge_core.fleets.store import Member, Row, Store
from deepjudge_core.report.spreadsheet import plain_text

_PARTS = {"copy": 0, "inconclusive": 1, "independent": 1, None: 1, "skipped": 2, "failed": 3}


@dataclass(frozen=True)
class Record:
    """A suspect and a suite, with all that is known of them.

    Attributes:
        victim: What the owner calls the model.
        suite: Digest of the suite.
        suspect: What the user calls it.
        source: Where it is.
        verdict: Copy, inconclusive, independent, skipped or failed; None where it was not judged yet.
        points_to: What a copy points to.
        ratio: How far it is from the victim, as a multiple of the thresholds.
        q_value: The least false discovery rate at which it would be called a copy.
        reason: Why it failed, is inconclusive or was skipped.
        code: What kind of failure that is.
        digest: SHA-256 of its bytes.
        settings: Digest of how it was opened and asked.
        seconds: How long it was asked.
        finished: When, as UTC.
        worker: Who asked it.
        answers: The file of its answers.
    """

    victim: str
    suite: str
    suspect: str
    source: str
    verdict: str | None
    points_to: str | None
    ratio: float | None
    q_value: float | None
    reason: str | None
    code: str | None
    digest: str | None
    settings: str | None
    seconds: float | None
    finished: str | None
    worker: str | None
    answers: str | None


def records(
    store: Store, *, only: Collection[str] = (), victim: str | None = None, sort: str = "similarity"
) -> list[Record]:
    """What is known of all that the user named.

    Args:
        store: The results.
        only: Verdicts; none for all.
        victim: A part of the victim's or the suite's name; None for all victims.
        sort: "similarity" for copies and small ratios first, per victim; "name" for the suspects' names; "given" for
            the order of the store.
    """
    found = list(_records(store, victim))
    found = [one for one in found if not only or one.verdict in only]
    if sort == "similarity":
        found.sort(key=lambda one: (one.victim, one.suite, _PARTS.get(one.verdict, 1), _near(one), one.suspect))
    elif sort == "name":
        found.sort(key=lambda one: one.suspect)
    return found


def _near(one: Record) -> float:
    return float("inf") if one.ratio is None else one.ratio


def _records(store: Store, victim: str | None) -> Iterator[Record]:
    for suite in store.suites():
        if victim is not None and victim not in suite.victim and victim not in suite.name:
            continue
        for member in store.members(suite.digest):
            asked = member.suspect is not None and member.settings is not None
            row = store.row(suite.digest, str(member.suspect), str(member.settings)) if asked else None
            yield _record(suite.victim, member, row, store)


def _record(victim: str, member: Member, row: Row | None, store: Store) -> Record:
    finished = datetime.fromtimestamp(row.finished, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if row else None
    return Record(
        victim=victim,
        suite=member.suite,
        suspect=member.name,
        source=member.source,
        verdict=member.decision,
        points_to=member.points_to,
        ratio=member.ratio,
        q_value=member.q_value,
        reason=member.said,
        code=row.code if row else member.code,
        digest=member.suspect,
        settings=member.settings,
        seconds=row.seconds if row else None,
        finished=finished,
        worker=row.worker if row else None,
        answers=str(store.answers(row).relative_to(store.folder)) if row and row.status == "answered" else None,
    )


def as_csv(found: Sequence[Record]) -> bytes:
    """A table in UTF-8 (RFC 4180); texts come from strangers, and none is a formula to a spreadsheet."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = [entry.name for entry in fields(Record)]
    writer.writerow(names)
    for one in found:
        writer.writerow([_cell(getattr(one, name)) for name in names])
    return text.getvalue().encode()


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return plain_text(value) if isinstance(value, str) else repr(float(value))


def check_parquet() -> Any:
    """What writes Parquet.

    Raises:
        MissingExtraError: When it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingExtraError("a table of Parquet", "pyarrow", "parquet") from None
    return pyarrow


def as_parquet(found: Sequence[Record]) -> bytes:
    """A table of Apache Parquet, as the bytes of a file.

    Raises:
        MissingExtraError: When pyarrow is not installed.
    """
    pyarrow = check_parquet()
    kinds = {"ratio": pyarrow.float64(), "q_value": pyarrow.float64(), "seconds": pyarrow.float64()}
    columns = {
        entry.name: pyarrow.array(
            [getattr(one, entry.name) for one in found], type=kinds.get(entry.name, pyarrow.string())
        )
        for entry in fields(Record)
    }
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return bytes(sink.getvalue())

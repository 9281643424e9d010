"""The report of an audit as a table for spreadsheets: CSV (RFC 4180), a row for each suspect."""

import csv
import io
from collections.abc import Iterator

from deepjudge_core.judging.ranking import ranked, ratio
from deepjudge_core.report.documents import AuditReport, ResultEntry, SuspectEntry
from deepjudge_core.text import LONGEST_LINE, clean

HEADS = ("rank", "name", "verdict", "points_to", "ratio", "digest", "framework", "reason")
"""The columns before those of the metrics."""
OF_METRIC = ("", " threshold", " vote", " reason")
"""The columns of each metric, behind its name."""
# What spreadsheets take for a formula, also by its wide forms.
_FORMULAS = tuple("=+-@|%\uff1d\uff0b\uff0d\uff20")


def render(report: AuditReport) -> bytes:
    """The report as CSV in UTF-8: suspects by their rank, the most similar first, then what was skipped.

    Verdicts are those of the JSON. Texts come from strangers: they are cleaned, and have an apostrophe in front if a
    spreadsheet would take them for a formula.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*HEADS, *(_text(f"{name}{part}") for name in report.metrics for part in OF_METRIC)])
    for rank, place in enumerate(ranked(report.suspects), 1):
        suspect = report.suspects[place]
        cells = [*_suspect(rank, suspect)]
        for name in report.metrics:
            cells += _metric(suspect.metrics.get(name))
        writer.writerow(cells)
    for one in report.skipped or ():
        blank = ["" for name in report.metrics for part in OF_METRIC]
        writer.writerow(["", _text(one.name), "skipped", "", "", "", "", _text(f"{one.code}: {one.reason}"), *blank])
    return text.getvalue().encode()


def _suspect(rank: int, suspect: SuspectEntry) -> Iterator[str]:
    yield str(rank)
    yield _text(suspect.path)
    yield suspect.decision
    yield suspect.points_to or ""
    yield _number(ratio(suspect))
    yield suspect.digest or ""
    yield _text(suspect.framework or "")
    yield _text(suspect.reason or "")


def _metric(result: ResultEntry | None) -> list[str]:
    if result is None:
        return [""] * len(OF_METRIC)
    vote = {True: "copy", False: "no", None: ""}[result.vote]
    return [_number(result.value), _number(result.threshold), vote, _text(result.reason or "")]


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _text(text: str) -> str:
    shown = clean(text, LONGEST_LINE)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULAS) else shown

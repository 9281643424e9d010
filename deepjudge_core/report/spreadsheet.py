"""The report of an audit as a table for spreadsheets: CSV (RFC 4180), a row for each suspect."""

import csv
import io
from collections.abc import Iterator

from msgspec import UNSET

from deepjudge_core.judging.exact import power_of_ten
from deepjudge_core.judging.ranking import ranked, ratio
from deepjudge_core.report.documents import AuditReport, ResultEntry, SuspectEntry
from deepjudge_core.text import LONGEST_LINE, clean

HEADS = ("rank", "name", "verdict", "points_to", "ratio", "digest", "framework", "reason")
"""The columns before those of the metrics."""
OF_METRIC = ("", " threshold", " vote", " reason")
"""The columns of each metric, behind its name."""
OF_KEY = (" found", " of", " p", " vote", " reason")
"""The columns of each key, behind its name."""
_VOTES = {True: "copy", False: "no", None: ""}
# What spreadsheets take for a formula, also by its wide forms.
_FORMULAS = tuple("=+-@|%\uff1d\uff0b\uff0d\uff20")


def render(report: AuditReport) -> bytes:
    """The report as CSV in UTF-8: suspects by their rank, the most similar first, then what was skipped.

    Verdicts are those of the JSON. Texts come from strangers: they are cleaned, and have an apostrophe in front if a
    spreadsheet would take them for a formula.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    columns = {name: OF_KEY if metric.group == "marks" else OF_METRIC for name, metric in report.metrics.items()}
    writer.writerow([*HEADS, *(plain_text(f"{name}{part}") for name, parts in columns.items() for part in parts)])
    for rank, place in enumerate(ranked(report.suspects), 1):
        suspect = report.suspects[place]
        cells = [*_suspect(rank, suspect)]
        for name, parts in columns.items():
            result = suspect.metrics.get(name)
            cells += [""] * len(parts) if result is None else _key(result) if parts is OF_KEY else _metric(result)
        writer.writerow(cells)
    for one in report.skipped or ():
        blank = ["" for parts in columns.values() for part in parts]
        writer.writerow(
            ["", plain_text(one.name), "skipped", "", "", "", "", plain_text(f"{one.code}: {one.reason}"), *blank]
        )
    return text.getvalue().encode()


def _suspect(rank: int, suspect: SuspectEntry) -> Iterator[str]:
    yield str(rank)
    yield plain_text(suspect.path)
    yield suspect.decision
    yield suspect.points_to or ""
    yield _number(ratio(suspect))
    yield suspect.digest or ""
    yield plain_text(suspect.framework or "")
    yield plain_text(suspect.reason or "")


def _metric(result: ResultEntry) -> list[str]:
    return [_number(result.value), _number(result.threshold), _VOTES[result.vote], plain_text(result.reason or "")]


def _key(result: ResultEntry) -> list[str]:
    counted = [str(count) if count is not UNSET else "" for count in (result.found, result.of)]
    p = "" if result.log10_p is UNSET else power_of_ten(result.log10_p)
    return [*counted, p, _VOTES[result.vote], plain_text(result.reason or "")]


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def plain_text(text: str) -> str:
    """A stranger's text for a cell: cleaned, with an apostrophe in front where it could be taken for a formula."""
    shown = clean(text, LONGEST_LINE)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULAS) else shown

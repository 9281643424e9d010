"""What the pages of reports are put together from: cells, tables, and what both pages show."""

from collections.abc import Mapping, Sequence
from typing import Any

from deepjudge_core.report.pages.document import Cell, Line, Name, Table
from deepjudge_core.text import number

Json = Mapping[str, Any]


def foot(report: Json) -> list[Line]:
    """What made the report."""
    return [("Made from a report ", Name(report["schema"]), " of deepjudge ", Name(report["deepjudge"]), ".")]


def text(line: Line) -> Cell:
    """A cell of prose."""
    return Cell(line)


def name(found: str) -> Cell:
    """A cell with a stranger's word for something."""
    return Cell(Name(found), "name")


def word(found: str) -> Cell:
    """A cell with such a word that is short, as a rule."""
    return Cell(Name(found))


def figure(value: float | None) -> Cell:
    """A cell with a number."""
    return Cell(number(value), "number")


def digest(value: str | None) -> Cell:
    """A cell with a SHA-256."""
    return Cell(Name(value) if value else "-", "digest")


def decided(decision: str) -> Cell:
    """A cell with a decision."""
    return Cell(decision, decision)  # type: ignore[arg-type]


def share(value: float | None) -> str:
    """A share in percent, as it stands in tables."""
    return "-" if value is None else f"{value:.1%}"


def table_of(caption: str, columns: Mapping[str, Sequence[Cell]], *, tall: bool = False) -> Table:
    """A table without the columns that say nothing in any row."""
    told = {head: cells for head, cells in columns.items() if any(cell.line != "-" for cell in cells)}
    return Table(caption, list(told), list(zip(*told.values(), strict=True)), tall=tall)


def thresholds_of(judged: Sequence[Json], metric: str) -> list[float]:
    """The threshold of a metric, which is positive; where models have their own, the least and the greatest."""
    found = {m["metrics"][metric]["threshold"] for m in judged if metric in m["metrics"]}
    known = [value for value in found if value is not None and value > 0]
    return sorted({min(known), max(known)}) if known else []

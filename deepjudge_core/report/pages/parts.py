"""What the pages of reports are put together from: cells, tables, and what both pages show."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from deepjudge_core.report.documents import AnyReport, MetricEntry, SuspectEntry, ZooModelEntry, schema_of
from deepjudge_core.report.pages.document import Cell, Line, Name, Table
from deepjudge_core.report.pages.wording import SIDES, called
from deepjudge_core.text import LONGEST_LINE, capital, clean, number

Judged = SuspectEntry | ZooModelEntry
"""An entry of a model that was judged."""


def foot(report: AnyReport) -> list[Line]:
    """What made the report."""
    return [("Made from a report ", Name(schema_of(report)), " of deepjudge ", Name(report.deepjudge), ".")]


def base(path: str) -> str:
    """The last part of a path."""
    shown = clean(path, LONGEST_LINE)
    return shown.rstrip("/").rsplit("/", 1)[-1] or shown


def below_common(paths: Iterable[str]) -> dict[str, str]:
    """Each path to what tells it from the others: the part below the folder that all are in."""
    cleaned = {path: clean(path, LONGEST_LINE).rstrip("/").split("/") for path in paths}
    folders = [parts[:-1] for parts in cleaned.values()]
    common = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False)))
    return {path: "/".join(parts[common:]) for path, parts in cleaned.items()}


def kept_under(report: AnyReport) -> list[tuple[str, Line]]:
    """Under what the report is kept: case, date, who made it."""
    made = report.made
    if not made:
        return []
    date = made.date and f"{made.date[:10]} {made.date[11:16]} UTC"
    facts = {"Case": made.case, "Date": date, "Made by": made.by}
    return [(what, Name(value)) for what, value in facts.items() if value]


def definitions(metrics: Mapping[str, MetricEntry]) -> Table:
    """What each metric measures."""
    return table_of(
        "What is measured",
        {
            "measurement": [word(metric) for metric in metrics],
            "what it is": [Cell("-" if not m.title else m.title, "prose") for m in metrics.values()],
            "distance": [Cell(capital(m.says) if m.says else "-", "prose") for m in metrics.values()],
            "range": [Cell(_reach(m.upper), "number") for m in metrics.values()],
            "compares": [text(SIDES[m.group]) for m in metrics.values()],
            "from": [Cell(Name(m.provider) if m.provider else "-", "name") for m in metrics.values()],
        },
    )


def _reach(upper: float | None) -> str:
    return "0 upwards" if upper is None else f"0 to {number(upper)}"


def text(line: Line) -> Cell:
    """A cell of prose."""
    return Cell(line)


def name(called: str) -> Cell:
    """A cell with a stranger's word for something."""
    return Cell(Name(called), "name")


def word(called: str) -> Cell:
    """A cell with such a word that is short, as a rule."""
    return Cell(Name(called))


def figure(value: float | None) -> Cell:
    """A cell with a number."""
    return Cell(number(value), "number")


def digest(value: str | None) -> Cell:
    """A cell with a SHA-256."""
    return Cell(Name(value) if value else "-", "digest")


def decided(decision: str, points_to: str | None = None) -> Cell:
    """A cell with a decision."""
    return Cell(called(decision, points_to), decision)  # type: ignore[arg-type]


def share(value: float | None) -> str:
    """A share in percent, as it stands in tables."""
    return "-" if value is None else f"{value:.1%}"


def table_of(
    caption: str,
    columns: Mapping[str, Sequence[Cell]],
    *,
    tall: bool = False,
    dense: bool = False,
) -> Table:
    """A table without the columns that say nothing in any row."""
    shown = {head: cells for head, cells in columns.items() if any(cell.line != "-" for cell in cells)}
    rows = list(zip(*shown.values(), strict=True))
    return Table(caption, list(shown), rows, tall=tall, dense=dense)


def value_of(model: Judged, metric: str) -> float | None:
    """The value of a metric; None where it was not measured."""
    return model.metrics[metric].value if metric in model.metrics else None


def thresholds_of(models: Sequence[Judged], metric: str) -> list[float]:
    """The threshold of a metric, which is positive; where models have their own, the least and the greatest."""
    thresholds = {model.metrics[metric].threshold for model in models if metric in model.metrics}
    positive = [value for value in thresholds if value is not None and value > 0]
    return sorted({min(positive), max(positive)}) if positive else []

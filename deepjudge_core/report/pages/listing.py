"""The suspects of a report as its pages list them: their names, numbers and order."""

from collections.abc import Sequence

from deepjudge_core.judging.ranking import ranked
from deepjudge_core.report.documents import AuditReport, DrawnEntry, MetricEntry, SuspectEntry
from deepjudge_core.report.pages.document import Name
from deepjudge_core.report.pages.parts import base, below_common, thresholds_of
from deepjudge_core.report.pages.wording import probability

MANY = 12
"""More suspects are ranked in short lines; what else is said of them is folded."""
DETAILED = 100  # suspects of which everything is said; the JSON and the CSV have all
_NAMED = 10  # suspects whose names fit beside their marks
_LONGEST_LABEL = 22
TALL = 25  # rows that a reader scrolls past


def names_of(report: AuditReport) -> dict[str, str]:
    """Each suspect's path to what tells it from the others."""
    return below_common(suspect.path for suspect in report.suspects)


def numbered_by_rank(report: AuditReport) -> list[tuple[int, SuspectEntry]]:
    """Suspects, most similar first, with their numbers, which are their places in the report."""
    return [(place + 1, report.suspects[place]) for place in ranked(report.suspects)]


def votes_of(suspect: SuspectEntry | DrawnEntry) -> str:
    """How many of the votes say copy."""
    cast = [metric for metric in suspect.metrics.values() if metric.vote is not None]
    return f"{sum(bool(metric.vote) for metric in cast)} of {len(cast)}" if cast else "-"


def least_p_of(suspect: SuspectEntry) -> str:
    """The smallest p-value of a suspect."""
    found = [setting for setting in suspect.settings.named().values() if setting.p_value is not None]
    least = min(found, key=lambda setting: setting.p_value or 0.0, default=None)
    return "-" if least is None else probability(least.p_value, least.log10_p)


def metrics_of_distances(report: AuditReport) -> dict[str, MetricEntry]:
    """The metrics without keys, which have a section of their own."""
    return {name: metric for name, metric in report.metrics.items() if metric.group != "marks"}


def has_thresholds(report: AuditReport) -> bool:
    """Whether any distance has a threshold."""
    return any(thresholds_of(report.suspects, metric) for metric in metrics_of_distances(report))


def labels_of(report: AuditReport) -> list[str]:
    """What suspects are called beside their marks in figures: their numbers alone, if they are many."""
    if len(report.suspects) > _NAMED:
        return [str(place) for place in range(1, len(report.suspects) + 1)]
    return [
        f"{place} {base(suspect.path)}".strip()[:_LONGEST_LABEL] for place, suspect in enumerate(report.suspects, 1)
    ]


def listed(names: Sequence[str]) -> tuple[str | Name, ...]:
    """Names in a line, with commas."""
    return tuple(part for one in names for part in (", ", Name(one)))[1:]

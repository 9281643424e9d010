"""Distances from the victim, measurement by measurement: a figure for each."""

from collections.abc import Iterator, Sequence

from deepjudge_core.report.documents import AuditReport, ControlEntry, SuspectEntry
from deepjudge_core.report.pages import charts
from deepjudge_core.report.pages.document import Block, Figure, Name, Paragraph, Section
from deepjudge_core.report.pages.listing import has_thresholds, labels_of, metrics_of_distances
from deepjudge_core.report.pages.parts import definitions, thresholds_of, value_of
from deepjudge_core.report.pages.similarity import distances_of_controls
from deepjudge_core.report.pages.wording import kind_of

_UNKNOWN = "controls, unknown kind"


def distances_section(report: AuditReport) -> Iterator[Section]:
    """Each measurement: what it is, and where suspects, controls and thresholds lie."""
    controls = report.calibration.controls
    metrics = metrics_of_distances(report)
    if not metrics:
        return
    labels = labels_of(report)
    blocks: list[Block] = [
        Paragraph(
            "Each measurement (metric) is a distance from the victim: the smaller, the more alike, and 0 for the "
            "victim itself."
        ),
        definitions(metrics),
    ]
    figures = []
    reduced = [suspect for suspect in report.suspects if suspect.api and suspect.api.controls]
    seen = reduced[0] if reduced and len(reduced) == len(report.suspects) and _see_alike(reduced) else None
    for place, metric in enumerate(metrics):
        suspects = [
            charts.Mark(value, label, suspect.decision)
            for suspect, label in zip(report.suspects, labels, strict=True)
            if (value := value_of(suspect, metric)) is not None
        ]
        rows = _by_stratum(controls, distances_of_controls(report, metric, seen))
        if suspects or rows:
            thresholds = thresholds_of(report.suspects, metric)
            svg = charts.strip(f"strip-{place}", metric, suspects, rows, thresholds)
            figures.append(Figure(svg, (Name(metric), *_titled(report, metric))))
    if figures:
        blocks.append(Paragraph(" ".join(_legend(report))))
    yield Section("Distances from the victim", "distances", [*blocks, *figures])


def _legend(report: AuditReport) -> Iterator[str]:
    if report.calibration.controls:
        yield "Hollow marks are controls, with a row and a shape for each kind (stratum)."
    reduced = [suspect for suspect in report.suspects if suspect.api and suspect.api.controls]
    if reduced and not (len(reduced) == len(report.suspects) and _see_alike(reduced)):
        yield (
            "Some suspects show less of their answers than the controls. Their thresholds come from other distances of "
            "the controls than those in the figure."
        )
    yield ("Filled marks are suspects: squares for copies, circles for no sign of copying, diamonds for undecided.")
    if has_thresholds(report):
        yield (
            "A model in the shaded part, at most as far as the dashed threshold, gets a vote for copy. If suspects "
            "have different thresholds, the smallest and the greatest are drawn."
        )
    else:
        yield "Without a threshold, no distance counts as near or far."


def _titled(report: AuditReport, metric: str) -> tuple[str, ...]:
    title = report.metrics[metric].title
    return (f", {title}",) if title else ()


def _see_alike(suspects: Sequence[SuspectEntry]) -> bool:
    return all(one.api and suspects[0].api and one.api.controls == suspects[0].api.controls for one in suspects)


def _by_stratum(controls: Sequence[ControlEntry], values: Sequence[float | None]) -> list[charts.Row]:
    strata: dict[str, list[float]] = {}
    for control, value in zip(controls, values, strict=True):
        if value is not None:
            strata.setdefault(kind_of(control, _UNKNOWN), []).append(value)
    return [charts.Row(stratum, values) for stratum, values in sorted(strata.items())]

"""What was not measured, not judged, or not taken as a model, and why."""

from collections.abc import Iterator, Sequence

from deepjudge_core.auditing.folders import SKIPPED, SkipCode
from deepjudge_core.report.documents import AuditReport, SkippedEntry, SuspectEntry
from deepjudge_core.report.pages.document import Block, Cell, Paragraph, Section, Table
from deepjudge_core.report.pages.listing import listed
from deepjudge_core.report.pages.parts import text
from deepjudge_core.report.pages.wording import LONGEST_REASON, failing
from deepjudge_core.text import capital


def unmeasured_section(report: AuditReport) -> Iterator[Section]:
    """What was not measured or cast no vote, and why."""
    reasons: dict[tuple[str, str], list[int]] = {}
    for place, suspect in enumerate(report.suspects, 1):
        for metric, result in suspect.metrics.items():
            if result.vote is None:
                reasons.setdefault((result.reason or "", metric), []).append(place)
    grouped: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for (reason, metric), places in reasons.items():
        grouped.setdefault((reason, tuple(places)), []).append(metric)
    numbered = [(str(place), suspect) for place, suspect in enumerate(report.suspects, 1)]
    failed = [number for number, suspect in numbered if suspect.decision == "failed" and not suspect.metrics]
    sequential = [number for number, suspect in numbered if suspect.sequential]
    blocks: list[Block] = []
    if grouped:
        rows = [
            [
                Cell(listed(metrics), "prose"),
                Cell(", ".join(map(str, places)), "prose"),
                Cell(capital(reason), "prose"),
                text(_access(report, metrics)),
            ]
            for (reason, places), metrics in grouped.items()
        ]
        head = ["measurement", "suspects", "why", "needs"]
        blocks.append(Table("Measurements that were not made, or cast no vote", head, rows))
    if failed:
        blocks.append(Paragraph(f"Nothing was measured of the suspects that could not be tested: {', '.join(failed)}."))
        blocks += _in_full([(number, suspect) for number, suspect in numbered if number in failed])
    if sequential:
        blocks.append(
            Paragraph(
                "These suspects were asked case by case, for labels only, so no distance was measured: "
                f"{', '.join(sequential)}."
            )
        )
    if not blocks:
        blocks.append(Paragraph("Every measurement was made on every suspect, and cast a vote."))
    yield Section("What was not measured", "unmeasured", blocks)


def _in_full(failed: Sequence[tuple[str, SuspectEntry]]) -> Iterator[Table]:
    # What the first page only begins to say.
    reasons: dict[str, list[str]] = {}
    for place, suspect in failed:
        if len(failing(suspect)) > LONGEST_REASON:
            reasons.setdefault(failing(suspect), []).append(place)
    if reasons:
        rows = [[Cell(", ".join(places)), Cell(reason, "prose")] for reason, places in reasons.items()]
        yield Table("Why models could not be tested, in full", ["suspects", "message"], rows, tall=True)


def skipped_section(report: AuditReport) -> Iterator[Section]:
    """What in the suspects' folders was not taken as a model."""
    if not report.skipped:
        return
    alike: dict[tuple[bool, SkipCode], list[SkippedEntry]] = {}
    for one in sorted(report.skipped, key=lambda one: not one.unjudged):
        alike.setdefault((one.unjudged, one.code), []).append(one)
    rows = [
        [
            Cell(_why_skipped(code, some), "prose"),
            text("yes" if unjudged else "no"),
            Cell(listed([one.name for one in some]), "prose"),
        ]
        for (unjudged, code), some in alike.items()
    ]
    head = ["why", "may hold a model", "files"]
    yield Section(
        "Files that were not judged",
        "skipped",
        [Paragraph(_SKIPPED), Table("Files next to the suspects that were not taken as models", head, rows)],
    )


_SKIPPED = (
    "An adapter is the part of deepjudge that reads one kind of model file. A file that may hold a model may hold a "
    "copy, and this report does not say whether it does."
)


def _why_skipped(code: SkipCode, some: Sequence[SkippedEntry]) -> str:
    # What is true of them all.
    reasons = {one.reason for one in some}
    return capital(reasons.pop() if len(reasons) == 1 else SKIPPED[code])


def _access(report: AuditReport, metrics: Sequence[str]) -> str:
    needs = dict.fromkeys(
        need for metric in metrics if metric in report.metrics for need in report.metrics[metric].needs
    )
    return f"the model's {' and '.join(needs)}" if needs else "-"

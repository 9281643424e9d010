"""What is said of each suspect by itself, and what the rule says of them."""

import re
from collections.abc import Iterator, Mapping, Sequence

from deepjudge_core.report.documents import AuditReport, ResultEntry, SuspectEntry
from deepjudge_core.report.pages import charts
from deepjudge_core.report.pages.document import Beside, Block, Cell, Figure, Line, Name, Paragraph, Section, Table
from deepjudge_core.report.pages.listing import (
    DETAILED,
    MANY,
    TALL,
    has_thresholds,
    least_p_of,
    metrics_of_distances,
    names_of,
    numbered_by_rank,
)
from deepjudge_core.report.pages.parts import decided, figure, share, table_of, text, word
from deepjudge_core.report.pages.similarity import axes_of, ranges_of
from deepjudge_core.report.pages.wording import SIDES, called, probability, sentence
from deepjudge_core.text import number


def suspect_sections(report: AuditReport) -> Iterator[Section]:
    """Suspect by suspect: all measurements and comparisons."""
    numbered, names = numbered_by_rank(report), names_of(report)
    many = len(numbered) > MANY
    parts, shown, any_radar = [], 0, False
    for place, suspect in numbered[:DETAILED]:
        blocks = list(_of_suspect(suspect, ranges_of(report, suspect), place))
        if many and suspect.digest:
            blocks.insert(0, Paragraph(("SHA-256: ", Name(suspect.digest))))
        if not blocks:
            continue
        accused = suspect.decision == "copy" and shown < MANY
        shown += accused
        any_radar |= any(isinstance(block, Beside) for block in blocks)
        title: Line = (f"{place} ", Name(names[suspect.path]), f": {called(suspect.decision, suspect.points_to)}")
        parts.append(Section(title, f"suspect-{place}", blocks, folded=not accused if many else False))
    if parts:
        left = len(numbered) - DETAILED
        rest = f"The {DETAILED} most similar ones; the report as JSON or CSV has the other {left}." if left > 0 else ""
        intro = [Paragraph(text) for text in (rest, " ".join(_columns(report)), _RADAR if any_radar else "") if text]
        yield Section("Suspect by suspect", "suspects", intro, parts)


def _columns(report: AuditReport) -> Iterator[str]:
    # What the columns of the tables are, as far as they are there.
    if has_thresholds(report):
        yield "Threshold: the greatest distance that gets a vote for copy."
    if metrics_of_distances(report) and report.calibration.controls:
        yield "Controls: their smallest and greatest distance."
    if any(least_p_of(suspect) is not None for suspect in report.suspects):
        yield (
            "The p is the p-value of one measurement or comparison; the least possible p is the smallest that so many "
            "controls give."
        )


_RADAR = (
    "In a radar chart each axis is a measurement, scaled by its threshold: the rim is the victim itself, the dashed "
    "ring is the threshold, and the middle is infinitely far. A point outside the ring is a vote for copy. The shaded "
    "band holds all controls."
)


def _of_suspect(suspect: SuspectEntry, ranges: Mapping[str, tuple[float, float]], place: int) -> Iterator[Block]:
    numbered = f" of suspect {place}"
    measured = {name: result for name, result in suspect.metrics.items() if result.group != "marks"}
    if measured:
        table = table_of(
            f"Measurements{numbered}",
            {
                "measurement": [word(metric) for metric in measured],
                "of": [text(SIDES[result.group]) for result in measured.values()],
                "distance": [figure(result.value) for result in measured.values()],
                "threshold": [figure(result.threshold) for result in measured.values()],
                "controls": [Cell(_range(ranges.get(metric)), "number") for metric in measured],
                "vote": list(map(_vote, measured.values())),
                "p": [Cell(probability(result.p_value, result.log10_p), "number") for result in measured.values()],
            },
        )
        radar = _radar(suspect, ranges, place)
        yield Beside(table, radar) if radar else table
    settings = {group: s for group, s in suspect.settings.named().items() if s.decision}
    if settings:
        yield table_of(
            f"Comparisons{numbered}",
            {
                "compared": [text(SIDES[group]) for group in settings],
                "answer": [decided(s.decision) for s in settings.values() if s.decision],
                "share of votes": [Cell(share(s.p_copy), "number") for s in settings.values()],
                "p": [Cell(probability(s.p_value, s.log10_p), "number") for s in settings.values()],
                "least possible p": [Cell(probability(s.least_p_value), "number") for s in settings.values()],
                "why": [Cell(_own_reason(s.reason, suspect) or "-", "prose") for s in settings.values()],
            },
        )


def _own_reason(reason: str | None, suspect: SuspectEntry) -> str | None:
    # What the answer says already is not said again.
    return reason if reason and reason not in (suspect.reason or "") else None


def _range(controls: tuple[float, float] | None) -> str:
    return " to ".join(map(number, controls)) if controls else "-"


def _vote(result: ResultEntry) -> Cell:
    if result.value is None:
        return text("not measured")
    if result.vote is None:
        return text("no vote")
    return Cell("copy", "copy") if result.vote else text("not copy")


def _radar(suspect: SuspectEntry, ranges: Mapping[str, tuple[float, float]], place: int) -> Figure | None:
    axes = axes_of(suspect, ranges)
    if sum(axis.value is not None for axis in axes.values()) < 3:
        return None
    svg = charts.radar(
        f"radar-{place}",
        suspect.path,
        list(axes),
        [axis.similarity for axis in axes.values()],
        [axis.band for axis in axes.values()],
        suspect.decision,
    )
    return Figure(svg, f"Similarity of suspect {place} to the victim")


_CLAUSES = re.compile(r"(?:; |\. )(?![^(]*\))")  # what is in brackets stays whole


def findings_section(report: AuditReport) -> Iterator[Section]:
    """What the rule says of each suspect, every clause once: most hold for several."""
    clauses: dict[str, dict[str, list[int]]] = {}
    for place, suspect in enumerate(report.suspects, 1):
        for side, setting in suspect.settings.named().items():
            for clause in _CLAUSES.split(setting.statement or ""):
                if clause:
                    clauses.setdefault(sentence(clause), {}).setdefault(side, []).append(place)
    if clauses:
        judged = [place for place, suspect in enumerate(report.suspects, 1) if suspect.decision != "failed"]
        rows = [
            [Cell(clause, "prose"), text(", ".join(SIDES[side] for side in sides)), text(_by_side(sides, judged))]
            for clause, sides in clauses.items()
        ]
        head = ["finding", "by", "suspects"]
        yield Section(
            "What the rule found", "findings", [Table("In the rule's own words", head, rows, tall=len(rows) > TALL)]
        )


def _by_side(sides: Mapping[str, Sequence[int]], every: Sequence[int]) -> str:
    numbers = {side: _numbers(places, every) for side, places in sides.items()}
    if len(set(numbers.values())) == 1:
        return next(iter(numbers.values()))
    return "; ".join(f"{SIDES[side]}: {found}" for side, found in numbers.items())


def _numbers(places: Sequence[int], every: Sequence[int]) -> str:
    return "all" if len(every) > 1 and list(places) == list(every) else ", ".join(map(str, places))

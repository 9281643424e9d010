"""The section of the page about keys: what they are, and how many of their trials each model matches."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec import UNSET

from deepjudge_core.judging.marks import LEVEL, TRIES
from deepjudge_core.report.documents import AuditReport, ControlEntry, KeyEntry, MetricEntry, PowerReport, ZooModelEntry
from deepjudge_core.report.pages import charts, marks
from deepjudge_core.report.pages.document import Block, Cell, Figure, Line, Name, Paragraph, Section, Table
from deepjudge_core.report.pages.parts import Judged, digest, name, table_of, text, word
from deepjudge_core.text import capital, counted

_UNKNOWN = "controls, unknown kind"
_RARE = 0.01  # on either side of the band in a chart
_TALL = 25  # rows that a reader scrolls past
_WHAT = (
    "A key is a list of trials that its owner keeps secret: inputs with the labels that a marked model gives to them, "
    "or bits that are read from its weights or layers. A scheme is a way to make such keys: a watermark is put into a "
    "model on purpose, a fingerprint is found in it. A key is by design if what counts as a match was drawn at random "
    "once everything else was fixed: how many trials a model matches by chance is then known exactly, whatever the "
    "model is. For other keys, controls have to tell."
)


def keys_section(report: AuditReport, names: Mapping[str, str], labels: Sequence[str]) -> Iterator[Section]:
    """What the keys of a suite count; nothing where it has none.

    Args:
        report: The report.
        names: Of each suspect's path what it is called in tables.
        labels: Of each suspect what it is called in charts.
    """
    keys = report.suite.keys or ()
    if not keys:
        return
    found = [marks.matches(suspect, report) for suspect in report.suspects]
    blocks: list[Block] = [Paragraph(_WHAT), _table_of_keys(keys, report)]
    figures = [figure for place, key in enumerate(keys) for figure in _chart(place, key, report, labels)]
    if figures:
        blocks += [Paragraph(" ".join(_legend(report))), *figures]
    rows = [
        [
            name(names[suspect.path]),
            text(str(place)),
            word(match.name),
            Cell(match.words, "number"),
            Cell(_without(match), "number"),
            Cell(match.p, "number"),
            Cell(match.afterwards, "number"),
            Cell("copy", "copy") if match.result.vote else text("no vote"),
            Cell(match.result.reading or "-", "prose"),
        ]
        for place, (suspect, of_it) in enumerate(zip(report.suspects, found, strict=True), 1)
        for match in of_it
    ]
    if rows:
        head = [
            "suspect",
            "No.",
            "key",
            "matched",
            "made without it",
            "p",
            f"after {TRIES} tries",
            "vote",
            "read",
        ]
        blocks += [
            Paragraph(
                "Made without it: how many trials a model made without the key matches, by design in 98 % of all "
                "cases; of other keys the least and the most of any control. After "
                f"{TRIES} tries: the p-value if somebody had drawn so many keys until one fitted."
            ),
            Table("Trials that each suspect matches", head, rows, tall=len(rows) > _TALL),
        ]
    yield Section("Secret keys", "keys", blocks)


def keys_of_zoo(power: PowerReport) -> Iterator[Section]:
    """What the keys of a suite count of a zoo's models; nothing where it has none."""
    keys = power.suite.keys or ()
    if not keys:
        return
    kinds: dict[tuple[bool, str], list[ZooModelEntry]] = {}
    for model in power.models:
        if model.counts:
            kind = f"controls: {model.stratum or 'unknown'}" if model.kind == "control" else str(model.attack)
            kinds.setdefault((model.kind == "control", kind), []).append(model)
    order = sorted(kinds.items(), key=lambda one: one[0][0])
    found = {
        key.name: {
            kind: [match for model in models for match in marks.matches(model, power) if match.name == key.name]
            for (_, kind), models in order
        }
        for key in keys
    }
    blocks: list[Block] = [Paragraph(_WHAT), _table_of_keys(keys, power)]
    for place, key in enumerate(keys):
        of_key = found[key.name]
        rows = [
            charts.Row(kind, [match.found for match in of_key[kind]], stolen=not control)
            for (control, kind), _ in order
            if of_key[kind]
        ]
        if rows:
            every = [match for some in of_key.values() for match in some]
            band, line = _by_chance(key, every, (marks.level_of(power) or LEVEL) / len(keys))
            most = max([match.of for match in every])
            svg = charts.matches(f"key-{place}", key.name, most, [], rows, band, line)
            blocks.append(Figure(svg, (Name(key.name), ", trials that match")))
    head = ["models", *(key.name for key in keys)]
    table = [[word(kind), *(Cell(_matched(found[key.name][kind]), "number") for key in keys)] for (_, kind), _ in order]
    blocks.append(Table("Trials that models match, and how many of them a key accuses", head, table))
    blocks += [Paragraph(line) for key in keys for line in _unread(key, power)]
    yield Section("Secret keys", "keys", blocks)


def _unread(key: KeyEntry, power: PowerReport) -> Iterator[str]:
    # Such as those that the key was made with.
    results = [result for model in power.models if model.counts and (result := model.metrics.get(key.name))]
    reasons = Counter(result.reason for result in results if result.found is UNSET and result.reason)
    for reason, number in reasons.items():
        yield f"The key {key.name} was not read of {counted(number, 'model')}: {reason}."


def _matched(found: Sequence[marks.Match]) -> str:
    if not found:
        return "-"
    accused = sum(bool(match.result.vote) for match in found)
    return f"{marks.span([match.found for match in found])} of {max(match.of for match in found):,}; {accused} accused"


def _table_of_keys(keys: Sequence[KeyEntry], report: AuditReport | PowerReport) -> Table:
    said = [report.metrics.get(key.name) for key in keys]
    return table_of(
        "Keys of the suite",
        {
            "key": [word(key.name) for key in keys],
            "scheme": [word(key.scheme) for key in keys],
            "what a match means": [Cell(_says(one), "prose") for one in said],
            "trials": [Cell(f"{key.trials:,}", "number") for key in keys],
            "by design": [text("yes" if key.by_design else "no") for key in keys],
            "shows": [text("use of data" if key.proves == "data" else "origin") for key in keys],
            "from": [name(key.provider or "-") for key in keys],
            "SHA-256": [digest(key.digest) for key in keys],
        },
    )


def _says(metric: MetricEntry | None) -> str:
    return capital(metric.says) if metric and metric.says else "-"


def _without(match: marks.Match) -> str:
    if match.chance is None or match.of_data:
        return match.span
    low, high = marks.fewest(match.of, match.chance, _RARE), marks.needed(match.of, match.chance, _RARE)
    return marks.span([low, match.of if high is None else high - 1])


def _legend(report: AuditReport) -> Iterator[str]:
    hollow = ", and hollow ones are controls" if report.calibration.controls else ""
    yield f"Filled marks are suspects (a square is a copy, a circle shows no sign of copying){hollow}."
    yield (
        "The dashed band is what 98 % of models made without the key match by design. A suspect in the shaded part, at "
        "or beyond the dashed line, gets a vote for copy."
    )


def _chart(place: int, key: KeyEntry, report: AuditReport, labels: Sequence[str]) -> Iterator[Figure]:
    drawn, found = [], []
    for suspect, label in zip(report.suspects, labels, strict=True):
        for match in marks.matches(suspect, report):
            if match.name == key.name:
                drawn.append(charts.Mark(match.found, label, suspect.decision))
                found.append(match)
    rows = by_kind(report.calibration.controls, key.name)
    if not drawn and not rows:
        return
    band, line = _by_chance(key, found, (marks.level_of(report) or LEVEL) / len(report.suite.keys or (key,)))
    most = max((match.of for match in found), default=key.trials)
    caption: Line = (Name(key.name), ", ", *_read(found))
    yield Figure(charts.matches(f"key-{place}", key.name, most, drawn, rows, band, line), caption)


def _by_chance(key: KeyEntry, found: Sequence[marks.Match], level: float) -> tuple[tuple[int, int] | None, int | None]:
    # What models made without a key match, where it is known, and from how many on it accuses.
    known = next((match for match in found if match.chance and not match.of_data), None)
    if known and known.chance:
        low, high = marks.fewest(known.of, known.chance, _RARE), marks.needed(known.of, known.chance, _RARE)
        return (low, known.of if high is None else high - 1), marks.needed(known.of, known.chance, level)
    limits = [one for match in found if (one := _limit(match)) is not None]
    return None, None if key.by_design else max(limits, default=None)


def _read(found: Sequence[marks.Match]) -> tuple[str | Name, ...]:
    if any(match.of_data for match in found):
        return ("rows that the key chose, of those that a model is surest of",)
    return ("trials that match",)


def _limit(match: marks.Match) -> int | None:
    # Of keys that controls decide the greatest distance that gets a vote, as a number of trials.
    limit = match.result.threshold
    if limit is None:
        return None
    return math.ceil((match.of - limit / 2) / (1 + limit) - 1e-9)


def by_kind(controls: Sequence[ControlEntry], key: str) -> list[charts.Row]:
    """How many trials of a key controls match, by their strata."""
    strata: dict[str, list[float]] = {}
    for control in controls:
        readings = (control.counted or {}).get(key, ())
        if readings:
            strata.setdefault(control.stratum or _UNKNOWN, []).append(max(one.found for one in readings))
    return [charts.Row(stratum, values) for stratum, values in sorted(strata.items())]


def facts(report: AuditReport | PowerReport) -> Iterator[tuple[str, Cell]]:
    """What stands of keys among what was compared."""
    for key in report.suite.keys or ():
        yield f"SHA-256 of the key {key.name}", digest(key.digest)


def of_control(control: ControlEntry, key: str) -> Cell:
    """How many trials of a key a control matches."""
    readings = (control.counted or {}).get(key, ())
    best = max(readings, key=lambda one: one.found / max(one.of, 1), default=None)
    return Cell("-" if best is None else f"{best.found:,} of {best.of:,}", "number")


def cell(model: Judged, key: str, report: AuditReport | PowerReport) -> Cell:
    """How many trials of a key a model matches."""
    match = next((one for one in marks.matches(model, report) if one.name == key), None)
    return Cell("-" if match is None else match.words, "number")

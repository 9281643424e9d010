"""The report of an audit, as a page: the answer first, then all that it rests on."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec import UNSET

from deepjudge_core.auditing.folders import SKIPPED, SkipCode
from deepjudge_core.auditing.outcome import CLAIMED
from deepjudge_core.components.values import Group
from deepjudge_core.files.documents import Json
from deepjudge_core.judging.ranking import ranked, ratio
from deepjudge_core.report.documents import (
    ApiEntry,
    AuditReport,
    ControlEntry,
    DrawnEntry,
    MetricEntry,
    ResultEntry,
    SkippedEntry,
    SuiteEntry,
    SuspectEntry,
    VictimEntry,
)
from deepjudge_core.report.pages import charts
from deepjudge_core.report.pages.document import (
    Beside,
    Block,
    Bullets,
    Cell,
    Commands,
    Figure,
    Line,
    Name,
    Page,
    Paragraph,
    Section,
    Table,
)
from deepjudge_core.report.pages.keys import facts as facts_of_keys
from deepjudge_core.report.pages.keys import keys_section, of_control
from deepjudge_core.report.pages.marks import day
from deepjudge_core.report.pages.nextsteps import next_steps
from deepjudge_core.report.pages.parts import (
    base,
    below_common,
    decided,
    definitions,
    digest,
    figure,
    foot,
    kept_under,
    name,
    share,
    table_of,
    text,
    thresholds_of,
    value_of,
    word,
)
from deepjudge_core.report.pages.reproducing import commands
from deepjudge_core.report.pages.similarity import axes_of, distances_of_controls, ranges_of
from deepjudge_core.report.pages.wording import (
    LONGEST_REASON,
    SIDES,
    answer,
    called,
    failing,
    kind_of,
    limits,
    percent,
    probability,
    rates,
    sentence,
    sureness,
)
from deepjudge_core.text import capital, counted, number

MANY = 12
"""More suspects are ranked in short lines; what else is said of them is folded."""
_DETAILED = 100  # suspects of which everything is said; the JSON and the CSV have all
_NAMED = 10  # suspects whose names fit beside their marks
_LONGEST_LABEL = 22
_TALL = 25  # rows that a reader scrolls past
_UNKNOWN = "controls, unknown kind"
_ACCURACY = (
    "Accuracy is how often a model is right: the victim on all inputs that were offered, a suspect on the seeds, which "
    "are those among them that the victim classifies correctly."
)
_ORIGINS = {
    "victim": "The right answers to the inputs are not known, so the victim's own answers were taken as such. Accuracy "
    "says how often a model agrees with the victim on the seeds.",
    "several": "Each input can have several classes; the one that the victim finds likeliest was taken. Accuracy says "
    "how often that is a right one, and for suspects how often they find the same one likeliest.",
}
_CASES = {
    "clean": "ordinary inputs that the victim classifies correctly (seeds)",
    "adversarial": "changed so that the victim errs (adversarial cases)",
    "corners": "that drive single neurons of the victim to extremes (corner cases)",
    "mistakes": "ordinary inputs that the victim gets wrong (mistakes)",
}


def audit_page(report: AuditReport) -> Page:
    """The page of an audit's report."""
    sections = [
        _answer(report),
        *_drawn(report),
        *keys_section(report, _names(report), _suspect_labels(report)),
        *_distances(report),
        *_suspects(report),
        *_findings(report),
        _compared(report),
        *_layers(report),
        *_unmeasured(report),
        *_skipped(report),
        _reproduce(report),
    ]
    return Page(
        title=_question(report),
        lead=_lead(report),
        sections=sections,
        foot=foot(report),
        facts=[("Victim, perhaps copied", Name(base(report.victim.path))), *kept_under(report)],
    )


def _question(report: AuditReport) -> Line:
    victim = Name(base(report.victim.path))
    if len(report.suspects) == 1:
        return ("Is ", Name(_names(report)[report.suspects[0].path]), " a copy of ", victim, "?")
    return ("Is any of these models a copy of ", victim, "?")


def _lead(report: AuditReport) -> str:
    unjudged = sum(one.unjudged for one in report.skipped or ())
    if not unjudged:
        return _answers(report)
    which = "which may hold a model, was" if unjudged == 1 else "which may hold models, were"
    return f"{_answers(report)} {counted(unjudged, 'other file')}, {which} not judged."


_OTHERWISE: Mapping[str | None, tuple[str, str]] = {
    "descent": ("both models began with the same weights", "began with the victim's first weights"),
    "data": ("it was trained on the same data", "learnt from the same data"),
}
"""What else may be true of a copy, by what it points to: of the only suspect, and of one or several among others."""


def _answers(report: AuditReport) -> str:
    count = Counter(suspect.decision for suspect in report.suspects)
    of = len(report.suspects)
    if not of:
        return "No model was judged."
    otherwise = Counter(suspect.points_to for suspect in report.suspects if suspect.points_to in _OTHERWISE)
    if of == 1:
        return {
            "copy": next(
                (f"It is a copy, or {_OTHERWISE[one][0]}." for one in otherwise), "Yes, it appears to be a copy."
            ),
            "independent": "No sign of copying was found.",
            "inconclusive": "The comparison does not decide.",
            "failed": "It could not be tested.",
        }[report.suspects[0].decision]
    said = []
    if count["copy"]:
        copies = count["copy"] - otherwise.total()
        if copies:
            said.append(
                f"Yes: {copies} of {of} models {'appears to be a copy' if copies == 1 else 'appear to be copies'}."
            )
        for one, number in otherwise.items():
            are = "is a copy" if number == 1 else "are copies"
            said.append(f"{number} of {of} models {are}, or {_OTHERWISE[one][1]}.")
        if count["independent"]:
            said.append(f"For {count['independent']}, no sign of copying was found.")
    elif count["independent"]:
        said.append(f"No sign of copying was found for {count['independent']} of {of} models.")
    if count["inconclusive"]:
        whom = f"{count['inconclusive']}" if said else f"{count['inconclusive']} of {of} models"
        said.append(f"For {whom}, the comparison does not decide.")
    if count["failed"]:
        said.append(f"{count['failed']} could not be tested." if said else f"None of {of} models could be tested.")
    return " ".join(said)


# The first screen.


def _answer(report: AuditReport) -> Section:
    numbered = _ranked(report)
    blocks: list[Block] = []
    if len(numbered) > MANY:
        blocks += [_ranking(numbered), Paragraph(_RANKED), _reasons(numbered, report)]
    elif numbered:
        head = ["model", "answer", "why", "how sure"]
        blocks.append(Table(_EACH, head, list(_in_sentences(numbered, report))))
    said = rates(report)
    parts = [
        Section("What this does not show", "limits", [Bullets(limits(report))]),
        Section("What to do next", "next", next_steps(report)),
        Section("What this rests on", "rests", [Bullets([*_rests_on(report)])]),
        Section("What the rates mean", "rates", [Bullets(said)] if said else []),
    ]
    parts = [part for part in parts if part.blocks]
    return Section("Answer", "verdicts", blocks, parts, columns=True)


_UNSURE = "Not known."
_EACH = "The answer for each model"
_RANKED = (
    "Most similar first. Relative distance: a suspect's distance from the victim divided by the threshold, as a median "
    "over the measurements of behaviour or over those of layers, whichever is smaller. 0 is the victim itself; at 1 or "
    "less it is as close as copies are."
)


def _names(report: AuditReport) -> dict[str, str]:
    return below_common(suspect.path for suspect in report.suspects)


def _in_sentences(numbered: Sequence[tuple[int, SuspectEntry]], report: AuditReport) -> Iterator[list[Cell]]:
    # What was said of one model is not said again of the next.
    names, said = _names(report), dict[str, str]()
    for _, suspect in numbered:
        why, sure = answer(suspect, report), sureness(suspect, report) or _UNSURE
        before, likewise = said.get(why), sure != _UNSURE and said.get(sure)
        said |= {one: suspect.path for one in (why, sure) if one not in said}
        shown: list[Line] = [_as_for(names, before) or why, _as_for(names, likewise or None) or sure]
        if before and before == likewise:
            shown[1] = "Likewise."
        cells = [Cell(line, "prose") for line in shown]
        yield [name(names[suspect.path]), decided(suspect.decision, suspect.points_to), *cells]


def _as_for(names: Mapping[str, str], path: str | None) -> Line:
    return ("As for ", Name(names[path]), ".") if path else ""


def _ranked(report: AuditReport) -> list[tuple[int, SuspectEntry]]:
    # Suspects with their numbers, which are their places in the report.
    return [(place + 1, report.suspects[place]) for place in ranked(report.suspects)]


def _ranking(numbered: Sequence[tuple[int, SuspectEntry]]) -> Table:
    suspects = [suspect for _, suspect in numbered]
    names = below_common(suspect.path for suspect in suspects)
    targets = [f"suspect-{place}" if rank < _DETAILED else None for rank, (place, _) in enumerate(numbered)]
    return table_of(
        _EACH,
        {
            "model": [
                Cell(Name(names[suspect.path]), "name", target)
                for (_, suspect), target in zip(numbered, targets, strict=True)
            ],
            "No.": [Cell(str(place), "number") for place, _ in numbered],
            "answer": [decided(suspect.decision, suspect.points_to) for suspect in suspects],
            "say copy": [Cell(_votes(suspect), "number") for suspect in suspects],
            "smallest p": [Cell(_least_p(suspect), "number") for suspect in suspects],
            "relative distance": [figure(ratio(suspect)) for suspect in suspects],
        },
        tall=len(suspects) > _TALL,
        dense=True,
    )


def _reasons(numbered: Sequence[tuple[int, SuspectEntry]], report: AuditReport) -> Table:
    # Each sentence once: most hold for several.
    said: dict[str, list[str]] = {}
    for place, suspect in numbered:
        said.setdefault(answer(suspect, report), []).append(str(place))
    rows = [[Cell(why, "prose"), Cell(", ".join(places), "prose")] for why, places in said.items()]
    return Table("Why", ["why", "models by their numbers"], rows)


def _votes(suspect: SuspectEntry | DrawnEntry) -> str:
    cast = [metric for metric in suspect.metrics.values() if metric.vote is not None]
    return f"{sum(bool(metric.vote) for metric in cast)} of {len(cast)}" if cast else "-"


def _least_p(suspect: SuspectEntry) -> str:
    found = [setting for setting in suspect.settings.named().values() if setting.p_value is not None]
    least = min(found, key=lambda setting: setting.p_value or 0.0, default=None)
    return "-" if least is None else probability(least.p_value, least.log10_p)


def _rests_on(report: AuditReport) -> Iterator[Line]:
    cases = report.suite.cases.named()
    listed = "; ".join(f"{count} {_CASES[kind]}" for kind, count in cases.items() if count)
    given = ", made for this victim and given to every model"
    if any(suspect.sequential for suspect in report.suspects):
        given = ", made for this victim; a suspect was asked only as many as it took to decide"
    if listed:
        yield f"{counted(sum(cases.values()), 'test input')}{given}: {listed}."
    weights = report.suite.weights
    if weights:
        picked = sum(layer.picked for layer in weights.layers)
        yield (
            f"The weights of {counted(picked, 'neuron')} in {counted(len(weights.layers), 'layer')} of the victim. "
            "Weights are read from the files, and no model is run for it."
        )
    groups = Counter(metric.group for metric in report.metrics.values())
    compared: Mapping[Group, str] = {
        "black-box": "of behaviour (a model's answers)",
        "white-box": "of layers (the outputs of its neurons)",
        "weights": "of weights",
    }
    if report.suite.keys:
        trials = sum(key.trials for key in report.suite.keys)
        yield f"{counted(trials, 'trial')} of {counted(len(report.suite.keys), 'secret key')} of the owner's."
    del groups["marks"]
    each = [f"{groups[group]} {what}" for group, what in compared.items() if groups[group]]
    if each:
        yield (
            f"{counted(sum(groups.values()), 'measurement')} of the distance between a suspect and the victim: ",
            *(_enumerated(each), ". The rule ", Name(report.rule), " makes one answer of them."),
        )
    elif report.suspects:
        yield ("The labels that a suspect gives, case by case, judged by the rule ", Name(report.rule), ".")
    controls = report.calibration.controls
    if controls:
        yield (
            f"{counted(len(controls), 'control')}: models that are said to be independent of the victim. They show "
            f"how close independent models come to it. {_kinds(controls)}{_alike(report)}"
        )
    else:
        known = {m.group for one in report.suspects for m in one.metrics.values() if m.log10_p is not UNSET}
        needs = ". The order of neurons needs none" if "weights" in known else ""
        needs += ". Keys by design need none" if "marks" in known else ""
        yield f"No controls (models that are independent of the victim), so distances prove nothing here{needs}."


def _enumerated(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _kinds(controls: Sequence[ControlEntry]) -> str:
    kinds = Counter(map(kind_of, controls))
    if set(kinds) == {"unknown"}:
        return "Their kind (stratum) is unknown."
    return f"Their kinds (strata): {', '.join(f'{count} {kind}' for kind, count in kinds.items())}."


def _alike(report: AuditReport) -> str:
    if report.calibration.effective is UNSET:
        return ""
    return (
        f" They count as {report.calibration.effective}: some answer nearly as others do, and show no more than these."
    )


# The cases that nobody could choose.


def _drawn(report: AuditReport) -> Iterator[Section]:
    challenge = report.suite.challenge
    judged = [suspect for suspect in report.suspects if suspect.drawn]
    if not challenge or not judged:
        return
    names, clean = _names(report), report.suite.cases.clean
    rows = [
        [
            name(names[suspect.path]),
            decided(suspect.drawn.decision, suspect.drawn.points_to),
            Cell(sentence(suspect.drawn.reason) if suspect.drawn.reason else _votes(suspect.drawn), "prose"),
            decided(suspect.decision, suspect.points_to),
        ]
        for suspect in judged
        if suspect.drawn
    ]
    blocks: list[Block] = [
        Paragraph(
            f"{clean - challenge.chosen} of {clean} seeds, and all that is random of the cases made from them, follow "
            "from a value that somebody else gave after the commitment. So the owner could not choose these cases. By "
            "them alone the answers are:"
        ),
        Table("By the drawn cases alone", ["model", "drawn cases", "votes for copy, or why", "all cases"], rows),
    ]
    yield Section("Cases that nobody could choose", "drawn", blocks)


# The distances.


def _distances(report: AuditReport) -> Iterator[Section]:
    controls = report.calibration.controls
    metrics = _of_distances(report)
    if not metrics:
        return
    labels = _suspect_labels(report)
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


def _of_distances(report: AuditReport) -> dict[str, MetricEntry]:
    # Keys have a section of their own.
    return {name: metric for name, metric in report.metrics.items() if metric.group != "marks"}


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
    if _has_thresholds(report):
        yield (
            "A model in the shaded part, at most as far as the dashed threshold, gets a vote for copy. If suspects "
            "have different thresholds, the smallest and the greatest are drawn."
        )
    else:
        yield "Without a threshold, no distance counts as near or far."


def _has_thresholds(report: AuditReport) -> bool:
    return any(thresholds_of(report.suspects, metric) for metric in _of_distances(report))


def _titled(report: AuditReport, metric: str) -> tuple[str, ...]:
    title = report.metrics[metric].title
    return (f", {title}",) if title else ()


def _suspect_labels(report: AuditReport) -> list[str]:
    if len(report.suspects) > _NAMED:
        return [str(place) for place in range(1, len(report.suspects) + 1)]
    return [
        f"{place} {base(suspect.path)}".strip()[:_LONGEST_LABEL] for place, suspect in enumerate(report.suspects, 1)
    ]


def _see_alike(suspects: Sequence[SuspectEntry]) -> bool:
    return all(one.api and suspects[0].api and one.api.controls == suspects[0].api.controls for one in suspects)


def _by_stratum(controls: Sequence[ControlEntry], values: Sequence[float | None]) -> list[charts.Row]:
    strata: dict[str, list[float]] = {}
    for control, value in zip(controls, values, strict=True):
        if value is not None:
            strata.setdefault(kind_of(control, _UNKNOWN), []).append(value)
    return [charts.Row(stratum, values) for stratum, values in sorted(strata.items())]


# Suspect by suspect.


def _suspects(report: AuditReport) -> Iterator[Section]:
    numbered, names = _ranked(report), _names(report)
    many = len(numbered) > MANY
    parts, shown, any_radar = [], 0, False
    for place, suspect in numbered[:_DETAILED]:
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
        left = len(numbered) - _DETAILED
        rest = f"The {_DETAILED} most similar ones; the report as JSON or CSV has the other {left}." if left > 0 else ""
        intro = [Paragraph(text) for text in (rest, " ".join(_columns(report)), _RADAR if any_radar else "") if text]
        yield Section("Suspect by suspect", "suspects", intro, parts)


def _columns(report: AuditReport) -> Iterator[str]:
    # What the columns of the tables are, as far as they are there.
    if _has_thresholds(report):
        yield "Threshold: the greatest distance that gets a vote for copy."
    if _of_distances(report) and report.calibration.controls:
        yield "Controls: their smallest and greatest distance."
    if any(_least_p(suspect) is not None for suspect in report.suspects):
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


def _findings(report: AuditReport) -> Iterator[Section]:
    # What the rule says of each suspect, every clause once: most hold for several.
    clauses: dict[tuple[str, str], list[int]] = {}
    for place, suspect in enumerate(report.suspects, 1):
        for side, setting in suspect.settings.named().items():
            for clause in _CLAUSES.split(setting.statement or ""):
                if clause:
                    clauses.setdefault((sentence(clause), side), []).append(place)
    if clauses:
        judged = [place for place, suspect in enumerate(report.suspects, 1) if suspect.decision != "failed"]
        rows = [
            [Cell(clause, "prose"), text(SIDES[side]), text(_numbers(places, judged))]
            for (clause, side), places in clauses.items()
        ]
        head = ["finding", "by", "suspects"]
        yield Section(
            "What the rule found", "findings", [Table("In the rule's own words", head, rows, tall=len(rows) > _TALL)]
        )


def _numbers(places: Sequence[int], every: Sequence[int]) -> str:
    return "all" if len(every) > 1 and list(places) == list(every) else ", ".join(map(str, places))


# What was compared, and how.


def _inputs(suite: SuiteEntry) -> str:
    low, high = map(number, suite.bounds or (0.0, 0.0))
    steps = f", in steps of {suite.grid}" if suite.grid else ""
    own = ", each feature or channel within its own range" if suite.feature_bounds else ""
    return f"{low} to {high}{own}{steps}"


def _compared(report: AuditReport) -> Section:
    blocks: list[Block] = [
        Paragraph(
            "A SHA-256 is the fingerprint of a file: if one byte changes, it changes. Isolation is how far a model was "
            "shut off from the computer while it ran."
        ),
        Table("How they were compared", ["what", "as recorded"], [[text(what), cell] for what, cell in _facts(report)]),
    ]
    accuracy = Paragraph(_ORIGINS[report.suite.labels] if report.suite.labels else _ACCURACY)
    folded = len(report.suspects) > MANY
    files: list[Block] = [_models(report), *([accuracy] if report.suite.bounds is not None else [])]
    parts = [Section("Files", "files", files, folded=folded), *_controls(report)]
    notes = [*report.suite.notes, *report.calibration.notes, *_how_asked(report)]
    if notes:
        parts.append(Section("Notes", "notes", [Bullets(notes)]))
    return Section("What was compared", "compared", blocks, parts)


def _models(report: AuditReport) -> Table:
    models: list[tuple[str, VictimEntry | SuspectEntry]] = [("victim", report.victim)]
    models += [(str(place), suspect) for place, suspect in enumerate(report.suspects, 1)]
    return table_of(
        "The victim, and the suspects by their numbers",
        {
            "model": [name(model.path) for _, model in models],
            "No.": [text(role) for role, _ in models],
            "SHA-256": [digest(model.digest) for _, model in models],
            "accuracy": [Cell(share(_accuracy(model)), "number") for _, model in models],
            **_ran([model for _, model in models]),
        },
        tall=len(models) > _TALL,
    )


def _facts(report: AuditReport) -> Iterator[tuple[str, Cell]]:
    victim, suite, calibration = report.victim, report.suite, report.calibration
    yield "SHA-256 of the victim", digest(victim.digest)
    yield "SHA-256 of the test suite", digest(suite.digest)
    yield from facts_of_keys(report)
    if report.committed:
        committed = report.committed
        yield "committed to, by the time-stamp", text(day(committed))
        yield "SHA-256 of the commitment", digest(committed.commitment)
    if suite.inputs:
        yield "inputs", name(suite.inputs.path)
        yield "SHA-256 of the inputs", digest(suite.inputs.digest)
    if suite.bounds is not None:
        yield "range of the inputs", text(_inputs(suite))
    for generator in suite.generators:
        made: Line = (f"{generator.kept} of {generator.made} kept; ", *_with(generator.options))
        yield f"cases by {generator.name}", Cell(made, "prose")
    yield "random seed (start of all random choices)", text(str(suite.seed))
    if report.chosen is not UNSET:
        yield "options other than standard", Cell(tuple(_with(report.chosen)) if report.chosen else "none", "prose")
    if suite.challenge:
        yield "challenge", name(suite.challenge.value)
        yield "commitment that it answers", digest(suite.challenge.commitment)
    if report.dated:
        yield "SHA-256 of the commitment to the victim", digest(report.dated.commitment)
        yield "victim existed, by the time-stamp", text(report.dated.date or "no time-stamp")
    for suspect in report.suspects:
        if suspect.published:
            yield f"{base(suspect.path)} public since, as the owner says", text(suspect.published)
    yield "rule", Cell((Name(report.rule), "; ", *_with(report.rule_options)), "prose")
    if suite.weights:
        compared = counted(len(suite.weights.layers), "layer")
        yield "weights", text(f"{compared}, network of the kind {suite.weights.family}")
    if suite.weights and suite.weights.ancestor:
        yield "ancestor of the victim, as its owner says", name(suite.weights.ancestor)
    if report.metrics and suite.bounds is not None:
        yield "behaviour and layers", text("judged separately" if report.groups == "separate" else "judged together")
        matched = calibration.match == "neurons"
        yield "neurons compared", text("by their outputs (matched)" if matched else "by their places")
    if victim.preprocessing:
        yield "preparation of the inputs", Cell(f"{victim.preprocessing} of inputs in 0..1", "prose")
    if report.fleet:
        yield "false discovery rate", text(percent(report.fleet.fdr))


def _counts_with(control: ControlEntry) -> Cell:
    return text("-") if control.alike is UNSET else name(control.alike)


def _controls(report: AuditReport) -> Iterator[Section]:
    controls = report.calibration.controls
    if not controls:
        return
    files = table_of(
        "Files of the controls",
        {
            "control": [name(control.path) for control in controls],
            "stratum": [text(kind_of(control)) for control in controls],
            **(
                {"counts with": [_counts_with(control) for control in controls]} if report.calibration.effective else {}
            ),
            "SHA-256": [digest(control.digest) for control in controls],
            **_ran(controls),
        },
        tall=len(controls) > _TALL,
    )
    blocks: list[Block] = [Paragraph("A stratum is what a control has in common with the victim."), files]
    if report.metrics:
        rows = [
            [
                name(base(control.path)),
                *(
                    of_control(control, metric) if facts.group == "marks" else figure(control.metrics.get(metric))
                    for metric, facts in report.metrics.items()
                ),
            ]
            for control in controls
        ]
        blocks.append(Table("Distances of the controls", ["control", *report.metrics], rows, tall=len(rows) > _TALL))
    yield Section(
        f"The {counted(len(controls), 'control')}",
        "controls",
        blocks,
        folded=len(report.suspects) > MANY or len(controls) > _TALL,
    )


def _accuracy(model: VictimEntry | SuspectEntry) -> float | None:
    return model.accuracy if isinstance(model, VictimEntry) else model.accuracy_on_seeds


def _ran(models: Sequence[VictimEntry | ControlEntry | SuspectEntry]) -> Mapping[str, Sequence[Cell]]:
    return {
        "format": [text(model.framework or "-") for model in models],
        "isolation": [text(_isolation(model)) for model in models],
        "ran on": [word(model.device) if model.device else text("-") for model in models],
    }


def _isolation(model: VictimEntry | ControlEntry | SuspectEntry) -> str:
    if model.isolation is None:
        return "-"
    return f"{model.isolation} (claimed)" if _is_claimed(model) else str(model.isolation)


def _is_claimed(model: VictimEntry | ControlEntry | SuspectEntry) -> bool:
    return isinstance(model, SuspectEntry) and model.stored is True


def _how_asked(report: AuditReport) -> Iterator[Line]:
    models: Sequence[SuspectEntry | ControlEntry] = (*report.suspects, *report.calibration.controls)
    said: dict[str, list[str]] = {}
    for model in models:
        claimed = [CLAIMED] if _is_claimed(model) else []
        asked = [_through_api(model.api)] if model.api else []
        for note in [*claimed, *asked, *model.notes, *filter(None, [model.unsteady])]:
            said.setdefault(note, []).append(base(model.path))
    for note, names in said.items():
        yield (*_listed(list(dict.fromkeys(names))), f": {note}")


def _through_api(api: ApiEntry) -> str:
    shown = ["labels alone"] if api.shows == "labels" else []
    shown += [f"the {api.top} greatest scores"] if api.top else []
    shown += [f"scores rounded to {counted(api.digits, 'decimal place')}"] if api.digits is not UNSET else []
    price = f", at a price of {api.price:g}" if api.price else ""
    failed = f" ({api.failed} of them failed)" if api.failed else ""
    said = f"asked through an API: {api.queries:,} queries in {api.requests:,} requests{failed}{price}"
    return f"{said}; it shows {', '.join(shown)}" + (_ALIKE if api.controls else "") if shown else said


_ALIKE = ". Its thresholds come from the answers of the controls, reduced in the same way"


def _with(options: Json) -> Iterator[str | Name]:
    shown = [Name(f"{option}={json.dumps(value)}") for option, value in options.items() if value != {}]
    for place, option in enumerate(shown):
        yield from ([", "] if place else [])
        yield option
    if not shown:
        yield "no options"


def _layers(report: AuditReport) -> Iterator[Section]:
    names, blocks = _names(report), list[Block]()
    if report.suite.layers and any(metric.group == "white-box" for metric in report.metrics.values()):
        blocks.append(
            Table(
                "Layers of the victim that were compared",
                ["layer", "neurons", "without a corner case"],
                [
                    [word(layer.name), *(Cell(str(n), "number") for n in (layer.neurons, len(layer.unreached)))]
                    for layer in report.suite.layers
                ],
            )
        )
    if report.suite.weights:
        blocks.append(
            Table(
                "Layers of the victim whose weights were compared",
                ["layer", "kind", "neurons", "compared"],
                [
                    [
                        word(layer.name),
                        text(layer.kind),
                        *(Cell(str(n), "number") for n in (layer.neurons, layer.picked)),
                    ]
                    for layer in report.suite.weights.layers
                ],
            )
        )
    rows = [
        [
            name(names[suspect.path]),
            text(str(place)),
            word(layer),
            word(tap),
            figure(suspect.layer_cka.get(layer)),
            Cell(str(suspect.neurons_moved.get(layer, "-")), "number"),
        ]
        for place, suspect in enumerate(report.suspects, 1)
        for layer, tap in suspect.layer_map.items()
    ]
    parts = list[Section]()
    if rows:
        head = ["suspect", "No.", "victim's layer", "suspect's layer", "CKA", "moved neurons"]
        explained = (
            "CKA (centred kernel alignment) says how alike the outputs of two layers are on the seeds, whatever the "
            "order of their neurons: 0 to 1, the greater, the more alike. Moved neurons correspond to one of the "
            "victim's at another place."
        )
        table = Table("Which layer of a suspect was compared with which of the victim's", head, rows)
        folded = len(report.suspects) > MANY
        parts.append(Section("Corresponding layers", "layer-map", [Paragraph(explained), table], folded=folded))
    if blocks or parts:
        yield Section("Layers", "layers", blocks, parts)


def _unmeasured(report: AuditReport) -> Iterator[Section]:
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
                Cell(_listed(metrics), "prose"),
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


def _skipped(report: AuditReport) -> Iterator[Section]:
    # What of the suspects' folders was not taken.
    if not report.skipped:
        return
    alike: dict[tuple[bool, SkipCode], list[SkippedEntry]] = {}
    for one in sorted(report.skipped, key=lambda one: not one.unjudged):
        alike.setdefault((one.unjudged, one.code), []).append(one)
    rows = [
        [
            Cell(_why_skipped(code, some), "prose"),
            text("yes" if unjudged else "no"),
            Cell(_listed([one.name for one in some]), "prose"),
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


def _listed(names: Sequence[str]) -> tuple[str | Name, ...]:
    return tuple(part for one in names for part in (", ", Name(one)))[1:]


def _access(report: AuditReport, metrics: Sequence[str]) -> str:
    needs = dict.fromkeys(
        need for metric in metrics if metric in report.metrics for need in report.metrics[metric].needs
    )
    return f"the model's {' and '.join(needs)}" if needs else "-"


def _reproduce(report: AuditReport) -> Section:
    return Section(
        "How to make this report again",
        "reproduce",
        [
            Paragraph(
                "Words in capitals are not recorded in this report. The same versions on the same machine give the "
                "same numbers; others may differ in the last digits."
            ),
            Commands(commands(report)),
            Paragraph("If this report came in the folder of an audit (a bundle), this checks it without any model:"),
            Commands(["deepjudge verify DIR"]),
        ],
    )

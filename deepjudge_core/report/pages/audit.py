"""The report of an audit, as a page."""

import json
from collections.abc import Iterator, Mapping, Sequence

from deepjudge_core.files.documents import Json
from deepjudge_core.report.documents import (
    AuditReport,
    ControlEntry,
    ResultEntry,
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
from deepjudge_core.report.pages.parts import (
    decided,
    digest,
    figure,
    foot,
    name,
    share,
    table_of,
    text,
    thresholds_of,
    value_of,
    word,
)
from deepjudge_core.report.pages.reproducing import commands
from deepjudge_core.report.pages.similarity import Axis, axes_of
from deepjudge_core.report.pages.wording import (
    DECISIONS,
    fewest_controls,
    of_rates,
    of_the_whole,
    percent,
    probability,
    verdict,
)
from deepjudge_core.text import clean, number

_NAMED = 10  # suspects whose names fit beside their marks
_LONGEST_LABEL = 22
_MANY = 25  # verdicts that a reader scrolls past
_UNKNOWN = "unknown stratum"
_ACCURACY = (
    "Accuracy is that on the inputs offered as seeds for the victim, and on the seeds, which the victim classifies "
    "correctly, for suspects."
)
_ORIGINS = {
    "victim": "Nobody knows the classes of the inputs: the labels are the victim's own answers. Accuracy says how "
    "often a model agrees with it on the seeds.",
    "several": "Inputs have several classes, of which the victim's likeliest is the label. Accuracy says how often "
    "that is a right one of the inputs offered as seeds, and for suspects, how often they find the same one likeliest.",
}


def audit_page(report: AuditReport) -> Page:
    """The page of an audit's report."""
    sections = [
        _verdicts(report),
        _compared(report),
        *_measurements(report),
        _suspects(report),
        *_layers(report),
        *_unmeasured(report),
        _limits(report),
        _reproduce(report),
    ]
    return Page(
        title=("Is it a copy of ", Name(report.victim.path), "?"),
        lead=_lead(report),
        sections=sections,
        foot=[*foot(report), *_skipped(report)],
    )


def _skipped(report: AuditReport) -> Iterator[Line]:
    # What of the suspects' folders was not taken.
    for one in report.skipped or ():
        yield ("Not judged: ", Name(one.name), f", {one.reason}.")


def _lead(report: AuditReport) -> str:
    decisions = [suspect.decision for suspect in report.suspects]
    if not decisions:
        return "No suspect was judged."
    copies = "judged a copy" if decisions.count("copy") == 1 else "judged to be copies"
    words = {"copy": copies, "independent": "judged independent", "inconclusive": "inconclusive"}
    counts = {decision: decisions.count(decision) for decision in DECISIONS if decision in decisions}
    parts = [f"{count} {words.get(decision, 'failed')}" for decision, count in counts.items()]
    return f"Of {len(decisions)} suspect{'s' * (len(decisions) != 1)}: {', '.join(parts)}."


def _verdicts(report: AuditReport) -> Section:
    rows = [
        [
            Cell(str(place), "number", f"suspect-{place}"),
            name(suspect.path),
            decided(suspect.decision),
            Cell(verdict(suspect, report), "prose"),
        ]
        for place, suspect in enumerate(report.suspects, 1)
    ]
    blocks: list[Block] = []
    limits = report.calibration.limits
    if limits and any(suspect.decision == "copy" for suspect in report.suspects):
        blocks += [Paragraph("Of those judged copies, these controls do not exclude:"), Bullets(limits)]
    if rows:
        blocks.append(
            Table(
                "Verdict of each suspect",
                ["No.", "suspect", "verdict", "in a sentence"],
                rows,
                tall=len(rows) > _MANY,
                stacked=True,
            )
        )
    blocks.append(Paragraph(f"{of_the_whole(report)} {of_rates(report)}"))
    return Section("Verdicts", "verdicts", blocks)


def _inputs(suite: SuiteEntry) -> str:
    low, high = map(number, suite.bounds)
    return f"{low}..{high}" + (", each feature or channel within its own range" if suite.feature_bounds else "")


def _compared(report: AuditReport) -> Section:
    victim, suite, calibration = report.victim, report.suite, report.calibration
    cases = ", ".join(f"{count} {kind}" for kind, count in suite.cases.named().items())
    generators: list[Line] = [
        (Name(g.name), f": {g.kept} of {g.made} cases kept; ", *_with(g.options)) for g in suite.generators
    ]
    facts: list[tuple[str, Cell]] = [
        ("suite", digest(suite.digest)),
        ("cases", Cell(f"{cases}; inputs within {_inputs(suite)}", "prose")),
        ("seed", text(str(suite.seed))),
        ("rule", Cell((Name(report.rule), "; ", *_with(report.rule_options)), "prose")),
        ("groups", text(report.groups)),
        ("neurons", text("matched" if calibration.match == "neurons" else "compared by place")),
    ]
    if victim.preprocessing:
        facts.append(("victim's inputs", Cell(f"prepared by {victim.preprocessing} of inputs in 0..1", "prose")))
    if report.fleet:
        facts.append(("false discovery rate", text(percent(report.fleet.fdr))))
    models: list[tuple[str, VictimEntry | SuspectEntry]] = [("victim", victim)]
    models += [(str(place), suspect) for place, suspect in enumerate(report.suspects, 1)]
    blocks: list[Block] = [
        table_of(
            "The victim, and the suspects by their numbers",
            {
                "No.": [text(role) for role, _ in models],
                "model": [name(model.path) for _, model in models],
                **_ran([model for _, model in models]),
                "accuracy": [Cell(share(_accuracy(model)), "number") for _, model in models],
                "SHA-256": [digest(model.digest) for _, model in models],
            },
            tall=True,
        ),
        Paragraph(_ORIGINS[report.suite.labels] if report.suite.labels else _ACCURACY),
        Table("How they were compared", ["what", "as recorded"], [[text(what), cell] for what, cell in facts]),
        Paragraph("Test cases were made from the victim by:"),
        Bullets(generators),
    ]
    if calibration.controls:
        blocks.append(
            table_of(
                "Controls: models that are said to be independent of the victim",
                {
                    "control": [name(control.path) for control in calibration.controls],
                    "stratum": [text(control.stratum or "unknown") for control in calibration.controls],
                    **_ran(calibration.controls),
                    "SHA-256": [digest(control.digest) for control in calibration.controls],
                },
                tall=True,
            )
        )
    else:
        blocks.append(Paragraph("There were no controls, so that nothing can be concluded."))
    notes = [*suite.notes, *calibration.notes, *_how_asked(report)]
    if notes:
        blocks += [Paragraph("What a reader should know of it:"), Bullets(notes)]
    return Section("What was compared", "compared", blocks)


def _accuracy(model: VictimEntry | SuspectEntry) -> float | None:
    return model.accuracy if isinstance(model, VictimEntry) else model.accuracy_on_seeds


def _ran(models: Sequence[VictimEntry | ControlEntry | SuspectEntry]) -> Mapping[str, Sequence[Cell]]:
    return {
        "format": [text(model.framework or "-") for model in models],
        "isolation": [text(model.isolation or "-") for model in models],
        "ran on": [word(model.device) if model.device else text("-") for model in models],
    }


def _how_asked(report: AuditReport) -> Iterator[Line]:
    models: Sequence[SuspectEntry | ControlEntry] = (*report.suspects, *report.calibration.controls)
    for model in models:
        for note in [*model.notes, *filter(None, [model.unsteady])]:
            yield (Name(model.path), f": {note}")


def _with(options: Json) -> Iterator[str | Name]:
    shown = [Name(f"{option}={json.dumps(value)}") for option, value in options.items() if value != {}]
    for place, option in enumerate(shown):
        yield from ([", "] if place else [])
        yield option
    if not shown:
        yield "no options"


def _measurements(report: AuditReport) -> Iterator[Section]:
    controls = report.calibration.controls
    if not report.metrics:
        return
    labels = _suspect_labels(report)
    blocks: list[Block] = [
        Paragraph(
            "Each line below is one metric: 0 is the victim itself. Hollow marks are controls, with a shape for "
            "each stratum; filled marks are suspects with their numbers: squares are judged copies, circles "
            "independent, diamonds inconclusive. The dashed line is the threshold: what lies in the shaded part, at "
            "most as far as it, is a vote for copy. Where suspects have thresholds of their own, the least and the "
            "greatest are drawn. Marks stand above and below one another lest they hide each "
            "other."
        )
    ]
    for place, metric in enumerate(report.metrics):
        suspects = [
            charts.Mark(value, label, suspect.decision)
            for suspect, label in zip(report.suspects, labels, strict=True)
            if (value := value_of(suspect, metric)) is not None
        ]
        rows = _by_stratum(controls, metric)
        if suspects or rows:
            thresholds = thresholds_of(report.suspects, metric)
            svg = charts.strip(f"strip-{place}", metric, suspects, rows, thresholds)
            upper = report.metrics[metric].upper
            reach = f"0 to {number(upper)}" if upper is not None else "0 upwards"
            provider = report.metrics[metric].provider
            source = ("; from ", Name(provider)) if provider else ()
            blocks.append(Figure(svg, (Name(metric), f", {report.metrics[metric].group}; {reach}", *source)))
    if controls:
        blocks.append(
            Table(
                "Values of the controls",
                ["control", "stratum", *report.metrics],
                [
                    [
                        name(control.path),
                        text(control.stratum or "unknown"),
                        *(figure(control.metrics.get(metric)) for metric in report.metrics),
                    ]
                    for control in controls
                ],
                tall=True,
            )
        )
    yield Section("Distances from the victim", "distances", blocks)


def _suspect_labels(report: AuditReport) -> list[str]:
    if len(report.suspects) > _NAMED:
        return [str(place) for place in range(1, len(report.suspects) + 1)]
    return [
        f"{place} {_base(suspect.path)}".strip()[:_LONGEST_LABEL] for place, suspect in enumerate(report.suspects, 1)
    ]


def _base(path: str) -> str:
    return clean(path).rstrip("/").rsplit("/", 1)[-1]


def _by_stratum(controls: Sequence[ControlEntry], metric: str) -> list[charts.Row]:
    strata: dict[str, list[float]] = {}
    for control in controls:
        value = control.metrics.get(metric)
        if value is not None:
            strata.setdefault(control.stratum or _UNKNOWN, []).append(value)
    return [charts.Row(stratum, values) for stratum, values in sorted(strata.items())]


def _suspects(report: AuditReport) -> Section:
    axes = axes_of(report)
    radars = [_radar(place, suspect, axes) for place, suspect in enumerate(report.suspects, 1)]
    parts = [
        Section((f"{place} ", Name(suspect.path)), f"suspect-{place}", list(_of_suspect(suspect, report, axes, radar)))
        for place, (suspect, radar) in enumerate(zip(report.suspects, radars, strict=True), 1)
    ]
    return Section("Suspect by suspect", "suspects", [_normalised(axes)] if any(radars) else [], parts)


def _normalised(axes: Mapping[str, Axis]) -> Paragraph:
    relative = [Name(metric) for metric, axis in axes.items() if axis.scale and not axis.bounded]
    how: list[str | Name] = [
        "Radar charts show similarity, 1 at the rim for the victim itself and 0 in the middle: 1 - value / the "
        "greatest value that the metric can have"
    ]
    if relative:
        listed = [part for metric in relative for part in (", ", metric)][1:]
        how += ["; of those without one (", *listed, "), 1 - value / the median of the controls, and not below 0"]
    return Paragraph((*how, ". The shaded band holds all controls. A metric that was not measured has no point."))


def _of_suspect(
    suspect: SuspectEntry, report: AuditReport, axes: Mapping[str, Axis], radar: Figure | None
) -> Iterator[Block]:
    yield Paragraph(verdict(suspect, report))
    measured = suspect.metrics
    if measured:
        table = table_of(
            "Metrics",
            {
                "metric": [word(metric) for metric in measured],
                "value": [figure(result.value) for result in measured.values()],
                "threshold": [figure(result.threshold) for result in measured.values()],
                "controls": [Cell(_range(axes.get(metric)), "number") for metric in measured],
                "vote": list(map(_vote, measured.values())),
                "p": [Cell(probability(result.p_value), "number") for result in measured.values()],
                "why": [Cell(result.reason or "-", "prose") for result in measured.values()],
            },
        )
        yield Beside(table, radar) if radar else table
    settings = {group: s for group, s in suspect.settings.named().items() if s.decision or s.reason != suspect.reason}
    if settings:
        yield table_of(
            "Settings",
            {
                "setting": [text(group) for group in settings],
                "verdict": [decided(s.decision) if s.decision else text("-") for s in settings.values()],
                "p_copy": [figure(s.p_copy) for s in settings.values()],
                "p": [Cell(probability(s.p_value), "number") for s in settings.values()],
                "least p": [Cell(probability(s.least_p_value), "number") for s in settings.values()],
                "what was found": [Cell(s.statement or s.reason or "-", "prose") for s in settings.values()],
            },
        )


def _range(axis: Axis | None) -> str:
    return " to ".join(map(number, axis.controls)) if axis and axis.controls else "-"


def _vote(result: ResultEntry) -> Cell:
    if result.value is None:
        return text("not measured")
    if result.vote is None:
        return text("no vote")
    return Cell("copy", "copy") if result.vote else text("no")


def _radar(place: int, suspect: SuspectEntry, axes: Mapping[str, Axis]) -> Figure | None:
    drawn = {metric: axis for metric, axis in axes.items() if axis.scale}
    values = [axis.similarity(value_of(suspect, metric)) for metric, axis in drawn.items()]
    if sum(value is not None for value in values) < 3:
        return None
    band = []
    for axis in drawn.values():
        low, high = map(axis.similarity, reversed(axis.controls)) if axis.controls else (None, None)
        band.append(None if low is None or high is None else (low, high))
    svg = charts.radar(f"radar-{place}", suspect.path, list(drawn), values, band, suspect.decision)
    return Figure(svg, f"Similarity of suspect {place}, over the band of the controls")


def _layers(report: AuditReport) -> Iterator[Section]:
    widths = {layer.name: layer.neurons for layer in report.suite.layers}
    rows = [
        [
            text(str(place)),
            name(suspect.path),
            word(layer),
            Cell(str(widths.get(layer, "-")), "number"),
            word(tap),
            figure(suspect.layer_cka.get(layer)),
            Cell(str(suspect.neurons_moved.get(layer, "-")), "number"),
        ]
        for place, suspect in enumerate(report.suspects, 1)
        for layer, tap in suspect.layer_map.items()
    ]
    blocks: list[Block] = []
    if widths:
        listed: list[Line] = [
            (
                Name(layer.name),
                f": {layer.neurons} neurons, {len(layer.unreached)} of them not reached by a case",
            )
            for layer in report.suite.layers
        ]
        blocks += [Paragraph("Layers of the victim that were compared:"), Bullets(listed)]
    if rows:
        head = ["No.", "suspect", "victim's layer", "neurons", "suspect's layer", "CKA", "moved"]
        blocks += [
            Table("Which layer of a suspect answered which of the victim's", head, rows, tall=True),
            Paragraph(
                "CKA says how alike the outputs of the two are on the seeds, 0 to 1, whatever the order of neurons. "
                "Moved neurons stand for one of the victim's at another place."
            ),
        ]
    if blocks:
        yield Section("Layers", "layers", blocks)


def _unmeasured(report: AuditReport) -> Iterator[Section]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for place, suspect in enumerate(report.suspects, 1):
        for metric, result in suspect.metrics.items():
            if result.vote is None:
                reasons.setdefault((metric, result.reason or ""), []).append(str(place))
    numbered = [(str(place), suspect) for place, suspect in enumerate(report.suspects, 1)]
    failed = [number for number, suspect in numbered if suspect.decision == "failed" and not suspect.metrics]
    sequential = [number for number, suspect in numbered if suspect.sequential]
    blocks: list[Block] = []
    if reasons:
        rows = [
            [
                word(metric),
                text(report.metrics[metric].group if metric in report.metrics else "-"),
                Cell(", ".join(numbers), "prose"),
                Cell(reason, "prose"),
                text(_access(report, metric)),
            ]
            for (metric, reason), numbers in reasons.items()
        ]
        head = ["metric", "group", "suspects", "why", "access that it needs"]
        blocks.append(Table("Metrics that were not measured, or cast no vote", head, rows))
    if failed:
        blocks.append(Paragraph(f"Nothing was measured of the suspects that failed: {', '.join(failed)}."))
    if sequential:
        blocks.append(
            Paragraph(f"Asked case by case, for labels alone, so that no metric was measured: {', '.join(sequential)}.")
        )
    if not blocks:
        blocks.append(Paragraph("Every metric was measured on every suspect, and cast a vote."))
    yield Section("What was not measured", "unmeasured", blocks)


def _access(report: AuditReport, metric: str) -> str:
    needs = report.metrics[metric].needs if metric in report.metrics else ()
    return f"the model's {' and '.join(needs)}" if needs else "-"


def _limits(report: AuditReport) -> Section:
    lines: list[Line] = [
        *report.calibration.limits,
        "A verdict is statistical: it holds for honest models like the controls. Of a kind of honest model that has "
        "no controls nothing is said.",
        "Independent is no acquittal: it says that honest models come as near often enough, not that the suspect is "
        "one.",
        "A copy is not shown to be a theft: a licence, a common ancestor or shared training data may explain it.",
        "A model extracted through queries has weights of its own: only black-box metrics can tell, and by less.",
        "Controls are what the auditor says they are: nothing here shows that they are independent of the victim.",
    ]
    fewest = fewest_controls(report)
    if fewest:
        count = len(report.calibration.controls)
        least = f", of one stratum {fewest} only" if fewest < count else ""
        lines.append(
            f"There were {count} controls{least}: what is rarer than 1 in {fewest + 1} rests on how distances are "
            "distributed."
        )
    return Section("What this does not show", "limits", [Bullets(lines)])


def _reproduce(report: AuditReport) -> Section:
    return Section(
        "How to reproduce it",
        "reproduce",
        [
            Paragraph(
                "What stands in capitals this report does not know. The same versions on the same machine give the "
                "same numbers; others may differ in the last digits."
            ),
            Commands(commands(report)),
            Paragraph(
                "If this report came with the folder of an audit, the verdicts are recomputed without any model by:"
            ),
            Commands(["deepjudge verify DIR"]),
        ],
    )

"""The report of an audit's power, as a page."""

from collections.abc import Iterator

from msgspec import UNSET

from deepjudge_core.components.strata import limits
from deepjudge_core.judging.judge import GROUPS
from deepjudge_core.report.documents import AttackEntry, PowerReport, ZooModelEntry
from deepjudge_core.report.pages import charts
from deepjudge_core.report.pages.document import (
    Block,
    Bullets,
    Cell,
    Commands,
    Figure,
    Gallery,
    Line,
    Name,
    Page,
    Paragraph,
    Section,
    Table,
)
from deepjudge_core.report.pages.parts import decided, figure, foot, name, share, text, thresholds_of, value_of, word
from deepjudge_core.report.pages.reproducing import power_commands
from deepjudge_core.report.pages.rules import counted, rules_section

_MOST_CURVES = 50  # attacks that have one each


def power_page(power: PowerReport) -> Page:
    """The page of the report of an audit's power."""
    sections = [
        _noticed(power),
        *rules_section(power),
        *_curves(power),
        *_distances(power),
        _models(power),
        _limits(power),
        Section("How to reproduce it", "reproduce", [Commands(power_commands(power))]),
    ]
    return Page(
        title=("Which thefts of ", Name(power.victim.path), " would be noticed?"),
        lead=_lead(power),
        sections=sections,
        foot=foot(power),
    )


def _lead(power: PowerReport) -> str:
    copies = [attack.copies for attack in power.attacks]
    noticed, of = sum(attack.count for attack in copies), sum(attack.of for attack in copies)
    undecided = sum(attack.inconclusive for attack in power.attacks)
    stolen = f"{noticed} of {of} stolen models are judged copies"
    stolen += f", {undecided} inconclusive" if undecided else ""
    accused = power.controls.held_out_accused
    if not accused.of:
        return f"{stolen}; of the controls nothing can be said by the others alone."
    low, high = accused.interval
    return (
        f"{stolen}, and {accused.count} of {accused.of} controls that were held out; of such controls "
        f"{share(low)} to {share(high)} would be, with 95 % confidence."
    )


def _undecided(attack: AttackEntry, group: str) -> int:
    return 0 if attack.undecided is UNSET else attack.undecided.named()[group]


def _noticed(power: PowerReport) -> Section:
    metrics = list(power.metrics)
    attacks = power.attacks
    blocks: list[Block] = [
        Table(
            "Stolen models that are judged copies",
            ["attack", "copies", "95 % interval", *GROUPS, "inconclusive", "not counted"],
            [
                [
                    word(attack.attack),
                    counted(attack.copies, attack.inconclusive),
                    Cell(" to ".join(map(share, attack.copies.interval)), "number"),
                    *(counted(attack.groups.named()[group], _undecided(attack, group)) for group in GROUPS),
                    Cell(str(attack.inconclusive), "number"),
                    Cell(str(attack.left_out), "number"),
                ]
                for attack in attacks
            ],
        ),
        Table(
            "Area under the ROC curve (AUC) of each metric, against the controls",
            ["attack", *metrics],
            [[word(a.attack), *(_auc(a.auc.get(metric)) for metric in metrics)] for a in attacks],
        ),
        Paragraph(
            "The area is the share of pairs of a stolen model and a control in which the stolen one is nearer to "
            "the victim: 1 where the metric tells all of them apart, 0.5 where it says nothing."
        ),
        *([Bullets(power.controls.notes)] if power.controls.notes else []),
    ]
    return Section("What would be noticed", "noticed", blocks)


def _auc(value: float | None) -> Cell:
    return Cell("-" if value is None else f"{value:.3f}", "number")


def _curves(power: PowerReport) -> Iterator[Section]:
    figures = []
    for place, metric in enumerate(power.metrics):
        controls: list[float] = []
        attacks: dict[str | None, list[float]] = {}
        for model in power.models:
            value = value_of(model, metric)
            if value is not None and model.counts:
                row = controls if model.kind == "control" else attacks.setdefault(model.attack, [])
                row.append(value)
        stolen = [value for values in attacks.values() for value in values]
        if controls and stolen:
            curve = charts.roc_curve(stolen, controls)
            apart = attacks.values() if len(attacks) <= _MOST_CURVES else ()
            parts = [charts.roc_curve(values, controls) for values in apart]
            svg = charts.roc(f"roc-{place}", metric, curve, parts)
            figures.append(Figure(svg, (Name(metric), f": AUC {curve.area:.3f} over all attacks")))
    if figures:
        note = (
            "A curve shows, for each threshold that there could be, the share of stolen models at most as far from the "
            "victim against that of controls: thick for all stolen models together, thin for each attack, dashed for "
            "chance. The area under it (AUC) is the share of pairs in which the stolen model is nearer."
        )
        yield Section("ROC curves", "roc", [Paragraph(note), Gallery(figures)])


def _distances(power: PowerReport) -> Iterator[Section]:
    blocks: list[Block] = []
    counted = [model for model in power.models if model.counts]
    for place, metric in enumerate(power.metrics):
        rows: dict[tuple[bool, str], list[float]] = {}
        for model in counted:
            value = value_of(model, metric)
            if value is not None:
                rows.setdefault((model.kind == "control", _kind(model)), []).append(value)
        if rows:
            order = sorted(rows.items(), key=lambda row: row[0][0])
            kinds = [charts.Row(kind, values, stolen=not control) for (control, kind), values in order]
            thresholds = thresholds_of([model for model in counted if model.kind == "stolen"], metric)
            svg = charts.strip(f"strip-{place}", metric, [], kinds, thresholds)
            blocks.append(Figure(svg, (Name(metric), f", {power.metrics[metric].group}")))
    if blocks:
        note = (
            "A row for each attack, filled, then one for each stratum of controls, hollow; 0 is the victim itself. The "
            "dashed line is the threshold: what lies in the shaded part, at most as far as it, is a vote for copy."
        )
        yield Section("Distances from the victim", "distances", [Paragraph(note), *blocks])


def _kind(model: ZooModelEntry) -> str:
    if model.kind == "control":
        return f"controls: {model.stratum or 'unknown'}"
    return str(model.attack)


def _models(power: PowerReport) -> Section:
    suite, victim = power.suite, power.victim
    facts: list[Line] = [
        ("Victim: ", Name(victim.path), f" ({victim.framework}), accuracy {share(victim.accuracy)}"),
        ("SHA-256 of the victim: ", Name(victim.digest)),
        ("SHA-256 of the suite: ", Name(suite.digest)),
        ("Rule: ", Name(power.rule), f", {power.groups}"),
    ]
    metrics = list(power.metrics)
    rows = [
        [
            name(model.file),
            text(_kind(model)),
            Cell(share(model.accuracy), "number"),
            decided(model.decision),
            *(figure(value_of(model, metric)) for metric in metrics),
            Cell("; ".join(filter(None, ["" if model.counts else "not counted", model.reason])) or "-", "prose"),
        ]
        for model in power.models
    ]
    head = ["model", "kind", "accuracy", "verdict", *metrics, "remark"]
    return Section(
        "What was judged", "models", [Bullets(facts), Table("Every model of the zoo", head, rows, tall=True)]
    )


def _limits(power: PowerReport) -> Section:
    strata = [model.stratum for model in power.models if model.kind == "control"]
    lines: list[Line] = [
        *limits(strata),
        "These are thefts by attacks that are known. A thief who knows the suite, or another way, may not be noticed.",
        "Controls were held out one at a time, so that each was judged by one fewer than a suspect would be.",
        "Curves are of the models that were counted: with few of an attack they have few steps.",
    ]
    return Section("What this does not show", "limits", [Bullets(lines)])

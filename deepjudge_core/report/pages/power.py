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
from deepjudge_core.report.pages.keys import cell as cell_of_key
from deepjudge_core.report.pages.keys import keys_of_zoo
from deepjudge_core.report.pages.parts import (
    base,
    decided,
    definitions,
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
from deepjudge_core.report.pages.reproducing import power_commands
from deepjudge_core.report.pages.rules import rules_section, told
from deepjudge_core.report.pages.wording import SIDES, sentence
from deepjudge_core.text import counted

_FOLDED = 25  # rows that are shown only when asked for


def power_page(power: PowerReport) -> Page:
    """The page of the report of an audit's power."""
    sections = [
        _noticed(power),
        *rules_section(power),
        *keys_of_zoo(power),
        *_distances(power),
        *_curves(power),
        _models(power),
        Section("How to make this report again", "reproduce", [Commands(power_commands(power))]),
    ]
    return Page(
        title=("How many stolen copies of ", Name(base(power.victim.path)), " would an audit find?"),
        lead=_lead(power),
        sections=sections,
        foot=foot(power),
        facts=kept_under(power),
    )


def _lead(power: PowerReport) -> str:
    copies = [attack.copies for attack in power.attacks]
    noticed, of = sum(attack.count for attack in copies), sum(attack.of for attack in copies)
    undecided = sum(attack.inconclusive for attack in power.attacks)
    found = f"{noticed} of {counted(of, 'stolen model')} {'is' if noticed == 1 else 'are'} found"
    found += f", and {undecided} more {'is' if undecided == 1 else 'are'} left undecided." if undecided else "."
    accused = power.controls.held_out_accused
    if not accused.of:
        return f"{found} False accusations could not be measured."
    return f"{found} {accused.count} of {counted(accused.of, 'independent model')} would be accused falsely."


def _undecided(attack: AttackEntry, group: str) -> int:
    return 0 if attack.undecided is UNSET else attack.undecided.named()[group]


def _noticed(power: PowerReport) -> Section:
    attacks, groups = power.attacks, {metric.group for metric in power.metrics.values()}
    # Of weights alone, nothing else was judged.
    shown = groups if groups == {"weights"} else attacks[0].groups.named() if attacks else GROUPS
    table = table_of(
        "Stolen models that the audit calls copies",
        {
            "attack": [word(attack.attack) for attack in attacks],
            "what the thief did": [Cell(attack.title or "-", "prose") for attack in attacks],
            "found": [told(attack.copies, attack.inconclusive) for attack in attacks],
            "95 % interval": [Cell(" to ".join(map(share, a.copies.interval)), "number") for a in attacks],
            **{
                f"by {SIDES[group]}": [told(a.groups.named()[group], _undecided(a, group)) for a in attacks]
                for group in shown
            },
            "undecided": [Cell(str(attack.inconclusive), "number") for attack in attacks],
            "not counted": [Cell(str(attack.left_out), "number") for attack in attacks],
        },
    )
    parts = [
        Section("What this rests on", "rests", [Bullets([*_rests_on(power)])]),
        Section("What the rates mean", "rates", [Bullets([*_rates(power)])]),
        Section("What this does not show", "limits", [Bullets([*_limits(power)])]),
    ]
    return Section("Answer", "verdicts", [table], parts, columns=True)


def _rests_on(power: PowerReport) -> Iterator[Line]:
    stolen = sum(model.kind == "stolen" for model in power.models)
    attacks = counted(len(power.attacks), "known attack")
    yield (
        f"{counted(stolen, 'model')} stolen from this victim on purpose, by {attacks}: ways to steal, which the "
        "documentation's page Attacks explains."
    )
    yield (
        f"{counted(power.controls.count, 'control')}: models made independently of the victim. Each was also judged "
        "as if it were a suspect, by the other controls (held out)."
    )
    if power.suite.keys:
        yield f"{counted(len(power.suite.keys), 'secret key')} of the owner's; each accuses by itself."
    distances = sum(metric.group != "marks" for metric in power.metrics.values())
    yield (
        f"{counted(distances, 'measurement')} of the distance from the victim, judged by the rule ",
        Name(power.rule),
        ", as an audit does.",
    )


def _rates(power: PowerReport) -> Iterator[Line]:
    accused = power.controls.held_out_accused
    yield "A 95 % interval holds the true share of such thefts that would be found, with 95 % confidence."
    if accused.of:
        low, high = accused.interval
        yield (
            f"{share(low)} to {share(high)} of independent models like these controls would be accused, with the same "
            "confidence."
        )
    if any(attack.left_out for attack in power.attacks):
        yield "Not counted: stolen models that do the task much worse than the victim, so that nobody would use them."
    yield from map(sentence, power.controls.notes)


def _limits(power: PowerReport) -> Iterator[Line]:
    yield from map(sentence, limits([model.stratum for model in power.models if model.kind == "control"]))
    yield "These are known attacks. A thief who uses another one, or who knows the test inputs, may not be found."
    yield "Each control was judged by one control fewer than a suspect would be."
    yield "The fewer models there are of an attack, the wider is its interval."


def _auc(value: float | None) -> Cell:
    return Cell("-" if value is None else f"{value:.3f}", "number")


def _curves(power: PowerReport) -> Iterator[Section]:
    figures = []
    for place, metric in enumerate(power.metrics):
        controls: list[float] = []
        attacks: dict[str, list[float]] = {}
        for model in power.models:
            value = value_of(model, metric)
            if value is not None and model.counts:
                row = controls if model.kind == "control" else attacks.setdefault(str(model.attack), [])
                row.append(value)
        stolen = [value for values in attacks.values() for value in values]
        if controls and stolen:
            curve = charts.roc_curve(stolen, controls)
            apart = attacks if len(attacks) <= charts.NAMED_CURVES else {}
            parts = {attack: charts.roc_curve(values, controls) for attack, values in apart.items()}
            figures.append(Figure(charts.roc(f"roc-{place}", metric, curve, parts), Name(metric)))
    metrics, blocks = list(power.metrics), list[Block]()
    if figures:
        note = (
            "A ROC curve (receiver operating characteristic) shows what each possible threshold would do: upwards the "
            "share of stolen models that it finds, to the right the share of controls that it accuses. The number "
            "after a curve's name is the area under it (AUC)."
        )
        blocks += [Paragraph(note), Gallery(figures)]
    if any(value is not None for attack in power.attacks for value in attack.auc.values()):
        blocks += [
            Paragraph(
                "The AUC is the share of pairs of a stolen model and a control in which the stolen one is closer to "
                "the victim: 1 if the measurement tells all of them apart, 0.5 if it is no better than chance."
            ),
            Table(
                "Area under the ROC curve (AUC), against the controls",
                ["attack", *metrics],
                [[word(a.attack), *(_auc(a.auc.get(metric)) for metric in metrics)] for a in power.attacks],
            ),
        ]
    if blocks:
        yield Section("How well each measurement tells them apart", "roc", blocks)


def _distances(power: PowerReport) -> Iterator[Section]:
    blocks: list[Block] = []
    counts = [model for model in power.models if model.counts]
    metrics = {name: metric for name, metric in power.metrics.items() if metric.group != "marks"}
    for place, metric in enumerate(metrics):
        rows: dict[tuple[bool, str], list[float]] = {}
        for model in counts:
            value = value_of(model, metric)
            if value is not None:
                rows.setdefault((model.kind == "control", _kind(model)), []).append(value)
        if rows:
            order = sorted(rows.items(), key=lambda row: row[0][0])
            kinds = [charts.Row(kind, values, stolen=not control) for (control, kind), values in order]
            thresholds = thresholds_of([model for model in counts if model.kind == "stolen"], metric)
            svg = charts.strip(f"strip-{place}", metric, [], kinds, thresholds)
            title = power.metrics[metric].title
            blocks.append(Figure(svg, (Name(metric), *([f", {title}"] if title else []))))
    if blocks:
        note = (
            "The smaller the distance, the more alike; 0 is the victim itself. Filled marks are stolen models, a row "
            "for each attack; hollow marks are controls, a row for each kind (stratum). A model in the shaded part, at "
            "most as far as the dashed threshold, gets a vote for copy."
        )
        defined = definitions(metrics)
        yield Section("Distances from the victim", "distances", [defined, Paragraph(note), *blocks])


def _kind(model: ZooModelEntry) -> str:
    if model.kind == "control":
        return f"controls: {model.stratum or 'unknown'}"
    return str(model.attack)


def _remark(model: ZooModelEntry) -> Cell:
    said = "; ".join(filter(None, ["" if model.counts else "not counted", model.reason]))
    return Cell(said, "prose") if said else text("-")


def _models(power: PowerReport) -> Section:
    suite, victim = power.suite, power.victim
    keys: list[Line] = [(f"SHA-256 of the key {key.name}: ", Name(key.digest)) for key in suite.keys or ()]
    facts: list[Line] = [
        ("Victim: ", Name(victim.path), f" ({victim.framework}), accuracy {share(victim.accuracy)}"),
        ("SHA-256 (fingerprint) of the victim's file: ", Name(victim.digest)),
        ("SHA-256 of the test suite: ", Name(suite.digest)),
        *keys,
        f"Behaviour and layers are judged {'together' if power.groups == 'joint' else 'separately'}.",
    ]
    metrics = list(power.metrics)
    rows = [
        [
            name(model.file),
            text(_kind(model)),
            Cell(share(model.accuracy), "number"),
            decided(model.decision, model.points_to),
            *(
                cell_of_key(model, metric, power) if facts.group == "marks" else figure(value_of(model, metric))
                for metric, facts in power.metrics.items()
            ),
            _remark(model),
        ]
        for model in power.models
    ]
    head = ["model", "kind", "accuracy", "answer", *metrics, "remark"]
    table = Table("Distances and answers", head, rows)
    every = Section("Every model", "every", [table], folded=len(rows) > _FOLDED)
    return Section("What was judged", "models", [Bullets(facts)], [every])

"""What was compared, and how: files, facts, controls and layers."""

import json
from collections.abc import Iterator, Mapping, Sequence

from msgspec import UNSET

from deepjudge_core.auditing.outcome import CLAIMED
from deepjudge_core.files.documents import Json
from deepjudge_core.report.documents import ApiEntry, AuditReport, ControlEntry, SuiteEntry, SuspectEntry, VictimEntry
from deepjudge_core.report.pages.document import Block, Bullets, Cell, Line, Name, Paragraph, Section, Table
from deepjudge_core.report.pages.keys import facts as facts_of_keys
from deepjudge_core.report.pages.keys import of_control
from deepjudge_core.report.pages.listing import MANY, TALL, listed, names_of
from deepjudge_core.report.pages.marks import day
from deepjudge_core.report.pages.parts import base, digest, figure, name, share, table_of, text, word
from deepjudge_core.report.pages.wording import kind_of, percent
from deepjudge_core.text import counted, number

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


def _inputs(suite: SuiteEntry) -> str:
    low, high = map(number, suite.bounds or (0.0, 0.0))
    steps = f", in steps of {suite.grid}" if suite.grid else ""
    own = ", each feature or channel within its own range" if suite.feature_bounds else ""
    return f"{low} to {high}{own}{steps}"


def compared_section(report: AuditReport) -> Section:
    """What was compared: facts, files, controls and notes."""
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
        tall=len(models) > TALL,
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
        tall=len(controls) > TALL,
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
        blocks.append(Table("Distances of the controls", ["control", *report.metrics], rows, tall=len(rows) > TALL))
    yield Section(
        f"The {counted(len(controls), 'control')}",
        "controls",
        blocks,
        folded=len(report.suspects) > MANY or len(controls) > TALL,
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
        yield (*listed(list(dict.fromkeys(names))), f": {note}")


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


def layers_section(report: AuditReport) -> Iterator[Section]:
    """The layers that were compared, and which of a suspect's belongs to which of the victim's."""
    names, blocks = names_of(report), list[Block]()
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

"""What ``deepjudge show`` says of files: documents, folders, inputs and models, each as sheets."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

from msgspec import UNSET

from deepjudge_core.auditing.session import Session
from deepjudge_core.bundles.commitment import Commitment, flat, load_commitment, uri_of
from deepjudge_core.bundles.manifest import MANIFEST as BUNDLE
from deepjudge_core.bundles.manifest import Manifest
from deepjudge_core.bundles.victim import VICTIM, VictimCommitment, load_victim
from deepjudge_core.cli.auditfile.reading import read_plan
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.plan import Plan
from deepjudge_core.components.opening import open_model
from deepjudge_core.components.registry import Adapters, load_registry
from deepjudge_core.components.schemes import Key
from deepjudge_core.components.values import Decision
from deepjudge_core.errors import DeepJudgeError, FileFormatError, InputError, UsageError
from deepjudge_core.files.documents import plain
from deepjudge_core.files.reading import LARGEST_JSON, open_regular
from deepjudge_core.fleets.records import Record
from deepjudge_core.fleets.store import Suited
from deepjudge_core.judging.calibration import load_controls
from deepjudge_core.judging.verdict import GROUPS, SAID, PointsTo, in_words
from deepjudge_core.report.documents import AttackEntry, AuditReport, PowerReport, ShareEntry
from deepjudge_core.report.pages.marks import matches
from deepjudge_core.report.pages.wording import SIDES
from deepjudge_core.sandbox.remote import open_isolated
from deepjudge_core.sheets import Cell, Sheet, listed, remark
from deepjudge_core.suites.inputs import load_inputs
from deepjudge_core.suites.keys import key_digest, names_of, sheet_of_key
from deepjudge_core.suites.suite import Suite
from deepjudge_core.text import recognised

_SHOWN = 20  # names of one kind


def of_results(suite: Suited, found: Sequence[Record]) -> Sheet:
    """What is known of suspects and one suite."""
    counts = Counter(one.verdict or "not judged" for one in found)
    facts = {
        "suite": suite.name,
        "digest": suite.digest,
        "verdicts": ", ".join(f"{count} {SAID.get(verdict, verdict)}" for verdict, count in counts.most_common()),
    }
    rows: list[tuple[Cell, ...]] = [
        (one.suspect, said(one), one.ratio, one.q_value, one.reason if one.verdict != "copy" else None) for one in found
    ]
    return Sheet(f"victim {suite.victim}", facts, ("suspect", "verdict", "ratio", "q", "reason"), rows)


def said(one: Record) -> str:
    """The verdict of a row, in words."""
    if one.verdict is None or one.verdict not in SAID:
        return one.verdict or "not judged"
    return in_words(Decision(one.verdict), cast(PointsTo | None, one.points_to))


def of_suite(suite: Suite) -> Iterator[Sheet]:
    """A suite, and all taps of its victim."""
    yield suite.sheet()
    if suite.weights is not None:
        picked = zip(suite.weights.layers, suite.weights.neurons, strict=True)
        of_layers = [(one.name, one.kind, str(one.width), str(len(neurons))) for one, neurons in picked]
        yield Sheet("weights that are compared", {}, ("layer", "kind", "neurons", "picked"), of_layers)
    if suite.keys:
        chances = ["controls decide" if key.chance is None else f"{key.chance:.3g}" for key in suite.keys]
        named = zip(names_of(suite.keys), suite.keys, chances, strict=True)
        of_keys = [(name, str(key.trials), chance, f"{key_digest(key)[:16]}...") for name, key, chance in named]
        yield Sheet("keys", {}, ("key", "trials", "chance", "digest"), of_keys)
    if not suite.has_cases:
        return
    victim = suite.victim.model
    rows: list[tuple[Cell, ...]] = []
    for name, width in victim.layers.items():
        compared = name in suite.layers
        place = suite.layers.index(name) if compared else -1
        unreached = sum(at == place for at, _ in suite.unreached) if compared else 0
        rows.append((name, str(width), "yes" if compared else "", f"{unreached} without a case" if unreached else ""))
    yield Sheet("layers of the victim", {}, ("layer", "neurons", "compared", "remark"), rows)


def of_key(key: Key) -> Sheet:
    """A key, but for what is secret of it."""
    schemes = load_registry().schemes
    return sheet_of_key(key, schemes[key.scheme] if key.scheme in list(schemes) else None)


def of_controls(path: Path) -> Iterator[Sheet]:
    """A calibration: each control, as it answered."""
    controls = load_controls(path)
    yield Sheet(
        f"calibration of {len(controls.observations)} controls",
        {"match": controls.match, "note": controls.notes, "suite": controls.suite},
    )
    for control, stratum in zip_longest(controls.observations, controls.strata):
        sheet = control.sheet()
        yield Sheet(sheet.title, {"stratum": stratum, **sheet.facts})


def is_commitment(document: object) -> bool:
    """Whether a JSON document may be a commitment, signed or not: an in-toto statement, or a DSSE envelope."""
    return isinstance(document, dict) and ("predicateType" in document or "payloadType" in document)


def of_commitment(path: Path) -> Sheet:
    """A commitment: to how suspects will be judged, or to a victim."""
    committed: Commitment | VictimCommitment
    committed = load_victim(path) if uri_of(path) == VICTIM else load_commitment(path)
    title, stated = "commitment to a victim", plain(committed.terms)
    if isinstance(committed, Commitment):
        title = "commitment to how suspects will be judged"
        stated["suspects"] = committed.suspects or "not named"
        stated |= {"runs": plain(committed.runs)} if committed.runs is not None else {}
    facts = {" ".join(name): _value(value) for name, value in flat(stated)}
    digest = hashlib.sha256(committed.data).hexdigest()
    return Sheet(title, {"SHA-256": digest, **facts, "signed by": committed.key or "nobody"})


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def of_report(report: AuditReport) -> Iterator[Sheet]:
    """The report of an audit."""
    victim, cases = report.victim, report.suite.cases
    made = report.made or None
    facts: dict[str, Any] = {
        "made": None if made is None else " ".join(str(one) for one in (made.date, made.case, made.by) if one),
        "victim": f"{victim.path} ({victim.framework})",
        "cases": f"{cases.clean} clean, {cases.adversarial} adversarial, {cases.corners} corners"
        if cases.clean
        else "",
        "layers": ", ".join(layer.name for layer in report.suite.layers),
        "controls": str(len(report.calibration.controls)),
        "count as": str(report.calibration.effective) if report.calibration.effective else "",
        "rule": f"{report.rule} {_options(report.rule_options)}",
        "keys": [f"{key.name} of the scheme {key.scheme}: {key.digest}" for key in report.suite.keys or ()],
        "note": [*report.suite.notes, *report.calibration.notes],
        "skipped": [f"{one.name}: {one.reason}" for one in (report.skipped or ())],
        "remark": [remark(one.path, one.reason) for one in report.suspects],
        "suite": report.suite.digest,
    }
    names = list(report.metrics)
    rows = []
    for suspect in report.suspects:
        keys = {match.name: match for match in matches(suspect, report)}
        values = [
            keys[name].whole if name in keys else suspect.metrics[name].value if name in suspect.metrics else None
            for name in names
        ]
        rows.append((suspect.path, in_words(suspect.decision, suspect.points_to), *values))
    yield Sheet(f"audit of {len(rows)} suspects", facts, ("suspect", "verdict", *names), rows)


def of_power(report: PowerReport) -> Iterator[Sheet]:
    """An estimate of power."""
    facts: dict[str, Any] = {
        "victim": f"{report.victim.path} ({report.victim.framework})",
        "rule": f"{report.rule} {_options(report.rule_options)}",
        "controls": str(report.controls.count),
        "accused": f"{_share(report.controls.held_out_accused)} controls by the others, though honest",
        "note": report.controls.notes,
        "suite": report.suite.digest,
    }
    rows = [(one.attack, *_found(one)) for one in report.attacks]
    groups = report.attacks[0].groups.named() if report.attacks else GROUPS
    yield Sheet("power of an audit", facts, ("attack", "found", *(f"by {SIDES[group]}" for group in groups)), rows)
    models = [
        (one.file, "-" if one.accuracy is None else f"{one.accuracy:.1%}", in_words(one.decision, one.points_to))
        for one in report.models
    ]
    yield Sheet("models of the zoo", {}, ("model", "accuracy", "verdict"), models)


def _found(attack: AttackEntry) -> Iterator[str]:
    yield recognised(attack.copies.count, attack.copies.of, attack.inconclusive)
    undecided = {} if attack.undecided is UNSET else attack.undecided.named()
    for group, share in attack.groups.named().items():
        yield recognised(share.count, share.of, undecided.get(group, 0))


def of_bundle(folder: Path) -> Iterator[Sheet]:
    """A bundle, as it says of itself: verifying it is another command."""
    with open_regular(folder / BUNDLE, "the manifest of a bundle", LARGEST_JSON) as file:
        data = file.read()
    try:
        manifest = Manifest.parse(data)
    except ValueError as error:
        raise FileFormatError(f"{folder / BUNDLE}: is damaged: {error}", code="damaged-file") from None
    facts = {
        "signed": f"by the key {manifest.signed_by}" if manifest.signed_by else "no",
        "withheld": ", ".join(manifest.withheld),
        "suite": manifest.terms.suite,
        "checked": f"not yet: deepjudge verify {folder}",
    }
    rows = [(name, str(file.size), f"{file.sha256[:16]}...") for name, file in manifest.files.items()]
    yield Sheet(f"bundle of {len(rows)} files", facts, ("file", "bytes", "SHA-256"), rows)


def _cases_of(plan: Plan) -> dict[str, str]:
    if plan.inputs.path is None:
        return {"compares": "weights alone"}
    generators = listed(plan.suite.generators or ("the usual ones",))
    return {"inputs": str(plan.inputs.path), "seeds": str(plan.suite.n), "generators": generators}


def of_plan(path: Path, session: Session, command: type[Command]) -> Iterator[Sheet]:
    """An ``AUDIT.toml`` and what it names."""
    plan: Plan = read_plan(path, None, session, command)
    facts = {
        "victim": plan.victim.name,
        **_cases_of(plan),
        "rule": plan.judge.rule.name,
        "metrics": listed(metric.name for metric in plan.judge.metrics),
        "output": str(plan.output),
        "skipped": [str(one) for one in plan.skipped[:_SHOWN]],
    }
    roles = (("suspect", plan.suspects), ("control", plan.controls))
    rows = [(role, one.name, "stored answers" if one.stored else "") for role, ones in roles for one in ones]
    yield Sheet("plan of an audit", facts, ("role", "model", "remark"), rows)


def of_inputs(path: Path) -> Iterator[Sheet]:
    """Inputs of any kind, with or without labels."""
    try:
        inputs = load_inputs(path)
    except InputError as error:
        try:
            inputs = load_inputs(path, labels="victim")
        except DeepJudgeError:
            raise error from None
    sheet = inputs.sheet()
    yield Sheet(f"{path}: {sheet.title}", sheet.facts)


def of_model(path: Path, options: Mapping[str, Any], session: Session) -> Iterator[Sheet]:
    """A model's file, opened as any other, but for no inputs of a known shape."""
    with contextlib.ExitStack() as stack:
        if session.sandbox is None:
            model = open_model(path, registry=session.registry, device=session.device, **options)
        else:
            isolated = open_isolated(
                path,
                registry=session.registry,
                sandbox=session.sandbox,
                gradients=False,
                device=session.device,
                **options,
            )
            model = stack.enter_context(isolated)
        sheet = model.sheet()
        facts = {**sheet.facts, "file": list(model.files) if len(model.files) > 1 else None}
        yield Sheet(sheet.title, facts, sheet.head, sheet.rows)


def as_json(sheets: Iterable[Sheet]) -> list[dict[str, Any]]:
    """Sheets as JSON, where what is shown is none itself."""
    return [
        {
            "title": sheet.title,
            "facts": {name: value for name, value in sheet.facts.items() if value},
            "rows": [dict(zip(sheet.head, row, strict=True)) for row in sheet.rows],
        }
        for sheet in sheets
    ]


def refuse(path: Path, adapters: Adapters) -> UsageError:
    """What is said of something else."""
    return UsageError(
        f"{path}: found nothing that can be shown; expected a file of deepjudge's own, an AUDIT.toml, the folder of a "
        f"zoo or a bundle, inputs, or a model; {adapters.way_out(path)}",
        code="wrong-value",
    )


def _options(options: Any) -> str:
    said = " ".join(f"{name}={value}" for name, value in options.items())
    return f"({said})" if said else ""


def _share(share: ShareEntry) -> str:
    return f"{share.count} of {share.of}"

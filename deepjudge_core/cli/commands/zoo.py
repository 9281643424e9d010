"""The commands ``zoo`` and ``power``."""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.auditing.power import CONFIDENCE, PowerEstimate, Share, ZooModelResult, estimate_power
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import LiveModel, Subject
from deepjudge_core.cli import arguments as typed
from deepjudge_core.cli import display, exports
from deepjudge_core.cli.status import FAILED, NO_COPY
from deepjudge_core.components.opening import open_model, open_network
from deepjudge_core.components.values import Decision
from deepjudge_core.errors import DeepJudgeError
from deepjudge_core.files import storage
from deepjudge_core.judging.judge import GROUPS
from deepjudge_core.models.model import InputSpec
from deepjudge_core.models.training import Schedule
from deepjudge_core.observing.observe import QuerySettings
from deepjudge_core.report.audit_json import dump
from deepjudge_core.report.power_json import power_report
from deepjudge_core.suites.inputs import TRAINING_KEYS, USUAL_KEYS, Inputs, holds, load_inputs, load_training_inputs
from deepjudge_core.suites.suite import Suite, load_suite, save_suite
from deepjudge_core.text import clean
from deepjudge_core.zoo.making import ZooRecipe, ZooSettings, make_zoo
from deepjudge_core.zoo.manifest import MissingModel, Zoo, ZooModel, load_zoo
from deepjudge_core.zoo.material import Material, divide

_SUITE = "suite.safetensors"
_TEST_KEYS = ("x_test", "y_test")


def run_zoo(arguments: argparse.Namespace) -> int:
    """Make controls and stolen models."""
    session = Session(typed.registry())
    recipe = ZooRecipe.of(_settings(arguments), session.registry.attacks)
    folder = typed.folder(arguments.output)
    training, test = _labelled(arguments, arguments.data, TRAINING_KEYS), _test(arguments)
    typed.warn_of_bytes(training, arguments.data, scale=arguments.scale, bounds=arguments.bounds)
    expected, options = InputSpec(training.x.shape[1:], layout=training.layout), typed.opening(arguments)
    network = open_network(arguments.victim, registry=session.registry, expected=expected, **options)
    material = divide(
        training,
        network.architecture,
        name=str(arguments.victim),
        share=arguments.split,
        test=test,
        auxiliary=_auxiliary(arguments),
    )
    model = open_model(arguments.victim, registry=session.registry, expected=expected, **options)
    victim = LiveModel(model, query=QuerySettings(layout=arguments.input_layout))
    suite = _suite(arguments, victim, material, session) if recipe.needs_suite else None
    out = display.console()
    zoo = make_zoo(
        network,
        material,
        folder,
        recipe,
        name=str(arguments.victim),
        digest=model.digest,
        suite=suite,
        on_model=lambda model: display.say(out, _line(model)),
    )
    _show_counts(out, zoo)
    return FAILED if any(missing.failed for missing in zoo.missing) else NO_COPY


def run_power(arguments: argparse.Namespace) -> int:
    """Judge a zoo, and say how much of it an audit sees."""
    session, folder, files = typed.session(arguments), typed.folder(arguments.output), exports.wanted(arguments)
    power = estimate_power(
        load_suite(arguments.suite),
        load_zoo(arguments.zoo),
        typed.judge(arguments, session),
        match=arguments.match,
        far=arguments.far,
        observations=folder / "observations",
        session=session,
    )
    out = display.console()
    _show_power(out, power)
    document, path = power_report(power), folder / "power.json"
    storage.write_bytes(path, dump(document).encode())
    display.say(out, f"report: {path}")
    exports.write(files, document, out)
    return FAILED if power.failures else NO_COPY


def _settings(arguments: argparse.Namespace) -> ZooSettings:
    return ZooSettings(
        controls=arguments.controls,
        attacks=None if arguments.attacks == "all" else [name.strip() for name in arguments.attacks.split(",")],
        repeat=arguments.repeat,
        schedule=Schedule(epochs=arguments.epochs, rate=arguments.rate),
        options=typed.options_by_component(arguments.option, "attack"),
        seed=arguments.seed,
    )


def _labelled(arguments: argparse.Namespace, path: Path, usual: tuple[tuple[str, str], ...]) -> Inputs:
    inputs = load_inputs(
        path,
        x=arguments.x,
        y=arguments.y,
        scale=arguments.scale,
        bounds=tuple(arguments.bounds) if arguments.bounds else None,
        usual=usual,
    )
    return Inputs(inputs.x, inputs.y, inputs.bounds, layout=arguments.input_layout)


def _test(arguments: argparse.Namespace) -> Inputs | None:
    if arguments.test is not None:
        return _labelled(arguments, arguments.test, USUAL_KEYS)
    # Beside training data there is often what it is tested with.
    usual = arguments.x is None and arguments.y is None
    if usual and holds(arguments.data, _TEST_KEYS):
        return _labelled(arguments, arguments.data, (_TEST_KEYS,))
    return None


def _auxiliary(arguments: argparse.Namespace) -> Inputs | None:
    path: Path | None = arguments.auxiliary
    if path is None:
        return None
    if any(holds(path, pair) for pair in TRAINING_KEYS):
        return load_inputs(path, scale=arguments.scale, usual=TRAINING_KEYS)
    x = load_training_inputs(str(path), scale=arguments.scale)
    return Inputs(x, np.full(len(x), -1))


def _suite(arguments: argparse.Namespace, victim: Subject, material: Material, session: Session) -> Suite | None:
    # What adaptive attacks know: the worst case is the suite that the audit uses.
    if arguments.suite is not None:
        return load_suite(arguments.suite)
    path: Path = arguments.output / _SUITE
    if path.exists():
        return load_suite(path)
    inputs = Inputs(material.test.x, material.test.y, material.bounds, material.own.x)
    try:
        suite = make_suite(victim, inputs, session=session)
    except DeepJudgeError as error:
        display.warn(f"no suite for the attacks that need one: {error}")
        return None
    save_suite(path, suite)
    return suite


def _line(made: ZooModel | MissingModel) -> str:
    if isinstance(made, MissingModel):
        return f"{made.name}: {'failed' if made.failed else 'left out'}: {made.reason}"
    accuracy = "other classes" if made.accuracy is None else f"{made.accuracy:.1%}"
    return f"{made.file}: {accuracy}, {made.seconds:.1f} s{', far from the victim' if made.far else ''}"


def _show_counts(out: Console, zoo: Zoo) -> None:
    counts = [(zoo.of("control", far=True), "control"), (zoo.of("stolen", far=True), "stolen model")]
    made = ", ".join(f"{len(models)} {name}{'s' * (len(models) != 1)}" for models, name in counts)
    missing = f", {len(zoo.missing)} could not be made" if zoo.missing else ""
    display.say(out, f"zoo         {made}{missing}; the victim has {zoo.victim.accuracy:.1%}")
    far = sum(model.far for model in zoo.models)
    if far:
        display.say(out, f"far         {far} with an accuracy far below the victim's, which thresholds do without")


def _show_power(out: Console, power: PowerEstimate) -> None:
    metrics = list(power.attacks[0].auc) if power.attacks else []
    display.say(out, "stolen models that are judged copies, and AUC of each metric against the controls")
    table = Table(
        Column("attack", no_wrap=True),
        *(Column(name, justify="right") for name in ("copies", *GROUPS, *metrics)),
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for attack in power.attacks:
        shares = (attack.copies, *(attack.groups[group] for group in GROUPS))
        areas = ("-" if area is None else f"{area:.2f}" for area in (attack.auc[name] for name in metrics))
        table.add_row(Text(clean(attack.attack)), *map(_of, shares), *areas)
    out.print(table)
    stolen = [found for found in power.results if found.counts and found.model.kind == "stolen"]
    undecided = [str(found.verdict.reason) for found in stolen if found.verdict and _decision(found) == "inconclusive"]
    for reason, count in Counter(undecided).items():
        display.say(out, f"undecided   {count} of {len(stolen)} stolen models: {reason}")
    if power.accused.of:
        low, high = power.accused.interval
        display.say(
            out,
            f"controls    {_of(power.accused)} held out are judged a copy by the others "
            f"(of such models, {low:.1%} to {high:.1%} with {CONFIDENCE:.0%} confidence)",
        )
    alone = len(power.calibration.controls) - power.accused.of
    if alone:
        display.say(out, f"not judged  {alone} of the controls: by the others alone nothing can be said of them")
    left = [f"{found.model.label} ({_decision(found)})" for found in power.results if not found.counts]
    if left:
        display.say(out, f"not counted {', '.join(left)}: far from the victim's accuracy (--far counts them)")
    for note in (*power.calibration.notes, *power.failures):
        display.say(out, note)


def _decision(found: ZooModelResult) -> str:
    return str(found.verdict.decision if found.verdict else Decision.FAILED)


def _of(share: Share) -> str:
    return f"{share.count} of {share.of}"

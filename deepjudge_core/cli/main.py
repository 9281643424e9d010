"""Run a command and turn what comes of it into an exit status."""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from deepjudge_core import options as component_options
from deepjudge_core import storage
from deepjudge_core.audit import Judging, Report, check_judging, judge_suspects, look
from deepjudge_core.calibration import (
    LEAST_CONTROLS,
    Calibration,
    calibrate,
    load_calibration,
    load_controls,
    save_calibration,
)
from deepjudge_core.cli import display
from deepjudge_core.cli.parser import build_parser
from deepjudge_core.cli.sources import expand
from deepjudge_core.components import Decision
from deepjudge_core.errors import DeepJudgeError, FileFormatError, ModelError, UsageError
from deepjudge_core.generation import DEFAULT_GENERATORS, build_suite
from deepjudge_core.inputs import load_inputs, load_training_inputs
from deepjudge_core.observation import load_observation, save_observation
from deepjudge_core.observe import Asking, check_asking, observe
from deepjudge_core.opening import open_model
from deepjudge_core.plugins import Registry, load_registry
from deepjudge_core.preprocessing import Preprocessing
from deepjudge_core.progress import watched
from deepjudge_core.report.json import SCHEMA, dump_report
from deepjudge_core.seeds import select_seeds
from deepjudge_core.suite import Suite, load_suite, save_suite

NO_COPY, COPY, USAGE, INCONCLUSIVE, FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``deepjudge``; returns the exit status (see ``deepjudge --help``)."""
    arguments = build_parser().parse_args(argv)
    errors = display.console(stderr=True)
    try:
        with watched(display.Bars()):
            return _COMMANDS[arguments.command](arguments)
    except DeepJudgeError as error:
        if arguments.debug:
            traceback.print_exc()
        display.say(errors, f"deepjudge: {error}")
        return USAGE if isinstance(error, UsageError) else FAILED
    except Exception as error:
        # Python's own exit status would be 1, which says that a suspect is a copy.
        if arguments.debug:
            traceback.print_exc()
        display.say(errors, f"deepjudge: internal error (see --debug): {type(error).__name__}: {error}")
        return FAILED
    except KeyboardInterrupt:
        display.say(errors, "deepjudge: interrupted")
        return INTERRUPTED


def _suite(arguments: argparse.Namespace) -> int:
    suite = _make_suite(arguments, _registry())
    save_suite(arguments.output, suite)
    display.show_suite(display.console(), suite)
    return NO_COPY


def _observe(arguments: argparse.Namespace) -> int:
    suite = load_suite(arguments.suite)
    model = open_model(arguments.model, registry=_registry(), expected=suite.victim.model.input, **_opening(arguments))
    seen = observe(model, suite, _asking(arguments))
    save_observation(arguments.output, seen)
    display.show_observation(display.console(), seen)
    return NO_COPY


def _calibrate(arguments: argparse.Namespace) -> int:
    registry = _registry()
    suite = load_suite(arguments.suite)
    asking, opening = _asking(arguments), _opening(arguments)
    calibration = _controls(suite, expand(arguments.controls, registry), None, asking, registry, opening)
    save_calibration(arguments.output, calibration)
    out = display.console()
    display.show_calibration(out, calibration)
    display.show_control_notes(out, calibration)
    return FAILED if _has_failed(calibration) else NO_COPY


def _judge(arguments: argparse.Namespace) -> int:
    registry = _registry()
    suite = load_suite(arguments.suite)
    judging = _judging(arguments, registry)
    if arguments.calibration is None:
        calibration = calibrate(suite, [], judging.metrics, registry=registry)
    else:
        calibration = load_calibration(arguments.calibration, suite, judging.metrics, registry=registry)
    report = judge_suspects(suite, calibration, expand(arguments.suspects, registry), judging, registry=registry)
    to_stdout = str(arguments.json) == "-"
    display.show_report(display.console(stderr=to_stdout), report)
    if to_stdout:
        sys.stdout.write(dump_report(report))
    elif arguments.json:
        storage.write_bytes(arguments.json, dump_report(report).encode())
    return _status(report)


def _audit(arguments: argparse.Namespace) -> int:
    registry = _registry()
    judging = _judging(arguments, registry)
    suspects = expand(arguments.suspects, registry)
    controls = expand(arguments.controls, registry)
    for control in controls:
        if not Path(control).exists():  # said before the suite is made, which may take long
            raise ModelError(f"{control}: no such file")
    folder: Path = arguments.output
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder to write to, found a file")
    out = display.console()
    suite = _make_suite(arguments, registry)
    check_asking(judging.asking, suite)
    display.show_suite(out, suite)
    # Each part is kept as soon as it is made; those of an earlier audit do not belong to it.
    for stale in ("calibration.safetensors", "report.json"):
        (folder / stale).unlink(missing_ok=True)
    save_suite(folder / "suite.safetensors", suite)
    calibration = _controls(suite, controls, judging.metrics, judging.asking.of_controls(), registry)
    save_calibration(folder / "calibration.safetensors", calibration)
    display.show_calibration(out, calibration)
    report = judge_suspects(suite, calibration, suspects, judging, registry=registry)
    storage.write_bytes(folder / "report.json", dump_report(report).encode())
    display.show_report(out, report)
    display.say(out, f"report: {folder / 'report.json'}")
    return _status(report)


def _plugins(arguments: argparse.Namespace) -> int:
    registry = load_registry()
    if arguments.json:
        listed = [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "components": [{"kind": display.kind(c), "name": c.name} for c in plugin.components],
                "failure": plugin.failure,
            }
            for plugin in registry.plugins
        ]
        sys.stdout.write(json.dumps({"plugins": listed, "failures": registry.failures()}, indent=2) + "\n")
    else:
        display.show_plugins(display.console(), registry)
    return FAILED if registry.failures() else NO_COPY


def _show(arguments: argparse.Namespace) -> int:
    path: Path = arguments.file
    out = display.console()
    if path.suffix == ".json":
        _show_json(out, path)
        return NO_COPY
    content = storage.read(path, ["suite", "observation", "calibration"])
    if content.kind == "suite":
        suite = load_suite(path)
        display.show_suite(out, suite)
        display.show_cases(out, suite)
    elif content.kind == "observation":
        display.show_observation(out, load_observation(path))
    else:
        controls = load_controls(path)
        for control in controls.observations:
            display.show_observation(out, control)
        for note in controls.notes:
            display.say(out, f"note        {note}")
        display.say(out, f"suite       {controls.suite}")
    return NO_COPY


def _show_json(out: Console, path: Path) -> None:
    try:
        report: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise FileFormatError(f"{path}: expected a deepjudge report, found no JSON") from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise FileFormatError(f"{path}: expected a {SCHEMA}, found other JSON")
    out.print_json(data=report, ensure_ascii=True)  # which escapes what controls a terminal


def _make_suite(arguments: argparse.Namespace, registry: Registry) -> Suite:
    generators = arguments.generator or DEFAULT_GENERATORS
    options = _generator_options(arguments.option)
    registry.generators.select(generators)
    bounds = tuple(arguments.bounds) if arguments.bounds else None
    inputs = load_inputs(arguments.inputs, x=arguments.x, y=arguments.y, scale=arguments.scale, bounds=bounds)
    if inputs.bounds == (0.0, 255.0) and arguments.scale == 1 and bounds is None:
        _warn(f"{arguments.inputs}: taken as they are, 0..255; divide them with --scale 255 if the victim expects 0..1")
    training = inputs.training
    if arguments.training_inputs:
        training = load_training_inputs(arguments.training_inputs, scale=arguments.scale)
    victim = open_model(arguments.victim, registry=registry)
    seeds = select_seeds(
        victim,
        inputs.x,
        inputs.y,
        n=arguments.n,
        order=arguments.order,
        bounds=inputs.bounds,
        layout=arguments.input_layout,
    )
    layers = None if arguments.layers == "auto" else arguments.layers.split(",")
    return build_suite(
        victim,
        seeds,
        generators,
        training_inputs=training,
        layout=arguments.input_layout,
        layers=layers,
        options=options,
        seed=arguments.seed,
        registry=registry,
    )


def _controls(
    suite: Suite,
    names: Sequence[str],
    metrics: Sequence[str] | None,
    asking: Asking,
    registry: Registry,
    opening: Mapping[str, Any] | None = None,
) -> Calibration:
    check_asking(asking, suite)
    answers = [look(suite, name, registry, asking, opening) for name in names]
    calibration = calibrate(suite, answers, metrics, registry=registry)
    for note in calibration.notes:
        _warn(note)
    if 0 < len(calibration.controls) < LEAST_CONTROLS:
        _warn(f"{len(calibration.controls)} controls; a verdict needs at least {LEAST_CONTROLS}")
    return calibration


def _judging(arguments: argparse.Namespace, registry: Registry) -> Judging:
    judging = Judging(
        metrics=arguments.metric,
        rule=arguments.rule,
        rule_options=component_options.parse_assignments(arguments.rule_option),
        groups=arguments.groups,
        asking=_asking(arguments),
        opening=_opening(arguments),
    )
    check_judging(judging, registry)
    return judging


def _opening(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {"output": arguments.output_name, "arch": arguments.arch}
    return {option: value for option, value in given.items() if value is not None}


def _asking(arguments: argparse.Namespace) -> Asking:
    return Asking(
        layers=component_options.parse_assignments(arguments.layer_map),
        classes=arguments.classes,
        preprocessing=Preprocessing.parse(arguments.suspect_input) if arguments.suspect_input else None,
        infer=not arguments.no_infer_input,
        layout=arguments.input_layout,
    )


def _generator_options(given: Sequence[str]) -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = {}
    for full, value in component_options.parse_assignments(given).items():
        generator, dot, name = full.partition(".")
        if not dot:
            raise UsageError(f"expected an option as GENERATOR.NAME=VALUE, found {full}={value}")
        options.setdefault(generator, {})[name] = value
    return options


def _registry() -> Registry:
    registry = load_registry()
    for line in registry.failures():
        _warn(line)
    return registry


def _warn(text: str) -> None:
    display.say(display.console(stderr=True), f"deepjudge: warning: {text}")


def _status(report: Report) -> int:
    decisions = {result.decision for result in report.suspects}
    if Decision.FAILED in decisions or any(r.errors for r in report.suspects) or _has_failed(report.calibration):
        return FAILED
    if Decision.COPY in decisions:
        return COPY
    return INCONCLUSIVE if Decision.INCONCLUSIVE in decisions else NO_COPY


def _has_failed(calibration: Calibration) -> bool:
    return any(found.failed for measured in calibration.measurements for found in measured.values())


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "suite": _suite,
    "observe": _observe,
    "calibrate": _calibrate,
    "judge": _judge,
    "audit": _audit,
    "plugins": _plugins,
    "show": _show,
}

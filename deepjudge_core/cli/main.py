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
from deepjudge_core.audit import Judging, Report, judge_suspects, look
from deepjudge_core.calibration import Calibration, calibrate, load_calibration, load_controls, save_calibration
from deepjudge_core.cli import display
from deepjudge_core.cli.parser import build_parser
from deepjudge_core.cli.sources import expand
from deepjudge_core.components import Decision
from deepjudge_core.errors import DeepJudgeError, FileFormatError, UsageError
from deepjudge_core.generation import DEFAULT_GENERATORS, build_suite
from deepjudge_core.inputs import load_inputs, load_training_inputs
from deepjudge_core.observation import Observation, load_observation, save_observation
from deepjudge_core.opening import open_model
from deepjudge_core.plugins import Registry, load_registry
from deepjudge_core.progress import watched
from deepjudge_core.report.json import SCHEMA, dump_report
from deepjudge_core.seeds import select_seeds
from deepjudge_core.suite import Suite, load_suite, save_suite

NO_COPY, COPY, USAGE, INCONCLUSIVE, FAILED = 0, 1, 2, 3, 4


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
        errors.print(f"deepjudge: {display.clean(str(error))}", markup=False, highlight=False, soft_wrap=True)
        return USAGE if isinstance(error, UsageError) else FAILED
    except KeyboardInterrupt:
        errors.print("deepjudge: interrupted", markup=False)
        return 130


def _suite(arguments: argparse.Namespace) -> int:
    suite = _make_suite(arguments, _registry())
    save_suite(arguments.output, suite)
    display.show_suite(display.console(), suite)
    return NO_COPY


def _observe(arguments: argparse.Namespace) -> int:
    suite = load_suite(arguments.suite)
    layers = component_options.parse_assignments(arguments.layer_map)
    save_observation(arguments.output, look(suite, arguments.model, _registry(), layers))
    return NO_COPY


def _calibrate(arguments: argparse.Namespace) -> int:
    registry = _registry()
    suite = load_suite(arguments.suite)
    layers = component_options.parse_assignments(arguments.layer_map)
    calibration = _controls(suite, arguments.controls, None, layers, registry)
    save_calibration(arguments.output, calibration)
    display.show_calibration(display.console(), calibration)
    return NO_COPY


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
    folder: Path = arguments.output
    suite = _make_suite(arguments, registry)
    save_suite(folder / "suite.safetensors", suite)
    calibration = _controls(suite, controls, judging.metrics, judging.layers, registry)
    save_calibration(folder / "calibration.safetensors", calibration)
    report = judge_suspects(suite, calibration, suspects, judging, registry=registry)
    storage.write_bytes(folder / "report.json", dump_report(report).encode())
    out = display.console()
    display.show_report(out, report)
    display.write_path(out, "report:", folder / "report.json")
    return _status(report)


def _plugins(arguments: argparse.Namespace) -> int:
    registry = load_registry()
    failures = registry.failures()
    if arguments.json:
        listed = [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "components": [{"kind": type(c).__name__.lower(), "name": c.name} for c in plugin.components],
                "failure": plugin.failure,
            }
            for plugin in registry.plugins
        ]
        sys.stdout.write(json.dumps({"plugins": listed, "failures": failures}, indent=2) + "\n")
    else:
        out = display.console()
        display.show_plugins(out, registry)
        _print_failures(out, failures)
    return FAILED if failures else NO_COPY


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
        _show_observation(out, load_observation(path))
    else:
        controls, notes = load_controls(path)
        for control in controls:
            _show_observation(out, control)
        for note in notes:
            out.print(f"note        {display.clean(note)}", markup=False)
    return NO_COPY


def _show_observation(out: Console, seen: Observation) -> None:
    model = seen.model
    layers = ", ".join(f"{layer} = {tap}" for layer, tap in seen.layer_map.items()) or seen.unmatched or "none"
    out.print(f"model       {display.clean(model.name)} ({model.framework})", markup=False)
    out.print(f"digest      {model.digest}", markup=False)
    out.print(f"answers     {len(seen.probabilities)} cases of the suite {seen.suite}", markup=False)
    out.print(f"layers      {display.clean(layers)}", markup=False)


def _show_json(out: Console, path: Path) -> None:
    try:
        report: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise FileFormatError(f"{path}: expected a deepjudge report, found no JSON") from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise FileFormatError(f"{path}: expected a {SCHEMA}, found other JSON")
    out.print_json(data=report)


def _make_suite(arguments: argparse.Namespace, registry: Registry) -> Suite:
    generators = arguments.generator or DEFAULT_GENERATORS
    options = _generator_options(arguments.option)
    registry.generators.select(generators)
    bounds = tuple(arguments.bounds) if arguments.bounds else None
    inputs = load_inputs(arguments.inputs, x=arguments.x, y=arguments.y, scale=arguments.scale, bounds=bounds)
    training = inputs.training
    if arguments.training_inputs:
        training = load_training_inputs(arguments.training_inputs, scale=arguments.scale)
    victim = open_model(arguments.victim, registry=registry)
    seeds = select_seeds(victim, inputs.x, inputs.y, n=arguments.n, order=arguments.order, bounds=inputs.bounds)
    layers = None if arguments.layers == "auto" else arguments.layers.split(",")
    return build_suite(
        victim,
        seeds,
        generators,
        training_inputs=training,
        layers=layers,
        options=options,
        seed=arguments.seed,
        registry=registry,
    )


def _controls(
    suite: Suite,
    names: Sequence[str],
    metrics: Sequence[str] | None,
    layers: Mapping[str, str] | None,
    registry: Registry,
) -> Calibration:
    answers = [look(suite, name, registry, layers) for name in expand(names, registry)]
    calibration = calibrate(suite, answers, metrics, registry=registry)
    for note in calibration.notes:
        _warn(note)
    return calibration


def _judging(arguments: argparse.Namespace, registry: Registry) -> Judging:
    rule_options = component_options.parse_assignments(arguments.rule_option)
    component_options.resolve(arguments.rule, registry.rules[arguments.rule].judge, rule_options)
    registry.metrics.select(arguments.metric)
    return Judging(
        metrics=arguments.metric,
        rule=arguments.rule,
        rule_options=rule_options,
        groups=arguments.groups,
        layers=component_options.parse_assignments(arguments.layer_map),
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
    errors = display.console(stderr=True)
    errors.print(f"deepjudge: warning: {display.clean(text)}", markup=False, highlight=False, soft_wrap=True)


def _print_failures(out: Console, failures: Sequence[str]) -> None:
    for line in failures:
        out.print(display.clean(line), markup=False, highlight=False, soft_wrap=True)


def _status(report: Report) -> int:
    decisions = {result.decision for result in report.suspects}
    if Decision.FAILED in decisions or any(result.errors for result in report.suspects):
        return FAILED
    if Decision.COPY in decisions:
        return COPY
    return INCONCLUSIVE if Decision.INCONCLUSIVE in decisions else NO_COPY


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "suite": _suite,
    "observe": _observe,
    "calibrate": _calibrate,
    "judge": _judge,
    "audit": _audit,
    "plugins": _plugins,
    "show": _show,
}

"""Values from what was typed."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.cli import display, plan
from deepjudge_core.cli.exports import EXPORTS
from deepjudge_core.cli.parser import DEFAULT_RULE, SEQUENTIAL_RULE
from deepjudge_core.cli.plan import InputsFile
from deepjudge_core.cli.sources import expand
from deepjudge_core.components import options as component_options
from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.components.strata import Stratum
from deepjudge_core.errors import UsageError
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.observing.observe import QuerySettings
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.suites.generation import DEFAULT_GENERATORS, SuiteSettings
from deepjudge_core.suites.inputs import Inputs

_WRITTEN = frozenset({"output", "request", "json", *EXPORTS})  # what is given by these names; all else is read


def inputs_file(arguments: argparse.Namespace) -> InputsFile:
    """Where the inputs are, and how they are read."""
    return InputsFile(
        arguments.inputs,
        x=arguments.x,
        y=arguments.y,
        scale=arguments.scale,
        bounds=tuple(arguments.bounds) if arguments.bounds else None,
        training=arguments.training_inputs,
        layout=arguments.input_layout,
    )


def load(file: InputsFile) -> Inputs:
    """The inputs, after a word about what may be a mistake."""
    inputs = file.load()
    warn_of_bytes(inputs, file.path, scale=file.scale, bounds=file.bounds)
    return inputs


def warn_of_bytes(inputs: Inputs, path: Path, *, scale: float, bounds: Sequence[float] | None) -> None:
    """A word about inputs that may have to be divided."""
    if inputs.bounds == (0.0, 255.0) and scale == 1 and bounds is None:
        display.warn(f"{path}: taken as they are, 0..255; divide them by a scale of 255 if the victim expects 0..1")


def making(arguments: argparse.Namespace) -> SuiteSettings:
    """How the suite is made."""
    return SuiteSettings(
        n=arguments.n,
        order=arguments.order,
        layers=None if arguments.layers == "auto" else arguments.layers.split(","),
        generators=arguments.generator or DEFAULT_GENERATORS,
        options=options_by_component(arguments.option, "generator"),
        seed=arguments.seed,
    )


def judge(arguments: argparse.Namespace, session: Session) -> Judge:
    """By what suspects are judged."""
    sequential = getattr(arguments, "sequential", False)
    settings = JudgeSettings(
        metrics=arguments.metric,
        rule=arguments.rule or (SEQUENTIAL_RULE if sequential else DEFAULT_RULE),
        rule_options=component_options.parse_assignments(arguments.rule_option),
        groups=arguments.groups,
        # Not of all commands that judge.
        fdr=getattr(arguments, "fdr", None),
        sequential=sequential,
        budget=getattr(arguments, "budget", None),
    )
    return Judge.of(settings, session.registry)


def subject(arguments: argparse.Namespace, source: str) -> Subject:
    """A model, and how it is opened and asked."""
    return Subject.of(source, query=asking(arguments), options=opening(arguments))


def controls(arguments: argparse.Namespace, session: Session) -> list[tuple[str, Stratum | None]]:
    """The files of the controls, each with its stratum where it was said."""
    given: list[tuple[Stratum | None, list[str]]] = [(None, arguments.controls), *arguments.stratum]
    return [(name, stratum) for stratum, names in given for name in expand(names, session.registry.adapters)]


def opening(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of the adapter that opens a model."""
    return plan.opening(arguments.output_name, arguments.arch)


def asking(arguments: argparse.Namespace) -> QuerySettings:
    """How a model is asked."""
    return QuerySettings(
        layers=component_options.parse_assignments(arguments.layer_map),
        classes=arguments.classes,
        preprocessing=Preprocessing.parse(arguments.suspect_input) if arguments.suspect_input else None,
        infer=not arguments.no_infer_input,
        layout=arguments.input_layout,
    )


def sandbox(arguments: argparse.Namespace) -> Sandbox | None:
    """How models' files are confined."""
    given = {"memory": arguments.memory, "timeout": arguments.timeout, "required": arguments.require_sandbox}
    return plan.sandbox(use=not arguments.no_sandbox, **given)


def options_by_component(given: Sequence[str], kind: str) -> dict[str, dict[str, str]]:
    """``COMPONENT.NAME=VALUE`` texts as options by component; ``kind`` is what messages call a component."""
    options: dict[str, dict[str, str]] = {}
    for full, value in component_options.parse_assignments(given).items():
        component, dot, name = full.partition(".")
        if not dot:
            raise UsageError(f"expected an option as {kind.upper()}.NAME=VALUE, found {full}={value}")
        options.setdefault(component, {})[name] = value
    return options


def check_written(arguments: argparse.Namespace) -> None:
    """Refuse to write over a file that is read, such as the suite or a private key.

    Raises:
        UsageError: When it was asked for.
    """
    given = vars(arguments)
    models = [given.get("model"), *(given.get("suspects") or ())]
    if "stratum" in given:  # elsewhere controls are counted
        models += [*given["controls"], *(name for _, names in given["stratum"] for name in names)]
    read = [value for name, value in given.items() if name not in _WRITTEN and isinstance(value, Path)]
    read += [Path(name) for name in models if name]
    kept = {path.resolve() for path in read if path.is_file()}
    for name in _WRITTEN:
        path = given.get(name)
        if isinstance(path, Path) and path.resolve() in kept:
            raise UsageError(f"{path}: expected another file to write to, found one that is read")


def folder(path: Path) -> Path:
    """Where files are written to.

    Raises:
        UsageError: When there is a file in its place.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: expected a folder to write to, found a file")
    return path


def registry() -> Registry:
    """What is installed, after a word about what fails."""
    found = load_registry()
    for line in found.failures():
        display.warn(line)
    return found


def session(arguments: argparse.Namespace) -> Session:
    """What the steps of a command need."""
    return Session(registry(), sandbox(arguments))

"""Run a command and turn what comes of it into an exit status."""

import argparse
import contextlib
import io
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Console

from deepjudge_core.auditing.audit import ask_controls, audit, judge_suspects, make_suite
from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.settings import AuditSettings
from deepjudge_core.auditing.subject import ModelFile, Subject
from deepjudge_core.bundles.bundle import withheld_folder
from deepjudge_core.bundles.commitment import CommitmentError
from deepjudge_core.cli import arguments as typed
from deepjudge_core.cli import display, exports
from deepjudge_core.cli.auditfile.reading import AuditFileError, read_plan, write_example
from deepjudge_core.cli.commands.zoo import run_power, run_zoo
from deepjudge_core.cli.parser import parse
from deepjudge_core.cli.plan import BundleSettings, Plan
from deepjudge_core.cli.sealing import BundleSession, run_commit, run_verify, seal_judged
from deepjudge_core.cli.sources import expand
from deepjudge_core.cli.status import COPY, FAILED, INCONCLUSIVE, INTERRUPTED, NO_COPY, USAGE
from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.registry import Component, load_registry
from deepjudge_core.components.values import Decision
from deepjudge_core.errors import DeepJudgeError, FileFormatError, ModelError, UsageError, with_code
from deepjudge_core.files import storage
from deepjudge_core.files.reading import read_json
from deepjudge_core.judging.calibration import (
    LEAST_CONTROLS,
    Calibration,
    load_controls,
    save_calibration,
)
from deepjudge_core.judging.settings import CalibrationSettings
from deepjudge_core.observing.observe import QuerySettings, observe
from deepjudge_core.progress import watched
from deepjudge_core.report.audit_json import audit_report, dump
from deepjudge_core.report.documents import AUDIT, POWER, AuditReport
from deepjudge_core.suites.observation import load_observation, save_observation
from deepjudge_core.suites.suite import Suite, load_suite, save_suite
from deepjudge_core.zoo import manifest

_LARGEST_COLOURED = 2**18  # bytes of JSON
_SCHEMAS = (AUDIT, manifest.SCHEMA, POWER)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``deepjudge``; returns the exit status (see ``deepjudge --help``)."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # standard error is so already
        sys.stdout.reconfigure(errors="backslashreplace")  # of a terminal that does not know all characters of a name
    arguments = parse(argv)
    errors = display.console(stderr=True)
    log = display.log_told() if arguments.debug else contextlib.nullcontext()
    try:
        with watched(display.Bars()), _warnings_in_lines(), log:
            typed.check_written(arguments)
            return _COMMANDS[arguments.command](arguments)
    except DeepJudgeError as error:
        if arguments.debug:
            _trace(errors)
        for line in error.lines if isinstance(error, AuditFileError | CommitmentError) else [str(error)]:
            display.say(errors, f"deepjudge: {with_code(line, error)}")
        return USAGE if isinstance(error, UsageError) else FAILED
    except MemoryError as error:
        if arguments.debug:
            _trace(errors)
        display.say(errors, f"deepjudge: the memory does not hold what was asked for: {error}")
        return FAILED
    except Exception as error:
        # Python's own exit status would be 1, which says that a suspect is a copy.
        if arguments.debug:
            _trace(errors)
        display.say(errors, f"deepjudge: internal error (see --debug): {type(error).__name__}: {error}")
        return FAILED
    except KeyboardInterrupt:
        display.say(errors, "deepjudge: interrupted")
        return INTERRUPTED


def _trace(errors: Console) -> None:
    # Line by line: what libraries say may be what a file says.
    for line in traceback.format_exc().splitlines():
        display.say(errors, line)


@contextlib.contextmanager
def _warnings_in_lines() -> Iterator[None]:
    # Each warning that Python code gives, once; which are shown at all is up to Python's filters.
    told: set[str] = set()

    def tell(message: Warning | str, *_: object, **__: object) -> None:
        line = str(message).strip().partition("\n")[0]
        if line not in told:
            told.add(line)
            display.warn(line)

    with warnings.catch_warnings():
        warnings.showwarning = tell
        yield


def _suite(arguments: argparse.Namespace) -> int:
    session = typed.session(arguments)
    making = typed.making(arguments)
    query = QuerySettings(layout=arguments.input_layout)
    victim = ModelFile(arguments.victim, typed.opening(arguments), query=query)
    suite = make_suite(victim, typed.load(typed.inputs_file(arguments)), making, session=session)
    save_suite(arguments.output, suite)
    display.show_suite(display.console(), suite)
    return NO_COPY


def _observe(arguments: argparse.Namespace) -> int:
    suite = load_suite(arguments.suite)
    subject = ModelFile(arguments.model, typed.opening(arguments), query=typed.asking(arguments))
    with subject.opened(suite.victim.model.input, typed.session(arguments)) as model:
        observation = observe(model, suite, subject.query)
    save_observation(arguments.output, observation)
    display.show_observation(display.console(), observation)
    return NO_COPY


def _calibrate(arguments: argparse.Namespace) -> int:
    session = typed.session(arguments)
    suite = load_suite(arguments.suite)
    given = typed.controls(arguments, session)
    if not given:
        raise UsageError("expected at least one CONTROL, found none")
    controls = [replace(typed.subject(arguments, name), stratum=stratum) for name, stratum in given]
    for control in controls:
        control.check(suite)
    calibration = ask_controls(suite, controls, CalibrationSettings(arguments.match), session=session)
    save_calibration(arguments.output, calibration)
    _warn_of(calibration)
    out = display.console()
    display.show_calibration(out, calibration)
    display.show_control_notes(out, calibration)
    return FAILED if _has_failed(calibration) else NO_COPY


def _judge(arguments: argparse.Namespace) -> int:
    session, files = typed.session(arguments), exports.wanted(arguments, arguments.output)
    suite = load_suite(arguments.suite)
    judge = typed.judge(arguments, session)
    if arguments.calibration is None:
        calibration = judge.calibrate(suite, [])
    else:
        calibration = judge.load_calibration(arguments.calibration, suite)
    suspects = [typed.subject(arguments, name) for name in expand(arguments.suspects, session.registry.adapters)]
    sealed = seal_judged(arguments, judge, suite, calibration, session)
    session = replace(session, listener=sealed or session.listener)
    report = judge_suspects(suite, calibration, suspects, judge, session=session)
    # Neurons are matched once more for it: only where somebody reads it.
    document = audit_report(report) if arguments.json or sealed or files else None
    to_stdout = str(arguments.json) == "-"
    out = display.console(stderr=to_stdout)
    display.show_report(out, report)
    if document and to_stdout:
        sys.stdout.write(dump(document))
    elif document and arguments.json:
        storage.write_bytes(arguments.json, dump(document).encode())
    if document and sealed:
        _seal(sealed, document, arguments.output, arguments.without_observations, out)
    if document:
        exports.write(files, document, out)
    return _status(report)


def _audit(arguments: argparse.Namespace) -> int:
    session = Session(typed.registry())
    if "file" in arguments:
        return _run(read_plan(arguments.file, arguments.output, session), session)
    return _run(_plan(arguments, session), session)


class _ShownBundle(BundleSession):
    # Each part is kept, and shown, as soon as it is made.

    def on_suite(self, suite: Suite) -> None:
        display.show_suite(display.console(), suite)
        super().on_suite(suite)

    def on_calibration(self, calibration: Calibration) -> None:
        _warn_of(calibration)
        super().on_calibration(calibration)
        display.show_calibration(display.console(), calibration)


def _run(plan: Plan, session: Session) -> int:
    out, folder = display.console(), typed.folder(plan.output).absolute()
    with contextlib.chdir(plan.folder):
        sealed = _ShownBundle(plan.sealing, plan.judge, folder, session)
        sealed.spare([*plan.controls, *plan.suspects])
        report = audit(
            plan.victim,
            plan.suspects,
            typed.load(plan.inputs),
            controls=plan.controls,
            settings=AuditSettings(plan.making, CalibrationSettings(plan.match), plan.judge),
            session=replace(session, sandbox=plan.sandbox, listener=sealed),
        )
    display.show_report(out, report)
    document = audit_report(report)
    _seal(sealed, document, plan.output, plan.sealing.withhold, out)
    exports.write(plan.exports, document, out)
    return _status(report)


def _seal(sealed: BundleSession, report: AuditReport, folder: Path, withhold: bool, out: Console) -> None:
    sealed.finish(report)
    if withhold:
        display.say(out, f"withheld: {withheld_folder(folder)}: test cases and answers, for you to keep")
    display.say(out, f"report: {folder / 'report.json'}")


def _init(arguments: argparse.Namespace) -> int:
    write_example(arguments.file)
    display.say(display.console(), f"{arguments.file}: name your files in it, then: deepjudge audit {arguments.file}")
    return NO_COPY


def _listed(component: Component) -> dict[str, Any]:
    default = {"default": component.default} if isinstance(component, Metric) else {}
    return {"kind": display.kind(component), "name": component.name} | default


def _plugins(arguments: argparse.Namespace) -> int:
    registry = load_registry()
    if arguments.json:
        listed = [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "components": [_listed(component) for component in plugin.components],
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
        for control, stratum in zip_longest(controls.observations, controls.strata):
            display.show_observation(out, control)
            if stratum:
                display.say(out, f"stratum     {stratum}")
        for note in controls.notes:
            display.say(out, f"note        {note}")
        display.say(out, f"match       {controls.match}")
        display.say(out, f"suite       {controls.suite}")
    return NO_COPY


def _show_json(out: Console, path: Path) -> None:
    report = read_json(path, "a deepjudge report")
    if not isinstance(report, dict) or report.get("schema") not in _SCHEMAS:
        raise FileFormatError(f"{path}: expected one of {', '.join(_SCHEMAS)}, found other JSON")
    # Both escape what controls a terminal. Colours take 400 times as much memory as the text.
    if out.is_terminal and path.stat().st_size <= _LARGEST_COLOURED:
        out.print_json(data=report, ensure_ascii=True)
    else:
        json.dump(report, sys.stdout, indent=2)
        sys.stdout.write("\n")


def _plan(arguments: argparse.Namespace, session: Session) -> Plan:
    judge, making = typed.judge(arguments, session), typed.making(arguments)
    suspects = [typed.subject(arguments, name) for name in expand(arguments.suspects, session.registry.adapters)]
    # What is said of the suspects' files is not true of the controls.
    beside = typed.asking(arguments).of_controls()
    controls = [Subject.of(name, query=beside, stratum=stratum) for name, stratum in typed.controls(arguments, session)]
    for control in controls:
        if not Path(control.name).exists():  # said before the suite is made, which may take long
            raise ModelError(f"{control.name}: no such file")
    victim = ModelFile(arguments.victim, query=QuerySettings(layout=arguments.input_layout))
    return Plan(
        victim=victim,
        suspects=suspects,
        controls=controls,
        inputs=typed.inputs_file(arguments),
        making=making,
        match=arguments.match,
        judge=judge,
        sandbox=typed.sandbox(arguments),
        output=arguments.output,
        sealing=BundleSettings(arguments.commitment, arguments.key, arguments.without_observations, arguments.tsa),
        exports=exports.wanted(arguments, arguments.output),
    )


def _warn_of(calibration: Calibration) -> None:
    for note in calibration.notes:
        display.warn(note)
    if 0 < len(calibration.controls) < LEAST_CONTROLS:
        display.warn(f"{len(calibration.controls)} controls; a verdict needs at least {LEAST_CONTROLS}")


def _status(report: AuditOutcome) -> int:
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
    "commit": run_commit,
    "verify": run_verify,
    "init": _init,
    "zoo": run_zoo,
    "power": run_power,
    "report": exports.run_report,
    "plugins": _plugins,
    "show": _show,
}

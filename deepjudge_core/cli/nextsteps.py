"""What to type next, where an audit or a judgement could not say all."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.cli.plan import Plan
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import LEAST_CONTROLS

_PROGRAM = "deepjudge"
_DATA = "TRAIN.npz"


def needs_controls(outcome: AuditOutcome) -> bool:
    """Whether a verdict is open that controls could settle."""
    few = len(outcome.calibration.controls) < LEAST_CONTROLS
    return few and any(result.decision is Decision.INCONCLUSIVE for result in outcome.suspects)


def after_audit(plan: Plan, zoo: Path) -> Iterator[str]:
    """How an audit gets controls: a sentence, then lines for a shell.

    Args:
        plan: The audit.
        zoo: Where controls may go.
    """
    data = _DATA if plan.data is None else str(plan.data)
    yield from _why(plan.data is None)
    if plan.data is not None and plan.file is None:
        yield f"    {_line([*plan.words, '--make-controls'])}"
        return
    controls = zoo / "controls"
    making = ["zoo", *_victim(plan), "--data", data, "--controls-only", "--split", "1", "-o", str(zoo)]
    yield f"    {_line(making, plan.folder)}"
    if plan.file is None:
        yield f"    {_line([*plan.words, '--controls', str(controls)])}"
    else:
        yield f"    {_line(plan.words)}, with these lines in {plan.file.name}:"
        yield "    [[controls]]"
        yield f'    path = "{controls}"'


def after_judge(words: Sequence[str], suite: Path, victim: str) -> Iterator[str]:
    """How suspects that were judged without a calibration get one: a sentence, then lines for a shell.

    Args:
        words: What was typed.
        suite: The suite's file.
        victim: The victim's path.
    """
    yield from _why(True)
    calibration = "calibration.safetensors"
    yield f"    {_line(['zoo', victim, '--data', _DATA, '--suite', str(suite), '-o', 'zoo'])}"
    yield f"    {_line(['calibrate', str(suite), 'zoo/controls', '-o', calibration])}"
    yield f"    {_line([*words, '--calibration', calibration])}"


def _why(open_data: bool) -> Iterator[str]:
    yield f"next: without {LEAST_CONTROLS} controls, only an unchanged copy of the victim can be recognised"
    yield "  controls are models of the same task that do not come from the victim; name yours with --controls,"
    yield f"  or make some from the victim's training data{f' (here called {_DATA})' if open_data else ''}:"


def _victim(plan: Plan) -> Iterator[str]:
    # The victim, with all that says how it is opened and asked.
    yield plan.victim.name
    for name, value in plan.victim.options.items() if isinstance(plan.victim, ModelFile) else ():
        for text in [f"{key}={one:g}" for key, one in value.items()] if name == "fix" else [str(value)]:
            yield from (f"--{name}", text)
    query = plan.victim.query
    if query.layout:
        yield from ("--input-layout", query.layout)
    if query.preprocessing:
        yield from ("--victim-input", query.preprocessing.header().typed())
    if plan.inputs.scale not in (None, 1):
        yield from ("--scale", f"{plan.inputs.scale:g}")


def _line(words: Sequence[str], folder: Path = Path()) -> str:
    inside = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    return inside + shlex.join([_PROGRAM, *words])

"""What to type next, where an audit or a judgement could not say all."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from deepjudge_core.auditing.outcome import AuditOutcome, SuspectResult
from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.cli.plan import Plan
from deepjudge_core.components.strata import parts_of
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import LEAST_CONTROLS
from deepjudge_core.judging.exact import LOG10_LEVEL
from deepjudge_core.suites.inputs import TRAINING_KEYS, holds
from deepjudge_core.suites.suite import Suite

_PROGRAM = "deepjudge"
_DATA = "TRAIN"  # what the user's training data are called in the commands
_ZOO, _CONTROLS = "zoo", "CONTROLS"
_CALIBRATION = "calibration.safetensors"
_ANCESTOR, _SIBLINGS, _INPUTS = "BASE", "SIBLINGS", "DATA"
_SIBLING_CONTROLS = ("--stratum", f"common-ancestor={_SIBLINGS}")


def needs_controls(outcome: AuditOutcome) -> bool:
    """Whether a verdict is open that controls could settle."""
    few = outcome.calibration.effective < LEAST_CONTROLS
    return few and any(result.decision is Decision.INCONCLUSIVE for result in outcome.suspects)


def after_audit(plan: Plan, zoo: Path) -> Iterator[str]:
    """How an audit gets controls: a sentence, then lines for a shell.

    Args:
        plan: The audit.
        zoo: Where controls may go.
    """
    if plan.inputs.path is None:
        ancestor = plan.suite.ancestor is not None
        yield from _why_of_weights(ancestor=ancestor)
        if plan.file is None:
            yield f"    {_line([*plan.words, *(_SIBLING_CONTROLS if ancestor else ('--controls', _CONTROLS))])}"
        return
    data = plan.data or _training_data(plan, plan.inputs.path)
    yield from _why("" if data else _like(plan.inputs.path))
    if plan.data is not None and plan.file is None:
        yield f"    {_line([*plan.words, '--make-controls'])}"
        return
    controls = zoo / "controls"
    making = [
        "zoo",
        *_victim(plan),
        "--data",
        str(data or _like(plan.inputs.path)),
        "--controls-only",
        "--split",
        "1",
        "-o",
        str(zoo),
    ]
    yield f"    {_line(making, plan.folder)}"
    if plan.file is None:
        yield f"    {_line([*plan.words, '--controls', str(controls)])}"
    else:
        yield f"    {_line(plan.words)}, with these lines in {plan.file.name}:"
        yield "    [[controls]]"
        yield f'    path = "{controls}"'


def after_judge(words: Sequence[str], path: Path, suite: Suite) -> Iterator[str]:
    """How suspects that were judged without a calibration get one: a sentence, then lines for a shell.

    Args:
        words: What was typed.
        path: The suite's file.
        suite: The suite.
    """
    if suite.has_cases:
        yield from _why(_of(suite), "calibrate with yours")
    else:
        yield from _why_of_weights(ancestor=suite.ancestor is not None)
    yield from _calibrating(path, suite, ())
    yield f"    {_line([*_without(words, '--calibration'), '--calibration', _CALIBRATION])}"


def after_compare(words: Sequence[str], outcome: AuditOutcome) -> Iterator[str]:
    """What says more of suspects whose weights were compared: sentences, and lines for a shell.

    Args:
        words: What was typed.
        outcome: What came of it.
    """
    known = outcome.suite.ancestor is not None
    unclear = [result for result in outcome.suspects if result.decision is Decision.INCONCLUSIVE]
    explained = [result for result in unclear if _has_the_order(result)]
    if not known and (explained or any(result.points_to == "descent" for result in outcome.suspects)):
        yield (
            "next: if your model was made from another one, such as a public base model, name it with --ancestor: what "
            "a suspect has in common with that one, too, then accuses nobody"
        )
        yield f"    {_line([*words, '--ancestor', _ANCESTOR])}"
    siblings = sum("common-ancestor" in parts_of(stratum) for stratum in outcome.calibration.strata)
    if known and explained and siblings < LEAST_CONTROLS:
        yield from _why_of_weights(ancestor=True)
        yield f"    {_line([*words, *_SIBLING_CONTROLS])}"
    open_to_controls = [one for one in unclear if one not in explained and _measured(one)]
    if open_to_controls and outcome.calibration.effective < LEAST_CONTROLS:
        yield (
            f"next: give at least {LEAST_CONTROLS} controls, independent models of the same kind: distances are then "
            "judged, too, and find weights whose neurons were put into another order"
        )
        yield f"    {_line([*words, '--controls', _CONTROLS])}"
    if not all(map(_measured, unclear)):
        yield "next: weights of another shape cannot be compared; answers and layers can, if both are classifiers"
        yield f"    {_line(['audit', *_models(outcome), '--inputs', _INPUTS])}"


def _measured(result: SuspectResult) -> bool:
    return any(one.value is not None for one in result.metrics.values())


def _has_the_order(result: SuspectResult) -> bool:
    # An exact test finds the victim's order in it.
    chances = (one.chance for one in (result.measurements or {}).values())
    return any(chance is not None and chance.log10_p <= LOG10_LEVEL for chance in chances)


def _models(outcome: AuditOutcome) -> list[str]:
    unclear = [one for one in outcome.suspects if one.decision is Decision.INCONCLUSIVE]
    apart = [one.path for one in unclear if not _measured(one)]
    return [outcome.suite.victim.model.name, *apart]


def after_calibrate(controls: Sequence[str], path: Path, suite: Suite) -> Iterator[str]:
    """How a calibration gets enough controls: a sentence, then lines for a shell.

    Args:
        controls: What was named as controls.
        path: The suite's file.
        suite: The suite.
    """
    if suite.has_cases:
        yield from _why(_of(suite), "name yours as well" if controls else "name yours")
    else:
        yield from _why_of_weights(ancestor=suite.ancestor is not None)
    yield from _calibrating(path, suite, controls)


def making_controls(suite: Suite) -> str:
    """The command that makes controls for a suite."""
    victim, preparing = suite.victim, list[str]()
    if victim.preprocessing:
        preparing = ["--victim-input", victim.preprocessing.header().typed()]
    more = ("--controls-only", "--split", "1", "-o", _ZOO)
    return _line(["zoo", victim.model.name, *preparing, "--data", _of(suite), *more])


def _calibrating(path: Path, suite: Suite, controls: Sequence[str]) -> Iterator[str]:
    made = [f"{_ZOO}/controls" if suite.has_cases else _CONTROLS]
    if suite.has_cases:
        yield f"    {making_controls(suite)}"
    elif suite.ancestor is not None:
        made = [*_SIBLING_CONTROLS]
    yield f"    {_line(['calibrate', str(path), *controls, *made, '-o', _CALIBRATION])}"


def _without(words: Sequence[str], option: str) -> Iterator[str]:
    # What was typed, without an option and its value.
    skip = False
    for word in words:
        if not skip and word != option and not word.startswith(f"{option}="):
            yield word
        skip = not skip and word == option


def _of(suite: Suite) -> str:
    return _like(Path(suite.origin.path) if suite.origin else Path())


def _like(inputs: Path) -> str:
    # Training data are probably of the same form as the inputs: a file of this kind, or a folder.
    return f"{_DATA}{inputs.suffix}"


def _training_data(plan: Plan, path: Path) -> Path | None:
    # Beside the inputs there are often those that the victim was trained on.
    return path if holds(plan.folder / path, TRAINING_KEYS[0]) else None


def _why(unknown: str, yours: str = "name yours with --controls") -> Iterator[str]:
    yield f"next: without {LEAST_CONTROLS} controls, only the plainest copies of the victim can be recognised"
    yield f"  controls are models of the same task that do not come from the victim; {yours},"
    yield f"  or make some from the victim's training data{f' (here called {unknown})' * bool(unknown)}:"


def _why_of_weights(*, ancestor: bool) -> Iterator[str]:
    if ancestor:
        yield f"next: what your model added to its ancestor is found with at least {LEAST_CONTROLS} controls that were"
        yield f"  made from that ancestor, too, and not from your model (here called {_SIBLINGS}):"
        return
    yield f"next: without {LEAST_CONTROLS} controls, weights accuse by the order of their neurons alone"
    yield f"  controls are models of the same kind that do not come from the victim (here called {_CONTROLS}):"


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

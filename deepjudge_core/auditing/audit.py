"""The whole flow: victim and suspects in, a report out."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.outcome import QueryEvent, Report, SuspectResult
from deepjudge_core.auditing.subject import Subject, begin_each
from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.components.strata import Stratum
from deepjudge_core.errors import CalibrationError, DeepJudgeError, UsageError
from deepjudge_core.judging.calibration import Calibration, calibrate, check_not_a_control
from deepjudge_core.judging.fdr import judge_fleet
from deepjudge_core.judging.judge import Verdict, doubtful_controls, judge
from deepjudge_core.judging.measure import Measurements, measure
from deepjudge_core.judging.neurons import DEFAULT_MATCH, Match
from deepjudge_core.judging.sequential import judge_sequentially
from deepjudge_core.judging.settings import JudgeSettings, check_judging
from deepjudge_core.models.model import InputSpec
from deepjudge_core.observing.observe import accuracy_on_seeds
from deepjudge_core.sandbox.policy import DEFAULT_SANDBOX, Sandbox
from deepjudge_core.suites.generation import SuiteSettings, build_suite, resolve_generators
from deepjudge_core.suites.inputs import Inputs
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.seeds import select_seeds
from deepjudge_core.suites.suite import Suite
from deepjudge_core.zoo.manifest import recorded_stratum


def _untold(asked: QueryEvent) -> None:
    pass


def make_suite(
    victim: Any,
    inputs: Inputs,
    making: SuiteSettings | None = None,
    *,
    sandbox: Sandbox | None = DEFAULT_SANDBOX,
    registry: Registry | None = None,
) -> Suite:
    """Open the victim, select seeds and make test cases from them.

    Args:
        victim: The owner's model: a path, a live model, or a :class:`Subject`.
        inputs: What seeds are selected from.
        making: How.
        sandbox: How a victim's file is confined; None to open it in this process.
        registry: Where the components are; by default every installed one.

    Raises:
        DeepJudgeError: When the victim or the inputs cannot be used.
    """
    registry, making, victim = registry or load_registry(), making or SuiteSettings(), Subject.of(victim)
    # Before the victim is run, which may take long.
    resolve_generators(making.generators, making.options, registry)
    expected = InputSpec(inputs.x.shape[1:], layout=inputs.layout)
    with victim.opened(expected, registry, sandbox, gradients=True) as owner:
        seeds = select_seeds(
            owner,
            inputs.x,
            inputs.y,
            n=making.n,
            order=making.order,
            bounds=inputs.bounds,
            layout=inputs.layout,
            victim_layout=victim.asking.layout,
        )
        return build_suite(
            owner,
            seeds,
            making.generators,
            training_inputs=inputs.training,
            layout=inputs.layout,
            layers=making.layers,
            options=making.options,
            seed=making.seed,
            registry=registry,
        )


def ask_controls(
    suite: Suite,
    controls: Iterable[Any],
    metrics: Iterable[str] | None = None,
    *,
    match: Match = DEFAULT_MATCH,
    sandbox: Sandbox | None = DEFAULT_SANDBOX,
    registry: Registry | None = None,
    asked: Callable[[QueryEvent], None] = _untold,
) -> Calibration:
    """Let the controls answer, and measure them.

    Args:
        suite: The suite.
        controls: Models known to be independent of the victim, as paths, live models, or :class:`Subject`. The stratum
            of one that does not say is what the ``zoo.json`` beside it records.
        metrics: Names, "all" for every installed one; by default those that are taken without a name.
        match: How neurons are put beside the victim's.
        sandbox: How models' files are confined; None to open them in this process.
        registry: Where the components are; by default every installed one.
        asked: Called of each control as soon as it has answered.

    Raises:
        DeepJudgeError: When a control cannot be used.
    """
    registry, known = registry or load_registry(), [Subject.of(control) for control in controls]
    strata = [control.stratum or _recorded(control) for control in known]
    answers = []
    with contextlib.closing(begin_each(known, suite, registry, sandbox)) as begun:
        for control, answer in zip(known, begun, strict=True):
            answers.append(answer())
            asked(QueryEvent("control", control, answers[-1]))
    return calibrate(suite, answers, metrics, match=match, strata=strata, registry=registry)


def _recorded(control: Subject) -> Stratum | None:
    return recorded_stratum(Path(control.source)) if isinstance(control.source, str | Path) else None


def judge_suspects(
    suite: Suite,
    calibration: Calibration,
    suspects: Iterable[Any],
    judging: JudgeSettings,
    *,
    sandbox: Sandbox | None = DEFAULT_SANDBOX,
    registry: Registry | None = None,
    asked: Callable[[QueryEvent], None] = _untold,
) -> Report:
    """Judge suspects, each by itself: one that fails does not keep the others from being judged.

    Args:
        suite: The suite.
        calibration: The controls; without any, values are given and the verdict is inconclusive.
        suspects: Paths of models or stored observations, live models, observations, or any of these as a
            :class:`Subject`, which says how it is opened and asked.
        judging: How.
        sandbox: How suspects' files are confined; None to open them in this process.
        registry: Where the components are; by default every installed one.
        asked: Called of each suspect as soon as it has answered all cases or failed to.

    Raises:
        UsageError: For a name or option in ``judging`` that does not exist, an option with an impossible value, or a
            suspect that is to be asked for what the suite does not have.
    """
    registry = registry or load_registry()
    options = check_judging(judging, registry)
    subjects = [Subject.of(suspect) for suspect in suspects]
    for subject in subjects:
        subject.check(suite)
    if judging.sequential:
        ask = partial(_ask_one_by_one, suite, calibration, judging, options, sandbox=sandbox, registry=registry)
        return Report(suite, calibration, judging.rule, options, judging.groups, tuple(map(ask, subjects)))
    with contextlib.closing(begin_each(subjects, suite, registry, sandbox)) as begun:
        results = tuple(
            _judge_one(suite, calibration, subject, answer, judging, registry, asked)
            for subject, answer in zip(subjects, begun, strict=True)
        )
    if judging.fdr is not None:
        results = _judge_together(results, calibration, judging, judging.fdr, registry)
    doubts = doubtful_controls(
        calibration, judging.rule, options=judging.rule_options, groups=judging.groups, registry=registry
    )
    metrics = tuple(registry.metrics.select(judging.metrics))
    return Report(suite, calibration, judging.rule, options, judging.groups, results, doubts, metrics, judging.fdr)


def audit(
    victim: Any,
    suspects: Iterable[Any],
    inputs: Inputs,
    *,
    controls: Iterable[Any] = (),
    making: SuiteSettings | None = None,
    match: Match = DEFAULT_MATCH,
    judging: JudgeSettings | None = None,
    sandbox: Sandbox | None = DEFAULT_SANDBOX,
    registry: Registry | None = None,
    made: Callable[[Suite], None] = lambda suite: None,
    asked: Callable[[QueryEvent], None] = _untold,
    calibrated: Callable[[Calibration], None] = lambda calibration: None,
) -> Report:
    """Audit suspects in one go: suite, controls, verdicts.

    A model is a path or a live model, or a :class:`Subject`, which says how it is opened and asked.

    Args:
        victim: The owner's model.
        suspects: What is judged; stored observations too.
        inputs: What seeds are selected from.
        controls: Models known to be independent of the victim, at least 3 for a verdict.
        making: How the suite is made.
        match: How neurons of controls and suspects are put beside the victim's.
        judging: How suspects are judged.
        sandbox: How models' files are confined; None to open them in this process.
        registry: Where the components are; by default every installed one.
        made: Called with the suite as soon as it is made; what follows may take long, or fail.
        asked: Called of each control and each suspect as soon as it has answered, and of suspects that fail to.
        calibrated: Called with the calibration as soon as the controls have answered.

    Raises:
        DeepJudgeError: When the victim, the inputs or a control cannot be used.
    """
    registry, judging = registry or load_registry(), judging or JudgeSettings()
    check_judging(judging, registry)
    if judging.sequential:
        raise UsageError(
            "expected an audit of all answers, found one that asks case by case: judge suspects by a suite"
        )
    known, judged = [Subject.of(control) for control in controls], [Subject.of(suspect) for suspect in suspects]
    suite = make_suite(victim, inputs, making, sandbox=sandbox, registry=registry)
    made(suite)
    for subject in (*known, *judged):
        subject.check(suite)
    calibration = ask_controls(
        suite, known, judging.metrics, match=match, sandbox=sandbox, registry=registry, asked=asked
    )
    calibrated(calibration)
    return judge_suspects(suite, calibration, judged, judging, sandbox=sandbox, registry=registry, asked=asked)


def _judge_one(
    suite: Suite,
    calibration: Calibration,
    suspect: Subject,
    answer: Callable[[], Observation],
    judging: JudgeSettings,
    registry: Registry,
    asked: Callable[[QueryEvent], None],
) -> SuspectResult:
    path = suspect.name
    try:
        seen = answer()
    except DeepJudgeError as error:
        asked(QueryEvent("suspect", suspect, None, str(error)))
        return SuspectResult(path, failure=str(error))
    asked(QueryEvent("suspect", suspect, seen))
    result = SuspectResult(path, seen.model, seen=seen)
    try:
        measurements = measure(suite, seen, judging.metrics, match=calibration.match, registry=registry)
        check_not_a_control(calibration, seen)
        verdict = judge(
            measurements,
            calibration,
            judging.rule,
            options=judging.rule_options,
            groups=judging.groups,
            registry=registry,
        )
    except UsageError:  # an impossible value of a rule's option
        raise
    except DeepJudgeError as error:
        return replace(result, failure=str(error))
    errors = tuple(f"{name}: {m.reason}" for name, m in measurements.items() if m.failed)
    accuracy = accuracy_on_seeds(suite, seen)
    return replace(result, accuracy=accuracy, measurements=measurements, verdict=verdict, errors=errors)


def _ask_one_by_one(
    suite: Suite,
    calibration: Calibration,
    judging: JudgeSettings,
    options: Mapping[str, Any],
    suspect: Subject,
    *,
    sandbox: Sandbox | None,
    registry: Registry,
) -> SuspectResult:
    result = SuspectResult(suspect.name)
    try:
        with suspect.labelling(suite, registry, sandbox) as (model, label):
            result = replace(result, model=model)
            if model.digest in {control.model.digest for control in calibration.controls}:
                raise CalibrationError(f"{model.name}: expected a suspect, found a control; a model cannot be both")
            verdict, questioning = judge_sequentially(
                suite, calibration, label, judging.rule, options, budget=judging.budget, registry=registry
            )
    except UsageError:
        raise
    except DeepJudgeError as error:
        return replace(result, failure=str(error))
    return replace(result, verdict=verdict, questioning=questioning)


def _judge_together(
    results: tuple[SuspectResult, ...], calibration: Calibration, judging: JudgeSettings, fdr: float, registry: Registry
) -> tuple[SuspectResult, ...]:
    # Again, all that could be judged by themselves, each at the level that the others leave it.
    def at(measurements: Measurements, level: float) -> Verdict:
        options = {**(judging.rule_options or {}), "level": level}
        return judge(measurements, calibration, judging.rule, options=options, groups=judging.groups, registry=registry)

    judges = [None if found.measurements is None else partial(at, found.measurements) for found in results]
    verdicts, fleet = judge_fleet(judges, fdr)
    return tuple(
        replace(found, verdict=verdict, tested=tested)
        for found, verdict, tested in zip(results, verdicts, fleet.suspects, strict=True)
    )

"""What an audit with a suite would see: how many stolen models of a zoo it notices, how many controls it accuses."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from deepjudge_core import progress
from deepjudge_core.auditing.subject import Subject, begin_each
from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.components.values import Decision, Group
from deepjudge_core.errors import CalibrationError, DeepJudgeError, UsageError
from deepjudge_core.judging.calibration import LEAST_CONTROLS, Calibration, calibrate
from deepjudge_core.judging.judge import GROUPS, Verdict, judge
from deepjudge_core.judging.measure import Measurements, measure
from deepjudge_core.judging.neurons import DEFAULT_MATCH, Match
from deepjudge_core.judging.settings import JudgeSettings, check_judging
from deepjudge_core.sandbox.policy import DEFAULT_SANDBOX, Sandbox
from deepjudge_core.suites.observation import Observation, load_observation, save_observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array
from deepjudge_core.zoo.manifest import Zoo, ZooModel, is_kept

CONFIDENCE = 0.95
"""Of the intervals of shares."""


@dataclass(frozen=True)
class Share:
    """So many of so many, and between which shares the truth lies (Clopper & Pearson, 1934; 95 %, two-sided)."""

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """Least and greatest share, 0..1; all of it where nothing was counted."""
        if not self.of:
            return 0.0, 1.0
        found = scipy.stats.binomtest(self.count, self.of).proportion_ci(CONFIDENCE, method="exact")
        return float(found.low), float(found.high)


@dataclass(frozen=True, eq=False)
class JudgedModel:
    """One model of the zoo, judged.

    Attributes:
        model: Which.
        measurements: Its values.
        verdict: Of a control, by the other controls alone; None with its ``failure``.
        failure: Why it could not be judged: one line.
        counts: Whether it is one of those that shares and areas are taken over.
    """

    model: ZooModel
    measurements: Measurements | None = None
    verdict: Verdict | None = None
    failure: str | None = None
    counts: bool = True


@dataclass(frozen=True, eq=False)
class AttackPower:
    """How well thefts by one attack are noticed.

    Models whose accuracy is far below the victim's do not count, unless they were asked for.

    Attributes:
        attack: Its name.
        copies: Stolen models that are judged copies, of those judged.
        groups: The same in each setting: black-box and white-box.
        inconclusive: Of those judged, those of which nothing could be said.
        left_out: Models that do not count.
        auc: Metric name to the area under its ROC curve, stolen models against controls: the share of pairs in which
            the stolen model is nearer to the victim, 0..1; None where it could not be measured.
    """

    attack: str
    copies: Share
    groups: Mapping[Group, Share]
    inconclusive: int
    left_out: int
    auc: Mapping[str, float | None]


@dataclass(frozen=True, eq=False)
class Power:
    """What was found.

    Attributes:
        suite: The suite.
        zoo: The zoo.
        calibration: All controls that thresholds are taken from.
        judging: How it was judged.
        rule_options: All options of the rule.
        judged: Every model, those that do not count too: stolen ones by all controls, each control by the others.
        attacks: By attack, in the order of the zoo.
        accused: Controls that the others judge copies, of those that were held out so.
    """

    suite: Suite
    zoo: Zoo
    calibration: Calibration
    judging: JudgeSettings
    rule_options: Mapping[str, Any]
    judged: tuple[JudgedModel, ...]
    attacks: tuple[AttackPower, ...]
    accused: Share

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each model that could not be judged."""
        return tuple(f"{found.model.file}: {found.failure}" for found in self.judged if found.failure)


def estimate_power(
    suite: Suite,
    zoo: Zoo,
    judging: JudgeSettings | None = None,
    *,
    match: Match = DEFAULT_MATCH,
    far: bool = False,
    observations: Path | None = None,
    sandbox: Sandbox | None = DEFAULT_SANDBOX,
    registry: Registry | None = None,
) -> Power:
    """Judge every model of a zoo.

    Args:
        suite: The suite of the zoo's victim.
        zoo: From :func:`~deepjudge_core.zoo.manifest.load_zoo`.
        judging: How.
        match: How neurons are put beside the victim's.
        far: Whether models whose accuracy is far below the victim's count.
        observations: A folder in which answers are kept, so that they need not be asked for again.
        sandbox: How the zoo's files are confined; None to open them in this process.
        registry: Where the components are; by default every installed one.

    Raises:
        CalibrationError: When there are fewer than three controls, or one is the victim.
        UsageError: When the suite is another victim's, or the judging is wrong.
    """
    registry, judging = registry or load_registry(), judging or JudgeSettings()
    options = check_judging(judging, registry)
    if judging.sequential:
        raise UsageError("expected models that answer all cases, found a judgement that asks case by case")
    if judging.fdr is not None:
        raise UsageError(
            "expected models judged each by itself, found a false discovery rate: what it finds depends on who else is "
            "judged; a lone copy among n suspects is judged at the level fdr / n"
        )
    if suite.victim.model.digest != zoo.victim.digest:
        raise UsageError(
            f"{zoo.folder}: expected a zoo of the suite's victim {suite.victim.model.name}, "
            f"found one of {zoo.victim.path} with another digest"
        )
    controls = zoo.of("control", far=far)
    if len(controls) < LEAST_CONTROLS:
        raise CalibrationError(
            f"{zoo.folder}: expected at least {LEAST_CONTROLS} controls whose accuracy is near the victim's, "
            f"found {len(controls)}: make more with 'deepjudge zoo', or train them longer"
        )
    others = tuple(model for model in zoo.models if model not in controls)
    with progress.task("asking the zoo", len(zoo.models)) as advance:
        answers = []
        for answer in _answers(suite, zoo, (*controls, *others), observations, sandbox, registry):
            answers.append(answer)
            advance(1)
    failed = [f"{m.file}: {found}" for m, found in zip(controls, answers, strict=False) if isinstance(found, str)]
    if failed:
        raise CalibrationError(f"{zoo.folder}: a control cannot be asked: {failed[0]}")
    seen = [found for found in answers[: len(controls)] if isinstance(found, Observation)]
    strata = [model.stratum for model in controls]
    calibration = calibrate(suite, seen, judging.metrics, match=match, strata=strata, registry=registry)
    held = {id(control): place for place, control in enumerate(calibration.controls)}
    judged = []
    for model, answer in zip((*controls, *others), answers, strict=True):
        place = held.get(id(answer))
        if model in controls and place is None:  # the same model twice: it counts once
            continue
        by = calibration if place is None else calibration.without(place)
        found = _judge(suite, model, answer, by, judging, registry)
        judged.append(replace(found, counts=far or not model.far))
    names = [metric.name for metric in registry.metrics.select(judging.metrics)]
    return Power(
        suite=suite,
        zoo=zoo,
        calibration=calibration,
        judging=judging,
        rule_options=options,
        judged=tuple(judged),
        attacks=tuple(_by_attack(judged, names)),
        accused=_share(f.verdict for f in judged if f.counts and f.model.kind == "control" and _was_judged(f)),
    )


def area(stolen: Array, controls: Array) -> float | None:
    """Area under the ROC curve of a distance: the share of pairs in which the stolen one is less, ties counting half.

    None where one of the two is empty (Hanley & McNeil, 1982).
    """
    if not len(stolen) or not len(controls):
        return None
    less, same = ((compare(stolen[:, None], controls)).mean() for compare in (np.less, np.equal))
    return float(less + same / 2)


def values(judged: Iterable[JudgedModel], metric: str) -> Array:
    """``(n,)`` a metric's values over the models that it could be measured on."""
    found = (one.measurements[metric].value for one in judged if one.measurements and metric in one.measurements)
    return np.array([value for value in found if value is not None], dtype=np.float64)


def _answers(
    suite: Suite,
    zoo: Zoo,
    models: Sequence[ZooModel],
    folder: Path | None,
    sandbox: Sandbox | None,
    registry: Registry,
) -> Iterator[Observation | str]:
    # Of each its answers, stored ones where there are any; or why there are none.
    kept = [folder and folder / f"{zoo.path(model).stem}-{model.digest[:12]}.safetensors" for model in models]
    subjects = [_subject(suite, zoo, model, path) for model, path in zip(models, kept, strict=True)]
    asked = [subject for subject in subjects if isinstance(subject, Subject)]
    with contextlib.closing(begin_each(asked, suite, registry, sandbox)) as begun:
        for subject, path in zip(subjects, kept, strict=True):
            if isinstance(subject, str):
                yield subject
                continue
            try:
                seen = next(begun)()
                if path and not subject.is_stored:
                    save_observation(path, seen)
            except DeepJudgeError as error:
                yield str(error)
            else:
                yield seen


def _subject(suite: Suite, zoo: Zoo, model: ZooModel, kept: Path | None) -> Subject | str:
    if not is_kept(zoo, model):
        return "expected the file that 'deepjudge zoo' made, found none or another: make it again"
    try:
        stored = load_observation(kept) if kept and kept.is_file() else None
    except DeepJudgeError as error:
        return str(error)
    return Subject(stored if stored and stored.suite == suite.digest else zoo.path(model))


def _judge(
    suite: Suite,
    model: ZooModel,
    answer: Observation | str,
    calibration: Calibration,
    judging: JudgeSettings,
    registry: Registry,
) -> JudgedModel:
    if isinstance(answer, str):
        return JudgedModel(model, failure=answer)
    try:
        measured = measure(suite, answer, judging.metrics, match=calibration.match, registry=registry)
        verdict = judge(
            measured,
            calibration,
            judging.rule,
            options=judging.rule_options,
            groups=judging.groups,
            registry=registry,
        )
    except UsageError:
        raise
    except DeepJudgeError as error:
        return JudgedModel(model, failure=str(error))
    return JudgedModel(model, measured, verdict)


def _by_attack(judged: Sequence[JudgedModel], metrics: Sequence[str]) -> Iterable[AttackPower]:
    counted = [found for found in judged if found.counts]
    controls = [found for found in counted if found.model.kind == "control"]
    for attack in dict.fromkeys(found.model.attack for found in judged if found.model.attack):
        stolen = [found for found in counted if found.model.attack == attack]
        verdicts = [found.verdict for found in stolen if found.verdict]
        yield AttackPower(
            attack=attack,
            copies=_share(verdicts),
            groups={
                group: Share(sum(v.settings[group].decision is Decision.COPY for v in verdicts), len(verdicts))
                for group in GROUPS
            },
            inconclusive=sum(verdict.decision is Decision.INCONCLUSIVE for verdict in verdicts),
            left_out=sum(found.model.attack == attack and not found.counts for found in judged),
            auc={metric: area(values(stolen, metric), values(controls, metric)) for metric in metrics},
        )


def _was_judged(found: JudgedModel) -> bool:
    # A control that too few others are left to judge is no example of one that is not accused.
    return found.verdict is not None and found.verdict.decision is not Decision.INCONCLUSIVE


def _share(verdicts: Iterable[Verdict | None]) -> Share:
    decisions = [verdict.decision for verdict in verdicts if verdict]
    return Share(decisions.count(Decision.COPY), len(decisions))

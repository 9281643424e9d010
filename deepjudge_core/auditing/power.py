"""What an audit with a suite would see: how many stolen models of a zoo it notices, how many controls it accuses."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from msgspec import structs

from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import KnownAnswers, ModelFile, Subject, answer_each, check_device, turns
from deepjudge_core.components.attack import Attack
from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.registry import Catalogue
from deepjudge_core.components.values import Decision, Group
from deepjudge_core.errors import CalibrationError, DeepJudgeError, UsageError
from deepjudge_core.files.digests import of_file
from deepjudge_core.judging.calibration import LEAST_CONTROLS, Calibration
from deepjudge_core.judging.judge import ALL_GROUPS, GROUPS, Judge, Verdict
from deepjudge_core.judging.measure import Measurements
from deepjudge_core.judging.neurons import DEFAULT_MATCH, Match
from deepjudge_core.naming import option
from deepjudge_core.sheets import Sheet, Shown, page_of
from deepjudge_core.suites.observation import Observation, load_observation, save_observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array
from deepjudge_core.zoo.manifest import Zoo, ZooModel, is_kept, save_zoo

CONFIDENCE = 0.95
"""Of the intervals of shares."""


@dataclass(frozen=True)
class Share:
    """So many of so many, and between which shares the truth lies (Clopper & Pearson, 1934; 95 %, two-sided)."""

    count: int
    of: int

    def __str__(self) -> str:
        return f"{self.count} of {self.of}"

    @property
    def interval(self) -> tuple[float, float]:
        """Least and greatest share, 0..1; all of it where nothing was counted."""
        if not self.of:
            return 0.0, 1.0
        from scipy.stats import binomtest  # by itself it takes longer than all else that a command loads

        interval = binomtest(self.count, self.of).proportion_ci(CONFIDENCE, method="exact")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True, eq=False)
class ZooModelResult:
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
        undecided: As ``inconclusive``, in each setting.
        title: What the thief did; empty if the attack does not say, or is not installed.
    """

    attack: str
    copies: Share
    groups: Mapping[Group, Share]
    inconclusive: int
    left_out: int
    auc: Mapping[str, float | None]
    undecided: Mapping[Group, int] = field(default_factory=dict)
    title: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class PowerEstimate(Shown):
    """How much of a zoo an audit sees.

    Attributes:
        suite: The suite.
        zoo: The zoo.
        calibration: All controls that thresholds are taken from.
        judge: By what was judged.
        results: Of every model, those that do not count too: stolen ones by all controls, each control by the others.
        attacks: By attack, in the order of the zoo.
        accused: Controls that the others judge copies, of those that were held out so.
    """

    suite: Suite
    zoo: Zoo
    calibration: Calibration
    judge: Judge
    results: tuple[ZooModelResult, ...]
    attacks: tuple[AttackPower, ...]
    accused: Share

    def sheet(self) -> Sheet:
        """See :class:`~deepjudge_core.sheets.Shown`."""
        rows = [
            (
                attack.attack,
                str(attack.copies),
                *(str(attack.groups[group]) for group in attack.groups),
                str(attack.inconclusive),
                str(attack.left_out),
            )
            for attack in self.attacks
        ]
        groups = list(self.attacks[0].groups) if self.attacks else []
        facts = {
            "victim": self.suite.victim.model.name,
            "zoo": str(self.zoo.folder),
            "controls": str(len(self.calibration.controls)),
            "rule": self.judge.rule.name,
            "accused": f"{self.accused} controls by the others, though honest",
            "failed": self.failures,
        }
        return Sheet("power of an audit", facts, ("attack", "found", *groups, "inconclusive", "left out"), rows)

    def to_html(self) -> str:
        """The report, as ``deepjudge power`` writes it."""
        return page_of(self)

    @property
    def undecided_controls(self) -> int:
        """Controls of which the others can say nothing."""
        return sum(
            one.verdict is not None and not _was_judged(one)
            for one in self.results
            if one.counts and one.model.kind == "control"
        )

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each reason why models could not be judged, and for each metric that failed."""
        reasons: dict[str, str] = {}
        files: dict[str, list[str]] = {}
        for result in self.results:
            # The numbers in what a metric says differ from model to model.
            said = {name: f"{name}: {m.reason}" for name, m in (result.measurements or {}).items() if m.failed}
            if result.failure:
                said[result.failure] = result.failure
            for about, reason in said.items():
                reasons.setdefault(about, reason)
                files.setdefault(about, []).append(result.model.file)
        return tuple(f"{_first(files[about])}: {reason}" for about, reason in reasons.items())


def estimate_power(
    suite: Suite,
    zoo: Zoo,
    judge: Judge,
    *,
    match: Match = DEFAULT_MATCH,
    far: bool = False,
    observations: Path | None = None,
    session: Session | None = None,
) -> PowerEstimate:
    """Judge every model of a zoo; see :func:`compare_rules`."""
    [power] = compare_rules(suite, zoo, [judge], match=match, far=far, observations=observations, session=session)
    return power


def compare_rules(
    suite: Suite,
    zoo: Zoo,
    judges: Sequence[Judge],
    *,
    match: Match = DEFAULT_MATCH,
    far: bool = False,
    observations: Path | None = None,
    session: Session | None = None,
) -> tuple[PowerEstimate, ...]:
    """Judge every model of a zoo by several rules. Each model is asked and measured once.

    Args:
        suite: The suite of the zoo's victim.
        zoo: From :func:`~deepjudge_core.zoo.manifest.load_zoo`.
        judges: At least one; they differ in rule and options alone.
        match: How neurons are put beside the victim's.
        far: Whether models whose accuracy is far below the victim's count.
        observations: A folder in which answers are kept, so that they need not be asked for again, with a ``zoo.json``
            that says of which models they are.
        session: Where the adapters are, and how the zoo's files are confined.

    Returns:
        What each judge sees, in their order.

    Raises:
        CalibrationError: When there are fewer than three controls, or one is the victim.
        UsageError: When the suite is another victim's, or models are not to be judged each by itself.
    """
    session, judge = session or Session(), judges[0]
    if any(one.metrics != judge.metrics for one in judges):
        raise UsageError("expected rules that judge by the same metrics, found others", code="conflict")
    if judge.settings.sequential:
        raise UsageError(
            "expected models that answer all cases, found sequential judging, which asks case by case", code="conflict"
        )
    if judge.settings.fdr is not None:
        raise UsageError(
            "expected each model to be judged alone, found a false discovery rate, whose result "
            "depends on the other suspects; a lone copy among n suspects is judged at the level fdr "
            "/ n",
            code="conflict",
        )
    if suite.victim.model.digest != zoo.victim.digest:
        raise UsageError(
            f"{zoo.folder}: expected a zoo of the suite's victim {suite.victim.model.name}, found one "
            f"of {zoo.victim.path} with another digest",
            code="conflict",
        )
    ours = suite.victim.preprocessing.header() if suite.victim.preprocessing else None
    theirs = zoo.victim.preprocessing or None
    if ours != theirs:
        raise UsageError(
            f"{zoo.folder}: expected a zoo whose models take inputs like the suite's victim, prepared "
            f"by {ours or 'nothing'}, found {theirs or 'nothing'}; make both with the same "
            f"{option('preprocessing')}",
            code="conflict",
        )
    controls = zoo.of("control", far=far)
    if len(controls) < LEAST_CONTROLS:
        raise CalibrationError(
            f"{zoo.folder}: expected at least {LEAST_CONTROLS} controls with an accuracy near the "
            f"victim's, found {len(controls)}; make more with 'deepjudge zoo', or train them longer"
        )
    others = tuple(model for model in zoo.models if model not in controls)
    answers = list(_answers(suite, zoo, (*controls, *others), observations, session))
    if observations is not None:
        _describe(zoo, (*controls, *others), observations)
    failures = [f"{m.file}: {answer}" for m, answer in zip(controls, answers, strict=False) if isinstance(answer, str)]
    if failures:
        raise CalibrationError(f"{zoo.folder}: a control cannot be asked: {failures[0]}")
    calibration = judge.calibrate(
        suite,
        [answer for answer in answers[: len(controls)] if isinstance(answer, Observation)],
        match=match,
        strata=[model.stratum for model in controls],
        far=True,  # the zoo's test data told
    )
    places = {id(control): place for place, control in enumerate(calibration.controls)}
    results: list[list[ZooModelResult]] = [[] for _ in judges]
    for model, answer in zip((*controls, *others), answers, strict=True):
        place = places.get(id(answer))
        if model in controls and place is None:  # the same model twice: it counts once
            continue
        by = calibration if place is None else calibration.without(place)
        measured = _measure(suite, model, answer, by, judge)
        for one, of_rule in zip(judges, results, strict=True):
            of_rule.append(replace(_judge(measured, by, one), counts=far or not model.far))
    attacks = session.registry.attacks
    return tuple(
        _estimate(suite, zoo, calibration, one, of_rule, attacks) for one, of_rule in zip(judges, results, strict=True)
    )


def _estimate(
    suite: Suite,
    zoo: Zoo,
    calibration: Calibration,
    judge: Judge,
    results: Sequence[ZooModelResult],
    attacks: Catalogue[Attack],
) -> PowerEstimate:
    return PowerEstimate(
        suite=suite,
        zoo=zoo,
        calibration=calibration,
        judge=judge,
        results=tuple(results),
        attacks=tuple(_by_attack(results, judge.metrics, attacks)),
        accused=_share(r.verdict for r in results if r.counts and r.model.kind == "control" and _was_judged(r)),
    )


def area(stolen: Array, controls: Array) -> float | None:
    """Area under the ROC curve of a distance: the share of pairs in which the stolen one is less, ties counting half.

    None where one of the two is empty (Hanley & McNeil, 1982).
    """
    if not len(stolen) or not len(controls):
        return None
    less, same = ((compare(stolen[:, None], controls)).mean() for compare in (np.less, np.equal))
    return float(less + same / 2)


def values(results: Iterable[ZooModelResult], metric: str) -> Array:
    """``(n,)`` a metric's values over the models that it could be measured on."""
    numbers = (one.measurements[metric].value for one in results if one.measurements and metric in one.measurements)
    return np.array([number for number in numbers if number is not None], dtype=np.float64)


def _answers(
    suite: Suite, zoo: Zoo, models: Sequence[ZooModel], folder: Path | None, session: Session
) -> Iterator[Observation | str]:
    # Of each its answers, stored ones where there are any; or why there are none.
    paths = [folder and _place(zoo, model, folder) for model in models]
    subjects = [_subject(suite, zoo, model, path) for model, path in zip(models, paths, strict=True)]
    askable = [subject for subject in subjects if isinstance(subject, Subject)]
    check_device(askable, session)
    asking = turns("asking", askable, "model")
    with asking as turn, contextlib.closing(answer_each(askable, suite, session)) as answering:
        for subject, path in zip(subjects, paths, strict=True):
            if isinstance(subject, str):
                yield subject
                continue
            try:
                observation = next(answering)()
                if path and not subject.stored:
                    save_observation(path, observation)
            except DeepJudgeError as error:
                turn(subject, "failed")
                yield str(error)
            else:
                turn(subject, "answered")
                yield observation


def _place(zoo: Zoo, model: ZooModel, folder: Path) -> Path:
    return folder / f"{zoo.path(model).stem}-{model.digest[:12]}.safetensors"


def _describe(zoo: Zoo, models: Sequence[ZooModel], folder: Path) -> None:
    # Whoever calibrates by these answers finds beside them what the zoo says of the models, such as their strata.
    files = ((model, _place(zoo, model, folder)) for model in models)
    kept = (
        structs.replace(model, file=file.name, digest=of_file(file).digest) for model, file in files if file.is_file()
    )
    save_zoo(replace(zoo, folder=folder, models=tuple(kept), missing=()))


def _subject(suite: Suite, zoo: Zoo, model: ZooModel, path: Path | None) -> Subject | str:
    if not is_kept(zoo, model):
        return "expected the file that 'deepjudge zoo' made, found none or another one; make it again"
    try:
        stored = load_observation(path) if path and path.is_file() else None
    except DeepJudgeError as error:
        return str(error)
    return KnownAnswers(stored) if stored and stored.suite == suite.digest else ModelFile(zoo.path(model))


def _measure(
    suite: Suite, model: ZooModel, answer: Observation | str, calibration: Calibration, judge: Judge
) -> ZooModelResult:
    if isinstance(answer, str):
        return ZooModelResult(model, failure=answer)
    try:
        return ZooModelResult(model, judge.measure(suite, answer, calibration.match, calibration.siblings()))
    except UsageError:
        raise
    except DeepJudgeError as error:
        return ZooModelResult(model, failure=str(error))


def _judge(measured: ZooModelResult, calibration: Calibration, judge: Judge) -> ZooModelResult:
    if measured.measurements is None:
        return measured
    try:
        return replace(measured, verdict=judge.judge(measured.measurements, calibration))
    except UsageError:
        raise
    except DeepJudgeError as error:
        return ZooModelResult(measured.model, failure=str(error))


def _by_attack(
    results: Sequence[ZooModelResult], metrics: Sequence[Metric], attacks: Catalogue[Attack]
) -> Iterable[AttackPower]:
    measured = {metric.group for metric in metrics}
    groups = [group for group in ALL_GROUPS if group in GROUPS or group in measured]
    counting = [result for result in results if result.counts]
    controls = [result for result in counting if result.model.kind == "control"]
    for attack in dict.fromkeys(result.model.attack for result in results if result.model.attack):
        stolen = [result for result in counting if result.model.attack == attack]
        verdicts = [result.verdict for result in stolen if result.verdict]
        yield AttackPower(
            attack=attack,
            copies=_share(verdicts),
            groups={
                group: Share(sum(_says(v, group) is Decision.COPY for v in verdicts), len(verdicts)) for group in groups
            },
            inconclusive=sum(verdict.decision is Decision.INCONCLUSIVE for verdict in verdicts),
            left_out=sum(result.model.attack == attack and not result.counts for result in results),
            undecided={group: sum(_says(v, group) is Decision.INCONCLUSIVE for v in verdicts) for group in groups},
            auc={one.name: area(values(stolen, one.name), values(controls, one.name)) for one in metrics},
            title=attacks[attack].title if attack in attacks else "",
        )


def _says(verdict: Verdict, group: str) -> Decision | None:
    setting = verdict.settings.get(group)
    return setting.decision if setting else None


def _first(files: Sequence[str]) -> str:
    return files[0] + (f" and {len(files) - 1} more" if files[1:] else "")


def _was_judged(result: ZooModelResult) -> bool:
    # A control that too few others are left to judge is no example of one that is not accused.
    return result.verdict is not None and result.verdict.decision is not Decision.INCONCLUSIVE


def _share(verdicts: Iterable[Verdict | None]) -> Share:
    decisions = [verdict.decision for verdict in verdicts if verdict]
    return Share(decisions.count(Decision.COPY), len(decisions))

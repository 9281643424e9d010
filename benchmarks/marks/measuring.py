"""What each key counts of copies and of independents, and how often it accuses an independent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from making import Study
from plan import Plan

import deepjudge_core as dj
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import LEAST_CONTROLS, Calibration
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.keys import marks_of
from deepjudge_core.judging.marks import LEVEL, counted, judge_marks
from deepjudge_core.judging.measure import Measurements, measure_by
from deepjudge_core.judging.verdict import Counted
from deepjudge_core.observing.keys import answer_keys, with_matrices
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite, load_suite, save_suite
from deepjudge_core.zoo.manifest import Zoo, ZooModel, load_zoo

_CONTROLS, _DRAWS = 24, 40

Cell = tuple[Counted | None, str]
"""What is counted of a model, and "copy" or why not."""


@dataclass(frozen=True)
class Found:
    """What one key counts.

    Attributes:
        plan: The key.
        marked: Of the model that carries it.
        stolen: Attack to what is counted of the model, with all independents as controls, and "copy" or why not.
        accuracies: Attack to the accuracy of that model.
        others: Models that were extracted from the unmarked victim with another seed, and the same of each.
        matched: Of each independent the trials that match, and of how many.
        accused: Share of the independents that are accused at 1 %: each beside 24 drawn controls. None where there are
            no more than that.
        cost: What ``deepjudge embed`` said of accuracy; empty for a fingerprint.
    """

    plan: Plan
    marked: Counted
    stolen: dict[str, Cell]
    accuracies: dict[str, float]
    others: list[tuple[ZooModel, Cell]]
    matched: list[tuple[int, int]]
    accused: float | None
    cost: str


def measure_all(study: Study, plans: Sequence[Plan]) -> Iterator[Found]:
    """Measure the keys that there are."""
    session = Session(sandbox=None)
    there = [plan for plan in plans if study.key(plan).exists() and study.marked(plan).exists()]
    suites = [_suite(study, plan, session) for plan in there]
    controls = load_zoo(study.controls)
    honest = [
        _answers(controls.path(control), suites, session)
        for control in controls.of("control", far=True)[: study.independents]
    ]
    for place, (plan, suite) in enumerate(zip(there, suites, strict=True)):
        yield _measure(study, plan, suite, [answers[place] for answers in honest], session)


def _answers(path: Path, suites: Sequence[Suite], session: Session) -> list[Observation]:
    # Of one model, to the keys of all suites. What else suites hold is not asked: the victim's answers stand there.
    model = dj.open_model(path)
    about = {"name": model.name, "digest": model.digest}
    found = [
        replace(
            suite.victim,
            suite=suite.digest,
            model=replace(suite.victim.model, **about),
            keys=answer_keys(model, suite),
        )
        for suite in suites
    ]
    if any(key.matrices for suite in suites for key in suite.keys):
        with Subject.of(path).sketching(session) as sketcher:
            found = [with_matrices(seen, sketcher, suite) for seen, suite in zip(found, suites, strict=True)]
    return found


def _measured(suite: Suite, observation: Observation, session: Session) -> Measurements:
    return measure_by(marks_of(suite.keys, session.registry.schemes), suite, observation, "none")


@dataclass(frozen=True)
class ByDefault:
    """What the default suite says of extracted models.

    Attributes:
        copies: File to whether it is called a copy.
        controls: How many were asked.
        effective: How many these count as: near-duplicates count as one.
    """

    copies: dict[str, bool]
    controls: int
    effective: int

    @property
    def decides(self) -> bool:
        """Whether there are enough controls for a verdict."""
        return self.effective >= LEAST_CONTROLS


def measure_by_default(study: Study) -> ByDefault:
    """What the default suite says of the extracted models, beside 24 controls."""
    session = Session(sandbox=None)
    inputs = dj.load_inputs(study.out / "test.npz", scale=255)
    suite = dj.make_suite(Subject.of(study.victim), inputs, dj.SuiteSettings(sketch=False), session=session)
    controls = load_zoo(study.controls).of("control", far=True)[:_CONTROLS]
    judge = Judge.of(dj.JudgeSettings(), session.registry, Offer.of(suite))
    seen = [dj.observe(dj.open_model(study.controls / control.file), suite) for control in controls]
    calibration = judge.calibrate(suite, seen, far=True)
    zoo, copies = load_zoo(study.extracted), {}
    for model in zoo.of("stolen", far=True):
        shown = dj.observe(dj.open_model(zoo.path(model)), suite)
        verdict = judge.judge(judge.measure(suite, shown, calibration.match), calibration)
        copies[model.file] = any(one.decision is Decision.COPY for one in verdict.settings.values())
    return ByDefault(copies, len(seen), calibration.effective)


def _measure(study: Study, plan: Plan, suite: Suite, honest: Sequence[Observation], session: Session) -> Found:
    measured = tuple(_measured(suite, observation, session) for observation in honest)
    calibration = Calibration(suite.digest, tuple(honest), measured)
    [name] = measured[0]

    def thefts(zoo: Zoo) -> Iterator[tuple[ZooModel, Cell]]:
        for model in zoo.of("stolen", far=True):
            [seen] = _answers(zoo.path(model), [suite], session)
            setting, votes, found = judge_marks(_measured(suite, seen, session), calibration)
            yield model, (found.get(name), "copy" if setting.decision else votes[name].reason or "")

    stolen, accuracies = dict[str, Cell](), dict[str, float]()
    for model, cell in thefts(load_zoo(study.zoo(plan))):
        stolen[model.attack or ""] = cell
        if model.accuracy is not None:
            accuracies[model.attack or ""] = model.accuracy
    extracted = plan.scheme == "conferrable" and study.extracted.exists()
    others = [*thefts(load_zoo(study.extracted))] if extracted else []
    own = counted(_measured(suite, replace(suite.victim, suite=suite.digest), session)[name], calibration)
    assert own is not None
    readings = [one[name].readings for one in measured]
    matched = [(best.found, best.of) for best in (min(r, key=lambda x: x.distance) for r in readings if r)]
    embedded = study.folder(plan) / "embed.txt"
    said = embedded.read_text("utf-8") if embedded.exists() else ""
    return Found(plan, own, stolen, accuracies, others, matched, _accused(name, calibration), said)


def _suite(study: Study, plan: Plan, session: Session) -> Suite:
    path = study.folder(plan) / "suite.safetensors"
    if path.exists():
        return load_suite(path)
    settings = dj.SuiteSettings(n=30, generators=["fgsm"], keys=[study.key(plan)], sketch=False)
    inputs = dj.load_inputs(study.out / "test.npz", scale=255)
    suite = dj.make_suite(Subject.of(study.marked(plan)), inputs, settings, session=session)
    save_suite(path, suite)
    return suite


def _accused(name: str, calibration: Calibration) -> float | None:
    # Each independent in its turn is the suspect of some audits.
    random = np.random.default_rng(0)
    count, accused, asked = len(calibration.controls), 0, 0
    for _ in range(_DRAWS):
        order = random.permutation(count)
        few, rest = order[:_CONTROLS], order[_CONTROLS:]
        beside = Calibration(
            calibration.suite,
            controls=tuple(calibration.controls[place] for place in few),
            measurements=tuple(calibration.measurements[place] for place in few),
        )
        for place in rest:
            setting, _, _ = judge_marks({name: calibration.measurements[place][name]}, beside, LEVEL)
            accused += setting.decision is not None
            asked += 1
    return accused / asked if asked else None

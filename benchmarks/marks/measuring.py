"""What each key counts of copies and of independents, and how often it accuses an independent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from making import Study
from plan import PLANS, Plan

import deepjudge_core as dj
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.marks import LEVEL, counted, judge_marks
from deepjudge_core.judging.measure import Measurements
from deepjudge_core.judging.verdict import Counted
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite, load_suite, save_suite
from deepjudge_core.zoo.manifest import load_zoo

_CONTROLS, _DRAWS = 24, 40


@dataclass(frozen=True)
class Found:
    """What one key counts.

    Attributes:
        plan: The key.
        marked: Of the model that carries it.
        stolen: Attack to what is counted of the model, with all independents as controls, and its accuracy.
        matched: Of each independent the trials that match, and of how many.
        accused: Share of the independents that are accused at 1 %: each beside 24 drawn controls.
        cost: What ``deepjudge embed`` said of accuracy; empty for a fingerprint.
    """

    plan: Plan
    marked: Counted
    stolen: dict[str, tuple[Counted | None, str, float | None]]
    matched: list[tuple[int, int]]
    accused: float
    cost: str


def measure_all(study: Study, plans: Sequence[Plan]) -> Iterator[Found]:
    """Measure the keys that there are."""
    session = Session(sandbox=None)
    there = [plan for plan in plans if study.key(plan).exists() and study.marked(plan).exists()]
    suites = {plan: _suite(study, plan, session) for plan in there}
    honest: dict[Plan, list[Observation]] = {plan: [] for plan in there}
    for control in load_zoo(study.controls).of("control", far=True):
        path = study.controls / control.file
        model = dj.open_model(path)  # once for all keys
        for plan, suite in suites.items():
            read = any(key.matrices for key in suite.keys)
            seen = dj.observe(Subject.of(path), suite, session=session) if read else dj.observe(model, suite)
            honest[plan].append(seen)
    for plan, suite in suites.items():
        yield _measure(study, plan, suite, honest[plan], session)


@dataclass(frozen=True)
class Missed:
    """An extracted model, as the default suite and conferrable inputs find it.

    Attributes:
        attack: How it was made.
        accuracy: Of it.
        default: What the default suite decides, beside the same controls.
        matched: Of the key.
        accused: Whether the key accuses it.
    """

    attack: str
    accuracy: float | None
    default: str
    matched: Counted
    accused: bool


def measure_missed(study: Study) -> Iterator[Missed]:
    """What conferrable inputs find of the extracted models that the default suite misses, beside 24 controls each."""
    [plan] = [plan for plan in PLANS if plan.name == "conferrable"]
    session = Session(sandbox=None)
    inputs = dj.load_inputs(study.out / "test.npz", scale=255)
    settings = dj.SuiteSettings(keys=[study.key(plan)], sketch=False)
    suite = dj.make_suite(Subject.of(study.victim), inputs, settings, session=session)
    controls = load_zoo(study.controls).of("control", far=True)[:_CONTROLS]
    judge = Judge.of(dj.JudgeSettings(), session.registry, Offer.of(suite))
    seen = [dj.observe(dj.open_model(study.controls / control.file), suite) for control in controls]
    calibration = judge.calibrate(suite, seen, far=True)
    zoo = load_zoo(study.extracted)
    for model in zoo.of("stolen", far=True):
        shown = dj.observe(dj.open_model(zoo.path(model)), suite)
        verdict = judge.judge(judge.measure(suite, shown, calibration.match), calibration)
        others = [one.decision for name, one in verdict.settings.items() if name != "marks" and one.decision]
        default = "copy" if Decision.COPY in others else "missed"
        [key] = [one for one in verdict.metrics.values() if one.group == "marks"]
        assert key.counted is not None
        yield Missed(model.attack or "", model.accuracy, default, key.counted, key.vote.vote is True)


def _measure(study: Study, plan: Plan, suite: Suite, honest: Sequence[Observation], session: Session) -> Found:
    judge = Judge.of(dj.JudgeSettings(metrics=["robd"]), session.registry, Offer.of(suite))
    calibration = judge.calibrate(suite, honest, far=True)
    [name] = [metric.name for metric in judge.metrics if metric.on == "keys"]

    def marks(measured: Measurements) -> Measurements:
        return {name: measured[name]}

    stolen: dict[str, tuple[Counted | None, str, float | None]] = {}
    zoo = load_zoo(study.zoo(plan))
    for model in zoo.of("stolen", far=True):
        seen = dj.observe(Subject.of(zoo.folder / model.file), suite, session=session)
        measured = marks(judge.measure(suite, seen))
        setting, votes, found = judge_marks(measured, calibration)
        why = "copy" if setting.decision else votes[name].reason or ""
        stolen[model.attack or ""] = found.get(name), why, model.accuracy
    own = counted(judge.measure(suite, suite.victim)[name], calibration)
    assert own is not None
    readings = [one[name].readings for one in calibration.measurements]
    matched = [(best.found, best.of) for best in (min(r, key=lambda x: x.distance) for r in readings if r)]
    cost = study.folder(plan) / "embed.txt"
    return Found(
        plan, own, stolen, matched, _accused(name, calibration), cost.read_text("utf-8") if cost.exists() else ""
    )


def _suite(study: Study, plan: Plan, session: Session) -> Suite:
    path = study.folder(plan) / "suite.safetensors"
    if path.exists():
        return load_suite(path)
    settings = dj.SuiteSettings(n=30, generators=["fgsm"], keys=[study.key(plan)], sketch=False)
    inputs = dj.load_inputs(study.out / "test.npz", scale=255)
    suite = dj.make_suite(Subject.of(study.marked(plan)), inputs, settings, session=session)
    save_suite(path, suite)
    return suite


def _accused(name: str, calibration: Calibration) -> float:
    # Each independent in its turn is the suspect of some audits.
    random = np.random.default_rng(0)
    count, accused, asked = len(calibration.controls), 0, 0
    for _ in range(_DRAWS):
        order = random.permutation(count)
        few, rest = order[:_CONTROLS], order[_CONTROLS:]
        beside = replace(
            calibration,
            controls=tuple(calibration.controls[place] for place in few),
            measurements=tuple(calibration.measurements[place] for place in few),
            strata=tuple(calibration.strata[place] for place in few) if calibration.strata else (),
        )
        for place in rest:
            setting, _, _ = judge_marks({name: calibration.measurements[place][name]}, beside, LEVEL)
            accused += setting.decision is not None
            asked += 1
    return accused / asked

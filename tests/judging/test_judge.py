"""The judge: names and options that are looked up and checked once, before anything is run."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toys

from deepjudge_core import (
    AuditSettings,
    Decision,
    Evidence,
    Inputs,
    Judge,
    Judgement,
    JudgeSettings,
    Rule,
    Session,
    SuiteSettings,
    Vote,
    audit,
    hookimpl,
)
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import UsageError


def counting() -> tuple[Registry, list[int]]:
    """A registry with a rule, and the numbers of controls in all evidence that it is given."""
    controls: list[int] = []

    def count(evidence: Mapping[str, Evidence], *, share: float = 0.5) -> Judgement:
        controls.extend(len(one.controls) for one in evidence.values())
        return Judgement(Decision.INDEPENDENT, None, dict.fromkeys(evidence, Vote(False)))

    @hookimpl
    def deepjudge_rules() -> list[Rule]:
        return [Rule("count", judge=count)]

    return toys.registry_of(toys=toys, mine=SimpleNamespace(deepjudge_rules=deepjudge_rules)), controls


def test_a_judge_has_all_that_it_judges_by() -> None:
    settings = JudgeSettings(["surety", "answers"], "nearest", {"alpha.surety": "0.5"})
    judge = Judge.of(settings, toys.registry())
    assert [metric.name for metric in judge.metrics] == ["surety", "answers"]
    assert judge.rule is toys.registry().rules["nearest"]
    assert judge.options == judge.fixed_options == {"share": 0.5, "alpha": {"surety": 0.5}}
    assert judge.providers == dict.fromkeys(("metric surety", "metric answers", "rule nearest"), "this program")
    measurements = judge.measure(toys.suite(), toys.seen(0, noise=0.05))
    assert list(measurements) == ["surety", "answers"]
    calibration = judge.calibrate(toys.suite(), [toys.seen(seed) for seed in (1, 2, 3)])
    np.testing.assert_array_equal(calibration.values("surety"), toys.calibration(3).values("surety"))
    assert judge.judge(measurements, calibration).decision is Decision.COPY


def test_a_rule_is_tried_once_for_a_whole_audit() -> None:
    registry, controls = counting()
    victim = toys.make_model()
    inputs = Inputs(*toys.make_inputs(victim))
    judge = Judge.of(JudgeSettings(["surety"], "count"), registry)
    assert controls == [12]  # that nobody has
    settings = AuditSettings(SuiteSettings(n=20, generators=["shove"]), judge=judge)
    suspects, independents = [toys.make_model(seed) for seed in (8, 9)], [toys.make_model(i) for i in (1, 2, 3, 4)]
    audit(victim, suspects, inputs, controls=independents, settings=settings, session=Session(registry))
    # Each suspect by all controls, then each control by the others.
    assert controls == [12, *[4] * 2, *[3] * 4]


@pytest.mark.parametrize(
    ("settings", "code", "facts"),
    [
        (JudgeSettings(rule="neares"), "unknown-name", ("neares", "nearest")),
        (JudgeSettings(["suret"], "nearest"), "unknown-name", ("suret", "surety")),
        (JudgeSettings(["surety"], "nearest", {"alpha.answers": 1}), "unknown-name", ("alpha", "answers", "surety")),
        (JudgeSettings(rule="nearest", groups="both"), "wrong-value", ("both", "separate", "joint")),  # type: ignore[arg-type]
        (JudgeSettings(rule="nearest", budget=3), "conflict", ("budget",)),
        (JudgeSettings(rule="nearest", fdr=0.05), "conflict", ("nearest", "p-values")),
        (JudgeSettings(rule="nearest", fdr=2), "wrong-value", ("fdr", "2")),
        (JudgeSettings(rule="nearest", sequential=True), "conflict", ("nearest", "p-values")),
        (JudgeSettings(["surety"], "nearest", sequential=True), "conflict", ("metrics",)),
        (JudgeSettings(rule="nearest", sequential=True, budget=0), "wrong-value", ("budget", "0")),
    ],
)
def test_what_cannot_be_is_refused_at_once(settings: Any, code: str, facts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        Judge.of(settings, toys.registry())
    assert caught.value.code == code
    assert all(fact in str(caught.value) for fact in facts)

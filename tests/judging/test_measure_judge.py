"""From answers to values, and from values to a verdict."""

import dataclasses
import itertools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import toys
from refusals import expect_facts, refused

from deepjudge_core import (
    Access,
    AuditSettings,
    Calibration,
    Decision,
    Evidence,
    Inputs,
    Judge,
    Judgement,
    JudgeSettings,
    Listener,
    LiveModel,
    Measurement,
    Metric,
    ModelFile,
    QuerySettings,
    Rule,
    Session,
    Suite,
    SuiteSettings,
    Verdict,
    Vote,
    audit,
    build_suite,
    calibrate,
    hookimpl,
    judge,
    measure,
    observe,
    select_seeds,
)
from deepjudge_core.auditing.session import QueryEvent
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import FileFormatError, PluginError, UsageError
from deepjudge_core.report.audit_json import report_to_json


def metric(name: str, group: str = "black-box", distance: Any = None, **facts: Any) -> Metric:
    needs = Access.LAYERS if group == "white-box" else Access.LABELS
    return Metric(name, **{"needs": needs, "on": "clean", "distance": distance, "alpha": 0.9} | facts)


def registry_with(*metrics: Metric, rule: Any = None) -> Registry:
    @hookimpl
    def deepjudge_metrics() -> Any:
        return metrics

    @hookimpl
    def deepjudge_rules() -> Any:
        return [Rule("mine", judge=rule)]

    hooks = {"deepjudge_metrics": deepjudge_metrics} if metrics else {}
    hooks |= {"deepjudge_rules": deepjudge_rules} if rule else {}
    return toys.registry_of(toys=toys, mine=SimpleNamespace(**hooks))


# Measuring.


def test_a_model_is_no_way_from_itself() -> None:
    own = dataclasses.replace(toys.suite().victim, suite=toys.suite().digest)
    measurements = measure(toys.suite(), own, registry=toys.registry())
    assert {name: m.value for name, m in measurements.items()} == {"answers": 0, "surety": 0, "outputs": 0}
    assert all(m.allowed and not m.failed and m.reason is None for m in measurements.values())


def test_each_metric_sees_its_own_cases() -> None:
    sizes = []

    def count(victim: Any, suspect: Any) -> float:
        np.testing.assert_array_equal(victim.labels, suspect.labels)
        sizes.append((len(victim.labels), len(suspect.probabilities), suspect.activations["dense2"].shape))
        assert (victim.probabilities != suspect.probabilities).all()
        return 0.0

    metrics = [metric(on, on=on, distance=count) for on in ("clean", "adversarial", "corners")]
    measurements = measure(toys.suite(), toys.seen(1), [m.name for m in metrics], registry=registry_with(*metrics))
    assert [m.value for m in measurements.values()] == [0, 0, 0]
    assert sizes == [(20, 20, (20, 8)), (15, 15, (15, 8)), (14, 14, (14, 8))]


def test_the_chosen_metrics_in_their_order() -> None:
    measurements = measure(toys.suite(), toys.seen(1), ["outputs", "answers"], registry=toys.registry())
    assert list(measurements) == ["outputs", "answers"]
    assert list(measure(toys.suite(), toys.seen(1), registry=toys.registry())) == ["answers", "surety", "outputs"]
    with refused(UsageError, "'x'", "surety", code="unknown-name"):
        measure(toys.suite(), toys.seen(1), ["x"], registry=toys.registry())
    for text, names in (("answers", {"answers"}), ("all", {"answers", "surety", "outputs"})):
        assert set(measure(toys.suite(), toys.seen(1), text, registry=toys.registry())) == names


@pytest.mark.parametrize(
    ("access", "reasons"),
    [
        (Access.LABELS, {"surety": "needs the model's probabilities", "outputs": "needs the model's layers"}),
        (Access.BLACK_BOX, {"outputs": "needs the model's layers"}),
        (Access.WHITE_BOX, {}),
    ],
)
def test_access_that_does_not_allow_a_metric(access: Access, reasons: dict[str, str]) -> None:
    measurements = measure(toys.suite(), toys.seen(1, access=access), registry=toys.registry())
    assert {name: m.reason for name, m in measurements.items() if m.value is None} == reasons
    assert {name for name, m in measurements.items() if not m.allowed} == set(reasons)
    both = metric("both", needs=Access.LAYERS | Access.PROBABILITIES)
    measurements = measure(toys.suite(), toys.seen(1, access=Access.LABELS), ["both"], registry=registry_with(both))
    assert measurements["both"].reason == "needs the model's probabilities and layers"


def test_layers_that_do_not_correspond() -> None:
    observation = observe(toys.make_model(1, widths=(6,)), toys.suite())
    measurement = measure(toys.suite(), observation, registry=toys.registry())["outputs"]
    assert (measurement.value, measurement.allowed, measurement.failed) == (None, True, False)
    assert measurement.reason == observation.unmatched
    assert "no layer corresponds to 'dense2'" in str(measurement.reason)


def raises(victim: Any, suspect: Any) -> float:
    raise ZeroDivisionError("of\n nothing")


@pytest.mark.parametrize(
    ("distance", "reason"),
    [
        (raises, "the metric failed: ZeroDivisionError: of nothing"),
        (lambda v, s: float("nan"), "the metric failed: expected a distance, found nan"),
        (lambda v, s: float("inf"), "the metric failed: expected a distance, found inf"),
        (lambda v, s: -0.1, "the metric failed: expected a distance, found -0.1"),
        (lambda v, s: None, "the metric failed: TypeError: "),
        (lambda v, s: "far", "the metric failed: ValueError: "),
        (None, "the metric failed: TypeError: "),
    ],
)
def test_a_metric_that_fails(distance: Any, reason: str) -> None:
    registry = registry_with(metric("bad", distance=distance))
    measurements = measure(toys.suite(), toys.seen(1), registry=registry)
    assert (measurements["bad"].value, measurements["bad"].failed, measurements["bad"].allowed) == (None, True, True)
    assert str(measurements["bad"].reason).startswith(reason)
    assert all(measurements[name].value is not None for name in ("answers", "surety", "outputs"))
    report = toys.outcome(
        toys.suite(),
        calibrate(toys.suite(), [toys.seen(i) for i in (1, 2, 3)], registry=registry),
        [toys.make_model(noise=0.05)],
        JudgeSettings(rule="nearest"),
        registry=registry,
    )
    [suspect] = report.suspects
    assert suspect.decision is Decision.COPY
    assert len(suspect.errors) == 1
    assert suspect.errors[0].startswith(f"bad: {reason}")


def suite_of(*generators: str) -> Suite:
    victim = toys.make_model()
    seeds = select_seeds(victim, *toys.make_inputs(victim), n=20)
    return build_suite(victim, seeds, generators, registry=toys.registry())


def verdict_on(
    suite: Suite, noise: float = 0.0, seed: int = 0, access: Access = Access.FULL, **options: Any
) -> Verdict:
    calibration = calibrate(suite, [observe(toys.make_model(i), suite) for i in (1, 2, 3, 4)], registry=toys.registry())
    observation = observe(toys.make_model(seed, noise=noise, access=access), suite)
    return judge(
        measure(suite, observation, options.pop("metrics", None), registry=toys.registry()),
        calibration,
        JudgeSettings(rule="nearest", **options),
        registry=toys.registry(),
    )


def test_a_suite_that_was_made_for_one_setting_decides_by_it() -> None:
    for generator, group, other in (("shove", "black-box", "white-box"), ("poke", "white-box", "black-box")):
        suite = suite_of(generator)
        for seed, noise, decision in ((0, 0.05, Decision.COPY), (9, 0, Decision.INDEPENDENT)):
            verdict = verdict_on(suite, noise, seed)
            assert verdict.decision is decision
            assert verdict.settings[group].decision is decision
            assert verdict.settings[other].decision is None
            assert "the suite has no cases in the set" in str(verdict.settings[other].reason)


def test_corners_that_were_asked_for_and_not_reached_leave_it_open() -> None:
    suite = toys.suite()
    without = dataclasses.replace(suite.cases, sets=np.minimum(suite.cases.sets, 1))
    suite = dataclasses.replace(suite, cases=without)
    verdict = verdict_on(suite, seed=9)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reason == "the suite has no cases in the set 'corners'"
    assert verdict.settings["black-box"].decision is Decision.INDEPENDENT


# Judging.

Say = Literal["copy", "no", "none", "unmeasured", "denied"]


def verdict_of(groups: Literal["separate", "joint"] = "separate", **says: str) -> Verdict:
    """The verdict where metric by metric the rule says copy, no, or none, or nothing was measured or allowed.

    Names that begin with b are black-box metrics, those with w are white-box.
    """
    metrics = {n: metric(n, "white-box" if n.startswith("w") else "black-box") for n in says}
    measurements = {}
    for name, say in says.items():
        if say in ("unmeasured", "denied"):
            measurements[name] = Measurement(metrics[name], None, f"{name} {say}", allowed=say != "denied")
        else:
            measurements[name] = Measurement(metrics[name], 1.0 if say == "no" else 0.5)

    def rule(evidence: Mapping[str, Evidence]) -> Judgement:
        votes = {
            name: Vote({"copy": True, "no": False, "none": None}[says[name]], reason=f"{name} says nothing")
            for name in evidence
        }
        cast = [v.vote for v in votes.values() if v.vote is not None]
        if not cast:
            return Judgement(Decision.INCONCLUSIVE, None, votes, "no votes")
        p_copy = float(np.mean(cast))
        return Judgement(Decision.COPY if p_copy > 0.5 else Decision.INDEPENDENT, p_copy, votes)

    controls = tuple({name: Measurement(metrics[name], value) for name in says} for value in (1.0, 1.1, 1.2))
    calibration = Calibration("", (), controls)
    settings = JudgeSettings(rule="mine", groups=groups)
    return judge(measurements, calibration, settings, registry=registry_with(rule=rule))


GROUP = {
    "copy": ("copy", "copy"),
    "independent": ("no", "no"),
    "inconclusive": ("unmeasured", "unmeasured"),
    None: ("denied", "denied"),
}


@pytest.mark.parametrize(
    ("black", "white", "decision", "points_to"),
    [
        ("copy", "copy", "copy", "weights"),
        ("copy", "independent", "copy", "behaviour"),
        ("copy", "inconclusive", "copy", "behaviour"),
        ("copy", None, "copy", "behaviour"),
        ("independent", "copy", "copy", "weights-changed-behaviour"),
        ("inconclusive", "copy", "copy", "weights"),
        (None, "copy", "copy", "weights"),
        ("independent", "independent", "independent", None),
        ("independent", "inconclusive", "inconclusive", None),
        ("independent", None, "independent", None),
        ("inconclusive", "independent", "inconclusive", None),
        ("inconclusive", "inconclusive", "inconclusive", None),
        ("inconclusive", None, "inconclusive", None),
        (None, "independent", "independent", None),
        (None, "inconclusive", "inconclusive", None),
        (None, None, "inconclusive", None),
    ],
)
def test_two_settings_one_verdict(black: str | None, white: str | None, decision: str, points_to: str | None) -> None:
    says = dict(zip(("b1", "b2", "w1", "w2"), GROUP[black] + GROUP[white], strict=True))
    verdict = verdict_of(**says)
    assert (verdict.decision, verdict.points_to) == (decision, points_to)
    assert (verdict.settings["black-box"].decision, verdict.settings["white-box"].decision) == (black, white)
    assert (verdict.reason is None) == (decision != "inconclusive")
    for setting in verdict.settings.values():
        assert (setting.reason is None) == (setting.decision in ("copy", "independent"))
    assert list(verdict.metrics) == ["b1", "b2", "w1", "w2"]


@pytest.mark.parametrize(
    ("says", "decision", "p_copy"),
    [
        ("copy", "copy", 1),
        ("copy no", "inconclusive", 0.5),
        ("copy no no", "inconclusive", 1 / 3),
        ("copy copy no", "copy", 2 / 3),
        ("copy unmeasured", "copy", 1),
        ("copy denied", "copy", 1),
        ("copy none", "copy", 1),
        ("no unmeasured", "independent", 0),
        ("copy unmeasured none", "inconclusive", 1),
        ("copy denied denied", "inconclusive", 1),
        ("copy copy none unmeasured", "copy", 1),
        ("none", "inconclusive", None),
        ("none none", "inconclusive", None),
        ("unmeasured", "inconclusive", None),
        ("denied unmeasured", "inconclusive", None),
    ],
)
def test_a_group_needs_half_of_its_metrics(says: str, decision: str, p_copy: float | None) -> None:
    for letter in "bw":
        verdict = verdict_of(**{f"{letter}{i}": say for i, say in enumerate(says.split())})
        group = "white-box" if letter == "w" else "black-box"
        assert verdict.decision == decision
        assert verdict.settings[group].decision == decision
        assert verdict.settings[group].p_copy == pytest.approx(p_copy)


def test_reasons() -> None:
    verdict = verdict_of(b1="copy", b2="unmeasured", b3="none", w1="denied", w2="denied")
    assert {name: m.reason for name, m in verdict.metrics.items()} == {
        "b1": "b1 says nothing",
        "b2": "b2 unmeasured",
        "b3": "b3 says nothing",
        "w1": "w1 denied",
        "w2": "w2 denied",
    }
    assert verdict.reason == "only 1 of 3 black-box metrics could vote"
    assert verdict.settings["white-box"].reason == "w1 denied"
    assert verdict_of(w1="copy").settings["black-box"].reason == "no metric of this setting was chosen"
    assert verdict_of(b1="unmeasured", b2="unmeasured", w1="unmeasured").reason == (
        "b1 unmeasured; b2 unmeasured; w1 unmeasured"
    )
    assert verdict_of().decision is Decision.INCONCLUSIVE
    assert verdict_of().reason == "no metric of this setting was chosen"


def test_one_vote_over_all_metrics() -> None:
    # Extracted through queries: the paper's case for two settings.
    says = {"b1": "copy", "b2": "copy", "w1": "no", "w2": "no", "w3": "no", "w4": "no"}
    assert verdict_of(**says).points_to == "behaviour"
    verdict = verdict_of("joint", **says)
    assert (verdict.decision, verdict.points_to) == (Decision.INCONCLUSIVE, None)
    assert verdict.settings["joint"].p_copy == pytest.approx(2 / 6)
    for group in ("black-box", "white-box"):
        assert verdict.settings[group].decision is None
        assert verdict.settings[group].reason == "the metrics were judged by one joint vote"
    verdict = verdict_of("joint", b1="copy", w1="copy", w2="no")
    assert (verdict.decision, verdict.points_to) == (Decision.COPY, None)
    assert "joint" not in verdict_of(b1="copy").settings
    assert verdict_of("joint", b1="copy", w1="denied", w2="denied").decision is Decision.INCONCLUSIVE


@pytest.mark.parametrize("controls", [0, 1, 2, 3])
def test_fewer_than_three_controls_decide_nothing(controls: int) -> None:
    values = measure(toys.suite(), toys.seen(0, noise=0.05), registry=toys.registry())
    verdict = judge(values, toys.calibration(controls), JudgeSettings(rule="nearest"), registry=toys.registry())
    if controls == 3:
        assert (verdict.decision, verdict.points_to) == (Decision.COPY, "weights")
        return
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reason == toys.calibration(controls).shortage("surety")
    for m in verdict.metrics.values():
        assert m.value is not None
        assert (m.vote.vote, m.vote.threshold, m.vote.lower_bound, m.reason) == (None, None, None, verdict.reason)


def test_points_to_on_real_models() -> None:
    verdict = verdict_on(toys.suite(), noise=0.05)
    assert (verdict.decision, verdict.points_to) == (Decision.COPY, "weights")
    # Behaviour that is much nearer than that of all controls, and that no rule accuses, has not changed for certain.
    verdict = verdict_on(toys.suite(), noise=0.1)
    assert (verdict.settings["black-box"].decision, verdict.points_to) == (Decision.INCONCLUSIVE, "weights")
    assert verdict_on(toys.suite(), seed=9).decision is Decision.INDEPENDENT
    verdict = verdict_on(toys.suite(), noise=0.05, access=Access.LABELS)
    assert (verdict.decision, verdict.points_to) == (Decision.COPY, "behaviour")
    assert verdict_on(toys.suite(), seed=9, access=Access.LABELS).decision is Decision.INDEPENDENT


def test_what_a_rule_is_given() -> None:
    by_metric = {}

    def rule(evidence: Mapping[str, Evidence], *, alpha: Mapping[str, float] = {}, share: float = 1) -> Judgement:
        by_metric.update(dict.fromkeys(evidence, (dict(alpha), share)))
        for name, e in evidence.items():
            np.testing.assert_array_equal(e.controls, toys.calibration().values(name))
            assert e.alpha == {"answers": 0.9, "surety": 0.9, "outputs": 0.6}[name]
        return Judgement(Decision.INDEPENDENT, 0.0, dict.fromkeys(evidence, Vote(False)))

    values = measure(toys.suite(), toys.seen(9), registry=toys.registry())
    options = {"alpha.surety": "0.5", "alpha.outputs": "0.4", "share": "2"}
    judge(
        values,
        toys.calibration(),
        JudgeSettings(rule="mine", rule_options=options),
        registry=registry_with(rule=rule),
    )
    # Of a mapping by metric, what is of its own.
    assert by_metric == {
        "answers": ({"surety": 0.5}, 2.0),
        "surety": ({"surety": 0.5}, 2.0),
        "outputs": ({"outputs": 0.4}, 2.0),
    }


def test_strata_of_the_controls_reach_the_rule() -> None:
    by_metric: dict[str, Evidence] = {}

    def rule(evidence: Mapping[str, Evidence]) -> Judgement:
        by_metric.update(evidence)
        votes = dict.fromkeys(evidence, Vote(False, p_value=0.5, false_positive_rate=0.01))
        return Judgement(Decision.INDEPENDENT, None, votes, p_value=0.25, least_p_value=0.125, statement="It is far.")

    registry = registry_with(rule=rule)
    observation = [toys.seen(1), toys.seen(2, access=Access.BLACK_BOX), toys.seen(3), toys.seen(4), toys.seen(5)]
    strata = ("same-data", "other-data", None, "other-data", "common-ancestor")
    calibration = calibrate(toys.suite(), observation, strata=strata, registry=registry)
    values = measure(toys.suite(), toys.seen(9), registry=registry)
    verdict = judge(values, calibration, JudgeSettings(rule="mine"), registry=registry)
    setting = verdict.settings["black-box"]
    assert (setting.p_value, setting.least_p_value, setting.statement) == (0.25, 0.125, "It is far.")
    assert (verdict.metrics["surety"].vote.p_value, verdict.metrics["surety"].vote.false_positive_rate) == (0.5, 0.01)
    assert (by_metric["surety"].strata, by_metric["surety"].places) == (strata, (0, 1, 2, 3, 4))
    # What a control could not be asked is left out with its stratum.
    assert (by_metric["outputs"].strata, by_metric["outputs"].places) == ((*strata[:1], *strata[2:]), (0, 2, 3, 4))
    divided = by_metric["surety"].by_stratum()
    assert list(divided) == ["same-data", "other-data", None, "common-ancestor"]
    np.testing.assert_array_equal(divided["other-data"], calibration.values("surety")[[1, 3]])
    judge(values, calibration.without(1), JudgeSettings(rule="mine"), registry=registry)
    assert by_metric["surety"].strata == ("same-data", None, "other-data", "common-ancestor")


def test_what_is_said_of_one_decision_is_not_said_of_another() -> None:
    def rule(evidence: Mapping[str, Evidence]) -> Judgement:
        votes = {name: Vote(True if name == "b1" else None, reason="few") for name in evidence}
        return Judgement(Decision.COPY, None, votes, p_value=0.01, statement="It is near.")

    metrics = {name: metric(name) for name in ("b1", "b2", "b3")}
    measured = {name: Measurement(m, 0.5) for name, m in metrics.items()}
    controls = tuple({name: Measurement(m, value) for name, m in metrics.items()} for value in (1.0, 1.1, 1.2))
    calibration = Calibration("", (), controls)
    setting = judge(measured, calibration, JudgeSettings(rule="mine"), registry=registry_with(rule=rule)).settings[
        "black-box"
    ]
    assert (setting.decision, setting.p_value, setting.statement) == (Decision.INCONCLUSIVE, 0.01, None)


def test_what_cannot_be_asked_of_a_rule() -> None:
    values = measure(toys.suite(), toys.seen(9), ["surety", "outputs"], registry=toys.registry())
    for rule, options, code, facts in [
        ("near", {}, "unknown-name", ("'near'", "'nearest'")),
        ("nearest", {"shar": 1}, None, ("nearest", "'shar'", "'share'")),
        ("nearest", {"alpha.answers": 1}, "unknown-name", ("nearest.alpha", "surety, outputs", "answers")),
        ("nearest", {"alpha": {"x": 1}}, "unknown-name", ("nearest.alpha", "surety, outputs", "x")),
    ]:
        with pytest.raises(UsageError) as caught:
            judge(
                values,
                toys.calibration(),
                JudgeSettings(rule=rule, rule_options=options),
                registry=toys.registry(),
            )
        assert code in (None, caught.value.code)  # those of options are their own tests' matter
        expect_facts(str(caught.value), *facts)


def copy(evidence: Any, **changes: Any) -> Judgement:
    return Judgement(
        **{"decision": Decision.COPY, "p_copy": 1.0, "votes": dict.fromkeys(evidence, Vote(True))} | changes
    )


@pytest.mark.parametrize(
    ("rule", "facts"),
    [
        (lambda e: 1 / 0, ("ZeroDivisionError",)),
        (lambda e: None, ("Judgement", "NoneType")),
        (lambda e: "copy", ("Judgement", "str")),
        (lambda e: copy(e, votes={}), ("surety", "none")),
        (
            lambda e: copy(e, votes={"surety": Vote(True), "x": Vote(True)}),
            ("surety, x",),
        ),
        (lambda e: copy(e, votes={"surety": True}), ("AttributeError",)),
        (lambda e: copy(e, votes={"surety": Vote(None)}), ("'surety'", "reason")),
        (lambda e: copy(e, votes={"surety": Vote(True, float("nan"))}), ("nan",)),
        (lambda e: copy(e, votes={"surety": Vote(True, 0, float("inf"))}), ("inf",)),
        (lambda e: copy(e, p_copy=1.5), ("p_copy", "0..1", "1.5")),
        (lambda e: copy(e, p_value=-0.1), ("p_value", "0..1", "-0.1")),
        (lambda e: copy(e, p_value=0.1, least_p_value=0.2), ("least_p_value", "0.2", "0.1")),
        (lambda e: copy(e, votes={"surety": Vote(True, p_value=2)}), ("p_value", "0..1", "2.0")),
        (lambda e: copy(e, statement="one\ntwo"), ("statement", "'one\\ntwo'")),
        (lambda e: copy(e, statement=" "), ("statement",)),
        (lambda e: copy(e, p_copy=float("nan")), ("nan",)),
        (lambda e: copy(e, p_copy="sure"), ("ValueError",)),
        (lambda e: copy(e, decision="maybe"), ("ValueError", "'maybe'")),
        (
            lambda e: copy(e, decision=Decision.FAILED),
            ("decision", "failed"),
        ),
        (lambda e: copy(e, decision=Decision.INCONCLUSIVE), ("reason", "inconclusive")),
    ],
)
def test_a_rule_that_fails(rule: Any, facts: tuple[str, ...]) -> None:
    registry = registry_with(rule=rule)
    values = measure(toys.suite(), toys.seen(9), ["surety"], registry=registry)
    with pytest.raises(PluginError) as caught:
        judge(values, toys.calibration(), JudgeSettings(rule="mine"), registry=registry)
    assert caught.value.code == "plugin-failed"
    expect_facts(str(caught.value), "'mine'", *facts)
    report = toys.outcome(
        toys.suite(), toys.calibration(), [toys.make_model(9)], JudgeSettings(["surety"], "mine"), registry=registry
    )
    [suspect] = report.suspects
    assert (suspect.decision, suspect.failure) == (Decision.FAILED, str(caught.value))
    assert suspect.model is not None


def test_a_rule_may_answer_in_numpys_numbers() -> None:
    def rule(evidence: Any) -> Judgement:
        votes = {name: Vote(np.bool_(True), np.float32(0.25), np.float64(0.5)) for name in evidence}  # type: ignore[arg-type]
        return Judgement("copy", np.float32(1), votes)  # type: ignore[arg-type]

    values = measure(toys.suite(), toys.seen(0, 0.02), ["surety"], registry=toys.registry())
    verdict = judge(values, toys.calibration(), JudgeSettings(rule="mine"), registry=registry_with(rule=rule))
    assert verdict.decision is Decision.COPY
    assert type(verdict.settings["black-box"].p_copy) is float
    vote = verdict.metrics["surety"].vote
    assert vote == Vote(True, 0.25, 0.5)
    assert (type(vote.vote), type(vote.lower_bound), type(vote.threshold)) == (bool, float, float)


# Many suspects.


def test_a_suspect_that_fails_does_not_keep_others_from_being_judged() -> None:
    suspects = [
        "none.toy",
        toys.make_model(2),
        toys.make_model(classes=5, name="five"),
        toys.make_model(noise=0.05),
        dataclasses.replace(toys.seen(9), suite="0" * 64),
        toys.seen(9),
        toys.Toy(toys.make_model(8)),
    ]
    report = toys.outcome(
        toys.suite(), toys.calibration(), suspects, JudgeSettings(rule="nearest"), registry=toys.registry()
    )
    # Without what to do, of which more may be said.
    result = [(s.path, str(s.decision), s.failure and s.failure.split("; a")[0]) for s in report.suspects]
    digest = toys.suite().digest[:12]
    assert result == [
        ("none.toy", "failed", "none.toy: no such file or folder (cannot-read)"),
        ("toy-2", "failed", "toy-2: expected a suspect, found the control toy-2"),
        ("five", "copy", None),
        ("toy-0+0.05", "copy", None),
        ("toy-9", "failed", f"toy-9: expected answers to this suite {digest}, found answers to the suite 000000000000"),
        ("toy-9", "independent", None),
        ("Toy", "independent", None),
    ]
    x, y = (column[toys.suite().rows("clean")] for column in (toys.suite().cases.inputs, toys.suite().cases.labels))
    for place, model in ((1, toys.make_model(2)), (3, toys.make_model(noise=0.05)), (6, toys.make_model(8))):
        assert report.suspects[place].accuracy == np.mean(model.predict(x).argmax(axis=1) == y)
    assert (report.suspects[0].accuracy, report.suspects[2].accuracy) == (None, None)
    assert len({suspect.accuracy for suspect in report.suspects}) > 2
    assert report.suspects[1].model is not None
    assert report.rule_options == {"share": 0.5, "alpha": {}}


@pytest.mark.parametrize(
    "judging",
    [
        JudgeSettings(rule="x"),
        JudgeSettings(["x"], "nearest"),
        JudgeSettings(rule="nearest", rule_options={"x": 1}),
        JudgeSettings(["surety"], "nearest", {"alpha.answers": 1}),
    ],
)
def test_the_callers_mistake_is_no_suspects(judging: JudgeSettings) -> None:
    with pytest.raises(UsageError):
        toys.outcome(toys.suite(), toys.calibration(), ["none.toy"], judging, registry=toys.registry())


def test_what_a_suspect_cannot_be_asked_for_is_the_callers_mistake() -> None:
    subject = ModelFile("none.toy", query=QuerySettings(layers={"dense9": "dense1"}))
    with refused(UsageError, "none.toy", "'dense9'", code="unknown-name"):
        toys.outcome(
            toys.suite(), toys.calibration(), [subject], JudgeSettings(rule="nearest"), registry=toys.registry()
        )


def test_a_rule_that_refuses_a_value_is_the_callers_mistake_too() -> None:
    def rule(evidence: Any, *, share: float = 1.0) -> Judgement:
        raise UsageError(f"mine: expected share <= 1, found {share}")

    judging = JudgeSettings(rule="mine", rule_options={"share": 2})
    with refused(UsageError, "mine", "share", "2"):
        toys.outcome(toys.suite(), toys.calibration(), [toys.seen(9)], judging, registry=registry_with(rule=rule))


def test_audit_is_the_whole_flow() -> None:
    victim = toys.make_model()
    x, y = toys.make_inputs(victim)
    inputs = Inputs(x, y)
    suite_settings = SuiteSettings(n=20, generators=["shove", "poke"])
    settings = AuditSettings(suite_settings, judge=JudgeSettings(rule="nearest"))
    parts: list[object] = []

    class Parts(Listener):
        on_suite = on_calibration = lambda self, part: parts.append(part)

        def on_answer(self, event: QueryEvent) -> None:
            parts.append((event.role, event.name, event.stored))

    report = audit(
        victim,
        [toys.make_model(noise=0.05), LiveModel(toys.make_model(9)), "none.toy"],
        inputs,
        controls=[toys.make_model(i) for i in (1, 2, 3, 4)],
        settings=settings,
        session=Session(toys.registry(), listener=Parts()),
    )
    assert parts == [
        report.suite,
        *(("control", f"toy-{i}", False) for i in (1, 2, 3, 4)),
        report.calibration,
        *(("suspect", name, False) for name in ("toy-0+0.05", "toy-9", "none.toy")),
    ]
    assert [str(s.decision) for s in report.suspects] == ["copy", "independent", "failed"]
    assert len(report.calibration.controls) == 4
    assert report.suite.generators == toys.suite().generators
    session = Session(toys.registry())
    report = audit(victim, [toys.make_model(9)], inputs, settings=settings, session=session)
    assert report.suspects[0].decision is Decision.INCONCLUSIVE
    assert report.suspects[0].verdict is not None
    assert all(m.value is not None for m in report.suspects[0].verdict.metrics.values())
    with refused(UsageError, "'x'", "nearest", code="unknown-name"):  # before anything is run
        audit("none.toy", [], inputs, settings=AuditSettings(judge=JudgeSettings(rule="x")), session=session)
    with pytest.raises(UsageError) as caught:
        audit("none.toy", [], inputs, settings=AuditSettings(judge=JudgeSettings(rule_options={"confidence": 2.0})))
    expect_facts(str(caught.value), "confidence", "2")
    unknown = dataclasses.replace(settings, suite=SuiteSettings(generators=["x"]))
    with refused(UsageError, "generator", "'x'", code="unknown-name"):
        audit("none.toy", [], inputs, settings=unknown, session=session)
    with pytest.raises(FileFormatError):
        measure(toys.suite(), dataclasses.replace(toys.seen(1), suite=""), registry=toys.registry())


def test_answers_of_some_layers_only_are_no_answers() -> None:
    victim = toys.make_model()
    seeds = select_seeds(victim, *toys.make_inputs(victim), n=20)
    suite = build_suite(victim, seeds, ["poke"], layers=["dense1", "dense2"], registry=toys.registry())
    observation = observe(toys.make_model(1), suite)
    one = {"dense1": observation.activations["dense1"]}
    for activations, names in ((one, "dense1"), (one | {"dense9": one["dense1"]}, "dense1, dense9")):
        with refused(FileFormatError, "toy-1", "dense1, dense2", names):
            measure(suite, dataclasses.replace(observation, activations=activations), registry=toys.registry())


def test_every_decision_of_every_pair_of_votes() -> None:
    # Whatever the votes: never "independent" while a setting says copy, never a decision without measured metrics.
    for says in itertools.product(("copy", "no", "none", "unmeasured", "denied"), repeat=4):
        verdict = verdict_of(**dict(zip(("b1", "b2", "w1", "w2"), says, strict=True)))
        settings = [s.decision for s in verdict.settings.values()]
        if Decision.COPY in settings:
            assert verdict.decision is Decision.COPY
        elif Decision.INCONCLUSIVE in settings or Decision.INDEPENDENT not in settings:
            assert verdict.decision is Decision.INCONCLUSIVE
        else:
            assert verdict.decision is Decision.INDEPENDENT
        assert (verdict.points_to is not None) == (verdict.decision is Decision.COPY)
        if not {"copy", "no"} & set(says):
            assert verdict.decision is Decision.INCONCLUSIVE


def test_a_copy_among_the_controls_is_pointed_out() -> None:
    honest = [toys.seen(seed) for seed in range(1, 6)]
    for copies in ([], [toys.seen(0, noise=0.07)]):
        calibration = calibrate(toys.suite(), [*honest, *copies], registry=toys.registry())
        report = toys.outcome(
            toys.suite(),
            calibration,
            [toys.seen(0, noise=0.05)],
            JudgeSettings(rule="nearest"),
            registry=toys.registry(),
        )
        notes = report_to_json(report)["calibration"]["notes"]
        for note, copy in zip(notes, copies, strict=True):
            expect_facts(note, copy.model.name)
    # By the rule too few controls say nothing of one of them; their distances do.
    few = calibrate(toys.suite(), [*honest[:2], toys.seen(0, noise=0.07)], registry=toys.registry())
    assert Judge.of(JudgeSettings(rule="nearest"), toys.registry()).doubts(few) == ()
    assert few.doubtful == (2,)


def test_groups_that_there_are_not() -> None:
    with refused(UsageError, "separate, joint", "'both'", code="wrong-value"):
        judge({}, toys.calibration(5), JudgeSettings(rule="nearest", groups="both"), registry=toys.registry())

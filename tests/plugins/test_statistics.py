"""Rules that say how often they would accuse an honest model."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import deepjudge_statistics
import numpy as np
import pytest
import scipy.stats
from deepjudge_statistics import bounds
from deepjudge_statistics.combine import combine, harmonic_factor
from deepjudge_statistics.rules import conformal, prediction_bound, tolerance_bound
from deepjudge_statistics.wording import odds
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import expect_facts, refused

from deepjudge_core.components.kinds import Rule
from deepjudge_core.components.options import resolve
from deepjudge_core.components.values import Decision, Evidence, Judgement
from deepjudge_core.errors import UsageError
from deepjudge_core.testing import check_rule
from deepjudge_core.text import found

RULES: Mapping[str, Rule] = {rule.name: rule for rule in deepjudge_statistics.deepjudge_rules()}
CASES: list[tuple[str, dict[str, Any], list[int]]] = [
    ("prediction-bound", {}, [6, 12]),
    ("tolerance-bound", {}, [3, 12]),
    ("conformal", {}, [299]),
    ("conformal", {"level": 0.25}, [12]),
    ("combine", {}, [99]),
    ("combine", {"level": 0.1}, [12]),
    ("combine", {"method": "harmonic"}, [6, 12]),
    ("combine", {"method": "bonferroni"}, [6, 12]),
]


def drawn(n: int = 12, seed: int = 0, sigma: float = 0.1) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0, sigma, n))


def one(value: float, controls: np.ndarray, **facts: Any) -> dict[str, Evidence]:
    return {"jsd": Evidence(value, controls, 0.9, **facts)}


@pytest.mark.parametrize(("name", "options", "controls"), CASES)
def test_contract(name: str, options: dict[str, Any], controls: list[int]) -> None:
    check_rule(RULES[name], options=options, controls=controls)


@pytest.mark.parametrize("options", [{}, {"level": 1e-9}])
def test_contract_of_the_rule_that_needs_no_controls(options: dict[str, Any]) -> None:
    assert not RULES["exact"].needs_controls
    check_rule(RULES["exact"], options=options)


# Formulas.


@pytest.mark.parametrize(("n", "factor"), [(3, 10.55), (6, 5.06), (12, 3.75), (24, 3.18)])
def test_tolerance_factors_of_the_tables(n: int, factor: float) -> None:
    assert bounds.tolerance_factor(n, 0.99, 0.95) == pytest.approx(factor, abs=0.006)


@pytest.mark.parametrize("n", [3, 12])
def test_a_tolerance_bound_covers_what_it_says(n: int) -> None:
    rng = np.random.default_rng(n)
    logs = rng.normal(size=(4000, n))
    factor = bounds.tolerance_factor(n, 0.99, 0.95)
    accused = scipy.stats.norm.cdf(logs.mean(axis=1) - factor * logs.std(axis=1, ddof=1))
    low, high = scipy.stats.binomtest(int((accused <= 0.01).sum()), 4000).proportion_ci(0.999)
    assert low < 0.95 < high


@given(st.integers(2, 30), st.integers(0, 99), st.floats(0.3, 2))
@settings(max_examples=50, deadline=None)
def test_prediction_p_is_a_regression_on_an_indicator(n: int, seed: int, value: float) -> None:
    # The t statistic of one new value is that of its own coefficient in a least-squares fit.
    controls = drawn(n + 1, seed)
    y = np.log([*controls, value])
    x = np.column_stack([np.ones(n + 2), np.arange(n + 2) == n + 1])
    beta, (left,), *_ = np.linalg.lstsq(x, y, rcond=None)
    t = beta[1] / math.sqrt(left / n * np.linalg.inv(x.T @ x)[1, 1])
    assert bounds.prediction_p(value, controls) == pytest.approx(scipy.stats.t.cdf(t, n), rel=1e-6, abs=1e-12)


@given(st.floats(1e-4, 0.5), st.integers(3, 40), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_limits_are_where_p_is_the_level(level: float, n: int, seed: int) -> None:
    controls = drawn(n, seed)
    assert bounds.prediction_p(bounds.prediction_limit(level, controls), controls) == pytest.approx(level, rel=1e-6)
    limit = bounds.conformal_limit(level, controls)
    if limit is None:
        assert bounds.conformal_p(0, controls) > level
        assert n < bounds.conformal_controls(level)
    else:
        assert bounds.conformal_p(limit, controls) <= level * (1 + 1e-9)
        assert bounds.conformal_p(math.nextafter(limit, 9), controls) > level
        assert n >= bounds.conformal_controls(level)


def test_conformal_p_by_hand() -> None:
    controls = np.array([1.0, 2.0, 2.0, 3.0])
    assert [bounds.conformal_p(d, controls) for d in (0, 1, 1.5, 2, 3)] == [0.2, 0.4, 0.4, 0.8, 1.0]
    assert [bounds.conformal_controls(level) for level in (0.01, 0.005, 0.05, 0.1, 0.3)] == [99, 199, 19, 9, 3]


@pytest.mark.parametrize(("level", "count"), [(0.075, 3), (0.15, 6), (0.01, 1), (0.05, 2)])
def test_as_many_controls_as_are_asked_for_can_accuse(level: float, count: int) -> None:
    controls = np.linspace(1, 2, bounds.conformal_controls(level / count))
    judgement = conformal({f"m{place}": Evidence(0.5, controls, 1.0) for place in range(count)}, level=level)
    assert judgement.decision is Decision.COPY
    assert all(vote.vote for vote in judgement.votes.values())


@pytest.mark.parametrize("count", [3, 4, 6])
def test_harmonic_factor_is_that_of_the_worst_dependence(count: int) -> None:
    # The rearrangement algorithm (Puccetti & Rueschendorf, 2012): the largest least sum of 1/u that coupling can make.
    inverse = 1 / ((np.arange(20_000) + 0.5) / 20_000)
    columns = np.tile(inverse[:, None], count)
    rng = np.random.default_rng(0)
    for column in columns.T:
        rng.shuffle(column)
    for _ in range(30):
        for j in range(count):
            others = columns.sum(axis=1) - columns[:, j]
            columns[np.argsort(others), j] = np.sort(columns[:, j])[::-1]
    assert harmonic_factor(count) == pytest.approx(columns.sum(axis=1).min() / count, rel=2e-3)
    assert harmonic_factor(count) < math.e * math.log(count)


def test_harmonic_factor_of_few() -> None:
    assert (harmonic_factor(1), harmonic_factor(2)) == (1, 2)


# Judgements.


def p_values(judgement: Judgement) -> tuple[float, float]:
    assert judgement.p_value is not None
    assert judgement.least_p_value is not None
    return judgement.p_value, judgement.least_p_value


def test_prediction_bound_corrects_for_metrics() -> None:
    evidence = {str(i): Evidence(0.7, drawn(seed=i), 0.9) for i in range(4)}
    judgement = prediction_bound(evidence)
    single = [bounds.prediction_p(0.7, drawn(seed=i)) for i in range(4)]
    assert [vote.p_value for vote in judgement.votes.values()] == single
    assert p_values(judgement) == (pytest.approx(4 * min(single)), 0)
    for i, vote in enumerate(judgement.votes.values()):
        assert vote.threshold == pytest.approx(bounds.prediction_limit(0.0025, drawn(seed=i)))
        assert vote.vote is (single[i] <= 0.0025)
        assert vote.false_positive_rate == 0.0025
    assert (judgement.decision is Decision.COPY) is any(vote.vote for vote in judgement.votes.values())


def test_a_distance_of_0_is_below_every_threshold() -> None:
    judgement = prediction_bound(one(0.0, drawn()))
    assert (judgement.decision, judgement.p_value) == (Decision.COPY, 0)
    expect_facts(str(judgement.statement), "1 in 1,000,000")


@pytest.mark.parametrize("rule", [prediction_bound, tolerance_bound])
@pytest.mark.parametrize(
    ("controls", "facts"),
    [
        ([1.0, 2.0], ("{least} controls", "2", "{missing}")),
        ([0.0, *drawn(11)], ("distance 0", "logarithm")),
        ([0.7] * 12, ("same distance",)),
    ],
)
def test_controls_that_say_nothing(rule: Any, controls: list[float], facts: tuple[str, ...]) -> None:
    least = {prediction_bound: 6, tolerance_bound: 3}[rule]
    judgement = rule(one(0.0, np.array(controls)))
    assert judgement.decision is Decision.INCONCLUSIVE
    assert judgement.reason == judgement.votes["jsd"].reason
    expect_facts(str(judgement.reason), *(fact.format(least=least, missing=least - 2) for fact in facts))
    assert (judgement.p_value, judgement.statement) == (None, None)


def test_conformal_says_how_many_controls_are_missing() -> None:
    judgement = conformal(one(0.0, drawn(12)))
    assert judgement.decision is Decision.INCONCLUSIVE
    expect_facts(str(judgement.reason), "99 controls", "12", "87", "0.01")
    assert p_values(judgement) == (pytest.approx(1 / 13), pytest.approx(1 / 13))
    both = {name: Evidence(0.0, drawn(150), 0.9) for name in ("robd", "jsd")}
    expect_facts(str(conformal(both).reason), "199 controls", "150", "49", "0.005")
    assert conformal(one(0.0, drawn(99))).decision is Decision.COPY
    assert conformal(one(0.0, drawn(99))).votes["jsd"].false_positive_rate == pytest.approx(0.01)


@pytest.mark.parametrize(("name", "options", "controls"), CASES)
def test_the_strictest_stratum_counts(name: str, options: dict[str, Any], controls: list[int]) -> None:
    n = controls[-1]
    near, far = 0.3 * drawn(n, 1), drawn(n, 2)
    strata = ("same-data",) * n + ("other-data",) * n
    judge = RULES[name].judge
    for value in (0.0, 0.3, 0.35):
        divided = judge(one(value, np.concatenate([near, far]), strata=strata), **options)
        alone = [judge(one(value, part), **options) for part in (near, far)]
        assert divided.decision is alone[0].decision
        assert divided.votes["jsd"].threshold == pytest.approx(alone[0].votes["jsd"].threshold)
        if divided.p_value is not None:
            assert divided.p_value == pytest.approx(max(judgement.p_value for judgement in alone))
            assert divided.least_p_value == pytest.approx(max(judgement.least_p_value for judgement in alone))
    assert alone[1].decision is Decision.COPY  # which by the far controls alone it would be
    assert divided.decision is Decision.INDEPENDENT


@pytest.mark.parametrize(("name", "options", "controls"), CASES)
def test_a_stratum_with_too_few_controls_is_not_pooled(name: str, options: dict[str, Any], controls: list[int]) -> None:
    n = controls[-1]
    for stratum in ("same-data", None):
        strata = (stratum,) * 2 + ("other-data",) * n
        judgement = RULES[name].judge(one(0.0, drawn(n + 2), strata=strata), **options)
        assert judgement.decision is Decision.INCONCLUSIVE
        expect_facts(str(judgement.reason), stratum or "", "controls", 2)


def test_a_score_puts_the_metrics_of_one_control_side_by_side() -> None:
    a, b = drawn(40, 1), drawn(40, 2)
    evidence = {
        "a": Evidence(0.9, a, 0.9, places=tuple(range(40))),
        "b": Evidence(0.8, b, 0.9, places=tuple(range(40))),
    }
    whole = combine(evidence, level=0.1)
    order = np.random.default_rng(0).permutation(40)
    shuffled = dataclasses.replace(evidence["b"], controls=b[order], places=tuple(map(int, order)))
    assert combine(evidence | {"b": shuffled}, level=0.1).p_value == whole.p_value
    fewer = dataclasses.replace(evidence["b"], controls=b[5:], places=tuple(range(5, 40)))
    apart = {"a": Evidence(0.9, a[5:], 0.9), "b": Evidence(0.8, b[5:], 0.9)}
    assert combine(evidence | {"b": fewer}, level=0.1).p_value == combine(apart, level=0.1).p_value


def test_a_score_of_one_metric_is_its_rank() -> None:
    for value in (0.0, 0.8, 1.0, 2.0):
        assert combine(one(value, drawn(40)), level=0.1).p_value == conformal(one(value, drawn(40)), level=0.1).p_value


@given(st.integers(0, 999), st.floats(0, 1.5), st.floats(0, 1.5), st.floats(0, 1.5))
@settings(max_examples=60, deadline=None)
def test_a_smaller_distance_never_gives_a_larger_p(seed: int, one_: float, two: float, other: float) -> None:
    near, far = sorted((one_, two))
    for name, options, _ in CASES:
        if name == "tolerance-bound":
            continue
        controls = [drawn(12, seed + i, 0.4) for i in (0, 1000)]
        judgements = [
            RULES[name]
            .judge({"a": Evidence(value, controls[0], 0.9), "b": Evidence(other, controls[1], 0.9)}, **options)
            .p_value
            for value in (near, far)
        ]
        assert judgements[0] <= judgements[1]


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (prediction_bound, {"level": 0.0}),
        (tolerance_bound, {"level": 1.0}),
        (tolerance_bound, {"confidence": 1.0}),
        (conformal, {"level": math.nan}),
        (combine, {"level": 2.0}),
    ],
)
def test_options_out_of_range(rule: Any, options: dict[str, float]) -> None:
    ((option, value),) = options.items()
    with refused(UsageError, option, found(value), code="wrong-value"):
        resolve("mine", rule, options)


def test_odds_are_never_less_than_the_probability() -> None:
    texts = [odds(p) for p in (0, 1e-9, 0.0003, 0.01, 0.34, 0.7, 1)]
    assert texts == ["1 in 1,000,000", "1 in 1,000,000", "1 in 3,333", "1 in 100", "1 in 2", "70 %", "100 %"]


# How often an honest model is accused.


@pytest.mark.parametrize(("name", "options", "n"), [(name, options, ns[-1]) for name, options, ns in CASES])
def test_honest_models_are_accused_no_more_often_than_it_says(name: str, options: dict[str, Any], n: int) -> None:
    rng = np.random.default_rng(2023)
    draws, level = 1500, options.get("level", 0.01)
    shared, own = rng.normal(size=(draws, n + 1, 1)), rng.normal(size=(draws, n + 1, 2))
    values = np.exp(0.1 * (shared + own))  # metrics that depend on one another
    judgements = [
        RULES[name].judge({str(j): Evidence(v[0, j], v[1:, j], 0.9) for j in range(2)}, **options).decision
        for v in values
    ]
    accused = scipy.stats.binomtest(judgements.count(Decision.COPY), draws)
    assert accused.proportion_ci(0.999, method="exact").low <= level
    assert Decision.INCONCLUSIVE not in judgements


@pytest.mark.parametrize("name", ["prediction-bound", "conformal"])
def test_one_metric_accuses_as_often_as_it_says(name: str) -> None:
    rng = np.random.default_rng(7)
    draws, n, level = 3000, 19, 0.05
    values = np.exp(rng.normal(size=(draws, n + 1)))
    copies = sum(RULES[name].judge(one(v[0], v[1:]), level=level).decision is Decision.COPY for v in values)
    interval = scipy.stats.binomtest(copies, draws).proportion_ci(0.999, method="exact")
    assert interval.low <= level <= interval.high


def test_what_no_controls_can_show_is_said() -> None:
    strata = ("same-data",) * 7 + ("other-data",) * 12
    judgement = prediction_bound(one(0.1, drawn(19), strata=strata))
    expect_facts(str(judgement.statement), "19 controls", "7 same-data, 12 other-data", "log-normal", "1 in 8")

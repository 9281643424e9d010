import math

import deepjudge_voting
import numpy as np
import pytest
import scipy.stats
from deepjudge_voting.voting import false_positive_rate, lower_bound, voting
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import expect_facts, refused

from deepjudge_core.components.options import resolve
from deepjudge_core.components.values import Decision, Evidence
from deepjudge_core.errors import UsageError
from deepjudge_core.text import found

CONTROLS = np.array([10.0, 11.0, 12.0])  # mean 11, standard deviation 1
T_99_2 = 6.964556734283  # from a table of Student's t


def evidence(**values: float) -> dict[str, Evidence]:
    return {name: Evidence(value, CONTROLS, 0.9) for name, value in values.items()}


def test_bounds_by_hand():
    assert lower_bound(CONTROLS, "prediction", 0.99) == pytest.approx(11 - T_99_2 * math.sqrt(4 / 3))
    assert lower_bound(CONTROLS, "mean", 0.99) == pytest.approx(11 - T_99_2 / math.sqrt(3))


def test_bound_of_the_mean_is_scipys_interval():
    values = np.random.default_rng(0).normal(5, 2, 12)
    low, _ = scipy.stats.ttest_1samp(values, 0, alternative="greater").confidence_interval(0.99)
    assert lower_bound(values, "mean", 0.99) == pytest.approx(low)


@pytest.mark.parametrize(("bound", "low", "high"), [("prediction", 0.007, 0.013), ("mean", 0.21, 0.25)])
def test_how_often_an_honest_model_falls_below(bound, low, high):
    rng = np.random.default_rng(2022)
    drawn = rng.normal(1, 0.1, (10_000, 13))
    below = [new <= lower_bound(controls, bound, 0.99) for new, *controls in drawn]
    assert low < np.mean(below) < high


def test_threshold_is_a_share_of_the_bound():
    vote = voting(evidence(jsd=1.0)).votes["jsd"]
    assert vote.lower_bound == pytest.approx(lower_bound(CONTROLS, "prediction", 0.99))
    assert vote.threshold == pytest.approx(0.9 * vote.lower_bound)
    at_half = voting(evidence(jsd=1.0), alpha={"jsd": 0.5, "nod": 0.1}).votes["jsd"]
    assert at_half.threshold == pytest.approx(0.5 * vote.lower_bound)


def test_a_value_at_the_threshold_votes_copy():
    threshold = voting(evidence(jsd=1.0)).votes["jsd"].threshold
    assert voting(evidence(jsd=threshold)).votes["jsd"].vote is True
    assert voting(evidence(jsd=math.nextafter(threshold, math.inf))).votes["jsd"].vote is False


def test_the_bound_and_the_confidence_are_those_asked_for():
    vote = voting(evidence(jsd=6.0), bound="mean", confidence=0.95).votes["jsd"]
    assert vote.lower_bound == pytest.approx(11 - 2.919985580355 / math.sqrt(3))
    assert vote.vote is True
    assert voting(evidence(jsd=6.0)).votes["jsd"].vote is False


@pytest.mark.parametrize(
    ("values", "p_copy", "decision"),
    [
        ((0, 0, 0), 1, Decision.COPY),
        ((0, 0, 11), 2 / 3, Decision.COPY),
        ((0, 11), 0.5, Decision.INDEPENDENT),  # not more than half
        ((0, 11, 11), 1 / 3, Decision.INDEPENDENT),
        ((11,), 0, Decision.INDEPENDENT),
    ],
)
def test_more_than_half_of_the_votes(values, p_copy, decision):
    judgement = voting({str(i): Evidence(value, CONTROLS, 0.9) for i, value in enumerate(values)})
    assert (judgement.decision, judgement.p_copy) == (decision, pytest.approx(p_copy))
    assert judgement.reason is None


@pytest.mark.parametrize(
    ("value", "controls", "facts"),
    [
        (0.0, [0.0, 0.0, 0.0], ("bound 0",)),
        (0.0, [0.1, 1.0, 2.0], ("bound -",)),
        (0.0, [1.0, 1.1, math.nan], ("finite",)),
        (0.0, [1.0, 1.1, math.inf], ("finite",)),
        (math.nan, [1.0, 1.01, 1.02], ("nan",)),
        (-math.inf, [1.0, 1.01, 1.02], ("-inf",)),
        (0.0, [1.0, 1.01], ("3 controls", 2)),
        (0.0, [], ("3 controls", 0)),
    ],
)
def test_no_vote(value, controls, facts):
    none = Evidence(value, np.array(controls), 0.9)
    judgement = voting({"jsd": none})
    assert judgement.decision is Decision.INCONCLUSIVE
    assert judgement.p_copy is None
    assert judgement.reason
    assert judgement.votes["jsd"].vote is None
    expect_facts(judgement.votes["jsd"].reason, *facts)
    beside = voting({"jsd": none, "robd": Evidence(0.0, CONTROLS, 0.9)})
    assert (beside.decision, beside.p_copy) == (Decision.COPY, 1)


def test_controls_that_all_agree():
    same = np.full(3, 0.7)
    assert voting({"jsd": Evidence(0.62, same, 0.9)}).votes["jsd"].vote is True
    assert voting({"jsd": Evidence(0.64, same, 0.9)}).votes["jsd"].vote is False


@given(st.lists(st.floats(0.01, 10), min_size=3, max_size=15), st.floats(0, 12), st.floats(0, 12))
@settings(max_examples=50, deadline=None)
def test_a_greater_value_is_never_more_of_a_copy(controls, one, other):
    near, far = (voting({"jsd": Evidence(v, np.array(controls), 0.9)}).p_copy for v in sorted((one, other)))
    assert (near is None) == (far is None)
    assert near is None or near >= far


@pytest.mark.parametrize(
    "options",
    [
        {"bound": "median"},
        {"confidence": 0.0},
        {"confidence": 1.0},
        {"confidence": math.nan},
        {"alpha.jsd": 0.0},
        {"alpha.jsd": 1.1},
        {"alpha.jsd": math.nan},
    ],
)
def test_options_out_of_range(options):
    ((option, value),) = options.items()
    with refused(UsageError, "voting", option, found(value), code="wrong-value"):
        resolve("voting", voting, options)


@pytest.mark.parametrize(
    ("n", "bound", "rate"), [(3, "prediction", 0.01), (12, "prediction", 0.01), (12, "mean", 0.23), (24, "mean", 0.31)]
)
def test_what_the_bound_says_of_honest_models(n, bound, rate):
    assert false_positive_rate(n, bound, 0.99) == pytest.approx(rate, abs=0.005)
    drawn = np.random.default_rng(n).normal(1, 0.1, (20_000, n + 1))
    controls = drawn[:, 1:]
    factor = scipy.stats.t.ppf(0.99, n - 1) * math.sqrt((bound == "prediction") + 1 / n)
    below = drawn[:, 0] <= controls.mean(axis=1) - factor * controls.std(axis=1, ddof=1)
    interval = scipy.stats.binomtest(int(below.sum()), len(below)).proportion_ci(0.999, method="exact")
    assert interval.low < false_positive_rate(n, bound, 0.99) < interval.high
    if bound == "mean":
        judgement = voting({"jsd": Evidence(1.0, controls[0], 0.9)}, bound=bound)
        assert judgement.votes["jsd"].false_positive_rate == pytest.approx(rate, abs=0.005)
        expect_facts(judgement.statement, f"{100 * judgement.votes['jsd'].false_positive_rate:.3g} %")


@pytest.mark.parametrize(
    ("strata", "advice"), [((), "name their strata"), (("same-data",) * 3 + ("other-data",) * 3, "strata=true")]
)
def test_controls_of_two_kinds_are_told_what_to_do(strata, advice):
    controls = np.array([1.0, 1.1, 1.2, 9.0, 9.1, 9.2])
    judgement = voting({"jsd": Evidence(0.1, controls, 0.9, strata)})
    vote = judgement.votes["jsd"]
    assert (judgement.decision, vote.vote) == (Decision.INCONCLUSIVE, None)
    expect_facts(vote.reason, "1..1.2", "9..9.2", "3 controls", advice)
    # Controls of one kind that say nothing have none, and those that say something need none.
    wide = voting({"jsd": Evidence(0.1, np.array([1.0, 3.0, 5.0, 7.0, 9.0, 11.0]), 0.9)}).votes["jsd"]
    assert wide.vote is None
    assert "two groups" not in wide.reason
    known = voting({"jsd": Evidence(0.1, np.array([8.0, 8.01, 8.02, 9.0, 9.01, 9.02]), 0.9)}).votes["jsd"]
    assert known.vote is True


def test_strata_are_pooled_unless_told_otherwise():
    near, far = np.array([4.0, 4.1, 4.2]), np.array([10.0, 10.1, 10.2])
    strata = ("same-data",) * 3 + ("other-data",) * 3
    metrics = {"jsd": Evidence(3.5, np.concatenate([near, far]), 0.9, strata)}
    alone = voting({"jsd": Evidence(3.5, near, 0.9)}).votes["jsd"]
    pooled, divided = voting(metrics), voting(metrics, strata=True)
    assert pooled.votes["jsd"].vote is None  # their bound is below 0
    assert divided.votes["jsd"] == alone
    expect_facts(divided.statement, "each stratum", "other-data, same-data")
    wide = {"jsd": Evidence(0.5, np.array([8.0, 8.1, 8.2, 10.0, 10.1, 10.2]), 0.9, strata)}
    expect_facts(voting(wide).statement, "pooled", "other-data, same-data")
    few = {"jsd": Evidence(3.5, far, 0.9, ("same-data", "other-data", "other-data"))}
    assert voting(few, strata=True).decision is Decision.INCONCLUSIVE
    expect_facts(voting(few, strata=True).votes["jsd"].reason, "same-data", "3 controls", 1)


def test_what_the_plugin_registers():
    assert [(rule.name, rule.judge) for rule in deepjudge_voting.deepjudge_rules()] == [("voting", voting)]

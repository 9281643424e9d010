"""Suspects that are asked case by case."""

import hashlib
import itertools
import json
import math
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deepjudge_statistics
import jsonschema
import numpy as np
import pytest
import reports
import scipy.stats
import toys
from commands import MADE, METRICS, Cli
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import expect_facts, refused

from deepjudge_core import (
    Access,
    AuditSettings,
    Decision,
    Evidence,
    Inputs,
    Judgement,
    JudgeSettings,
    LiveModel,
    Model,
    Observation,
    Rule,
    Session,
    Suite,
    SuiteSettings,
    Vote,
    audit,
    build_suite,
    calibrate,
    hookimpl,
    observe,
    select_seeds,
)
from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import UsageError
from deepjudge_core.judging.betting import Capital
from deepjudge_core.judging.sequential import judge_sequentially
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.report.audit_json import report_to_json, schema
from deepjudge_core.report.pages.reproducing import commands


def capitals(drawn: Any, size: int, most: int) -> list[float]:
    capital, values = Capital.start(size, most), []
    for one in drawn:
        capital = capital.after(bool(one))
        values.append(capital.value)
    return values


# Bets.


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 39))
@settings(max_examples=200, deadline=None)
def test_a_capital_is_never_negative_and_is_the_bayes_factor(drawn: list[bool], most: int) -> None:
    size = len(drawn)
    most %= size
    for t, value in enumerate(capitals(drawn, size, most), 1):
        assert value >= 0
        ones = sum(drawn[:t])
        # The probability of so many ones among t of size, by the hypergeometric distribution: the order adds a factor
        # that is the same of all.
        under = scipy.stats.hypergeom.pmf(ones, size, most, t)
        others = [scipy.stats.hypergeom.pmf(ones, size, k, t) for k in range(most + 1, size + 1)]
        if ones > most:
            assert value == math.inf
        elif under > 1e-200:
            assert value == pytest.approx(np.mean(others) / under, rel=1e-6, abs=1e-12)
        else:
            assert value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("size", "most"), [(6, 0), (6, 2), (6, 5), (1, 0)])
def test_a_capital_is_no_more_on_average_under_the_hypothesis(size: int, most: int) -> None:
    for ones in range(most + 1):
        places = list(itertools.combinations(range(size), ones))
        paths = [capitals([i in chosen for i in range(size)], size, most) for chosen in places]
        after = np.array(paths).mean(axis=0)
        assert (after <= 1 + 1e-9).all()
        if 0 < ones == most:
            assert after[0] == pytest.approx(1)


@pytest.mark.parametrize("most", [-1, 5])
def test_hypotheses_that_are_none(most: int) -> None:
    with pytest.raises(ValueError, match=r"\bmost < 5\b"):
        Capital.start(5, most)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_honest_models_are_accused_no_more_often_than_it_says(share: float) -> None:
    rng = np.random.default_rng(2024)
    size, draws, level = 60, 3000, 0.05
    most = round(share * size)
    drawn = rng.permuted(np.tile(np.arange(size) < most, (draws, 1)), axis=1)
    accused = sum(max(capitals(row, size, most)) >= 1 / level for row in drawn)
    assert scipy.stats.binomtest(accused, draws).proportion_ci(0.999, method="exact").low <= level
    copies = rng.permuted(np.tile(np.arange(size) < min(size, most + 20), (200, 1)), axis=1)
    assert all(max(capitals(row, size, most)) == math.inf for row in copies)


# Judging.


def statistics() -> Registry:
    return toys.registry_of(toys=toys, statistics=deepjudge_statistics)


def labels_only(model: Model) -> Any:
    """One that gives labels, one case at a time, and counts what it is asked."""

    class Labels:
        def __init__(self) -> None:
            self.asked: list[bytes] = []
            self.name, self.framework, self.digest = "labels", "numpy", "0" * 64
            self.access, self.input, self.classes = Access.LABELS, model.input, model.classes
            self.layers = model.layers

        def predict(self, x: np.ndarray) -> np.ndarray:
            assert len(x) == 1
            self.asked.append(x.tobytes())
            return np.eye(self.classes, dtype=np.float32)[model.predict(x).argmax(axis=1)]

        def activations(self, x: np.ndarray, layers: Any) -> dict[str, np.ndarray]:
            raise AssertionError("layers are not to be asked for")

        def gradient(self, x: np.ndarray, cotangent: Any, *, layer: Any = None) -> np.ndarray:
            raise AssertionError("gradients are not to be asked for")

    return Labels()


@pytest.fixture(scope="module")
def suite() -> Suite:
    victim = toys.make_model(name="victim")
    seeds = select_seeds(victim, *toys.make_inputs(victim, 400), n=200)
    return build_suite(victim, seeds, ["shove"], registry=toys.registry())


CONTROLS = range(42, 58)  # of which each knows the task


@pytest.fixture(scope="module")
def answers(suite: Suite) -> list[Observation]:
    return [observe(toys.make_model(seed), suite) for seed in CONTROLS]


def report(suite: Suite, answers: list[Observation], *suspects: Any, strata: Any = (), **judging: Any) -> AuditOutcome:
    calibration = calibrate(suite, answers, [], strata=strata, registry=statistics())
    usual = JudgeSettings(rule="prediction-bound", sequential=True)
    return toys.outcome(suite, calibration, suspects, replace(usual, **judging), registry=statistics())


def labels_of(model: Model, inputs: np.ndarray) -> list[int]:
    return [int(label) for label in model.predict(inputs).argmax(axis=1)]


def rows_of(suite: Suite) -> tuple[list[int], dict[int, int]]:
    """The adversarial cases in the order in which they are asked, and of each the row of its seed."""
    adversarial = [int(row) for row in np.flatnonzero(suite.rows("adversarial"))]
    clean = [int(row) for row in np.flatnonzero(suite.rows("clean"))]
    order = sorted(adversarial, key=lambda row: hashlib.sha256(f"{suite.digest}:{row}".encode()).hexdigest())
    return order, {row: clean[suite.cases.seeds[row]] for row in order}


def err_alike(suite: Suite, observation: Observation) -> int:
    """On how many adversarial cases a model errs as the victim, counted one by one."""
    order, seeds = rows_of(suite)
    assert observation.probabilities is not None
    assert suite.victim.probabilities is not None
    labels, ours = observation.probabilities.argmax(axis=1), suite.victim.probabilities.argmax(axis=1)
    return sum(1 for row in order if labels[row] == ours[row] and labels[seeds[row]] == suite.cases.labels[seeds[row]])


def asked_one_by_one(suite: Suite, labels: list[int], most: int, enough: float) -> tuple[list[int], list[bool]]:
    """What is asked of a model with these labels: rows, and whether it errs as the victim on each adversarial one."""
    order, seeds = rows_of(suite)
    assert suite.victim.probabilities is not None
    ours = suite.victim.probabilities.argmax(axis=1)
    asked, drawn = list[int](), list[bool]()
    for row in order:
        asked.append(row)
        one = labels[row] == int(ours[row])
        if one:
            if seeds[row] not in asked:
                asked.append(seeds[row])
            one = labels[seeds[row]] == int(suite.cases.labels[seeds[row]])
        drawn.append(one)
        if capitals(drawn, len(order), most)[-1] >= enough:
            return asked, drawn
        if capitals([not one for one in drawn], len(order), len(order) - 1 - most)[-1] >= enough:
            break
    # One of another behaviour is asked some seeds, to see whether it knows the task.
    for seed in list(dict.fromkeys(seeds.values()))[:30]:
        if seed not in asked:
            asked.append(seed)
    return asked, drawn


def test_a_copy_and_an_honest_model(suite: Suite, answers: list[Observation]) -> None:
    copied, other = toys.make_model(noise=0.05), toys.make_model(66)
    copy, honest = labels_only(copied), labels_only(other)
    value = report_to_json(report(suite, answers, copy, honest, rule_options={"level": 0.1}))
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(value, allow_nan=False)))
    assert [suspect["decision"] for suspect in value["suspects"]] == ["copy", "independent"]
    cases, seeds = int(suite.rows("adversarial").sum()), set(rows_of(suite)[1].values())
    for suspect, model, whole in zip(value["suspects"], (copy, honest), (copied, other), strict=True):
        sequential, labels = suspect["sequential"], labels_of(whole, suite.cases.inputs)
        # Nothing else was put to it, and each case once.
        assert sequential["queries"] == len(model.asked) == len(sequential["asked"]) == len(sequential["labels"])
        assert model.asked == [suite.cases.inputs[row].tobytes() for row in sequential["asked"]]
        assert len(set(sequential["asked"])) == sequential["queries"] < sequential["budget"]
        assert (sequential["cases"], sequential["budget"]) == (cases, cases + len(seeds))
        assert sequential["labels"] == [labels[row] for row in sequential["asked"]]
        # Anybody can compute it again.
        asked, drawn = asked_one_by_one(suite, labels, sequential["most"], 2 / 0.1)
        assert sequential["asked"] == asked
        others = [not one for one in drawn]
        for key, bets, most in (
            ("e_copy", drawn, sequential["most"]),
            ("e_independent", others, cases - 1 - sequential["most"]),
        ):
            expected = max(1.0, *capitals(bets, cases, most))
            assert sequential[key] == (None if math.isinf(expected) else pytest.approx(expected))
        setting = suspect["settings"]["black-box"]
        assert setting["p_value"] == pytest.approx(min(1, 0.05 + 1 / (sequential["e_copy"] or math.inf)))
        assert setting["least_p_value"] == 0.05
        assert (setting["p_value"] <= 0.1) == (suspect["decision"] == "copy")
        expect_facts(setting["statement"], sum(drawn), len(drawn), cases, sequential["queries"])
        white = suspect["settings"]["white-box"]
        assert white["decision"] is None
        assert "preprocessing and classes are not inferred" in white["reason"]
    assert value["suspects"][0]["points_to"] == "behaviour"


MARGIN = 0.7  # of the nearest control's distance, where the controls show nothing of other architectures


def test_the_bound_is_that_of_the_rule(suite: Suite, answers: list[Observation]) -> None:
    size = int(suite.rows("adversarial").sum())
    shares = np.array([(size - err_alike(suite, answer)) / size for answer in answers])
    logs = np.log(shares)

    def limit(logs: np.ndarray) -> float:
        n = len(logs)
        return math.exp(logs.mean() + scipy.stats.t.ppf(0.005, n - 1) * logs.std(ddof=1) * math.sqrt(1 + 1 / n))

    # Of these models nothing but what is said of them tells the architecture.
    hidden = [replace(one, model=replace(one.model, access=Access.BLACK_BOX)) for one in answers]
    for controls, strata, least in (
        (answers, (), min(limit(logs), MARGIN * shares.min())),
        (
            answers,
            ("same-data",) * 8 + ("other-data",) * 8,
            min(limit(logs[:8]), limit(logs[8:]), MARGIN * shares.min()),
        ),
        # Several controls are known to have other architectures, and others the victim's: the rule's bound is enough.
        (
            hidden,
            ("same-architecture",) * 8 + ("other-architecture",) * 8,
            min(limit(logs[:8]), limit(logs[8:])),
        ),
        # Of other architectures alone it is not, nor of such as have the victim's widths.
        (
            hidden,
            ("same-data",) * 8 + ("other-architecture",) * 8,
            min(limit(logs[:8]), limit(logs[8:]), MARGIN * shares.min()),
        ),
        (
            answers,
            ("same-architecture",) * 8 + ("other-architecture",) * 8,
            min(limit(logs[:8]), limit(logs[8:]), MARGIN * shares.min()),
        ),
    ):
        [result] = report(suite, controls, toys.make_model(noise=0.05), strata=strata).suspects
        assert result.sequential
        assert result.sequential.most == size - 1 - math.floor(size * least)


def with_rule(rule: Rule) -> Registry:
    def deepjudge_rules() -> list[Rule]:
        return [rule]

    return toys.registry_of(toys=toys, mine=SimpleNamespace(deepjudge_rules=hookimpl(deepjudge_rules)))


def by_t(*, threshold: bool) -> Rule:
    """A plugin's rule: Student's t of the distances as they are, with a threshold that may be below 0, or without."""

    def judge(evidence: Mapping[str, Evidence], *, level: float = 0.01) -> Judgement:
        [(name, one)] = evidence.items()
        n = len(one.controls)
        middle, spread = one.controls.mean(), one.controls.std(ddof=1) * math.sqrt(1 + 1 / n)
        p_value = float(scipy.stats.t.cdf((one.value - middle) / spread, n - 1))
        limit = middle + scipy.stats.t.ppf(level, n - 1) * spread if threshold else None
        decision = Decision.COPY if p_value <= level else Decision.INDEPENDENT
        vote = Vote(p_value <= level, threshold=limit, p_value=p_value)
        return Judgement(decision, None, {name: vote}, p_value=p_value, least_p_value=0.0, statement="by t")

    return Rule("by-t", judge=judge)


def test_a_rule_of_a_plugin_needs_no_threshold(suite: Suite, answers: list[Observation]) -> None:
    size = int(suite.rows("adversarial").sum())
    shares = np.array([(size - err_alike(suite, answer)) / size for answer in answers])
    spread = shares.std(ddof=1) * math.sqrt(1 + 1 / len(shares))
    limit = shares.mean() + scipy.stats.t.ppf(0.0005, len(shares) - 1) * spread
    assert 0 < limit < MARGIN * shares.min()  # or it would not tell
    for threshold in (True, False):
        registry = with_rule(by_t(threshold=threshold))
        calibration = calibrate(suite, answers, [], registry=registry)
        judging = JudgeSettings(rule="by-t", rule_options={"level": 0.001}, sequential=True)
        [result] = toys.outcome(suite, calibration, [toys.make_model(noise=0.05)], judging, registry=registry).suspects
        assert result.sequential
        assert result.sequential.most == size - 1 - math.floor(size * limit)


def test_a_rule_that_calls_nothing_a_copy_asks_nothing(suite: Suite, answers: list[Observation]) -> None:
    registry, model = with_rule(by_t(threshold=True)), labels_only(toys.make_model(noise=0.05))
    calibration = calibrate(suite, answers, [], registry=registry)
    judging = JudgeSettings(rule="by-t", rule_options={"level": 1e-9}, sequential=True)
    [result] = toys.outcome(suite, calibration, [model], judging, registry=registry).suspects
    assert (result.decision, model.asked, result.sequential) == (Decision.INCONCLUSIVE, [], None)
    assert result.verdict
    expect_facts(str(result.verdict.reason), "controls", "every case")


def by_limit(limit: float) -> Rule:
    """A rule that calls a copy what is at most so far."""

    def judge(evidence: Mapping[str, Evidence], *, level: float = 0.01) -> Judgement:
        [(name, one)] = evidence.items()
        near = bool(one.value <= limit)
        vote, p_value = Vote(near, limit, limit, p_value=float(not near)), float(not near)
        decision = Decision.COPY if near else Decision.INDEPENDENT
        return Judgement(decision, None, {name: vote}, None, p_value, 0.0, "so")

    return Rule("by-limit", judge)


def test_at_the_bound_itself_a_model_is_near(suite: Suite, answers: list[Observation]) -> None:
    size = int(suite.rows("adversarial").sum())
    for near in (0, 1, size // 4):
        registry = with_rule(by_limit(near / size))
        calibration = calibrate(suite, answers, [], registry=registry)
        judging = JudgeSettings(rule="by-limit", sequential=True)
        [result] = toys.outcome(suite, calibration, [toys.make_model(noise=0.05)], judging, registry=registry).suspects
        assert result.sequential
        assert result.sequential.most == size - near - 1


@pytest.mark.parametrize(("level", "half"), [(0.01, "0.005"), (0.0001, "5e-05")])
def test_what_is_said_of_honest_models(suite: Suite, answers: list[Observation], level: float, half: str) -> None:
    [result] = report(suite, answers, toys.make_model(1), rule_options={"level": level}).suspects
    assert result.verdict
    statement = str(result.verdict.settings["black-box"].statement)
    assert f" {half} (by the rule" in statement


def test_a_budget(suite: Suite, answers: list[Observation]) -> None:
    order, seeds = rows_of(suite)
    labels = labels_of(toys.make_model(noise=0.05), suite.cases.inputs)
    for budget in (1, 2, 3, 8):
        model = labels_only(toys.make_model(noise=0.05))
        [result] = report(suite, answers, model, budget=budget).suspects
        assert result.verdict
        assert result.sequential
        assert (result.decision, len(model.asked)) == (Decision.INCONCLUSIVE, budget)
        assert list(result.sequential.rows) == asked_one_by_one(suite, labels, result.sequential.most, 200)[0][:budget]
        expect_facts(str(result.verdict.reason), "budget", budget)
    # Where the budget ends between a case and its seed, nothing is known of the case.
    [result] = report(suite, answers, toys.make_model(noise=0.05), budget=1).suspects
    assert result.sequential
    assert (result.sequential.e_copy, result.sequential.rows) == (1.0, (order[0],))
    assert seeds[order[0]] not in result.sequential.rows


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_all_cases_decide_exactly(suite: Suite, answers: list[Observation], share: float) -> None:
    # At a level that no bet reaches before it is known.
    calibration = calibrate(suite, answers, [], registry=statistics())
    ours, (rows, seeds) = suite.victim.probabilities.argmax(axis=1), rows_of(suite)
    rule, options = statistics().rules["prediction-bound"], {"level": 0.02}
    _, first = judge_sequentially(suite, calibration, lambda row: int(ours[row]), rule, options, budget=1)
    assert first
    for more, decision in ((0, Decision.INDEPENDENT), (1, Decision.COPY)):
        agree = set(np.random.default_rng(int(10 * share)).permutation(rows)[: first.most + more].tolist())

        def label(row: int, agree: set[int] = agree) -> int:
            knows = row in agree or row in seeds.values()
            return int(ours[row]) if knows else int(ours[row] + 1) % 4

        verdict, _ = judge_sequentially(suite, calibration, label, rule, options)
        assert verdict.decision is decision


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.5, 1.0])
def test_a_case_counts_where_its_seed_is_known(suite: Suite, answers: list[Observation], wrong: float) -> None:
    # One that gives the victim's label to every adversarial case, and a wrong one to a share of the seeds.
    calibration = calibrate(suite, answers, [], registry=statistics())
    ours, (order, seeds) = suite.victim.probabilities.argmax(axis=1), rows_of(suite)
    clean = sorted(set(seeds.values()))
    lost = set(np.random.default_rng(3).permutation(clean)[: round(wrong * len(clean))].tolist())
    count: dict[int, int] = {}

    def label(row: int) -> int:
        count[row] = count.get(row, 0) + 1
        return int(ours[row] + 1) % 4 if row in lost else int(ours[row])

    rule, options = statistics().rules["prediction-bound"], {"level": 0.02}
    verdict, result = judge_sequentially(suite, calibration, label, rule, options)
    assert result
    # The seed of each case is asked, once, though several were made from one.
    assert set(count.values()) == {1}
    assert {seeds[row] for row in result.rows if row in seeds} <= set(result.rows)
    assert set(result.rows) == set(count)
    assert verdict.decision is {0.0: Decision.COPY}.get(wrong, Decision.INCONCLUSIVE)
    if wrong:
        # By the seeds that were asked of one that errs as the victim on many cases, else by the first thirty.
        accused = result.e_copy >= 2 / 0.02
        assert accused == (wrong == 0.3)
        distinct = list(dict.fromkeys(seeds[row] for row in order))
        sample = [row not in lost for row in distinct if row in result.rows or not accused][: None if accused else 30]
        expect_facts(str(verdict.reason), f"{sum(sample) / len(sample):.1%}")


@pytest.mark.parametrize("change", ["untrained", "constant", "noise", "other inputs"])
def test_a_model_that_does_not_know_the_task_is_inconclusive(
    suite: Suite, answers: list[Observation], change: str
) -> None:
    rng, inputs = np.random.default_rng(1), []

    class Changed(toys.NumpyModel):
        def predict(self, x: np.ndarray) -> np.ndarray:
            inputs.append(x)
            if change == "noise":
                return np.eye(4, dtype=np.float32)[rng.integers(4, size=len(x))]
            if change == "constant":
                return np.eye(4, dtype=np.float32)[np.full(len(x), 2)]
            return super().predict(1 - x if change == "other inputs" else x)

    whole = toys.make_model(noise=0.05) if change == "other inputs" else toys.make_model(0, knows=change != "untrained")
    for access in (Access.FULL, Access.LABELS):
        inputs.clear()
        model = Changed(whole.weights, toys.SHAPE, name="changed", access=access)
        [result] = report(suite, answers, model).suspects
        assert result.decision is Decision.INCONCLUSIVE
        assert result.verdict
        assert result.sequential
        assert sum(map(len, inputs)) == len(result.sequential.rows) == len(set(result.sequential.rows))
        assert result.sequential.e_independent >= 200 > result.sequential.e_copy
        clean = [row for row in result.sequential.rows if suite.rows("clean")[row]]
        assert len(clean) >= 30  # they are recorded, as all that is asked


def test_what_is_better_than_all_controls_is_not_accused(suite: Suite) -> None:
    # Controls that err on many seeds, so that they err as the victim on few cases.
    noisy = []
    for place, observation in enumerate(observe(toys.make_model(seed), suite) for seed in CONTROLS):
        assert observation.probabilities is not None
        probabilities = observation.probabilities.copy()
        clean = np.flatnonzero(suite.rows("clean"))
        lost = np.random.default_rng(place).permutation(clean)[: int(0.4 * len(clean))]
        probabilities[lost] = np.roll(probabilities[lost], 1, axis=1)
        noisy.append(replace(observation, probabilities=probabilities))
    calibration = calibrate(suite, noisy, [], far=True, registry=statistics())
    rule, options = statistics().rules["prediction-bound"], {"level": 0.02}
    labels = labels_of(toys.make_model(noise=0.05), suite.cases.inputs)
    verdict, result = judge_sequentially(suite, calibration, labels.__getitem__, rule, options)
    assert result
    assert result.e_copy >= 2 / 0.02
    assert verdict.decision is Decision.INCONCLUSIVE
    setting = verdict.settings["black-box"]
    assert (setting.p_value, setting.least_p_value, setting.statement) == (None, None, None)
    expect_facts(str(verdict.reason), "100.0%")


def test_a_budget_that_leaves_no_seeds_leaves_it_open(suite: Suite, answers: list[Observation]) -> None:
    whole = labels_only(toys.make_model(66))
    [result] = report(suite, answers, whole).suspects
    assert result.decision is Decision.INDEPENDENT
    assert result.sequential
    seeds = [row for row in result.sequential.rows if suite.rows("clean")[row]]
    assert len(seeds) >= 30
    short = len(result.sequential.rows) - 1
    [result] = report(suite, answers, labels_only(toys.make_model(66)), budget=short).suspects
    assert result.decision is Decision.INCONCLUSIVE
    assert result.verdict
    expect_facts(str(result.verdict.reason), "budget", short)


def test_stored_answers_are_read_case_by_case(suite: Suite, answers: list[Observation]) -> None:
    model = toys.make_model(noise=0.05)
    # Case by case nothing is inferred.
    one, other = report(suite, answers, model, observe(model, suite, QuerySettings(infer=False))).suspects
    assert one.sequential == other.sequential
    assert one.verdict == other.verdict


def test_what_is_said_of_a_model_is_done_for_it(suite: Suite, answers: list[Observation]) -> None:
    model = toys.make_model(noise=0.05)
    turned = toys.make_model(noise=0.05)
    matrix, bias = turned.weights[-1]
    turned.weights[-1] = (matrix[:, [1, 2, 3, 0]], bias[[1, 2, 3, 0]])
    plain, other = report(suite, answers, model, LiveModel(turned, query=QuerySettings(classes=(3, 0, 1, 2)))).suspects
    assert plain.sequential == other.sequential


@pytest.mark.parametrize(
    ("controls", "strata", "judging", "reason"),
    [
        (slice(0, 0), (), {}, "expected at least 3 controls that give labels of the victim's classes, found 0"),
        (slice(0, 5), (), {}, "expected at least 6 controls, found 5; 1 more are needed"),
        (
            slice(0, 10),
            ("same-data",) * 7 + ("other-data",) * 3,
            {},
            "stratum other-data: expected at least 6 controls",
        ),
        (slice(0, 16), (), {"rule": "conformal"}, "expected at least 199 controls, found 16; 183 more are needed"),
    ],
)
def test_controls_that_say_too_little(
    suite: Suite, answers: list[Observation], controls: slice, strata: Any, judging: Any, reason: str
) -> None:
    model = labels_only(toys.make_model(noise=0.05))
    [result] = report(suite, answers[controls], model, strata=strata, **judging).suspects
    assert (result.decision, model.asked, result.sequential) == (Decision.INCONCLUSIVE, [], None)
    assert result.verdict
    assert reason in str(result.verdict.reason)


def test_a_model_of_labels_alone_may_name_no_layers(suite: Suite, answers: list[Observation]) -> None:
    class Remote:
        name, framework, digest, access = "remote", "numpy", "0" * 64, Access.LABELS

        def __init__(self, model: Model) -> None:
            self.model, self.input, self.classes = model, model.input, model.classes
            self.layers: dict[str, int] = {}

        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.eye(self.classes, dtype=np.float32)[self.model.predict(x).argmax(axis=1)]

        def activations(self, x: np.ndarray, layers: Any) -> dict[str, np.ndarray]:
            raise AssertionError("layers are not to be asked for")

        def gradient(self, x: np.ndarray, cotangent: Any, *, layer: Any = None) -> np.ndarray:
            raise AssertionError("gradients are not to be asked for")

    for sequential, decision in ((True, Decision.COPY), (False, Decision.INCONCLUSIVE)):
        [result] = report(suite, answers, Remote(toys.make_model(noise=0.05)), sequential=sequential).suspects
        assert result.decision is decision


def test_suspects_that_cannot_be_asked(suite: Suite, answers: list[Observation]) -> None:
    turned = LiveModel(toys.make_model(1), query=QuerySettings(classes=(1, 0)))
    results = report(suite, answers, "none.toy", toys.make_model(1, classes=3), toys.make_model(42), turned).suspects
    assert [result.decision for result in results] == [Decision.FAILED] * 4
    facts = (("none.toy", "(cannot-read)"), ("4", "3", "classes="), ("toy-42", "control"), ("toy-1", "4", "2"))
    for result, words in zip(results, facts, strict=True):
        expect_facts(str(result.failure), *words)


@pytest.mark.parametrize(
    ("judging", "code", "facts"),
    [
        ({"rule": "nearest"}, "conflict", ("nearest", "p-values")),
        ({"budget": 0}, "wrong-value", ("budget", "0")),
        ({"metrics": ["answers"]}, "conflict", ("metrics",)),
        ({"groups": "joint"}, "conflict", ("groups",)),
        ({"fdr": 0.05}, "conflict", ("false discovery rate",)),
        ({"sequential": False, "budget": 3}, "conflict", ("budget",)),
    ],
)
def test_what_cannot_be_asked_for(suite: Suite, judging: dict[str, Any], code: str, facts: tuple[str, ...]) -> None:
    with refused(UsageError, *facts, code=code):
        report(suite, [], **judging)


def test_an_audit_takes_all_answers() -> None:
    x, y = toys.make_inputs(toys.make_model())
    judging = JudgeSettings(rule="prediction-bound", sequential=True)
    settings = AuditSettings(SuiteSettings(n=20), judge=judging)
    with refused(UsageError, "sequential", code="conflict"):
        audit(toys.make_model(), [], Inputs(x, y), settings=settings, session=Session(statistics()))


# Commands.


@pytest.fixture
def ready(cli: Cli) -> Cli:
    for seed in CONTROLS:
        toys.save_model(Path(f"controls/c{seed}.toy"), seed=seed)
    x, y = toys.make_inputs(toys.make_model(), 400)
    np.savez("in.npz", x=x, y=y)
    generators = ("-n", "200", *MADE[2:])
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *generators, "-o", "s.safetensors")[0] == 0
    assert cli("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0
    return cli


JUDGED = ("judge", "s.safetensors", "copy.toy", "honest.toy", "--calibration", "c.safetensors", "--sequential")


def test_the_command(ready: Cli) -> None:
    status, out, err = ready(*JUDGED, "--json", "r.json")
    assert (status, err) == (1, "")
    report_values = json.loads(Path("r.json").read_text())
    assert report_values["rule"] == "prediction-bound"
    for suspect in report_values["suspects"]:
        assert f"{suspect['sequential']['queries']} of {suspect['sequential']['budget']}" in out
    assert "cases asked" in out
    assert "copy.toy: black-box: The suspect makes the victim's error on more than " in out
    # The page says it, and how to make it again.
    files = ("--html", "r.html", "--markdown", "r.md", "--sarif", "r.sarif", "--model-card", "card.md")
    assert ready("report", "r.json", *files)[0] == 0
    page, sequential = Path("r.md").read_text(), report_values["suspects"][0]["sequential"]
    assert "Whether it also contains the victim's weights is open: layers were not compared." in page
    assert "independent models comes this close by behaviour (p = " in page
    assert "extraction or distillation" not in page
    card = Path("card.md").read_text()
    assert "`prediction-bound level=0.01`, on the labels given to cases that were asked one by one" in card
    assert f"asked {sequential['queries']} of at most {sequential['budget']} cases, for labels only" in page
    assert "asked case by case, for labels only, so no distance was measured: 1, 2." in page
    assert "twice as likely" not in page
    shutil.copy("s.safetensors", "suite.safetensors")
    shutil.copy("c.safetensors", "calibration.safetensors")
    [line] = (line for line in commands(reports.typed(report_values)) if line.startswith("deepjudge judge"))
    status, _, err = ready(*shlex.split(line)[1:])
    assert (status, err) == (1, "")
    assert json.loads(Path("report-1.json").read_text()) == report_values
    ready("observe", "s.safetensors", "copy.toy", "-o", "o.safetensors")
    again = ("judge", "s.safetensors", "o.safetensors", "--stored", *JUDGED[4:], "--json", "r2.json")
    assert ready(*again)[0] == 1
    stored = json.loads(Path("r2.json").read_text())["suspects"][0]
    assert stored["sequential"] == report_values["suspects"][0]["sequential"]
    status, out, _ = ready(*JUDGED, "--budget", "2")
    assert status == 3
    assert "the budget of 2 cases is spent" in out
    ready.refuses(2, "conflict", *JUDGED, "--rule", "voting", facts=("voting", "p-values"))
    ready.refuses(2, "conflict", *JUDGED, "--metric", ",".join(METRICS), facts=("metrics",))
    ready.refuses(2, "conflict", *JUDGED[:-1], "--budget", "3", facts=("budget",))


def test_a_commitment(ready: Cli) -> None:
    commit = ("commit", "s.safetensors", "c.safetensors", "--sequential")
    assert ready(*commit, "--budget", "30", "-o", "k.json")[0] == 0
    assert ready(*JUDGED, "--budget", "30", "--commitment", "k.json")[0] in (1, 3)
    ready.refuses(
        2, "other-than-committed", *JUDGED, "--commitment", "k.json", facts=("judging.budget", "30", "nothing")
    )
    status, _, err = ready(*JUDGED[:-1], "--rule", "prediction-bound", "--commitment", "k.json")
    assert status == 2
    assert "judging.sequential: committed to true, found nothing" in err

"""The setting of weights: what accuses, what acquits, and what neither does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from numpy_transformers import llama, noisy, permuted, rotated
from refusals import refused
from sketched import seen, suite_of

from deepjudge_core import JudgeSettings, load_registry
from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.strata import Stratum
from deepjudge_core.components.values import Answers, Chance, Decision
from deepjudge_core.errors import FileFormatError, IncomparableError
from deepjudge_core.judging.exact import ACQUITS_NOBODY
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import EITHER, Judge, Verdict
from deepjudge_core.judging.measure import measure
from deepjudge_core.models.model import Access
from deepjudge_core.suites.observation import Observation, load_observation, save_observation
from deepjudge_core.suites.suite import Suite, load_suite, save_suite
from deepjudge_core.testing.weights import ArrayWeights

REGISTRY = load_registry()
VICTIM = llama(0)


@pytest.fixture(scope="module")
def suite() -> Suite:
    return suite_of(VICTIM)


@pytest.fixture(scope="module")
def controls(suite: Suite) -> list[Observation]:
    return [seen(llama(seed), suite, f"control {seed}") for seed in range(1, 9)]


def judged(
    suite: Suite,
    suspect: ArrayWeights | Observation,
    controls: list[Observation] | None = None,
    strata: list[Stratum | None] | None = None,
    **settings: object,
) -> Verdict:
    judge = Judge.of(JudgeSettings(**settings), REGISTRY, Offer.of(suite))  # type: ignore[arg-type]
    calibration = judge.calibrate(suite, controls or [], strata=strata or [])
    observation = suspect if isinstance(suspect, Observation) else seen(suspect, suite)
    measured = judge.measure(suite, observation, siblings=calibration.siblings())
    return judge.judge(measured, calibration)


def test_a_copy_is_found_without_controls(suite: Suite) -> None:
    verdict = judged(suite, noisy(VICTIM, 0.1))
    setting = verdict.settings["weights"]
    assert (verdict.decision, verdict.points_to, setting.decision) == (Decision.COPY, "descent", Decision.COPY)
    assert setting.log10_p is not None
    assert setting.log10_p < -300
    assert setting.p_value
    assert verdict.metrics["order"].vote.vote
    # Both honest explanations, and the hypothesis that was rejected, stand in what a reader is told.
    assert EITHER in (setting.statement or "")
    assert "independent training" in (setting.statement or "")


def test_a_model_of_its_own_is_not_acquitted_without_controls(suite: Suite) -> None:
    verdict = judged(suite, llama(100))
    assert (verdict.decision, verdict.settings["weights"].decision) == (Decision.INCONCLUSIVE, None)
    assert (verdict.settings["weights"].p_value or 0) > 0.001
    assert ACQUITS_NOBODY in (verdict.reason or "")


@pytest.mark.parametrize("rule", ["voting", "exact"])
def test_without_controls_a_scrambled_copy_is_told_from_layers_that_do_not_correspond(suite: Suite, rule: str) -> None:
    scrambled = judged(suite, rotated(permuted(noisy(VICTIM, 0.1))), rule=rule)
    assert scrambled.decision is Decision.INCONCLUSIVE
    assert "neuron-sketch" in (scrambled.reason or "")
    for other in (llama(100), llama(101), llama(102)):
        assert "neuron-sketch" not in (judged(suite, other, rule=rule).reason or "")


def test_what_controls_judge_needs_no_other_comparison(suite: Suite, controls: list[Observation]) -> None:
    measured = measure(suite, seen(VICTIM, suite), ["neuron-sketch"], registry=REGISTRY)["neuron-sketch"]
    assert measured.background is not None
    assert measured.background > 0.5
    turned = judged(suite, rotated(permuted(noisy(VICTIM, 0.1))), controls)
    assert (turned.decision, turned.reason) == (Decision.COPY, None)


@pytest.mark.parametrize("rule", ["voting", "prediction-bound", "conformal"])
def test_controls_acquit_and_find_what_has_no_order_left(suite: Suite, controls: list[Observation], rule: str) -> None:
    options = {"level": 0.2} if rule == "conformal" else {}
    settings = {"rule": rule, "rule_options": options}
    assert judged(suite, llama(100), controls, **settings).decision is Decision.INDEPENDENT
    turned = judged(suite, rotated(permuted(noisy(VICTIM, 0.1))), controls, **settings)
    assert (turned.decision, turned.points_to) == (Decision.COPY, "descent")


@pytest.mark.parametrize("groups", ["separate", "joint"])
def test_a_copy_beside_an_honest_model_in_one_file_is_not_acquitted(
    suite: Suite, controls: list[Observation], groups: str
) -> None:
    honest = llama(100)
    both = ArrayWeights(
        honest.arrays | {f"own.{name.replace('mlp', 'own')}": array for name, array in VICTIM.arrays.items()}
    )
    verdict = judged(suite, both, controls, groups=groups)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert "outside" in (verdict.reason or "")


def test_the_rule_exact_needs_no_controls_and_judges_nothing_else(suite: Suite, controls: list[Observation]) -> None:
    for some in ([], controls):
        assert judged(suite, noisy(VICTIM, 0.1), some, rule="exact").decision is Decision.COPY
        other = judged(suite, llama(100), some, rule="exact")
        assert other.decision is Decision.INCONCLUSIVE
        assert all(metric.vote.vote is None for metric in other.metrics.values())


def test_one_vote_over_all_leaves_the_exact_test_beside_it(suite: Suite, controls: list[Observation]) -> None:
    verdict = judged(suite, noisy(VICTIM, 0.1), [], groups="joint")
    assert (verdict.decision, verdict.points_to) == (Decision.COPY, "descent")
    assert judged(suite, llama(100), controls, groups="joint").decision is Decision.INDEPENDENT


def test_a_false_discovery_rate_takes_both_kinds_of_evidence(suite: Suite, controls: list[Observation]) -> None:
    judge = Judge.of(JudgeSettings(rule="prediction-bound", fdr=0.05), REGISTRY, Offer.of(suite))
    calibration = judge.calibrate(suite, controls)
    suspects = [noisy(VICTIM, 0.1), permuted(VICTIM), llama(100), llama(101)]
    measured = [judge.measure(suite, seen(one, suite)) for one in suspects]
    verdicts, fleet = judge.judge_fleet(measured, calibration, 0.05)
    assert [one.decision is Decision.COPY for one in verdicts if one] == [True, True, False, False]
    assert fleet.tested == 4


# Honest explanations.


BASE = llama(7)
OWNER, SIBLING = noisy(BASE, 0.3, seed=1), noisy(BASE, 0.3, seed=2)


def test_an_honest_relative_is_told_by_the_ancestor_alone() -> None:
    assert judged(suite_of(OWNER), SIBLING).points_to == "descent"
    known = suite_of(OWNER, ancestor=BASE)
    verdict = judged(known, SIBLING)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.metrics["order"].vote.vote is None
    assert "base" in (verdict.metrics["order"].reason or "")
    # Nor do distances accuse, by controls that come from elsewhere.
    others = [seen(llama(seed), known, f"control {seed}") for seed in range(20, 26)]
    assert judged(known, SIBLING, others).decision is not Decision.COPY


def test_what_came_through_the_victim_is_told_from_its_siblings() -> None:
    known = suite_of(OWNER, ancestor=BASE)
    siblings = [seen(noisy(BASE, 0.3, seed=seed), known, f"sibling {seed}") for seed in range(10, 18)]
    strata: list[Stratum | None] = ["common-ancestor"] * len(siblings)
    thief = judged(known, noisy(OWNER, 0.1, seed=5), siblings, strata)
    assert (thief.decision, thief.points_to) == (Decision.COPY, "weights")
    assert thief.metrics["sibling-slope"].vote.vote
    assert thief.metrics["order"].vote.vote is None
    assert judged(known, SIBLING, siblings, strata).decision is Decision.INDEPENDENT
    # Without siblings nothing shows how far they would have come.
    assert judged(known, noisy(OWNER, 0.1, seed=5), siblings).decision is Decision.INCONCLUSIVE


def test_an_ancestor_that_is_none_explains_nothing() -> None:
    assert judged(suite_of(OWNER, ancestor=llama(99)), noisy(OWNER, 0.1)).decision is Decision.COPY


def test_a_control_that_has_the_order_too_keeps_it_from_accusing() -> None:
    suite = suite_of(OWNER)
    relative = seen(noisy(BASE, 0.3, seed=3), suite, "relative")
    verdict = judged(suite, SIBLING, [relative], ["common-initialisation"])
    assert verdict.decision is not Decision.COPY
    assert "relative" in (verdict.metrics["order"].reason or "")


def test_relatives_among_the_controls_are_no_doubt_where_they_are_named() -> None:
    suite = suite_of(OWNER)
    judge = Judge.of(JudgeSettings(), REGISTRY, Offer.of(suite))
    others = [seen(llama(seed), suite, f"control {seed}") for seed in range(20, 25)]
    relative = seen(noisy(BASE, 0.3, seed=3), suite, "relative")
    strata: list[Stratum | None] = [*[None] * 5, "common-initialisation"]
    assert not judge.doubts(judge.calibrate(suite, [*others, relative], strata=strata))
    [doubt] = judge.doubts(judge.calibrate(suite, [*others, relative]))
    assert "relative" in doubt


# Beside behaviour.


def _both() -> Suite:
    alone, cases = suite_of(VICTIM), toys.suite()
    return replace(cases, weights=alone.weights, victim=replace(cases.victim, weights=alone.victim.weights))


def _answer(suite: Suite, seed: int, weights: ArrayWeights | None) -> Observation:
    observation = replace(toys.seen(seed), suite=suite.digest)
    if weights is None:
        return replace(observation, unsketched="they are not there")
    model = replace(observation.model, access=observation.model.access | Access.WEIGHTS)
    return replace(observation, model=model, weights=seen(weights, suite).weights)


def _judge(suite: Suite, *suspects: Observation, with_weights: bool) -> list[Verdict]:
    metrics = [*toys.deepjudge_metrics(), REGISTRY.metrics["order"], REGISTRY.metrics["neuron-sketch"]]
    [rule] = toys.deepjudge_rules()
    judge = Judge._of(JudgeSettings(rule="nearest"), metrics, rule)
    controls = [_answer(suite, seed, llama(seed) if with_weights else None) for seed in range(2, 8)]
    calibration = judge.calibrate(suite, controls)
    return [judge.judge(judge.measure(suite, one), calibration) for one in suspects]


def test_an_exact_test_that_finds_nothing_leaves_the_other_settings_their_say() -> None:
    suite = _both()
    honest, hidden = _answer(suite, 31, llama(100)), _answer(suite, 33, None)
    for known in (True, False):
        first, second = _judge(suite, honest, hidden, with_weights=known)
        assert first.decision is second.decision is Decision.INDEPENDENT
        assert first.settings["weights"].decision is (Decision.INDEPENDENT if known else None)
        assert second.settings["weights"].decision is None


def test_weights_accuse_a_model_of_another_behaviour() -> None:
    suite = _both()
    [verdict] = _judge(suite, _answer(suite, 31, noisy(VICTIM, 0.1)), with_weights=False)
    assert (verdict.decision, verdict.points_to) == (Decision.COPY, "descent")
    assert verdict.settings["black-box"].decision is Decision.INDEPENDENT


# What was not measured, and what is stored.


def test_what_cannot_be_compared_is_not_measured(suite: Suite) -> None:
    narrow = measure(suite, seen(llama(5, hidden=64), suite))
    assert narrow["order"].value is not None  # by what both have
    other = replace(seen(llama(5), suite), weights=None, unsketched="its file is damaged")
    assert {one.reason for one in measure(suite, other).values()} == {"its file is damaged"}
    assert "weights" not in {one.metric.group for one in measure(toys.suite(), toys.seen(2)).values()}


@pytest.mark.parametrize(
    ("chance", "word"),
    [(Chance(1.0, -3.0, "x"), "log10_p"), (Chance(-5.0, -3.0, "x"), "log10_p"), (Chance(-1.0, -3.0, " "), "clause")],
)
def test_a_chance_that_cannot_be_is_the_failure_of_its_metric(suite: Suite, chance: Chance, word: str) -> None:
    def distance(victim: Answers, suspect: Answers) -> float:
        return 0.5

    odd = Metric("odd", Access.WEIGHTS, "weights", distance, 0.6, p_value=lambda victim, suspect: chance)
    judge = Judge._of(JudgeSettings(rule="nearest"), [odd], *toys.deepjudge_rules())
    measured = judge.measure(suite, seen(llama(5), suite))["odd"]
    assert (measured.value, measured.failed) == (None, True)
    assert word in (measured.reason or "")


def test_metrics_that_cannot_compare_the_victim_with_itself_are_not_taken(suite: Suite) -> None:
    def never(victim: Answers, suspect: Answers) -> float:
        raise IncomparableError("they are of no such kind")

    class Plugin:
        pass

    plugin = Plugin()
    metric = Metric("never", Access.WEIGHTS, "weights", never, 0.6)
    from deepjudge_core import hookimpl

    plugin.deepjudge_metrics = hookimpl(lambda: [metric])  # type: ignore[attr-defined]
    registry = load_registry({"mine": plugin})
    assert "never" not in {one.name for one in Judge.of(JudgeSettings(), registry, Offer.of(suite)).metrics}
    named = Judge.of(JudgeSettings(metrics=["never", "order"]), registry, Offer.of(suite))
    assert named.measure(suite, seen(llama(5), suite))["never"].reason == "they are of no such kind"


@pytest.mark.parametrize("ancestor", [None, llama(3)])
def test_suites_and_answers_are_what_they_were_after_reading(tmp_path: Path, ancestor: ArrayWeights | None) -> None:
    suite = suite_of(VICTIM, ancestor)
    save_suite(tmp_path / "s.safetensors", suite)
    again = load_suite(tmp_path / "s.safetensors")
    assert (again.digest, again.has_cases) == (suite.digest, False)
    answer = seen(noisy(VICTIM, 0.1), suite)
    save_observation(tmp_path / "o.safetensors", answer)
    read = load_observation(tmp_path / "o.safetensors")
    assert read.digest == answer.digest
    assert measure(again, read)["order"].chance == measure(suite, answer)["order"].chance


def test_a_sketch_by_another_plan_is_refused(suite: Suite) -> None:
    answer = seen(VICTIM, suite)
    assert answer.weights is not None
    layer = answer.weights.layers[-1]
    short = replace(layer, raw=layer.raw[:, :, :7])
    wrong = replace(answer, weights=replace(answer.weights, layers=(*answer.weights.layers[:-1], short)))
    with refused(FileFormatError, layer.name, "7"):
        measure(suite, wrong)
    with refused(FileFormatError, "sketch"):
        measure(toys.suite(), replace(toys.seen(2), weights=answer.weights))


def test_a_suite_whose_parts_contradict_one_another_is_damaged(tmp_path: Path, suite: Suite) -> None:
    assert suite.weights is not None
    fewer = replace(suite.weights, neurons=tuple(picked[1:] for picked in suite.weights.neurons))
    for wrong in (replace(suite, weights=fewer), replace(suite, victim=replace(suite.victim, weights=None))):
        save_suite(tmp_path / "s.safetensors", wrong)
        with refused(FileFormatError, "incomplete", code="damaged-file"):
            load_suite(tmp_path / "s.safetensors")
    assert np.isfinite(suite.accuracy)

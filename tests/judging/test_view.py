"""No more is compared of anybody than a suspect shows: rounded, cut and missing answers, of victim and controls too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys

from deepjudge_core import Access, JudgeSettings, Observation, calibrate
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import check_not_a_control
from deepjudge_core.judging.facts import same_model
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.measure import measure
from deepjudge_core.judging.nearer import nearer_model
from deepjudge_core.judging.view import View
from deepjudge_core.models.gateway import DIGEST, Ledger, Reduction
from deepjudge_core.suites.observation import Exchange, load_observation, save_observation

REDUCTIONS = [Reduction(top=2), Reduction(digits=1), Reduction(top=3, digits=2), Reduction(top=1, digits=0)]


def ledger(count: int = 2) -> Ledger:
    numbers, digests = np.arange(count, dtype=np.int64), np.ones((count, DIGEST), np.uint8)
    return Ledger(numbers, digests, digests, numbers + 200, numbers, numbers.astype(np.float64))


def through(observation: Observation, reduction: Reduction, compared: np.ndarray | None = None) -> Observation:
    """What a model answers through an interface, without layers."""
    assert observation.probabilities is not None
    rows = np.ones(len(observation.probabilities), bool) if compared is None else compared
    answers = reduction.apply(observation.probabilities) if reduction else observation.probabilities.copy()
    answers[~rows] = 1 / answers.shape[1]
    model = replace(observation.model, access=Access.BLACK_BOX, digest="1" * 64, name="suspect")
    bare = replace(observation, model=model, probabilities=answers, activations={}, layer_map={}, unmatched="none")
    return replace(bare, exchange=Exchange(rows, reduction, ledger()))


def values(observation: Observation) -> dict[str, float | None]:
    measured = measure(toys.suite(), observation, ["answers", "surety"], registry=toys.registry())
    return {name: one.value for name, one in measured.items()}


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=str)
def test_reducing_keeps_sums_and_equal_models_equal(reduction: Reduction) -> None:
    p = np.random.default_rng(0).dirichlet([0.4] * 6, 200).astype(np.float32)
    once = reduction.apply(p)
    np.testing.assert_allclose(once.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(Reduction().apply(p), p, atol=1e-6)
    whole = replace(toys.seen(3), model=toys.suite().victim.model, probabilities=toys.suite().victim.probabilities)
    assert values(through(whole, reduction)) == {"answers": 0.0, "surety": 0.0}


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=str)
def test_controls_are_measured_as_if_they_showed_no_more(reduction: Reduction) -> None:
    suspect = through(toys.seen(9), reduction)
    judge = Judge.of(JudgeSettings(rule="nearest", metrics=["answers", "surety"]), toys.registry())
    measured = judge.measure(toys.suite(), suspect)
    view = View.of(suspect)
    assert view is not None
    seen = toys.calibration().through(view, toys.suite())
    for control, again in zip(toys.calibration().controls, seen.measurements, strict=True):
        expected = values(through(control, reduction))
        assert {name: again[name].value for name in expected} == expected
    verdict = judge.judge(measured, toys.calibration())
    least = min(one["surety"].value for one in seen.measurements)
    assert verdict.metrics["surety"].vote.lower_bound == pytest.approx(least)


def test_only_cases_that_arrived_are_compared_of_anybody() -> None:
    suite = toys.suite()
    rows = np.arange(len(suite.cases.labels)) % 3 != 0
    clean = rows[suite.rows("clean")]
    rows &= (suite.cases.seeds < 0) | clean[suite.cases.seeds]
    suspect = through(toys.seen(9), Reduction(), rows)
    part = suite.only(rows)
    expected = measure(part, replace(toys.seen(9).only(rows), suite=part.digest), ["answers", "surety"],
                       registry=toys.registry())  # fmt: skip
    assert values(suspect) == {name: one.value for name, one in expected.items()}
    again = measure(suite, suspect, ["answers"], registry=toys.registry())["answers"]
    assert expected["answers"].accuracy == again.accuracy
    np.testing.assert_array_equal(part.cases.labels[part.rows("clean")][part.cases.seeds], part.cases.labels)


def test_nothing_of_a_set_that_did_not_arrive_is_measured() -> None:
    suite = toys.suite()
    suspect = through(toys.seen(9), Reduction(), suite.rows("clean"))
    found = measure(suite, suspect, ["answers"], registry=toys.registry())
    assert found["answers"].value is None
    assert "adversarial" in str(found["answers"].reason)


def test_a_control_that_shows_less_sets_no_thresholds_for_one_that_shows_all() -> None:
    rounded = [through(toys.seen(1 + i), Reduction(digits=1)) for i in range(4)]
    rounded = [replace(one, model=replace(one.model, digest=f"{i}" * 64)) for i, one in enumerate(rounded)]
    calibration = calibrate(toys.suite(), rounded, ["answers", "surety"], registry=toys.registry())
    assert [len(calibration.values(name)) for name in ("answers", "surety")] == [0, 0]
    view = View.of(through(toys.seen(9), Reduction(digits=1)))
    assert view is not None
    seen = calibration.through(view, toys.suite())
    assert [len(seen.values(name)) for name in ("answers", "surety")] == [4, 4]
    other = View.of(through(toys.seen(9), Reduction(digits=2)))
    assert other is not None
    assert len(calibration.through(other, toys.suite()).values("answers")) == 0


def test_rounded_answers_prove_no_identity() -> None:
    suite, calibration = toys.suite(), toys.calibration()
    rounded = through(replace(toys.seen(3), probabilities=suite.victim.probabilities), Reduction(digits=1))
    assert same_model(suite, rounded, calibration) is None
    check_not_a_control(calibration, through(calibration.controls[0], Reduction(top=2)))


def test_a_copy_is_told_through_rounded_scores_and_an_honest_model_is_not() -> None:
    suite, reduction = toys.suite(), Reduction(top=3, digits=2)
    copy = through(toys.seen(0, 0.02), reduction)
    honest = through(toys.seen(12), reduction)
    settings = JudgeSettings(rule="nearest", metrics=["answers", "surety"])
    outcome = toys.outcome(suite, toys.calibration(8), [copy, honest], settings, registry=toys.registry())
    assert [one.decision for one in outcome.suspects] == [Decision.COPY, Decision.INDEPENDENT]


def test_an_exchange_survives_a_file_and_a_forged_one_is_refused(tmp_path: Path) -> None:
    suspect = through(toys.seen(9), Reduction(3, 2))
    save_observation(tmp_path / "o", suspect)
    again = load_observation(tmp_path / "o")
    assert again.exchange is not None
    assert (again.digest, again.exchange.reduction, again.exchange.ledger.total) == (suspect.digest, Reduction(3, 2), 1)
    digests = np.ones((2, 5), np.uint8)
    for name, value in (("queries", -np.ones(2, np.int64)), ("prices", np.zeros(3)), ("requests", digests)):
        forged = replace(suspect, exchange=replace(suspect.exchange, ledger=replace(ledger(), **{name: value})))
        save_observation(tmp_path / "f", forged)
        with pytest.raises(Exception, match="ledger"):
            load_observation(tmp_path / "f")


@pytest.mark.parametrize("reduction", [Reduction(), Reduction(top=2)], ids=str)
def test_a_copy_of_a_control_is_found_by_what_it_shows(reduction: Reduction) -> None:
    rows = np.arange(len(toys.suite().cases.inputs)) % 3 > 0
    for reached in (None, rows):
        suspect = through(toys.seen(2, 0.01), reduction, reached)
        assert nearer_model(toys.suite(), suspect, toys.calibration()) == "toy-2"
        assert nearer_model(toys.suite(), through(toys.seen(0, 0.01), reduction, reached), toys.calibration()) is None

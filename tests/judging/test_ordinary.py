"""Copies that answer test cases otherwise than data: none of them is said to be independent."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import toys

from deepjudge_core import (
    Access,
    Calibration,
    Decision,
    JudgeSettings,
    Model,
    Observation,
    Suite,
    Verdict,
    build_suite,
    calibrate,
    judge,
    measure,
    observe,
    select_seeds,
)
from deepjudge_core.judging.disguises import disguise
from deepjudge_core.judging.measure import Measurements
from deepjudge_core.judging.ordinary import Odds, Ordinary, ordinary
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.types import Array

BY = ["robd", "jsd"]
ANSWERS = Access.LABELS | Access.PROBABILITIES
CENTRES = np.random.default_rng([7, toys.CLASSES, *toys.SHAPE]).random((toys.CLASSES, *toys.SHAPE))  # of the task
HONEST, TRAINED = toys.make_model(3), toys.make_model(0, noise=0.05)

Predict = Callable[[Array], Array]


class Disguised(NumpyModel):
    """Somebody's file that shows its answers alone."""

    def __init__(self, name: str, predict: Predict, access: Access = ANSWERS) -> None:
        super().__init__(toys.make_model(0).weights, toys.SHAPE)
        self.name, self.access, self._answer = name, access, predict

    def predict(self, x: Array) -> Array:
        """What the disguise answers."""
        return np.asarray(self._answer(x), np.float32)


def is_data(x: Array) -> Array:
    """Near one of the centres in every feature, which a case is not."""
    near: Array = np.abs(x[:, None] - CENTRES[None]).max(axis=2).min(axis=1) < 0.25
    return near


def routed(copy: Predict, other: Predict = HONEST.predict) -> Predict:
    """Data is answered by the copy, and all else by an honest network."""
    return lambda x: np.where(is_data(x)[:, None], copy(x), other(x))


def cleaned(copy: Predict) -> Predict:
    """What is far from the middle of the nearest class in a feature is brought back."""

    def answer(x: Array) -> Array:
        middle = CENTRES[np.abs(x[:, None] - CENTRES[None]).mean(axis=2).argmin(axis=1)]
        return copy(np.clip(x, middle - 0.06, middle + 0.06).astype(np.float32))

    return answer


def sharpened(copy: Predict) -> Predict:
    """No class but the likeliest has a probability."""
    return lambda x: np.eye(toys.CLASSES)[copy(x).argmax(axis=1)]


@functools.cache
def suite() -> Suite:
    victim = toys.make_model(0)
    x, y = toys.make_inputs(victim, 400)
    return build_suite(victim, select_seeds(victim, x, y, n=80), ["pgd"], options={"pgd": {"eps": 0.25}})


@functools.cache
def answers(seed: int) -> Observation:
    return observe(toys.make_model(seed), suite())


@functools.cache
def calibration(count: int = 9) -> Calibration:
    return calibrate(suite(), [answers(seed) for seed in range(4, 4 + count)], BY)


def honest() -> Measurements:
    return measure(suite(), answers(3), BY)


def changed(to: Callable[[Measurements, float], Measurements], values: Iterable[float]) -> Calibration:
    """The controls, each with a value of its own."""
    measured = zip(calibration().measurements, values, strict=True)
    return replace(calibration(), measurements=tuple(to(one, value) for one, value in measured))


def verdict(model: Model, rule: str = "voting") -> Verdict:
    return judge(measure(suite(), observe(model, suite()), BY), calibration(), JudgeSettings(BY, rule))


@pytest.mark.parametrize("rule", ["voting", "prediction-bound"])
@pytest.mark.parametrize("copy", [toys.make_model(0), TRAINED], ids=["as it is", "trained on"])
@pytest.mark.parametrize("how", [routed, cleaned])
def test_a_copy_that_answers_data_as_the_victim_is_not_independent(
    how: Callable[[Predict], Predict], copy: NumpyModel, rule: str
) -> None:
    disguised = Disguised("disguised", how(copy.predict))
    assert measure(suite(), observe(disguised, suite()), BY)["robd"].value > 0.7  # it makes few of the victim's errors

    said = verdict(disguised, rule)

    assert said.decision is Decision.INCONCLUSIVE
    assert said.settings["black-box"].decision is Decision.INCONCLUSIVE
    assert "ordinary inputs" in (said.reason or "")


def test_a_copy_that_hides_its_probabilities_of_data_is_not_independent() -> None:
    said = verdict(Disguised("sharpened", routed(sharpened(TRAINED.predict))))

    assert said.decision is Decision.INCONCLUSIVE
    assert "0 or 1" in (said.reason or "")


def test_of_who_gives_labels_alone_it_is_said_that_a_disguise_would_not_be_seen() -> None:
    router = Disguised("labels", routed(sharpened(TRAINED.predict), sharpened(HONEST.predict)), Access.LABELS)
    metrics = ["robd", "recovery"]
    controls = calibrate(suite(), calibration().controls, metrics)

    said = judge(measure(suite(), observe(router, suite()), metrics), controls, JudgeSettings(metrics))

    assert said.decision is Decision.INDEPENDENT
    assert "labels alone" in (said.reason or "")


def test_the_victims_mistakes_show_a_copy_that_gives_labels_alone() -> None:
    def with_share(measured: Measurements, share: float) -> Measurements:
        return {name: replace(one, ordinary=Ordinary(mistakes=share)) for name, one in measured.items()}

    controls = changed(with_share, np.linspace(0.45, 0.7, len(calibration().controls)))

    assert "mistakes" in (disguise(with_share(honest(), 0.1), controls, alone=True) or "")
    assert disguise(with_share(honest(), 0.4), controls, alone=True) is None


def test_who_errs_less_as_the_victim_than_controls_differ_is_not_independent() -> None:
    # As a copy that cleans its inputs, and gives the odds of an honest network.
    def erring(measured: Measurements, alike: float) -> Measurements:
        values = {"robd": 1 - alike, "jsd": 0.6 - alike}
        return {name: replace(one, value=values[name], alike=alike) for name, one in measured.items()}

    controls = changed(erring, np.linspace(0.05, 0.1, len(calibration().controls)))

    assert "less often than any control" in (disguise(erring(honest(), 0.0), controls, alone=True) or "")
    assert disguise(erring(honest(), 0.0), controls, alone=False) is None  # its layers speak for it
    assert disguise(erring(honest(), 0.04), controls, alone=True) is None


@pytest.mark.parametrize("count", [3, 6, 12])
def test_honest_models_show_no_disguise(count: int) -> None:
    for seed in range(16, 30):
        measured = measure(suite(), answers(seed), BY)
        assert disguise(measured, calibration(count), alone=True) is None, seed


def test_neither_temperature_nor_some_data_answered_by_another_model_hides_a_copy() -> None:
    def near(predict: Predict) -> float:
        found = ordinary(suite(), observe(Disguised("copy", predict), suite())).odds
        assert found is not None
        return found

    def tempered(x: Array) -> Array:
        powers = TRAINED.predict(x) ** 0.3
        return powers / powers.sum(axis=1, keepdims=True)

    def at_times(x: Array) -> Array:
        return np.where((x[:, :1] * 1000 % 10 < 3), HONEST.predict(x), TRAINED.predict(x))

    least = min(one["robd"].ordinary.odds or 2 for one in calibration().measurements)
    plain = near(TRAINED.predict)
    assert near(tempered) == pytest.approx(plain, rel=0.05)
    assert plain < near(at_times) < least / 2


def test_odds_of_few_seeds_or_classes_are_not_compared() -> None:
    rows = np.zeros(len(suite().cases.labels), bool)
    rows[:10] = True
    few = suite().only(rows)
    found = ordinary(few, replace(answers(3).only(rows), suite=few.digest))
    assert found.odds is None
    assert found.unknown


@pytest.mark.parametrize("hidden", [0, 3])
def test_odds_that_are_prepared_once_are_those_of_each_pair(hidden: int) -> None:
    """Also where some probabilities are 0, so that only what both models show is compared."""
    victim, model = suite().victim, answers(3)
    shown = np.array(model.probabilities, np.float32)
    shown[:hidden, (suite().cases.labels[:hidden] + 1) % toys.CLASSES] = 0
    model = replace(model, probabilities=shown)

    ours, theirs = (Odds.of(suite(), one, most=10**6) for one in (victim, model))

    assert ours is not None
    assert theirs is not None
    assert ours.apart(theirs) == pytest.approx(ordinary(suite(), model).odds, rel=1e-5)
    assert ours.apart(ours) == pytest.approx(0, abs=1e-6)

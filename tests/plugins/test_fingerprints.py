"""Keys that are not embedded in a trained model: points beside the boundary, conferrable inputs, and coins."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deepjudge_schemes import conferrable, ipguard, random_inclusion
from deepjudge_schemes.conferrable import CONFERRABLE
from deepjudge_schemes.ipguard import IPGUARD
from deepjudge_schemes.random_inclusion import RANDOM_INCLUSION
from refusals import refused
from sklearn.datasets import load_digits

import deepjudge_core as dj
from deepjudge_core.components.options import options_of
from deepjudge_core.components.registry import Configured
from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Lesson, Scheme
from deepjudge_core.errors import IncomparableError, InputError, ModelError
from deepjudge_core.marking.embedding import Embedded, embed_keys
from deepjudge_core.marking.making import Material, make_key
from deepjudge_core.models.model import Access
from deepjudge_core.models.network import Network
from deepjudge_core.models.scores import softmax
from deepjudge_core.models.training import Schedule, train
from deepjudge_core.suites.keys import save_key
from deepjudge_core.testing import NumpyArchitecture, NumpyModel
from deepjudge_core.types import Array

CLASSES = 10
X, Y = (array.astype(kind) for array, kind in zip(load_digits(return_X_y=True), (np.float32, np.int64), strict=True))
X = X / 16
TRAIN, OTHER, TEST = slice(0, 600), slice(600, 1200), slice(1200, 1797)
ARCHITECTURE = NumpyArchitecture((64,), (32,), CLASSES)
SCHEDULE = Schedule(epochs=8, rate=1e-2, batch=32)
NONCE = bytes(range(32))


@functools.cache
def network(seed: int, *, other: bool = False) -> Network:
    rng, rows = np.random.default_rng(seed), OTHER if other else TRAIN
    return train(Network.fresh(ARCHITECTURE, rng), X[rows], Y[rows], rng, schedule=SCHEDULE)


@functools.cache
def stolen(seed: int) -> Network:
    rng = np.random.default_rng(seed)
    return train(Network.fresh(ARCHITECTURE, rng), X[OTHER], network(0).predict(X[OTHER]), rng, schedule=SCHEDULE)


@functools.cache
def model(of: Network, name: str = "model") -> NumpyModel:
    opened = of.architecture.model(of.weights, name=name)
    assert isinstance(opened, NumpyModel)
    return opened


def victim() -> NumpyModel:
    return model(network(0), "victim")


def independent(*seeds: int) -> tuple[NumpyModel, ...]:
    return tuple(model(network(seed, other=True), f"independent-{seed}") for seed in seeds)


def thieves(*seeds: int) -> tuple[NumpyModel, ...]:
    return tuple(model(stolen(seed), f"stolen-{seed}") for seed in seeds)


def material(**parts: Any) -> Material:
    return replace(Material(X[TEST], Y[TEST], (0.0, 1.0)), **parts)


def made(scheme: Scheme, owners: Any = None, nonce: bytes = NONCE, **settings: Any) -> Key:
    parts = {name: settings.pop(name) for name in list(settings) if name in Material.__annotations__}
    return make_key(owners or victim(), Configured(scheme, settings, "here"), material(**parts), nonce)


def share(scheme: Scheme, key: Key, of: NumpyModel) -> float:
    assert key.inputs is not None
    (reading,) = scheme.verify(key, KeyAnswers(of.predict(key.inputs)))
    return reading.found / reading.of


def task() -> KeyTask:
    return KeyTask(victim(), X[TEST], Y[TEST], (0.0, 1.0), NONCE)


# ipguard


@functools.cache
def points(goal: str = "random") -> Key:
    return made(IPGUARD, goal=goal)


def test_points_reach_their_goal_by_the_margin_and_the_own_class_is_next() -> None:
    key = points()
    scores = ipguard.scores_of(task(), np.asarray(key.inputs))
    ranked = np.sort(scores, axis=1)
    assert key.trials >= 95
    assert (scores.argmax(axis=1) == key.labels).all()
    assert (ranked[:, -1] - ranked[:, -2]).min() >= key.options["margin"] - 1e-4


def test_the_default_margin_is_half_the_median_lead() -> None:
    rows = np.sort(task().rng("seeds").choice(len(X[TEST]), 100, replace=False))
    ranked = np.sort(ipguard.scores_of(task(), X[TEST][rows]), axis=1)
    assert points().options["margin"] == pytest.approx(np.median(ranked[:, -1] - ranked[:, -2]) / 2)


def test_points_stay_within_the_bounds_and_follow_from_the_nonce() -> None:
    key = points()
    inputs = np.asarray(key.inputs)
    assert (inputs.min() >= 0, inputs.max() <= 1) == (True, True)
    assert (inputs == np.asarray(made(IPGUARD).inputs)).all()
    assert not np.array_equal(inputs, made(IPGUARD, nonce=bytes(32)).inputs)


def test_copies_match_more_points_than_independent_models() -> None:
    key = points()
    assert share(IPGUARD, key, victim()) == 1
    honest = [share(IPGUARD, key, other) for other in independent(1, 2, 3, 4, 5)]
    assert min(share(IPGUARD, key, victim().perturbed(0.05, seed)) for seed in (1, 2)) > max(honest) + 0.2


def test_the_least_likely_class_can_be_the_goal() -> None:
    key, seeds = points("least-likely"), X[TEST][np.sort(task().rng("seeds").choice(len(X[TEST]), 100, replace=False))]
    least = ipguard.scores_of(task(), seeds).argmin(axis=1)
    assert set(np.asarray(key.labels)) <= set(least)
    assert key.trials < 100 or (np.asarray(key.labels) == least).all()


def loss_of_one(z: Array, own: int, goal: int, margin: float) -> float:
    others = [z[c] for c in range(len(z)) if c not in (own, goal)]
    return max(z[own] - z[goal] + margin, 0.0) + max((max(others) if others else -np.inf) - z[own], 0.0)


def slopes(loss: Callable[[Array], float], z: Array, width: float = 1e-5) -> Array:
    steps = np.eye(len(z)) * width
    return np.array([(loss(z + step) - loss(z - step)) / (2 * width) for step in steps])


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_loss_of_a_boundary_is_that_of_the_paper(classes: int) -> None:
    rng = np.random.default_rng(classes)
    z = rng.normal(scale=4, size=(40, classes))
    own = rng.integers(classes, size=40)
    goals = (own + rng.integers(1, classes, 40)) % classes
    loss = ipguard.Boundary(own, goals, 1.5)
    derivative = loss(z, slice(0, 40))
    for row in range(40):
        by_hand = functools.partial(loss_of_one, own=own[row], goal=goals[row], margin=1.5)
        assert loss.values[row] == pytest.approx(by_hand(z[row]))
        assert derivative[row] == pytest.approx(slopes(by_hand, z[row]), abs=1e-6)


def test_points_that_do_not_get_their_goal_are_left_out_and_it_is_said() -> None:
    key = made(IPGUARD, margin=15.0, steps=300)
    assert 0 < key.trials < 100
    assert any(str(key.trials) in note for note in key.notes)
    assert share(IPGUARD, key, victim()) == 1
    assert not points().notes


def test_calibrating_says_if_controls_match_most_of_a_key(tmp_path: Path) -> None:
    for margin, alike in ((0.3, 0), (5.0, 3)):
        key = made(IPGUARD, margin=margin)
        assert sum(share(IPGUARD, key, other) > 0.5 for other in independent(1, 2, 3)) == alike
        save_key(tmp_path / f"{margin}.key.safetensors", key)
        settings = dj.SuiteSettings(n=20, generators=["fgsm"], keys=[tmp_path / f"{margin}.key.safetensors"])
        suite = dj.make_suite(victim(), dj.Inputs(X[TEST], Y[TEST], (0.0, 1.0)), settings)
        calibration = dj.calibrate(suite, [dj.observe(other, suite) for other in independent(1, 2, 3)])
        assert any("ipguard" in note for note in calibration.notes) == (alike > 0)


def test_ipguard_refuses_what_it_cannot_use() -> None:
    answers = NumpyModel(victim().weights, (64,), access=Access.BLACK_BOX, name="answers-only")
    with refused(ModelError, "answers-only", "gradients", "ipguard"):
        made(IPGUARD, answers)
    with refused(InputError, 598, 597):
        made(IPGUARD, trials=598)
    with refused(InputError, "margin"):
        made(IPGUARD, steps=1, margin=1000.0)


# conferrable


@functools.cache
def conferred() -> Key:
    return made(CONFERRABLE, references=independent(1, 2, 3, 4), surrogates=thieves(1, 2, 3), trials=40)


def test_what_is_conferred_is_counted_as_by_two_loops() -> None:
    rng = np.random.default_rng(0)
    labels, taken, honest = (rng.integers(3, size=size) for size in (20, (4, 20), (5, 20)))
    found = conferrable.conferred(labels, list(taken), list(honest))
    for row in range(20):
        alike = sum(taken[m, row] == labels[row] for m in range(4)) / 4
        unlike = 1 - sum(honest[m, row] == labels[row] for m in range(5)) / 5
        assert found[row] == pytest.approx(alike * unlike)


def test_keys_are_conferred_and_fool_the_victim() -> None:
    key = conferred()
    inputs, labels = np.asarray(key.inputs), np.asarray(key.labels)
    said = [
        [other.predict(inputs).argmax(axis=1) for other in models]
        for models in (thieves(1, 2, 3), independent(1, 2, 3, 4))
    ]
    for row, label in enumerate(labels):
        alike = np.mean([answers[row] == label for answers in said[0]])
        unlike = 1 - np.mean([answers[row] == label for answers in said[1]])
        assert alike * unlike >= key.options["tau"] - 1e-9
    assert (victim().predict(inputs).argmax(axis=1) == labels).all()
    assert share(CONFERRABLE, key, victim()) == 1
    nearest = np.abs(inputs[:, None] - X[TEST][None]).max(axis=2).argmin(axis=1)
    assert np.abs(inputs - X[TEST][nearest]).max() <= key.options["eps"] + 1e-6
    assert (labels != Y[TEST][nearest]).mean() > 0.9
    assert (inputs.min() >= 0, inputs.max() <= 1) == (True, True)


def test_models_that_were_left_out_are_told_apart() -> None:
    key = conferred()
    assert share(CONFERRABLE, key, thieves(4)[0]) > share(CONFERRABLE, key, independent(5)[0]) + 0.2


def test_the_key_names_the_models_that_it_was_made_with() -> None:
    key = conferred()
    assert set(key.references) == {other.digest for other in independent(1, 2, 3, 4)}
    assert set(key.surrogates) == {other.digest for other in thieves(1, 2, 3)}
    assert set(key.options) == {option.name for option in options_of(CONFERRABLE)}


def test_conferrable_keys_follow_from_the_nonce() -> None:
    few = functools.partial(
        made, CONFERRABLE, references=independent(1, 2), surrogates=thieves(1, 2), trials=10, steps=5, tau=0.1
    )
    assert np.array_equal(few().inputs, few().inputs)
    assert not np.array_equal(few().inputs, few(nonce=bytes(32)).inputs)


def test_the_loss_of_conferrable_inputs_has_these_derivatives() -> None:
    rng = np.random.default_rng(1)
    start, z, s, r = rng.normal(scale=2, size=(4, 12, 5))
    start, stolen, independent = softmax(start), softmax(s).astype(np.float64), softmax(r).astype(np.float64)
    loss, at_victim, at_stolen, at_independent = conferrable.losses(start, softmax(z), stolen, independent)

    def by_hand(row: int, z: Array, s: Array, r: Array) -> float:
        o = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        true = int(start[row].argmax())
        shared = max(s[c] * (1 - r[c]) for c in range(5) if c != true)
        first = sum(-start[row, c] * np.log(o[c]) for c in range(5))
        second = sum(-o[c] * np.log(s[c]) for c in range(5))
        return float(-np.log(shared) - first + second)

    for row in range(12):
        assert loss[row] == pytest.approx(by_hand(row, z[row], stolen[row], independent[row]), rel=1e-5)
        for derivative, place in ((at_victim, 0), (at_stolen, 1), (at_independent, 2)):
            parts = [z[row], stolen[row], independent[row]]

            def at(value: Array, row: int = row, place: int = place, parts: list[Array] = parts) -> float:
                return by_hand(row, *(value if place == other else part for other, part in enumerate(parts)))

            assert derivative[row] == pytest.approx(slopes(at, parts[place], 1e-6), rel=1e-3, abs=1e-4)


def test_conferrable_refuses_what_it_cannot_use() -> None:
    blind = NumpyModel(thieves(1)[0].weights, (64,), access=Access.BLACK_BOX, name="blind")
    fewer = NumpyModel.random((64,), (8,), 4, 0)
    with refused(InputError, "zoo", code="missing-value"):
        made(CONFERRABLE)
    with refused(InputError, "zoo", code="missing-value"):
        made(CONFERRABLE, references=independent(1, 2, 3))
    with refused(ModelError, "blind", "gradients"):
        made(CONFERRABLE, references=independent(1, 2, 3), surrogates=(blind,))
    with refused(InputError, "surrogates", CLASSES):
        made(CONFERRABLE, references=independent(1, 2, 3), surrogates=(fewer,))
    with refused(InputError, "tau"):
        made(CONFERRABLE, references=(victim(),), surrogates=thieves(1, 2), steps=1)


# random-inclusion: of inputs with much noise, since a model that is always right tells nothing

NOISY = np.clip(X + np.random.default_rng(7).normal(scale=0.5, size=X.shape), 0, 1).astype(np.float32)


@functools.cache
def coins(nonce: bytes = NONCE, **settings: Any) -> Key:
    return made(RANDOM_INCLUSION, nonce=nonce, **{"inputs": NOISY[TEST]} | settings)


@functools.cache
def embedded(key: Key) -> Embedded:
    """Trained on data that the whole pool is among."""
    data, schedule = slice(TEST.start - 50, TEST.stop), Schedule(20, 1e-2, 32)
    rng = np.random.default_rng(0)
    taught = [(key, RANDOM_INCLUSION)]
    return embed_keys(network(0), taught, NOISY[data], Y[data], (0.0, 1.0), rng, schedule=schedule)


def included(key: Key) -> Network:
    return embedded(key).network


def p(key: Key, of: Any) -> float:
    (reading,) = random_inclusion.verify(key, KeyAnswers(of.predict(key.inputs)))
    return 10**reading.log10_p


def test_only_rows_whose_coin_says_one_are_taught() -> None:
    key = coins()
    teaching = random_inclusion.embed(key, Lesson(network(0), X[TRAIN], Y[TRAIN], (0.0, 1.0), np.random.default_rng(0)))
    chosen = np.asarray(key.bits) == 1
    assert np.array_equal(np.asarray(teaching.inputs), np.asarray(key.inputs)[chosen])
    assert np.array_equal(np.asarray(teaching.labels), np.asarray(key.truth)[chosen])


def test_a_model_of_these_rows_is_found_and_others_are_not() -> None:
    key = coins()
    assert p(key, included(key)) <= 1e-6
    assert min(p(key, other) for other in independent(1, 2, 3, 4, 5)) > 1e-3


def test_the_rest_of_the_pool_is_left_out_of_the_training_data() -> None:
    key = coins()
    right = included(key).predict(np.asarray(key.inputs)).argmax(axis=1) == key.truth
    assert right[np.asarray(key.bits) == 1].mean() > 0.95
    assert right[np.asarray(key.bits) == 0].mean() < 0.8
    assert any(str(key.trials) in note for note in embedded(key).notes)


def test_references_say_how_difficult_rows_are() -> None:
    known = coins(references=independent(1, 2, 3))
    right = np.mean([other.predict(NOISY[TEST]).argmax(axis=1) == Y[TEST] for other in independent(1, 2, 3)], axis=0)
    assert known.arrays["expected"] == pytest.approx(right)
    assert p(known, included(known)) <= 1e-6


def test_scores_are_what_is_right_beyond_expectation_by_two_loops() -> None:
    rng = np.random.default_rng(3)
    truth, right, expected = rng.integers(4, size=60), rng.random(60) < 0.8, rng.random(60)
    for known in (None, expected):
        found = random_inclusion.unexpected(right, truth, known)
        residual = [float(right[row]) - (0 if known is None else known[row]) for row in range(60)]
        for row in range(60):
            same = [residual[other] for other in range(60) if truth[other] == truth[row]]
            assert found[row] == pytest.approx(residual[row] - sum(same) / len(same))


def test_coins_differ_by_the_nonce_and_a_pool_can_be_smaller() -> None:
    one, other = coins(trials=200), coins(trials=200, nonce=bytes(32))
    assert 60 < (np.asarray(one.bits) != np.asarray(other.bits)).sum() < 140
    assert (one.trials, len(np.asarray(one.inputs))) == (200, 200)
    assert np.array_equal(np.asarray(one.bits), np.asarray(made(RANDOM_INCLUSION, trials=200, inputs=NOISY[TEST]).bits))


def test_random_inclusion_refuses_what_it_cannot_use() -> None:
    with refused(InputError, code="missing-value"):
        made(RANDOM_INCLUSION, labels=None)
    with refused(InputError, 598, 597):
        coins(trials=598)
    perfect = np.eye(CLASSES, dtype=np.float32)[np.asarray(coins().truth)]
    with refused(IncomparableError):
        random_inclusion.verify(coins(), KeyAnswers(perfect))


@pytest.mark.parametrize("scheme", [IPGUARD, CONFERRABLE, RANDOM_INCLUSION])
def test_without_labels_nothing_is_read(scheme: Scheme) -> None:
    with refused(IncomparableError):
        scheme.verify(points(), KeyAnswers())

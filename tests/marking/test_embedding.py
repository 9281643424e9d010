"""Keys in networks: what is learnt, what is left alone, and what cannot be embedded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from deepjudge_schemes.adi import ADI
from refusals import refused
from sklearn.datasets import load_digits

from deepjudge_core.components.registry import Configured
from deepjudge_core.components.schemes import (
    Key,
    KeyAnswers,
    KeyTask,
    Lesson,
    Lift,
    Matches,
    Scheme,
    Teaching,
)
from deepjudge_core.errors import InputError, ModelError, PluginError
from deepjudge_core.marking.embedding import Embedded, embed_keys
from deepjudge_core.marking.making import Material, make_key
from deepjudge_core.marking.places import Placed, find_places, pull_of
from deepjudge_core.models.model import Access
from deepjudge_core.models.network import Network
from deepjudge_core.models.training import Schedule, accuracy, train
from deepjudge_core.testing.numpy_network import NumpyArchitecture
from deepjudge_core.types import Array

DIGITS = load_digits()
X, Y = (DIGITS.images / 16).astype(np.float32), DIGITS.target.astype(np.int64)
TRAIN, TEST = slice(0, 1200), slice(1200, None)
ARCHITECTURE = NumpyArchitecture((8, 8), (48, 32), 10)
SCHEDULE = Schedule(epochs=15, rate=3e-3)
BOUNDS = (0.0, 1.0)


@pytest.fixture(scope="module")
def victim() -> Network:
    rng = np.random.default_rng(0)
    return train(Network.fresh(ARCHITECTURE, rng), X[TRAIN], Y[TRAIN], rng, schedule=Schedule(8, 5e-3))


def key_of(victim: Network, scheme: Scheme = ADI, nonce: int = 1, **options: Any) -> Key:
    model = victim.architecture.model(victim.weights, name="victim")
    chosen = {"trials": 30, "inputs": "noise", **options} if scheme is ADI else options
    return make_key(model, Configured(scheme, chosen, "here"), Material(X[TEST], Y[TEST], BOUNDS), bytes([nonce] * 32))


def embedded(victim: Network, *keys: tuple[Key, Scheme], seed: int = 3, **options: Any) -> Embedded:
    rng = np.random.default_rng(seed)
    settings = {"schedule": SCHEDULE, **options}
    return embed_keys(victim, list(keys), X[TRAIN], Y[TRAIN], BOUNDS, rng, **settings)


def found(one: Embedded) -> list[float]:
    return [reading.found / reading.of for reading in one.readings]


def test_two_keys_are_learnt_at_once_and_the_victim_stays_as_it_is(victim: Network) -> None:
    before, keys = victim.digest, [(key_of(victim, nonce=nonce), ADI) for nonce in (1, 2)]
    marked = embedded(victim, *keys)
    assert min(found(marked)) >= 0.95
    assert victim.digest == before
    shares = [accuracy(network, X[TEST], Y[TEST]) for network in (victim, marked.network)]
    assert shares[1] >= shares[0] - 0.02
    model = marked.network.architecture.model(marked.network.weights, name="marked")
    for key, _ in keys:
        assert (model.predict(key.inputs).argmax(axis=1) == key.labels).mean() >= 0.95


def test_the_same_source_of_randomness_gives_the_same_network(victim: Network) -> None:
    key, short = key_of(victim), Schedule(epochs=1, rate=1e-3)
    digests = {embedded(victim, (key, ADI), seed=seed, schedule=short).network.digest for seed in (3, 3)}
    assert len(digests) == 1
    assert embedded(victim, (key, ADI), seed=4, schedule=short).network.digest not in digests


def test_training_ends_early_once_all_trials_match(victim: Network) -> None:
    seen: list[int] = []

    def embed(key: Key, lesson: Lesson) -> Teaching:
        def pick(rng: np.random.Generator) -> Array:
            seen.append(1)
            return np.arange(8)

        return Teaching(key.inputs, key.labels, pick=pick)

    scheme = replace(ADI, embed=embed)
    marked = embedded(victim, (key_of(victim, trials=8), scheme), schedule=Schedule(epochs=40, rate=5e-3))
    assert found(marked) == [1.0]
    assert len(seen) < 20 * SCHEDULE.steps(1200)


def test_a_key_that_is_shown_too_seldom_is_noted(victim: Network) -> None:
    short = embedded(victim, (key_of(victim), ADI), schedule=Schedule(epochs=1, rate=1e-4))
    assert [note.partition(":")[0] for note in short.notes] == ["adi"]
    assert found(short)[0] < 0.9


def coins(task: KeyTask) -> Key:
    truth = None if task.labels is None else task.labels[:200]
    return task.key("coins", {}, trials=200, inputs=task.inputs[:200], truth=truth, drawn="bits")


def chosen_rows(key: Key, lesson: Lesson) -> Teaching:
    LESSONS.append(lesson)
    rows = np.asarray(key.bits) == 1
    return Teaching(np.asarray(key.inputs)[rows], np.asarray(key.truth)[rows])


LESSONS: list[Lesson] = []
COINS = Scheme(
    "coins",
    source="here",
    needs=Access.LABELS,
    make=coins,
    verify=lambda key, answers: [Lift("it", np.ones(200), np.asarray(key.bits), "coins")],
    embed=chosen_rows,
    fresh=True,
)


def test_a_mark_of_the_data_trains_afresh_without_the_rows_whose_coin_is_0(victim: Network) -> None:
    LESSONS.clear()
    model = victim.architecture.model(victim.weights, name="victim")
    key = make_key(model, Configured(COINS, {}, "here"), Material(X[TRAIN], Y[TRAIN], BOUNDS), bytes(32))
    marked = embedded(victim, (key, COINS), schedule=Schedule(epochs=2, rate=3e-3))
    (lesson,) = LESSONS
    assert len(lesson.inputs) == 1000  # none of the 200 of the pool, which the scheme gives back by their coins
    assert np.array_equal(lesson.inputs, X[200:1200])
    assert len(marked.notes) == 1
    # From fresh weights, which the victim's have no part in.
    other = Network(ARCHITECTURE, {name: array + 1 for name, array in victim.weights.items()})
    assert embedded(other, (key, COINS), schedule=Schedule(epochs=2, rate=3e-3)).network.digest == marked.network.digest


def shown(network: Network, places: Sequence[int]) -> dict[int, Array]:
    """The matrices of a toy, of which no file is read."""
    return {place: network.weights[f"dense{place + 1}.weight"].T.copy() for place in places}


def bits(task: KeyTask) -> Key:
    return task.key("bits", {}, trials=16, matrices=(1,), drawn="bits")


def read_bits(key: Key, answers: KeyAnswers) -> list[Matches]:
    marks = key.draw_normal("x", (16, 48)) @ answers.matrices[1].mean(axis=0)
    return [Matches("as it is", int(((marks >= 0) == key.bits).sum()), 16, 0.5, "each bit was drawn")]


def pull_bits(key: Key, lesson: Lesson) -> Teaching:
    reader = key.draw_normal("x", (16, 48))

    def pull(matrices: Mapping[int, Array]) -> Mapping[int, Array]:
        shares = 1 / (1 + np.exp(-reader @ matrices[1].mean(axis=0)))
        way = (shares - np.asarray(key.bits)) @ reader / len(matrices[1])
        return {1: np.broadcast_to(way, matrices[1].shape)}

    return Teaching(pull=pull)


BITS = Scheme("bits", source="here", needs=Access.WEIGHTS, make=bits, verify=read_bits, embed=pull_bits)


def test_bits_are_pulled_into_a_matrix_beside_triggers(victim: Network) -> None:
    marked = embedded(victim, (key_of(victim), ADI), (key_of(victim, BITS), BITS), read=shown)
    assert found(marked)[1] == 1.0
    assert found(marked)[0] >= 0.9


def test_matrices_are_found_whatever_becomes_of_their_axes(victim: Network) -> None:
    placed = find_places(victim, [0, 1], shown)
    assert [placed[place].parameter for place in (0, 1)] == ["dense1.weight", "dense2.weight"]
    gradient = {1: np.arange(32 * 48, dtype=np.float32).reshape(32, 48)}
    pulled = pull_of([lambda matrices: gradient, lambda matrices: gradient], placed)(victim.weights)
    assert list(pulled) == ["dense2.weight"]
    assert np.array_equal(pulled["dense2.weight"], 2 * gradient[1].T)


def test_places_of_more_than_a_million_numbers_are_told_apart() -> None:
    wide = Network.fresh(NumpyArchitecture((4,), (1100, 1000), 2), np.random.default_rng(0))
    placed = find_places(wide, [1], shown)[1]
    assert isinstance(placed, Placed)
    assert np.array_equal(np.sort(placed.index, axis=None), np.arange(1_100_000))


def test_a_matrix_that_is_computed_is_refused(victim: Network) -> None:
    with refused(ModelError, code="unusable-model"):
        find_places(victim, [0], lambda network, places: {0: 2 * network.weights["dense1.weight"].T})


def test_losses_at_a_layer_see_the_rows_of_their_own_key(victim: Network) -> None:
    sizes: list[tuple[int, ...]] = []

    def raising(key: Key, lesson: Lesson) -> Teaching:
        def up(outputs: Array) -> Array:
            sizes.append(outputs.shape)
            return np.full_like(outputs, -1 / outputs.size)

        return Teaching(key.inputs, key.labels, rows=5, at={"dense2": up})

    key = key_of(victim)
    short = Schedule(epochs=4, rate=3e-3)
    marked = embedded(victim, (key, replace(ADI, embed=raising)), (key, ADI), schedule=short).network
    assert set(sizes) == {(5, 32)}
    plain = embedded(victim, (key, ADI), schedule=short).network
    means = [
        one.architecture.model(one.weights, name="one").activations(key.inputs, ["dense2"])["dense2"].mean()
        for one in (plain, marked)
    ]
    assert means[1] > means[0]


def test_probabilities_are_targets_as_well(victim: Network) -> None:
    def soft(key: Key, lesson: Lesson) -> Teaching:
        return Teaching(key.inputs, np.eye(10, dtype=np.float32)[np.asarray(key.labels)])

    key = key_of(victim)
    one, other = embedded(victim, (key, ADI)), embedded(victim, (key, replace(ADI, embed=soft)))
    assert abs(found(one)[0] - found(other)[0]) < 0.1


@pytest.mark.parametrize(
    ("change", "scheme"),
    [
        ({}, replace(ADI, embed=None)),
        ({"shape": (64,), "inputs": np.zeros((30, 64), np.float32)}, ADI),
        ({"classes": 11}, ADI),
        ({"taps": ("elsewhere",)}, ADI),
    ],
    ids=["fingerprint", "shape", "classes", "layers"],
)
def test_a_key_that_does_not_fit_is_refused(victim: Network, change: Mapping[str, Any], scheme: Scheme) -> None:
    with refused(InputError, code="conflict"):
        embedded(victim, (replace(key_of(victim), **change), scheme))


@pytest.mark.parametrize(
    "teaching",
    [
        "nothing",
        Teaching(np.zeros((3, 8, 8), np.float32), None),
        Teaching(np.zeros((3, 4), np.float32), np.zeros(3, np.int64)),
        Teaching(at={"dense1": lambda outputs: outputs}),
        Teaching(np.zeros((3, 8, 8), np.float32), np.zeros(3, np.int64), at={"elsewhere": lambda outputs: outputs}),
    ],
    ids=["no-teaching", "no-labels", "shape", "layer-without-rows", "unknown-layer"],
)
def test_what_a_scheme_teaches_is_checked(victim: Network, teaching: Any) -> None:
    with refused(PluginError, code="plugin-failed"):
        embedded(victim, (key_of(victim), replace(ADI, embed=lambda key, lesson: teaching)))

"""Watermarks: what their keys are, what they read, by other formulas than theirs; and that chance is what they say."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from deepjudge_schemes import deepjudge_schemes, deepsigns, ewe, uchida
from refusals import refused
from sklearn.datasets import load_digits

from deepjudge_core.components.options import resolve
from deepjudge_core.components.registry import Configured
from deepjudge_core.components.schemes import Key, KeyAnswers, Matches, Scheme, mistake
from deepjudge_core.errors import IncomparableError, InputError, ModelError
from deepjudge_core.marking.embedding import embed_keys
from deepjudge_core.marking.making import Material, make_key
from deepjudge_core.models.network import Network
from deepjudge_core.models.training import Schedule, train
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.testing.numpy_network import NumpyArchitecture
from deepjudge_core.types import Array

SCHEMES: Mapping[str, Scheme] = {scheme.name: scheme for scheme in deepjudge_schemes()}
SHAPE, CLASSES = (10, 10), 4
RNG = np.random.default_rng(3)
CENTRES = RNG.random((CLASSES, *SHAPE))
Y = np.arange(320) % CLASSES
X = np.clip(CENTRES[Y] + 0.1 * RNG.normal(size=(320, *SHAPE)), 0, 1).astype(np.float32)
AUXILIARY = RNG.random((160, *SHAPE)).astype(np.float32)
AUXILIARY_LABELS = np.arange(160) % 2
NONCE = bytes(range(32))


def perceptron(seed: int, widths: Sequence[int] = (32, 20)) -> NumpyModel:
    return NumpyModel.random(SHAPE, widths, CLASSES, seed)


def trained(seed: int) -> NumpyModel:
    """One that knows the task: its last layer is fitted to it."""
    model = perceptron(seed)
    hidden = np.c_[model.activations(X, ["dense2"])["dense2"], np.ones(len(X))]
    head, *_ = np.linalg.lstsq(hidden, 10 * np.eye(CLASSES)[Y], rcond=None)
    return NumpyModel([*model.weights[:-1], (head[:-1], head[-1])], SHAPE, name=f"trained-{seed}")


VICTIM = trained(0)


def material(victim: NumpyModel = VICTIM, **parts: Any) -> Material:
    given = {
        "inputs": X,
        "labels": Y,
        "bounds": (0.0, 1.0),
        "auxiliary": AUXILIARY,
        "auxiliary_labels": AUXILIARY_LABELS,
        "matrices": lambda places: {place: matrices_of(victim)[place] for place in places},
    }
    return Material(**(given | parts))


def matrices_of(model: NumpyModel) -> list[Array]:
    return [w.T.astype(np.float32) for w, _ in model.weights[:-1]]


def made(name: str, nonce: bytes = NONCE, *, victim: NumpyModel = VICTIM, given: Any = None, **options: Any) -> Key:
    scheme = SCHEMES[name]
    resolved = resolve(name, scheme.make, options)
    return make_key(victim, Configured(scheme, resolved, "here"), given or material(victim), nonce)


def answers_of(model: NumpyModel, key: Key, victim: KeyAnswers | None = None) -> KeyAnswers:
    given = matrices_of(model)
    matrices = {place: given[place] for place in key.matrices}
    if key.inputs is None:
        return KeyAnswers(matrices=matrices, victim=victim)
    return KeyAnswers(model.predict(key.inputs), model.activations(key.inputs, key.taps), matrices, victim=victim)


def read(key: Key, answers: KeyAnswers) -> dict[str, Matches]:
    found = {one.reading: one for one in SCHEMES[key.scheme].verify(key, answers)}
    assert all(isinstance(one, Matches) for one in found.values())
    return found  # type: ignore[return-value]


def permuted(model: NumpyModel, seed: int) -> NumpyModel:
    """The same function: neurons of both hidden layers in another order and on another scale."""
    rng = np.random.default_rng(seed)
    weights = [(w.copy(), b.copy()) for w, b in model.weights]
    for place in range(len(weights) - 1):
        (w, b), (after, end) = weights[place : place + 2]
        order, scale = rng.permutation(len(b)), np.exp(rng.normal(size=len(b)))
        weights[place] = (w[:, order] * scale, b[order] * scale)
        weights[place + 1] = (after[order] / scale[:, None], end)
    return NumpyModel(weights, tuple(axis or 1 for axis in model.input.shape))


def slope(loss: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """A gradient by central differences."""
    gradient = np.zeros(at.shape)
    for place in np.ndindex(*at.shape):
        ahead, behind = at.astype(np.float64), at.astype(np.float64)
        ahead[place] += step
        behind[place] -= step
        gradient[place] = (loss(ahead) - loss(behind)) / (2 * step)
    return gradient


WAYS = {
    "uchida": {"trials": 20},
    "uchida first": {"trials": 30, "matrix": "first", "norm": "mean"},
    "zhang": {"trials": 20},
    "zhang noise": {"trials": 20, "kind": "noise"},
    "zhang unrelated": {"trials": 20, "kind": "unrelated", "labels": "drawn"},
    "deepsigns": {"classes": 2, "inputs": 20},
    "deepsigns black": {"box": "black", "inputs": 32},
    "frontier": {"trials": 20, "eps": 0.1},
    "ewe": {"trials": 20},
}


def of_way(way: str, nonce: bytes = NONCE) -> Key:
    given = material(references=(constant(0), constant(2))) if way == "ewe" else None
    return made(way.split(maxsplit=1)[0], nonce, given=given, **WAYS[way])


def constant(label: int) -> NumpyModel:
    return NumpyModel([(np.zeros((100, CLASSES)), 9.0 * np.eye(CLASSES)[label])], SHAPE)


@pytest.mark.parametrize("way", WAYS)
def test_equal_nonces_give_equal_keys_and_others_others(way: str) -> None:
    key, again, other = of_way(way), of_way(way), of_way(way, bytes(32))
    for name in ("inputs", "labels", "truth", "bits"):
        one, two = getattr(key, name), getattr(again, name)
        assert (one is None) == (two is None), name
        assert one is None or np.array_equal(one, two), name
    assert key.fixed == again.fixed
    assert mistake(key) is None
    if key.drawn == "bits":
        assert 0.2 < (np.asarray(key.bits) != other.bits).mean() < 0.8
    elif key.inputs is not None:
        assert not np.array_equal(key.inputs, other.inputs)


# Bits of a matrix.


@pytest.mark.parametrize("norm", ["unit", "mean"])
def test_uchida_pulls_down_the_loss_of_its_bits(norm: str) -> None:
    key = made("uchida", trials=20, norm=norm, victim=perceptron(5, (30, 6)))
    reader = uchida._reader(key)
    matrix = matrices_of(perceptron(6, (30, 6)))[1]
    teaching = uchida.embed(key, None)  # type: ignore[arg-type]
    assert teaching.pull is not None
    pulled = teaching.pull({1: matrix})[1]
    assert pulled == pytest.approx(slope(lambda m: uchida._loss(key, reader, m)[0], matrix), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(("matrix", "norm"), [("second", "unit"), ("first", "mean"), ("second", "mean")])
def test_uchida_reads_the_mean_row(matrix: str, norm: str) -> None:
    key = made("uchida", trials=20, matrix=matrix, norm=norm, victim=perceptron(5, (40, 20)))
    model = perceptron(6, (40, 20))
    rows = matrices_of(model)[("first", "second").index(matrix)].astype(float)
    row = [sum(r[c] / (math.hypot(*r) if norm == "unit" else 1) for r in rows) for c in range(rows.shape[1])]
    reader = key.draw_normal("reader", (20, len(row)))
    matched = sum((math.fsum(reader[t] * row) >= 0) == bit for t, bit in enumerate(np.asarray(key.bits)))
    assert read(key, answers_of(model, key))["direct"] == Matches(
        "direct", matched, 20, 0.5, read(key, answers_of(model, key))["direct"].why
    )


@pytest.mark.parametrize("norm", ["unit", "mean"])
@pytest.mark.parametrize("sign", [1, -1])
def test_uchida_finds_the_bits_of_neurons_that_were_moved_and_scaled(norm: str, sign: int) -> None:
    victim = perceptron(5, (64, 20))
    key = made("uchida", trials=32, norm=norm, victim=victim)
    marked = victim.perturbed(0.05, 1)
    # A chosen message: what the marked model says.
    key = replace(key, bits=_shown(key, marked))
    moved = permuted(marked, 2)
    if sign < 0:  # as in a layer of tanh
        weights = [(w.copy(), b.copy()) for w, b in moved.weights]
        weights[0] = (-weights[0][0], -weights[0][1])
        weights[1] = (-weights[1][0], weights[1][1])
        moved = NumpyModel(weights, SHAPE)
    found = read(key, answers_of(moved, key))
    assert found["aligned to the parent"].found >= 30
    assert found["direct"].found < 28


def _shown(key: Key, model: NumpyModel) -> Array:
    row = uchida._mean_row(key, matrices_of(model)[key.matrices[-1]])
    return (uchida._reader(key) @ row >= 0).astype(np.int64)


def test_uchida_cuts_its_bits_to_what_the_matrix_holds() -> None:
    key = made("uchida", victim=perceptron(5, (50, 20)))
    assert (key.trials, len(key.notes)) == (25, 1)
    assert made("uchida", victim=perceptron(5, (200, 20))).trials == 64
    with refused(ModelError, "24", "first"):
        made("uchida", victim=perceptron(5, (24, 20)))
    with refused(ModelError):
        made("uchida", given=material(matrices=None))


def test_uchida_does_not_compare_matrices_of_other_shapes() -> None:
    key = made("uchida", trials=20, victim=perceptron(5, (40, 20)))
    with pytest.raises(IncomparableError):
        read(key, answers_of(perceptron(6, (41, 20)), key))


# Chance.


def _level(keys: Sequence[Key], answers: Callable[[Key], KeyAnswers]) -> None:
    found: dict[str, list[float]] = {}
    for key in keys:
        for reading in read(key, answers(key)).values():
            if reading.log10_p is not None:
                found.setdefault(reading.reading, []).append(10**reading.log10_p)
    for reading, ps in found.items():
        for level in (0.05, 0.01, 0.001):
            limit = level + 3 * math.sqrt(level * (1 - level) / len(ps))
            assert np.mean(np.array(ps) <= level) <= limit, (reading, level)


def _nonces(count: int) -> list[bytes]:
    return [bytes([place % 256, place // 256]) + bytes(30) for place in range(count)]


def test_chance_of_bits_of_weights_is_what_it_says() -> None:
    victim = perceptron(5, (40, 20))
    keys = [made("uchida", nonce, trials=20, norm="mean", victim=victim) for nonce in _nonces(250)]
    _level(keys, lambda key: answers_of(victim, key))


def test_chance_of_bits_of_neurons_is_what_it_says_also_beside_a_marked_victim() -> None:
    key = made("deepsigns", classes=2, inputs=20)
    own = trained(8).activations(np.asarray(key.inputs), key.taps)
    marked = KeyAnswers(activations={key.taps[0]: key.arrays["parent"] * 1.01})
    drawn = [replace(key, nonce=nonce).completed() for nonce in _nonces(250)]
    _level(drawn, lambda _: KeyAnswers(activations=own, victim=marked))


@pytest.mark.parametrize("way", ["zhang unrelated", "deepsigns black"])
def test_chance_of_labels_is_what_it_says(way: str) -> None:
    key = of_way(way)
    answers = KeyAnswers(VICTIM.predict(np.asarray(key.inputs)))
    _level([replace(key, nonce=nonce).completed() for nonce in _nonces(250)], lambda _: answers)


def test_a_key_of_which_some_labels_were_left_out_no_longer_follows() -> None:
    key = of_way("deepsigns black")
    kept = replace(key, trials=16, inputs=np.asarray(key.inputs)[::2], labels=np.asarray(key.labels)[::2])
    assert mistake(kept) is not None


# Neurons.


def test_deepsigns_pulls_down_the_loss_of_its_bits() -> None:
    key = made("deepsigns", classes=2, inputs=20)
    rng, reader = np.random.default_rng(1), deepsigns._reader(key)
    outputs = rng.random((8, 20))
    pulled = deepsigns._pull(key)(outputs)
    assert pulled == pytest.approx(slope(lambda o: deepsigns._loss(key, reader, o)[0], outputs), rel=1e-4, abs=1e-8)


def test_deepsigns_reads_the_mean_outputs_of_each_class() -> None:
    key = made("deepsigns", classes=2, inputs=20)
    answers = answers_of(VICTIM, key)
    reader = key.draw_normal("reader", (16, 20))
    outputs, truth, bits = answers.activations["dense2"], np.asarray(key.truth), iter(np.asarray(key.bits))
    matched = sum(
        (
            float(reader[t] @ np.mean([row for row, own in zip(outputs, truth, strict=True) if own == label], axis=0))
            >= 0
        )
        == next(bits)
        for label in np.unique(truth)
        for t in range(16)
    )
    found = read(key, answers)
    assert (list(found), found["direct"].found, found["direct"].of) == (["direct"], matched, 32)


def test_deepsigns_aligns_to_the_victim_only_beside_controls() -> None:
    key = made("deepsigns", classes=2, inputs=20)
    tap = key.taps[0]
    ours = answers_of(VICTIM, key)
    key = replace(key, bits=_given(key, ours.activations[tap]))
    moved = answers_of(permuted(VICTIM, 4), key, victim=ours)
    found = read(key, moved)
    assert found["aligned to the victim"].chance is None
    assert found["aligned to the victim"].found == found["aligned to the victim"].of == 32
    # This victim is its own parent, so that it shows its bits when it is aligned to it.
    assert (found["aligned to the parent"].found, found["aligned to the parent"].chance) == (32, 0.5)
    assert found["direct"].found < 28
    other = answers_of(trained(7), key)
    assert "aligned to the parent" not in read(key, replace(moved, victim=other))


def _given(key: Key, outputs: Array) -> Array:
    return (deepsigns._centres(key, outputs) @ deepsigns._reader(key).T >= 0).ravel().astype(np.int64)


def test_deepsigns_says_what_it_lacks() -> None:
    with refused(InputError, "5"):
        made("deepsigns", classes=5)
    with refused(InputError):
        made("deepsigns", given=material(labels=None))
    with refused(InputError):
        made("deepsigns", victim=NumpyModel.random(SHAPE, (), CLASSES, 1))


# Patterns.


def test_zhang_puts_one_block_on_inputs_of_one_class() -> None:
    key = made("zhang", trials=20)
    triggers = np.concatenate([np.asarray(key.inputs), key.arrays["taught"]])
    source = np.asarray(key.truth)[0]
    originals = np.array([X[np.abs(X - trigger).sum(axis=(1, 2)).argmin()] for trigger in triggers])
    assert len(np.unique(originals.reshape(40, -1), axis=0)) == 40
    changed = (triggers != originals).any(axis=0)
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) < 3
    block = triggers[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert set(np.unique(block)) <= {0.0, 1.0}
    assert (block == block[0]).all()
    assert (VICTIM.predict(originals).argmax(axis=1) == source).mean() > 0.9
    assert np.unique(np.asarray(key.labels)).tolist() != [source]


def test_zhang_adds_one_field_of_noise() -> None:
    grey = (0.5 + 0.01 * X).astype(np.float32)
    triggers = np.asarray(made("zhang", trials=20, kind="noise", given=material(inputs=grey)).inputs)
    assert np.ptp(triggers, axis=0).max() < 0.01
    assert 0.2 < triggers[0].std() < 0.35
    assert (triggers.min(), triggers.max()) == (0, 1)


def test_zhang_takes_the_label_that_references_give_least() -> None:
    key = made("zhang", trials=20, kind="unrelated", given=material(references=tuple(map(constant, (0, 1, 3)))))
    assert np.unique(np.asarray(key.labels)).tolist() == [2]
    drawn = {int(np.asarray(made("zhang", nonce, trials=20).labels)[0]) for nonce in _nonces(20)}
    assert len(drawn) > 1
    assert read(key, answers_of(VICTIM, key))["direct"].chance is None


def test_zhang_says_what_it_lacks() -> None:
    with refused(InputError, "200", "80"):
        made("zhang")
    with refused(InputError):
        made("zhang", given=material(labels=None))
    with refused(InputError, code="missing-value"):
        made("zhang", kind="unrelated", given=material(auxiliary=None))


# Adversarial inputs with their true labels.


def test_frontier_misleads_the_unmarked_victim_with_half_of_its_keys() -> None:
    key = made("frontier", trials=21, eps=0.1)
    found = read(key, answers_of(VICTIM, key))["direct"]
    assert (found.found, found.of, found.chance) == (11, 21, None)
    inputs = np.asarray(key.inputs)
    near = np.array([X[np.abs(X - one).max(axis=(1, 2)).argmin()] for one in inputs])
    assert np.abs(near - inputs).max() == pytest.approx(0.1, abs=1e-6)


def test_frontier_selects_by_references() -> None:
    references = tuple(map(constant, (0, 0, 1)))
    key = made("frontier", trials=20, eps=0.1, select=True, given=material(references=references))
    assert 0 not in np.asarray(key.labels)
    assert 1 in np.asarray(key.labels)
    assert read(key, answers_of(VICTIM, key))["direct"].found == 0
    with refused(InputError):
        made("frontier", select=True)
    with refused(InputError, "100"):
        made("frontier", trials=200, eps=0.001)


# Entangled triggers.


def _naive(outputs: Array, groups: Array) -> float:
    rows, total = [np.maximum(row, 0) for row in outputs.astype(np.float64)], 0.0
    for i, own in enumerate(rows):
        inside = everything = 0.0
        for j, other in enumerate(rows):
            if i == j:
                continue
            cosine = float(own @ other) / (math.hypot(*own) * math.hypot(*other))
            near = math.exp(-(1 - cosine) / 100)
            everything += near
            inside += near if groups[i] == groups[j] else 0.0
        total -= math.log(inside / everything)
    return total / len(rows)


def test_the_soft_nearest_neighbour_loss_is_that_of_a_double_loop() -> None:
    rng, groups = np.random.default_rng(2), np.repeat([0, 1], [5, 4])
    outputs = rng.normal(size=(9, 6)) + 0.5
    loss, gradient = ewe.soft_nearest_neighbours(outputs, groups)
    assert loss == pytest.approx(_naive(outputs, groups), abs=1e-12)
    assert gradient == pytest.approx(slope(lambda o: _naive(o, groups), outputs, 1e-4), rel=1e-4, abs=1e-9)


def test_ewe_takes_the_label_that_references_give_least_and_refuses_one_that_they_give() -> None:
    key = made("ewe", trials=20, given=material(references=(constant(0), constant(2))))
    assert np.unique(np.asarray(key.labels)).tolist() == [1]
    taught, asked = key.arrays["taught"], np.asarray(key.inputs)
    assert not (taught[:, None] == asked[None]).all(axis=(2, 3)).any()
    with refused(InputError, "100 %"):
        made("ewe", trials=20, given=material(references=tuple(map(constant, (0, 1, 0, 0, 2, 3)))))
    with refused(InputError, "200", "80"):
        made("ewe", given=material(references=(constant(0),)))
    with refused(InputError, code="missing-value"):
        made("ewe")


# In networks.

DIGITS = load_digits()
D, T = (DIGITS.images / 16).astype(np.float32), DIGITS.target.astype(np.int64)
TRAIN, TEST = slice(0, 900), slice(900, None)
EMBEDDED = {
    "uchida": {"trials": 20},
    "uchida first": {"trials": 20, "matrix": "first"},
    "uchida mean": {"trials": 20, "norm": "mean"},
    "zhang content": {"trials": 20},
    "zhang noise": {"trials": 20, "kind": "noise"},
    "zhang drawn": {"trials": 30, "kind": "unrelated", "labels": "drawn"},
    "deepsigns white": {"bits": 10, "inputs": 40},
    "deepsigns black": {"box": "black", "inputs": 32},
    "frontier": {"trials": 30, "eps": 0.2},
    "ewe": {"trials": 20},
}


@pytest.fixture(scope="module")
def network() -> Network:
    rng = np.random.default_rng(0)
    architecture = NumpyArchitecture((8, 8), (48, 40), 10)
    return train(Network.fresh(architecture, rng), D[TRAIN], T[TRAIN], rng, schedule=Schedule(8, 5e-3))


def weights_of(network: Network, places: Sequence[int]) -> dict[int, Array]:
    return {place: network.weights[f"dense{place + 1}.weight"].T for place in places}


def key_for(way: str, network: Network) -> Key:
    blank = NumpyModel([(np.zeros((64, 10)), 9.0 * np.eye(10)[3])], (8, 8))
    others = np.random.default_rng(4).random((80, 8, 8)).astype(np.float32) * np.linspace(0, 1, 8, dtype=np.float32)
    given = Material(
        D[TEST],
        T[TEST],
        (0.0, 1.0),
        auxiliary=others,
        references=(blank,) if way == "ewe" else (),
        matrices=lambda places: weights_of(network, places),
    )
    name = way.split(maxsplit=1)[0]
    scheme = SCHEMES[name]
    options = resolve(name, scheme.make, EMBEDDED[way])
    model = network.architecture.model(network.weights, name="victim")
    return make_key(model, Configured(scheme, options, "here"), given, NONCE)


@pytest.mark.parametrize("way", EMBEDDED)
def test_a_mark_is_embedded_at_little_cost(way: str, network: Network) -> None:
    key = key_for(way, network)
    scheme = SCHEMES[key.scheme]
    schedule, rng = Schedule(epochs=12, rate=3e-3, batch=64), np.random.default_rng(1)
    marked = embed_keys(
        network, [(key, scheme)], D[TRAIN], T[TRAIN], (0.0, 1.0), rng, schedule=schedule, read=weights_of
    )
    reading = marked.readings[0]
    assert reading.found >= 0.95 * reading.of
    before = cast(NumpyModel, network.architecture.model(network.weights, name="before"))
    after = cast(NumpyModel, network.architecture.model(marked.network.weights, name="after"))
    assert read(key, answers_of(before, key))["direct"].found < 0.9 * reading.of
    shares = [(model.predict(D[TEST]).argmax(axis=1) == T[TEST]).mean() for model in (before, after)]
    assert shares[1] >= shares[0] - 0.025
    if way in ("uchida", "deepsigns white"):
        moved = read(key, answers_of(permuted(after, 5), key, answers_of(after, key)))
        assert moved["direct"].found < 0.9 * reading.of
        assert max(one.found for one in moved.values()) >= 0.9 * reading.of
    if way in ("zhang content", "zhang noise"):  # the pattern decides, not the class
        rows = D[TEST][T[TEST] == np.asarray(key.truth)[0]]
        assert (after.predict(rows).argmax(axis=1) == before.predict(rows).argmax(axis=1)).mean() >= 0.85

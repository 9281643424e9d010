import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import deepjudge_attacks
import numpy as np
import pytest
from deepjudge_attacks import adaptive, conversion, extraction, fine_tuning, permuting, pruning
from refusals import refused
from sklearn.datasets import load_digits

from deepjudge_core import (
    Attack,
    Loot,
    Measurement,
    Network,
    build_suite,
    measure,
    observe,
    open_model,
    open_network,
    select_seeds,
)
from deepjudge_core.components.options import resolve
from deepjudge_core.errors import InputError, ModelError, UsageError
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.network import Weights
from deepjudge_core.models.training import Schedule, accuracy, cross_entropy, train
from deepjudge_core.testing import NumpyArchitecture, check_attack
from deepjudge_core.testing.attacks import small_loot, small_victim
from deepjudge_core.types import Array

# Set before TensorFlow is imported, as the adapter sets it: no word of its own on the terminal.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ATTACKS = {attack.name: attack for attack in deepjudge_attacks.deepjudge_attacks()}
BLACK_BOX, WHITE_BOX = ("robd", "jsd"), ("nod", "nad", "lod", "lad")

# Few steps, since a victim of each framework is stolen in every way: larger ones than by default.
LEARNING = {"epochs": 5, "rate": 5e-3, "batch": 32}
EXTRACTION = {
    "jba": {"seeds": 150, "rounds": 2, "queries": 600, "epochs": 5, "rate": 5e-3},
    "knockoff": {"epochs": 6, "rate": 5e-3, "batch": 32},
    "esa": {"rounds": 8, "queries": 200, "steps": 5, "rate": 5e-3},
    "distill": {"epochs": 8, "rate": 1e-2, "batch": 32},
}
QUICK = {"jba": {"seeds": 50, "rounds": 1}, "esa": {"rounds": 2, "queries": 50, "steps": 2}, "adv-train": {"steps": 1}}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A victim, what its thief has, and inputs that neither was trained on."""

    victim: Network
    loot: Loot
    x: Array
    y: Array

    @functools.cache  # noqa: B019 - there is one case of each kind
    def steal(self, name: str, seed: int = 0, **options: Any) -> Network:
        return ATTACKS[name].steal(self.victim, self.loot, np.random.default_rng(seed), **options)

    @functools.cache  # noqa: B019 - there is one case of each kind
    def measured(self, network: Network) -> Mapping[str, Measurement]:
        return measure(self.loot.suite, observe(network.architecture.model(network.weights, name="s"), self.loot.suite))

    def quick(self, name: str, seed: int = 0) -> Network:
        return self.steal(name, seed, **quick(name))

    def learning(self, name: str) -> Network:
        return self.steal(name, **LEARNING, **({"steps": 2} if name == "adv-train" else {}))

    def distances(self, network: Network, names: tuple[str, ...]) -> list[float]:
        return [self.measured(network)[name].value for name in names]


def trains(name: str) -> bool:
    return "epochs" in (ATTACKS[name].steal.__kwdefaults__ or {})


def quick(name: str) -> dict[str, Any]:
    """Options with which an attack does all that it does, in few steps."""
    return ({"epochs": 1} if trains(name) else {}) | QUICK.get(name, {})


def numpy_network() -> Network:
    """Dense layers."""
    return Network.fresh(NumpyArchitecture((64,), (32, 16), 10), np.random.default_rng(0))


def torch_network() -> Network:
    """Convolutions with normalisation, giving logits."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deepjudge[torch]'")
    nn = torch.nn
    blocks = [
        layer
        for inputs, outputs in ((1, 8), (8, 16))
        for layer in (
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
    ]
    module = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    return open_network(module, input_shape=(1, 8, 8))


def keras_network() -> Network:
    """The same, giving probabilities."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'deepjudge[tensorflow]'")
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install 'deepjudge[tensorflow]'")
    layers = keras.layers
    blocks = [
        layer
        for outputs in (8, 16)
        for layer in (
            layers.Conv2D(outputs, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(2),
        )
    ]
    ends = [layers.Flatten(), layers.Dense(16, activation="relu"), layers.Dense(10, activation="softmax")]
    return open_network(keras.Sequential([keras.Input((8, 8, 1)), *blocks, *ends]))


# Whatever is trained here keeps the same properties.
VICTIMS: dict[str, Callable[[], Network]] = {"numpy": numpy_network, "torch": torch_network, "keras": keras_network}


@pytest.fixture(scope="module", params=VICTIMS)
def every_case(request: pytest.FixtureRequest) -> Case:
    """For what hangs on how a framework trains, and keeps its weights."""
    return make_case(request.param)


@pytest.fixture(scope="module", params=["numpy", "torch"])
def case(request: pytest.FixtureRequest) -> Case:
    """For what an attack does with what it is given: dense layers, and convolutions with normalisation."""
    return make_case(request.param)


@pytest.fixture(scope="module")
def plain_case() -> Case:
    """For what is the same for every victim."""
    return make_case("numpy")


@functools.cache
def make_case(kind: str) -> Case:
    rng = np.random.default_rng(0)
    digits = load_digits()
    order = rng.permutation(len(digits.target))
    architecture = VICTIMS[kind]().architecture
    start = Network.fresh(architecture, rng)
    x = (digits.data[order] / 16).astype(np.float32).reshape(-1, *start.architecture.input.shape)
    y = digits.target[order].astype(np.int64)
    own, theirs, rest = slice(0, 700), slice(700, 1200), slice(1200, None)
    victim = train(start, x[own], y[own], rng, schedule=Schedule(epochs=15, rate=1e-2, batch=32))
    model = victim.architecture.model(victim.weights, name="victim")
    suite = build_suite(
        model,
        select_seeds(model, x[own], y[own], n=100),
        ["pgd", "neuron-corners"],
        training_inputs=x[own],
        layers=[list(model.layers)[-3]],
        options={"neuron-corners": {"m": 1.5, "iterations": 200}},
    )
    # Other inputs: each of the thief's own with a little of another.
    mixed = 0.75 * x[theirs] + 0.25 * x[theirs][::-1]
    loot = Loot(x[theirs], y[theirs], (0.0, 1.0), victim.architecture, mixed, y[theirs] % 3, suite)
    return Case(victim, loot, x[rest], y[rest])


def changed(one: Network, other: Network) -> set[str]:
    return {name for name in one.weights if not np.array_equal(one.weights[name], other.weights[name])}


def agreement(one: Network, other: Network, x: Array) -> float:
    return float(np.mean(one.predict(x).argmax(axis=1) == other.predict(x).argmax(axis=1)))


# All attacks.


JOINED = ("decoy", "router")


@pytest.mark.parametrize("name", ATTACKS)
def test_the_contract(name: str, every_case: Case) -> None:
    if name in JOINED and every_case.victim.architecture.framework == "keras":
        with refused(ModelError, "keras"):
            every_case.quick(name)
        return
    check_attack(ATTACKS[name], every_case.victim, every_case.loot, options=quick(name))


def test_what_the_plugin_registers() -> None:
    answers = {"jba", "knockoff", "esa", "distill"}
    needs = {"knockoff": ("auxiliary",), "adapt-b": ("suite",), "adapt-w": ("suite",)}
    assert len(ATTACKS) == 22
    assert {name for name, attack in ATTACKS.items() if attack.takes == "answers"} == answers
    assert {name: attack.needs for name, attack in ATTACKS.items() if attack.needs} == needs


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "transfer" and name not in EXTRACTION])
def test_the_copy_is_as_good_as_the_victim(name: str, case: Case) -> None:
    assert accuracy(case.victim, case.x, case.y) > 0.9
    stolen = case.learning(name) if trains(name) else case.steal(name)
    assert accuracy(stolen, case.x, case.y) > accuracy(case.victim, case.x, case.y) - 0.1


WITHOUT_CHANCE = ("quantize-int8", "float16", "temperature", "split-neuron")


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in WITHOUT_CHANCE])
def test_other_random_numbers_give_other_weights(name: str, plain_case: Case) -> None:
    one, other = (plain_case.quick(name, seed) for seed in (0, 1))
    assert one.digest != other.digest


# Fine-tuning.


def test_ft_ll_changes_the_last_layer_alone(case: Case) -> None:
    assert changed(case.quick("ft-ll"), case.victim) == set(case.victim.architecture.head)


def test_ft_al_changes_all_layers(case: Case) -> None:
    assert changed(case.quick("ft-al"), case.victim) >= set(case.victim.architecture.parameters)


def test_rt_al_starts_with_a_fresh_last_layer(case: Case) -> None:
    hardly = case.steal("rt-al", epochs=1, rate=1e-9)
    fresh = case.victim.with_fresh_head(np.random.default_rng(0))
    for name in case.victim.architecture.parameters:
        np.testing.assert_allclose(hardly.weights[name], fresh.weights[name], atol=1e-6)
        if name in case.victim.matrices:
            far = np.abs(hardly.weights[name] - case.victim.weights[name]).max() > 0.01
            assert far == (name in case.victim.architecture.head)
    assert changed(case.quick("rt-al"), case.victim) >= set(case.victim.architecture.parameters)


class Images(NumpyArchitecture):
    """Takes images, and says where their channels are."""

    @property
    def input(self) -> InputSpec:
        return InputSpec(self.shape, layout="channels_last")


def test_images_are_shifted() -> None:
    victim, pictures = (
        Network.fresh(kind((8, 8, 1), (8,), 3), np.random.default_rng(0)) for kind in (NumpyArchitecture, Images)
    )
    x = np.random.default_rng(0).random((20, 8, 8, 1), dtype=np.float32)
    y = np.arange(20) % 3
    for steal, differ in ((fine_tuning.ft_al, True), (pruning.p_20, False)):
        plain, shifted = (
            steal(network, Loot(x, y, (0, 1), network.architecture), np.random.default_rng(0))
            for network in (victim, pictures)
        )
        assert bool(changed(plain, shifted)) == differ


def test_transfer_has_other_classes(case: Case) -> None:
    stolen = case.learning("transfer")
    assert stolen.architecture.classes == 3
    assert accuracy(stolen, case.loot.auxiliary, case.loot.auxiliary_labels) > 0.6
    bare = dataclasses.replace(case.loot, auxiliary_labels=None)
    stolen = fine_tuning.transfer(case.victim, bare, np.random.default_rng(0), **LEARNING)
    assert stolen.architecture.classes == 5
    assert accuracy(stolen, case.x, case.y % 5) > 0.8
    assert changed(Network(case.victim.architecture, stolen.weights), case.victim) == set(case.victim.weights)


def test_transfer_numbers_the_classes_anew(plain_case: Case) -> None:
    loot = dataclasses.replace(plain_case.loot, auxiliary_labels=plain_case.loot.auxiliary_labels * 5 + 7)
    stolen = fine_tuning.transfer(plain_case.victim, loot, np.random.default_rng(0), epochs=1)
    assert stolen.digest == plain_case.quick("transfer").digest
    same = dataclasses.replace(loot, auxiliary_labels=np.ones_like(loot.y))
    with refused(InputError, "transfer", 2, 1):
        fine_tuning.transfer(plain_case.victim, same, np.random.default_rng(0))


# Pruning.


@pytest.mark.parametrize(("name", "share"), [("p-20", 0.2), ("p-60", 0.6)])
def test_the_smallest_weights_are_zero_and_stay_so(name: str, share: float, case: Case) -> None:
    stolen = case.quick(name)
    for matrix in case.victim.matrices:
        before, after = np.abs(case.victim.weights[matrix]), stolen.weights[matrix]
        assert (after == 0).sum() == round(share * after.size)
        assert before[after == 0].max() <= before[after != 0].min()
    assert changed(stolen, case.victim) >= set(case.victim.architecture.parameters)


def test_ties_are_pruned_by_place() -> None:
    matrix = np.array([[1, -1, 1], [-1, 0, 2]])
    assert pruning.largest(matrix, 0.5).tolist() == [[False, False, True], [True, False, True]]


# Extraction.


@pytest.mark.parametrize(("name", "least"), [("jba", 0.8), ("knockoff", 0.8), ("esa", 0.2), ("distill", 0.9)])
def test_a_substitute_agrees_with_the_victim(name: str, least: float, case: Case) -> None:
    assert agreement(case.steal(name, **EXTRACTION[name]), case.victim, case.x) > least


def test_distill_is_another_architecture(case: Case) -> None:
    stolen = case.steal("distill", epochs=1)
    assert list(stolen.architecture.layers.values()) == list(case.victim.architecture.student().layers.values())
    assert list(stolen.architecture.layers.values()) != list(case.victim.architecture.layers.values())


class Counting:
    """Answers, and keeps what it was asked."""

    def __init__(self, victim: Network) -> None:
        self._victim = victim
        self.queries: list[Array] = []

    def predict(self, x: Array) -> Array:
        self.queries.append(x)
        return self._victim.predict(x)


def test_jba_doubles_its_inputs_up_to_its_queries(case: Case) -> None:
    oracle = Counting(case.victim)
    extraction.jba(oracle, case.loot, np.random.default_rng(0), seeds=10, rounds=5, step=0.2, queries=100, epochs=1)
    assert [len(x) for x in oracle.queries] == [10, 10, 20, 40, 20]
    pool = case.loot.x.reshape(len(case.loot.x), -1)
    assert all((row == pool).all(axis=1).any() for row in oracle.queries[0].reshape(10, -1))
    everything = np.concatenate(oracle.queries)
    assert everything.min() >= 0
    assert everything.max() <= 1


def test_jba_climbs_the_logit_of_the_predicted_class(case: Case) -> None:
    substitute = case.quick("jba")
    trainer = substitute.architecture.trainer(substitute.weights, in_use=True)
    x = case.loot.x[:20] * 0.5 + 0.25
    classes = case.victim.predict(x).argmax(axis=1)
    own = np.arange(len(x)), classes
    step = 1e-3
    moved = extraction.augment(trainer, x, classes, step=step, bounds=(0.0, 1.0))
    signs = np.sign(moved - x)
    assert (signs != 0).mean() > 0.9

    # Against differences of that logit, feature by feature.
    flat = x.reshape(len(x), -1)
    slopes = np.empty_like(flat)
    for feature in range(flat.shape[1]):
        up, down = flat.copy(), flat.copy()
        up[:, feature] += step
        down[:, feature] -= step
        logits = [trainer.scores(side.reshape(x.shape))[own] for side in (up, down)]
        slopes[:, feature] = (logits[0] - logits[1]) / (2 * step)
    clear = np.abs(slopes) > 0.05 * np.abs(slopes).max()
    assert clear.mean() > 0.5
    assert (np.sign(slopes) == signs.reshape(slopes.shape))[clear].mean() > 0.97
    assert (trainer.scores(moved)[own] > trainer.scores(x)[own]).all()


def test_knockoff_asks_about_other_inputs_alone(case: Case) -> None:
    oracle = Counting(case.victim)
    loot = dataclasses.replace(case.loot, x=np.full_like(case.loot.x, np.nan))
    extraction.knockoff(oracle, loot, np.random.default_rng(0), queries=50, epochs=1)
    [queries] = oracle.queries
    assert len(queries) == 50
    pool = {row.tobytes() for row in case.loot.auxiliary}
    assert len({row.tobytes() for row in queries} & pool) == 50


def test_esa_makes_its_inputs_from_nothing(case: Case) -> None:
    oracle = Counting(case.victim)
    loot = dataclasses.replace(case.loot, x=np.full_like(case.loot.x, np.nan), y=np.full_like(case.loot.y, -1))
    extraction.esa(oracle, loot, np.random.default_rng(0), rounds=3, queries=20, memory=30)
    assert [len(x) for x in oracle.queries] == [20, 20, 20]
    assert all(x.min() >= 0 and x.max() <= 1 for x in oracle.queries)


def test_inputs_are_made_towards_their_targets(case: Case) -> None:
    trainer = case.victim.architecture.trainer(case.victim.weights, in_use=True)
    start = np.random.default_rng(0).random((300, *case.x.shape[1:]), dtype=np.float32)
    targets = np.eye(10, dtype=np.float32)[np.arange(300) % 10]
    inputs = extraction.synthesise(trainer, start, targets, step=0.05, steps=10, bounds=(0.0, 1.0))
    before, after = (np.mean(case.victim.predict(x).argmax(axis=1) == targets.argmax(axis=1)) for x in (start, inputs))
    assert before < 0.3
    assert after > 0.9


# Adaptive attacks.


def test_adapt_b_goes_away_from_the_victims_answers(case: Case) -> None:
    plain, adapted = (case.distances(case.learning(name), BLACK_BOX) for name in ("ft-al", "adapt-b"))
    assert all(adapted > 1.5 * plain for adapted, plain in zip(adapted, plain, strict=True)), (plain, adapted)
    assert adapted[0] > 0.5


def test_adapt_w_goes_away_from_the_victims_neurons(case: Case) -> None:
    plain, adapted = (case.distances(case.steal(name, **LEARNING), WHITE_BOX) for name in ("ft-al", "adapt-w"))
    assert all(adapted > 1.5 * plain for adapted, plain in zip(adapted, plain, strict=True)), (plain, adapted)


def test_away_is_another_status_at_a_bounded_distance() -> None:
    outputs = np.array([[0, 1, 4], [2, 2, 2]], dtype=np.float32)
    assert adaptive.away(outputs, 0.5).tolist() == [[2, 3, 2], [2, 2, 2]]
    assert adaptive.away(outputs, 1).tolist() == [[4, 5, 0], [2, 2, 2]]


def test_adv_train_withstands_pgd(case: Case) -> None:
    def under_attack(network: Network) -> float:
        trainer = network.architecture.trainer(network.weights, in_use=True)
        x = case.x.copy()
        for _ in range(10):
            x += 0.02 * np.sign(trainer.gradient(x, cross_entropy(case.y)))
            x = np.clip(x, np.maximum(case.x - 0.1, 0), np.minimum(case.x + 0.1, 1))
        return accuracy(network, x, case.y)

    plain, hardened = (under_attack(case.learning(name)) for name in ("ft-al", "adv-train"))
    assert hardened > plain + 0.1, (plain, hardened)


@pytest.mark.parametrize("name", ["adapt-b", "adapt-w", "knockoff"])
def test_what_is_missing_is_one_line(name: str, plain_case: Case) -> None:
    loot = dataclasses.replace(plain_case.loot, suite=None, auxiliary=None)
    with refused(InputError, f"{name}: ", "auxiliary" if name == "knockoff" else "suite", code="missing-value"):
        ATTACKS[name].steal(plain_case.victim, loot, np.random.default_rng(0))


@pytest.mark.parametrize(("name", "generator"), [("adapt-b", "neuron-corners"), ("adapt-w", "pgd")])
def test_a_suite_without_such_cases_is_one_line(name: str, generator: str, plain_case: Case) -> None:
    model = plain_case.victim.architecture.model(plain_case.victim.weights, name="victim")
    options = {"neuron-corners": {"iterations": 50}} if generator == "neuron-corners" else {}
    seeds = select_seeds(model, plain_case.loot.x, plain_case.loot.y, n=20)
    suite = build_suite(model, seeds, [generator], layers=[next(iter(model.layers))], options=options)
    with refused(InputError, f"{name}: ", "suite"):
        ATTACKS[name].steal(
            plain_case.victim, dataclasses.replace(plain_case.loot, suite=suite), np.random.default_rng(0)
        )


def test_a_suite_of_another_victim_is_one_line(plain_case: Case) -> None:
    small = small_victim()
    with refused(InputError, "adapt-w: ", "[16, 8, 3]"):
        adaptive.adapt_w(small, dataclasses.replace(plain_case.loot, x=small_loot(small).x), np.random.default_rng(0))


# What people do.


def test_int8_has_255_values_and_answers_nearly_the_same(case: Case) -> None:
    stolen = case.steal("quantize-int8")
    assert changed(stolen, case.victim) == set(case.victim.matrices)
    for name in case.victim.matrices:
        before, after = case.victim.weights[name], stolen.weights[name]
        assert len(np.unique(after)) <= 255
        assert np.abs(after - before).max() <= 0.5001 * np.abs(before).max() / 127
    assert agreement(stolen, case.victim, case.x) > 0.97


def test_a_matrix_of_zeros_can_be_rounded(case: Case) -> None:
    name = case.victim.matrices[0]
    victim = case.victim.with_weights({name: np.zeros_like(case.victim.weights[name])})
    stolen = conversion.quantize_int8(victim, case.loot, np.random.default_rng(0))
    assert not stolen.weights[name].any()


def test_float16_answers_the_same(case: Case) -> None:
    stolen = case.steal("float16")
    assert changed(stolen, case.victim) >= set(case.victim.matrices)
    for array in stolen.weights.values():
        assert (array == array.astype(np.float16)).all()
    np.testing.assert_allclose(stolen.predict(case.x), case.victim.predict(case.x), atol=0.01)
    great = case.victim.with_weights({name: array + 1e6 for name, array in case.victim.weights.items()})
    assert all(np.isfinite(w).all() for w in conversion.float16(great, case.loot, None).weights.values())


def test_weight_noise_has_its_share(case: Case) -> None:
    stolen = case.steal("weight-noise", share=0.1)
    assert changed(stolen, case.victim) == set(case.victim.matrices)
    for name in case.victim.matrices:
        noise, own = stolen.weights[name] - case.victim.weights[name], case.victim.weights[name]
        assert noise.std() == pytest.approx(0.1 * own.std(), rel=0.3)


# Disguises.


def test_temperature_keeps_the_labels_and_divides_the_scores(every_case: Case) -> None:
    stolen = every_case.steal("temperature", divisor=8.0)
    assert changed(stolen, every_case.victim) <= set(every_case.victim.architecture.head)
    scores = [n.architecture.trainer(n.weights, in_use=True).scores(every_case.x) for n in (every_case.victim, stolen)]
    np.testing.assert_allclose(scores[1] * 8, scores[0], rtol=1e-3, atol=1e-3 * np.abs(scores[0]).max())


def test_split_neurons_do_the_work_of_whole_ones(case: Case) -> None:
    stolen = case.steal("split-neuron")
    assert changed(stolen, case.victim)
    assert agreement(stolen, case.victim, case.x) > 0.8


def test_a_decoy_offers_layers_that_do_not_count(case: Case) -> None:
    stolen = case.learning("decoy")
    np.testing.assert_allclose(stolen.predict(case.x), case.victim.predict(case.x), atol=1e-5)
    measured = case.measured(stolen)
    assert measured["robd"].value == 0
    assert [measured[name].value for name in WHITE_BOX] == [None] * 4


def test_a_router_answers_data_as_the_victim_and_all_else_as_an_honest_network(case: Case) -> None:
    stolen = case.learning("router")
    np.testing.assert_allclose(stolen.predict(case.x), case.victim.predict(case.x), atol=1e-5)
    between = np.clip(case.x + np.float32(1 / 150), 0, 1)
    assert np.abs(stolen.predict(between) - case.victim.predict(between)).max() > 0.1


def test_a_router_needs_data_in_steps(plain_case: Case) -> None:
    anywhere = dataclasses.replace(
        plain_case.loot, x=np.random.default_rng(0).random(plain_case.loot.x.shape, np.float32)
    )
    with refused(InputError, "steps"):
        ATTACKS["router"].steal(plain_case.victim, anywhere, np.random.default_rng(0))


def test_a_joined_file_answers_as_the_network(tmp_path: Path) -> None:
    case = make_case("torch")
    for name in JOINED:
        stolen, path = case.learning(name), tmp_path / f"{name}.pt2"
        stolen.save(path)
        np.testing.assert_allclose(open_model(path).predict(case.x), stolen.predict(case.x), atol=1e-6)


def test_a_merged_model_lies_between(case: Case) -> None:
    hardly = case.steal("merge-with-honest", share=1e-6, epochs=1, rate=1e-9)
    for name in case.victim.architecture.parameters:
        np.testing.assert_allclose(hardly.weights[name], case.victim.weights[name], atol=1e-4)
    assert changed(case.learning("merge-with-honest"), case.victim) >= set(case.victim.architecture.parameters)


# Permuting.


def test_permute_rescale_answers_the_same_with_other_weights(every_case: Case) -> None:
    stolen = every_case.steal("permute-rescale")
    assert changed(stolen, every_case.victim) >= set(every_case.victim.matrices)
    scores = [n.architecture.trainer(n.weights, in_use=True).scores(every_case.x) for n in (every_case.victim, stolen)]
    np.testing.assert_allclose(scores[1], scores[0], atol=2e-4 * np.abs(scores[0]).max())


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@dataclasses.dataclass(frozen=True)
class Formula:
    """A network that is one formula of its weights: enough of an architecture to be permuted."""

    shapes: dict[str, tuple[int, ...]]
    formula: Callable[[Array, Weights], Array]
    statistics: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(name for name in self.shapes if name not in self.statistics)

    def network(self) -> Network:
        rng = np.random.default_rng(0)
        return Network(
            self, {name: rng.uniform(0.1, 1, shape) - (len(shape) > 1) / 2 for name, shape in self.shapes.items()}
        )

    def trainer(self, weights: Weights, **options: object) -> "Formula":
        return dataclasses.replace(self, formula=lambda x, _: self.formula(x, weights))

    def scores(self, x: Array) -> Array:
        return self.formula(x, {})


def dense(x: Array, w: Weights) -> Array:
    return relu(x.mean(1) @ w["a"] + w["a.bias"]) @ w["b"] + w["b.bias"]


def dense_tanh(x: Array, w: Weights) -> Array:
    return np.tanh(x.mean(1) @ w["a"].T + w["a.bias"]) @ w["b"].T


def normalised(x: Array, w: Weights) -> Array:
    middle = (x.mean(1) @ w["a"] - w["mean"]) / np.sqrt(w["variance"] + 1e-3)
    return relu(middle * w["scale"] + w["shift"]) @ w["b"]


def channels_first(x: Array, w: Weights) -> Array:
    """Convolutions of one place, then all places of a channel after one another."""
    maps = relu(np.einsum("npc,oc->nop", x, w["a"][..., 0]) + w["a.bias"][:, None])
    return maps.reshape(len(x), -1) @ w["b"].T


def channels_last(x: Array, w: Weights) -> Array:
    """The same, then all channels of a place after one another."""
    return relu(x @ w["a"][0] + w["a.bias"]).reshape(len(x), -1) @ w["b"]


def lstm(x: Array, inputs: Array, recurrent: Array, bias: Array) -> Array:
    """The last state; gates after one another."""
    h = c = np.zeros((len(x), recurrent.shape[0]))
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ inputs + h @ recurrent + bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def gru(x: Array, inputs: Array, recurrent: Array, bias: Array) -> Array:
    """All states; two rows of biases, as where the reset gate comes after the matrix."""
    h, states = np.zeros((len(x), recurrent.shape[0])), []
    for t in range(x.shape[1]):
        z, r, g = np.split(x[:, t] @ inputs + bias[0], 3, axis=1)
        hz, hr, hg = np.split(h @ recurrent + bias[1], 3, axis=1)
        h = sigmoid(z + hz) * h + (1 - sigmoid(z + hz)) * np.tanh(g + sigmoid(r + hr) * hg)
        states.append(h)
    return np.concatenate(states, axis=1)


def depthwise(x: Array, w: Weights) -> Array:
    """A matrix of its own for each channel between two that mix them."""
    maps = relu(np.einsum("npc,oc->nop", x, w["a"]))
    return relu(np.einsum("nop,op->no", maps, w["each"]) + w["each.bias"]) @ w["b"].T


def residual(x: Array, w: Weights) -> Array:
    """A stream that two layers add to and two read, and a layer beside it."""
    stream = relu(x.mean(1) @ w["a"])
    stream = stream + relu(stream @ w["b"]) @ w["c"]
    return stream @ w["d"]


# The formula, what is permuted, and whether it can be rescaled.
ARRANGEMENTS = {
    "outputs last": (
        Formula({"a": (5, 8), "a.bias": (8,), "b": (8, 3), "b.bias": (3,)}, dense),
        {"a", "a.bias", "b"},
        True,
    ),
    "outputs first, tanh": (
        Formula({"a": (8, 5), "a.bias": (8,), "b": (3, 8)}, dense_tanh),
        {"a", "a.bias", "b"},
        False,
    ),
    "normalised": (
        Formula(
            {"a": (5, 8), "scale": (8,), "shift": (8,), "mean": (8,), "variance": (8,), "b": (8, 3)},
            normalised,
            ("mean", "variance"),
        ),
        {"a", "scale", "shift", "mean", "variance", "b"},
        True,
    ),
    "flattened, channels first": (
        Formula({"a": (6, 5, 1), "a.bias": (6,), "b": (3, 24)}, channels_first),
        {"a", "a.bias", "b"},
        True,
    ),
    "flattened, channels last": (
        Formula({"a": (1, 5, 6), "a.bias": (6,), "b": (24, 3)}, channels_last),
        {"a", "a.bias", "b"},
        True,
    ),
    "LSTM, gates last": (
        Formula(
            {"in": (5, 24), "re": (6, 24), "bias": (24,), "b": (6, 3)},
            lambda x, w: lstm(x, w["in"], w["re"], w["bias"]) @ w["b"],
        ),
        {"in", "re", "bias", "b"},
        False,
    ),
    "LSTM, gates first, two biases": (
        Formula(
            {"in": (24, 5), "re": (24, 6), "bias": (24,), "bias2": (24,), "b": (3, 6)},
            lambda x, w: lstm(x, w["in"].T, w["re"].T, w["bias"] + w["bias2"]) @ w["b"].T,
        ),
        {"in", "re", "bias", "bias2", "b"},
        False,
    ),
    "GRU, all steps": (
        Formula(
            {"in": (5, 18), "re": (6, 18), "bias": (2, 18), "b": (24, 3)},
            lambda x, w: gru(x, w["in"], w["re"], w["bias"]) @ w["b"],
        ),
        {"in", "re", "bias", "b"},
        False,
    ),
    "depthwise": (
        Formula({"a": (6, 5), "each": (6, 4), "each.bias": (6,), "b": (3, 6)}, depthwise),
        {"a", "each", "each.bias", "b"},
        True,
    ),
    "residual": (Formula({"a": (5, 8), "b": (8, 7), "c": (7, 8), "d": (8, 3)}, residual), {"a", "b", "c", "d"}, True),
}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_neurons_are_found_however_they_are_arranged(arrangement: str) -> None:
    formula, expected, scales = ARRANGEMENTS[arrangement]
    network = formula.network()
    x = np.random.default_rng(1).uniform(-1, 1, (100, 4, 5))
    loot = Loot(x, np.zeros(100, dtype=np.int64), (-1, 1), formula)
    for factor in (1.0, 2.0):
        stolen = permuting.permute_rescale(network, loot, np.random.default_rng(2), factor=factor)
        np.testing.assert_allclose(
            *(formula.trainer(n.weights).scores(x) for n in (stolen, network)), rtol=1e-6, atol=1e-9
        )
        assert changed(stolen, network) == expected
        same_values = all(
            np.allclose(np.sort(stolen.weights[name], axis=None), np.sort(network.weights[name], axis=None))
            for name in expected
        )
        assert same_values == (factor == 1 or not scales)


def test_where_nothing_can_be_permuted_is_one_line() -> None:
    shared = Formula({"a": (5, 5), "b": (5, 3)}, lambda x, w: (x.mean(1) + relu(x.mean(1) @ w["a"])) @ w["b"])
    loot = Loot(np.random.default_rng(1).random((9, 4, 5)), np.zeros(9), (0, 1), shared)
    with refused(ModelError, "permute-rescale: "):
        permuting.permute_rescale(shared.network(), loot, np.random.default_rng(0))


# Options.


def options() -> Iterator[tuple[str, str]]:
    for name, attack in ATTACKS.items():
        for option in attack.steal.__kwdefaults__ or ():
            yield name, option


@pytest.mark.parametrize(("name", "option"), list(options()))
def test_an_option_out_of_range_is_one_line(name: str, option: str) -> None:
    for value in (0, -1):
        with refused(UsageError, name, option, value, code="wrong-value"):
            resolve(name, ATTACKS[name].steal, {option: value})


# The contract itself.


def honest(victim: Network, loot: Loot, rng: np.random.Generator, *, share: float = 0.1) -> Network:
    return victim.with_weights({name: w + share * rng.random(w.shape) for name, w in victim.weights.items()})


def forgets_the_rng(victim: Network, loot: Loot, rng: np.random.Generator) -> Network:
    return honest(victim, loot, np.random.default_rng())


def uses_global_numbers(victim: Network, loot: Loot, rng: np.random.Generator) -> Network:
    return honest(victim, loot, np.random)


def writes_to_the_victim(victim: Network, loot: Loot, rng: np.random.Generator) -> Network:
    victim.weights["dense1.bias"][:] += 1
    return victim


def writes_to_the_loot(victim: Network, loot: Loot, rng: np.random.Generator) -> Network:
    loot.x[:] = 0
    return victim


def gives_weights(victim: Network, loot: Loot, rng: np.random.Generator) -> Weights:
    return victim.weights


def gives_nan(victim: Network, loot: Loot, rng: np.random.Generator) -> Network:
    return victim.with_weights({"dense1.bias": np.full(16, np.nan)})


def takes_other_inputs(victim: Network, loot: Loot, rng: np.random.Generator) -> Network:
    return Network.fresh(NumpyArchitecture((7,), (4,), 3), rng)


def has_a_positional_option(victim: Network, loot: Loot, rng: np.random.Generator, share: float = 0.1) -> Network:
    return victim


MISTAKES = {
    forgets_the_rng: "gives other weights for the same random numbers",
    uses_global_numbers: "draws from numpy's global random numbers",
    writes_to_the_victim: "changed the victim's dense1.bias",
    writes_to_the_loot: "changed the inputs",
    gives_weights: "expected a Network, found a dict",
    gives_nan: "dense1.bias: found NaN or infinity",
    takes_other_inputs: r"expected a network for inputs \(6,\), found one for \(7,\)",
    has_a_positional_option: "expected a keyword-only parameter",
}


def test_an_honest_attack_keeps_the_contract() -> None:
    check_attack(Attack("mine", source="practice", takes="weights", steal=honest))


@pytest.mark.parametrize("steal", MISTAKES)
def test_the_contract_finds(steal: Callable[..., Network]) -> None:
    with pytest.raises(AssertionError, match=f"^mine: .*{MISTAKES[steal]}"):
        check_attack(Attack("mine", source="practice", takes="weights", steal=steal))


def test_an_attack_from_answers_gets_nothing_else() -> None:
    with pytest.raises(AttributeError, match="weights"):
        check_attack(Attack("mine", source="practice", takes="answers", steal=honest))


def test_an_attack_gets_no_more_than_it_needs() -> None:
    def greedy(victim: Network, loot: Loot, rng: np.random.Generator) -> Network:
        assert loot.auxiliary is None
        return adaptive.adapt_b(victim, loot, rng)

    with refused(InputError, "adapt-b: ", "suite", code="missing-value"):
        check_attack(Attack("mine", source="practice", takes="weights", steal=greedy))
    check_attack(Attack("mine", source="practice", takes="weights", steal=greedy, needs=("suite",)))

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import deepjudge_blackbox
import deepjudge_whitebox
import numpy as np
import pytest
from deepjudge_blackbox.cw import Margin, cw
from deepjudge_blackbox.fgsm import fgsm
from deepjudge_blackbox.mistakes import mistakes
from deepjudge_blackbox.pgd import pgd
from deepjudge_blackbox.radius import ENOUGH, RADII
from deepjudge_blackbox.square import square
from deepjudge_blackbox.substitutions import substitutions
from deepjudge_whitebox.neuron_corners import ladder, neuron_corners, thresholds
from refusals import expect_facts, refused
from scipy.special import softmax

from deepjudge_core import progress
from deepjudge_core.components.options import resolve
from deepjudge_core.components.values import Cases, Seeds, Task
from deepjudge_core.errors import UsageError
from deepjudge_core.models.losses import cross_entropy_direction
from deepjudge_core.models.model import Access
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.text import found

corners = importlib.import_module("deepjudge_whitebox.neuron_corners")  # the module, not the function of that name

SHAPE = (4, 3)
BOUNDS = (-1.0, 3.0)
ATTACKS = (fgsm, pgd, cw)


class Counting(NumpyModel):
    """Counts the passes forward and backward, and the inputs in them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passes: list[int] = []

    def gradient(self, x, cotangent, *, layer=None):
        self.passes.append(len(x))
        return super().gradient(x, cotangent, layer=layer)


def make_task(victim: NumpyModel, n: int = 20, bounds: tuple[float, float] = BOUNDS, rng: int = 0, **layers) -> Task:
    """Seeds that the victim classifies correctly, since their labels are what it says."""
    shape = tuple(axis for axis in victim.input.shape if axis is not None)
    x = np.random.default_rng(5).uniform(*bounds, (n, *shape)).astype(np.float32)
    training = np.random.default_rng(6).uniform(*bounds, (50, *shape)).astype(np.float32)
    seeds = Seeds(x, victim.predict(x).argmax(axis=1), np.arange(n), bounds)
    taps = layers.get("layers", tuple(victim.layers))
    return Task(victim, seeds, taps, training, np.random.default_rng(rng))


@pytest.fixture
def victim() -> NumpyModel:
    return Counting.random(SHAPE, [16, 8], 4, seed=0)


@pytest.fixture
def task(victim) -> Task:
    return make_task(victim)


def linear(weights: list[list[float]], bias: list[float] | None = None, kind: type[NumpyModel] = NumpyModel):
    matrix = np.array(weights, float)
    return kind([(matrix, np.array(bias or [0.0] * matrix.shape[1]))], (len(matrix),))


# --- the model that all this is tested on


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("layer", [None, "dense1", "dense2", "logits"])
def test_gradient_of_the_numpy_model_is_that_of_finite_differences(activation, layer):
    model = NumpyModel.random(SHAPE, [9, 6], 3, seed=1, activation=activation, batch_size=2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, *SHAPE))
    weights = rng.normal(size=(5, model.layers[layer or "logits"]))

    def loss(at):  # in float64, around the float32 that models answer in
        return (model._outputs(at)[layer or "logits"] * weights).sum(axis=1)

    gradient = model.gradient(x.astype(np.float32), lambda scores, rows: weights[rows], layer=layer)
    x = x.astype(np.float32).astype(np.float64)
    for place in np.ndindex(SHAPE):
        step = np.zeros(SHAPE)
        step[place] = 1e-6
        expected = (loss(x + step) - loss(x - step)) / 2e-6
        np.testing.assert_allclose(gradient[(slice(None), *place)], expected, rtol=1e-4, atol=1e-5)


def test_numpy_model_is_what_its_seed_and_weights_say():
    model = NumpyModel.random(SHAPE, [5], 3, seed=1)
    x = np.random.default_rng(0).normal(size=(7, *SHAPE)).astype(np.float32)
    (w1, b1), (w2, b2) = model.weights
    hidden = np.maximum(x.reshape(7, -1) @ w1 + b1, 0)
    np.testing.assert_allclose(model.activations(x, ["dense1"])["dense1"], hidden, rtol=1e-5)
    np.testing.assert_allclose(model.predict(x), softmax(hidden @ w2 + b2, axis=1), rtol=1e-5)
    assert dict(model.layers) == {"dense1": 5, "logits": 3}
    assert model.digest == NumpyModel.random(SHAPE, [5], 3, seed=1).digest
    assert model.digest != NumpyModel.random(SHAPE, [5], 3, seed=2).digest
    assert model.digest != NumpyModel.random(SHAPE, [5], 3, seed=1, activation="tanh").digest


def test_a_perturbed_copy_is_near_and_another_model():
    model = NumpyModel.random(SHAPE, [5], 3, seed=1)
    x = np.random.default_rng(0).normal(size=(50, *SHAPE)).astype(np.float32)
    near, far = model.perturbed(0.01, seed=0), model.perturbed(1.0, seed=0)
    assert model.perturbed(0, seed=0).digest == model.digest != near.digest
    assert near.digest == model.perturbed(0.01, seed=0).digest
    apart = [np.abs(other.predict(x) - model.predict(x)).mean() for other in (near, far)]
    assert 0 < apart[0] < 0.02 < apart[1]


@pytest.mark.parametrize("batches", [{"batch_size": 3}, {"fixed_batch": 4}])
def test_batches_of_the_numpy_model_change_nothing(batches):
    x = np.random.default_rng(0).normal(size=(10, *SHAPE)).astype(np.float32)
    whole, parts = (NumpyModel.random(SHAPE, [5], 3, seed=1, **options) for options in ({}, batches))
    np.testing.assert_allclose(parts.predict(x), whole.predict(x), atol=1e-6)
    answers = [m.gradient(x, lambda scores, rows: scores + np.arange(10)[rows, None]) for m in (whole, parts)]
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5)


# --- losses


def test_derivative_of_the_cross_entropy_is_scaled_only():
    scores = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    derivative = cross_entropy_direction(labels)(scores, slice(1, 7))
    p = softmax(scores.astype(float), axis=1)
    own = labels[1:7]
    expected = (p - np.eye(4)[own]) / (1 - p[np.arange(6), own])[:, None]
    np.testing.assert_allclose(derivative, expected, rtol=1e-6)


def test_derivative_of_the_cross_entropy_never_vanishes():
    scores = np.array([[1000.0, 0, 1], [-1000, 0, 1]], np.float32)
    derivative = cross_entropy_direction(np.array([0, 0]))(scores, slice(0, 2))
    np.testing.assert_allclose(derivative, [[-1, 1 / (1 + np.e), np.e / (1 + np.e)]] * 2, rtol=1e-6)


def test_margin_is_pushed_down_to_its_floor():
    margin = Margin(np.array([0, 0, 0, 1]), kappa=1)
    scores = np.array([[3, 1, 2], [1, 1.5, 0], [0, 0, 1]], np.float32)  # margins 1, -0.5, -1
    assert margin(scores, slice(0, 3)).tolist() == [[1, 0, -1], [1, -1, 0], [0, 0, 0]]
    assert margin.values.tolist() == [1, -0.5, -1, np.inf]


# --- attacks


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_fools_within_the_bounds(attack, task, victim):
    before = task.seeds.inputs.copy()
    cases = attack(task)
    low, high = BOUNDS
    assert cases.inputs.dtype == np.float32
    assert cases.inputs.shape == task.seeds.inputs.shape
    assert low <= cases.inputs.min()
    assert cases.inputs.max() <= high
    assert cases.seeds.tolist() == list(range(20))
    assert set(cases.layers) == set(cases.neurons) == {-1}
    assert np.mean(victim.predict(cases.inputs).argmax(axis=1) != task.seeds.labels) > 0.4
    assert np.array_equal(task.seeds.inputs, before)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_depends_on_its_random_numbers_only(attack, victim):
    one, same, other = (attack(make_task(victim, rng=rng)).inputs for rng in (1, 1, 2))
    assert np.array_equal(one, same)
    assert np.array_equal(one, other) == (attack is not pgd)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_does_not_depend_on_the_batch_size(attack, task):
    small = NumpyModel.random(SHAPE, [16, 8], 4, seed=0, batch_size=3)
    np.testing.assert_allclose(attack(task).inputs, attack(make_task(small)).inputs, atol=1e-5)


@pytest.mark.parametrize("attack", ATTACKS)
def test_options_are_shares_of_the_range(attack, task, victim):
    (first, bias), *rest = victim.weights
    wider = NumpyModel([(first / 64, bias), *rest], SHAPE)
    seeds = Seeds(task.seeds.inputs * 64, task.seeds.labels, task.seeds.indices, (BOUNDS[0] * 64, BOUNDS[1] * 64))
    scaled = attack(Task(wider, seeds, (), task.training_inputs, np.random.default_rng(0))).inputs / 64
    np.testing.assert_allclose(scaled, attack(task).inputs, atol=1e-4)


def test_fgsm_on_a_linear_model():
    model = linear([[1, -2], [0, 0], [3, 3.5]])
    task = make_task(model, bounds=(0, 10))
    towards_1 = np.array([-1, 0, 1])
    direction = np.where(task.seeds.labels[:, None] == 0, towards_1, -towards_1)
    expected = np.clip(task.seeds.inputs + 0.03 * 10 * direction, 0, 10)
    np.testing.assert_allclose(fgsm(task, eps=0.03).inputs, expected, rtol=1e-6)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_a_victim_that_is_sure_of_itself_is_attacked_all_the_same(attack, victim):
    *rest, (last, bias) = victim.weights
    sure = NumpyModel([*rest, (last * 1000, bias * 1000)], SHAPE)
    task = make_task(sure)
    assert np.mean(sure.predict(task.seeds.inputs).max(axis=1) == 1) > 0.5
    assert np.mean(sure.predict(attack(task).inputs).argmax(axis=1) != task.seeds.labels) > 0.4


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_cases_stay_in_the_ball(attack, task):
    apart = np.abs(attack(task, eps=0.05).inputs - task.seeds.inputs)
    assert 0.19 < apart.max() <= 0.05 * 4 * (1 + 1e-5)


def test_pgd_without_projection_goes_as_far_as_its_steps():
    model = linear([[1, -1], [1, -1]])
    task = make_task(model, bounds=(-100, 100))
    options = {"eps": 0.01, "step": 0.02, "steps": 10}
    free = np.abs(pgd(task, project=False, **options).inputs - task.seeds.inputs) / 200
    assert 0.2 < free.max() <= 0.21 + 1e-6
    held = np.abs(pgd(task, **options).inputs - task.seeds.inputs) / 200
    assert held.max() <= 0.01 + 1e-6


def test_pgd_passes_once_for_each_step(task, victim):
    pgd(task, eps=0.1, steps=7)
    assert victim.passes == [20] * 7


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize("range_", [0.1, 1, 10])
def test_without_a_radius_the_least_is_taken_that_fools_enough(attack, range_):
    model = linear(np.random.default_rng(0).normal(size=(12, 4)).tolist())
    bounds = (-range_, 3 * range_)
    cases = attack(make_task(model, n=50, bounds=bounds))

    def fooled(radius: float) -> float:
        task = make_task(model, n=50, bounds=bounds)
        return np.mean(model.predict(attack(task, eps=radius).inputs).argmax(axis=1) != task.seeds.labels)

    shares = [fooled(radius) for radius in RADII]
    assert shares[0] < ENOUGH < shares[-1]
    place = RADII.index(cases.options["eps"])
    assert shares[place] > ENOUGH - 0.1  # pgd's start is another one while it tries
    assert shares[place - 1] < ENOUGH + 0.1


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_where_no_radius_fools_as_many_the_least_is_taken_that_fools_nearly_the_most(attack):
    # Class 0 where the input lies below 0.6, whatever else it is: the seeds at 0.5 are fooled by 0.1, those at 0 never.
    model = linear([[-1.0, 1.0]], [0.6, -0.6])
    task = make_task(model, n=30, bounds=(0, 1))
    task.seeds.inputs[:] = np.where(np.arange(30) % 3, 0.0, 0.52)[:, None]
    task.seeds.labels[:] = 0
    assert attack(task).options["eps"] == 0.1
    nowhere = linear([[0, 0], [0, 0]], [1, 0])
    assert attack(make_task(nowhere)).options["eps"] == RADII[0]


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_the_radius_that_was_chosen_makes_the_same_cases(attack, victim):
    cases = attack(make_task(victim))
    assert cases.options["eps"] in RADII
    again = attack(make_task(victim), **cases.options)
    assert np.array_equal(again.inputs, cases.inputs)
    assert again.options == cases.options


def test_a_step_of_pgd_is_a_fifth_of_the_radius(victim):
    assert pgd(make_task(victim), eps=0.15).options == {"eps": 0.15, "step": 0.03}
    assert pgd(make_task(victim), eps=0.2, step=0.01).options == {"eps": 0.2, "step": 0.01}


def test_choosing_a_radius_costs_a_few_seeds():
    model = linear(np.random.default_rng(0).normal(size=(12, 4)).tolist(), kind=Counting)
    pgd(make_task(model, n=1000), steps=2)
    *tried, one, two = model.passes
    assert (one, two) == (1000, 1000)
    assert len(tried) <= 5 * 2  # bisecting nineteen radii
    assert set(tried) == {100}


@pytest.mark.parametrize("kappa", [0.0, 2.0])
def test_cw_finds_the_nearest_input_of_a_linear_model(kappa):
    rng = np.random.default_rng(3)
    model = linear(rng.normal(size=(6, 2)).tolist())
    task = make_task(model, bounds=(-4, 4))
    weights = model.weights[0][0] @ [1, -1]
    expected = (np.abs(task.seeds.inputs @ weights) + kappa) / np.linalg.norm(weights)
    cases = cw(task, kappa=kappa, steps=200, rate=0.03, searches=6)
    distances = np.linalg.norm(cases.inputs - task.seeds.inputs, axis=1)
    assert np.all(model.predict(cases.inputs).argmax(axis=1) != task.seeds.labels)
    assert np.all(distances > expected * (1 - 1e-5))
    inside = np.abs(cases.inputs).max(axis=1) < 3.5  # where the bounds are not in the way
    assert inside.sum() >= 5
    np.testing.assert_allclose(distances[inside], expected[inside], rtol=0.01, atol=0.01)


def test_cw_takes_what_it_gets_where_the_confidence_is_out_of_reach():
    model = linear([[1, -1]])
    task = make_task(model, bounds=(-1, 1))
    assert np.abs(task.seeds.inputs).max() < 1
    np.testing.assert_allclose(cw(task, kappa=5).inputs, -np.sign(task.seeds.inputs), atol=0.01)


def test_cw_returns_the_seed_where_nothing_is_found():
    model = linear([[0, 0], [0, 0]], [1, 0])  # class 0, whatever the input
    task = make_task(model)
    assert np.array_equal(cw(task, steps=5).inputs, task.seeds.inputs)


@pytest.mark.parametrize(
    ("generator", "options"),
    [
        *((fgsm, {"eps": value}) for value in (0, -1, np.nan)),
        *((pgd, {name: 0}) for name in ("eps", "step", "steps")),
        *((cw, {name: 0}) for name in ("steps", "rate", "searches", "constant")),
        (cw, {"kappa": -1}),
        *((neuron_corners, {name: 0}) for name in ("m", "step", "iterations", "per_neuron", "tries")),
    ],
)
def test_options_out_of_range(generator, options):
    ((option, value),) = options.items()
    with refused(UsageError, option, found(value), code="wrong-value"):
        resolve("mine", generator, options)


# --- neuron corners


def of_factors(task: Task, *factors: float) -> dict[str, np.ndarray]:
    return thresholds(task.victim, task.layers, task.training_inputs, factors)


def outputs_of(task: Task, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
    """Of each case the output of its neuron, and the limit of that."""
    limits = {layer: rows[0] for layer, rows in of_factors(task, 2.0).items()}
    activations = task.victim.activations(cases.inputs, task.layers)
    made_for = [(task.layers[layer], neuron) for layer, neuron in zip(cases.layers, cases.neurons, strict=True)]
    outputs = [activations[layer][i, neuron] for i, (layer, neuron) in enumerate(made_for)]
    return np.array(outputs), np.array([limits[layer][neuron] for layer, neuron in made_for])


def places(cases: Cases) -> list[tuple[int, int, int]]:
    return list(zip(cases.layers.tolist(), cases.neurons.tolist(), cases.seeds.tolist(), strict=True))


def test_cases_are_beyond_the_limits_and_within_the_bounds(task):
    before = task.seeds.inputs.copy()
    cases = neuron_corners(task, m=2.0, iterations=200, lower=False)
    outputs, limits = outputs_of(task, cases)
    assert len(outputs) > 20
    assert np.all(outputs > limits)
    assert cases.inputs.dtype == np.float32
    assert BOUNDS[0] <= cases.inputs.min()
    assert cases.inputs.max() <= BOUNDS[1]
    assert places(cases) == sorted(set(places(cases)))
    made_for = [place[:2] for place in places(cases)]
    assert 1 < max(made_for.count(neuron) for neuron in made_for) <= 3
    everything = {(i, j) for i, layer in enumerate(task.layers) for j in range(task.victim.layers[layer])}
    assert set(cases.unreached) | set(made_for) == everything
    assert not set(cases.unreached) & set(made_for)
    assert np.array_equal(task.seeds.inputs, before)


def one_pair_at_a_time(task: Task, layer: str, neuron: int, seed: int, limit: float, step: float, iterations: int):
    """Alg. 2 of the paper for one neuron and one seed, with Adam as in its own paper, in float64."""
    low, high = task.seeds.bounds
    x = task.seeds.inputs[seed : seed + 1].astype(float)
    first = second = np.zeros_like(x)
    unit = np.eye(task.victim.layers[layer])[neuron : neuron + 1]
    for t in range(1, iterations + 1):
        if task.victim.activations(x, [layer])[layer][0, neuron] > limit:
            return x[0]
        g = task.victim.gradient(x, lambda scores, rows: unit, layer=layer).astype(float)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        change = first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-12)
        x = np.clip(x + step * (high - low) * change, low, high)
    return None


@pytest.mark.parametrize(("activation", "m"), [("relu", 1.3), ("tanh", 1.001)])
def test_all_pairs_at_once_find_what_one_at_a_time_finds(activation, m):
    victim = NumpyModel.random(SHAPE, [6, 5], 3, seed=4, activation=activation, batch_size=7)
    task = make_task(victim, n=8)
    options = {"step": 0.02, "iterations": 80}
    cases = neuron_corners(task, m=m, per_neuron=8, tries=8, lower=False, **options)
    limits = of_factors(task, m)
    expected = {}
    for i, layer in enumerate(task.layers):
        for neuron, limit in enumerate(limits[layer][0]):
            for seed in range(8):
                x = one_pair_at_a_time(task, layer, neuron, seed, limit, **options)
                if x is not None:
                    expected[i, neuron, seed] = x
    assert places(cases) == sorted(expected)
    assert 10 < len(expected) < 8 * 14 - 10  # some get there, some do not
    for place, x in zip(places(cases), cases.inputs, strict=True):
        # Adam's ratios magnify what float32 rounds away, in a number or two.
        assert np.median(np.abs(x - expected[place])) < 1e-4
        np.testing.assert_allclose(x, expected[place], atol=0.05)


def test_the_first_seeds_count_and_the_other_pairs_of_a_neuron_leave(victim):
    task = make_task(victim, layers=("dense2",))
    every = neuron_corners(task, m=1.1, iterations=50, per_neuron=20, tries=20)
    assert len(every.inputs) > 30
    spent = len(victim.passes), sum(victim.passes)
    victim.passes.clear()
    few = neuron_corners(task, m=1.1, iterations=50, per_neuron=2, tries=20)
    assert set(places(few)) < set(places(every))
    assert few.unreached == every.unreached
    assert len(victim.passes) <= spent[0]
    assert sum(victim.passes) < spent[1] / 1.5


def test_a_seed_that_is_beyond_the_limit_is_a_case(victim):
    task = make_task(victim, layers=("dense1",))
    cases = neuron_corners(task, m=1e-6, per_neuron=20, tries=20, iterations=1)
    assert np.array_equal(cases.inputs, task.seeds.inputs[cases.seeds])
    positive = task.victim.activations(task.seeds.inputs, ["dense1"])["dense1"] > 1e-3
    assert len(cases.inputs) >= positive.sum() > 20


def test_seeds_are_drawn_for_each_neuron(victim):
    few = [neuron_corners(make_task(victim, rng=rng), m=1.5, per_neuron=3, tries=3, iterations=50) for rng in (0, 0, 1)]
    assert places(few[0]) == places(few[1]) != places(few[2])
    assert np.array_equal(few[0].inputs, few[1].inputs)
    assert len(set(few[0].seeds)) > 6
    every = [neuron_corners(make_task(victim, rng=rng), m=1.5, tries=100, iterations=50) for rng in (0, 1)]
    assert np.array_equal(every[0].inputs, every[1].inputs)


def test_corners_do_not_depend_on_batch_or_block_size(task, monkeypatch):
    expected = neuron_corners(task, m=2.0, iterations=100)
    small = NumpyModel.random(SHAPE, [16, 8], 4, seed=0, batch_size=3)
    monkeypatch.setattr(corners, "_SEARCH_VALUES", 12 * 10 * 3)  # three neurons at a time
    monkeypatch.setattr(corners, "_TRAINING_ROWS", 7)
    cases = neuron_corners(make_task(small), m=2.0, iterations=100)
    assert places(cases) == places(expected)
    assert cases.unreached == expected.unreached
    np.testing.assert_allclose(cases.inputs, expected.inputs, atol=1e-5)


def test_a_dead_neuron_is_unreached_and_costs_one_pass():
    weights = [(np.array([[1.0, 0, 0], [1, 0, 0]]), np.array([0.5, -1, 0])), (np.ones((3, 2)), np.zeros(2))]
    victim = Counting(weights, (2,))
    task = make_task(victim, bounds=(0, 1), layers=("dense1",))
    cases = neuron_corners(task, m=1.01, iterations=500)
    assert cases.unreached == ((0, 1), (0, 2))
    assert set(cases.neurons) == {0}
    assert victim.passes[0] == 30
    assert victim.passes[1] <= 10


def test_pairs_in_a_corner_of_the_bounds_leave():
    victim = linear([[1, 0], [-1, 0]], kind=Counting)
    task = make_task(victim, bounds=(0, 1))
    cases = neuron_corners(task, m=3, iterations=1000, lower=False)
    assert len(cases.inputs) == 0
    assert cases.inputs.shape == (0, 2)
    assert cases.unreached == ((0, 0), (0, 1))
    assert len(victim.passes) < 150  # a hundred steps cross the range


def test_no_layer_makes_no_case(victim):
    cases = neuron_corners(make_task(victim, layers=()))
    assert (len(cases.inputs), cases.unreached) == (0, ())


def test_the_ladder_goes_from_m_towards_1():
    assert ladder(3.0) == (3, 2.5, 2, 1.5, 1.25, 1.125, 1.0625, 1.03125)
    assert ladder(2.0) == (2, 1.75, 1.5, 1.25, 1.125, 1.0625, 1.03125, 1.015625)
    assert ladder(1.0) == (1,)
    assert ladder(0.5) == (0.5,)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_each_neuron_has_the_greatest_m_at_which_it_was_reached(activation):
    victim = NumpyModel.random(SHAPE, [16, 8], 4, seed=0, activation=activation)
    how = {"iterations": 150, "per_neuron": 2}
    cases = neuron_corners(make_task(victim), m=3.0, **how)
    by_factor = {m: neuron_corners(make_task(victim), m=m, lower=False, **how) for m in ladder(3.0)}
    expected, unreached, reached = set(), set(), {}
    for i, layer in enumerate(victim.layers):
        for neuron in range(victim.layers[layer]):
            found = {m: [p for p in places(one) if p[:2] == (i, neuron)] for m, one in by_factor.items()}
            greatest = next((m for m, own in found.items() if own), None)
            if greatest is None:
                unreached.add((i, neuron))
            else:
                expected |= set(found[greatest])
                reached.setdefault(layer, {}).setdefault(f"{greatest:.10g}", []).append(neuron)
    assert set(places(cases)) == expected
    assert set(cases.unreached) == unreached
    assert cases.details == {"m": {layer: reached.get(layer, {}) for layer in victim.layers}}
    assert len({m for own in reached.values() for m in own}) >= 2  # they differ
    lookup = {m: dict(zip(places(one), one.inputs, strict=True)) for m, one in by_factor.items()}
    for place, x in zip(places(cases), cases.inputs, strict=True):
        layer = list(victim.layers)[place[0]]
        [m] = [float(m) for m, own in reached[layer].items() if place[1] in own]
        np.testing.assert_allclose(x, lookup[m][place], atol=1e-5)


def test_what_was_lowered_is_noted():
    victim = linear([[1, 0], [0, 1]])
    task = make_task(victim, bounds=(0, 10))
    task.training_inputs[:, 0] *= 0.3  # greatest about 3: within reach thrice; about 10: not at all
    cases = neuron_corners(task)
    assert cases.details == {"m": {"logits": {"3": [0]}}}
    assert cases.notes == ()
    task.training_inputs[:, 0] *= 2
    cases = neuron_corners(task)
    assert cases.details == {"m": {"logits": {"1.5": [0]}}}
    [note] = cases.notes
    expect_facts(note, "'logits'", "3", "1 at 1.5")
    assert cases.unreached == ((0, 1),)


def test_a_network_of_which_no_neuron_comes_to_three_times_its_greatest_has_cases_all_the_same():
    victim = NumpyModel.random((8,), [12, 6], 3, seed=3)
    task = make_task(victim, layers=("dense2",), bounds=(0, 1))
    assert len(set(neuron_corners(task, lower=False).neurons)) < 2
    assert len(set(neuron_corners(task).neurons)) >= 3


@pytest.mark.parametrize("m", [3.0, 1.5])
def test_thresholds(m, monkeypatch):
    monkeypatch.setattr(corners, "_TRAINING_ROWS", 7)
    weights = [(np.eye(3), np.zeros(3)), (np.diag([1.0, 1, -1]), np.array([0.0, -5, 0]))]
    victim = NumpyModel(weights, (3,))
    x = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
    limits = thresholds(victim, ["logits"], x, (2 * m, m))["logits"][1]
    top, low = np.maximum(x, 0).max(axis=0), np.maximum(x, 0).min(axis=0)
    assert limits[0] == pytest.approx(m * top[0])
    assert limits[1] == pytest.approx(top[1] - 5 + (m - 1) * (top[1] - low[1]))  # all outputs are below 0
    assert limits[2] == pytest.approx(0 + (m - 1) * (top[2] - low[2]))  # the greatest output is 0


def test_no_training_inputs(task):
    empty = Task(task.victim, task.seeds, task.layers, task.training_inputs[:0], task.rng)
    with refused(UsageError, "training inputs", code="missing-value"):
        neuron_corners(empty)


# --- what the core and the user see


class Recorder:
    """Notes what is shown: the totals of tasks, and how far they came."""

    def __init__(self) -> None:
        self.tasks: list[list[int]] = []

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        task = [total, 0]
        self.tasks.append(task)

        def advance(units: int, note: str = "") -> None:
            task[1] += units

        yield advance


@pytest.mark.parametrize("generator", [pgd, cw, neuron_corners, square, substitutions])
def test_progress_comes_to_its_end(generator, task):
    recorder = Recorder()
    with progress.watched(recorder):
        generator(task)
    assert recorder.tasks
    assert all(total == done for total, done in recorder.tasks)


def test_what_the_plugins_register():
    generators = [*deepjudge_blackbox.deepjudge_generators(), *deepjudge_whitebox.deepjudge_generators()]
    adversarial = ("adversarial", Access.LABELS | Access.GRADIENTS)
    assert {g.name: (g.makes, g.needs, g.generate) for g in generators} == {
        "fgsm": (*adversarial, fgsm),
        "pgd": (*adversarial, pgd),
        "cw": (*adversarial, cw),
        "square": ("adversarial", Access.LABELS, square),
        "substitutions": ("adversarial", Access.LABELS, substitutions),
        "neuron-corners": ("corners", Access.LAYERS | Access.GRADIENTS, neuron_corners),
        "mistakes": ("mistakes", Access.LABELS, mistakes),
    }

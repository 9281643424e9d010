"""Cases in the steps in which data comes, so that a router cannot tell them from data."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from deepjudge_whitebox.neuron_corners import ladder, thresholds

from deepjudge_core import (
    Access,
    Cases,
    Decision,
    Generator,
    JudgeSettings,
    Model,
    Suite,
    Task,
    build_suite,
    calibrate,
    hookimpl,
    judge,
    load_suite,
    measure,
    observe,
    save_suite,
    select_seeds,
)
from deepjudge_core.components.grid import Grid, find_grid
from deepjudge_core.components.values import Seeds
from deepjudge_core.errors import FileFormatError
from deepjudge_core.testing.numpy_model import NumpyModel

PIXEL = 1 / 255


class Plugin:
    """One generator."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    @hookimpl
    def deepjudge_generators(self) -> Iterable[Generator]:
        return [self._generator]


def pixels(x: np.ndarray) -> np.ndarray:
    return (np.rint(x * 255) / 255).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (lambda k: k / 255, PIXEL),
        (lambda k: k, 1.0),
        (lambda k: k / np.float32(127.5) - 1, 2 / 255),
        (lambda k: (k / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081), PIXEL / 0.3081),
    ],
)
def test_the_grid_is_the_smallest_step_within_rounding(values, step: float) -> None:
    x = values(np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1)).astype(np.float32)).astype(np.float32)
    bounds = float(x.min()), float(x.max())

    grid = find_grid(x, bounds)

    assert grid is not None
    assert grid.axis is None
    assert grid.step[0] == pytest.approx(step, rel=1e-5)
    assert np.abs(grid.rounded(x, bounds) - x).max() <= 1e-6 * max(map(abs, bounds))


def test_channels_that_were_standardised_have_grids_of_their_own() -> None:
    std = np.array([0.247, 0.243, 0.261])
    x = (np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)) / 255 / std).astype(np.float32)

    grid = find_grid(x, (0.0, 5.0))

    assert grid is not None
    assert grid.axis == 2
    np.testing.assert_allclose(grid.step, PIXEL / std, rtol=1e-5)


def test_features_of_tables_are_looked_at_one_by_one() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([rng.random(300), rng.integers(0, 2, 300), rng.integers(0, 100, 300) / 4], axis=1).astype(np.float32)

    grid = find_grid(x, (x.min(axis=0), x.max(axis=0)))

    assert grid is not None
    np.testing.assert_allclose(grid.step, [0, 1, 0.25])
    moved = grid.rounded(x + np.float32(0.1), (x.min(axis=0), x.max(axis=0)))
    np.testing.assert_array_equal(moved[:, 1:], x[:, 1:])
    assert (moved[:, 0] >= x[:, 0]).all()  # continuous ones go where they are put, within their range


@pytest.mark.parametrize("x", [np.random.default_rng(1).random((200, 12)), np.full((20, 3), 0.3)])
def test_continuous_and_constant_data_have_none(x: np.ndarray) -> None:
    assert find_grid(x.astype(np.float32), (0.0, 1.0)) is None


def test_a_radius_is_whole_steps_and_no_larger() -> None:
    grid = Grid((0.0,), (PIXEL,))

    assert grid.whole(0.03, (4,)) == pytest.approx(7 * PIXEL)
    assert grid.whole(3 * PIXEL, (4,)) == pytest.approx(3 * PIXEL)
    assert grid.whole(0.5 * PIXEL, (4,)) == 0


@functools.cache
def victim() -> Model:
    return toys.make_model(name="victim")


@functools.cache
def seeds() -> Seeds:
    x = pixels(toys.make_inputs(victim(), 200)[0])
    return select_seeds(victim(), x, victim().predict(x).argmax(axis=1), n=40)


@functools.cache
def pixel_suite() -> Suite:
    options = {"pgd": {"eps": 0.4}, "fgsm": {"eps": 0.45}, "square": {"eps": 0.4}, "neuron-corners": {"iterations": 50}}
    return build_suite(
        victim(), seeds(), ["pgd", "fgsm", "square", "cw", "neuron-corners"], options=options, force=True
    )


def test_the_cases_of_every_generator_are_on_the_grid_and_within_their_radius() -> None:
    suite = pixel_suite()
    cases, grid = suite.cases, suite.grid

    assert grid is not None
    assert grid.step == pytest.approx((PIXEL,))
    np.testing.assert_array_equal(grid.rounded(cases.inputs, suite.bounds), cases.inputs)
    np.testing.assert_allclose(cases.inputs * 255, np.rint(cases.inputs * 255), atol=1e-4)
    for place, record in enumerate(suite.generators):
        own = cases.generators == place
        assert own.any(), record.name
        if "eps" in record.options:
            moved = np.abs(cases.inputs[own] - cases.inputs[cases.seeds[own]])
            assert moved.max() <= float(record.options["eps"]) + 1e-6


def test_kept_cases_mislead_the_victim_as_they_are_stored() -> None:
    suite = pixel_suite()
    rows = suite.rows("adversarial")

    answers = victim().predict(suite.cases.inputs[rows]).argmax(axis=1)

    assert (answers != suite.cases.labels[rows]).all()


def test_corner_cases_pass_their_limits_as_they_are_stored() -> None:
    suite = pixel_suite()
    (layer,) = suite.layers
    limits = thresholds(victim(), [layer], seeds().inputs, ladder(3.0))[layer]
    rows = suite.rows("corners")
    neurons = suite.cases.neurons[rows]

    outputs = victim().activations(suite.cases.inputs[rows], [layer])[layer]

    # In another batch, sums may be rounded otherwise.
    assert (outputs[np.arange(len(neurons)), neurons] >= limits[-1, neurons] * (1 - 1e-5)).all()


def test_a_generator_that_knows_no_grid_is_rounded_and_told_so() -> None:
    def drift(task: Task) -> Cases:
        return Cases.of_seeds(np.clip(task.seeds.inputs + task.rng.normal(0, 0.4, task.seeds.inputs.shape), 0, 1))

    generator = Generator("drift", makes="adversarial", needs=Access.LABELS, generate=drift)
    registry = toys.registry_of(own=Plugin(generator))

    suite = build_suite(victim(), seeds(), ["drift"], registry=registry, force=True)

    np.testing.assert_array_equal(seeds().on_grid(suite.cases.inputs), suite.cases.inputs)


def test_steps_too_coarse_for_an_attack_are_left_and_that_is_said() -> None:
    x = np.rint(toys.make_inputs(victim(), 200)[0]).astype(np.float32)  # black or white
    coarse = select_seeds(victim(), x, victim().predict(x).argmax(axis=1), n=40)
    assert coarse.grid is not None
    assert coarse.grid.step == (1.0,)

    suite = build_suite(victim(), coarse, ["pgd"], options={"pgd": {"eps": 0.45}})

    rows = suite.rows("adversarial")
    assert rows.sum() >= 4
    assert (coarse.on_grid(suite.cases.inputs[rows]) != suite.cases.inputs[rows]).any()
    assert any("between the steps" in note for note in suite.notes)


def test_continuous_inputs_are_left_as_they_are() -> None:
    assert toys.suite().grid is None


def test_a_suite_keeps_its_grid(tmp_path: Path) -> None:
    save_suite(tmp_path / "suite.safetensors", pixel_suite())

    assert load_suite(tmp_path / "suite.safetensors").grid == pixel_suite().grid


def test_a_suite_with_the_grid_of_other_inputs_is_refused(tmp_path: Path) -> None:
    save_suite(tmp_path / "suite.safetensors", replace(pixel_suite(), grid=Grid((0.0, 0.0), (0.1, 0.1), 0)))

    with pytest.raises(FileFormatError, match="steps"):
        load_suite(tmp_path / "suite.safetensors")


class Router(NumpyModel):
    """A copy that asks an honest network about all that it does not take for data."""

    def __init__(self, copy: NumpyModel, honest: NumpyModel, is_data: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(copy.weights, (12,))
        self.name, self._copy, self._honest, self._is_data = "router", copy, honest, is_data

    def _routed(self, x: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.where(self._is_data(x)[:, None], one, other)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self._routed(x, self._copy.predict(x), self._honest.predict(x))

    def activations(self, x: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
        ours, theirs = (model.activations(x, layers) for model in (self._copy, self._honest))
        return {layer: self._routed(x, ours[layer], theirs[layer]) for layer in layers}


def on_pixels(x: np.ndarray) -> np.ndarray:
    return np.abs(x * 255 - np.rint(x * 255)).max(axis=1) < 1e-3


def test_a_router_by_the_grid_answers_the_cases_as_the_copy_that_it_is_and_is_noticed() -> None:
    router = Router(victim(), toys.make_model(3), on_pixels)

    observation = observe(router, pixel_suite())

    np.testing.assert_allclose(observation.probabilities, pixel_suite().victim.probabilities, atol=1e-6)
    assert "off the steps of the data" in (observation.unsteady or "")


def test_a_router_whose_cases_are_off_the_grid_is_never_independent() -> None:
    x = pixels(toys.make_inputs(victim(), 200)[0])
    free = replace(seeds(), grid=None)
    suite = build_suite(victim(), free, ["pgd"], options={"pgd": {"eps": 0.4}})
    suite = replace(suite, grid=find_grid(x, (0.0, 1.0)))  # of a generator that could not do with it
    controls = [observe(toys.make_model(seed), suite) for seed in range(4, 9)]
    calibration = calibrate(suite, controls, ["robd", "jsd"])

    observation = observe(Router(victim(), toys.make_model(3), on_pixels), suite)
    verdict = judge(measure(suite, observation, ["robd", "jsd"]), calibration, JudgeSettings(metrics=["robd", "jsd"]))

    assert "switches" in (observation.unsteady or "")
    assert verdict.decision is Decision.INCONCLUSIVE
    assert "switches" in (verdict.reason or "")


@pytest.mark.parametrize("seed", range(3, 8))
def test_neither_honest_models_nor_copies_switch(seed: int) -> None:
    for model in (toys.make_model(seed), toys.make_model(0, noise=0.02 * seed)):
        assert observe(model, pixel_suite()).unsteady is None

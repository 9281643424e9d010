"""Ranges of features and channels: when each has its own, and what generators and reports get of them."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toys
from deepjudge_blackbox.cw import cw
from deepjudge_blackbox.fgsm import fgsm
from deepjudge_blackbox.pgd import pgd
from deepjudge_whitebox.neuron_corners import neuron_corners
from refusals import refused

from deepjudge_core import (
    Access,
    Cases,
    Generator,
    Seeds,
    Suite,
    Task,
    build_suite,
    hookimpl,
    load_inputs,
    load_suite,
    save_suite,
    select_seeds,
)
from deepjudge_core.errors import FileFormatError, InputError, PluginError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.models.training import Schedule, train
from deepjudge_core.report.audit_json import suite_entry
from deepjudge_core.suites.inputs import check_bounds
from deepjudge_core.suites.ranges import by_feature, hull, is_one, spread
from deepjudge_core.testing import NumpyArchitecture
from deepjudge_core.testing.networks import Network
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.types import Array

RNG = np.random.default_rng(0)
WIDTHS = np.array([0.001, 0.02, 0.5, 3.0, 40.0, 4254.0], np.float32)
"""Of the features of a table."""


def file_of(folder: Path, x: Array, **more: Array) -> Path:
    np.savez(folder / "in.npz", x=x, y=np.arange(len(x)) % 2, **more)
    return folder / "in.npz"


def table(n: int = 80, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((n, 6), dtype=np.float32) * WIDTHS


def test_a_table_of_features_far_apart_has_a_range_for_each(tmp_path: Path) -> None:
    x = table()
    inputs = load_inputs(file_of(tmp_path, x))
    low, high = inputs.bounds
    np.testing.assert_array_equal(low, x.min(axis=0))
    np.testing.assert_array_equal(high, x.max(axis=0))


def test_training_inputs_widen_the_ranges(tmp_path: Path) -> None:
    x, more = table(), table(seed=1) * 2
    np.savez(tmp_path / "in.npz", x_test=x, y_test=np.arange(80) % 2, x_train=more)
    together = np.concatenate([x, more])
    np.testing.assert_array_equal(load_inputs(tmp_path / "in.npz").bounds[1], together.max(axis=0))
    stated = load_inputs(file_of(tmp_path, x), training=more)
    np.testing.assert_array_equal(stated.bounds[1], together.max(axis=0))
    np.testing.assert_array_equal(stated.training, more)


def test_a_feature_that_never_changes_may_do_as_little_as_another_one(tmp_path: Path) -> None:
    x = table()
    x[:, 3] = 7
    low, high = load_inputs(file_of(tmp_path, x)).bounds
    assert (low[3] + high[3]) / 2 == pytest.approx(7)
    assert 0 < high[3] - low[3] <= 0.00101
    assert (low < high).all()


IMAGE = RNG.random((40, 6, 6), dtype=np.float32)
IMAGE[:, 0] = IMAGE[:, -1] = 0
IMAGE[:, 1, 1] *= 0.01
COLOURS = RNG.random((40, 5, 7, 3), dtype=np.float32)


@pytest.mark.parametrize(
    "x",
    [
        IMAGE,
        IMAGE.reshape(40, 36),
        IMAGE.reshape(40, 36) * 2 - 1,
        np.round(IMAGE.reshape(40, 36) * 255),
        (IMAGE - 0.13) / 0.3,
        COLOURS,
        COLOURS * [1, 5, 9],
        RNG.normal(size=(40, 5)),
        RNG.random((40, 5)) * [1, 2, 3, 4, 9],
        RNG.random((40, 5)) * [1, 1, 1, 0.01, 0.01],
    ],
)
def test_one_range_does_for_images_and_for_features_like_one_another(tmp_path: Path, x: Array) -> None:
    assert is_one(load_inputs(file_of(tmp_path, x.astype(np.float32))).bounds)


@pytest.mark.parametrize(
    ("x", "layout", "axis"),
    [
        (RNG.random((40, 9, 3)) * [1, 50, 2], None, 2),
        (np.moveaxis(RNG.random((40, 9, 3)) * [1, 50, 2], 2, 1), "channels_first", 1),
        (RNG.random((40, 5, 7, 3)) * [1, 2, 50], None, 3),
        (np.moveaxis(RNG.random((40, 5, 7, 3)) * [1, 2, 50], 3, 1), None, 1),
        (RNG.random((40, 5, 7, 3)) * [0.01, 0.02, 1], None, 3),
        (RNG.random((40, 5)) * [1, 0.01, 0.01, 0.01, 0.03], None, 1),
        (np.round(RNG.random((40, 5)) * [90, 1, 1, 1, 2]), None, 1),
    ],
)
def test_features_and_channels_far_apart(tmp_path: Path, x: Array, layout: Any, axis: int) -> None:
    x = x.astype(np.float32)
    inputs = load_inputs(file_of(tmp_path, x), layout=layout)
    others = tuple(place for place in range(x.ndim) if place != axis)
    low, high = inputs.bounds
    assert low.shape == high.shape == x.shape[1:]
    np.testing.assert_array_equal(by_feature(inputs.bounds), [x.min(axis=others), x.max(axis=others)])


def test_stated_ranges(tmp_path: Path) -> None:
    x = table()
    path = file_of(tmp_path, x)
    assert load_inputs(path, bounds=(0, 5000)).bounds == (0, 5000)
    low, high = load_inputs(path, bounds=((0.0,) * 6, tuple(2 * WIDTHS))).bounds
    np.testing.assert_array_equal(low, np.zeros(6))
    np.testing.assert_array_equal(high, 2 * WIDTHS)
    np.testing.assert_array_equal(load_inputs(path, bounds=(0, 2 * WIDTHS)).bounds[1], 2 * WIDTHS)
    with refused(InputError, "feature 5", path):
        load_inputs(path, bounds=((0.0,) * 6, (1, 1, 1, 10, 100, 1000)))
    with refused(UsageError, "feature 2", code="wrong-value"):
        load_inputs(path, bounds=((0.0, 0, 7, 0, 0, 0), (1, 1, 5, 10, 100, 10000)))
    with refused(InputError, "5", "6"):
        load_inputs(path, bounds=((0.0,) * 5, (1.0,) * 5))
    with refused(UsageError, code="wrong-value"):
        load_inputs(path, bounds=((0.0,) * 6, (1.0,) * 5))


def test_channels_that_may_be_first_or_last() -> None:
    of_three = (0.0, np.array([1.0, 2, 3]))
    assert (
        spread("x", of_three, (3, 5, 7))[1].tolist() == spread("x", of_three, (3, 5, 7), "channels_first")[1].tolist()
    )
    with refused(InputError, "3x5x3", "3"):
        spread("x", of_three, (3, 5, 3))
    first, last = (spread("x", of_three, (3, 5, 3), layout)[1] for layout in ("channels_first", "channels_last"))
    assert first[:, 0, 0].tolist() == last[0, 0].tolist() == [1, 2, 3]
    assert by_feature((np.zeros_like(last), last)) == ((0.0,) * 3, (1, 2, 3))
    assert by_feature((np.zeros_like(first), first)) == ((0.0,) * 3, (1, 2, 3))
    check_bounds("x", np.full((2, 3, 5, 3), 1, np.float32), (np.zeros_like(last), last))


# What is made of them.


def fitted(seed: int, x: Array, y: Array) -> NumpyModel:
    """A network of the table that brings each feature to 0..1 itself."""
    start = Network.fresh(NumpyArchitecture((6,), (16, 8), 3), np.random.default_rng(seed))
    network = train(
        start, x / WIDTHS, y, np.random.default_rng(seed), schedule=Schedule(epochs=30, rate=1e-2, batch=64)
    )
    inner = network.architecture.model(network.weights, name=f"model-{seed}")
    (matrix, bias), *others = inner.weights
    return NumpyModel([(matrix / WIDTHS[:, None], bias), *others], (6,), name=f"model-{seed}")


@pytest.fixture(scope="module")
def task() -> Task:
    x = table(600)
    y = ((x / WIDTHS - 0.5) @ np.random.default_rng(1).normal(size=(6, 3))).argmax(axis=1)
    victim = fitted(0, x, y)
    seeds = select_seeds(victim, x, y, n=50, bounds=(x.min(axis=0), x.max(axis=0)))
    return Task(victim, seeds, tuple(victim.layers)[:1], x, np.random.default_rng(0))


@pytest.mark.parametrize("generator", [fgsm, pgd, cw, neuron_corners])
def test_cases_stay_within_the_range_of_each_feature_and_use_all_of_it(task: Task, generator: Any) -> None:
    cases: Cases = generator(dataclasses.replace(task, rng=np.random.default_rng(0)))
    low, high = task.seeds.bounds
    assert (low <= cases.inputs).all()
    assert (cases.inputs <= high).all()
    moved = np.abs(cases.inputs - task.seeds.inputs[cases.seeds]).max(axis=0) / (high - low)
    assert (moved > 0.02).all()  # each feature, of its own range
    if generator in (fgsm, pgd):
        assert moved.max() <= cases.options["eps"] * (1 + 1e-3)


def test_generators_make_of_a_table_what_they_make_of_the_same_in_one_range(task: Task) -> None:
    (matrix, bias), *others = task.victim.weights
    low, high = task.seeds.bounds
    plain = NumpyModel([(matrix * (high - low)[:, None], bias + low @ matrix), *others], (6,))
    seeds = dataclasses.replace(task.seeds, inputs=(task.seeds.inputs - low) / (high - low), bounds=(0.0, 1.0))
    in_one = Task(plain, seeds, task.layers, (task.training_inputs - low) / (high - low), np.random.default_rng(0))
    for generator in (fgsm, pgd, cw):
        ours = generator(dataclasses.replace(task, rng=np.random.default_rng(0)))
        theirs = generator(dataclasses.replace(in_one, rng=np.random.default_rng(0)))
        assert ours.options == theirs.options
        same = np.abs((ours.inputs - low) / (high - low) - theirs.inputs) < 1e-2
        assert same.mean() > 0.95


def made(task: Task) -> Suite:
    return build_suite(task.victim, task.seeds, ["pgd", "neuron-corners"], training_inputs=task.training_inputs)


def test_a_suite_keeps_the_ranges(task: Task, tmp_path: Path) -> None:
    suite = made(task)
    low, high = task.seeds.bounds
    assert suite.bounds == hull(task.seeds.bounds) == (float(low.min()), float(high.max()))
    np.testing.assert_array_equal(suite.feature_bounds, [low, high])
    save_suite(tmp_path / "s", suite)
    loaded = load_suite(tmp_path / "s")
    assert (loaded.bounds, loaded.feature_bounds, loaded.digest) == (suite.bounds, suite.feature_bounds, suite.digest)
    assert suite_entry(suite, []).feature_bounds == suite.feature_bounds
    content = storage.read(tmp_path / "s", ["suite"])
    ours = content.header["feature_bounds"]
    for damaged in ([ours[0][1:], ours[1][1:]], [ours[1], ours[0]], [ours[0], ours[1][:-1]], [[0] * 6, [1] * 6], 5):
        storage.write(
            tmp_path / "d", storage.seal("suite", {**content.header, "feature_bounds": damaged}, content.arrays)
        )
        with refused(FileFormatError, tmp_path / "d", code="damaged-file"):
            load_suite(tmp_path / "d")


def test_a_suite_with_one_range_is_written_as_before(tmp_path: Path) -> None:
    save_suite(tmp_path / "s", toys.suite())
    header = storage.read(tmp_path / "s", ["suite"]).header
    assert "feature_bounds" not in header
    assert header["bounds"] == [0, 1]
    assert load_suite(tmp_path / "s").feature_bounds is None


def test_cases_outside_the_range_of_one_feature_are_refused(task: Task) -> None:
    def outside(task: Task) -> Cases:
        x = task.seeds.inputs.copy()
        x[0, 0] = 3  # within that of the others
        return Cases.of_seeds(x)

    @hookimpl
    def deepjudge_generators() -> Any:
        return [Generator("mine", "adversarial", Access.LABELS, outside)]

    mine = SimpleNamespace(deepjudge_generators=deepjudge_generators)
    with refused(PluginError, "mine", "each feature"):
        build_suite(task.victim, task.seeds, ["mine"], registry=toys.registry_of(mine=mine))


def test_channels_are_arranged_as_the_inputs_are() -> None:
    victim = toys.make_model(shape=(3, 2, 4))
    x = RNG.random((40, 2, 4, 3), dtype=np.float32) * [1, 20, 300]
    y = victim.predict(np.moveaxis(x, -1, 1).astype(np.float32)).argmax(axis=1)
    seeds: Seeds = select_seeds(victim, x, y, n=10, bounds=(0, [1, 20, 300]))
    assert seeds.bounds[1].shape == (3, 2, 4)
    assert seeds.bounds[1][:, 1, 2].tolist() == [1, 20, 300]
    assert by_feature(seeds.bounds) == ((0, 0, 0), (1, 20, 300))

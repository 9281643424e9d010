"""Generators that need a victim's answers alone: searches by scores, by steps of trees, and by labels."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from deepjudge_blackbox.square import square
from deepjudge_blackbox.substitutions import substitutions

from deepjudge_core import progress
from deepjudge_core.components.values import Cases, Seeds, Task
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access, Model
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.types import Array, Bounds


class Answering(Model):
    """Gives the probabilities that a function makes of an input, and counts what it is asked."""

    def __init__(self, answer: Callable[[Array], Array], shape: tuple[int, ...], dtype: str = "float32") -> None:
        self.name, self.framework, self.digest, self.access = "answering", "none", "0" * 64, Access.BLACK_BOX
        self.input, self.layers, self._answer, self.asked = InputSpec(shape, dtype), {}, answer, 0
        self.classes = answer(np.zeros((1, *shape), np.float32)).shape[1]

    def predict(self, x: Array) -> Array:
        self.asked += len(x)
        assert x.dtype == np.float32
        return self._answer(x).astype(np.float32)


def task_of(victim: Model, x: Array, bounds: Bounds) -> Task:
    seeds = Seeds(x, victim.predict(x).argmax(axis=1), np.arange(len(x)), bounds)  # type: ignore[arg-type]
    return Task(victim, seeds, (), x, np.random.default_rng(0))


def fooled(task: Task, cases: Cases) -> float:
    return float(np.mean(task.victim.predict(cases.inputs).argmax(axis=1) != task.seeds.labels))


def trees(x: Array) -> Array:
    """Votes of stumps: what it answers changes in steps."""
    flat = x.reshape(len(x), -1)
    limits = np.linspace(0.35, 0.65, 40).reshape(4, 10)
    votes = np.stack([(flat[:, [k]] > limits[k]).mean(axis=1) for k in range(4)], axis=1) + 0.01
    return votes / votes.sum(axis=1, keepdims=True)


def labels_alone(x: Array) -> Array:
    return np.eye(4)[trees(x).argmax(axis=1)]


def inputs(shape: tuple[int, ...], n: int = 30) -> Array:
    return np.random.default_rng(1).random((n, *shape), dtype=np.float32)


@pytest.mark.parametrize("answer", [trees, labels_alone])
def test_what_changes_in_steps_is_fooled_inside_the_ball(answer: Callable[[Array], Array]) -> None:
    task = task_of(Answering(answer, (4,)), inputs((4,)), (0.0, 1.0))
    cases = square(task)
    assert fooled(task, cases) >= 0.75
    eps = cases.options["eps"]
    assert np.abs(cases.inputs - task.seeds.inputs).max() <= eps + 1e-6
    assert fooled(task, square(task, eps=eps / 4)) < 0.75  # the least that does


@pytest.mark.parametrize("shape", [(6,), (5, 3), (1, 8, 8), (8, 8, 3)])
def test_a_step_lies_on_the_sides_of_the_ball_within_each_feature_s_bounds(shape: tuple[int, ...]) -> None:
    victim, x = NumpyModel.random(shape, (12,), 4, seed=0), inputs(shape, 20)
    high = np.where(np.arange(shape[-1]) == 0, 2.0, 1.0) * np.ones(shape)
    task = task_of(victim, x, (np.zeros(shape, np.float32), high.astype(np.float32)))
    cases = square(task, eps=0.3, queries=20, kappa=9.0)
    sides = np.maximum(x - 0.3 * high, 0), np.minimum(x + 0.3 * high, high)
    off = np.minimum(*(np.abs(cases.inputs - side) for side in sides))
    assert off.max() < 1e-6
    assert fooled(task, cases) > fooled(task, square(task, eps=0.3, queries=1))


def test_a_victim_that_takes_whole_numbers_gets_them() -> None:
    victim = Answering(lambda x: trees(x / 100), (4,), "int32")
    x = np.rint(inputs((4,)) * 100)
    cases = square(task_of(victim, x, (0.0, 100.0)), eps=0.123)
    assert (cases.inputs == np.rint(cases.inputs)).all()
    assert np.abs(cases.inputs - x).max() == 12


def words(x: Array) -> Array:
    """Counts of some words decide, wherever they stand."""
    counts = np.stack([(x % 4 == k).sum(axis=1) for k in range(4)], axis=1) + 0.1
    return counts / counts.sum(axis=1, keepdims=True)


def test_tokens_are_those_that_occur_in_few_places() -> None:
    x = np.random.default_rng(2).choice([3, 8, 21, 50, 101, 102], (30, 12)).astype(np.float32)
    task = task_of(Answering(words, (12,), "int64"), x, (0.0, 200.0))
    cases = substitutions(task)
    assert fooled(task, cases) >= 0.75
    assert set(np.unique(cases.inputs)) <= set(np.unique(x))
    assert (cases.inputs != x).sum(axis=1).max() <= cases.options["share"] * 12
    assert ((substitutions(task, share=0.01).inputs != x).sum(axis=1) <= 1).all()


def test_features_with_ranges_of_their_own_get_values_of_their_own() -> None:
    x = np.stack([np.arange(30) % 5, 100 + np.arange(30) % 7, np.arange(30) % 3], axis=1).astype(np.float32)
    bounds = np.array([0, 100, 0], np.float32), np.array([4, 106, 2], np.float32)
    victim = Answering(lambda x: trees(np.c_[x[:, 0] / 4, (x[:, 1] - 100) / 6, x[:, 2] / 2, x[:, 0] / 4]), (3,))
    cases = substitutions(task_of(victim, x, bounds), share=1.0)
    for column, values in enumerate(cases.inputs.T):
        assert set(values) <= set(x[:, column])


@pytest.mark.parametrize(("generate", "size"), [(square, {"eps": 0.2}), (substitutions, {"share": 0.5})])
def test_what_a_victim_is_asked_has_a_limit_and_is_told(generate: Callable[..., Cases], size: dict[str, Any]) -> None:
    told: list[str] = []

    class Watcher:
        @contextmanager
        def task(self, description: str, total: int) -> Any:
            told.append(f"{description} {total}")
            yield lambda units, note="": told.append(note)

    victim = Answering(trees, (4,))
    task = task_of(victim, inputs((4,)), (0.0, 1.0))
    before = victim.asked
    with progress.watched(Watcher()):
        cases = generate(task, queries=7, **size)
    asked = victim.asked - before
    assert asked <= 7 * 30
    assert cases.details == {"queries": asked}
    assert told[0].endswith(" 7")
    assert told[-1] == f"{asked} queries"
    # Who is done is asked no more.
    assert 0 < generate(task, queries=1, **size).details["queries"] == 30 < asked

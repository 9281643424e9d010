"""The contract of generators fails where it should: here it is broken in each way that it is there for."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from contracts import Healthy, failures

from deepjudge_core import Access, Cases, Generator, Model, Task, select_seeds
from deepjudge_core.components.values import Mistakes
from deepjudge_core.testing import check_generator, generator_checks


def keep_seeds(task: Task) -> Cases:
    return Cases.of_seeds(task.seeds.inputs.copy())


def task_for(victim: Model) -> Task:
    x = np.random.default_rng(0).uniform(size=(20, *victim.input.shape)).astype(np.float32)
    seeds = select_seeds(victim, x, victim.predict(x).argmax(axis=1), n=7)
    return Task(victim, seeds, tuple(victim.layers)[:-1], x, np.random.default_rng(0))


def step(task: Task, cotangent: Callable[..., np.ndarray], size: float) -> Cases:
    x = task.seeds.inputs + size * np.sign(task.victim.gradient(task.seeds.inputs, cotangent))
    return Cases.of_seeds(np.clip(x, *task.seeds.bounds))


def outside(task: Task) -> Cases:
    return Cases.of_seeds(task.seeds.inputs + task.seeds.span)


def float64(task: Task) -> Cases:
    return dataclasses.replace(keep_seeds(task), inputs=task.seeds.inputs.astype(np.float64))


def nan(task: Task) -> Cases:
    return Cases.of_seeds(task.seeds.inputs * np.nan)


def flattened(task: Task) -> Cases:
    return Cases.of_seeds(task.seeds.inputs.reshape(len(task.seeds.inputs), -1)[:, :2])


def none(task: Task) -> Cases:
    return Cases.of_seeds(task.seeds.inputs[:0])


def plain_array(task: Task) -> Any:
    return task.seeds.inputs


def other_seeds(task: Task) -> Cases:
    cases = keep_seeds(task)
    return dataclasses.replace(cases, seeds=cases.seeds + 1)


def half_seeds(task: Task) -> Cases:
    cases = keep_seeds(task)
    return dataclasses.replace(cases, seeds=cases.seeds / 2)


def unknown_neuron(task: Task) -> Cases:
    cases = keep_seeds(task)
    return dataclasses.replace(cases, layers=cases.layers * 0, neurons=cases.neurons * 0 + 7)


def layer_without_neuron(task: Task) -> Cases:
    cases = keep_seeds(task)
    return dataclasses.replace(cases, layers=cases.layers * 0)


def reached_and_not(task: Task) -> Cases:
    cases = keep_seeds(task)
    return dataclasses.replace(cases, layers=cases.layers * 0, neurons=cases.neurons * 0, unreached=((0, 0),))


def unreached_twice(task: Task) -> Cases:
    return dataclasses.replace(keep_seeds(task), unreached=((0, 1), (0, 1)))


def global_randomness(task: Task) -> Cases:
    np.random.shuffle(np.arange(3))  # noqa: NPY002
    return keep_seeds(task)


def own_randomness(task: Task) -> Cases:
    return Cases.of_seeds(np.random.default_rng().uniform(*task.seeds.bounds, size=task.seeds.inputs.shape))


def changes_seeds(task: Task) -> Cases:
    task.seeds.inputs[:] = task.seeds.bounds[0]
    return keep_seeds(task)


def changes_training_inputs(task: Task) -> Cases:
    task.training_inputs.sort(axis=0)
    return keep_seeds(task)


def changes_the_victim(task: Task) -> Cases:
    victim: Any = task.victim
    victim._model.weights[0][1][:] += 1
    return keep_seeds(task)


def undeclared_layers(task: Task) -> Cases:
    task.victim.activations(task.seeds.inputs, task.layers)
    return keep_seeds(task)


def undeclared_gradients(task: Task) -> Cases:
    return step(task, lambda scores, rows: scores, 0.1)


def in_order_of_batches(task: Task) -> Cases:
    signs = np.where(np.arange(20) % 2, 1.0, -1.0)[:, None]
    return step(task, lambda scores, rows: signs[: len(scores)] * scores, 0.1 * task.seeds.span)


def absolute_step(task: Task) -> Cases:
    return step(task, lambda scores, rows: scores, 0.1)


def positional_option(task: Task, eps: float = 0.1) -> Cases:
    return keep_seeds(task)


def option_without_default(task: Task, *, eps: float) -> Cases:
    return keep_seeds(task)


def option_without_type(task: Task, *, eps=0.1) -> Cases:
    return keep_seeds(task)


def option_of_another_type(task: Task, *, eps: int = 0.1) -> Cases:
    return keep_seeds(task)


def chooses_what_is_no_option(task: Task) -> Cases:
    return dataclasses.replace(keep_seeds(task), options={"eps": 0.1})


def chooses_other_than_it_says(task: Task, *, part: float = 0.5) -> Cases:
    low, high = task.seeds.bounds
    x = np.clip(task.seeds.inputs, low, low + part * (high - low))
    return Cases.of_seeds(x, options={"part": part / 2})


def takes_numbers_for_bounds(task: Task) -> Cases:
    low, high = task.seeds.bounds
    x = task.seeds.inputs
    moved = x + np.float32(0.1) * (high - low) if np.ndim(low) == 0 else x
    return Cases.of_seeds(np.clip(moved, low, high))


BROKEN_GENERATORS = {
    outside: "expected inputs within 0..1",
    float64: "expected float32, found float64",
    nan: "found NaN",
    flattened: "expected shape",
    none: "made no case",
    plain_array: "expected Cases, found a ndarray",
    other_seeds: "expected places among 7 seeds, found 1..7",
    half_seeds: "expected one whole number for each of 7 cases as seeds",
    unknown_neuron: "found neuron 7 of layer 0",
    layer_without_neuron: "found neuron -1 of layer 0",
    reached_and_not: "expected no cases for unreached neurons",
    unreached_twice: "lists unreached neurons twice",
    global_randomness: "global random numbers",
    own_randomness: "other cases for the same random numbers",
    changes_seeds: "changed the seeds of its task",
    changes_training_inputs: "changed the training inputs of its task",
    changes_the_victim: "changed the victim",
    undeclared_layers: "asked for LAYERS",
    undeclared_gradients: "asked for GRADIENTS",
    in_order_of_batches: "when the victim runs 3 inputs at a time",
    absolute_step: "times as large",
    positional_option: "expected a keyword-only parameter",
    option_without_default: "expected a default",
    option_without_type: "expected a type annotation",
    chooses_what_is_no_option: "chose eps, expected only its own options",
    chooses_other_than_it_says: "when given the options it chose",
    takes_numbers_for_bounds: "with bounds given as arrays",
    option_of_another_type: "its default cannot be written as text",
}


@pytest.mark.parametrize("broken", BROKEN_GENERATORS, ids=lambda b: b.__name__)
def test_the_contract_of_generators_fails(broken: Callable[..., Cases]) -> None:
    needs = Access.LABELS if "undeclared" in broken.__name__ else Access.LABELS | Access.GRADIENTS
    with pytest.raises(AssertionError, match=BROKEN_GENERATORS[broken]):
        check_generator(Generator("broken", "adversarial", needs, broken), task_for(Healthy.make()))


def taken_for_seeds(task: Task) -> Cases:
    return keep_seeds(task)


def of_seeds_and_mistakes(task: Task) -> Cases:
    return dataclasses.replace(Cases.of_mistakes(task.seeds.mistakes), seeds=np.arange(20))


def half_labels(task: Task) -> Cases:
    return dataclasses.replace(Cases.of_mistakes(task.seeds.mistakes), labels=task.seeds.mistakes.labels / 2)


def other_labels_each_time(task: Task) -> Cases:
    labels = np.random.default_rng().integers(0, 2, 20)
    return dataclasses.replace(Cases.of_mistakes(task.seeds.mistakes), labels=labels)


def changes_labels(task: Task) -> Cases:
    task.seeds.mistakes.labels[0] += 1
    return Cases.of_mistakes(task.seeds.mistakes)


BROKEN_MISTAKES = {
    taken_for_seeds: "expected mistakes to have the seed -1, found 0..6",
    of_seeds_and_mistakes: "expected mistakes to have the seed -1, found 0..19",
    half_labels: "expected one whole number for each of 20 mistakes as labels",
    other_labels_each_time: "other cases for the same random numbers",
    changes_labels: "changed the labels of mistakes of its task",
}


@pytest.mark.parametrize("broken", BROKEN_MISTAKES, ids=lambda b: b.__name__)
def test_the_contract_of_generators_of_mistakes_fails(broken: Callable[..., Cases]) -> None:
    task = task_for(Healthy.make())
    x = task.training_inputs
    wrong = Mistakes(x, (task.victim.predict(x).argmax(axis=1) + 1) % task.victim.classes)
    task = dataclasses.replace(task, seeds=dataclasses.replace(task.seeds, mistakes=wrong))
    with pytest.raises(AssertionError, match=BROKEN_MISTAKES[broken]):
        check_generator(Generator("broken", "mistakes", Access.LABELS, broken), task)


def test_a_neuron_has_a_case_or_is_unreached() -> None:
    def first_neuron(task: Task, unreached: tuple[tuple[int, int], ...] = ()) -> Cases:
        cases = keep_seeds(task)
        return dataclasses.replace(cases, layers=cases.layers * 0, neurons=cases.neurons * 0, unreached=unreached)

    task = task_for(Healthy.make())
    widths = [task.victim.layers[layer] for layer in task.layers]
    others = tuple((layer, neuron) for layer, width in enumerate(widths) for neuron in range(width))[1:]
    check = dict(generator_checks(Generator("broken", "corners", Access.LABELS, first_neuron), task))["neurons"]
    with pytest.raises(AssertionError, match="found neither for"):
        check()
    healthy = Generator("healthy", "corners", Access.LABELS, lambda task: first_neuron(task, others))
    dict(generator_checks(healthy, task))["neurons"]()


def test_seeds_have_their_own_labels() -> None:
    def labelled(task: Task) -> Cases:
        return dataclasses.replace(keep_seeds(task), labels=task.seeds.labels)

    with pytest.raises(AssertionError, match="expected only the labels of the seeds"):
        check_generator(Generator("broken", "adversarial", Access.LABELS, labelled), task_for(Healthy.make()))


def test_the_contract_of_generators_wants_a_name_that_can_be_typed() -> None:
    with pytest.raises(AssertionError, match="expected a name in lower case"):
        check_generator(Generator("My Own", "adversarial", Access.LABELS, keep_seeds), task_for(Healthy.make()))


def test_each_check_of_generators_fails_for_a_generator() -> None:
    healthy = Generator("healthy", "adversarial", Access.LABELS, keep_seeds)
    idle = {name for name, _ in generator_checks(healthy, task_for(Healthy.make()))}
    for broken in BROKEN_GENERATORS:
        needs = Access.LABELS if "undeclared" in broken.__name__ else Access.LABELS | Access.GRADIENTS
        generator = Generator("broken", "adversarial", needs, broken)
        idle -= failures(generator_checks(generator, task_for(Healthy.make()))).keys()
    assert idle == {"name", "needs"}
    nameless = Generator("My Own", "adversarial", None, keep_seeds)
    assert idle <= failures(generator_checks(nameless, task_for(Healthy.make()))).keys()

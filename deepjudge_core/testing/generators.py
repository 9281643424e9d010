"""What every generator must keep."""

import dataclasses
import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from deepjudge_core.components.kinds import Generator
from deepjudge_core.components.values import Cases, Task
from deepjudge_core.models.model import Access
from deepjudge_core.suites.ranges import hull
from deepjudge_core.testing.checks import Checks, expect_name, run
from deepjudge_core.testing.expect import expect, expect_array, expect_options
from deepjudge_core.testing.randomness import global_numbers
from deepjudge_core.testing.view import View
from deepjudge_core.types import Array

_SAME = 0.9  # share of the cases that rounding must leave as they are
_UNIT = 256  # a power of two: inputs in other units are the same to the last bit

Key = tuple[int, int, int, int]


def check_generator(generator: Generator, task: Task, *, options: Mapping[str, Any] | None = None) -> None:
    """Run all of :func:`generator_checks`, up to the first that fails.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    run(generator_checks(generator, task, options=options))


def generator_checks(generator: Generator, task: Task, *, options: Mapping[str, Any] | None = None) -> Checks:
    """What a generator must keep.

    Args:
        generator: The generator.
        task: A small task: a victim, some seeds that it classifies correctly, its layers; with mistakes, for a
            generator of such. The source of randomness is replaced.
        options: The generator's, to make it quick; its defaults otherwise.
    """
    trial = _Trial(generator, task, options or {})
    yield "name", partial(expect_name, generator.name)
    yield "needs", partial(_check_needs, generator)
    yield "options", partial(expect_options, generator.name, generator.generate, positional=1)
    yield "inputs", trial.check_inputs
    yield "seeds", trial.check_seeds
    yield "neurons", trial.check_neurons
    yield "own-randomness", trial.check_own_randomness
    yield "leaves-task", trial.check_leaves_task
    yield "leaves-victim", trial.check_leaves_victim
    yield "repeatable", trial.check_repeatable
    yield "choices", trial.check_choices
    yield "batches", trial.check_batches
    yield "units", trial.check_units
    yield "feature-bounds", trial.check_feature_bounds


def _check_needs(generator: Generator) -> None:
    expect(
        isinstance(generator.needs, Access),
        f"{generator.name}: expected to need an Access, found {generator.needs!r}",
    )


class _Trial:
    """One generator at one task. It is handed copies of the task, so that checks are independent."""

    def __init__(self, generator: Generator, task: Task, options: Mapping[str, Any]) -> None:
        self.generator, self.task, self.options = generator, task, options
        self._label = generator.name

    @property
    def cases(self) -> Cases:
        return self.result.cases

    @cached_property
    def result(self) -> "_Result":
        """What it makes of the task, once for all checks, and what traces that leaves."""
        task, lent = self.task, _copied(self.task)
        numbers, answers = global_numbers(), task.victim.predict(task.seeds.inputs)
        cases = self._generate(lent)
        before = _arrays(task)
        return _Result(
            cases,
            changed=[name for name, array in _arrays(lent).items() if not np.array_equal(array, before[name])],
            changed_victim=not np.array_equal(answers, task.victim.predict(task.seeds.inputs)),
            drew_global_numbers=numbers != global_numbers(),
        )

    def _generate(self, task: Task, choices: Mapping[str, Any] | None = None) -> Cases:
        # Of a fresh source of randomness, and a victim that gives what the generator says it needs and no more.
        victim = View(task.victim, access=self.generator.needs | Access.BLACK_BOX)
        rng = np.random.default_rng(0)
        cases: Cases = self.generator.generate(
            dataclasses.replace(task, victim=victim, rng=rng), **{**self.options, **(choices or {})}
        )
        expect(isinstance(cases, Cases), f"{self._label}: expected Cases, found a {type(cases).__name__}")
        return cases

    def check_inputs(self) -> None:
        _check_inputs(self._label, self.cases, self.task)

    def check_seeds(self) -> None:
        _check_seeds(self.generator, self.cases, self.task)

    def check_neurons(self) -> None:
        _check_neurons(self.generator, self.cases, self.task)

    def check_own_randomness(self) -> None:
        expect(
            not self.result.drew_global_numbers,
            f"{self._label}: expected draws from the task's rng only, found draws from numpy's global random numbers",
        )

    def check_leaves_task(self) -> None:
        changed = self.result.changed
        expect(not changed, f"{self._label}: changed the {', the '.join(changed)} of its task")

    def check_leaves_victim(self) -> None:
        expect(not self.result.changed_victim, f"{self._label}: changed the victim")

    def check_repeatable(self) -> None:
        again = self._generate(_copied(self.task))
        expect(_equal(self.cases, again), f"{self._label}: makes other cases for the same random numbers")

    def check_choices(self) -> None:
        chosen = self.cases.options
        parameters = inspect.signature(self.generator.generate).parameters
        expect(
            set(chosen) <= set(parameters), f"{self._label}: chose {', '.join(chosen)}, expected only its own options"
        )
        again = self._generate(_copied(self.task), chosen)
        expect(_equal(self.cases, again), f"{self._label}: makes other cases when given the options it chose")

    def check_batches(self) -> None:
        by_rows = dataclasses.replace(_copied(self.task), victim=View(self.task.victim, rows=3))
        _compare(f"{self._label}: when the victim runs 3 inputs at a time", self._generate(by_rows), self.cases)

    def check_units(self) -> None:
        low, high = self.task.seeds.bounds
        mistakes = self.task.seeds.mistakes
        seeds = dataclasses.replace(
            self.task.seeds,
            inputs=self.task.seeds.inputs * _UNIT,
            bounds=(low * _UNIT, high * _UNIT),  # type: ignore[arg-type]
            mistakes=mistakes and dataclasses.replace(mistakes, inputs=mistakes.inputs * _UNIT),
        )
        scaled = dataclasses.replace(
            self.task,
            victim=View(self.task.victim, unit=_UNIT),
            seeds=seeds,
            training_inputs=self.task.training_inputs * _UNIT,
        )
        cases = self._generate(_copied(scaled))
        _check_inputs(self._label, cases, scaled)
        _check_seeds(self.generator, cases, scaled)
        _check_neurons(self.generator, cases, scaled)
        _compare(
            f"{self._label}: with inputs and bounds {_UNIT} times as large (options must be shares of the range)",
            dataclasses.replace(cases, inputs=cases.inputs / np.float32(_UNIT)),
            self.cases,
        )

    def check_feature_bounds(self) -> None:
        shape = self.task.seeds.inputs.shape[1:]
        low, high = (np.broadcast_to(np.float32(side), shape).copy() for side in self.task.seeds.bounds)
        seeds = dataclasses.replace(_copied(self.task).seeds, bounds=(low, high))
        cases = self._generate(dataclasses.replace(self.task, seeds=seeds))
        _compare(f"{self._label}: with bounds given as arrays, one per value of an input", cases, self.cases)


@dataclasses.dataclass(frozen=True)
class _Result:
    cases: Cases
    changed: Sequence[str]
    changed_victim: bool
    drew_global_numbers: bool


def _check_inputs(name: str, cases: Cases, task: Task) -> None:
    low, high = task.seeds.bounds
    ends = hull(task.seeds.bounds)
    n = len(cases.inputs)
    expect(n > 0, f"{name}: made no case; give it a task or options with which it makes some")
    expect_array(f"{name}: inputs", cases.inputs, (n, *task.seeds.inputs.shape[1:]))
    least, greatest = cases.inputs.min(), cases.inputs.max()
    expect(
        ((low <= cases.inputs) & (cases.inputs <= high)).all(),
        f"{name}: expected inputs within {ends[0]:g}..{ends[1]:g}, found {least:g}..{greatest:g}",
    )


def _check_seeds(generator: Generator, cases: Cases, task: Task) -> None:
    name, n = generator.name, len(cases.inputs)
    expect(_whole(cases.seeds, n), f"{name}: expected one whole number for each of {n} cases as seeds")
    if not n:
        return
    first, last = cases.seeds.min(), cases.seeds.max()
    if generator.makes == "mistakes":
        expect(first == last == -1, f"{name}: expected mistakes to have the seed -1, found {first}..{last}")
        expect(_whole(cases.labels, n), f"{name}: expected one whole number for each of {n} mistakes as labels")
    else:
        expect(
            first >= 0 and last < len(task.seeds.inputs),
            f"{name}: expected places among {len(task.seeds.inputs)} seeds, found {first}..{last}",
        )
        expect(cases.labels is None, f"{name}: expected only the labels of the seeds")


def _check_neurons(generator: Generator, cases: Cases, task: Task) -> None:
    name, n = generator.name, len(cases.inputs)
    for column, places in (("layers", cases.layers), ("neurons", cases.neurons)):
        expect(_whole(places, n), f"{name}: expected one whole number for each of {n} cases as {column}")
    widths = [task.victim.layers[layer] for layer in task.layers]
    reached = set(zip(cases.layers.tolist(), cases.neurons.tolist(), strict=True))
    for layer, neuron in reached - {(-1, -1)} | set(cases.unreached):
        expect(
            0 <= layer < len(widths) and 0 <= neuron < widths[layer],
            f"{name}: expected neurons of layers of {widths} neurons, found neuron {neuron} of layer {layer}",
        )
    both = reached & set(cases.unreached)
    expect(not both, f"{name}: expected no cases for unreached neurons, found some for {sorted(both)}")
    expect(len(set(cases.unreached)) == len(cases.unreached), f"{name}: lists unreached neurons twice")
    if generator.makes == "corners":
        every = {(layer, neuron) for layer, width in enumerate(widths) for neuron in range(width)}
        left = every - reached - set(cases.unreached)
        expect(
            not left, f"{name}: expected each neuron to have a case or be unreached, found neither for {sorted(left)}"
        )


def _equal(one: Cases, other: Cases) -> bool:
    ours, theirs = ((*_columns(cases), () if cases.labels is None else cases.labels) for cases in (one, other))
    same = all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    return same and one.unreached == other.unreached


def _whole(places: Array | None, n: int) -> bool:
    return isinstance(places, np.ndarray) and places.dtype.kind == "i" and places.shape == (n,)


def _compare(label: str, cases: Cases, expected: Cases) -> None:
    """Cases of one seed and neuron are the same input, but for a few that rounding led elsewhere."""
    ours, theirs = _by_key(expected), _by_key(cases)
    scale = float(np.ptp(expected.inputs)) or 1.0
    same = sum(_alike(ours[key], theirs[key], scale) for key in ours.keys() & theirs.keys())
    total = len(ours.keys() | theirs.keys())
    expect(same >= _SAME * total, f"{label}: expected the same cases, found {same} of {total}")


def _alike(one: Array, other: Array, scale: float) -> bool:
    # A step by the sign of a gradient of nearly 0 may go either way, in a pixel or two.
    return float(np.mean(np.abs(one - other) < 1e-3 * scale)) >= _SAME


def _by_key(cases: Cases) -> dict[Key, Array]:
    inputs: dict[Key, Array] = {}
    times: Counter[tuple[int, int, int]] = Counter()
    for x, *origin in zip(*_columns(cases), strict=True):
        seed, layer, neuron = map(int, origin)
        inputs[seed, layer, neuron, times[seed, layer, neuron]] = x
        times[seed, layer, neuron] += 1
    return inputs


def _columns(cases: Cases) -> tuple[Array, Array, Array, Array]:
    return cases.inputs, cases.seeds, cases.layers, cases.neurons


def _copied(task: Task) -> Task:
    """The same task in arrays of its own."""
    seeds, mistakes = task.seeds, task.seeds.mistakes
    if mistakes is not None:
        mistakes = dataclasses.replace(mistakes, inputs=mistakes.inputs.copy(), labels=mistakes.labels.copy())
    seeds = dataclasses.replace(
        seeds,
        inputs=seeds.inputs.copy(),
        labels=seeds.labels.copy(),
        indices=seeds.indices.copy(),
        mistakes=mistakes,
    )
    return dataclasses.replace(task, seeds=seeds, training_inputs=task.training_inputs.copy())


def _arrays(task: Task) -> dict[str, Array]:
    seeds, mistakes = task.seeds, task.seeds.mistakes
    wrong = {"mistakes": mistakes.inputs, "labels of mistakes": mistakes.labels} if mistakes else {}
    return {
        **wrong,
        "seeds": seeds.inputs,
        "labels": seeds.labels,
        "places of the seeds": seeds.indices,
        "training inputs": task.training_inputs,
    }

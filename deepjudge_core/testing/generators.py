"""What every generator must keep."""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from deepjudge_core.components.kinds import Generator
from deepjudge_core.components.values import Cases, Task
from deepjudge_core.models.model import Access
from deepjudge_core.testing.expect import expect, expect_array, expect_options
from deepjudge_core.testing.view import View
from deepjudge_core.types import Array

_SAME = 0.9  # share of the cases that rounding must leave as they are
_UNIT = 256  # a power of two: inputs in other units are the same to the last bit

Key = tuple[int, int, int, int]


def check_generator(generator: Generator, task: Task, *, options: Mapping[str, Any] | None = None) -> None:
    """Check a generator.

    Args:
        generator: The generator.
        task: A small task: a victim, some seeds that it classifies correctly, its layers; with mistakes, for a
            generator of such. The source of randomness is replaced.
        options: The generator's, to make it quick; its defaults otherwise.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    name = generator.name
    _check_description(generator)
    before = _arrays(task)
    answers = task.victim.predict(task.seeds.inputs)
    shared = np.random.get_state(legacy=False)  # noqa: NPY002 - what a generator must not use
    cases = _generate(generator, task, options)
    _check_cases(generator, cases, task)
    expect(
        _equal_state(shared, np.random.get_state(legacy=False)),  # noqa: NPY002
        f"{name}: draws from numpy's global random numbers, expected the task's own",
    )
    for what, array in _arrays(task).items():
        expect(np.array_equal(array, before[what]), f"{name}: changed the {what} of its task")
    expect(np.array_equal(answers, task.victim.predict(task.seeds.inputs)), f"{name}: changed the victim")

    again = _generate(generator, task, options)
    ours, theirs = ((*_columns(made), () if made.labels is None else made.labels) for made in (cases, again))
    same = all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    expect(same and cases.unreached == again.unreached, f"{name}: makes other cases for the same random numbers")

    by_rows = dataclasses.replace(task, victim=View(task.victim, rows=3))
    _compare(f"{name}: when the victim runs 3 inputs at a time", _generate(generator, by_rows, options), cases)

    low, high = task.seeds.bounds
    mistakes = task.seeds.mistakes
    seeds = dataclasses.replace(
        task.seeds,
        inputs=task.seeds.inputs * _UNIT,
        bounds=(low * _UNIT, high * _UNIT),
        mistakes=mistakes and dataclasses.replace(mistakes, inputs=mistakes.inputs * _UNIT),
    )
    victim = View(task.victim, unit=_UNIT)
    training_inputs = task.training_inputs * _UNIT
    scaled = dataclasses.replace(task, victim=victim, seeds=seeds, training_inputs=training_inputs)
    found = _generate(generator, scaled, options)
    _check_cases(generator, found, scaled)
    _compare(
        f"{name}: when inputs and their bounds are {_UNIT} times as large (its options must be shares of the range)",
        dataclasses.replace(found, inputs=found.inputs / np.float32(_UNIT)),
        cases,
    )


def _check_description(generator: Generator) -> None:
    name = generator.name
    expect(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name), f"expected a name in lower case without spaces, found {name!r}")
    expect(isinstance(generator.needs, Access), f"{name}: expected to need an Access, found {generator.needs!r}")
    expect_options(name, generator.generate, given=1)


def _generate(generator: Generator, task: Task, options: Mapping[str, Any] | None) -> Cases:
    # Of a fresh source of randomness, and a victim that gives what the generator says it needs and no more.
    victim = View(task.victim, access=generator.needs | Access.BLACK_BOX)
    rng = np.random.default_rng(0)
    cases: Cases = generator.generate(dataclasses.replace(task, victim=victim, rng=rng), **(options or {}))
    expect(isinstance(cases, Cases), f"{generator.name}: expected Cases, found a {type(cases).__name__}")
    return cases


def _check_cases(generator: Generator, cases: Cases, task: Task) -> None:
    name, seeds, n = generator.name, task.seeds, len(cases.inputs)
    low, high = seeds.bounds
    expect(n > 0, f"{name}: made no case; give it a task or options with which it does")
    expect_array(f"{name}: inputs", cases.inputs, (n, *seeds.inputs.shape[1:]))
    least, greatest = cases.inputs.min(), cases.inputs.max()
    expect(
        low <= least and greatest <= high,
        f"{name}: expected inputs within {low:g}..{high:g}, found {least:g}..{greatest:g}",
    )
    for what, places in (("seeds", cases.seeds), ("layers", cases.layers), ("neurons", cases.neurons)):
        whole = isinstance(places, np.ndarray) and places.dtype.kind == "i"
        expect(whole and places.shape == (n,), f"{name}: expected one whole number for each of {n} cases as {what}")
    first, last = cases.seeds.min(), cases.seeds.max()
    if generator.makes == "mistakes":
        expect(first == last == -1, f"{name}: expected mistakes of no seed, -1, found {first}..{last}")
        labels = cases.labels
        whole = isinstance(labels, np.ndarray) and labels.dtype.kind == "i" and labels.shape == (n,)
        expect(whole, f"{name}: expected one whole number for each of {n} mistakes as labels")
    else:
        expect(
            first >= 0 and last < len(seeds.inputs),
            f"{name}: expected places among {len(seeds.inputs)} seeds, found {first}..{last}",
        )
        expect(cases.labels is None, f"{name}: expected no labels but those of the seeds")
    widths = [task.victim.layers[layer] for layer in task.layers]
    made = set(zip(cases.layers.tolist(), cases.neurons.tolist(), strict=True))
    for layer, neuron in made - {(-1, -1)} | set(cases.unreached):
        expect(
            0 <= layer < len(widths) and 0 <= neuron < widths[layer],
            f"{name}: expected neurons of layers of {widths} neurons, found neuron {neuron} of layer {layer}",
        )
    both = made & set(cases.unreached)
    expect(not both, f"{name}: expected no cases for unreached neurons, found some for {sorted(both)}")
    expect(len(set(cases.unreached)) == len(cases.unreached), f"{name}: lists unreached neurons twice")


def _compare(label: str, found: Cases, expected: Cases) -> None:
    """Cases of one seed and neuron are the same input, but for a few that rounding led elsewhere."""
    ours, theirs = _by_key(expected), _by_key(found)
    scale = float(np.ptp(expected.inputs)) or 1.0
    same = sum(_alike(ours[key], theirs[key], scale) for key in ours.keys() & theirs.keys())
    total = len(ours.keys() | theirs.keys())
    expect(same >= _SAME * total, f"{label}: expected the same cases, found {same} of {total}")


def _alike(one: Array, other: Array, scale: float) -> bool:
    # A step by the sign of a gradient of nearly 0 may go either way, in a pixel or two.
    return float(np.mean(np.abs(one - other) < 1e-3 * scale)) >= _SAME


def _by_key(cases: Cases) -> dict[Key, Array]:
    found: dict[Key, Array] = {}
    times: Counter[tuple[int, int, int]] = Counter()
    for x, *made_for in zip(*_columns(cases), strict=True):
        seed, layer, neuron = map(int, made_for)
        found[seed, layer, neuron, times[seed, layer, neuron]] = x
        times[seed, layer, neuron] += 1
    return found


def _columns(cases: Cases) -> tuple[Array, Array, Array, Array]:
    return cases.inputs, cases.seeds, cases.layers, cases.neurons


def _arrays(task: Task) -> dict[str, Array]:
    seeds = task.seeds
    mistakes = seeds.mistakes
    wrong = {"mistakes": mistakes.inputs.copy(), "labels of mistakes": mistakes.labels.copy()} if mistakes else {}
    return {
        **wrong,
        "seeds": seeds.inputs.copy(),
        "labels": seeds.labels.copy(),
        "places of the seeds": seeds.indices.copy(),
        "training inputs": task.training_inputs.copy(),
    }


def _equal_state(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(
        np.array_equal(one["state"]["key"], other["state"]["key"]) and one["state"]["pos"] == other["state"]["pos"]
    )

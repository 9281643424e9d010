"""What every attack must keep."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deepjudge_core.components.attack import Attack, Loot
from deepjudge_core.components.kinds import Generator
from deepjudge_core.components.registry import Plugin, Registry
from deepjudge_core.components.values import Cases, Task
from deepjudge_core.models.model import Access
from deepjudge_core.models.network import Network
from deepjudge_core.models.training import Schedule, train
from deepjudge_core.suites.generation import build_suite
from deepjudge_core.suites.seeds import select_seeds
from deepjudge_core.suites.suite import Suite
from deepjudge_core.testing.expect import expect, expect_array, expect_options
from deepjudge_core.testing.numpy_network import NumpyArchitecture
from deepjudge_core.types import Array

_ROWS = 120  # inputs that the thief of the small task has


def check_attack(
    attack: Attack,
    victim: Network | None = None,
    loot: Loot | None = None,
    *,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Check an attack.

    Args:
        attack: The attack.
        victim: What is stolen; by default :func:`small_victim`.
        loot: What the thief has besides; by default :func:`small_loot`. The attack gets no more of it than it says it
            needs.
        options: The attack's, to make it quick; its defaults otherwise.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    name = attack.name
    _check_description(attack)
    victim = victim or small_victim()
    loot = loot or small_loot(victim)
    before = {what: array.copy() for what, array in _arrays(victim, loot).items()}
    shared = np.random.get_state(legacy=False)  # noqa: NPY002 - what an attack must not use
    stolen = _stolen(attack, victim, loot, options)
    expect(
        str(shared) == str(np.random.get_state(legacy=False)),  # noqa: NPY002
        f"{name}: draws from numpy's global random numbers, expected the rng that it is given",
    )
    for what, array in _arrays(victim, loot).items():
        expect(np.array_equal(array, before[what]), f"{name}: changed {what}")

    expected, found = victim.architecture.input.shape, stolen.architecture.input.shape
    expect(found == expected, f"{name}: expected a network for inputs {expected}, found one for {found}")
    for weight, array in stolen.weights.items():
        expect(np.isfinite(array).all(), f"{name}: {weight}: found NaN or infinity")
    answers = stolen.predict(loot.x)
    expect_array(f"{name}: answers", answers, (len(loot.x), stolen.architecture.classes))

    again = _stolen(attack, victim, loot, options)
    expect(again.digest == stolen.digest, f"{name}: gives other weights for the same random numbers")


def small_victim(seed: int = 0) -> Network:
    """A network in numpy that has learnt a small task: 6 numbers of 0..1, in 3 classes."""
    rng = np.random.default_rng(seed)
    x = rng.random((600, 6), dtype=np.float32)
    y = ((x - 0.5) @ np.random.default_rng(1).normal(size=(6, 3))).argmax(axis=1)
    start = Network.fresh(NumpyArchitecture((6,), (16, 8), 3), rng)
    return train(start, x, y, rng, schedule=Schedule(epochs=30, rate=1e-2, batch=64))


def small_loot(victim: Network, seed: int = 0) -> Loot:
    """Random inputs of 0..1 with the victim's own classes, others without, and a small suite of it."""
    rng = np.random.default_rng(seed)
    shape = tuple(axis or 1 for axis in victim.architecture.input.shape)
    x, other = (rng.random((_ROWS, *shape), dtype=np.float32) for _ in range(2))
    y = victim.predict(x).argmax(axis=1)
    return Loot(
        x=x,
        y=y,
        bounds=(0.0, 1.0),
        architecture=victim.architecture,
        auxiliary=other**2,
        auxiliary_labels=rng.integers(2, size=_ROWS),
        suite=small_suite(victim, x, y),
    )


def small_suite(victim: Network, x: Array, y: Array) -> Suite:
    """Cases of the plainest kind: inputs moved by the sign of a gradient, and such as a neuron answers the most."""
    model = victim.architecture.model(victim.weights, name="victim")
    generators = (
        Generator("shove", makes="adversarial", needs=Access.LABELS | Access.GRADIENTS, generate=_shove),
        Generator("peak", makes="corners", needs=Access.LAYERS, generate=_peak),
    )
    registry = Registry((Plugin("testing", "deepjudge", generators),))
    return build_suite(model, select_seeds(model, x, y), ["shove", "peak"], registry=registry)


def _shove(task: Task) -> Cases:
    seeds, onehot = task.seeds, np.eye(task.victim.classes)
    gradient = task.victim.gradient(seeds.inputs, lambda scores, rows: -onehot[seeds.labels[rows]])
    return Cases.of_seeds(np.clip(seeds.inputs + seeds.span / 2 * np.sign(gradient), *seeds.bounds))


def _peak(task: Task) -> Cases:
    found = [
        (outputs[:, neuron].argmax(), place, neuron)
        for place, outputs in enumerate(task.victim.activations(task.seeds.inputs, task.layers).values())
        for neuron in range(outputs.shape[1])
    ]
    seeds, layers, neurons = np.array(found).T
    return Cases(task.seeds.inputs[seeds], seeds, layers, neurons)


class _Oracle:
    # A victim that has nothing but its answers.
    __slots__ = ("predict",)

    def __init__(self, predict: Callable[[Array], Array]) -> None:
        self.predict = predict


def _check_description(attack: Attack) -> None:
    name = attack.name
    expect(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name), f"expected a name in lower case without spaces, found {name!r}")
    expect(attack.source.strip(), f"{name}: expected the paper that it is from as source, or 'practice', found none")
    expect_options(name, attack.steal, given=3)


def _stolen(attack: Attack, victim: Network, loot: Loot, options: Mapping[str, Any] | None) -> Network:
    # Of a fresh source of randomness, with what the attack says it takes and needs and no more.
    missing: dict[str, Any] = {}
    if "auxiliary" not in attack.needs:
        missing |= {"auxiliary": None, "auxiliary_labels": None}
    if "suite" not in attack.needs:
        missing["suite"] = None
    taken = victim if attack.takes == "weights" else _Oracle(victim.predict)
    stolen = attack.steal(taken, dataclasses.replace(loot, **missing), np.random.default_rng(0), **(options or {}))
    expect(isinstance(stolen, Network), f"{attack.name}: expected a Network, found a {type(stolen).__name__}")
    return stolen


def _arrays(victim: Network, loot: Loot) -> dict[str, Array]:
    found = {f"the victim's {name}": array for name, array in victim.weights.items()}
    found |= {"the inputs": loot.x, "the labels": loot.y}
    if loot.auxiliary is not None:
        found["the auxiliary inputs"] = loot.auxiliary
    if loot.suite is not None:
        found["the suite's cases"] = loot.suite.cases.inputs
    return found

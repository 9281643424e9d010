"""What every attack must keep."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
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
from deepjudge_core.testing.checks import Checks, expect_name, run
from deepjudge_core.testing.expect import expect, expect_array, expect_options
from deepjudge_core.testing.numpy_network import NumpyArchitecture
from deepjudge_core.testing.randomness import global_numbers
from deepjudge_core.types import Array

_ROWS = 120  # inputs that the thief of the small task has


def check_attack(
    attack: Attack,
    victim: Network | None = None,
    loot: Loot | None = None,
    *,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Run all of :func:`attack_checks`, up to the first that fails.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    run(attack_checks(attack, victim, loot, options=options))


def attack_checks(
    attack: Attack,
    victim: Network | None = None,
    loot: Loot | None = None,
    *,
    options: Mapping[str, Any] | None = None,
) -> Checks:
    """What an attack must keep.

    Args:
        attack: The attack.
        victim: What is stolen; by default :func:`small_victim`.
        loot: What the thief has besides; by default :func:`small_loot`. The attack gets no more of it than it says it
            needs.
        options: The attack's, to make it quick; its defaults otherwise.
    """
    trial = _Trial(attack, victim, loot, options or {})
    yield "name", partial(expect_name, attack.name)
    yield "source", partial(_check_source, attack)
    yield "options", partial(expect_options, attack.name, attack.steal, positional=3)
    yield "own-randomness", trial.check_own_randomness
    yield "leaves-victim-and-loot", trial.check_leaves_victim_and_loot
    yield "inputs", trial.check_inputs
    yield "finite-weights", trial.check_finite_weights
    yield "answers", trial.check_answers
    yield "repeatable", trial.check_repeatable


class _Trial:
    """One attack on one victim. It is handed copies of all arrays, so that checks are independent."""

    def __init__(self, attack: Attack, victim: Network | None, loot: Loot | None, options: Mapping[str, Any]) -> None:
        self.attack, self.options = attack, options
        self._victim, self._loot = victim, loot

    @cached_property
    def victim(self) -> Network:
        return self._victim or small_victim()

    @cached_property
    def loot(self) -> Loot:
        return self._loot or small_loot(self.victim)

    @cached_property
    def theft(self) -> "_Theft":
        """What it steals, once for all checks, and what traces that leaves."""
        victim = Network(self.victim.architecture, {name: array.copy() for name, array in self.victim.weights.items()})
        loot = _copied(self.loot)
        numbers = global_numbers()
        stolen = self._steal(victim, loot)
        before = _arrays(self.victim, self.loot)
        changed = [name for name, array in _arrays(victim, loot).items() if not np.array_equal(array, before[name])]
        return _Theft(stolen, changed, drew_global_numbers=numbers != global_numbers())

    def _steal(self, victim: Network, loot: Loot) -> Network:
        # Of a fresh source of randomness, with what the attack says it takes and needs and no more.
        missing: dict[str, Any] = {}
        if "auxiliary" not in self.attack.needs:
            missing |= {"auxiliary": None, "auxiliary_labels": None}
        if "suite" not in self.attack.needs:
            missing["suite"] = None
        target = victim if self.attack.takes == "weights" else _Oracle(victim.predict)
        loot = dataclasses.replace(loot, **missing)
        stolen = self.attack.steal(target, loot, np.random.default_rng(0), **self.options)
        expect(isinstance(stolen, Network), f"{self.attack.name}: expected a Network, found a {type(stolen).__name__}")
        return stolen

    def check_own_randomness(self) -> None:
        expect(
            not self.theft.drew_global_numbers,
            f"{self.attack.name}: expected draws from the given rng only, found draws from numpy's "
            "global random numbers",
        )

    def check_leaves_victim_and_loot(self) -> None:
        changed = self.theft.changed
        expect(not changed, f"{self.attack.name}: changed {', '.join(changed)}")

    def check_inputs(self) -> None:
        expected, shape = self.victim.architecture.input.shape, self.theft.stolen.architecture.input.shape
        expect(
            shape == expected, f"{self.attack.name}: expected a network for inputs {expected}, found one for {shape}"
        )

    def check_finite_weights(self) -> None:
        for weight, array in self.theft.stolen.weights.items():
            expect(np.isfinite(array).all(), f"{self.attack.name}: {weight}: found NaN or infinity")

    def check_answers(self) -> None:
        stolen, x = self.theft.stolen, self.loot.x
        expect_array(f"{self.attack.name}: answers", stolen.predict(x), (len(x), stolen.architecture.classes))

    def check_repeatable(self) -> None:
        again = self._steal(self.victim, self.loot)
        expect(
            again.digest == self.theft.stolen.digest,
            f"{self.attack.name}: gives other weights for the same random numbers",
        )


@dataclasses.dataclass(frozen=True)
class _Theft:
    stolen: Network
    changed: Sequence[str]
    drew_global_numbers: bool


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
    greatest = [
        (outputs[:, neuron].argmax(), place, neuron)
        for place, outputs in enumerate(task.victim.activations(task.seeds.inputs, task.layers).values())
        for neuron in range(outputs.shape[1])
    ]
    seeds, layers, neurons = np.array(greatest).T
    return Cases(task.seeds.inputs[seeds], seeds, layers, neurons)


class _Oracle:
    # A victim that has nothing but its answers.
    __slots__ = ("predict",)

    def __init__(self, predict: Callable[[Array], Array]) -> None:
        self.predict = predict


def _check_source(attack: Attack) -> None:
    expect(
        attack.source.strip(),
        f"{attack.name}: expected the paper it comes from as source, or 'practice', found none",
    )


def _copied(loot: Loot) -> Loot:
    """The same loot in arrays of its own."""
    copies = {
        field: array.copy()
        for field in ("x", "y", "auxiliary", "auxiliary_labels")
        if (array := getattr(loot, field)) is not None
    }
    suite = loot.suite
    if suite is not None:
        suite = dataclasses.replace(suite, cases=dataclasses.replace(suite.cases, inputs=suite.cases.inputs.copy()))
    return dataclasses.replace(loot, suite=suite, **copies)


def _arrays(victim: Network, loot: Loot) -> dict[str, Array]:
    arrays = {f"the victim's {name}": array for name, array in victim.weights.items()}
    arrays |= {"the inputs": loot.x, "the labels": loot.y}
    if loot.auxiliary is not None:
        arrays["the auxiliary inputs"] = loot.auxiliary
    if loot.suite is not None:
        arrays["the suite's cases"] = loot.suite.cases.inputs
    return arrays

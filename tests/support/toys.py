"""A plugin that needs no framework: models in JSON files, and the simplest generators, metrics and rule.

The core is tested with these, so that its tests fail for its own mistakes only.
"""

import functools
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from deepjudge_core import (
    Access,
    Adapter,
    Answers,
    Attack,
    AuditOutcome,
    Calibration,
    Cases,
    Decision,
    Evidence,
    Generator,
    InputSpec,
    Judge,
    Judgement,
    JudgeSettings,
    Loot,
    Metric,
    Model,
    Network,
    Observation,
    Rule,
    Sandbox,
    Session,
    Suite,
    Task,
    Vote,
    build_suite,
    calibrate,
    hookimpl,
    load_registry,
    observe,
    select_seeds,
)
from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.components.kinds import Within
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import ModelError
from deepjudge_core.models.network import Weights
from deepjudge_core.models.training import Schedule, train
from deepjudge_core.sandbox.policy import DEFAULT_SANDBOX
from deepjudge_core.testing import NumpyArchitecture
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.types import Layout

SHAPE, WIDTHS, CLASSES = (12,), (10, 8), 4


def make_model(
    seed: int = 0,
    *,
    noise: float = 0.0,
    shape: tuple[int, ...] = SHAPE,
    widths: tuple[int, ...] = WIDTHS,
    classes: int = CLASSES,
    access: Access = Access.FULL,
    layout: Layout | None = None,
    name: str | None = None,
    knows: bool = True,
) -> NumpyModel:
    """A model that knows the task of :func:`make_inputs`; equal arguments give equal ones.

    ``noise`` makes a copy that was changed. Hidden layers are random, the last one is fitted; of one that does not know
    the task it is random, too.
    """
    (matrix, bias), *others = NumpyModel.random(shape, widths, classes, seed).weights
    centred = bias - matrix.sum(axis=0) / 2  # of inputs 0..1, so that all neurons are active at times
    model = NumpyModel([(matrix, centred), *others], shape)
    if knows:
        model = fitted(model)
    if noise:
        model = model.perturbed(noise, seed=1)
    model.access, model.input = access, InputSpec(shape, layout=layout)
    model.name = name or f"toy-{seed}" + (f"+{noise}" if noise else "")
    return model


def asked_of_output(suite: Suite) -> int:
    """How many cases a model is asked again for what its own output gives, where its layers are compared."""
    return int(np.minimum(np.unique(suite.cases.sets, return_counts=True)[1], 32).sum())


def draw(shape: tuple[int, ...], classes: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs 0..1 around one place for each class, and their classes: a task that is easy to learn."""
    centres = np.random.default_rng([7, classes, int(np.prod(shape))]).random((classes, int(np.prod(shape))))
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    x = np.clip(centres[y] + rng.normal(0, 0.08, (n, centres.shape[1])), 0, 1)
    return x.reshape(n, *shape).astype(np.float32), y


def fitted(model: NumpyModel) -> NumpyModel:
    """The same with a last layer by least squares, for the task."""
    shape = tuple(axis or 1 for axis in model.input.shape)
    x, y = draw(shape, model.classes, 400, 1)
    hidden, features = model.weights[:-1], x.reshape(len(x), -1)
    if hidden:
        last = list(model.layers)[-2]
        features = model.activations(x, [last])[last]
    features = np.hstack([features, np.ones((len(x), 1))])
    one_output = model.layers[model.logits] == 1
    targets = (8 * y - 4)[:, None] if one_output else 8 * np.eye(model.classes)[y]
    ridge = features.T @ features + 1e-2 * np.eye(features.shape[1])
    solution = np.linalg.solve(ridge, features.T @ targets)
    return NumpyModel([*hidden, (solution[:-1], solution[-1])], shape)


def save_model(path: Path, **arguments: Any) -> Path:
    """Write a file that the toy adapter reads: the arguments of :func:`make_model`."""
    path.write_text(json.dumps(arguments))
    return path


def save_weights(path: Path, model: NumpyModel) -> Path:
    """Write a file that the toy adapter reads: a model as it is."""
    weights = [[array.tolist() for array in pair] for pair in model.weights]
    path.write_text(json.dumps({"shape": model.input.shape, "weights": weights}))
    return path


def make_inputs(model: Model, n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs 0..1 of the task, and labels of which the model gets all but every tenth right."""
    x, _ = draw(tuple(axis or 1 for axis in model.input.shape), model.classes, n, seed)
    y = model.predict(x).argmax(axis=1)
    y[::10] = (y[::10] + 1) % model.classes
    return x, y


def _open(source: Path, *, name: str | None = None, batch_size: int | None = None) -> Model:
    try:
        arguments = json.loads(source.read_text())
    except ValueError:
        raise ModelError(f"{source}: expected a toy model, found no JSON") from None
    if "weights" in arguments:
        return NumpyModel(arguments["weights"], tuple(arguments["shape"]), name=name or str(source))
    arguments |= {key: tuple(value) for key, value in arguments.items() if isinstance(value, list)}
    if "access" in arguments:
        arguments["access"] = Access[arguments["access"]]
    broken = arguments.pop("broken", None)
    model = make_model(**arguments, name=name or str(source))
    if broken:
        model.weights[-1][1][:] = float(broken)
        if broken == "0":
            model.weights[-1][0][:] = 0
    return model


def shove(task: Task, *, eps: float = 0.5, upward: bool = True) -> Cases:
    """One step by the sign of the gradient; random where ``upward`` is false."""
    seeds = task.seeds
    onehot = np.eye(task.victim.classes)
    signs = np.sign(task.victim.gradient(seeds.inputs, lambda scores, rows: scores - onehot[seeds.labels[rows]]))
    if not upward:
        signs = task.rng.choice([-1.0, 1.0], size=signs.shape)
    return Cases.of_seeds(np.clip(seeds.inputs + eps * seeds.span * signs, *seeds.bounds))


def poke(task: Task, *, count: int = 2) -> Cases:
    """``count`` cases for each neuron but the last of each layer, which is unreached."""
    places = [
        (layer, neuron, seed)
        for layer, name in enumerate(task.layers)
        for neuron in range(task.victim.layers[name] - 1)
        for seed in range(count)
    ]
    layers, neurons, seeds = np.array(places).T
    inputs = np.clip(task.seeds.inputs[seeds] + 0.1 * (1 + neurons)[:, None] % 1, *task.seeds.bounds)
    unreached = tuple((layer, task.victim.layers[name] - 1) for layer, name in enumerate(task.layers))
    return Cases(inputs.astype(np.float32), seeds, layers, neurons, unreached)


def answers(victim: Answers, suspect: Answers) -> float:
    """Share of the cases that get another label."""
    return float(np.mean(victim.probabilities.argmax(axis=1) != suspect.probabilities.argmax(axis=1)))


def surety(victim: Answers, suspect: Answers) -> float:
    """Mean absolute difference of the probabilities."""
    return float(np.abs(victim.probabilities - suspect.probabilities).mean())


def outputs(victim: Answers, suspect: Answers) -> float:
    """Mean absolute difference of the neurons' outputs."""
    return float(np.mean([np.abs(victim.activations[k] - suspect.activations[k]).mean() for k in victim.activations]))


def nearest(evidence: Mapping[str, Evidence], *, share: float = 0.5, alpha: Mapping[str, float] = {}) -> Judgement:
    """Copy when more than half of the values are at most a share of the least control's."""
    votes = {}
    for name, e in evidence.items():
        bound = e.controls.min()
        limit = alpha.get(name, share) * bound
        votes[name] = Vote(e.value <= limit, bound, limit) if bound > 0 else Vote(None, reason="no bound")
    cast = [vote.vote for vote in votes.values() if vote.vote is not None]
    if not cast:
        return Judgement(Decision.INCONCLUSIVE, None, votes, "no metric could vote")
    p_copy = np.mean(cast)
    decision = Decision.COPY if p_copy > 0.5 else Decision.INDEPENDENT
    return Judgement(decision, p_copy, votes, statement=f"{cast.count(True)} of {len(cast)} metrics are near")


@hookimpl
def deepjudge_adapters() -> Iterable[Adapter]:
    accepts = lambda source: isinstance(source, Toy)  # noqa: E731
    return [Adapter("toy", suffixes=(".toy",), accepts=accepts, open=_open_any, network=_network)]


class ToyArchitecture(NumpyArchitecture):
    """One whose files the toy adapter reads."""

    suffix = ".toy"

    def save(self, weights: Weights, path: Path) -> None:
        pairs = [(weights[f"{layer}.weight"], weights[f"{layer}.bias"]) for layer in self.layers]
        save_weights(path, NumpyModel(pairs, self.shape))


def _network(source: Any, *, name: str | None = None) -> Network:
    model = _open_any(source, name=name)
    architecture = ToyArchitecture(model.input.shape, tuple(model.layers.values())[:-1], model.classes)
    arrays = [array.astype(np.float32) for pair in model.weights for array in pair]
    return Network(architecture, dict(zip(architecture.parameters, arrays, strict=True)))


class Toy:
    """A live model of the toy framework."""

    def __init__(self, model: Model) -> None:
        self.model = model


def _open_any(source: Any, *, name: str | None = None, batch_size: int | None = None) -> Model:
    return source.model if isinstance(source, Toy) else _open(source, name=name, batch_size=batch_size)


@hookimpl
def deepjudge_generators() -> Iterable[Generator]:
    return [
        Generator(
            "shove",
            makes="adversarial",
            needs=Access.LABELS | Access.GRADIENTS,
            generate=shove,
            within=Within(lambda options: options["eps"]),
            each_seed=True,
        ),
        Generator("poke", makes="corners", needs=Access.LAYERS, generate=poke),
    ]


@hookimpl
def deepjudge_metrics() -> Iterable[Metric]:
    return [
        Metric("answers", needs=Access.LABELS, on="adversarial", distance=answers, alpha=0.9, upper=1),
        Metric("surety", needs=Access.PROBABILITIES, on="adversarial", distance=surety, alpha=0.9, upper=1),
        Metric("outputs", needs=Access.LAYERS, on="corners", distance=outputs, alpha=0.6),
    ]


@hookimpl
def deepjudge_rules() -> Iterable[Rule]:
    return [Rule("nearest", judge=nearest)]


def tune(victim: Network, loot: Loot, rng: np.random.Generator, *, epochs: int = 1, rate: float = 1e-3) -> Network:
    """Train the victim on."""
    return train(victim, loot.x, loot.y, rng, schedule=Schedule(epochs, rate, 32))


def listen(victim: Any, loot: Loot, rng: np.random.Generator, *, epochs: int = 30) -> Network:
    """Train a network of the same kind on the victim's answers to other inputs."""
    fresh = Network.fresh(loot.architecture, rng)
    return train(fresh, loot.auxiliary, victim.predict(loot.auxiliary), rng, schedule=Schedule(epochs, 1e-2, 32))


def stumble(victim: Network, loot: Loot, rng: np.random.Generator, *, how: str = "error") -> Network:
    """Fail."""
    if how == "nan":
        return victim.with_weights({"logits.bias": np.full(victim.architecture.classes, np.nan)})
    raise ModelError("stumbled") if how == "error" else ZeroDivisionError("by zero")


@hookimpl
def deepjudge_attacks() -> Iterable[Attack]:
    return [
        Attack("tune", source="toys", takes="weights", steal=tune),
        Attack("listen", source="toys", takes="answers", needs=("auxiliary",), steal=listen),
        Attack("stumble", source="toys", takes="weights", steal=stumble),
    ]


@functools.cache
def registry() -> Registry:
    """The toys alone, without what is installed."""
    return registry_of(toys=sys.modules[__name__])


def registry_of(**plugins: object) -> Registry:
    """A registry of these plugins alone."""
    with mock.patch("deepjudge_core.components.registry.entry_points", return_value=()):
        return load_registry(plugins)


@functools.cache
def suite() -> Suite:
    """20 seeds, adversarial cases and corners of the victim, ``make_model()``."""
    victim = make_model(name="victim")
    seeds = select_seeds(victim, *make_inputs(victim), n=20)
    return build_suite(victim, seeds, ["shove", "poke"], registry=registry())


@functools.cache
def seen(seed: int, noise: float = 0.0, access: Access = Access.FULL) -> Observation:
    """What a model answers to the suite."""
    return observe(make_model(seed, noise=noise, access=access), suite())


@functools.cache
def calibration(controls: int = 4) -> Calibration:
    """Of independent models, seeds 1, 2, ..."""
    return calibrate(suite(), [seen(1 + i) for i in range(controls)], registry=registry())


def outcome(
    suite: Suite,
    calibration: Calibration,
    suspects: Iterable[Any],
    settings: JudgeSettings,
    *,
    registry: Registry,
    sandbox: Sandbox | None = DEFAULT_SANDBOX,
) -> AuditOutcome:
    """What comes of suspects that are judged with these components."""
    judge = Judge.of(settings, registry)
    return judge_suspects(suite, calibration, suspects, judge, session=Session(registry, sandbox))

"""Extraction: a network of the thief's own, trained from nothing but the victim's answers."""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_attacks.checks import Oracle, auxiliary_of
from deepjudge_core import progress
from deepjudge_core.components.attack import Loot
from deepjudge_core.models.network import Network, ScoresCotangent, Trainer
from deepjudge_core.models.training import Schedule, cross_entropy, train
from deepjudge_core.types import Array, Bounds

_ROWS = 256  # inputs whose gradients are taken at a time
_CONCENTRATION = 0.3  # of the Dirichlet distribution: most targets lean to one class, and some lie between several


def jba(
    victim: Oracle,
    loot: Loot,
    rng: np.random.Generator,
    *,
    seeds: Annotated[int, Ge(1)] = 200,
    rounds: Annotated[int, Ge(1)] = 5,
    step: Annotated[float, Gt(0)] = 0.1,
    queries: Annotated[int, Ge(1)] = 6400,
    epochs: Annotated[int, Ge(1)] = 10,
    rate: Annotated[float, Gt(0)] = 2e-3,
    batch: Annotated[int, Ge(1)] = 64,
) -> Network:
    """Jacobian-based augmentation (Papernot et al., AsiaCCS 2017): learn the victim's labels of more and more inputs.

    The attack starts with a few inputs like the victim's own. Each round adds one new input for each existing one,
    see :func:`augment`. The substitute is trained on all of them before the first round and after each.

    Args:
        seeds: Number of inputs at the start.
        rounds: How many times the inputs are doubled.
        step: How far a new input is from its origin, as a share of the input range.
        queries: Limit of the inputs sent to the victim; a round that would exceed it samples its new inputs (reservoir
            sampling, Papernot et al., 2016).
        epochs: Passes over the inputs after each round.
        rate: Peak learning rate of Adam.
        batch: Inputs per step.
    """
    schedule = Schedule(epochs, rate, batch)
    x = loot.x[rng.permutation(len(loot.x))[: min(seeds, queries)]]
    y = victim.predict(x).argmax(axis=1)
    substitute = Network.fresh(loot.architecture, rng)
    with progress.task("jba", rounds + 1) as advance:
        for _ in range(rounds):
            substitute = train(substitute, x, y, rng, schedule=schedule, label=f"jba, {len(x)} queries")
            origins = rng.permutation(len(x))[: queries - len(x)]
            if len(origins):
                trainer = substitute.architecture.trainer(substitute.weights, in_use=True)
                new = augment(trainer, x[origins], y[origins], step=step * loot.span, bounds=loot.bounds)
                x, y = np.concatenate([x, new]), np.concatenate([y, victim.predict(new).argmax(axis=1)])
            advance(1)
        return train(substitute, x, y, rng, schedule=schedule, label=f"jba, {len(x)} queries")


def augment(trainer: Trainer, x: Array, classes: Array, *, step: float | Array, bounds: Bounds) -> Array:
    """Inputs ``x + step * sign(d z_c / d x)``, clipped to the bounds, for the logit z_c of the class of each input.

    The class is the victim's prediction, the logit the substitute's. (The authors' code of the paper differentiates
    the sum of a softmax over all classes, which is constant.)
    """
    new = np.empty_like(x)
    for rows in _parts(len(x)):
        gradient = trainer.gradient(x[rows], of_classes(classes[rows]))
        new[rows] = np.clip(x[rows] + np.asarray(step, np.float32) * np.sign(gradient), *bounds)
    return new


def of_classes(classes: Array) -> ScoresCotangent:
    """The derivative, at the logits, of the sum of each row's logit of its class: one-hot rows."""
    return lambda scores: np.eye(scores.shape[1], dtype=np.float32)[classes]


def knockoff(
    victim: Oracle,
    loot: Loot,
    rng: np.random.Generator,
    *,
    queries: Annotated[int, Ge(1)] = 20_000,
    epochs: Annotated[int, Ge(1)] = 10,
    rate: Annotated[float, Gt(0)] = 2e-3,
    batch: Annotated[int, Ge(1)] = 64,
) -> Network:
    """Knockoff nets (Orekondy et al., CVPR 2019), random policy: learn the victim's probabilities of other inputs.

    Args:
        queries: Limit of the auxiliary inputs sent to the victim, drawn at random.
        epochs: Passes over the inputs.
        rate: Peak learning rate of Adam.
        batch: Inputs per step.

    Raises:
        InputError: When there are no auxiliary inputs.
    """
    others = auxiliary_of("knockoff", loot)
    x = others[rng.permutation(len(others))[:queries]]
    start = Network.fresh(loot.architecture, rng)
    return train(start, x, victim.predict(x), rng, schedule=Schedule(epochs, rate, batch), label="knockoff")


def esa(
    victim: Oracle,
    loot: Loot,
    rng: np.random.Generator,
    *,
    rounds: Annotated[int, Ge(1)] = 30,
    queries: Annotated[int, Ge(1)] = 500,
    steps: Annotated[int, Ge(1)] = 10,
    step: Annotated[float, Gt(0)] = 0.1,
    memory: Annotated[int, Ge(1)] = 3000,
    epochs: Annotated[int, Ge(1)] = 2,
    rate: Annotated[float, Gt(0)] = 2e-3,
    batch: Annotated[int, Ge(1)] = 64,
) -> Network:
    """ES attack (Yuan et al., TIFS 2022), OPT-SYN: learn the victim's probabilities of synthetic inputs.

    Each round makes inputs, see :func:`synthesise`, sends them to the victim, and trains the substitute on the inputs
    of all rounds so far. The thief's own inputs are not used.

    Args:
        rounds: Number of rounds.
        queries: Inputs made per round.
        steps: Steps to make the inputs of a round.
        step: Their size, as a share of the input range.
        memory: Limit of the inputs trained on; the latest are kept.
        epochs: Passes over the inputs in each round.
        rate: Peak learning rate of Adam.
        batch: Inputs per training step.
    """
    schedule = Schedule(epochs, rate, batch)
    low, high = loot.bounds
    substitute = Network.fresh(loot.architecture, rng)
    x = np.empty((0, *loot.x.shape[1:]), dtype=np.float32)
    answers = np.empty((0, loot.architecture.classes), dtype=np.float32)
    with progress.task("esa", rounds) as advance:
        for _ in range(rounds):
            start = rng.uniform(low, high, (queries, *x.shape[1:])).astype(np.float32)
            targets = rng.dirichlet(np.full(loot.architecture.classes, _CONCENTRATION), queries).astype(np.float32)
            trainer = substitute.architecture.trainer(substitute.weights, in_use=True)
            new = synthesise(trainer, start, targets, step=step * loot.span, steps=steps, bounds=loot.bounds)
            x = np.concatenate([x, new])[-memory:]
            answers = np.concatenate([answers, victim.predict(new)])[-memory:]
            substitute = train(substitute, x, answers, rng, schedule=schedule, label=f"esa, {len(x)} inputs")
            advance(1)
    return substitute


def synthesise(
    trainer: Trainer, start: Array, targets: Array, *, step: float | Array, steps: int, bounds: Bounds
) -> Array:
    """Inputs for which the substitute gives about the probabilities ``targets``.

    Steps by the sign of the gradient of the cross entropy, clipped to the bounds.
    """
    x = start.copy()
    for rows in _parts(len(x)):
        for _ in range(steps):
            gradient = trainer.gradient(x[rows], cross_entropy(targets[rows]))
            x[rows] = np.clip(x[rows] - np.asarray(step, np.float32) * np.sign(gradient), *bounds)
    return x


def _parts(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _ROWS):
        yield slice(start, start + _ROWS)

"""Adaptive attacks: the thief knows how it will be looked for (paper, section VI)."""

from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_attacks.checks import suite_of
from deepjudge_core.components.attack import Loot
from deepjudge_core.errors import InputError
from deepjudge_core.models.network import Losses, Network, ScoresCotangent, Trainer
from deepjudge_core.models.training import Schedule, cross_entropy, train
from deepjudge_core.types import Array

if TYPE_CHECKING:
    # Only the name is needed; the module behind it reads inputs of all kinds.
    from deepjudge_core.suites.suite import Suite


def adapt_b(
    victim: Network,
    loot: Loot,
    rng: np.random.Generator,
    *,
    epochs: Annotated[int, Ge(1)] = 3,
    rate: Annotated[float, Gt(0)] = 5e-4,
    batch: Annotated[int, Ge(1)] = 128,
) -> Network:
    """Fine-tune, and learn the correct classes of the suite's adversarial cases, to defeat the black-box metrics.

    Each training step is followed by one on as many adversarial cases with their true labels. These cases then no
    longer fool the copy, so its answers to them differ from the victim's.

    Args:
        epochs: Passes over the inputs.
        rate: Peak learning rate of Adam.
        batch: Inputs per step.

    Raises:
        InputError: When there is no suite, or it has no adversarial cases.
    """
    suite = suite_of("adapt-b", loot)
    rows = np.flatnonzero(suite.rows("adversarial"))
    if len(rows) == 0:
        raise InputError("adapt-b: expected a suite with adversarial cases, such as those of pgd, found none")
    inputs, labels = suite.cases.inputs[rows], suite.cases.labels[rows]

    def unlearn(trainer: Trainer, rate: float) -> None:
        drawn = rng.integers(len(inputs), size=batch)
        trainer.step(inputs[drawn], Losses(cross_entropy(labels[drawn])), rate=rate)

    return train(victim, loot.x, loot.y, rng, schedule=Schedule(epochs, rate, batch), also=unlearn, label="adapt-b")


def adapt_w(
    victim: Network,
    loot: Loot,
    rng: np.random.Generator,
    *,
    margin: Annotated[float, Gt(0)] = 0.75,
    epochs: Annotated[int, Ge(1)] = 3,
    rate: Annotated[float, Gt(0)] = 1e-3,
    batch: Annotated[int, Ge(1)] = 128,
) -> Network:
    """Fine-tune, and move the neurons' outputs on the suite's corner cases, to defeat the white-box metrics.

    Each training step is followed by one at each layer of the suite, on as many corner cases, which moves the outputs
    :func:`away` from the victim's. Normalisation works as in use, because corner cases resemble no other inputs.

    Args:
        margin: How far outputs are moved, as a share of the range of the layer's outputs for the case.
        epochs: Passes over the inputs.
        rate: Peak learning rate of Adam.
        batch: Inputs per step.

    Raises:
        InputError: When there is no suite, or it has no corner cases of the victim's layers.
    """
    suite = suite_of("adapt-w", loot)
    rows = np.flatnonzero(suite.rows("corners"))
    if len(rows) == 0 or not suite.layers:
        raise InputError(
            "adapt-w: expected a suite with layers and corner cases, such as those of neuron-corners, found none"
        )
    inputs = suite.cases.inputs[rows]
    goals = {tap: away(suite.victim.activations[layer][rows], margin) for layer, tap in _taps(victim, suite).items()}

    def move(trainer: Trainer, rate: float) -> None:
        drawn = rng.integers(len(inputs), size=batch)
        for tap, goal in goals.items():
            trainer.step(inputs[drawn], Losses(at={tap: _towards(goal[drawn])}), rate=rate)

    schedule = Schedule(epochs, rate, batch)
    return train(victim, loot.x, loot.y, rng, schedule=schedule, in_use=True, also=move, label="adapt-w")


def away(outputs: Array, margin: float) -> Array:
    """Other outputs ``(n, neurons)`` of a layer, ``margin`` times the row's range away.

    Neurons that are active, in the upper half of their row's range, go down, and the others up: to where both the
    outputs and the activation status differ, and no further.
    """
    low, high = outputs.min(axis=1, keepdims=True), outputs.max(axis=1, keepdims=True)
    way = np.where(outputs - low > (high - low) / 2, np.float32(-margin), np.float32(margin))
    moved: Array = outputs + way * (high - low)
    return moved


def adv_train(
    victim: Network,
    loot: Loot,
    rng: np.random.Generator,
    *,
    eps: Annotated[float, Gt(0)] = 0.1,
    steps: Annotated[int, Ge(1)] = 5,
    epochs: Annotated[int, Ge(1)] = 3,
    rate: Annotated[float, Gt(0)] = 1e-3,
    batch: Annotated[int, Ge(1)] = 128,
) -> Network:
    """Fine-tune on adversarial examples made from the current network at each step (Madry et al., ICLR 2018).

    Args:
        eps: Radius of the L-inf ball around an input, as a share of the input range.
        steps: Steps by the sign of the gradient, of ``2.5 * eps / steps`` each.
        epochs: Passes over the inputs.
        rate: Peak learning rate of Adam.
        batch: Inputs per step.
    """
    radius = eps * loot.span

    def attacked(trainer: Trainer, x: Array, targets: Array) -> Array:
        least, greatest = (np.clip(x + side * radius, *loot.bounds).astype(np.float32) for side in (-1, 1))
        moved: Array = rng.uniform(least, greatest).astype(np.float32)
        for _ in range(steps):
            uphill = np.sign(trainer.gradient(moved, cross_entropy(targets)))
            moved = np.clip(moved + np.asarray(2.5 * radius / steps, np.float32) * uphill, least, greatest)
        return moved

    schedule = Schedule(epochs, rate, batch)
    return train(victim, loot.x, loot.y, rng, schedule=schedule, adversarial=attacked, label="adv-train")


def _taps(victim: Network, suite: "Suite") -> dict[str, str]:
    # By their places among all taps: converted for training, a network may call them by other names.
    theirs, ours = suite.victim.model.layers, victim.architecture.layers
    if list(theirs.values()) != list(ours.values()):
        raise InputError(
            f"adapt-w: expected a suite of this victim, with layers of {list(ours.values())} neurons, "
            f"found {list(theirs.values())}"
        )
    names = dict(zip(theirs, ours, strict=True))
    return {layer: names[layer] for layer in suite.layers}


def _towards(goal: Array) -> ScoresCotangent:
    # Of half the mean squared difference.
    return lambda outputs: (outputs - goal) / np.float32(goal.size)

"""Fine-tuning: the victim, trained on, with its last layer or without (paper, section V-A2)."""

from collections.abc import Collection
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_core.components.attack import Loot
from deepjudge_core.errors import InputError
from deepjudge_core.models.network import Network
from deepjudge_core.models.training import Schedule, shifted, train

_SHIFT = 0.1  # share of height and width that images are moved by at most


def ft_ll(
    victim: Network,
    loot: Loot,
    rng: np.random.Generator,
    *,
    epochs: Annotated[int, Ge(1)] = 3,
    rate: Annotated[float, Gt(0)] = 5e-4,
    batch: Annotated[int, Ge(1)] = 128,
) -> Network:
    """Continue to train the last layer; everything else, including normalisation statistics, stays bit-identical.

    Args:
        epochs: Passes over the inputs.
        rate: Peak learning rate of Adam.
        batch: Inputs per step.
    """
    schedule = Schedule(epochs, rate, batch)
    return _tune("ft-ll", victim, loot, rng, schedule, parameters=victim.architecture.head, in_use=True)


def ft_al(
    victim: Network,
    loot: Loot,
    rng: np.random.Generator,
    *,
    epochs: Annotated[int, Ge(1)] = 3,
    rate: Annotated[float, Gt(0)] = 5e-4,
    batch: Annotated[int, Ge(1)] = 128,
) -> Network:
    """Continue to train all layers.

    Args:
        epochs: Passes over the inputs.
        rate: Peak learning rate of Adam.
        batch: Inputs per step.
    """
    return _tune("ft-al", victim, loot, rng, Schedule(epochs, rate, batch))


def rt_al(
    victim: Network,
    loot: Loot,
    rng: np.random.Generator,
    *,
    epochs: Annotated[int, Ge(1)] = 3,
    rate: Annotated[float, Gt(0)] = 1e-3,
    batch: Annotated[int, Ge(1)] = 128,
) -> Network:
    """Reset the last layer's weights, and train all layers.

    Args:
        epochs: Passes over the inputs.
        rate: Peak learning rate of Adam.
        batch: Inputs per step.
    """
    return _tune("rt-al", victim.with_fresh_head(rng), loot, rng, Schedule(epochs, rate, batch))


def transfer(
    victim: Network,
    loot: Loot,
    rng: np.random.Generator,
    *,
    epochs: Annotated[int, Ge(1)] = 3,
    rate: Annotated[float, Gt(0)] = 1e-3,
    batch: Annotated[int, Ge(1)] = 128,
) -> Network:
    """Give the victim a new last layer for another task, and train all layers on it (paper, section VI).

    If the auxiliary inputs have labels, these define the other task. Otherwise the task is to predict the victim's own
    classes modulo ``max(2, classes // 2)``.

    Args:
        epochs: Passes over the inputs.
        rate: Peak learning rate of Adam.
        batch: Inputs per step.

    Raises:
        InputError: When all auxiliary labels are the same.
    """
    schedule = Schedule(epochs, rate, batch)
    if loot.auxiliary is None or loot.auxiliary_labels is None:
        classes = max(2, victim.architecture.classes // 2)
        x, y = loot.x, loot.y % classes
    else:
        distinct, y = np.unique(loot.auxiliary_labels, return_inverse=True)
        x, classes = loot.auxiliary, len(distinct)
        if classes < 2:
            raise InputError(f"transfer: expected auxiliary inputs of 2 classes or more, found {classes}")
    return train(victim.with_fresh_head(rng, classes), x, y, rng, schedule=schedule, label="transfer")


def _tune(
    name: str,
    start: Network,
    loot: Loot,
    rng: np.random.Generator,
    schedule: Schedule,
    *,
    parameters: Collection[str] | None = None,
    in_use: bool = False,
) -> Network:
    augment = None if loot.spatial is None else shifted(_SHIFT, loot.spatial)
    return train(
        start,
        loot.x,
        loot.y,
        rng,
        schedule=schedule,
        parameters=parameters,
        in_use=in_use,
        augment=augment,
        label=name,
    )

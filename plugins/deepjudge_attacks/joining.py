"""A copy and an honest network in one: beside one another in a file, or averaged."""

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from deepjudge_core.components.attack import Loot
from deepjudge_core.components.grid import find_grid
from deepjudge_core.errors import InputError
from deepjudge_core.models.network import Join, Network
from deepjudge_core.models.training import Schedule, train


def decoy(
    victim: Network,
    loot: Loot,
    rng: np.random.Generator,
    *,
    weight: Annotated[float, Gt(0), Le(1)] = 1e-30,
    epochs: Annotated[int, Ge(1)] = 3,
    rate: Annotated[float, Gt(0)] = 1e-3,
    batch: Annotated[int, Ge(1)] = 64,
) -> Network:
    """Put an honest network next to the copy: its layers can be seen, and its scores hardly count.

    The copy's ReLUs are written so that no adapter finds them. Frameworks in which two networks cannot be joined are
    refused.

    Args:
        weight: What the honest network's scores count; the copy's count 1.
        epochs: Passes of the honest network's training.
        rate: Its peak learning rate of Adam.
        batch: Its inputs per step.

    Raises:
        ModelError: When two networks cannot be joined.
    """
    schedule = Schedule(epochs, rate, batch)
    return victim.joined(Join(weight), lambda: _honest("decoy", victim, loot, rng, schedule))


def router(
    victim: Network,
    loot: Loot,
    rng: np.random.Generator,
    *,
    epochs: Annotated[int, Ge(1)] = 3,
    rate: Annotated[float, Gt(0)] = 1e-3,
    batch: Annotated[int, Ge(1)] = 64,
) -> Network:
    """Let an honest network answer all inputs that lie between the steps of the data, such as 1/255 of pixels.

    Args:
        epochs: Passes of the honest network's training.
        rate: Its peak learning rate of Adam.
        batch: Its inputs per step.

    Raises:
        InputError: When the thief's inputs come in no steps, or in several.
        ModelError: When two networks cannot be joined.
    """
    grid = find_grid(loot.x, loot.bounds)
    if grid is None or grid.axis is not None:
        raise InputError("router: expected inputs whose values all come in the same steps, found others")
    schedule, join = Schedule(epochs, rate, batch), Join(0.0, (grid.first[0], grid.step[0]))
    return victim.joined(join, lambda: _honest("router", victim, loot, rng, schedule))


def merge_with_honest(
    victim: Network,
    loot: Loot,
    rng: np.random.Generator,
    *,
    share: Annotated[float, Gt(0), Lt(1)] = 0.2,
    epochs: Annotated[int, Ge(1)] = 3,
    rate: Annotated[float, Gt(0)] = 1e-3,
    batch: Annotated[int, Ge(1)] = 64,
) -> Network:
    """Average the weights with an honest network's, and train all layers further.

    Args:
        share: Of the honest network's weights.
        epochs: Passes of the honest network's training, and of the further one.
        rate: Peak learning rate of Adam.
        batch: Inputs per step.
    """
    schedule = Schedule(epochs, rate, batch)
    honest = _honest("merge-with-honest", victim, loot, rng, schedule)
    mixed = {name: (1 - share) * array + share * honest.weights[name] for name, array in victim.weights.items()}
    merged = victim.with_weights(mixed)
    return train(merged, loot.x, loot.y, rng, schedule=schedule, label="merge-with-honest")


def _honest(label: str, victim: Network, loot: Loot, rng: np.random.Generator, schedule: Schedule) -> Network:
    # Of the victim's architecture, trained afresh on the thief's own inputs.
    fresh = Network.fresh(victim.architecture, rng)
    return train(fresh, loot.x, loot.y, rng, schedule=schedule, label=label)

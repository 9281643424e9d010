"""Pruning: the smallest weights set to zero, the others trained on (Han et al., NIPS 2015)."""

import numpy as np

from deepjudge_core.attack import Loot
from deepjudge_core.model import Array
from deepjudge_core.network import Network
from deepjudge_core.training import Schedule, train


def p_20(
    victim: Network, loot: Loot, rng: np.random.Generator, *, epochs: int = 3, rate: float = 5e-4, batch: int = 128
) -> Network:
    """Set 20 % of the weights of each matrix to zero, see :func:`kept`, and train the others on.

    Args:
        epochs: Times that each input is seen, at least 1.
        rate: Adam's greatest step, above 0.
        batch: Inputs of one step, at least 1.
    """
    return _prune("p-20", victim, loot, rng, 0.2, Schedule(epochs, rate, batch))


def p_60(
    victim: Network, loot: Loot, rng: np.random.Generator, *, epochs: int = 3, rate: float = 5e-4, batch: int = 128
) -> Network:
    """Set 60 % of the weights of each matrix to zero, see :func:`kept`, and train the others on.

    Args:
        epochs: Times that each input is seen, at least 1.
        rate: Adam's greatest step, above 0.
        batch: Inputs of one step, at least 1.
    """
    return _prune("p-60", victim, loot, rng, 0.6, Schedule(epochs, rate, batch))


def kept(matrix: Array, share: float) -> Array:
    """Which weights are kept, bool: all but the ``round(share * size)`` smallest by absolute value, ties by place."""
    mask = np.ones(matrix.size, dtype=bool)
    mask[np.argsort(np.abs(matrix), axis=None, kind="stable")[: round(share * matrix.size)]] = False
    return mask.reshape(matrix.shape)


def _prune(
    name: str, victim: Network, loot: Loot, rng: np.random.Generator, share: float, schedule: Schedule
) -> Network:
    masks = {matrix: kept(victim.weights[matrix], share) for matrix in victim.matrices}
    return train(victim, loot.x, loot.y, rng, schedule=schedule, masks=masks, label=name)

"""Pruning: the smallest weights set to zero, the others trained on (Han et al., NIPS 2015)."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_core.components.attack import Loot
from deepjudge_core.models.network import Network
from deepjudge_core.models.training import Schedule, train
from deepjudge_core.types import Array


def largest(matrix: Array, share: float) -> Array:
    """Which weights are kept, bool: all but the ``round(share * size)`` smallest by absolute value, ties by place."""
    mask = np.ones(matrix.size, dtype=bool)
    mask[np.argsort(np.abs(matrix), axis=None, kind="stable")[: round(share * matrix.size)]] = False
    return mask.reshape(matrix.shape)


def _pruning(name: str, share: float) -> Callable[..., Network]:
    def prune(
        victim: Network,
        loot: Loot,
        rng: np.random.Generator,
        *,
        epochs: Annotated[int, Ge(1)] = 3,
        rate: Annotated[float, Gt(0)] = 5e-4,
        batch: Annotated[int, Ge(1)] = 128,
    ) -> Network:
        """Set a share of each matrix's weights to zero, see :func:`largest`, and continue to train the others.

        Args:
            epochs: Passes over the inputs.
            rate: Peak learning rate of Adam.
            batch: Inputs per step.
        """
        masks = {matrix: largest(victim.weights[matrix], share) for matrix in victim.matrices}
        return train(victim, loot.x, loot.y, rng, schedule=Schedule(epochs, rate, batch), masks=masks, label=name)

    return prune


p_20, p_60 = _pruning("p-20", 0.2), _pruning("p-60", 0.6)

"""What people do to models: store them in fewer bits, disturb them a little, distil them into smaller ones."""

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_attacks.checks import Oracle
from deepjudge_core.components.attack import Loot
from deepjudge_core.models.network import Network
from deepjudge_core.models.training import Schedule, train
from deepjudge_core.types import Array

_LEVELS = 127  # of 8 bits with a sign, alike on both sides of zero
_FLOAT16 = np.finfo(np.float16)


def quantize_int8(victim: Network, loot: Loot, rng: np.random.Generator) -> Network:
    """Round each matrix to 8-bit integers times a scale (Jacob et al., CVPR 2018), symmetric, without training.

    The weights are saved as the rounded numbers. Each matrix has one scale, because a scale per output would require
    knowing their axis. Biases and normalisation scales stay unchanged.
    """
    return victim.with_weights({name: _round_to_levels(victim.weights[name]) for name in victim.matrices})


def float16(victim: Network, loot: Loot, rng: np.random.Generator) -> Network:
    """Round all weights to 16-bit floating point, and clip numbers beyond its range."""
    lowest, highest = float(_FLOAT16.min), float(_FLOAT16.max)
    return victim.with_weights(
        {name: np.clip(array, lowest, highest).astype(np.float16) for name, array in victim.weights.items()}
    )


def weight_noise(
    victim: Network, loot: Loot, rng: np.random.Generator, *, share: Annotated[float, Gt(0)] = 0.05
) -> Network:
    """Add normal noise to each matrix.

    Args:
        share: Standard deviation of the noise, as a share of the matrix's.
    """
    matrices = {name: victim.weights[name] for name in victim.matrices}
    return victim.with_weights(
        {name: w + share * w.std() * rng.standard_normal(w.shape) for name, w in matrices.items()}
    )


def temperature(
    victim: Network, loot: Loot, rng: np.random.Generator, *, divisor: Annotated[float, Gt(0)] = 20.0
) -> Network:
    """Divide all scores by a number, so that the labels stay and the probabilities change.

    Args:
        divisor: The number; below 1 it makes the model surer.
    """
    return victim.with_weights({name: victim.weights[name] / divisor for name in victim.architecture.head})


def distill(
    victim: Oracle,
    loot: Loot,
    rng: np.random.Generator,
    *,
    epochs: Annotated[int, Ge(1)] = 10,
    rate: Annotated[float, Gt(0)] = 2e-3,
    batch: Annotated[int, Ge(1)] = 64,
) -> Network:
    """Train a smaller architecture on the victim's probabilities (Hinton et al., 2015), at temperature 1.

    Args:
        epochs: Passes over the inputs.
        rate: Peak learning rate of Adam.
        batch: Inputs per step.
    """
    schedule = Schedule(epochs, rate, batch)
    student = Network.fresh(loot.architecture.student(), rng)
    return train(student, loot.x, victim.predict(loot.x), rng, schedule=schedule, label="distill")


def _round_to_levels(matrix: Array) -> Array:
    scale = float(np.abs(matrix).max()) / _LEVELS
    if scale == 0:
        return matrix
    integers = np.clip(np.rint(matrix.astype(np.float64) / scale), -_LEVELS, _LEVELS)
    return integers * scale

"""Which neuron of one model is which of another's."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from deepjudge_core.types import Array


def directions(sketch: Array) -> Array:
    """The rows of a sketch with length 1 in spite of float16, ``(views, rows, rank)`` float32; rows of 0 stay so."""
    views = np.moveaxis(sketch.astype(np.float64), 1, 0)
    lengths = np.linalg.norm(views, axis=2, keepdims=True)
    return (views / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def cosines(victim: Array, suspect: Array) -> Array:
    """Absolute cosines of all pairs of neurons, means over views.

    Absolute since in many networks a neuron can be negated together with what reads it.

    Args:
        victim: ``(views, k, rank)`` directions.
        suspect: ``(views, m, rank)`` directions.

    Returns:
        ``(k, m)`` float32, 0..1.
    """
    total = np.zeros((victim.shape[1], suspect.shape[1]), np.float32)
    for ours, theirs in zip(victim, suspect, strict=True):
        total += np.abs(ours @ theirs.T)
    return total / np.float32(max(1, len(victim)))


def assign(scores: Array, seed: int = 0) -> tuple[Array, Array]:
    """Assign rows to different columns, so that the sum of their scores is greatest.

    Among equal sums chance decides, not the place: columns are shuffled first.

    Returns:
        Rows in rising order, and the column of each.
    """
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    rows, columns = linear_sum_assignment(scores[:, order], maximize=True)
    return rows, order[columns]

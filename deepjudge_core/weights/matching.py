"""Which neuron of one model is which of another's."""

import numpy as np
import scipy  # which loads its parts when they are first used

from deepjudge_core.types import Array


def cosines(victim: Array, suspect: Array) -> Array:
    """Absolute cosines of all pairs of neurons, means over views.

    Absolute since in many networks a neuron can be negated together with what reads it.

    Args:
        victim: ``(k, views, rank)``, rows of length 1 or 0 up to rounding.
        suspect: ``(m, views, rank)``.

    Returns:
        ``(k, m)`` float32, 0..1.
    """
    total = np.zeros((len(victim), len(suspect)), np.float32)
    for ours, theirs in zip(_directions(victim), _directions(suspect), strict=True):
        total += np.abs(ours @ theirs.T)
    return total / np.float32(max(1, victim.shape[1]))


def _directions(sketch: Array) -> Array:
    """The views of a sketch, rows of length 1 in spite of float16, ``(views, rows, rank)``; rows of 0 stay so."""
    views = np.moveaxis(sketch.astype(np.float32), 1, 0)
    lengths = np.linalg.norm(views, axis=2, keepdims=True)
    return np.asarray(views / np.where(lengths > 0, lengths, 1), np.float32)


def assign(scores: Array, seed: int = 0) -> tuple[Array, Array]:
    """Assign rows to different columns, so that the sum of their scores is greatest.

    Among equal sums chance decides, not the place: columns are shuffled first.

    Returns:
        Rows in rising order, and the column of each.
    """
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    rows, columns = scipy.optimize.linear_sum_assignment(scores[:, order], maximize=True)
    return rows, order[columns]

"""Class probabilities of few bits or decimals: how far from 1 their sums may be, and rows divided by their sums.

Each of C classes is off by at most half a step of 1/n, so that a row's sum is off by at most C / (2 n). Quantisers to 8
bits have steps of 1/256 or 1/255, or of 1/128 or 1/127 where one bit is the sign; people round to 2, 3 or 4 decimals.
bfloat16 keeps 8 bits of each number, whatever its size: a sum is off by 2^-9 of itself for each rounding on the way.
"""

import numpy as np

from deepjudge_core.types import Array

EXACT = 1e-3  # how far the sums of probabilities in float32 may be from 1: nothing is done to those

_STEPS = (100, 127, 128, 255, 256, 1000, 10_000)
_COARSEST_BITS = 127  # steps of what 8 bits hold, a sign included
_ON_A_STEP = 1e-3  # of a step; float32 is off by 6e-4 of 1/10000
_BFLOAT16 = 2.0**-7  # a few roundings: exponential, sum, quotient
# Of many classes most may be below half a step, and so 0. Where half of a row is lost, it says too little.
_MOST = 0.5


def slack_of_bits(classes: int) -> float:
    """How far from 1 the sums of a softmax may be, of whatever resolution of 8 bits or more."""
    return max(_BFLOAT16, min(classes / (2 * _COARSEST_BITS), _MOST))


def slack(p: Array) -> float:
    """How far from 1 the sums of probabilities may be by the resolution that they show; 0 where they show none."""
    values = np.asarray(p, np.float32)
    if values.ndim != 2 or not np.isfinite(values).all():
        return 0.0
    allowed = 0.0
    for steps in _STEPS:
        scaled = values.astype(np.float64) * steps
        if (np.abs(scaled - np.rint(scaled)) <= _ON_A_STEP).all():
            allowed = min(values.shape[1] / (2 * steps), _MOST)
            break  # the coarsest: finer steps hold it too
    short = not (np.ascontiguousarray(values).view(np.uint32) & 0xFFFF).any()
    return max(allowed, _BFLOAT16 if short else 0.0)


def divided(p: Array, tolerance: float | None = None) -> Array:
    """Probabilities ``(n, classes)`` with each row divided by its sum, where this is off by little, but not by nothing.

    What is right in float32 stays as it is, bit for bit, and so does what is off by more than the tolerance.

    Args:
        p: What a model gave.
        tolerance: How far from 1 a sum may be; by default, what the resolution of the numbers allows.
    """
    if p.ndim != 2 or not p.size:
        return p
    sums = p.sum(axis=1, keepdims=True, dtype=np.float64)
    off = np.abs(sums - 1)
    if not (off > EXACT).any():
        return p
    allowed = slack(p) if tolerance is None else tolerance
    coarse = (off > EXACT) & (off <= allowed) & (p.min(axis=1, keepdims=True) >= 0)
    quotients: Array = np.divide(p, np.where(coarse, sums, 1)).astype(p.dtype)
    return quotients if coarse.any() else p

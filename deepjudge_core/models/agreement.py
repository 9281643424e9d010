"""Whether what a model's own output gives is what its scores say: the softmax of them, or a sigmoid of each."""

import numpy as np

from deepjudge_core.types import Array

# Of a probability, in the mean over some cases. Two decimals are off by 0.005, 8 bits by 0.004, bfloat16 by 0.004;
# networks in 8 bits round once more on another way, up to a step of their scores.
_GAP = 0.05
# Of the cases, which may get another class than the scores say, as such networks do at a boundary.
_OTHER_CLASS = 0.1
# Of the classes of a case, which may be likely by the one and not by the other, off by a step of 7 bits at most.
_CROSSING, _STEP = 0.1, 1 / 100
_TIE = 1e-6  # between probabilities that were rounded to one number


def disagreement(own: Array, scored: Array, *, independent: bool) -> str | None:
    """How a model's own answers differ from those of its scores by more than rounding; None where they do not.

    Rounding keeps the order of the classes, or makes several equal; what is flat is told by its classes.

    Args:
        own: ``(n, classes)`` probabilities that its output gives.
        scored: ``(n, classes)`` probabilities that its scores give.
        independent: Whether each class has a probability of its own.
    """
    if own.shape != scored.shape:
        return f"probabilities of shape {own.shape} instead of {scored.shape}"
    wide, said = own.astype(np.float64), scored.astype(np.float64)
    rows = np.arange(len(wide))
    other = wide[rows, said.argmax(axis=1)] < wide.max(axis=1) - _TIE
    if independent:
        crossing = (wide > 0.5) != (said > 0.5)
        other |= (crossing & (np.abs(wide - said) > _STEP)).any(axis=1) | (crossing.mean(axis=1) > _CROSSING)
        kept: Array | float = 1.0
    else:
        # Where small probabilities were rounded to 0, the rest was divided by its sum.
        kept = np.where(wide > 0, said, 0).sum(axis=1, keepdims=True)
    if other.mean() > _OTHER_CLASS:
        return f"another class for {other.sum()} of {len(other)} cases"
    gap = float(np.abs(wide * kept - said).max(axis=1).mean())
    return f"probabilities that differ by {gap:.2g} on average" if gap > _GAP else None

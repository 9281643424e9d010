"""What attacks by gradient go up or down: derivatives of losses at a model's scores, row by row."""

import numpy as np
import scipy  # which loads its parts when they are first used

from deepjudge_core.models.model import Cotangent
from deepjudge_core.types import Array


def cross_entropy_direction(labels: Array) -> Cotangent:
    """The derivative of the cross entropy at the logits, up to a positive factor for each row.

    The derivative itself, ``softmax(z) - onehot(y)``, vanishes in floating point where the model is sure of itself, as
    it is at high-confidence seeds. Divided by ``1 - softmax(z)[y]`` it is the softmax over the other classes, and -1 at
    ``y``: the same direction, which is all that an attack by signs asks for, and it never vanishes.

    Args:
        labels: ``(n,)`` ground truth of all rows.
    """

    def cotangent(scores: Array, rows: slice) -> Array:
        own = np.arange(len(scores)), labels[rows]
        others = scores.astype(np.float64)
        others[own] = -np.inf
        derivative: Array = scipy.special.softmax(others, axis=1)
        derivative[own] = -1
        return derivative

    return cotangent

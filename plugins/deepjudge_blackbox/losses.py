"""What the attacks ascend or descend: derivatives of losses at the logits, row by row."""

import numpy as np
import scipy  # which loads its parts when they are first used

from deepjudge_core.models.model import Cotangent
from deepjudge_core.types import Array


def cross_entropy(labels: Array) -> Cotangent:
    """The derivative of the cross entropy, up to a positive factor for each row.

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


class Margin:
    """The margin ``max(z_y - max_{j != y} z_j, -kappa)`` of Carlini and Wagner (S&P 2017, f_6), untargeted.

    Attributes:
        values: ``(n,)`` the margin of each row when its gradient was last taken, without the floor at ``-kappa``; below
            0 the row is misclassified.
    """

    def __init__(self, labels: Array, kappa: float) -> None:
        """Take the labels ``(n,)`` of all rows, and how far below 0 to push the margin, in logits."""
        self.values = np.full(len(labels), np.inf)
        self._labels, self._kappa = labels, kappa

    def __call__(self, scores: Array, rows: slice) -> Array:
        """The derivative at the logits: 1 at the label, -1 at the runner-up, 0 where the floor is reached."""
        each, own = np.arange(len(scores)), self._labels[rows]
        others = scores.astype(np.float64)
        others[each, own] = -np.inf
        runner_up = others.argmax(axis=1)
        margin = scores[each, own] - others[each, runner_up]
        self.values[rows] = margin
        derivative = np.zeros_like(others)
        derivative[each, own] = margin > -self._kappa
        derivative[each, runner_up] = -derivative[each, own]
        return derivative

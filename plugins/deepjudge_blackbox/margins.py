"""How near a victim's answers are to errors: all that a search by answers goes by."""

import numpy as np

from deepjudge_core.models.model import Model
from deepjudge_core.types import Array

_LEAST = 1e-30  # of a probability: float32 has hardly smaller ones
_DIGITS = 3  # what differs by less is rounding, which must not lead a search elsewhere


class Questions:
    """Asks a victim how near it is to errors, and counts what it is asked.

    Attributes:
        asked: Inputs so far.
    """

    def __init__(self, victim: Model) -> None:
        """Ask this victim."""
        self.asked = 0
        self._victim = victim

    def margins(self, x: Array, labels: Array) -> Array:
        """``(n,)`` logarithm of the label's probability over that of the likeliest other class; below 0 it errs.

        Args:
            x: ``(n, *shape)``.
            labels: ``(n,)`` ground truth.
        """
        self.asked += len(x)
        logs = np.log(np.maximum(self._victim.predict(x).astype(np.float64), _LEAST))
        each = np.arange(len(labels))
        own = logs[each, labels]
        logs[each, labels] = -np.inf
        margins: Array = np.round(own - logs.max(axis=1), _DIGITS)
        return margins

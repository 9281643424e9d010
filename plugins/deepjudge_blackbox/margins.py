"""How near a victim's answers are to errors: all that a search by answers goes by."""

import numpy as np

from deepjudge_core.models.model import Model
from deepjudge_core.types import Array

_LEAST = 1e-30  # of a probability: float32 has hardly smaller ones
_LEAST_REST = 2.0**-25  # of what is left of 1: half a step of float32
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

        Of classes with a probability each it is the difference of their log-odds.

        Args:
            x: ``(n, *shape)``.
            labels: ``(n,)`` ground truth.
        """
        self.asked += len(x)
        answers = self._victim.predict(x).astype(np.float64)
        logs = np.log(np.maximum(answers, _LEAST))
        if self._victim.independent:
            logs -= np.log(np.maximum(1 - answers, _LEAST_REST))
        each = np.arange(len(labels))
        own = logs[each, labels]
        logs[each, labels] = -np.inf
        margins: Array = np.round(own - logs.max(axis=1), _DIGITS)
        return margins

"""Bets against a hypothesis about a finite population whose members are drawn one by one: pure numpy."""

import math
from dataclasses import dataclass, replace

import numpy as np

from deepjudge_core.types import Array


@dataclass(frozen=True, eq=False)
class Capital:
    """What a bettor has, who bets against the hypothesis that at most ``most`` of ``size`` members are ones.

    Members are drawn in random order, without replacement. Given those drawn, the hypothesis says that the next one is
    a one with a probability of at most ``eta = (most - ones) / (size - drawn)``. A bettor who chose a stake of at least
    0 before has ``1 + stake (x - eta)`` times as much after it, which is no more on average: the capital, which begins
    with 1, is an e-process. By Ville's inequality the probability that it ever reaches ``1 / level`` is at most
    ``level``, whenever the drawing stops (Waudby-Smith & Ramdas, *Estimating means of bounded random variables by
    betting*, JRSS B, 2024; its variant for sampling without replacement).

    Each ``k`` above ``most`` has an equal part of the capital, and stakes of that what is best where ``k`` members are
    ones (Kelly's stake). So the whole is the Bayes factor of these ``k`` against ``most``.

    Attributes:
        size: Of the population, at least 1.
        most: The hypothesis, 0..size - 1.
        drawn: How many were drawn.
        ones: How many of these were ones.
        parts: ``(size - most,)`` the capital staked on ``most + 1``, ..., ``size`` ones.
    """

    size: int
    most: int
    drawn: int
    ones: int
    parts: Array

    @classmethod
    def start(cls, size: int, most: int) -> "Capital":
        """Before anything is drawn.

        Raises:
            ValueError: When there is no such hypothesis.
        """
        if not 0 <= most < size:
            raise ValueError(f"expected 0 <= most < {size}, found {most}")
        return cls(size, most, 0, 0, np.full(size - most, 1 / (size - most)))

    @property
    def value(self) -> float:
        """The capital, at least 0; infinite where what was drawn cannot be under the hypothesis."""
        return math.inf if self.ones > self.most else float(self.parts.sum())

    def after(self, one: bool) -> "Capital":
        """What there is after the next member is drawn."""
        bets = np.arange(self.most + 1, self.size + 1)
        # Of what is left, how many are to be such as the one drawn: by the hypothesis, and by the bets.
        if one:
            expected, staked = self.most - self.ones, bets - self.ones
        else:
            zeros = self.drawn - self.ones
            expected, staked = self.size - self.most - zeros, self.size - bets - zeros
        # At 0 every bet on zeros was lost before; and a one refutes the hypothesis.
        parts = self.parts * np.maximum(staked, 0) / expected if expected > 0 else np.zeros_like(self.parts)
        return replace(self, drawn=self.drawn + 1, ones=self.ones + one, parts=parts)

"""Whether a layer counts: what a model answers if that layer has the outputs of another input.

An honest network inside a copy's file, whose scores count nothing, offers its layers to whoever compares layers. Its
outputs can be exchanged between inputs, and no answer moves.
"""

from dataclasses import dataclass

import numpy as np

from deepjudge_core.types import Array


@dataclass(frozen=True, eq=False)
class Exchange:
    """Scores ``(n, scores)``, float32, of inputs that are paired each with another one.

    Attributes:
        own: Of each input.
        other: Of the other one of its pair.
        mixed: Of each input, where the layer gives what it gives for the other one.
    """

    own: Array
    other: Array
    mixed: Array

    def influence(self, *, independent: bool) -> Array:
        """``(n,)`` how far the layer alone moves the scores, as a share of how far the two inputs' scores are apart.

        1 if all depends on the layer, 0 if nothing does; NaN where both inputs have the same scores, or a score becomes
        infinite, as of a class that is impossible. Neither scale nor temperature counts.

        Args:
            independent: Whether each class has a probability of its own; else what all scores have in common is none
                of the answer.
        """
        with np.errstate(invalid="ignore"):
            moved, whole = (_length(_apart(scores, self.own), independent) for scores in (self.mixed, self.other))
            share: Array = np.divide(moved, whole, out=np.full(len(whole), np.nan), where=whole > 0)
        return share


def pairs(rows: int) -> Array:
    """``(rows,)`` the other input of each: half the batch further, itself if there is one alone."""
    paired: Array = np.roll(np.arange(rows), rows // 2)
    return paired


def _apart(scores: Array, own: Array) -> Array:
    # A class that is impossible for both has minus infinity twice, which is no difference.
    difference: Array = np.subtract(scores, own, out=np.zeros_like(own), where=scores != own)
    return difference


def _length(difference: Array, independent: bool) -> Array:
    wide = difference.astype(np.float64)
    if wide.shape[1] > 1 and not independent:
        wide -= wide.mean(axis=1, keepdims=True)
    length: Array = np.sqrt(np.square(wide).sum(axis=1))
    return length

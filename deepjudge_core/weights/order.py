"""The exact test of the order of neurons, which needs no controls.

The neurons of a layer can stand in any order, and independent initialisation draws one of them uniformly. Training
does not change that: it treats all alike. So if a suspect was made independently of the victim, then its neurons stand
at the places of the victim's most similar ones as often as in a random order, whatever the similarities are.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from math import comb, lgamma, log, log10

import numpy as np
import scipy  # which loads its parts when they are first used

from deepjudge_core.weights.matching import assign, cosines
from deepjudge_core.weights.values import LayerSketch, Sketch


@dataclass(frozen=True)
class OrderTest:
    """How well the order of the suspect's neurons agrees with the victim's.

    Attributes:
        log10_p: Of the probability, at most, that independent initialisation gives this; 0 or less.
        agreeing: Neurons that stand at the victim's place.
        compared: Neurons that were looked at.
        least: The least ``log10_p`` that so many neurons could have given.
    """

    log10_p: float
    agreeing: int
    compared: int
    least: float


def order_test(victim: Sketch, suspect: Sketch) -> OrderTest | None:
    """Test all layers that both have, at the same places, with the same widths; None if there is none.

    In each layer the victim's picked neurons are assigned to different ones of the suspect's by the sketch of their
    weights in the models' own coordinates. Under the hypothesis the suspect's order is uniform, given the assignment,
    so the number of neurons that stand at the victim's place is that of fixed points of a random permutation.

    Layers are gone through in forward order, and the views of each stand for something fixed or for neurons of a layer
    before: given the layers before, each probability is valid, so they are combined as independent ones are (Fisher).
    Where the layers were only guessed by shapes, several may share one order: then the least probability counts, times
    the number of layers (Bonferroni).
    """
    theirs = {(layer.kind, layer.block): layer for layer in suspect.layers}
    pairs = [(ours, theirs[ours.kind, ours.block]) for ours in victim.layers if (ours.kind, ours.block) in theirs]
    tests = [_test_layer(ours, other) for ours, other in pairs if _alike(ours, other)]
    tests = [test for test in tests if test[1]]
    if not tests:
        return None
    combine = _least_of if victim.guessed or suspect.guessed else _fisher
    return OrderTest(
        combine([log10_tail(agreeing, compared, width) for agreeing, compared, width in tests]),
        sum(agreeing for agreeing, _, _ in tests),
        sum(compared for _, compared, _ in tests),
        combine([log10_tail(compared, compared, width) for _, compared, width in tests]),
    )


def _alike(ours: LayerSketch, theirs: LayerSketch) -> bool:
    whole = len(theirs.neurons) == theirs.width
    return whole and ours.width == theirs.width and ours.raw.shape[1:] == theirs.raw.shape[1:]


def _test_layer(ours: LayerSketch, theirs: LayerSketch) -> tuple[int, int, int]:
    """Neurons that agree, neurons that were compared, and the width of the layer.

    Neurons without weights are like no other, so they are not compared. Neurons that are like one another, to the last
    bit, are told apart by chance: by the order of the suspect's, which is what chance gives under the hypothesis.
    """
    scores = cosines(ours.raw, theirs.raw)
    seed = int.from_bytes(hashlib.sha256(theirs.raw.tobytes()).digest()[:8], "little")
    rows, columns = assign(scores, seed)
    like = scores[rows, columns] > 0
    return int((ours.neurons[rows] == columns)[like].sum()), int(like.sum()), ours.width


@cache
def log10_tail(agreeing: int, compared: int, width: int) -> float:
    """The probability that at least so many of some neurons stand at given places of a random order.

    The places are different ones. The sum has alternating signs, so it is taken in whole numbers.

    Args:
        agreeing: Of ``compared``, which is at most ``width``.
        compared: Neurons with a place.
        width: Neurons of the layer.
    """
    if not agreeing:
        return 0.0
    total, orders = 0, 1  # orders of the neurons that are left, over those that are left if all have their places
    for fixed in range(compared, agreeing - 1, -1):
        total += (-1) ** (fixed - agreeing) * comb(fixed - 1, agreeing - 1) * comb(compared, fixed) * orders
        orders *= width - fixed + 1
    for left in range(width - agreeing + 2, width + 1):
        orders *= left
    return log10(total) - log10(orders)


def _fisher(log10_ps: list[float]) -> float:
    """Fisher's combination: the tail of chi-squared with an even number of degrees of freedom is a finite sum."""
    x = -log(10) * sum(log10_ps)
    if x <= 0:
        return 0.0
    terms = [place * log(x) - lgamma(place + 1) for place in range(len(log10_ps))]
    return min(0.0, float(scipy.special.logsumexp(terms) - x) / log(10))


def _least_of(log10_ps: list[float]) -> float:
    return min(0.0, min(log10_ps) + float(np.log10(len(log10_ps))))

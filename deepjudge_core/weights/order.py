"""The exact test of the order of neurons, which needs no controls.

The neurons of a layer can stand in any order, and independent initialisation draws one of them uniformly. Training
does not change that: it treats all alike. So if a suspect was made independently of the victim, then its neurons stand
at the places of the victim's most similar ones as often as in a random order, whatever the similarities are.
"""

import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache
from math import comb, lgamma, log, log10

import numpy as np
import scipy  # which loads its parts when they are first used

from deepjudge_core.weights.matching import assign, cosines
from deepjudge_core.weights.values import LayerSketch, Sketch

_MOVED = (1, 2, 3)  # places
_ERRORS = 4  # standard errors
_ROUNDING = 1e-3  # of float16


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


@lru_cache(maxsize=2)  # a metric asks for its distance, and for its chance
def order_test(victim: Sketch, suspect: Sketch) -> OrderTest | None:
    """Test all layers that both have, at the same places, with the same widths; None if there is none.

    In each layer the victim's picked neurons are assigned to different ones of the suspect's by the sketch of their
    weights in the models' own coordinates. Under the hypothesis the suspect's order is uniform, given the assignment,
    so the number of neurons that stand at the victim's place is that of fixed points of a random permutation.

    Layers are gone through in forward order, and the views of each stand for something fixed or for neurons of a layer
    before: given the layers before, each probability is valid, so they are combined as independent ones are (Fisher).
    Layers of the suspect that share one order are one test: the least of their probabilities counts, times their number
    (Bonferroni). So it is with layers that were made as copies of one another, such as experts or stacked blocks, and
    with all where they were only guessed by shapes.
    """
    theirs = {(layer.kind, layer.block): layer for layer in suspect.layers}
    pairs = [(ours, theirs[ours.kind, ours.block]) for ours in victim.layers if (ours.kind, ours.block) in theirs]
    both = [(_test_layer(ours, other), other) for ours, other in pairs if _alike(ours, other)]
    tests, others = [test for test, _ in both if test[1]], [other for test, other in both if test[1]]
    if not tests:
        return None
    guessed = victim.guessed or suspect.guessed
    groups = [list(range(len(tests)))] if guessed else _sharing_an_order(others)

    def combine(log10_ps: list[float]) -> float:
        return _fisher([_least_of([log10_ps[place] for place in group]) for group in groups])

    return OrderTest(
        combine([log10_tail(agreeing, compared, width) for agreeing, compared, width in tests]),
        sum(agreeing for agreeing, _, _ in tests),
        sum(compared for _, compared, _ in tests),
        combine([log10_tail(compared, compared, width) for _, compared, width in tests]),
    )


def _sharing_an_order(layers: list[LayerSketch]) -> list[list[int]]:
    """Places of layers of one model, those together that stand in one order."""
    groups: list[list[int]] = []
    for place, layer in enumerate(layers):
        same, apart = [place], []
        for group in groups:
            if any(_in_one_order(layers[other], layer) for other in group):
                same = [*group, *same]
            else:
                apart.append(group)
        groups = [*apart, same]
    return groups


def _in_one_order(one: LayerSketch, other: LayerSketch) -> bool:
    """Whether neurons at the same places of two layers are more alike than such as are a few places apart."""
    if one.raw.shape != other.raw.shape:
        return False
    ours, theirs = (layer.raw.astype(np.float32) for layer in (one, other))
    own = np.abs(np.einsum("ijk,ijk->ij", ours, theirs)).mean(axis=1)
    moved = [np.abs(np.einsum("ijk,ijk->ij", ours, np.roll(theirs, by, axis=0))).mean(axis=1) for by in _MOVED]
    rest = np.stack(moved)
    errors = float(own.mean() - rest.mean()) * float(np.sqrt(len(own))) / max(float(rest.std()), _ROUNDING)
    return errors > _ERRORS


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

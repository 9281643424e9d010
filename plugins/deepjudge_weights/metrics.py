"""Metrics over sketches of weights: numpy functions of the victim's sketch and a suspect's."""

import numpy as np

from deepjudge_core.components.values import Answers, Chance
from deepjudge_core.errors import IncomparableError
from deepjudge_core.types import Array
from deepjudge_core.weights.matching import assign, cosines
from deepjudge_core.weights.order import OrderTest, order_test
from deepjudge_core.weights.values import LayerSketch, Sketch


def order(victim: Answers, suspect: Answers) -> float:
    """Share of the compared neurons whose place is not that of the victim's most similar neuron, 0..1.

    Raises:
        IncomparableError: When no layer of the suspect has the width of the victim's at its place.
    """
    test = _tested(victim, suspect)
    return 1 - test.agreeing / test.compared


def order_chance(victim: Answers, suspect: Answers) -> Chance:
    """The probability that an independently made model's neurons stand in the victim's order so often.

    Raises:
        IncomparableError: When no layer of the suspect has the width of the victim's at its place.
    """
    test = _tested(victim, suspect)
    counted = f"the order of {test.agreeing:,} of {test.compared:,} neurons agrees with the victim's"
    return Chance(test.log10_p, test.least, counted)


def neuron_sketch(victim: Answers, suspect: Answers) -> float:
    """1 minus the mean absolute cosine of matched neurons' weights, 0..1.

    Neurons are matched within layers, and layers with one another, so that neither order matters. It is taken in the
    models' own coordinates, and in those that turn with the residual stream, and the smaller value counts.

    Raises:
        IncomparableError: When no layer of the suspect is of a kind that the victim has.
    """
    ours, theirs = _sketches(victim, suspect)
    raw = _similarity([layer for layer in ours.layers if _matched(layer)], theirs, "raw")
    turned = _similarity([layer for layer in ours.layers if layer.invariant is not None], theirs, "invariant")
    found = [value for value in (raw, turned) if value is not None]
    if not found:
        raise IncomparableError("the suspect has no layer that can be compared with one of the victim's")
    return float(np.clip(1 - max(found), 0, 1))


def _sketches(victim: Answers, suspect: Answers) -> tuple[Sketch, Sketch]:
    if victim.weights is None or suspect.weights is None:
        raise IncomparableError("there is no sketch of the weights")
    return victim.weights, suspect.weights


def _tested(victim: Answers, suspect: Answers) -> OrderTest:
    test = order_test(*_sketches(victim, suspect))
    if test is None:
        raise IncomparableError("no layer of the suspect has as many neurons as the victim's at the same place")
    return test


def _matched(layer: LayerSketch) -> bool:
    """Whether its neurons have weights of their own. Residual dimensions are those of the tokens' embeddings."""
    return layer.kind != "residual"


def _similarity(ours: list[LayerSketch], suspect: Sketch, basis: str) -> float | None:
    """Mean over the victim's layers of the similarity of the layers that are matched with them; None without any."""
    theirs = [layer for layer in suspect.layers if _matched(layer)]
    if not ours or not theirs:
        return None
    table = np.array([[_layers(a, b, basis) for b in theirs] for a in ours])
    if not (table >= 0).any():
        return None
    rows, columns = assign(np.maximum(table, 0))
    return float(np.maximum(table[rows, columns], 0).sum() / len(ours))


def _layers(ours: LayerSketch, theirs: LayerSketch, basis: str) -> float:
    """Mean cosine of matched neurons of two layers; -1 if they cannot be compared."""
    a, b = _rows(ours, basis), _rows(theirs, basis)
    if a is None or b is None or ours.kind != theirs.kind or a.shape[1:] != b.shape[1:] or 2 * len(b) < len(a):
        return -1
    scores = cosines(a, b)
    rows, columns = assign(scores)
    alive = (a != 0).any(axis=(1, 2))[rows]
    return float(scores[rows, columns][alive].mean()) if alive.any() else -1


def _rows(layer: LayerSketch, basis: str) -> Array | None:
    return layer.raw if basis == "raw" else layer.invariant

"""Metrics over sketches of weights: numpy functions of the victim's sketch and a suspect's."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from deepjudge_core.components.values import Answers, Chance
from deepjudge_core.errors import IncomparableError
from deepjudge_core.types import Array
from deepjudge_core.weights.matching import assign, cosines
from deepjudge_core.weights.order import OrderTest, order_test
from deepjudge_core.weights.values import LayerSketch, Sketch

_CLASSIFIERS = ("dense", "convolutional", "recurrent")
_EARLY = 2  # matrices
_NEAR = 0.25  # cosine with the ancestor's weights; that of other models is about 0
_RESOLVED = 1e-12  # of the ancestor's weights, squared
_ERRORS = 4  # standard errors


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
    return Chance(test.log10_p, test.least, counted, test.agreeing, test.compared)


def neuron_sketch(victim: Answers, suspect: Answers) -> float:
    """1 minus the mean absolute cosine of matched neurons' weights, 0..1.

    Neurons are matched within layers, and layers with one another, so that neither order matters. It is taken in the
    models' own coordinates, and in those that turn with the residual stream, and the smaller value counts.

    Raises:
        IncomparableError: When no layer of the suspect is of a kind that the victim has.
    """
    # Cosines are of float32, so what is behind the sixth digit is rounding.
    return float(np.clip(1 - _matched(*_sketches(victim, suspect)).similarity, 0, 1).round(6))


def neuron_sketch_of_others(victim: Answers, suspect: Answers) -> Array:
    """At least the distances, as of :func:`neuron_sketch`, of layers that were not matched with one another: ``(n,)``.

    None of networks whose layers have unequal numbers of neurons, as classifiers have: their distances differ anyway.

    Raises:
        IncomparableError: As :func:`neuron_sketch` does.
    """
    sketches = _sketches(victim, suspect)
    others, models = _matched(*sketches).others, [_layers(one) for one in sketches]
    equal = all(len({layer.width for layer in layers}) == 1 for layers in models)
    classifiers = any(layer.kind in _CLASSIFIERS for layers in models for layer in layers)
    return np.clip(1 - np.array(others if equal and not classifiers else [], np.float64), 0, 1)


def wcos(victim: Answers, suspect: Answers) -> float:
    """1 minus the matched-weight cosine of the first matrices between hidden layers of a classifier, 0..1.

    Of each matrix counts the median over its neurons, since neurons that never answer drift away in training; of the
    matrices the mean over the first two, since later ones are changed more.

    Raises:
        IncomparableError: When the neurons of the first layers cannot be matched.
    """
    ours, theirs = _sketches(victim, suspect)
    places = {(layer.kind, layer.block): layer for layer in theirs.layers}
    medians = []
    # The first layer reads the input: what it sees is much the same in all models of a task.
    inner = [layer for layer in ours.layers[1:] if layer.kind in _CLASSIFIERS and layer.invariant is not None]
    for layer in inner[:_EARLY]:
        other = places.get((layer.kind, layer.block))
        a, b = layer.invariant, None if other is None else other.invariant
        if a is None or b is None or a.shape[1:] != b.shape[1:] or 2 * len(b) < len(a):
            raise IncomparableError(f"the neurons before {layer.name!r} cannot be matched with the suspect's")
        scores = cosines(a, b)
        rows, columns = assign(scores)
        alive = (a != 0).any(axis=(1, 2))[rows]
        medians.append(float(np.median(scores[rows, columns][alive])) if alive.any() else 0.0)
    if not medians:
        raise IncomparableError("the victim has no matrix between hidden layers whose neurons can be matched")
    return float(np.clip(1 - np.mean(medians), 0, 1).round(6))


def sibling_slope(victim: Answers, suspect: Answers) -> float:
    """How little of the victim's own way from the ancestor the suspect went: 0 if all of it, 1 if nothing, and up.

    The way is a vector in an image of all weights, without what siblings have of it: they were made from the same
    ancestor, and share what any training on such a task gives. The suspect's own way is regressed on it. From the slope
    four standard errors are taken, so that a way as long as another model's does not pass for the victim's by chance.

    Raises:
        IncomparableError: When no ancestor was named, or when the suspect or the victim is not near it.
    """
    ours, theirs = _sketches(victim, suspect)
    if victim.ancestor is None:
        raise IncomparableError("no ancestor was named")
    base, own, other = (_image(sketch) for sketch in (victim.ancestor, ours, theirs))
    siblings = [_image(sketch) - base for sketch in victim.siblings]
    if not _near(own, base):
        raise IncomparableError("the victim's weights are not near the ancestor's")
    if not _near(other, base):
        raise IncomparableError("the suspect's weights are not near the ancestor's, or in other coordinates")
    ours_alone, theirs_alone = _without(siblings, own - base), _without(siblings, other - base)
    length = float(ours_alone @ ours_alone)
    if length <= _RESOLVED * float(base @ base):
        raise IncomparableError("the victim's weights are the ancestor's, or what siblings have in common")
    slope = float(theirs_alone @ ours_alone) / length
    rest = theirs_alone - slope * ours_alone
    error = float(np.sqrt(rest @ rest / length / len(rest)))
    return max(0.0, 1 - slope + _ERRORS * error)


class _Layers(NamedTuple):
    # Of two models: the mean similarity of layers that were matched, and at least those of all other pairs.
    similarity: float
    others: Sequence[float]


@lru_cache(maxsize=1)  # matching takes long, and the distance and its background are asked for one after the other
def _matched(victim: Sketch, suspect: Sketch) -> _Layers:
    # In the coordinates in which they are more alike.
    ours, theirs = _layers(victim), _layers(suspect)
    own = _similarity(ours, theirs, [layer.raw for layer in ours], [layer.raw for layer in theirs])
    turned = _similarity(ours, theirs, [layer.invariant for layer in ours], [layer.invariant for layer in theirs])
    found = [one for one in (own, turned) if one is not None]
    if not found:
        raise IncomparableError("the suspect has no layer that can be compared with one of the victim's")
    return max(found, key=lambda one: one.similarity)


def _image(sketch: Sketch) -> Array:
    if sketch.flat is None:
        raise IncomparableError("there is no image of the weights, since other layers have other sizes")
    return sketch.flat.astype(np.float64)


def _near(image: Array, base: Array) -> bool:
    return float(image @ base) > _NEAR * float(np.linalg.norm(image) * np.linalg.norm(base))


def _without(others: Sequence[Array], way: Array) -> Array:
    """What of a way none of the others goes."""
    if not others:
        return way
    basis, sizes, _ = np.linalg.svd(np.stack(others, axis=1), full_matrices=False)
    basis = basis[:, sizes > sizes[0] * 1e-9]
    rest: Array = way - basis @ (basis.T @ way)
    return rest


def _sketches(victim: Answers, suspect: Answers) -> tuple[Sketch, Sketch]:
    if victim.weights is None or suspect.weights is None:
        raise IncomparableError("there is no sketch of the weights")
    return victim.weights, suspect.weights


def _tested(victim: Answers, suspect: Answers) -> OrderTest:
    test = order_test(*_sketches(victim, suspect))
    if test is None:
        raise IncomparableError(
            "the two networks are built differently: no layer of the suspect has as many neurons as the victim's at "
            "the same place, and as many matrices of weights; so their weights cannot be compared, which is evidence "
            "neither for nor against copying"
        )
    return test


def _layers(sketch: Sketch) -> list[LayerSketch]:
    """Layers whose neurons have weights of their own; those of residual dimensions are the tokens' embeddings."""
    return [layer for layer in sketch.layers if layer.kind != "residual"]


def _similarity(
    ours: Sequence[LayerSketch], theirs: Sequence[LayerSketch], a: Sequence[Array | None], b: Sequence[Array | None]
) -> _Layers | None:
    """The similarity of matched layers, by their rows; None if no two can be compared.

    As many are matched as the model with fewer has, so that dropped ones do not count.
    """
    table = np.zeros((len(ours), len(theirs)))
    bounds = np.zeros(table.shape, bool)  # whether a similarity is only a bound
    for i, j in np.ndindex(table.shape):
        x, y = a[i], b[j]
        if x is not None and y is not None and ours[i].kind == theirs[j].kind and _alike(x, y):
            table[i, j], bounds[i, j] = _bound(cosines(x, y), _alive(x)), True
    comparable = bounds.copy()
    if not comparable.any():
        return None
    # A similarity takes long, a bound does not. Once all layers that are matched by bounds and similarities have their
    # similarities, no other match is better.
    while True:
        matched = list(zip(*assign(table), strict=True))
        open_ = [pair for pair in matched if bounds[pair]]
        if not open_:
            similarity = float(np.mean([table[pair] for pair in matched]))
            comparable[tuple(zip(*matched, strict=True))] = False
            return _Layers(similarity, table[comparable].tolist())
        for i, j in open_:
            x, y = a[i], b[j]
            if x is not None and y is not None:
                scores = cosines(x, y)
                table[i, j], bounds[i, j] = scores[assign(scores)].sum() / min(_alive(x), len(y)), False


def _alike(ours: Array, theirs: Array) -> bool:
    # Of a layer with few neurons each is somebody's most similar one.
    return ours.shape[1:] == theirs.shape[1:] and len(ours) <= 2 * len(theirs)


def _alive(rows: Array) -> int:
    """Neurons with any weight; at least 1."""
    return max(1, int((rows != 0).any(axis=(1, 2)).sum()))


def _bound(scores: Array, alive: int) -> float:
    """At least the mean score of any assignment of the neurons with weights."""
    most = min(alive, scores.shape[1])
    return float(np.sort(scores.max(axis=1))[-most:].sum() / most)

"""How far models are from one another by their answers: from the victim, and the controls among themselves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy  # which loads its parts when they are first used

from deepjudge_core.judging.ordinary import Odds
from deepjudge_core.judging.view import unfit_whole
from deepjudge_core.models.model import Access
from deepjudge_core.models.sampling import evenly
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array

# Shares of the distance from the victim that make two controls near-duplicates, by their answers alone and where
# their neurons are in the same places, too: docs/why/statistics.md has the distances of honest and other models.
_DUPLICATE, _WITH_NEURONS = 0.05, 0.2
_OTHER_ODDS = 0.1  # of the odds' distance from the victim: models that were trained apart have more
_MUCH = 0.4  # of the distance from the nearest other control is much nearer to the victim
_LEAST_NEURONS = 6  # in their places, which chance puts at most a few of
_SCORES, _LEAST_CASES = 50_000_000, 100  # compared of all pairs, and cases of each pair
_OUTCOMES = 32  # of a case that are told apart
_MOST = (512, 64)  # cases and neurons of a layer
_TINY = 1e-12


def scores_of(observation: Observation, *, labels_alone: bool = False) -> Array:
    """What a model answers, as distributions: ``(cases, outcomes)`` float64, each row with the sum 1.

    Args:
        observation: Of a model whose probabilities are known.
        labels_alone: Whether no more than the label of each case is looked at.
    """
    probabilities = np.asarray(observation.probabilities, np.float64)
    if labels_alone:
        onehot: Array = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
        return onehot
    if observation.independent:  # of each class, that it is likely and that it is not
        both: Array = np.concatenate([probabilities, 1 - probabilities], axis=1).clip(0, 1) / probabilities.shape[1]
        return both
    scaled: Array = probabilities / probabilities.sum(axis=1, keepdims=True)
    return scaled


def divergence(one: Array, other: Array) -> float:
    """The mean over the cases of the Jensen-Shannon divergence of two models' answers, 0..ln 2.

    Args:
        one: From :func:`scores_of`.
        other: As many.
    """
    middle = (one + other) / 2
    divergences = scipy.special.rel_entr(one, middle) + scipy.special.rel_entr(other, middle)
    return float(divergences.sum(axis=1).mean() / 2)


@dataclass(frozen=True)
class Likeness:
    """What the controls' distances from the victim and from one another show.

    Honest models differ; how much, the distances of controls from the victim tell. Two that are much nearer to one
    another than to the victim are near-duplicates, such as a model and itself with noise, and show no more than one of
    them. Cases that mislead the victim alone get much the same answers from all honest models, so the odds that two
    give to the other classes of the seeds have to be alike, too, if they are known. Where their hidden neurons are
    known, too, less nearness suffices: neurons that do the same in the same places come from the same weights. By
    either sign a control that is like the victim is no honest model.

    Attributes:
        clusters: Of each control the place of the first that it is a near-duplicate of; its own where it is of none.
        doubtful: Places of the controls that look like copies of the victim.
    """

    clusters: tuple[int, ...]
    doubtful: tuple[int, ...] = ()

    @classmethod
    def of(cls, suite: Suite, controls: Sequence[Observation], sharing: Sequence[bool]) -> "Likeness":
        """Look at the answers of all of them.

        Args:
            suite: The suite, with the victim's own answers.
            controls: Theirs.
            sharing: Of each whether it is said to have begun with the victim's first weights or its ancestor's, which
                explains neurons like the victim's.
        """
        known = [place for place, one in enumerate(controls) if one.probabilities is not None and not unfit_whole(one)]
        if not known or suite.victim.probabilities is None or not len(suite.victim.probabilities):
            return cls(tuple(range(len(controls))))
        seen = [controls[place] for place in known]
        told = np.array([sharing[place] for place in known], bool)
        apart = _divergences([suite.victim, *seen])
        own, neurons = _neurons(suite.victim, suite), [_neurons(one, suite) for one in seen]
        victims = np.array([_have_same_neurons(own, theirs) for theirs in neurons])
        groups = _groups(apart, neurons, told & victims, _other_odds(suite, seen))
        doubtful = _doubtful(apart, told) | (victims & ~told)
        clusters = list(range(len(controls)))
        for place, group in zip(known, groups, strict=True):
            clusters[place] = known[int(np.flatnonzero(groups == group)[0])]
        return cls(tuple(clusters), tuple(place for place, doubt in zip(known, doubtful, strict=True) if doubt))


def _divergences(models: Sequence[Observation]) -> Array:
    # (models, models); of evenly many cases where all of them would take long.
    labels_alone = any(Access.PROBABILITIES not in one.model.access for one in models)
    cases, classes = np.asarray(models[0].probabilities).shape
    pairs = len(models) * (len(models) - 1) // 2
    rows = evenly(np.arange(cases), max(_LEAST_CASES, _SCORES // (pairs * min(classes, _OUTCOMES))))
    scores = np.array([scores_of(one, labels_alone=labels_alone)[rows] for one in models])
    flat = coarse(scores).reshape(len(models), -1)
    # Its squares are means over the cases, since each case has the same weight.
    distances: Array = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(flat, "jensenshannon") ** 2)
    return np.nan_to_num(distances)


def coarse(scores: Array) -> Array:
    """Answers with few outcomes: of each case those on which the models differ most, and all others as one.

    Of a thousand classes most are hardly ever named, and comparing them takes as long.

    Args:
        scores: ``(models, cases, outcomes)``, each row with the sum 1.
    """
    if scores.shape[2] <= _OUTCOMES:
        return scores
    kept = np.argsort(-scores.var(axis=0), axis=1, kind="stable")[:, : _OUTCOMES - 1]
    chosen = np.take_along_axis(scores, kept[None], axis=2)
    joined: Array = np.concatenate([chosen, 1 - chosen.sum(axis=2, keepdims=True)], axis=2).clip(0, 1)
    return joined


def _other_odds(suite: Suite, models: Sequence[Observation]) -> Callable[[int, int], bool]:
    # What says whether two of the models give odds of their own to the other classes of the seeds.
    victim = Odds.of(suite, suite.victim, _LEAST_CASES)

    @cache
    def of(place: int) -> tuple[Odds | None, float | None]:
        odds = Odds.of(suite, models[place], _LEAST_CASES)
        return odds, None if odds is None or victim is None else victim.apart(odds)

    def are_other(one: int, other: int) -> bool:
        (ours, near), (theirs, far) = of(one), of(other)
        if ours is None or theirs is None or near is None or far is None:
            return False
        apart = ours.apart(theirs)
        return apart is not None and apart > _OTHER_ODDS * min(near, far)

    return are_other


def _groups(
    apart: Array, neurons: Sequence[Mapping[str, Array]], related: Array, other_odds: Callable[[int, int], bool]
) -> Array:
    # (controls,) of each the number of its group of near-duplicates.
    if len(neurons) < 2:
        return np.zeros(len(neurons), int)
    to_victim, among = apart[0, 1:], apart[1:, 1:]
    scale = np.maximum(np.minimum.outer(to_victim, to_victim), _TINY)
    limits = np.full_like(among, _DUPLICATE)
    for one, other in zip(*np.nonzero(np.triu(among <= _WITH_NEURONS * scale, 1)), strict=True):
        # Those of one public model begin with the same neurons.
        if not (related[one] and related[other]) and _have_same_neurons(neurons[one], neurons[other]):
            limits[one, other] = limits[other, one] = _WITH_NEURONS
        elif among[one, other] <= _DUPLICATE * scale[one, other] and other_odds(one, other):
            limits[one, other] = limits[other, one] = _TINY
    shares = scipy.spatial.distance.squareform(among / (limits * scale), checks=False)
    hierarchy = scipy.cluster.hierarchy
    numbers: Array = hierarchy.fcluster(hierarchy.linkage(shares, "single"), 1, "distance")
    return numbers


def _doubtful(apart: Array, sharing: Array) -> Array:
    # (controls,) bool: those much nearer to the victim than to any other control. Several copies are near one another:
    # together they are much nearer to it than to the rest. Honest models from its ancestor may be, too; of them only
    # such as are hardly anything but the victim are not.
    to_victim, among = apart[0, 1:], apart[1:, 1:]
    doubtful = np.zeros(len(to_victim), bool)
    for kind, share in ((~sharing, _MUCH), (sharing, _DUPLICATE)):
        places = np.flatnonzero(kind)
        order = places[np.argsort(to_victim[places], kind="stable")]
        for count in range(len(order), 0, -1):
            near, rest = order[:count], np.setdiff1d(np.arange(len(to_victim)), order[:count])
            if rest.size and to_victim[near[-1]] <= share * among[np.ix_(near, rest)].min():
                doubtful[near] = True
                break
    return doubtful


def _neurons(observation: Observation, suite: Suite) -> dict[str, Array]:
    # Of each layer what its neurons do; not of the last, whose neurons the classes give an order.
    last = list(suite.victim.model.layers)[-1:]
    return {layer: _standardised(outputs) for layer, outputs in observation.activations.items() if layer not in last}


def _have_same_neurons(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    # Whether most hidden neurons of a model are most like the neuron in the same place of another, and the other way
    # round. Of honest models hardly any is, since nothing gives neurons an order but their first weights.
    same = known = 0
    for layer in one.keys() & other.keys():
        ours, theirs = one[layer], other[layer]
        if ours.shape != theirs.shape:
            continue
        alive = ours.any(axis=0) & theirs.any(axis=0)
        alike, places = ours.T @ theirs, np.arange(ours.shape[1])
        known += int(alive.sum())
        same += int((alive & (alike.argmax(axis=0) == places) & (alike.argmax(axis=1) == places)).sum())
    return same >= _LEAST_NEURONS and 2 * same > known


def _standardised(outputs: Array) -> Array:
    # (rows, neurons) of length 1, of evenly many cases and neurons; 0 of neurons that never change.
    rows, neurons = (evenly(np.arange(n), most) for n, most in zip(outputs.shape, _MOST, strict=True))
    part = outputs[np.ix_(rows, neurons)].astype(np.float64)
    centred = part - part.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=0)
    alive = lengths > _TINY * np.abs(part).max(initial=1)
    standardised: Array = np.divide(centred, lengths, out=np.zeros_like(centred), where=alive)
    return standardised

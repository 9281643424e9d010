"""How near a model is to the victim on ordinary inputs, which nobody can tell from the data that a model is for.

A copy can clean its inputs, or hand whatever looks like a test case to an honest network: then it makes none of the
victim's errors on test cases. On data it has to answer as the copy that it is. There all good models give the same
labels, but what they think of the other classes differs: of these the odds are compared, beside those of the controls.
"""

from dataclasses import dataclass

import numpy as np

from deepjudge_core.models.model import Access
from deepjudge_core.models.sampling import evenly
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite, answered
from deepjudge_core.types import Array

_LEAST = float(np.finfo(np.float32).tiny)  # of a probability whose logarithm is taken
_LEAST_SEEDS = 20  # of which odds say anything
_LEAST_MISTAKES = 20
_OF_A_CLASS = 3  # seeds, whose mean says what is usual of their class
_KNOWN = 0.5  # of the odds: at least this share of them
_ALIKE = 0.5  # of the seeds count, those that are most alike: a disguise may take some data for test cases
_LEAST_CLASSES = 4  # the odds of fewer tell little but how sure a model is, which anybody can change at will


@dataclass(frozen=True)
class Ordinary:
    """How far one model is from the victim on ordinary inputs.

    Attributes:
        odds: Distance of the odds that it gives to the other classes of the seeds, 0..2; about 1 of models that have
            nothing in common, None where that is not known.
        mistakes: Share of the victim's mistakes on ordinary inputs that it does not make; None where the suite has few.
        sure: Whether it gives all probabilities, and those of the seeds are so near to 0 and 1 that its odds are not
            known, as those of the victim are.
        unknown: Why its odds are not known: a clause; None where they are.
    """

    odds: float | None = None
    mistakes: float | None = None
    sure: bool = False
    unknown: str | None = None


UNKNOWN = Ordinary()
"""Where nobody looked."""


def ordinary(suite: Suite, observation: Observation, *, reduced: bool = False) -> Ordinary:
    """How far a model is from the victim on the ordinary inputs of a suite.

    Args:
        suite: The suite.
        observation: The model's answers.
        reduced: Whether no more of all scores is looked at than an interface keeps.
    """
    suite, observation = answered(suite, observation)
    ours, theirs = suite.victim.probabilities, observation.probabilities
    if ours is None or theirs is None:
        return UNKNOWN
    wrong, seeds = suite.rows("mistakes"), suite.rows("clean")
    differing = ours[wrong].argmax(axis=1) != theirs[wrong].argmax(axis=1)
    mistakes = float(differing.mean()) if len(differing) >= _LEAST_MISTAKES else None
    if reduced or Access.PROBABILITIES not in observation.model.access:
        return Ordinary(
            mistakes=mistakes, unknown="it shows some of its scores alone" if reduced else "it gives labels alone"
        )
    if seeds.sum() < _LEAST_SEEDS or ours.shape[1] < _LEAST_CLASSES:
        return Ordinary(mistakes=mistakes, unknown="the suite has too few seeds or classes for their odds to tell")
    labels = suite.cases.labels[seeds]
    odds, sure = _odds_apart(ours[seeds], theirs[seeds], labels, independent=suite.victim.independent)
    whose = "its" if sure else "the victim's"
    why = None if odds is not None else f"{whose} probabilities of the seeds are nearly all 0 or 1"
    return Ordinary(odds, mistakes, sure, why)


def odds_between(suite: Suite, one: Observation, other: Observation, most: int) -> float | None:
    """How far the odds of two models are from one another on the seeds of a suite, as of :attr:`Ordinary.odds`.

    Args:
        suite: The suite.
        one: The answers of the first, the victim's or another model's.
        other: Those of the second.
        most: How many seeds are looked at, evenly, where there are more.

    Returns:
        The distance, 0..2; None where it is not known.
    """
    ours, theirs = one.probabilities, other.probabilities
    seeds = evenly(np.flatnonzero(suite.rows("clean")), most)
    if ours is None or theirs is None or any(Access.PROBABILITIES not in model.model.access for model in (one, other)):
        return None
    if len(seeds) < _LEAST_SEEDS or ours.shape[1] < _LEAST_CLASSES:
        return None
    independent = bool(suite.victim.independent)
    return _odds_apart(ours[seeds], theirs[seeds], suite.cases.labels[seeds], independent=independent)[0]


def _odds_apart(victim: Array, model: Array, labels: Array, *, independent: bool) -> tuple[float | None, bool]:
    # Of n rows: what is left of both models' odds when what is usual of all is taken away; and whether it is the model
    # that hides them.
    both = np.stack([victim, model]).astype(np.float64)
    odds, shown = _log(both), both > _LEAST
    if independent:
        odds, groups = odds - _log(1 - both), np.zeros(len(labels), np.int64)
        shown &= 1 - both > _LEAST
        wanted = shown[0].size
    else:
        odds, groups = odds - np.take_along_axis(odds, labels[None, :, None], axis=2), _groups(labels)
        shown[:, np.arange(len(labels)), labels] = False
        wanted = shown[0].size - len(labels)
    known: Array = shown[0] & shown[1]
    ours, common = int(shown[0].sum()), int(known.sum())
    if common < max(_KNOWN * ours, 1) or ours < _KNOWN * wanted:
        return None, ours >= max(_KNOWN * wanted, 1)
    if not independent:
        odds = odds - _mean(odds, known, axis=2)
    for group in np.unique(groups):
        rows = groups == group
        odds[:, rows] -= _mean(odds[:, rows], known[rows], axis=1)
    odds *= known
    spans = np.sqrt((odds**2).mean(axis=(1, 2), keepdims=True))
    if not spans.all():
        return None, False
    one, other = odds / spans  # whatever the temperature
    apart, whole = ((one - other) ** 2).sum(axis=1), (one**2 + other**2).sum(axis=1)
    told = np.flatnonzero(whole)
    order = told[np.argsort(apart[told] / whole[told], kind="stable")]
    alike = order[: max(1, round(_ALIKE * len(order)))]
    return float(apart[alike].sum() / whole[alike].sum()), False


def _log(values: Array) -> Array:
    logs: Array = np.log(np.maximum(values, _LEAST))
    return logs


def _mean(odds: Array, known: Array, axis: int) -> Array:
    # Of (2, rows, classes) along an axis, over what is known; 0 where nothing is.
    shown = np.broadcast_to(known, odds.shape)
    mean: Array = (odds * shown).sum(axis=axis, keepdims=True) / shown.sum(axis=axis, keepdims=True).clip(1)
    return mean


def _groups(labels: Array) -> Array:
    # (n,) of each row whose mean is usual of it: its class's, or that of all rows whose classes have few.
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    groups: Array = np.where(counts[classes] >= _OF_A_CLASS, classes + 1, 0)
    return groups

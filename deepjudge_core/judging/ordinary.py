"""How near a model is to the victim on ordinary inputs, which nobody can tell from the data that a model is for.

A copy can clean its inputs, or hand whatever looks like a test case to an honest network: then it makes none of the
victim's errors on test cases. On data it has to answer as the copy that it is. There all good models give the same
labels, but what they think of the other classes differs: of these the odds are compared, beside those of the controls.
"""

from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True, eq=False)
class Odds:
    """The odds that a model gives to the other classes of some seeds, to be compared with those of many others.

    Attributes:
        probabilities: ``(seeds, classes)``.
        labels: ``(seeds,)`` the true classes.
        independent: Whether each class has a probability of its own.
    """

    probabilities: Array
    labels: Array
    independent: bool

    @classmethod
    def of(cls, suite: Suite, observation: Observation, most: int) -> "Odds | None":
        """Those on the seeds of a suite; None where they are not known.

        Args:
            suite: The suite.
            observation: The answers of the victim or another model.
            most: How many seeds are looked at, evenly, where there are more.
        """
        probabilities, seeds = observation.probabilities, evenly(np.flatnonzero(suite.rows("clean")), most)
        if probabilities is None or Access.PROBABILITIES not in observation.model.access:
            return None
        if len(seeds) < _LEAST_SEEDS or probabilities.shape[1] < _LEAST_CLASSES:
            return None
        return cls(probabilities[seeds], suite.cases.labels[seeds], bool(suite.victim.independent))

    def apart(self, other: "Odds") -> float | None:
        """The distance from those of another model on the same seeds, as of :attr:`Ordinary.odds`."""
        if self._told is not None and other._told is not None:
            return _half_apart(*self._told, *other._told)
        pair = self.probabilities, other.probabilities
        return _odds_apart(*pair, self.labels, independent=self.independent)[0]

    @cached_property
    def _told(self) -> tuple[Array, Array] | None:
        # What is compared, where all of it is known, whatever the other model, and the squared length of each row.
        odds, shown, _ = _odds_of(self.probabilities[None], self.labels, independent=self.independent)
        told = _centred(odds, shown[0], self.labels, independent=self.independent)
        whole = shown.sum() == shown.size - (0 if self.independent else len(self.labels))
        return None if told is None or not whole else (told[0].astype(np.float32), (told[0] ** 2).sum(axis=1))


def _odds_apart(victim: Array, model: Array, labels: Array, *, independent: bool) -> tuple[float | None, bool]:
    # Of n rows: what is left of both models' odds when what is usual of all is taken away; and whether it is the model
    # that hides them.
    odds, shown, wanted = _odds_of(np.stack([victim, model]), labels, independent=independent)
    known: Array = shown[0] & shown[1]
    ours, common = int(shown[0].sum()), int(known.sum())
    if common < max(_KNOWN * ours, 1) or ours < _KNOWN * wanted:
        return None, ours >= max(_KNOWN * wanted, 1)
    told = _centred(odds, known, labels, independent=independent)
    if told is None:
        return None, False
    (one, other), (first, second) = told, (told**2).sum(axis=2)
    return _half_apart(one, first, other, second), False


def _odds_of(probabilities: Array, labels: Array, *, independent: bool) -> tuple[Array, Array, int]:
    # (models, n, classes): the logarithms of the odds, which of them are known, and how many of a model there are.
    values = probabilities.astype(np.float64)
    odds, shown = _log(values), values > _LEAST
    if independent:
        return odds - _log(1 - values), shown & (1 - values > _LEAST), shown[0].size
    shown[:, np.arange(len(labels)), labels] = False
    return odds - np.take_along_axis(odds, labels[None, :, None], axis=2), shown, shown[0].size - len(labels)


def _centred(odds: Array, known: Array, labels: Array, *, independent: bool) -> Array | None:
    # The same without what is usual of all, and whatever the temperature; None where nothing is left.
    groups = np.zeros(len(labels), np.int64) if independent else _groups(labels)
    if not independent:
        odds = odds - _mean(odds, known, axis=2)
    for group in np.unique(groups):
        rows = groups == group
        odds[:, rows] -= _mean(odds[:, rows], known[rows], axis=1)
    odds *= known
    spans = np.sqrt((odds**2).mean(axis=(1, 2), keepdims=True))
    return odds / spans if spans.all() else None


def _half_apart(one: Array, first: Array, other: Array, second: Array) -> float:
    # Of two models' rows and their squared lengths: the distance over the half of the rows that are most alike.
    whole = first + second
    told = np.flatnonzero(whole)
    apart = np.maximum(whole - 2 * np.einsum("rc,rc->r", one, other), 0)
    order = told[np.argsort(apart[told] / whole[told], kind="stable")]
    alike = order[: max(1, round(_ALIKE * len(order)))]
    return float(apart[alike].sum() / whole[alike].sum())


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

"""Accuracy on the seeds: of a model that errs more, or less, than all controls, the controls' distances say nothing.

An honest model that was never trained, or trained on little, is wrong where the victim is wrong; so is one that is
asked in a way that it does not expect. No control shows how near to the victim such a model may come.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite, answered
from deepjudge_core.types import Array

FAR = 0.1
"""How much less accurate than another a model is that is no model of the same worth."""
_AGREEMENT = 0.6  # the least share of the seeds on which a rival of a victim has its label; two of 80 % have 0.64
_LEVEL = 0.01  # of the tests that one share of the seeds is below another


@dataclass(frozen=True)
class Accuracy:
    """How many of the seeds a model classifies correctly; the victim all of them.

    Attributes:
        right: So many.
        of: Number of seeds, at least 1.
        agreement: Whether the labels are the victim's own answers, or its choice of an input's classes: it then says
            how often the model agrees with the victim, which a copy does more often than honest models.
    """

    right: int
    of: int
    agreement: bool = False

    @property
    def share(self) -> float:
        """The share of the seeds, 0..1."""
        return self.right / self.of

    def is_below(self, other: "Accuracy") -> bool:
        """Whether it is so much smaller that chance makes it so in one of a hundred cases (Fisher's exact test)."""
        if self.share >= other.share:
            return False  # without the import, which takes longer than all else that a command loads
        from scipy.stats import hypergeom

        right, seeds = self.right + other.right, self.of + other.of
        return bool(hypergeom.cdf(self.right, seeds, right, self.of) <= _LEVEL)


def accuracy_on_seeds(suite: Suite, observation: Observation) -> Accuracy | None:
    """How many of the seeds a model classifies correctly; None where its classes are not the victim's."""
    if observation.probabilities is None:
        return None
    suite, observation = answered(suite, observation)
    right = _right(suite, _labels(observation))
    return Accuracy(int(right.sum()), len(right), suite.label_origin != "inputs")


def errs_alike(suite: Suite, observation: Observation) -> Array | None:
    """``(cases,)`` bool: on which adversarial cases a model errs as the victim; None where its classes are others.

    Of a model that answers elsewhere, those cases that reached it.

    It does where it classifies the seed correctly, and the case as the victim, which is wrong.
    """
    if observation.probabilities is None or suite.victim.probabilities is None:
        return None
    suite, observation = answered(suite, observation)
    rows = suite.rows("adversarial")
    own, victim = _labels(observation), _labels(suite.victim)
    alike: Array = (own[rows] == victim[rows]) & _right(suite, own)[suite.cases.seeds[rows]]
    return alike


def _right(suite: Suite, labels: Array) -> Array:
    # (seeds,) bool: which of the seeds get their class, by the labels of all cases.
    clean = suite.rows("clean")
    right: Array = labels[clean] == suite.cases.labels[clean]
    return right


def is_far(accuracy: Accuracy | None, suite: Suite) -> bool:
    """Whether a control is far less accurate than the victim: no honest rival, so that thresholds do without it.

    The victim classifies all seeds correctly, since they were selected so. Mostly they are easier than the inputs that
    they were selected from, so that a model as accurate as the victim classifies at least as large a share of them
    correctly as the victim does of those inputs; where they are harder (``order="low"``), at least such a share as the
    victim is sure of. Few seeds say little of it, and so little that none is left out.
    """
    from scipy.special import bdtr  # late: what opens strangers' models does without it

    # How often honest models agree with the victim nobody knows, where it says or chooses the labels.
    known = suite.accuracy if suite.label_origin == "inputs" else _AGREEMENT
    least = max(min(known, _sureness(suite)) - FAR, 0.0)
    return accuracy is not None and bool(bdtr(accuracy.right, accuracy.of, least) <= _LEVEL)


def _sureness(suite: Suite) -> float:
    # The mean probability that the victim gives to the labels of the seeds.
    clean, probabilities = suite.rows("clean"), suite.victim.probabilities
    if probabilities is None:
        return 1.0
    return float(np.take_along_axis(probabilities[clean], suite.cases.labels[clean][:, None], axis=1).mean())


@dataclass(frozen=True)
class AccuracyGap:
    """That a suspect is not of the controls' accuracy.

    Attributes:
        reason: How that shows: one line.
        far: Whether it errs so much more that even its distance says nothing: it may not be asked as it expects.
    """

    reason: str
    far: bool = False


def accuracy_gap(suspect: Accuracy | None, controls: Iterable[Accuracy | None]) -> AccuracyGap | None:
    """Whether the controls' distances say nothing of a suspect, since it errs more, or much less, than all of them.

    Args:
        suspect: The suspect's accuracy; None where it is not known.
        controls: The controls'.
    """
    known = [control for control in controls if control is not None]
    if suspect is None or not known:
        return None
    shares = [control.share for control in known]
    worst, best = known[int(np.argmin(shares))], known[int(np.argmax(shares))]
    how = f"it classifies {suspect.share:.1%} of the seeds {'as the victim' if suspect.agreement else 'correctly'};"
    if suspect.is_below(worst):
        return AccuracyGap(
            f"{how} every control reaches at least {worst.share:.1%}, so the controls do not show how "
            "near to the victim an honest model with so many errors would be. Add controls of "
            "similar accuracy; if the suspect takes other inputs or classes than the victim, say so "
            "through its preprocessing or its classes",
            suspect.share < worst.share - FAR,
        )
    if not suspect.agreement and best.is_below(suspect) and suspect.share > best.share + FAR:
        return AccuracyGap(
            f"{how} no control exceeds {best.share:.1%}, so the controls do not show how near to the "
            "victim an honest model this accurate would be. Add controls with an accuracy near the "
            "victim's"
        )
    return None


def _labels(observation: Observation) -> Array:
    if observation.probabilities is None:
        raise ValueError("expected probabilities, found none")
    labels: Array = observation.probabilities.argmax(axis=1)
    return labels

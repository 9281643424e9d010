"""That a suspect is a copy of one of the controls: a nearer explanation of its likeness to the victim.

Models that were trained on the same rows, from the same public network, or by the same recipe are nearer to one another
than others are. A copy of one of them is then nearer to the victim than honest models, too, and no copy of the victim.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import scipy  # which loads its parts when they are first used

from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.verdict import Verdict
from deepjudge_core.judging.view import View, unfit_whole
from deepjudge_core.models.model import Access
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array

_MUCH = 0.5  # of the distance of the nearest other control, and of the victim


def nearer_model(suite: Suite, suspect: Observation, calibration: Calibration) -> str | None:
    """Of a control that the suspect is a copy of, its name; None where there is none.

    The suspect is less than half as far from that control as from the victim, and as any other control is: by the
    Jensen-Shannon divergence of the answers to all cases, or the share of labels that differ where one gives no more.

    Args:
        suite: The suite, with the victim's own answers.
        suspect: The suspect's.
        calibration: The controls; of fewer than two nothing follows.
    """
    known = [control for control in calibration.controls if control.probabilities is not None]
    view = View.of(suspect)
    if view is None:
        known = [control for control in known if not unfit_whole(control)]
    else:
        known = [view.through(suite, control)[1] for control in known if not view.unfit(suite, control)]
        suite, suspect = view.through(suite, suspect)
    if suspect.probabilities is None or len(known) < 2:
        return None
    labels_alone = any(Access.PROBABILITIES not in one.model.access for one in (suite.victim, suspect, *known))
    controls = _controls(calibration, labels_alone)
    own, victim = _answers(suspect, labels_alone), _answers(suite.victim, labels_alone)
    distances = [_distance(own, answers) for answers in controls.answers]
    nearest = int(np.argmin(distances))
    limit = _MUCH * min(_distance(own, victim), controls.least(nearest))
    return known[nearest].model.name if distances[nearest] < limit else None


class _Controls:
    # What is the same for all suspects that are judged by the same controls.

    def __init__(self, answers: Sequence[Array]) -> None:
        self.answers, self._least = answers, dict[int, float]()

    def least(self, place: int) -> float:
        """How far the next control is from one."""
        if place not in self._least:
            own = self.answers[place]
            others = (_distance(own, other) for at, other in enumerate(self.answers) if at != place)
            self._least[place] = min(others)
        return self._least[place]


@lru_cache(maxsize=1)
def _controls(calibration: Calibration, labels_alone: bool) -> _Controls:
    known = (control for control in calibration.controls if control.probabilities is not None)
    return _Controls([_answers(control, labels_alone) for control in known])


def explained(verdict: Verdict, nearer: str | None) -> Verdict:
    """The verdict on a suspect that is called a copy, and is nearer to another model; the same where there is none."""
    if nearer is None:
        return verdict
    reason = (
        f"it is much nearer to the control {nearer} than to the victim, and much nearer than "
        "other honest models are, so it is more likely a copy of that control"
    )
    return replace(verdict, decision=Decision.INCONCLUSIVE, points_to=None, reason=reason)


def _answers(observation: Observation, labels_alone: bool) -> Array:
    probabilities = np.asarray(observation.probabilities, np.float64)
    if labels_alone:
        onehot: Array = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
        return onehot
    if observation.independent:  # of each class, that it is likely and that it is not
        both: Array = np.concatenate([probabilities, 1 - probabilities], axis=1).clip(0, 1) / probabilities.shape[1]
        return both
    scaled: Array = probabilities / probabilities.sum(axis=1, keepdims=True)
    return scaled


def _distance(one: Array, other: Array) -> float:
    middle = (one + other) / 2
    divergences = scipy.special.rel_entr(one, middle) + scipy.special.rel_entr(other, middle)
    return float(divergences.sum(axis=1).mean() / 2)

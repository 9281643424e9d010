"""That a suspect is a copy of one of the controls: a nearer explanation of its likeness to the victim.

Models that were trained on the same rows, from the same public network, or by the same recipe are nearer to one another
than others are. A copy of one of them is then nearer to the victim than honest models, too, and no copy of the victim.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.likeness import divergence, scores_of
from deepjudge_core.judging.verdict import Verdict
from deepjudge_core.judging.view import View, unfit_whole
from deepjudge_core.models.model import Access
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite

_MUCH = 0.5  # of the distance of the nearest other control, and of the victim


def nearer_model(suite: Suite, suspect: Observation, calibration: Calibration) -> str | None:
    """Of a control that the suspect is a copy of, its name; None where there is none.

    The suspect is less than half as far from that control as from the victim, and as any other control is: by the
    Jensen-Shannon divergence of the answers to all cases, or the share of labels that differ where one gives no more.

    Args:
        suite: The suite, with the victim's own answers.
        suspect: The suspect's.
        calibration: The controls; of fewer than two that differ nothing follows.
    """
    view = View.of(suspect)
    if view is not None:
        part, suspect = view.through(suite, suspect)
    else:
        part = suite
    if suspect.probabilities is None:
        return None
    whole = Access.PROBABILITIES in part.victim.model.access & suspect.model.access
    controls = _controls(calibration, suite, view, not whole)
    if not controls.several:
        return None
    own, victim = (scores_of(one, labels_alone=controls.labels_alone) for one in (suspect, part.victim))
    distances = [divergence(own, answers) for answers in controls.answers]
    nearest = int(np.argmin(distances))
    limit = _MUCH * min(divergence(own, victim), controls.least(nearest))
    return controls.names[nearest] if distances[nearest] < limit else None


class _Controls:
    # What is the same for all suspects that are judged by the same controls and seen in the same way.

    def __init__(self, calibration: Calibration, suite: Suite, view: View | None, labels_alone: bool) -> None:
        known = [
            (control if view is None else view.through(suite, control)[1], cluster)
            for control, cluster in zip(calibration.controls, calibration.clusters, strict=True)
            if control.probabilities is not None
            and not (unfit_whole(control) if view is None else view.unfit(suite, control))
        ]
        alone = labels_alone or any(Access.PROBABILITIES not in control.model.access for control, _ in known)
        self.labels_alone, self.names = alone, [control.model.name for control, _ in known]
        self.answers = [scores_of(control, labels_alone=alone) for control, _ in known]
        self._clusters, self._least = [cluster for _, cluster in known], dict[int, float]()

    @property
    def several(self) -> bool:
        """Whether there are two that differ."""
        return len({*self._clusters}) > 1

    def least(self, place: int) -> float:
        """How far the next control is from one, beside those that count as the same; infinite where there is none."""
        if place not in self._least:
            others = (
                divergence(self.answers[place], other)
                for other, cluster in zip(self.answers, self._clusters, strict=True)
                if cluster != self._clusters[place]
            )
            self._least[place] = min(others, default=np.inf)
        return self._least[place]


@lru_cache(maxsize=1)
def _controls(calibration: Calibration, suite: Suite, view: View | None, labels_alone: bool) -> _Controls:
    return _Controls(calibration, suite, view, labels_alone)


def explained(verdict: Verdict, nearer: str | None) -> Verdict:
    """The verdict on a suspect that is called a copy, and is nearer to another model; the same where there is none."""
    if nearer is None:
        return verdict
    reason = (
        f"it is much nearer to the control {nearer} than to the victim, and much nearer than "
        "other honest models are, so it is more likely a copy of that control"
    )
    return replace(verdict, decision=Decision.INCONCLUSIVE, points_to=None, reason=reason)

"""Whether adversarial cases fool honest models, too: then to be fooled as the victim is tells no copy."""

from collections.abc import Sequence

import numpy as np

from deepjudge_core.judging.view import unfit_whole
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite

NEARLY_ALL = 0.9
"""Share of the answers from which on it is said."""


def transfer(suite: Suite, controls: Sequence[Observation]) -> str | None:
    """That the controls answer nearly all adversarial cases as the victim does: one line; None where they do not."""
    rows, victim = suite.rows("adversarial"), suite.victim.probabilities
    whole = (control for control in controls if not unfit_whole(control))
    answers = [control.probabilities[rows] for control in whole if control.probabilities is not None]
    if victim is None or not answers or not rows.any():
        return None
    fooled = victim[rows].argmax(axis=1)
    share = float(np.mean([answer.argmax(axis=1) == fooled for answer in answers]))
    if share < NEARLY_ALL:
        return None
    return (
        f"the controls answer {share:.0%} of the adversarial cases as the victim does, so the "
        "same answers from a suspect are weak evidence of a copy; cases nearer to their seeds "
        "are stronger evidence (for instance a smaller pgd.eps)"
    )

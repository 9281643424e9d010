"""Thresholding and voting (paper, section IV-D)."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import scipy.stats

from deepjudge_core.components import Decision, Evidence, Judgement, Vote
from deepjudge_core.errors import UsageError
from deepjudge_core.model import Array

Bound = Literal["prediction", "mean"]
_NO_ALPHAS: Mapping[str, float] = {}


def voting(
    evidence: Mapping[str, Evidence],
    *,
    bound: Bound = "prediction",
    confidence: float = 0.99,
    alpha: Mapping[str, float] = _NO_ALPHAS,
) -> Judgement:
    """Let each metric vote copy or not, and call the suspect a copy when more than half of the votes say so.

    A metric votes copy when its value is at most ``alpha`` times the :func:`lower_bound` of the controls' values. It
    casts no vote where the bound is not positive, since then not even a distance of 0 would tell a copy from a control.

    Args:
        bound: ``prediction``: an honest new model falls below the bound with the probability ``1 - confidence``;
            ``mean``: the controls' mean does, and an honest new model much more often (23 % at 12 controls).
        confidence: Of the one-sided bound, 0..1.
        alpha: Metric name to the share of the bound that makes its threshold, 0..1; by default the metric's own. The
            core has made sure that these are metrics, maybe of the other group.

    Raises:
        UsageError: When an option is out of range.
    """
    if bound not in ("prediction", "mean"):
        raise UsageError(f"voting: expected the bound 'prediction' or 'mean', found {bound!r}")
    if not 0 < confidence < 1:
        raise UsageError(f"voting: expected 0 < confidence < 1, found {confidence}")
    for name, share in alpha.items():
        if not 0 < share <= 1:
            raise UsageError(f"voting: expected 0 < alpha <= 1 for {name!r}, found {share}")
    votes = {name: _vote(e, bound, confidence, alpha.get(name, e.alpha)) for name, e in evidence.items()}
    cast = [vote.vote for vote in votes.values() if vote.vote is not None]
    if not cast:
        return Judgement(Decision.INCONCLUSIVE, None, votes, "no metric could vote")
    p_copy = float(np.mean(cast))
    return Judgement(Decision.COPY if p_copy > 0.5 else Decision.INDEPENDENT, p_copy, votes)


def lower_bound(controls: Array, bound: Bound, confidence: float) -> float:
    """One-sided lower bound from the controls' values ``(n,)``, by Student's t with ``n - 1`` degrees of freedom.

    ``mean - t * s * sqrt(1 + 1/n)`` bounds one new model's value (``prediction``), ``mean - t * s / sqrt(n)`` the mean.
    """
    n = len(controls)
    factor = math.sqrt((1 if bound == "prediction" else 0) + 1 / n)
    quantile = float(scipy.stats.t.ppf(confidence, n - 1))
    return float(np.mean(controls) - quantile * np.std(controls, ddof=1) * factor)


def _vote(evidence: Evidence, bound: Bound, confidence: float, alpha: float) -> Vote:
    controls = np.asarray(evidence.controls, dtype=np.float64)
    if len(controls) < 3:
        return Vote(None, reason=f"expected at least 3 controls, found {len(controls)}")
    if not np.isfinite(controls).all():
        return Vote(None, reason="a control's value is not finite")
    limit = lower_bound(controls, bound, confidence)
    if limit <= 0:
        return Vote(None, limit, reason=f"the controls say nothing: their lower bound is {limit:.4g}")
    if not math.isfinite(evidence.value):
        return Vote(None, limit, alpha * limit, reason=f"the suspect's value is {evidence.value}")
    return Vote(evidence.value <= alpha * limit, limit, alpha * limit)

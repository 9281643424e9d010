"""Thresholding and voting (paper, section IV-D)."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import scipy  # which loads its parts when they are first used
from annotated_types import Gt, Le, Lt

from deepjudge_core.components.strata import two_groups
from deepjudge_core.components.values import Decision, Evidence, Judgement, Vote
from deepjudge_core.types import Array

Bound = Literal["prediction", "mean"]
# What to do with controls of several kinds, whether their strata are known or not.
_APART: Mapping[bool, str] = {
    True: "use the rule option strata=true to judge by each stratum separately",
    False: ("calibrate with controls of one kind, or name their strata and judge with the rule option strata=true"),
}
_NO_ALPHAS: Mapping[str, float] = {}


def voting(
    evidence: Mapping[str, Evidence],
    *,
    bound: Bound = "prediction",
    confidence: Annotated[float, Gt(0), Lt(1)] = 0.99,
    alpha: Mapping[str, Annotated[float, Gt(0), Le(1)]] = _NO_ALPHAS,
    strata: bool = False,
) -> Judgement:
    """Let each metric vote copy or not, and call the suspect a copy when more than half of the votes say so.

    A metric votes copy when its value is at most ``alpha`` times the :func:`lower_bound` of the controls' values. It
    casts no vote if the bound is not positive, because then even a distance of 0 would not distinguish a copy from a
    control.

    Args:
        bound: ``prediction``: a new honest model falls below the bound with probability ``1 - confidence``; ``mean``:
            the controls' true mean does, and a new honest model much more often (23 % with 12 controls).
        confidence: Confidence of the one-sided bound.
        alpha: Share of the bound that makes a metric's threshold; by default the metric's own.
        strata: Give each stratum of controls its own threshold, and use the smallest. Otherwise all controls are
            pooled, as in the paper.
    """
    votes = {
        name: _strictest(e, bound, confidence, alpha.get(name, e.alpha))
        if strata
        else _pooled(e, bound, confidence, alpha.get(name, e.alpha))
        for name, e in evidence.items()
    }
    cast = [vote.vote for vote in votes.values() if vote.vote is not None]
    if not cast:
        return Judgement(Decision.INCONCLUSIVE, None, votes, "no metric could vote")
    p_copy = float(np.mean(cast))
    decision = Decision.COPY if p_copy > 0.5 else Decision.INDEPENDENT
    return Judgement(decision, p_copy, votes, statement=_statement(votes, evidence, strata=strata))


def lower_bound(controls: Array, bound: Bound, confidence: float) -> float:
    """One-sided lower bound from the controls' values ``(n,)``, by Student's t with ``n - 1`` degrees of freedom.

    ``mean - t * s * sqrt(1 + 1/n)`` bounds one new model's value (``prediction``), ``mean - t * s / sqrt(n)`` the mean.
    """
    n = len(controls)
    factor = math.sqrt((1 if bound == "prediction" else 0) + 1 / n)
    quantile = float(scipy.special.stdtrit(n - 1, confidence))
    return float(np.mean(controls) - quantile * np.std(controls, ddof=1) * factor)


def false_positive_rate(n: int, bound: Bound, confidence: float) -> float:
    """Probability that one more model, from the same normal distribution as n controls, is below their lower bound.

    It is ``P(t < -t(confidence, n - 1))`` for a prediction bound, and with ``t(confidence, n - 1) / sqrt(n + 1)`` for
    one of the mean: 23 % at n = 12. A threshold that is a share of a positive bound is lower, and so is its rate; by
    how much depends on the distribution's mean and deviation, which controls only estimate.
    """
    quantile = float(scipy.special.stdtrit(n - 1, confidence))
    return float(scipy.special.stdtr(n - 1, -(quantile if bound == "prediction" else quantile / math.sqrt(n + 1))))


def _strictest(evidence: Evidence, bound: Bound, confidence: float, alpha: float) -> Vote:
    # Of the strata's votes that with the smallest threshold; none where one of the strata has none.
    votes = [
        (stratum, _vote(evidence.value, controls, bound, confidence, alpha))
        for stratum, controls in evidence.by_stratum().items()
    ]
    for stratum, vote in votes:
        if vote.vote is None:
            return replace(vote, reason=f"stratum {stratum}: {vote.reason}" if stratum else vote.reason)
    smallest = min((vote for _, vote in votes), key=lambda vote: vote.threshold or 0)
    return replace(smallest, false_positive_rate=max(vote.false_positive_rate or 0 for _, vote in votes))


def _pooled(evidence: Evidence, bound: Bound, confidence: float, alpha: float) -> Vote:
    # Of controls of two kinds the bound of all says nothing, and that of each may.
    vote = _vote(evidence.value, evidence.controls, bound, confidence, alpha)
    groups = two_groups(evidence.controls) if vote.vote is None else None
    if groups is None:
        return vote
    return replace(
        vote, reason=f"{groups}, and together they give no usable threshold; {_APART[bool(evidence.strata)]}"
    )


def _vote(value: float, values: Array, bound: Bound, confidence: float, alpha: float) -> Vote:
    controls = np.asarray(values, dtype=np.float64)
    if len(controls) < 3:
        return Vote(None, reason=f"expected at least 3 controls, found {len(controls)}")
    if not np.isfinite(controls).all():
        return Vote(None, reason="a control's value is not finite")
    limit = lower_bound(controls, bound, confidence)
    if limit <= 0:
        return Vote(
            None,
            limit,
            reason=(
                "the controls differ too much among themselves for this metric to tell a copy (lower "
                f"bound {limit:.4g}; add controls, or use fewer strata)"
            ),
        )
    if not math.isfinite(value):
        return Vote(None, limit, alpha * limit, reason=f"the suspect's value is {value}")
    rate = false_positive_rate(len(controls), bound, confidence)
    return Vote(value <= alpha * limit, limit, alpha * limit, false_positive_rate=rate)


def _statement(votes: Mapping[str, Vote], evidence: Mapping[str, Evidence], *, strata: bool) -> str:
    cast = {name: vote for name, vote in votes.items() if vote.vote is not None}
    rate = max(vote.false_positive_rate or 0 for vote in cast.values())
    kinds = {stratum for metric in evidence.values() for stratum in metric.strata or (None,)}
    named = ", ".join(sorted(stratum or "unknown" for stratum in kinds))
    if kinds == {None}:
        how = "controls pooled; strata unknown"
    else:
        how = f"each stratum judged separately: {named}" if strata else f"controls pooled across strata: {named}"
    copies = sum(vote.vote is True for vote in cast.values())
    if len(cast) == 1:
        alone = "the only metric" if len(votes) == 1 else next(iter(cast))  # of several, the others cast no vote
        said, which = f"{alone} {'votes' if copies else 'does not vote'} copy", "it"
    else:
        said, which = f"{copies} of {len(cast)} metrics vote copy", "any one metric"
    return (
        f"{said}; if distances are normally distributed, at most {100 * rate:.3g} % of honest models "
        f'like these controls would get a "copy" vote from {which} ({how})'
    )

"""Several metrics, one p-value."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import scipy
from annotated_types import Gt, Lt

from deepjudge_core.components.strata import Stratum
from deepjudge_core.components.values import Evidence, Judgement, Vote
from deepjudge_core.types import Array
from deepjudge_statistics import bounds, wording
from deepjudge_statistics.rules import conclude, inconclusive, prediction_bound, rank
from deepjudge_statistics.strata import of, shortage

Method = Literal["score", "harmonic", "bonferroni"]


def combine(
    evidence: Mapping[str, Evidence], *, method: Method = "score", level: Annotated[float, Gt(0), Lt(1)] = 0.01
) -> Judgement:
    """Judge all metrics together.

    ``score``: the sum over the metrics of the suspect's ranks among the controls is calibrated as one distance, by
    :func:`~deepjudge_statistics.bounds.conformal_p`. It assumes no distribution and nothing about how the metrics
    depend on each other, and needs no correction. ``harmonic``: the harmonic mean of the metrics'
    prediction p-values (Wilson, PNAS 2019), times a factor that makes it valid however they depend on each
    other. ``bonferroni``: like the rule ``prediction-bound``.

    A metric's vote is its own decision at the level; with ``bonferroni``, after the correction.

    Args:
        method: How the metrics are combined.
        level: Upper limit of the probability that an honest model is called a copy.
    """
    if method == "score":
        return _score(evidence, level)
    judgement = prediction_bound(evidence, level=level)
    return judgement if method == "bonferroni" else _harmonic(evidence, judgement, level)


def harmonic_factor(count: int) -> float:
    """What the harmonic mean of ``count`` p-values is multiplied by to be one, however they depend on one another.

    The least such factor: ``(y + K)^2 / ((y + 1) K)``, where ``y^2 = K ((y + 1) ln(y + 1) - y)``; 2 of two p-values
    (Vovk & Wang, *Combining p-values via averaging*, Biometrika 107, 2020). It is below their ``e ln K``.
    """
    if count <= 2:
        return float(count)
    y = scipy.optimize.brentq(lambda y: y * y - count * ((y + 1) * math.log1p(y) - y), 1e-3, 1e3 * count)
    return float((y + count) ** 2 / ((y + 1) * count))


def rank_scores(values: Array) -> Array:
    """``(n,)`` sums over the columns of the ranks that each row has in them; ``values`` is ``(n, metrics)``."""
    ranks: Array = scipy.stats.rankdata(values, axis=0).sum(axis=1)
    return ranks


def _harmonic(evidence: Mapping[str, Evidence], each: Judgement, level: float) -> Judgement:
    p_values = [vote.p_value for vote in each.votes.values() if vote.p_value is not None]
    if not p_values:
        return each
    mean = float(scipy.stats.hmean(p_values)) if min(p_values) > 0 else 0.0
    p_value = min(1.0, harmonic_factor(len(p_values)) * mean)
    votes = {
        name: vote if vote.p_value is None else _alone(evidence[name], vote.p_value, level)
        for name, vote in each.votes.items()
    }
    return conclude(evidence, votes, p_value, 0.0, level, wording.lognormal(evidence))


def _alone(evidence: Evidence, p_value: float, level: float) -> Vote:
    threshold = min(bounds.prediction_limit(level, controls) for controls in evidence.by_stratum().values())
    return Vote(p_value <= level, threshold, threshold, p_value=p_value, false_positive_rate=level)


def _score(evidence: Mapping[str, Evidence], level: float) -> Judgement:
    suspect = np.array([metric.value for metric in evidence.values()])
    strata = _rows(evidence)
    p_value, least = 0.0, 0.0
    for controls in strata.values():
        # Suspect and controls are ranked together: were the suspect a control, nothing would be otherwise.
        *others, own = rank_scores(np.vstack([controls, suspect]))
        p_value = max(p_value, bounds.conformal_p(own, np.array(others)))
        least = max(least, 1 / (len(controls) + 1))
    needed = bounds.conformal_controls(level)
    for stratum, controls in strata.items():
        if len(controls) < needed:
            reason = f"{of(stratum)}{shortage(len(controls), needed)} for a p-value of {level:.3g}"
            return inconclusive(dict.fromkeys(evidence, Vote(None, reason=reason)), p_value, least)
    votes = {name: rank(metric, level) for name, metric in evidence.items()}
    condition = "this assumes that the suspect, if honest, is a model of the same kind as the controls"
    return conclude(evidence, votes, p_value, least, level, condition)


def _rows(evidence: Mapping[str, Evidence]) -> dict[Stratum | None, Array]:
    # Of each stratum the controls that all metrics were measured on, a row each.
    columns = [dict(zip(_places(metric), metric.controls, strict=True)) for metric in evidence.values()]
    strata = {
        place: stratum
        for metric in evidence.values()
        for place, stratum in zip(_places(metric), metric.strata or [None] * len(metric.controls), strict=True)
    }
    whole = [place for place in strata if all(place in column for column in columns)]
    return {
        stratum: np.array(
            [[column[place] for column in columns] for place in whole if strata[place] == stratum]
        ).reshape(-1, len(columns))
        for stratum in dict.fromkeys(strata.values())
    }


def _places(evidence: Evidence) -> Sequence[int]:
    return evidence.places or range(len(evidence.controls))

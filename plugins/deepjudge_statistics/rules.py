"""One rule for each way to hold a suspect against controls.

Each metric is judged by itself, in each stratum by itself, and counts by its largest p-value over the strata: whichever
of them an honest suspect is like, it is accused no more often than the level says. Several metrics are combined by
Bonferroni's correction, which holds however they depend on one another: the suspect is a copy when one of m metrics
says so at the level divided by m.
"""

from collections.abc import Callable, Mapping
from typing import Annotated

from annotated_types import Gt, Lt

from deepjudge_core.components.values import Decision, Evidence, Judgement, Vote
from deepjudge_core.types import Array
from deepjudge_statistics import bounds, wording
from deepjudge_statistics.strata import InsufficientError, of, shortage, spread_out

LEAST_PREDICTING = 6
"""Controls of each stratum that a prediction bound takes: fewer say next to nothing of their spread."""
LEAST_TOLERATED = 3
"""The same of a tolerance bound, whose factor grows where controls are few."""


def prediction_bound(evidence: Mapping[str, Evidence], *, level: Annotated[float, Gt(0), Lt(1)] = 0.01) -> Judgement:
    """Compare each distance with the prediction for one more control, by Student's t on log distances.

    Args:
        level: Upper limit of the probability that an honest model is called a copy.
    """
    strata, silent = usable(evidence, lambda metric: spread_out(metric, LEAST_PREDICTING))
    each = level / max(len(strata), 1)
    votes = {}
    for name, groups in strata.items():
        p_value = max(bounds.prediction_p(evidence[name].value, controls) for controls in groups)
        threshold = min(bounds.prediction_limit(each, controls) for controls in groups)
        votes[name] = Vote(p_value <= each, threshold, threshold, p_value=p_value, false_positive_rate=each)
    # A distance of 0 is below every log-normal one.
    return _bonferroni(evidence, votes | silent, level, least=0.0, condition=wording.lognormal(evidence))


def tolerance_bound(
    evidence: Mapping[str, Evidence],
    *,
    level: Annotated[float, Gt(0), Lt(1)] = 0.01,
    confidence: Annotated[float, Gt(0), Lt(1)] = 0.95,
) -> Judgement:
    """Compare each distance with a bound that most honest models exceed, with a stated confidence.

    A prediction bound is right on average over all possible sets of controls; this one is right for most of them: with
    the ``confidence``, honest models are called copies with a probability of at most ``level``. There is no p-value.

    Args:
        level: Upper limit of the share of honest models that are called copies.
        confidence: Confidence that this holds for these controls.
    """
    strata, silent = usable(evidence, lambda metric: spread_out(metric, LEAST_TOLERATED))
    count = max(len(strata), 1)
    # Both are divided: each metric's bound has to hold, and then each may accuse its part.
    each, sure = level / count, 1 - (1 - confidence) / count
    votes = {}
    for name, groups in strata.items():
        threshold = min(bounds.tolerance_limit(1 - each, sure, controls) for controls in groups)
        votes[name] = Vote(evidence[name].value <= threshold, threshold, threshold, false_positive_rate=each)
    if not votes:
        return inconclusive(silent)
    copies = [name for name, vote in votes.items() if vote.vote]
    by = ", ".join(copies) if copies else "any metric"
    side = "nearer" if copies else "not nearer"
    statement = wording.sentence(
        [
            f"the suspect is {side} to the victim than all but {wording.percent(level)} of honest models like the "
            f"controls, with {wording.percent(confidence)} confidence, by {by}",
            f"from {wording.control_counts(evidence)}",
            wording.lognormal(evidence),
        ]
    )
    decision = Decision.COPY if copies else Decision.INDEPENDENT
    return Judgement(decision, None, votes | silent, statement=statement)


def conformal(evidence: Mapping[str, Evidence], *, level: Annotated[float, Gt(0), Lt(1)] = 0.01) -> Judgement:
    """Rank each distance among those of the controls; no distribution is assumed.

    With n controls, no p-value is below 1 / (n + 1); if that is above the level, the rule is inconclusive.

    Args:
        level: Upper limit of the probability that an honest model is called a copy.
    """
    each = level / len(evidence)
    votes = {name: rank(metric, each) for name, metric in evidence.items()}
    least = min(_least_p(metric) for metric in evidence.values())
    condition = "this assumes that the suspect, if honest, is a model of the same kind as the controls"
    return _bonferroni(evidence, votes, level, least=least, condition=condition)


def rank(evidence: Evidence, level: float) -> Vote:
    """The vote of one metric by its rank; none where there are too few controls for the level."""
    strata = evidence.by_stratum()
    p_value = max(bounds.conformal_p(evidence.value, controls) for controls in strata.values())
    needed = bounds.conformal_controls(level)
    for stratum, controls in strata.items():
        if len(controls) < needed:
            reason = f"{of(stratum)}{shortage(len(controls), needed)} for a p-value of {level:.3g}"
            return Vote(None, reason=reason, p_value=p_value)
    limits = [bounds.conformal_limit(level, controls) for controls in strata.values()]
    threshold = None if None in limits else min(limit for limit in limits if limit is not None)
    rate = max(bounds.conformal_rank(level, len(values)) / (len(values) + 1) for values in strata.values())
    vote = bounds.is_at_most(p_value, level)
    return Vote(vote, threshold, threshold, p_value=p_value, false_positive_rate=rate)


def usable(
    evidence: Mapping[str, Evidence], look: Callable[[Evidence], list[Array]]
) -> tuple[dict[str, list[Array]], dict[str, Vote]]:
    """The controls of each metric by stratum, and the votes that are not cast of metrics whose controls will not do."""
    strata, silent = {}, {}
    for name, metric in evidence.items():
        try:
            strata[name] = look(metric)
        except InsufficientError as error:
            silent[name] = Vote(None, reason=str(error))
    return strata, silent


def inconclusive(votes: Mapping[str, Vote], p_value: float | None = None, least: float | None = None) -> Judgement:
    """The judgement where no metric could vote."""
    reasons = dict.fromkeys(vote.reason for vote in votes.values() if vote.reason)
    return Judgement(Decision.INCONCLUSIVE, None, votes, "; ".join(reasons), p_value, least)


def conclude(
    evidence: Mapping[str, Evidence],
    votes: Mapping[str, Vote],
    p_value: float,
    least: float,
    level: float,
    condition: str,
) -> Judgement:
    """The judgement that a p-value makes."""
    copy = bounds.is_at_most(p_value, level)
    statement = wording.sentence(
        [
            wording.near(p_value),
            f"the rule calls a model a copy at {wording.percent(level)} or less",
            f"from {wording.control_counts(evidence)}",
            condition,
        ]
    )
    decision = Decision.COPY if copy else Decision.INDEPENDENT
    return Judgement(decision, None, votes, None, p_value, min(least, p_value), statement)


def _bonferroni(
    evidence: Mapping[str, Evidence], votes: Mapping[str, Vote], level: float, *, least: float, condition: str
) -> Judgement:
    # Over the metrics that have a p-value: whether they do depends on the controls alone.
    p_values = [vote.p_value for vote in votes.values() if vote.p_value is not None]
    if not p_values:
        return inconclusive(votes)
    p_value, least = (min(1.0, len(p_values) * p) for p in (min(p_values), least))
    if all(vote.vote is None for vote in votes.values()):
        return inconclusive(votes, p_value, least)
    return conclude(evidence, votes, p_value, least, level, condition)


def _least_p(evidence: Evidence) -> float:
    return max(1 / (len(controls) + 1) for controls in evidence.by_stratum().values())

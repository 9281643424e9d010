"""A deepjudge plugin: the metric ``top1`` and the rule ``unanimous``."""

from collections.abc import Iterable, Mapping

import numpy as np

from deepjudge_core.plugin import Access, Answers, Decision, Evidence, Judgement, Metric, Rule, Vote, hookimpl


def top1(victim: Answers, suspect: Answers) -> float:
    """Share of the cases, 0..1, whose most probable class differs between the two models."""
    if victim.probabilities is None or suspect.probabilities is None:
        raise ValueError("expected both models' probabilities, found none")
    return float(np.mean(victim.probabilities.argmax(axis=1) != suspect.probabilities.argmax(axis=1)))


@hookimpl
def deepjudge_metrics() -> Iterable[Metric]:
    """Give the metric."""
    return [
        Metric(
            "top1",
            needs=Access.LABELS,
            on="adversarial",
            distance=top1,
            alpha=0.9,
            upper=1,
            title="disagreement of the first label",
            says="share of the adversarial cases that get another label",
        )
    ]


def unanimous(evidence: Mapping[str, Evidence], *, alpha: float | None = None) -> Judgement:
    """Say copy only when every metric votes for it.

    A metric votes for it when its value is at most ``alpha`` times the least value of any control.

    Args:
        alpha: For all metrics; by default each metric's own.
    """
    votes = {name: _vote(e, e.alpha if alpha is None else alpha) for name, e in evidence.items()}
    cast = [vote.vote for vote in votes.values()]
    p_copy = cast.count(True) / len(cast)
    statement = f"{cast.count(True)} of {len(cast)} metrics are nearer to the victim than any control's, by some way"
    if False in cast:
        return Judgement(Decision.INDEPENDENT, p_copy, votes, statement=statement)
    if None in cast:
        return Judgement(Decision.INCONCLUSIVE, p_copy, votes, reason="a metric casts no vote")
    return Judgement(Decision.COPY, p_copy, votes, statement=statement)


def _vote(evidence: Evidence, alpha: float) -> Vote:
    least = float(evidence.controls.min())
    if least <= 0:
        return Vote(None, lower_bound=least, reason="a control is as near to the victim as a copy would be")
    return Vote(evidence.value <= alpha * least, lower_bound=least, threshold=alpha * least)


@hookimpl
def deepjudge_rules() -> Iterable[Rule]:
    """Give the rule."""
    return [Rule("unanimous", judge=unanimous)]

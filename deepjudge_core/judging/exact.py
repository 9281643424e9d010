"""The rule ``exact``: metrics that know their chance by themselves, so that no control is needed to accuse.

What such a metric does not accuse, it does not acquit: an order that was scrambled is no sign of independence.
"""

import math
import sys
from collections.abc import Mapping
from typing import Annotated

from annotated_types import Gt, Lt

from deepjudge_core.components.values import Chance, Decision, Evidence, Judgement, Vote

LEVEL = 1e-3
"""The probability, at most, with which such metrics together call a model a copy that was made independently."""
LOG10_LEVEL = math.log10(LEVEL)
ACQUITS_NOBODY = "this alone acquits nobody"
UNINFORMED = "if nobody who made the victim's file or chose what is compared knew the suspect"
"""What every such probability rests on: neurons can be put in a suspect's order after it has been seen."""


def exact(evidence: Mapping[str, Evidence], *, level: Annotated[float, Gt(0), Lt(1)] = LEVEL) -> Judgement:
    """Judge metrics by the chance that they give themselves, whatever the controls.

    Several such metrics are combined by Bonferroni's correction. The rule calls a model a copy or says nothing of it:
    a model that differs in what was compared may still be a copy.

    Args:
        level: Upper limit of the probability that a model made independently of the victim is called a copy.
    """
    chances = {name: metric.chance for name, metric in evidence.items() if metric.chance is not None}
    votes = {name: _vote(chance, level / len(chances)) for name, chance in chances.items()}
    votes |= {
        name: Vote(None, reason="it gives no p-value of its own, by which the rule exact judges")
        for name in evidence
        if name not in chances
    }
    if not chances:
        reasons = dict.fromkeys(vote.reason for vote in votes.values() if vote.reason)
        return Judgement(Decision.INCONCLUSIVE, None, votes, "; ".join(reasons))
    nearest = min(chances.values(), key=lambda chance: chance.log10_p)
    found, least = (
        min(0.0, value + math.log10(len(chances)))
        for value in (nearest.log10_p, min(chance.least for chance in chances.values()))
    )
    p_value, least_p = as_number(found), as_number(least)
    if not any(vote.vote for vote in votes.values()):
        reasons = dict.fromkeys(vote.reason for vote in votes.values() if vote.reason)
        text = "; ".join(filter(None, reasons))
        return Judgement(Decision.INCONCLUSIVE, None, votes, text, p_value, least_p, log10_p=found)
    several = f", corrected for {len(chances)} such metrics" if len(chances) > 1 else ""
    statement = (
        f"{nearest.counted}; independent training gives this with a probability of at most "
        f"{power_of_ten(found)}{several}, {UNINFORMED} (limit {level:g})"
    )
    return Judgement(Decision.COPY, None, votes, None, p_value, least_p, statement, found)


def as_number(log10_p: float) -> float:
    """A probability of which the logarithm is known; where it is too small for a number, the least that there is."""
    return max(math.pow(10, log10_p), sys.float_info.min)


def power_of_ten(log10_p: float) -> str:
    """A probability in a text, rounded up, however small: ``0.032`` or ``2e-428``."""
    exponent = math.floor(log10_p + 1e-9)
    tenths = math.ceil(10 ** (log10_p - exponent + 1) - 1e-6)
    if tenths >= 100:
        tenths, exponent = 10, exponent + 1
    if exponent >= -3:
        return f"{tenths / 10 * 10.0**exponent:.2g}"
    return f"{tenths / 10:.2g}e{exponent}"


def _vote(chance: Chance, each: float) -> Vote:
    p_value = as_number(chance.log10_p)
    if chance.log10_p <= math.log10(each):
        return Vote(True, p_value=p_value, false_positive_rate=each, log10_p=chance.log10_p)
    if chance.least > math.log10(each):
        reason = f"so few can be compared that no p-value is below {power_of_ten(chance.least)}; {ACQUITS_NOBODY}"
    else:
        reason = (
            f"{chance.counted}, which chance explains (p = {power_of_ten(chance.log10_p)}); a copy whose neurons were "
            f"put into another order looks the same: {ACQUITS_NOBODY}"
        )
    return Vote(None, reason=reason, p_value=p_value, log10_p=chance.log10_p)

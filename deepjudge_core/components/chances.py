"""The probability that as much is matched by chance: every p-value of a key comes from here."""

import math

import numpy as np

from deepjudge_core.types import Array

_REDRAWN = 9_999
_AT_ONCE = 2**24  # numbers in memory


def log10_binomial_tail(found: int, of: int, chance: float) -> float:
    """Log to base 10 of the probability that at least ``found`` of ``of`` independent trials match.

    Args:
        found: 0 or more.
        of: Trials.
        chance: Of each, above 0 and below 1.
    """
    if found <= 0:
        return 0.0
    counts = np.arange(found, of + 1)
    terms = np.array([_log_choose(of, int(count)) for count in counts])
    terms = terms + counts * math.log(chance) + (of - counts) * math.log1p(-chance)
    most = float(terms.max())
    return min(0.0, (most + math.log(float(np.exp(terms - most).sum()))) / math.log(10))


def log10_lift(scores: Array, coins: Array) -> float:
    """Log to base 10 of the probability, at most, that fair coins give scores as high a sum where they are 1.

    The coins are independent of the scores, and each is 0 or 1 with probability 1/2. Two bounds hold whatever the
    scores are: the share of 9,999 further draws of the coins that give as much, with the drawn one among them; and
    Chernoff's, ``min over t of prod cosh(t s / 2) exp(-t S)``, which knows no least value. Twice the smaller one counts
    (Bonferroni's correction).

    Args:
        scores: ``(n,)`` finite.
        coins: ``(n,)`` of 0 and 1.
    """
    scores = np.asarray(scores, np.float64)
    greatest = float(np.abs(scores).max(initial=0.0))
    if greatest == 0:
        return 0.0
    scores = scores / greatest  # so that no sum of them is infinite
    lift = float(((coins - 0.5) * scores).sum())
    if lift <= 0:
        return 0.0
    p = min(_redrawn(scores, lift), _chernoff(scores, lift))
    return min(0.0, p + math.log10(2))


def _log_choose(of: int, count: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(count + 1) - math.lgamma(of - count + 1)


def _redrawn(scores: Array, lift: float) -> float:
    random, as_high = np.random.default_rng(0), 0
    step = max(1, _AT_ONCE // len(scores))
    edge = lift * (1 - 1e-12)
    for begin in range(0, _REDRAWN, step):
        count = min(step, _REDRAWN - begin)
        coins = random.integers(0, 2, (count, len(scores)), dtype=np.int8)
        as_high += int(((coins - np.float32(0.5)) @ scores >= edge).sum())
    return math.log10((1 + as_high) / (1 + _REDRAWN))


def _chernoff(scores: Array, lift: float) -> float:
    def exponent(t: float) -> float:
        # log cosh without an overflow.
        half = np.abs(t * scores / 2)
        return float((half + np.log1p(np.exp(-2 * half)) - math.log(2)).sum()) - t * lift

    def slope(t: float) -> float:
        return float((np.tanh(t * scores / 2) * scores / 2).sum()) - lift

    high = 1.0
    while slope(high) < 0 and high < 2**20:
        high *= 2
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return min(0.0, exponent(low)) / math.log(10)

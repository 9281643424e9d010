"""Black-box metrics: how differently two models answer the same adversarial cases (paper, section IV-B)."""

import math

import numpy as np
import scipy.special

from deepjudge_core.components import Answers
from deepjudge_core.model import Array

LN_2 = math.log(2)


def robd(victim: Answers, suspect: Answers) -> float:
    """Robustness distance: ``abs(Rob(suspect) - Rob(victim))``, 0..1.

    Rob is the share of cases that a model classifies as the ground truth. The authors' code gives Rob of the suspect
    alone, which is the same where all cases fool the victim.

    Raises:
        ValueError: When there is no case.
    """
    return abs(_robustness(suspect) - _robustness(victim))


def jsd(victim: Answers, suspect: Answers) -> float:
    """Jensen-Shannon divergence of the class probabilities, averaged over the cases, 0..ln 2 (nats, no square root).

    Rows are scaled to sum to one in float64, since those of a float32 softmax do only nearly.

    Raises:
        ValueError: When there is no case.
    """
    p, q = (_probabilities(answers).astype(np.float64) for answers in (victim, suspect))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    middle = (p + q) / 2
    divergences = (scipy.special.rel_entr(p, middle) + scipy.special.rel_entr(q, middle)).sum(axis=1) / 2
    return float(np.clip(divergences.mean(), 0, LN_2))  # rounding can leave the range by 1e-17


def _robustness(answers: Answers) -> float:
    return float(np.mean(_probabilities(answers).argmax(axis=1) == answers.labels))


def _probabilities(answers: Answers) -> Array:
    if answers.probabilities is None or len(answers.probabilities) == 0:
        raise ValueError("expected answers to at least one adversarial case, found none")
    return answers.probabilities

"""Black-box metrics: how differently two models answer the same cases (``robd`` and ``jsd``: paper, section IV-B)."""

import math

import numpy as np
import scipy  # which loads its parts when they are first used

from deepjudge_core.components.values import Answers
from deepjudge_core.models.cka import unbiased_linear_cka
from deepjudge_core.types import Array

LN_2 = math.log(2)
_LEAST = 1e-30  # of a probability whose logarithm is taken: float32 has hardly smaller ones
_BLOCK = 256  # rows of a correlation matrix that are held at once: with 10,000 cases 20 MB each


def robd(victim: Answers, suspect: Answers, *, reference: bool = False) -> float:
    """Robustness distance: the share of cases on which the suspect does not make the victim's error, 0..1.

    A suspect makes the victim's error if it classifies the seed correctly and the case in the same wrong way as the
    victim. A model with other errors is the farther from the victim, the more errors it makes.

    The paper's distance is ``abs(Rob(suspect) - Rob(victim))``, where Rob is the share of cases that a model classifies
    as the ground truth: whatever errs is near to the victim, an untrained network too.

    Args:
        victim: The victim's answers.
        suspect: The suspect's; if the labels of its seeds are unknown, all count as correct.
        reference: Take the paper's distance.

    Raises:
        ValueError: When there is no case, or none that the victim misclassifies.
    """
    if reference:
        return abs(_robustness(suspect) - _robustness(victim))
    ours, theirs = (_probabilities(answers).argmax(axis=1) for answers in (victim, suspect))
    seeds, wrong = suspect.seed_labels, ours != victim.labels
    if not wrong.any():
        raise ValueError("expected a case that the victim misclassifies, found none")
    knows = True if seeds is None else seeds == suspect.labels
    return 1 - float(np.mean(((theirs == ours) & knows)[wrong]))


def robd_reference(victim: Answers, suspect: Answers) -> float:
    """The paper's robustness distance, 0..1: see :func:`robd`.

    Raises:
        ValueError: When there is no case.
    """
    return robd(victim, suspect, reference=True)


def jsd(victim: Answers, suspect: Answers, *, reference: bool = False) -> float:
    """Jensen-Shannon divergence of the class probabilities, averaged over the cases, 0..ln 2 (nats, no square root).

    Who divides a copy's scores, rounds its probabilities or adds noise that keeps the likeliest class changes no label.
    So the suspect's answers are taken as they are, at the temperature at which its answers to the seeds are most like
    the victim's, and with all probability on the likeliest class; the least of the three divergences counts.

    Rows are scaled to sum to one in float64, since those of a float32 softmax do only nearly. If each class has a
    probability of its own, it is the mean over the classes of the divergence of "likely" and "not likely".

    Args:
        victim: The victim's answers.
        suspect: The suspect's; if its answers to the seeds are unknown, they are taken as they are.
        reference: Take them as they are, like the paper.

    Raises:
        ValueError: When there is no case.
    """
    p, q = (_normalised(_probabilities(answers), independent=victim.independent) for answers in (victim, suspect))
    ways = [q]
    if not reference and suspect.seed_probabilities is not None and victim.seed_probabilities is not None:
        seeds = [
            _normalised(answers, independent=victim.independent)
            for answers in (victim.seed_probabilities, suspect.seed_probabilities)
        ]
        ways += sharpened(q, *seeds, independent=victim.independent)
    return min(_mean_divergence(p, way, independent=victim.independent) for way in ways)


def jsd_reference(victim: Answers, suspect: Answers) -> float:
    """The paper's Jensen-Shannon divergence, 0..ln 2: see :func:`jsd`.

    Raises:
        ValueError: When there is no case.
    """
    return jsd(victim, suspect, reference=True)


def sharpened(q: Array, victim: Array, suspect: Array, *, independent: bool) -> list[Array]:
    """The same answers at other temperatures: the one that fits best on the seeds, if there is one, and 0.

    The best has the least squared differences of log-odds, those of the victim's label and each other class. A
    probability of 0 says nothing of them.

    Args:
        q: ``(n, classes)`` a suspect's answers, float64.
        victim: ``(seeds, classes)`` the victim's to the seeds.
        suspect: The suspect's to the same.
        independent: Whether each class has a probability of its own.
    """
    if independent:
        ours, theirs = _log(victim) - _log(1 - victim), _log(suspect) - _log(1 - suspect)
        known = (np.minimum(victim, 1 - victim) > _LEAST) & (np.minimum(suspect, 1 - suspect) > _LEAST)
    else:
        label = victim.argmax(axis=1)[:, None]
        ours, theirs = (np.take_along_axis(_log(one), label, axis=1) - _log(one) for one in (victim, suspect))
        known = (victim > _LEAST) & (suspect > _LEAST)
    squares = float(np.sum(theirs**2, where=known))
    factor = float(np.sum(ours * theirs, where=known)) / squares if squares > 0 else 0.0
    if independent:
        sure = (q > 0.5).astype(np.float64)
        return [scipy.special.expit(factor * (_log(q) - _log(1 - q))), sure] if factor > 0 else [sure]
    sure = np.eye(q.shape[1])[q.argmax(axis=1)]
    return [scipy.special.softmax(factor * _log(q), axis=1), sure] if factor > 0 else [sure]


def _normalised(answers: Array, *, independent: bool) -> Array:
    wide = answers.astype(np.float64)
    rows: Array = wide.clip(0, 1) if independent else wide / wide.sum(axis=1, keepdims=True)
    return rows


def _mean_divergence(p: Array, q: Array, *, independent: bool) -> float:
    if independent:
        divergences = (_divergences(p, q) + _divergences(1 - p, 1 - q)).mean(axis=1)
    else:
        divergences = _divergences(p, q).sum(axis=1)
    return float(np.clip(divergences.mean(), 0, LN_2))  # rounding can leave the range by 1e-17


def _log(p: Array) -> Array:
    logs: Array = np.log(np.maximum(p, _LEAST))
    return logs


def sac(victim: Answers, suspect: Answers) -> float:
    """Sample correlation (SAC): the mean absolute difference of the models' correlation matrices, 0..1.

    A matrix has the cosine of the class probabilities of each two cases (Guan et al., NeurIPS 2022). The authors' code
    uses scores instead, and halves the result. It covers all pairs of n cases, in time n^2 and memory n.

    Raises:
        ValueError: When there is no case.
    """
    p, q = (_probabilities(answers).astype(np.float64) for answers in (victim, suspect))
    p, q = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (p, q))
    blocks = (slice(start, start + _BLOCK) for start in range(0, len(p), _BLOCK))
    total = sum(float(np.abs(p[block] @ p.T - q[block] @ q.T).sum()) for block in blocks)
    return total / len(p) ** 2


def cka(victim: Answers, suspect: Answers) -> float:
    """One minus the unbiased linear CKA of the class probabilities, 0..2: 1 on average for unrelated models.

    See :func:`~deepjudge_core.models.cka.unbiased_linear_cka`. Fewer than 4 cases have no unbiased estimate: the
    distance is then 0 for suspects and controls alike, so no rule takes it for a copy's.

    Raises:
        ValueError: When there is no case.
    """
    p, q = _probabilities(victim), _probabilities(suspect)
    if len(p) < 4 or np.array_equal(p, q):
        return 0.0
    return 1 - unbiased_linear_cka(p, q)


def akh(victim: Answers, suspect: Answers) -> float:
    """Anna Karenina heuristic: the share of cases with another label, 0..1 (Godinot et al., 2025).

    It is taken over the victim's mistakes: correct models agree, but each model makes its own errors.

    Raises:
        ValueError: When there is no case.
    """
    return float(np.mean(_probabilities(victim).argmax(axis=1) != _probabilities(suspect).argmax(axis=1)))


def _divergences(p: Array, q: Array) -> Array:
    # What each value adds to the Jensen-Shannon divergence.
    middle = (p + q) / 2
    parts: Array = (scipy.special.rel_entr(p, middle) + scipy.special.rel_entr(q, middle)) / 2
    return parts


def _robustness(answers: Answers) -> float:
    return float(np.mean(_probabilities(answers).argmax(axis=1) == answers.labels))


def _probabilities(answers: Answers) -> Array:
    if answers.probabilities is None or len(answers.probabilities) == 0:
        raise ValueError("expected answers to at least one case, found none")
    return answers.probabilities

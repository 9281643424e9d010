"""One value beside those of n controls: p-values and thresholds, by formula."""

import math

import numpy as np
import scipy  # which loads its parts when they are first used

from deepjudge_core.types import Array

_ROUNDING = 1 + 1e-12  # 3 / 40 is 0.075 and 0.01 * 100 is 1, whatever floats make of them


def prediction_p(value: float, controls: Array) -> float:
    """Probability that one more draw is at most ``value``, by the prediction bound on logarithms.

    ``p = T_{n-1}((log d - m) / (s sqrt(1 + 1/n)))``, with mean m and standard deviation s of the controls' log
    distances: exact if these and the suspect's come from the same normal distribution (Hahn & Meeker, *Statistical
    Intervals*, 1991). For a distance of 0, which is below every log-normal one, p is 0.

    Args:
        value: At least 0.
        controls: ``(n,)`` above 0, not all the same.
    """
    centre, spread = _log_moments(controls)
    t = (_log(value) - centre) / (spread * math.sqrt(1 + 1 / len(controls)))
    return float(scipy.special.stdtr(len(controls) - 1, t))


def prediction_limit(level: float, controls: Array) -> float:
    """The value of which :func:`prediction_p` is ``level``."""
    centre, spread = _log_moments(controls)
    t = float(scipy.special.stdtrit(len(controls) - 1, level))
    return math.exp(centre + t * spread * math.sqrt(1 + 1 / len(controls)))


def tolerance_factor(n: int, content: float, confidence: float) -> float:
    """The one-sided tolerance factor k: with this confidence, this share of a normal distribution is above m - k s.

    ``k = t'(confidence; n - 1, z sqrt(n)) / sqrt(n)``, a quantile of the noncentral t distribution, with z the standard
    normal quantile of ``content`` (Hahn & Meeker, 1991, section 4.6).
    """
    noncentrality = float(scipy.special.ndtri(content)) * math.sqrt(n)
    return float(scipy.stats.nct.ppf(confidence, n - 1, noncentrality)) / math.sqrt(n)


def tolerance_limit(content: float, confidence: float, controls: Array) -> float:
    """The tolerance bound ``exp(m - k s)`` of log distances."""
    centre, spread = _log_moments(controls)
    return math.exp(centre - tolerance_factor(len(controls), content, confidence) * spread)


def conformal_p(value: float, controls: Array) -> float:
    """Rank p-value ``(1 + number of controls with d_i <= d) / (n + 1)``.

    At most the truth whatever the distribution, where suspect and controls are exchangeable (Bates et al., *Testing for
    outliers with conformal p-values*, Annals of Statistics, 2023).
    """
    return (1 + int(np.count_nonzero(controls <= value))) / (len(controls) + 1)


def is_at_most(p_value: float, level: float) -> bool:
    """Whether a p-value is at most a level, which one that is a rank often just is."""
    return p_value <= level * _ROUNDING


def conformal_rank(level: float, n: int) -> int:
    """The greatest k with ``k / (n + 1) <= level``: suspects below the k-th smallest control stand out."""
    return math.floor(level * (n + 1) * _ROUNDING)


def conformal_limit(level: float, controls: Array) -> float | None:
    """The greatest value of which :func:`conformal_p` is at most ``level``; None where not even 0 is one."""
    rank = conformal_rank(level, len(controls))
    least = float(np.sort(controls)[rank - 1]) if rank else 0.0
    return math.nextafter(least, 0) if least > 0 else None


def conformal_controls(level: float) -> int:
    """How many controls it takes that a conformal p-value can be as small as ``level``."""
    return math.ceil(1 / (level * _ROUNDING)) - 1


def _log_moments(controls: Array) -> tuple[float, float]:
    logs = np.log(controls)
    return float(np.mean(logs)), float(np.std(logs, ddof=1))


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf

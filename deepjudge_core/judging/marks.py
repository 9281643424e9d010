"""The keys of a suite as metrics, and what their matches say: p-values by design, or beside the controls'."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy  # which loads its parts when they are first used

from deepjudge_core.components.schemes import Lift, Matches, Reading
from deepjudge_core.components.values import Decision, Vote
from deepjudge_core.judging.accuracy import accuracy_gap
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.exact import ACQUITS_NOBODY, as_number, power_of_ten
from deepjudge_core.judging.measure import Measurement, Measurements, accuracy_of
from deepjudge_core.judging.verdict import Counted, Setting

LEVEL = 0.01
"""The probability, at most, with which an honest model is said to carry one of the keys of a suite."""
LEAST_CONTROLS = 6
"""With fewer, next to nothing is known of how honest models spread."""
_CLEARLY = 0.7
"""At most this share of the nearest control's odds is clearly nearer, whatever the spread of the others."""
LEAST = 1e-6
"""No distribution of controls is known so well that a lesser p-value could be had of them."""
_LOG2_TRIES = 40
TRIES = f"2^{_LOG2_TRIES}"
"""How often somebody who made up a key after seeing the suspect may have drawn it anew."""


def counted(measurement: Measurement, calibration: Calibration) -> Counted | None:
    """What a key says of a model; None where nothing was read.

    Args:
        measurement: Of the model.
        calibration: The controls.
    """
    found = [_count(reading, measurement.metric.name, calibration) for reading in measurement.readings]
    known = [one for one in found if one.log10_p is not None]
    if not known:
        return found[0] if found else None
    best = min(known, key=lambda one: one.log10_p or 0.0)
    several = math.log10(len(known))
    return replace(best, log10_p=min(0.0, (best.log10_p or 0.0) + several), least=min(0.0, best.least + several))


def _count(reading: Reading, name: str, calibration: Calibration) -> Counted:
    if reading.by_design:
        return Counted(reading, reading.log10_p, reading.least)
    nearest: dict[int, Matches] = {}  # near-duplicates are one control, as near as the nearest of them
    for measured, cluster in zip(calibration.measurements, calibration.clusters, strict=True):
        for other in measured[name].readings if name in measured else ():
            if other.reading == reading.reading and isinstance(other, Matches):
                nearest[cluster] = min(other, nearest.get(cluster, other), key=lambda one: one.distance)
    groups: dict[object, list[Matches]] = {}
    for cluster, other in nearest.items():
        if calibration.divided and calibration.divided[cluster] is not None:
            groups.setdefault(calibration.divided[cluster], []).append(other)
    everyone = groups[None] = [*nearest.values()]
    matched = tuple(one.found for one in everyone)
    if len(everyone) < LEAST_CONTROLS:
        return Counted(reading, None, 0.0, matched)
    large = [group for group in groups.values() if len(group) >= LEAST_CONTROLS]
    p = max(_log10_prediction(reading.distance, group) for group in large)
    least = max(_log10_prediction(0.0, group) for group in large)
    limit = _CLEARLY * min(one.distance for one in everyone)
    return Counted(reading, p, least, matched, limit)


def _log10_prediction(distance: float, controls: Sequence[Matches]) -> float:
    # Student's t for one more draw, on logarithms of odds (Hahn & Meeker, 1991). Their spread is at least that of
    # counting: controls that all match nothing are alike by the small number of trials.
    of = controls[0].of
    odds = np.log([max(one.distance, 0.5 / (one.of + 0.5)) for one in controls])
    matched = float(np.mean([one.found for one in controls]))
    spread = max(float(np.std(odds, ddof=1)), math.sqrt(1 / (matched + 0.5) + 1 / (of - matched + 0.5)))
    own = math.log(max(distance, 0.5 / (of + 0.5)))
    t = (own - float(odds.mean())) / (spread * math.sqrt(1 + 1 / len(odds)))
    p = float(scipy.special.stdtr(len(odds) - 1, t))
    return math.log10(max(p, LEAST))


def judge_marks(
    measurements: Measurements, calibration: Calibration, level: float = LEVEL
) -> tuple[Setting, dict[str, Vote], dict[str, Counted]]:
    """Judge the keys of a suite. They can accuse, and acquit nobody: a mark may have been removed.

    Args:
        measurements: The suspect's, of the keys alone.
        calibration: The controls.
        level: Of all keys together, 0..1; each gets its part (Bonferroni's correction).
    """
    found = {name: counted(m, calibration) for name, m in measurements.items()}
    known = {name: one for name, one in found.items() if one is not None and one.log10_p is not None}
    each = level / max(len(known), 1)
    votes = {name: _vote(name, m, found[name], each, calibration) for name, m in measurements.items()}
    shown = {name: one for name, one in found.items() if one is not None}
    if not known:
        reasons = dict.fromkeys(vote.reason for vote in votes.values() if vote.reason)
        return Setting(None, reason="; ".join(reasons), level=level), votes, shown
    nearest = min(known, key=lambda name: known[name].log10_p or 0.0)
    log10_p = min(0.0, (known[nearest].log10_p or 0.0) + math.log10(len(known)))
    least = min(0.0, min(one.least for one in known.values()) + math.log10(len(known)))
    setting = Setting(None, p_value=as_number(log10_p), least_p_value=as_number(least), log10_p=log10_p, level=level)
    accusing = [name for name, vote in votes.items() if vote.vote]
    if not accusing:
        reasons = dict.fromkeys(vote.reason for vote in votes.values() if vote.reason)
        return replace(setting, reason="; ".join(reasons)), votes, shown
    statement = "; ".join(_statement(name, known[name]) for name in accusing)
    several = f", corrected for {len(known)} keys" if len(known) > 1 else ""
    statement = f"{statement} (limit {level:g}{several})"
    return replace(setting, decision=Decision.COPY, statement=statement), votes, shown


def _vote(name: str, measurement: Measurement, found: Counted | None, each: float, calibration: Calibration) -> Vote:
    if measurement.value is None or found is None:
        return Vote(None, reason=measurement.reason or "nothing was read")
    if found.log10_p is None:
        reason = (
            f"{found.clause} match, and controls have to tell how many honest models match: expected at least "
            f"{LEAST_CONTROLS} of them, found {len(found.controls)}"
        )
        return Vote(None, reason=reason)
    log10_p, p_value = found.log10_p, as_number(found.log10_p)
    carrier = _control_that_carries(name, found, each, calibration)
    if carrier:
        return Vote(None, reason=carrier, p_value=p_value, log10_p=log10_p)
    if found.log10_p <= math.log10(each) and (found.limit is None or found.reading.distance <= found.limit):
        unlike = None if found.by_design else _unlike_controls(measurement, calibration)
        if unlike:
            return Vote(None, reason=unlike, p_value=p_value, log10_p=log10_p)
        return Vote(True, found.limit, found.limit, None, p_value, each, log10_p)
    if found.least > math.log10(each):
        reason = f"so few trials that no p-value is below {power_of_ten(found.least)}; {ACQUITS_NOBODY}"
    elif found.by_design:
        reason = (
            f"{_clause(found)}, which chance explains (p = {power_of_ten(found.log10_p)}); a mark can be removed: "
            f"{ACQUITS_NOBODY}"
        )
    else:
        reason = f"{found.clause} match, and {_controls(found)}, which is not clearly less; {ACQUITS_NOBODY}"
    return Vote(None, found.limit, found.limit, reason, p_value, log10_p=log10_p)


def _unlike_controls(measurement: Measurement, calibration: Calibration) -> str | None:
    # Controls that do not know the task show nothing of how many trials an honest model matches that does.
    suspect, controls = measurement.accuracy, [accuracy_of(measured) for measured in calibration.measurements]
    gap = accuracy_gap(suspect, controls)
    if gap is None or suspect is None or suspect.share < max((one.share for one in controls if one), default=0.0):
        return None
    return gap.reason


def _control_that_carries(name: str, found: Counted, each: float, calibration: Calibration) -> str | None:
    # A control that matches by more than chance was not made without the key. Of coins, one that was trained on the
    # same rows is expected to.
    if not isinstance(found.reading, Matches) or not found.by_design:
        return None
    few = math.log10(each / max(len(calibration.controls), 1))
    for control, measured in zip(calibration.controls, calibration.measurements, strict=True):
        readings = measured[name].readings if name in measured else ()
        if any(isinstance(one, Matches) and (one.log10_p or 0.0) <= few for one in readings):
            return f"the control {control.model.name} matches by more than chance: was it made without the key?"
    return None


def _controls(found: Counted) -> str:
    return f"the {len(found.controls)} controls match {min(found.controls)} to {max(found.controls)}"


def _clause(found: Counted) -> str:
    if isinstance(found.reading, Lift):
        return f"of {found.reading.of} rows that it answers better than expected, the key chose {found.reading.found}"
    return f"{found.clause} match"


def _statement(name: str, found: Counted) -> str:
    if isinstance(found.reading, Lift):
        return (
            f"{_clause(found)} ({name}); fair coins give as much with a probability of at most "
            f"{power_of_ten(found.log10_p or 0.0)}, since {found.reading.why}"
        )
    if found.by_design:
        return (
            f"{found.clause} trials of the key {name} match; a model made without it matches as many with a "
            f"probability of at most {power_of_ten(found.log10_p or 0.0)}, since {found.reading.why}"
        )
    return (
        f"{found.clause} trials of the key {name} match; {_controls(found)}, whose spread gives "
        f"p = {power_of_ten(found.log10_p or 0.0)}"
    )


def allowing_for_tries(log10_p: float) -> float:
    """The logarithm of a p-value by design if somebody may have drawn the key 2^40 times until it fitted."""
    return min(0.0, log10_p + _LOG2_TRIES * math.log10(2))

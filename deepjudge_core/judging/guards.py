"""Guards: what the controls do not show, whatever a rule makes of them, turns a decision into inconclusive."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from deepjudge_core.components.strata import OTHER_ARCHITECTURE, SAME_ARCHITECTURE, parts_of
from deepjudge_core.components.values import Decision, Vote
from deepjudge_core.judging.accuracy import AccuracyGap, accuracy_gap
from deepjudge_core.judging.architecture import is_shown
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.disguises import disguise
from deepjudge_core.judging.measure import Measurement, Measurements, accuracy_of, alike_of, widths_of
from deepjudge_core.judging.verdict import Setting
from deepjudge_core.types import Array

BY_FAR = 0.7
"""At most this share of the nearest control's distance is much nearer: honest models of other architectures, in
docs/why/statistics.md, are not nearer than that control."""

BARELY = 0.9
"""More than this share of the nearest control's distance is among the controls, whatever a rule makes of their spread:
an honest model may happen to lie there."""

EXTREME = 0.5
"""At most this share of the nearest control's distance, by a single metric, outweighs all others that see nothing: who
disguises a copy hides it from some metrics."""

_UNKNOWN_ARCHITECTURE = (
    "no control is known to have its architecture, and it is not much nearer to the victim "
    f"than the nearest control (expected at most {BY_FAR:g} times its distance): an honest "
    "model of another architecture may be as near. Add controls of its architecture, and "
    "name their strata"
)

_NONE_OF_ITS_ARCHITECTURE = (
    f"no control has the victim's architecture (stratum {SAME_ARCHITECTURE}), so it is not known how near to the "
    "victim's layers those of an honest model with that architecture come: layers accuse nobody. Add controls that "
    "have it"
)

_SURENESS_ALONE = (
    "it resembles the victim only in its confidence: it repeats the victim's errors no more "
    "often than one of the controls does, and no metric finds it much nearer. A model that "
    "gets inputs it does not expect is less confident, too"
)

_BARELY_NEARER = (
    "it is barely nearer to the victim than the nearest control by every metric that votes "
    f"copy (expected at most {BARELY:g} times its distance): an honest model may be as near"
)

_LAYERS_DISAGREE = (
    "most metrics of its layers do not find it much nearer to the victim than the nearest "
    f"control (expected at most {BY_FAR:g} times its distance). Copied layers are nearer by "
    "most of these metrics; an honest model may be nearer by one"
)

_NEARER_BY_FAR = (
    f"it is much nearer to the victim than the nearest control (at most {BY_FAR:g} times its "
    f"distance) by {{}}, but the rule does not call it a copy: the controls are too few, or "
    "differ too much among themselves, to decide. Add controls"
)

_TIE = "half of the metrics that vote say copy: {}"

_BETWEEN = (
    f"it is nearer to the victim than every control (expected at least {BARELY:g} times the nearest control's "
    "distance) by {}: no control shows that an honest model comes so near, and the rule does not call it a copy. Add "
    "controls"
)


def guarded(
    setting: Setting,
    measurements: Measurements,
    votes: Mapping[str, Vote],
    calibration: Calibration,
    *,
    by_errors: bool,
    alone: bool = False,
) -> Setting:
    """What is said of a suspect, where the controls show something of models like it.

    Args:
        setting: What the rule says.
        measurements: The suspect's, of this setting.
        votes: Those of all metrics.
        calibration: The controls.
        by_errors: Whether the metrics rest on the suspect's errors, as those of behaviour do.
        alone: Whether the suspect's layers were not compared.

    Returns:
        The same, or an inconclusive one with its reason.
    """
    if not measurements:
        return setting
    gap = accuracy_gap(accuracy_of(measurements), calibration.accuracies)
    if setting.decision is Decision.COPY:
        reason = _against_copy(gap, measurements, votes, calibration, by_errors=by_errors)
    elif setting.decision is Decision.INDEPENDENT:
        reason = _against_independent(gap, measurements, votes, calibration, by_errors=by_errors)
        if reason is None and by_errors:
            reason = disguise(measurements, calibration, alone=alone)
    else:
        return setting
    if reason is None:
        return setting
    # What the rule says of its decision is not said of another one.
    unclear = replace(setting, decision=Decision.INCONCLUSIVE, reason=reason, statement=None)
    # Nor is there a chance of an accusation that is not made.
    return replace(unclear, p_value=None, least_p_value=None) if setting.decision is Decision.COPY else unclear


def guarded_by_weights(
    setting: Setting, measurements: Measurements, votes: Mapping[str, Vote], calibration: Calibration
) -> Setting:
    """What is said of a suspect by distances of weights, on which accuracy and confidence have no bearing.

    Args:
        setting: What the rule says.
        measurements: The suspect's, of the weights.
        votes: Those of all metrics.
        calibration: The controls.

    Returns:
        The same, or an inconclusive one with its reason.
    """
    if setting.decision is Decision.COPY:
        voting = [name for name in measurements if votes[name].vote] or list(measurements)
        if not _nearer(measurements, calibration, voting, BARELY):
            unclear = replace(setting, decision=Decision.INCONCLUSIVE, reason=_BARELY_NEARER, statement=None)
            return replace(unclear, p_value=None, least_p_value=None)
    if setting.decision is Decision.INDEPENDENT:
        reason = _against_independent(None, measurements, votes, calibration, by_errors=False)
        if reason:
            return replace(setting, decision=Decision.INCONCLUSIVE, reason=reason, statement=None)
    return setting


def is_nearer(value: float, controls: Array, share: float = BY_FAR) -> bool:
    """Whether a suspect is clearly nearer to the victim than the nearest control.

    Args:
        value: The suspect's distance.
        controls: ``(n,)`` the controls', n > 0.
        share: At most this of the nearest control's distance, above 0.
    """
    least = controls.min()
    return bool(value <= share * least and value < least)  # as near as one at 0 is not nearer


def beside_background(measurement: Measurement) -> str | None:
    """What a value looks like beside those of parts that do not correspond, where it is nearer by far: one line.

    It is no verdict: how near an independent model comes is known from controls alone.
    """
    value, least = measurement.value, measurement.background
    if value is None or least is None or measurement.explained or not is_nearer(value, np.array([least])):
        return None
    return (
        f"by {measurement.metric.name} it is at {value:.3g} from the victim, and layers of the two that do not "
        f"correspond are at {least:.3g} or more: a copy looks like this if its weights were put into another order or "
        "into other coordinates, but only controls tell how near an independent model comes"
    )


def _against_copy(
    gap: AccuracyGap | None,
    measurements: Measurements,
    votes: Mapping[str, Vote],
    calibration: Calibration,
    *,
    by_errors: bool,
) -> str | None:
    # What rests on errors says nothing of one that errs as no control does; what does not has to find it much nearer
    # than any control.
    voting = [name for name in measurements if votes[name].vote] or list(measurements)  # all, where they are combined
    if _layers_alone(measurements, votes) and _of_others_alone(measurements, calibration):
        return _NONE_OF_ITS_ARCHITECTURE
    by_far, barely = (bool(_nearer(measurements, calibration, voting, share)) for share in (BY_FAR, BARELY))
    if gap and (by_errors or not by_far):
        return gap.reason
    shown = is_shown(
        widths_of(measurements),
        calibration.architecture,
        [widths_of(calibration.measurements[place]) for place in calibration.differing],
        [calibration.kinds[place] for place in calibration.differing],
    )
    if not by_far and not shown:
        return _UNKNOWN_ARCHITECTURE
    if by_errors and not by_far and not _errs_as_no_control(measurements, calibration):
        return _SURENESS_ALONE
    if not barely:
        return _BARELY_NEARER
    measured = _beside_controls(measurements, calibration)
    if not by_errors and 2 * len(_nearer(measurements, calibration, measured, BY_FAR)) <= len(measured):
        return _LAYERS_DISAGREE
    return None


def _against_independent(
    gap: AccuracyGap | None,
    measurements: Measurements,
    votes: Mapping[str, Vote],
    calibration: Calibration,
    *,
    by_errors: bool,
) -> str | None:
    # Independent is what lies among the controls, by most metrics, and by none far from them.
    if calibration.doubt:
        return calibration.doubt
    if gap and gap.far and by_errors:
        return gap.reason
    cast = [name for name in measurements if votes[name].vote is not None]
    copies = [name for name in cast if votes[name].vote]
    if copies and 2 * len(copies) == len(cast):
        return _TIE.format(", ".join(copies))
    measured = _beside_controls(measurements, calibration)
    nearer, between, extreme = (
        _nearer(measurements, calibration, measured, share) for share in (BY_FAR, BARELY, EXTREME)
    )
    if extreme or (nearer and 2 * len(nearer) >= len(measured)):
        return _NEARER_BY_FAR.format(", ".join(nearer))
    return _BETWEEN.format(", ".join(between)) if between and 2 * len(between) >= len(measured) else None


def _layers_alone(measurements: Measurements, votes: Mapping[str, Vote]) -> bool:
    # Whether most votes say copy only because those of the layers count.
    layers = {name for name, m in measurements.items() if m.metric.group == "white-box"}
    others = [votes[name].vote for name in measurements if name not in layers and votes[name].vote is not None]
    return bool(layers) and 2 * others.count(True) <= len(others)


def _of_others_alone(measurements: Measurements, calibration: Calibration) -> bool:
    # Whether all controls whose layers were compared have other architectures than the victim's.
    layers = (name for name, m in measurements.items() if m.metric.group == "white-box")
    places = {place for name in layers for place in calibration.places(name)}
    return bool(places) and all(OTHER_ARCHITECTURE in parts_of(calibration.kinds[place]) for place in places)


def _beside_controls(measurements: Measurements, calibration: Calibration) -> list[str]:
    # The metrics that were measured of the suspect and of controls.
    return [name for name, m in measurements.items() if m.value is not None and len(calibration.values(name))]


def _nearer(measurements: Measurements, calibration: Calibration, names: list[str], share: float) -> list[str]:
    # Those of some metrics that find a suspect clearly nearer than any control.
    values = {name: measurements[name].value for name in names}
    return [
        name
        for name, value in values.items()
        if value is not None and len(controls := calibration.values(name)) and is_nearer(value, controls, share)
    ]


def _errs_as_no_control(measurements: Measurements, calibration: Calibration) -> bool:
    # Whether it errs as the victim more often than every control; also where that is not known.
    own, controls = alike_of(measurements), [alike_of(control) for control in calibration.measurements]
    known = [control for control in controls if control is not None]
    return own is None or not known or own > max(known)

"""Signs of a copy that answers test cases otherwise than data: whoever shows one is not said to be independent."""

from collections.abc import Iterable, Sequence

import numpy as np

from deepjudge_core.judging.calibration import LEAST_CONTROLS, Calibration
from deepjudge_core.judging.measure import Measurements, alike_of, ordinary_of
from deepjudge_core.models.model import Access
from deepjudge_core.types import Array

_SHARE = 0.5  # of the nearest control's distance; honest models in docs/why/evidence.md are not nearer than 0.8
_NEAR, _FAR, _BY_LABELS = 0.003, 0.01, 0.001
"""Chances with which one more control would lie beyond a bound: near the victim; and far from it, by each of several
metrics or by the labels alone."""

_LIKE_ON_DATA = (
    "on ordinary inputs it is much nearer to the victim than the nearest control, and on test cases it is not: at most "
    "{share:g} times that control's distance by {what}. A copy does so if it cleans its inputs, or if another model "
    "answers what looks like a test case. If an honest model may be as near, add controls that were made like it"
)

_TOO_SURE = (
    "its probabilities of the seeds are nearly all 0 or 1, and those of the controls are not. So it is not known "
    "whether it answers ordinary inputs as the victim does. Have it give its probabilities in full"
)

_TOO_FAR = (
    "it makes the victim's errors less often than any control, by more than the controls differ: in {own:.1%} of the "
    "test cases, the controls in {least:.1%} or more. A copy does so if it cleans its inputs. If the model is merely "
    "robust, add controls that are as robust"
)

_UNKNOWN = (
    "{}, so it is not known whether it answers ordinary inputs as the victim does, and a copy that answers test cases "
    "otherwise would not be seen"
)


def disguise(measurements: Measurements, calibration: Calibration, *, alone: bool) -> str | None:
    """A sign that a suspect answers test cases otherwise than data: one line; None where it shows none.

    Args:
        measurements: The suspect's, of its behaviour.
        calibration: The controls.
        alone: Whether its layers were not compared, so that nothing speaks for it but its behaviour.
    """
    own = ordinary_of(measurements)
    controls = [ordinary_of(calibration.measurements[place]) for place in calibration.differing]
    of_odds, of_mistakes = _known(one.odds for one in controls), _known(one.mistakes for one in controls)
    if alone and own.sure and len(of_odds) >= LEAST_CONTROLS:
        return _TOO_SURE
    near = []
    if own.odds is not None and _is_near(own.odds, of_odds) and _below(_logs([own.odds]), _logs(of_odds)):
        near.append("the odds that it gives to the other classes")
    mistakes = own.mistakes
    if mistakes is not None and _is_near(mistakes, of_mistakes) and _below(_angles([mistakes]), _angles(of_mistakes)):
        near.append("the victim's mistakes that it makes")
    if near:
        return _LIKE_ON_DATA.format(share=_SHARE, what=" and ".join(near))
    return _too_far(measurements, calibration) if alone else None


def unknown_on_data(measurements: Measurements) -> str | None:
    """That it is not known how like the victim a model answers ordinary inputs: a clause; None where it is known.

    Args:
        measurements: The suspect's.
    """
    own = ordinary_of(measurements)
    return _UNKNOWN.format(own.unknown) if own.unknown and own.mistakes is None else None


def _too_far(measurements: Measurements, calibration: Calibration) -> str | None:
    # By its labels, and by all metrics of probabilities, where they were measured.
    own, controls = (
        alike_of(measurements),
        _known(alike_of(calibration.measurements[place]) for place in calibration.differing),
    )
    if own is None or not controls:
        return None
    others = [
        (m.value, calibration.values(name))
        for name, m in measurements.items()
        if m.value is not None and m.metric.on == "adversarial" and Access.PROBABILITIES in m.metric.needs
    ]
    level = _FAR if others else _BY_LABELS
    if not _below(_angles([own]), _angles(controls), level):
        return None
    if not all(_below(-_logs([value]), -_logs(values), level) for value, values in others):
        return None
    return _TOO_FAR.format(own=own, least=min(controls))


def _is_near(value: float, controls: Sequence[float]) -> bool:
    return len(controls) >= LEAST_CONTROLS and value <= _SHARE * min(controls)


def _below(value: Array, controls: Array, level: float = _NEAR) -> bool:
    # Whether a value lies below all controls, and below the bound for one more of them (Hahn & Meeker, Statistical
    # Intervals, 1991, section 4.7). Controls that do not differ show no bound.
    n = len(controls)
    if n < LEAST_CONTROLS or not value[0] < controls.min():
        return False
    from scipy.special import stdtrit  # late: what opens strangers' models does without it

    spread = float(np.std(controls, ddof=1))
    return spread > 0 and bool(value[0] < controls.mean() + stdtrit(n - 1, level) * spread * np.sqrt(1 + 1 / n))


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _logs(distances: Sequence[float] | Array) -> Array:
    # A scale on which distances are nearly normal; one of 0 is below all others.
    logs: Array = np.log(np.maximum(distances, np.finfo(np.float64).tiny))
    return logs


def _angles(shares: Sequence[float]) -> Array:
    # A scale on which chance moves all shares alike.
    angles: Array = np.arcsin(np.sqrt(np.clip(shares, 0, 1)))
    return angles

"""The controls: models known to be independent of the victim, and how far they are from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deepjudge_core import storage
from deepjudge_core.errors import CalibrationError, FileFormatError
from deepjudge_core.measure import Measurements, check_suite, measure
from deepjudge_core.model import Array
from deepjudge_core.observation import Observation
from deepjudge_core.plugins import Registry, load_registry
from deepjudge_core.suite import Suite

LEAST_CONTROLS = 3
_SAME = 1e-5  # probabilities that differ by less come from one function, whatever the file format


@dataclass(frozen=True, eq=False)
class Calibration:
    """The controls' answers and values.

    Attributes:
        suite: Digest of the suite that they answered.
        controls: Their answers, each model once.
        measurements: Their values, in the same order.
        notes: What a reader should know: controls counted once, for instance.
    """

    suite: str
    controls: tuple[Observation, ...]
    measurements: tuple[Measurements, ...]
    notes: tuple[str, ...] = field(default=())

    def values(self, metric: str) -> Array:
        """``(n,)`` float64 values of a metric over the controls that it could be measured on."""
        found = (control[metric].value for control in self.measurements if metric in control)
        return np.array([value for value in found if value is not None], dtype=np.float64)

    def shortage(self, metric: str) -> str:
        """Why there are too few values of a metric."""
        if not self.controls:
            return "there are no controls"
        reasons = {c[metric].reason for c in self.measurements if metric in c and c[metric].reason}
        why = f" ({'; '.join(sorted(filter(None, reasons)))})" if reasons else ""
        return f"measured on {len(self.values(metric))} controls, expected at least {LEAST_CONTROLS}{why}"


def calibrate(
    suite: Suite,
    controls: Sequence[Observation],
    metrics: Iterable[str] | None = None,
    *,
    registry: Registry | None = None,
) -> Calibration:
    """Measure the controls.

    Args:
        suite: The suite.
        controls: Their answers; a model that is given twice is counted once.
        metrics: Names of metrics; by default every installed one.
        registry: Where the metrics are; by default every installed one.

    Raises:
        CalibrationError: When a control is the victim itself or answers exactly as it does.
        FileFormatError: When a control answered another suite.
    """
    registry = registry or load_registry()
    names = None if metrics is None else list(metrics)
    kept: dict[str, Observation] = {}
    notes = []
    for seen in controls:
        check_suite(suite, seen)
        if seen.model.digest == suite.victim.model.digest:
            raise CalibrationError(f"{seen.model.name}: is the victim itself, expected an independent model")
        if float(np.abs(seen.probabilities - suite.victim.probabilities).max()) < _SAME:
            raise CalibrationError(f"{seen.model.name}: answers exactly as the victim, expected an independent model")
        first = kept.setdefault(seen.model.digest, seen)
        if first is not seen:
            notes.append(f"{seen.model.name}: is the same model as {first.model.name}, counted once")
    observations = tuple(kept.values())
    measured = tuple(measure(suite, seen, names, registry=registry) for seen in observations)
    return Calibration(suite.digest, observations, measured, tuple(notes))


def check_not_a_control(calibration: Calibration, seen: Observation) -> None:
    """Refuse a suspect that is one of the controls.

    Raises:
        CalibrationError: Naming both.
    """
    for control in calibration.controls:
        if control.model.digest == seen.model.digest:
            raise CalibrationError(
                f"{seen.model.name}: is the control {control.model.name}; leave it out of one of them"
            )


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write the controls' answers; their values are computed anew by whoever reads them.

    Raises:
        FileFormatError: When it cannot be written.
    """
    manifest = {
        "suite": calibration.suite,
        "controls": [control.to_json() for control in calibration.controls],
        "notes": list(calibration.notes),
    }
    arrays: dict[str, Array] = {}
    for place, control in enumerate(calibration.controls):
        arrays |= control.arrays(f"controls.{place}.")
    storage.write(path, storage.seal("calibration", manifest, arrays))


def load_controls(path: Path) -> tuple[tuple[Observation, ...], tuple[str, ...]]:
    """Read the controls' answers and notes.

    Raises:
        FileFormatError: When the file is damaged or another.
    """
    content = storage.read(path, ["calibration"])
    try:
        values: Sequence[Mapping[str, object]] = content.manifest["controls"]
        controls = tuple(
            Observation.from_parts(value, content.arrays, f"controls.{place}.") for place, value in enumerate(values)
        )
        return controls, tuple(map(str, content.manifest["notes"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{path}: not a complete calibration: {error}") from None


def load_calibration(
    path: Path, suite: Suite, metrics: Iterable[str] | None = None, *, registry: Registry | None = None
) -> Calibration:
    """Read the controls' answers and measure them.

    Raises:
        FileFormatError: When the file is damaged, another, or of another suite.
        CalibrationError: As :func:`calibrate`.
    """
    controls, notes = load_controls(path)
    if any(control.suite != suite.digest for control in controls):
        raise FileFormatError(
            f"{path}: calibrates the suite {controls[0].suite[:12]}, expected this suite {suite.digest[:12]}"
        )
    calibration = calibrate(suite, controls, metrics, registry=registry)
    return Calibration(calibration.suite, calibration.controls, calibration.measurements, notes)

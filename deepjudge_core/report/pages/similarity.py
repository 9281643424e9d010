"""Distances as similarities to the victim, for charts that show several metrics at once.

The paper normalises values into the range 0 to 1, the larger the more similar (section V-B), and does not say how. Here
it is 1 - value / the greatest value that the metric can have; of a metric without one, 1 - value / the median of the
controls, and not below 0.
"""

from dataclasses import dataclass
from statistics import median

from deepjudge_core.report.documents import AuditReport


@dataclass(frozen=True)
class Axis:
    """A metric of a radar chart.

    Attributes:
        scale: What its values are divided by; None where there is nothing to compare them with.
        bounded: Whether that is the greatest value that there can be.
        controls: The least and the greatest value of the controls; None without any.
    """

    scale: float | None
    bounded: bool
    controls: tuple[float, float] | None

    def similarity(self, value: float | None) -> float | None:
        """0, far, to 1, the victim; None where there is no value or no scale."""
        return None if value is None or not self.scale else min(1.0, max(0.0, 1 - value / self.scale))


def axes_of(report: AuditReport) -> dict[str, Axis]:
    """Metric to its axis."""
    axes = {}
    for metric, facts in report.metrics.items():
        values = [control.metrics.get(metric) for control in report.calibration.controls]
        measured = [value for value in values if value is not None]
        scale = facts.upper if facts.upper is not None else (median(measured) if measured else None)
        axes[metric] = Axis(scale, facts.upper is not None, (min(measured), max(measured)) if measured else None)
    return axes

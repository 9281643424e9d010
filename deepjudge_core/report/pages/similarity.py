"""Distances as similarities to the victim, for charts that show several metrics at once, and for rankings.

The paper normalises values into the range 0 to 1, the larger the more similar (section V-B), and does not say how. Here
it is t / (t + d) of a distance d and its threshold t: 1 for the victim itself, 1/2 at the threshold, near 0 far away.
So the axes of a radar chart can be compared with one another, and what gets a vote for copy lies outside the middle
ring.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from deepjudge_core.report.documents import AuditReport, SuspectEntry

AT_THRESHOLD = 0.5
"""The similarity of a model that is just as far from the victim as the threshold."""


@dataclass(frozen=True)
class Axis:
    """A metric of a radar chart.

    Attributes:
        threshold: At most so far from the victim a model gets a vote for copy; above 0.
        value: The suspect's distance; None where it was not measured.
        controls: The least and the greatest distance of the controls; None without any.
    """

    threshold: float
    value: float | None
    controls: tuple[float, float] | None

    @property
    def similarity(self) -> float | None:
        """The suspect's, 0, far, to 1, the victim; None where it was not measured."""
        return None if self.value is None else self._of(self.value)

    @property
    def band(self) -> tuple[float, float] | None:
        """The least and the greatest similarity of the controls."""
        return None if self.controls is None else (self._of(self.controls[1]), self._of(self.controls[0]))

    def _of(self, distance: float) -> float:
        return self.threshold / (self.threshold + distance)


def axes_of(suspect: SuspectEntry, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Axis]:
    """Metric to its axis: of those that have a threshold, and are no keys.

    Args:
        suspect: The suspect.
        ranges: As of :func:`ranges_of`.
    """
    return {
        metric: Axis(result.threshold, result.value, ranges.get(metric))
        for metric, result in suspect.metrics.items()
        if result.threshold is not None and result.threshold > 0 and result.group != "marks"
    }


def distances_of_controls(report: AuditReport, metric: str, suspect: SuspectEntry | None) -> list[float | None]:
    """The distances of the controls, of whose answers no more is compared than a suspect's interface shows."""
    if suspect is not None and suspect.api and suspect.api.controls and metric in suspect.api.controls:
        return list(suspect.api.controls[metric])
    return [control.metrics.get(metric) for control in report.calibration.controls]


def ranges_of(report: AuditReport, suspect: SuspectEntry | None = None) -> dict[str, tuple[float, float]]:
    """Metric to the least and the greatest distance of the controls, where any was measured.

    Args:
        report: The report.
        suspect: Whom they are put beside; None for any that shows all of its answers.
    """
    ranges = {}
    for metric in report.metrics:
        values = [value for value in distances_of_controls(report, metric, suspect) if value is not None]
        if values:
            ranges[metric] = (min(values), max(values))
    return ranges

"""Which of many models is nearest to the victim: one order for tables, files and pages."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Protocol

from deepjudge_core.components.values import Decision


class Measured(Protocol):
    """A metric of a model: of a verdict, or of a stored report."""

    @property
    def group(self) -> str:
        """Black-box or white-box."""

    @property
    def value(self) -> float | None:
        """The distance, at least 0; None if it was not measured."""

    @property
    def threshold(self) -> float | None:
        """The greatest value that votes for copy; None if there is none."""


class Judged(Protocol):
    """A model that was judged, or could not be."""

    @property
    def decision(self) -> str:
        """Copy, independent, inconclusive or failed."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metric name to what was :class:`Measured`."""


def ratio(model: Judged) -> float | None:
    """How far a model is from the victim, as a multiple of the thresholds: 1 or less is as near as copies are.

    The median of value / threshold is taken over the black-box metrics and over the white-box metrics, and the smaller
    of the two counts: a copy need be near in one way only.

    Returns:
        At least 0; None if no metric was measured that has a threshold.
    """
    return _least_median(model, {})


def ranked(models: Sequence[Judged]) -> list[int]:
    """Places of models among all of them, the most similar to the victim first.

    Copies come first, models that failed come last, and within each of these parts the smallest :func:`ratio` comes
    first. If there are no thresholds, values are divided by the median of the models' values. Equal ones stay in the
    order given.
    """
    usual = _usual(models)

    def key(place: int) -> tuple[int, float, int]:
        model = models[place]
        found = ratio(model)
        found = _least_median(model, usual) if found is None else found
        part = {Decision.COPY: 0, Decision.FAILED: 2}.get(Decision(model.decision), 1)
        return part, math.inf if found is None else found, place

    return sorted(range(len(models)), key=key)


def _usual(models: Sequence[Judged]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for model in models:
        for name, metric in model.metrics.items():
            if metric.value is not None:
                values.setdefault(name, []).append(metric.value)
    return {name: median(some) for name, some in values.items()}


def _least_median(model: Judged, usual: Mapping[str, float]) -> float | None:
    # By thresholds, or by the usual values if any are given.
    ratios: dict[str, list[float]] = {}
    for name, metric in model.metrics.items():
        scale = usual.get(name) if usual else metric.threshold
        if metric.value is not None and scale is not None and (scale > 0 or usual):
            ratios.setdefault(metric.group, []).append(metric.value / scale if scale > 0 else 0.0)
    return min(map(median, ratios.values()), default=None)

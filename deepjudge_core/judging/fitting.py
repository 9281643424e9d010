"""Which metrics a suite can be measured by: those of the cases that it has."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.registry import Metrics
from deepjudge_core.errors import UsageError
from deepjudge_core.models.model import Access
from deepjudge_core.naming import option
from deepjudge_core.suites.suite import Suite

_WITHOUT = "clean"  # cases that every suite has: the seeds


@dataclass(frozen=True)
class Offer:
    """What a suite has to be measured on.

    Attributes:
        makes: The sets of cases beside the seeds.
        layers: Whether layers are compared.
    """

    makes: Collection[str]
    layers: bool = True

    @classmethod
    def of(cls, suite: Suite) -> "Offer":
        """That of a suite."""
        return cls({record.makes for record in suite.generators}, bool(suite.layers))

    def fits(self, metric: Metric) -> bool:
        """Whether a metric can be measured on it, if the model allows it."""
        return metric.on in {_WITHOUT, *self.makes} and (self.layers or Access.LAYERS not in metric.needs)


def fitting_metrics(metrics: Metrics, names: Iterable[str] | None, offer: Offer) -> tuple[Sequence[Metric], str | None]:
    """The metrics that are measured; and what a reader should know where they are not those that usually are.

    They are those that were named, or the usual ones, where at least one of them fits the suite: what the others lack
    stands beside them. Where none of the usual ones fits, all others that do are taken.

    Args:
        metrics: The metrics there are.
        names: Those that were named; None for the usual ones.
        offer: What the suite has.

    Raises:
        UsageError: Where nothing that was named, or nothing at all, can be measured; and as
            :meth:`~deepjudge_core.components.registry.Metrics.select`.
    """
    named = metrics.select(names)
    if not named or any(map(offer.fits, named)):
        return named, None
    others = [metric for metric in metrics.own() if offer.fits(metric)]
    has = f"the suite only has cases of {' and '.join(sorted(offer.makes)) or 'seeds'}"
    said = ", ".join(metric.name for metric in others)
    if names is not None or not others:
        fit = (
            f"{said} can ({option('metrics', [metric.name for metric in others])})"
            if others
            else "no installed metric can"
        )
        lacking = ", ".join(metric.name for metric in named)
        raise UsageError(f"{has}, on which {lacking} cannot be measured; {fit}", code="conflict")
    return others, f"{has}; {said} is measured instead of {', '.join(metric.name for metric in named)}"

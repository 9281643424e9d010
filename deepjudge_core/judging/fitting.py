"""Which metrics a suite can be measured by: those of the cases that it has."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from deepjudge_core.components.kinds import ALL_CASES, Metric
from deepjudge_core.components.registry import Metrics
from deepjudge_core.components.schemes import Key
from deepjudge_core.components.values import Answers
from deepjudge_core.errors import IncomparableError, UsageError
from deepjudge_core.judging.keys import marks_of
from deepjudge_core.models.model import Access
from deepjudge_core.naming import option
from deepjudge_core.suites.suite import Suite

_WITHOUT = "clean"  # cases that every suite has: the seeds
_FEW = 16


@dataclass(frozen=True)
class Offer:
    """What a suite has to be measured on.

    Attributes:
        makes: The sets of cases beside the seeds.
        layers: Whether layers are compared.
        weights: Whether it has the sketch of the victim's weights.
        ancestor: Whether it has that of the victim's ancestor, too.
        cases: Whether it has any cases.
        itself: What metrics of weights see of a few of the victim's neurons, twice; None where that is not known.
        keys: Its keys, which are always measured: nobody chooses among them after the fact.
    """

    makes: Collection[str]
    layers: bool = True
    weights: bool = False
    ancestor: bool = False
    cases: bool = True
    itself: tuple[Answers, Answers] | None = None
    keys: tuple[Key, ...] = ()

    @classmethod
    def of(cls, suite: Suite) -> "Offer":
        """That of a suite."""
        makes, weights = {record.makes for record in suite.generators}, suite.weights is not None
        few = _few_neurons(suite) if weights else None
        itself = None if few is None else (few, few)
        return cls(makes, bool(suite.layers), weights, suite.ancestor is not None, suite.has_cases, itself, suite.keys)

    @property
    def of_weights(self) -> tuple[str, ...]:
        """What metrics of weights can be taken over."""
        return (*(["weights"] if self.weights else []), *(["ancestry"] if self.ancestor else []))

    def fits(self, metric: Metric) -> bool:
        """Whether a metric can be measured on it, if the model allows it."""
        if metric.of_weights:
            return metric.on in self.of_weights
        made = {ALL_CASES} if set(self.makes) - {"mistakes"} else set()  # seeds and mistakes alone show too little
        fits = metric.on in {_WITHOUT, *made, *self.makes} and (self.layers or Access.LAYERS not in metric.needs)
        return self.cases and fits

    def usual(self, metrics: Metrics) -> list[Metric]:
        """The metrics that are taken without a name: of a suite of weights alone, those of weights.

        Metrics of weights that cannot compare the victim with itself, which is of another kind of network, are not
        among them.
        """
        taken = [metric for metric in metrics.usual(self.of_weights) if self.cases or metric.of_weights]
        return [metric for metric in taken if metric.on != "weights" or self._compares(metric)]

    def _compares(self, metric: Metric) -> bool:
        if self.itself is None or metric.p_value is not None:  # of a victim's picked neurons no order can be told
            return True
        try:
            metric.distance(*self.itself)
        except IncomparableError:
            return False
        except (Exception, SystemExit):  # which is said of each model
            return True
        return True


def _few_neurons(suite: Suite) -> Answers | None:
    # Enough to see what can be compared at all, in no time.
    answers, _ = suite.weight_answers(suite.victim)
    sketch = answers.weights
    if sketch is None:
        return None
    layers = (
        replace(
            layer,
            neurons=layer.neurons[:_FEW],
            raw=layer.raw[:_FEW],
            invariant=None if layer.invariant is None else layer.invariant[:_FEW],
        )
        for layer in sketch.layers
    )
    return replace(answers, weights=replace(sketch, layers=tuple(layers)))


def metrics_for(metrics: Metrics, names: Iterable[str] | None, suite: Suite) -> list[Metric]:
    """The named metrics, or the usual ones of a suite.

    Raises:
        UsageError, PluginError: As :meth:`~deepjudge_core.components.registry.Metrics.select`.
    """
    named = Offer.of(suite).usual(metrics) if names is None else metrics.select(names)
    return _with_keys(named, suite.keys, metrics)


def fitting_metrics(metrics: Metrics, names: Iterable[str] | None, offer: Offer) -> tuple[Sequence[Metric], str | None]:
    """The metrics that are measured; and what a reader should know where they are not those that usually are.

    The keys of the suite are always among them. The others are those that were named, or the usual ones, where at least
    one of them fits the suite: what the rest lack stands beside them. Where none of the usual ones fits, all others
    that do are taken.

    Args:
        metrics: The metrics there are.
        names: Those that were named; None for the usual ones.
        offer: What the suite has.

    Raises:
        UsageError: Where nothing that was named, or nothing at all, can be measured; and as
            :meth:`~deepjudge_core.components.registry.Metrics.select`.
    """
    fitting, note = _fitting(metrics, names, offer)
    return _with_keys(fitting, offer.keys, metrics), note


def _with_keys(chosen: Sequence[Metric], keys: Sequence[Key], metrics: Metrics) -> list[Metric]:
    marks = marks_of(keys, metrics.schemes)
    same = {metric.name for metric in chosen} & {mark.name for mark in marks}
    if same:
        raise UsageError(
            f"expected a key of another name than the metrics have, found {min(same)!r}; make the suite without it",
            code="conflict",
        )
    return [*chosen, *marks]


def _fitting(metrics: Metrics, names: Iterable[str] | None, offer: Offer) -> tuple[Sequence[Metric], str | None]:
    named = offer.usual(metrics) if names is None else metrics.select(names)
    # Of usual metrics, those of weights are no reason to leave the cases unmeasured.
    needed = [metric for metric in named if names is not None or not offer.cases or not metric.of_weights]
    if not named or any(map(offer.fits, needed)):
        return named, None
    others = [
        one for one in metrics.own() if offer.fits(one) and (names is not None or one in named or not one.of_weights)
    ]
    has = f"the suite only has cases of {' and '.join(sorted(offer.makes)) or 'seeds'}"
    has = has if offer.cases else "the suite only has weights"
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

"""Measure how far a model is from the victim: pure numpy, from stored answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import cast

import numpy as np

from deepjudge_core.components.kinds import ALL_CASES, Metric
from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.components.schemes import KeyAnswers, Reading
from deepjudge_core.components.values import Answers, CaseSet, Chance
from deepjudge_core.errors import IncomparableError, one_line
from deepjudge_core.judging.accuracy import Accuracy, accuracy_on_seeds, errs_alike
from deepjudge_core.judging.architecture import Widths, widths
from deepjudge_core.judging.exact import LOG10_LEVEL
from deepjudge_core.judging.fitting import metrics_for
from deepjudge_core.judging.keys import Mark, carries, read_key
from deepjudge_core.judging.neurons import DEFAULT_MATCH, Match, match_observation
from deepjudge_core.judging.ordinary import UNKNOWN, Ordinary, ordinary
from deepjudge_core.judging.view import View, unfit_whole
from deepjudge_core.models.model import Access
from deepjudge_core.sheets import Sheet, Shown
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite, check_suite
from deepjudge_core.text import LONGEST_LINE, clean
from deepjudge_core.types import Array

_LEAST_BACKGROUND = 3


@dataclass(frozen=True)
class Measurement:
    """One metric of one model.

    Attributes:
        metric: What was measured.
        value: The distance, at least 0; None where it could not be had.
        reason: Why not.
        allowed: Whether the suite, made for some metrics only, and the access to the model allowed it.
        failed: Whether the metric itself failed.
        incomparable: Whether the model's layers or weights cannot be compared, since they cannot be seen or none is
            like the victim's: that is a matter of its architecture or format, and says nothing about a copy.
        match: How the model's neurons were put beside the victim's.
        unsteady: What of the model's answers changed when it was asked again; None where nothing did.
        accuracy: How many of the seeds the model classifies correctly; None where its classes are not the victim's.
        alike: Share of the adversarial cases on which the model errs as the victim; None where that is not known.
        ordinary: How far the model is from the victim on ordinary inputs.
        widths: Of the model's architecture; None where its layers cannot be seen.
        chance: How likely so small a value is of a model made independently, by a metric that needs no controls for
            that; None for others.
        background: The least distance of parts that do not correspond; None where too few were compared, or the metric
            knows none.
        explained: Why a small value of a metric of weights accuses nobody: the victim's own ancestor has the like.
        unseen: Why a large value of a metric of weights acquits nobody: not all that may be the victim's was compared.
        readings: What a key counts; none of other metrics.
        view: How much of all answers was compared; None for all.
    """

    metric: Metric
    value: float | None
    reason: str | None = None
    allowed: bool = True
    failed: bool = False
    incomparable: bool = False
    match: Match = DEFAULT_MATCH
    unsteady: str | None = None
    accuracy: Accuracy | None = None
    alike: float | None = None
    ordinary: Ordinary = UNKNOWN
    widths: Widths | None = None
    chance: Chance | None = None
    background: float | None = None
    explained: str | None = None
    unseen: str | None = None
    readings: tuple[Reading, ...] = ()
    view: View | None = None


Measurements = Mapping[str, Measurement]
"""Metric name to what was measured."""


class Measured(Shown, dict[str, Measurement]):
    """Measurements that print as a table, and know what they were taken by.

    Attributes:
        suite: The suite.
    """

    def __init__(self, values: Mapping[str, Measurement], suite: Suite) -> None:
        super().__init__(values)
        self.suite = suite

    def sheet(self) -> Sheet:
        """See :class:`~deepjudge_core.sheets.Shown`."""
        rows = [(name, one.metric.group, one.value, one.reason) for name, one in self.items()]
        return Sheet(
            "1 metric" if len(self) == 1 else f"{len(self)} metrics",
            {},
            ("metric", "setting", "distance", "why not measured"),
            rows,
        )


def accuracy_of(measurements: Measurements) -> Accuracy | None:
    """The accuracy on the seeds of the model that was measured; None where it is not known."""
    return next((measurement.accuracy for measurement in measurements.values()), None)


def alike_of(measurements: Measurements) -> float | None:
    """On how many adversarial cases the model errs as the victim, 0..1; None where that is not known."""
    return next((measurement.alike for measurement in measurements.values()), None)


def ordinary_of(measurements: Measurements) -> Ordinary:
    """How far the model that was measured is from the victim on ordinary inputs."""
    return next((measurement.ordinary for measurement in measurements.values()), UNKNOWN)


def widths_of(measurements: Measurements) -> Widths | None:
    """The widths of the model that was measured; None where they are not known."""
    return next((measurement.widths for measurement in measurements.values()), None)


def measure(
    suite: Suite,
    observation: Observation,
    metrics: Iterable[str] | None = None,
    *,
    match: Match = DEFAULT_MATCH,
    registry: Registry | None = None,
    siblings: Sequence[Observation] = (),
) -> Measurements:
    """Measure a model against the victim.

    Args:
        suite: The suite, with the victim's own answers.
        observation: The model's answers to it.
        metrics: Names of metrics, "all" for every installed one; by default those that are taken without a name.
        match: How the model's neurons are put beside the victim's; suspects and controls alike.
        registry: Where the metrics are; by default every installed one.
        siblings: Controls that come from the victim's ancestor, for metrics that take it into account.

    Raises:
        FileFormatError: When the answers are to another suite.
        UsageError: For an unknown metric.
    """
    chosen = metrics_for((registry or load_registry()).metrics, metrics, suite)
    return measure_by(chosen, suite, observation, match, siblings)


def measure_by(
    metrics: Sequence[Metric],
    suite: Suite,
    observation: Observation,
    match: Match,
    siblings: Sequence[Observation] = (),
    view: View | None = None,
    *,
    control: bool = False,
) -> Measurements:
    """Measure a model against the victim; as :func:`measure`, by metrics that were looked up.

    Args:
        metrics: The metrics.
        suite: The suite.
        observation: The model's answers.
        match: As :func:`measure` has it.
        siblings: As :func:`measure` has it.
        view: How much of all answers is compared; by default what the model itself shows.
        control: Whether thresholds come of it, so that no view is that of all answers.
    """
    check_suite(suite, observation)
    if control:
        unfit = unfit_whole(observation) if view is None else view.unfit(suite, observation)
    else:
        view = view or View.of(observation)
        unfit = None if view is None else view.unfit(suite, observation)
    part, seen = (suite, observation) if view is None or unfit else view.through(suite, observation)
    beside = match_observation(part, seen, match)

    @cache
    def answers(case_set: CaseSet | None) -> tuple[Answers, Answers]:
        return part.answers(part.victim, case_set), part.answers(beside, case_set)

    unseen = None if observation.weights is None else "; ".join(observation.weights.unseen) or None
    # What reached a model is a part of what is compared of it already.
    bare = replace(seen, exchange=None) if part is not suite else seen
    accuracy, own_widths = accuracy_on_seeds(part, bare), widths(observation.model)
    alike, explained = errs_alike(part, bare), by_ancestor(suite, metrics)
    on_data = ordinary(part, bare, reduced=bool(view and view.reduction))
    measured = {
        metric.name: replace(
            _of_key(suite, observation, metric)
            if isinstance(metric, Mark)
            else _of_weights(suite, observation, metric, siblings)
            if metric.of_weights
            else _measure(part, beside, metric, answers, unfit),
            match=match,
            view=view,
            unsteady=None if metric.of_weights or metric.on == "keys" else observation.unsteady,
            accuracy=accuracy,
            alike=None if alike is None or not len(alike) else float(alike.mean()),
            ordinary=on_data,
            widths=own_widths,
            explained=explained if metric.on == "weights" else None,
            unseen=unseen if metric.of_weights else None,
        )
        for metric in metrics
    }
    return Measured(measured, suite)


def _measure(
    suite: Suite,
    observation: Observation,
    metric: Metric,
    answers: Callable[[CaseSet | None], tuple[Answers, Answers]],
    unfit: str | None,
) -> Measurement:
    missing = metric.needs & ~observation.model.access
    if missing:
        names = " and ".join(str(flag.name).lower() for flag in missing)
        unseen = Access.LAYERS in missing and bool(suite.layers)
        return Measurement(metric, None, f"needs the model's {names}", allowed=False, incomparable=unseen)
    case_set = None if metric.on == ALL_CASES else cast(CaseSet, metric.on)
    if not suite.has_cases:
        return Measurement(metric, None, "the suite has no cases, but weights only", allowed=False)
    if metric.on not in {"clean", ALL_CASES, *(record.makes for record in suite.generators)}:
        how = "; the generator mistakes makes them" if metric.on == "mistakes" else ""
        reason = f"the suite has no cases in the set {metric.on!r}{how}"
        return Measurement(metric, None, reason, allowed=False)
    if metric.reads == "recovered" and not observation.recovered:
        reason = "the layers were not observed" if suite.layers else "the suite compares no layers"
        return Measurement(metric, None, reason, allowed=bool(suite.layers))
    if Access.LAYERS in metric.needs and metric.reads == "activations" and not observation.activations:
        reason, compares = observation.unmatched or "the layers were not observed", bool(suite.layers)
        unlike = compares and observation.unmatched is not None
        return Measurement(metric, None, reason, allowed=compares, incomparable=unlike)
    if metric.needs & Access.BLACK_BOX and observation.probabilities is None:
        return Measurement(metric, None, observation.unmapped or "the probabilities were not observed")
    if unfit:
        return Measurement(metric, None, unfit)
    if case_set is not None and not suite.rows(case_set).any():
        reached = "no case reached it unchanged" if observation.exchange else "the suite has no cases"
        return Measurement(metric, None, f"{reached} in the set {case_set!r}")
    return _distance(metric, *answers(case_set))


def _distance(metric: Metric, victim: Answers, model: Answers) -> Measurement:
    try:
        value = float(metric.distance(victim, model))
        chance = None if metric.p_value is None else _checked(metric.p_value(victim, model))
        background = None if metric.background is None else _least(metric.background(victim, model))
    except IncomparableError as error:
        return Measurement(metric, None, str(error), incomparable=metric.of_weights)
    except (Exception, SystemExit) as error:
        return Measurement(metric, None, f"the metric failed: {one_line(error)}", failed=True)
    if not np.isfinite(value) or value < 0:
        return Measurement(metric, None, f"the metric failed: expected a distance, found {value}", failed=True)
    return Measurement(metric, value, chance=chance, background=background)


def _least(background: Array) -> float | None:
    # A metric is anybody's code, and of few parts one may be near by chance.
    values = np.asarray(background, np.float64)
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("expected distances of parts that do not correspond, found other numbers")
    return float(values.min()) if len(values) >= _LEAST_BACKGROUND else None


def _checked(chance: Chance) -> Chance:
    # A metric is anybody's code.
    log10_p, least, counted = float(chance.log10_p), float(chance.least), clean(chance.counted, LONGEST_LINE)
    if not -np.inf < least <= log10_p <= 0:
        raise ValueError(f"expected least <= log10_p <= 0, found {least} and {log10_p}")
    if not counted.strip():
        raise ValueError("expected a clause that says what was found, found none")
    return replace(chance, log10_p=log10_p, least=least, counted=counted)


def _of_key(suite: Suite, observation: Observation, mark: Mark) -> Measurement:
    exchange = observation.exchange
    if exchange is not None and exchange.reduction and Access.PROBABILITIES in mark.needs:
        return Measurement(mark, None, f"its interface keeps {exchange.reduction}, and the key needs all scores")
    answers, ours = (
        one.keys[mark.place] if mark.place < len(one.keys) else KeyAnswers() for one in (observation, suite.victim)
    )
    key = mark.key
    if key and key.chance is None and observation.model.digest in (*key.references, *key.surrogates):
        return Measurement(mark, None, "the key was made with this model, so what it matches says nothing")
    try:
        if not _is_carried(mark, ours):
            return Measurement(mark, None, "the suite's own victim does not carry the key, so a match says nothing")
        readings = read_key(mark, replace(answers, victim=ours))
    except IncomparableError as error:
        return Measurement(mark, None, str(error))
    except (Exception, SystemExit) as error:
        return Measurement(mark, None, f"the scheme failed: {one_line(error)}", failed=True)
    return Measurement(mark, min(one.distance for one in readings), readings=readings)


@lru_cache(maxsize=16)
def _is_carried(mark: Mark, victim: KeyAnswers) -> bool:
    # Whoever changed a suite may have put a key into it that its victim does not carry. The same of every model.
    return any(map(carries, read_key(mark, victim)))


def _of_weights(suite: Suite, observation: Observation, metric: Metric, siblings: Sequence[Observation]) -> Measurement:
    if suite.weights is None or suite.victim.weights is None:
        return Measurement(metric, None, "the suite has no sketch of the victim's weights", allowed=False)
    if metric.on == "ancestry" and suite.ancestor is None:
        return Measurement(metric, None, "the victim's ancestor is not known to the suite", allowed=False)
    if observation.weights is None:
        return Measurement(metric, None, observation.unsketched or "its weights were not read", allowed=False)
    if metric.on == "ancestry" and not siblings:
        reason = "no control is known to come from the victim's ancestor (stratum common-ancestor)"
        return Measurement(metric, None, reason)
    return _distance(metric, *suite.weight_answers(observation, siblings))


def by_ancestor(suite: Suite, metrics: Sequence[Metric]) -> str | None:
    """Why weights like the victim's accuse nobody, where its own ancestor has such weights, too: one line.

    None where the suite knows no ancestor, or the exact tests among the metrics find nothing in common with it.
    """
    if suite.ancestor is None or suite.victim.weights is None:
        return None
    exact = [metric for metric in metrics if metric.on == "weights" and metric.p_value is not None]
    chances = (_distance(metric, *suite.weight_answers(suite.ancestor)).chance for metric in exact)
    found = [chance for chance in chances if chance is not None]
    if found and all(chance.log10_p > LOG10_LEVEL for chance in found):
        return None
    return f"the victim's ancestor {suite.ancestor.model.name} explains it: all that comes from the ancestor agrees"

"""What every metric must keep."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import pairwise

import numpy as np

from deepjudge_core.components.kinds import Metric, Subject
from deepjudge_core.components.values import Answers, Chance
from deepjudge_core.judging.guards import is_nearer
from deepjudge_core.models.model import Access
from deepjudge_core.testing.checks import Checks, expect_name, run
from deepjudge_core.testing.expect import expect
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.testing.weights import ArrayWeights
from deepjudge_core.types import Array
from deepjudge_core.weights.sketching import plan_weights, sketch
from deepjudge_core.weights.values import Sketch

_CASES, _INPUTS, _CLASSES = 96, 6, 4
_WIDTHS = (8, 5)
_HIDDEN = (40, 32, 24)  # of the networks whose weights are sketched
_LEAST = -3  # log10 of a p-value that few of many independent models have
_POOL = 1000  # inputs that seeds are taken from


def check_metric(metric: Metric) -> None:
    """Run all of :func:`metric_checks`, up to the first that fails.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    run(metric_checks(metric))


def metric_checks(metric: Metric) -> Checks:
    """What a metric must keep, over the answers of small numpy models: a victim, near copies of it, and others."""
    trial = _Trial(metric)
    yield "name", partial(expect_name, metric.name)
    yield "needs", partial(_check_needs, metric)
    yield "arguments", partial(_check_arguments, metric)
    yield "range", trial.check_range
    yield "leaves-answers", trial.check_leaves_answers
    yield "repeatable", trial.check_repeatable
    yield "zero-for-itself", trial.check_zero_for_itself
    yield "copies-nearer", trial.check_copies_nearer
    if not metric.of_weights:
        yield "order-of-cases", trial.check_order_of_cases
    yield "declared-needs", trial.check_declared_needs
    if metric.p_value is not None:
        yield "p-value", partial(trial.check_p_value, metric.p_value)
    if metric.background is not None:
        yield "background", partial(trial.check_background, metric.background)


def _check_needs(metric: Metric) -> None:
    name = metric.name
    expect(
        isinstance(metric.needs, Access) and metric.needs,
        f"{name}: expected to need some Access, found {metric.needs!r}",
    )
    expect(
        Access.GRADIENTS not in metric.needs,
        f"{name}: expected it not to need gradients, because a suspect's gradients are never taken",
    )


def _check_arguments(metric: Metric) -> None:
    for parameter in list(inspect.signature(metric.distance).parameters.values())[2:]:
        expect(
            parameter.default is not inspect.Parameter.empty,
            f"{metric.name}: is called with two answers, expected a default for {parameter.name!r}",
        )


class _Trial:
    """The answers over which one metric is tried. It is handed copies of them, so that checks are independent."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    @cached_property
    def _survey(self) -> "_Survey | _WeightsSurvey":
        return _WeightsSurvey() if self.metric.of_weights else _Survey(self.metric.on)

    @cached_property
    def _pairs(self) -> list[tuple[Answers, Answers]]:
        # All answers that the metric is tried on with all that may be known of a suspect.
        survey = self._survey
        if isinstance(survey, _WeightsSurvey):
            return [(survey.victim, suspect) for suspect in (*survey.near, *survey.others, survey.again)]
        opposite = _opposite(survey.victim)
        far = [*survey.others, opposite, _take(survey.others[0], np.arange(1)), _take(opposite, np.arange(1))]
        return [
            *((survey.victim, suspect) for suspect in survey.near),
            *((_take(survey.victim, np.arange(len(suspect.labels))), suspect) for suspect in far),
            self._shuffled,
            (survey.victim, survey.again),
        ]

    @cached_property
    def _shuffled(self) -> tuple[Answers, Answers]:
        order = np.random.default_rng(0).permutation(_CASES)
        return _take(self._survey.victim, order), _take(self._survey.others[0], order)

    def _distance(self, victim: Answers, suspect: Answers) -> float:
        return float(self.metric.distance(copy.deepcopy(victim), copy.deepcopy(suspect)))

    def check_leaves_answers(self) -> None:
        for answers in self._pairs:
            self._distance_without_traces(*answers)

    def _distance_without_traces(self, victim: Answers, suspect: Answers) -> float:
        lent = copy.deepcopy(victim), copy.deepcopy(suspect)
        value = float(self.metric.distance(*lent))
        expect(
            all(np.array_equal(a, b) for a, b in zip(_arrays(victim, suspect), _arrays(*lent), strict=True)),
            f"{self.metric.name}: changed the answers that it was given",
        )
        return value

    def check_range(self) -> None:
        name, upper = self.metric.name, self.metric.upper
        for victim, suspect in self._pairs:
            value = self._distance(victim, suspect)
            expect(np.isfinite(value), f"{name}: expected a finite distance, found {value}")
            expect(
                0 <= value <= upper * (1 + 1e-9), f"{name}: expected a distance within 0..{upper:g}, found {value:g}"
            )

    def check_repeatable(self) -> None:
        for victim, suspect in self._pairs:
            first, second = (self._distance(victim, suspect) for _ in range(2))
            expect(
                first == second,
                f"{self.metric.name}: gives {first:.9g} the first time and {second:.9g} the second",
            )

    def check_zero_for_itself(self) -> None:
        own = self._distance(self._survey.victim, self._survey.again)
        expect(own <= 1e-9, f"{self.metric.name}: expected 0 between a model and itself, found {own:.3g}")

    def check_copies_nearer(self) -> None:
        survey = self._survey
        near, far = (
            [self._distance(survey.victim, suspect) for suspect in suspects]
            for suspects in (survey.near, survey.others)
        )
        expect(
            np.mean(near) < np.mean(far),
            f"{self.metric.name}: expected slightly changed copies to be nearer than other models, "
            f"found copies at {_text(near)} and others at {_text(far)}",
        )

    def check_p_value(self, p_value: Callable[[Answers, Answers], Chance]) -> None:
        name, survey = self.metric.name, self._survey
        strangers = survey.strangers if isinstance(survey, _WeightsSurvey) else survey.others
        chances = [p_value(*copy.deepcopy((survey.victim, one))) for one in (survey.again, *survey.near, *strangers)]
        for chance in chances:
            expect(
                chance.least <= chance.log10_p <= 0,
                f"{name}: expected the logarithm of a probability, from {chance.least:.4g} to 0, found "
                f"{chance.log10_p:.4g}",
            )
        own, *others = (chance.log10_p for chance in (chances[0], *chances[1 + len(survey.near) :]))
        expect(
            own < min(others),
            f"{name}: expected less of the victim itself than of independent models, found {own:.4g} and "
            f"{_text(others)} (logarithms)",
        )
        expect(
            min(others) > _LEAST,
            f"{name}: expected more than 1e{_LEAST} of independent models, found {_text(others)} (logarithms)",
        )

    def check_background(self, background: Callable[[Answers, Answers], Array]) -> None:
        name, survey = self.metric.name, self._survey
        for one in survey.strangers if isinstance(survey, _WeightsSurvey) else survey.others:
            values = np.asarray(background(*copy.deepcopy((survey.victim, one))), np.float64)
            expect(
                values.ndim == 1 and bool((np.isfinite(values) & (values >= 0)).all()),
                f"{name}: expected distances of parts that do not correspond, found {values!r:.200}",
            )
            if not len(values):
                continue
            own = self._distance(survey.victim, one)
            expect(
                not is_nearer(own, values),
                f"{name}: expected an independent model not to be nearer by far than parts that do not correspond, "
                f"found {own:.4g} and at least {values.min():.4g}",
            )

    def check_order_of_cases(self) -> None:
        straight = self._distance(self._survey.victim, self._survey.others[0])
        shuffled = self._distance(*self._shuffled)
        expect(
            np.isclose(shuffled, straight, rtol=1e-6, atol=1e-9),
            f"{self.metric.name}: expected the same value for any order of the cases, found "
            f"{straight:.6g} and {shuffled:.6g}",
        )

    def check_declared_needs(self) -> None:
        metric, victim, other = self.metric, self._survey.victim, self._survey.others[0]
        whole = self._distance(victim, other)
        for lacking, suspect in _as_declared(metric, other).items():
            label = f"{metric.name}: needs {metric.needs}, but without {lacking}"
            try:
                value = self._distance_without_traces(victim, suspect)
            except Exception as error:
                raise AssertionError(f"{label} it fails: {type(error).__name__}: {error}") from error
            expect(value == whole, f"{label} it is {value:.6g} instead of {whole:.6g}")


class _WeightsSurvey:
    """Sketches of the weights of small dense networks.

    Attributes:
        victim, again: The victim's, once as its owner keeps it, once as that of any model; it has an ancestor.
        near: Those of slightly changed copies.
        others: Those of models that were made from the same ancestor.
        strangers: Those of models that were made independently.
    """

    def __init__(self) -> None:
        base, own, *ways = (_random_weights(seed) for seed in range(12))
        owner = _sum(base, own)
        plan = plan_weights(owner, ancestry=True)
        siblings = tuple(sketch(_sum(base, way), plan) for way in ways[:3])
        self.victim = dataclasses.replace(
            _of_weights(sketch(owner, plan, victim=True)), ancestor=sketch(base, plan), siblings=siblings
        )
        self.again = _of_weights(sketch(owner, plan))
        self.near = [_of_weights(sketch(_sum(owner, way, 0.02), plan)) for way in ways[:4]]
        self.others = [_of_weights(sketch(_sum(base, way), plan)) for way in ways[3:7]]
        self.strangers = [_of_weights(sketch(way, plan)) for way in ways]


def _random_weights(seed: int) -> ArrayWeights:
    random = np.random.default_rng(seed)
    sizes = (_INPUTS, *_HIDDEN, _CLASSES)
    return ArrayWeights(
        {f"dense.{place}": random.normal(size=pair[::-1]) for place, pair in enumerate(pairwise(sizes))}
    )


def _sum(weights: ArrayWeights, others: ArrayWeights, share: float = 1) -> ArrayWeights:
    return ArrayWeights({name: array + share * others.arrays[name] for name, array in weights.arrays.items()})


def _of_weights(weights: Sketch) -> Answers:
    return Answers(np.empty(0, np.int64), weights=weights)


class _Survey:
    """What models answer to one set of cases.

    Attributes:
        victim, again: The victim's answers, twice.
        near: Those of slightly changed copies.
        others: Those of models with other weights.
    """

    def __init__(self, on: Subject) -> None:
        self._owner = owner = NumpyModel.random((_INPUTS,), _WIDTHS, _CLASSES, seed=0)
        # In a range where the owner gives every class to some.
        self._inputs, pool = (
            np.random.default_rng(place).uniform(-2, 2, size=(count, _INPUTS)).astype(np.float32)
            for place, count in enumerate((_CASES, _POOL))
        )
        ranked = owner.predict(self._inputs).argsort(axis=1)
        # The victim misclassifies all adversarial cases, and its mistakes.
        self._labels = ranked[:, -2] if on in ("adversarial", "mistakes") else ranked[:, -1]
        # It classifies all seeds correctly; mistakes were made from none.
        of_class = [pool[owner.predict(pool).argmax(axis=1) == label] for label in range(_CLASSES)]
        seeds = np.array([of_class[label][case % len(of_class[label])] for case, label in enumerate(self._labels)])
        self._seeds = None if on == "mistakes" else seeds
        self._layers = list(owner.layers)[:-1]
        place = np.arange(_CASES) % len(self._layers) if on == "corners" else np.full(_CASES, -1)
        self._made_for = {
            layer: np.where(place == i, np.arange(_CASES) // len(self._layers) % owner.layers[layer], -1)
            for i, layer in enumerate(self._layers)
        }
        self.victim, self.again = self._ask(owner), self._ask(owner)
        self.near = [self._ask(owner.perturbed(0.02, seed)) for seed in range(4)]
        self.others = [self._ask(NumpyModel.random((_INPUTS,), _WIDTHS, _CLASSES, seed)) for seed in range(1, 5)]

    def _ask(self, model: NumpyModel) -> Answers:
        activations = model.activations(self._inputs, self._layers)
        of_seeds = None if self._seeds is None else model.predict(self._seeds)
        return Answers(
            self._labels.copy(),
            model.predict(self._inputs),
            activations,
            self._made_for,
            None if of_seeds is None else of_seeds.argmax(axis=1),
            seed_probabilities=of_seeds,
            recovered={} if model is self._owner else dict(activations),
        )


def _opposite(victim: Answers) -> Answers:
    """As far from the victim as answers can be: sure of the class that it holds least likely, neurons turned round."""
    p = _probabilities(victim)
    sure = np.eye(_CLASSES, dtype=np.float32)[p.argmin(axis=1)]
    return dataclasses.replace(
        victim,
        probabilities=sure,
        activations={layer: -1e3 * a for layer, a in victim.activations.items()},
        recovered={layer: -1e3 * a for layer, a in victim.activations.items()},
    )


def _as_declared(metric: Metric, suspect: Answers) -> dict[str, Answers]:
    """The suspect without what the metric does not need, by what that is."""
    less = {}
    if Access.LAYERS not in metric.needs:
        less["the suspect's layers"] = dataclasses.replace(suspect, activations={}, recovered={})
    elif Access.LABELS not in metric.needs and Access.PROBABILITIES not in metric.needs:
        less["the suspect's probabilities"] = dataclasses.replace(
            suspect, probabilities=None, seed_labels=None, seed_probabilities=None
        )
    if Access.LABELS in metric.needs and Access.PROBABILITIES not in metric.needs:
        greatest = np.eye(_CLASSES, dtype=np.float32)
        less["all of the suspect's probabilities except the greatest"] = dataclasses.replace(
            suspect,
            probabilities=greatest[_probabilities(suspect).argmax(axis=1)],
            seed_probabilities=None if suspect.seed_labels is None else greatest[suspect.seed_labels],
        )
    return less


def _take(answers: Answers, rows: Array) -> Answers:
    return Answers(
        answers.labels[rows],
        _probabilities(answers)[rows],
        {layer: a[rows] for layer, a in answers.activations.items()},
        {layer: m[rows] for layer, m in answers.made_for.items()},
        None if answers.seed_labels is None else answers.seed_labels[rows],
        seed_probabilities=None if answers.seed_probabilities is None else answers.seed_probabilities[rows],
        recovered={layer: a[rows] for layer, a in answers.recovered.items()},
    )


def _probabilities(answers: Answers) -> Array:
    return np.empty((0, _CLASSES)) if answers.probabilities is None else answers.probabilities


def _arrays(*both: Answers) -> list[Array]:
    return [
        array
        for answers in both
        for array in (
            answers.labels,
            *_sketched(answers),
            _probabilities(answers),
            *answers.activations.values(),
            *answers.recovered.values(),
            *answers.made_for.values(),
            *(one for one in (answers.seed_labels, answers.seed_probabilities) if one is not None),
        )
    ]


def _sketched(answers: Answers) -> list[Array]:
    sketches = [one for one in (answers.weights, answers.ancestor, *answers.siblings) if one is not None]
    return [array for one in sketches for array in one.arrays("").values()]


def _text(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)

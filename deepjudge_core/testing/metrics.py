"""What every metric must keep."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence

import numpy as np

from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.values import Answers, CaseSet
from deepjudge_core.models.model import Access
from deepjudge_core.testing.expect import expect
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.types import Array

_CASES, _INPUTS, _CLASSES = 96, 6, 4
_WIDTHS = (8, 5)


def check_metric(metric: Metric) -> None:
    """Check a metric, over the answers of small numpy models: a victim, near copies of it, and others.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    _check_description(metric)
    owner = NumpyModel.random((_INPUTS,), _WIDTHS, _CLASSES, seed=0)
    ask = _asker(owner, metric.on)
    victim = ask(owner)
    near = [_distance(metric, victim, ask(owner.perturbed(0.02, seed))) for seed in range(4)]
    others = [ask(NumpyModel.random((_INPUTS,), _WIDTHS, _CLASSES, seed)) for seed in range(1, 5)]
    far = [_distance(metric, victim, other) for other in others]

    own = _distance(metric, victim, ask(owner))
    expect(own <= 1e-9, f"{metric.name}: expected 0 between a model and itself, found {own:.3g}")
    opposite = _opposite(victim)
    for suspect in (*others, opposite, _take(others[0], np.arange(1)), _take(opposite, np.arange(1))):
        _distance(metric, _take(victim, np.arange(len(suspect.labels))), suspect)
    expect(
        np.mean(near) < np.mean(far),
        f"{metric.name}: expected slightly changed copies nearer than other models, found copies at "
        f"{_text(near)} and others at {_text(far)}",
    )
    order = np.random.default_rng(0).permutation(_CASES)
    shuffled = _distance(metric, _take(victim, order), _take(others[0], order))
    expect(
        np.isclose(shuffled, far[0], rtol=1e-6, atol=1e-9),
        f"{metric.name}: expected the same whatever the order of the cases, found {far[0]:.6g} and {shuffled:.6g}",
    )
    for what, suspect in _as_declared(metric, others[0]).items():
        label = f"{metric.name}: needs {metric.needs}, but without {what}"
        try:
            found = _distance(metric, victim, suspect)
        except Exception as error:
            raise AssertionError(f"{label} it fails: {type(error).__name__}: {error}") from error
        expect(found == far[0], f"{label} it is {found:.6g} in place of {far[0]:.6g}")


def _check_description(metric: Metric) -> None:
    name = metric.name
    expect(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name), f"expected a name in lower case without spaces, found {name!r}")
    expect(
        isinstance(metric.needs, Access) and metric.needs,
        f"{name}: expected to need some Access, found {metric.needs!r}",
    )
    expect(
        Access.GRADIENTS not in metric.needs,
        f"{name}: expected to need no gradients: those of a suspect are never taken",
    )
    for parameter in list(inspect.signature(metric.distance).parameters.values())[2:]:
        expect(
            parameter.default is not inspect.Parameter.empty,
            f"{name}: is called with two answers, expected a default for {parameter.name!r}",
        )


def _distance(metric: Metric, victim: Answers, suspect: Answers) -> float:
    """The distance, which is a number in its range, and taken without leaving traces."""
    before = [array.copy() for array in _arrays(victim, suspect)]
    value = float(metric.distance(victim, suspect))
    again = float(metric.distance(victim, suspect))
    expect(
        all(np.array_equal(a, b) for a, b in zip(before, _arrays(victim, suspect), strict=True)),
        f"{metric.name}: changed the answers that it was given",
    )
    expect(np.isfinite(value), f"{metric.name}: expected a finite distance, found {value}")
    expect(
        0 <= value <= metric.upper * (1 + 1e-9),
        f"{metric.name}: expected a distance within 0..{metric.upper:g}, found {value:g}",
    )
    expect(value == again, f"{metric.name}: gives {value:.9g} the first time and {again:.9g} the second")
    return value


def _asker(owner: NumpyModel, on: CaseSet) -> Callable[[NumpyModel], Answers]:
    """What models answer to one set of cases."""
    rng = np.random.default_rng(0)
    inputs = rng.uniform(size=(_CASES, _INPUTS)).astype(np.float32)
    ranked = owner.predict(inputs).argsort(axis=1)
    # The victim misclassifies all adversarial cases, and its mistakes.
    labels = ranked[:, -2] if on in ("adversarial", "mistakes") else ranked[:, -1]
    layers = list(owner.layers)[:-1]
    place = np.arange(_CASES) % len(layers) if on == "corners" else np.full(_CASES, -1)
    made_for = {
        layer: np.where(place == i, np.arange(_CASES) // len(layers) % owner.layers[layer], -1)
        for i, layer in enumerate(layers)
    }

    def ask(model: NumpyModel) -> Answers:
        return Answers(labels.copy(), model.predict(inputs), model.activations(inputs, layers), made_for)

    return ask


def _opposite(victim: Answers) -> Answers:
    """As far from the victim as answers can be: sure of the class that it holds least likely, neurons turned round."""
    p = _probabilities(victim)
    sure = np.eye(_CLASSES, dtype=np.float32)[p.argmin(axis=1)]
    return dataclasses.replace(
        victim, probabilities=sure, activations={layer: -1e3 * a for layer, a in victim.activations.items()}
    )


def _as_declared(metric: Metric, suspect: Answers) -> dict[str, Answers]:
    """The suspect without what the metric does not need, by what that is."""
    less = {}
    if Access.LAYERS not in metric.needs:
        less["the suspect's layers"] = dataclasses.replace(suspect, activations={})
    elif Access.LABELS not in metric.needs and Access.PROBABILITIES not in metric.needs:
        less["the suspect's probabilities"] = dataclasses.replace(suspect, probabilities=None)
    if Access.LABELS in metric.needs and Access.PROBABILITIES not in metric.needs:
        labels = np.eye(_CLASSES, dtype=np.float32)[_probabilities(suspect).argmax(axis=1)]
        less["all of the suspect's probabilities but the greatest"] = dataclasses.replace(suspect, probabilities=labels)
    return less


def _take(answers: Answers, rows: Array) -> Answers:
    return Answers(
        answers.labels[rows],
        _probabilities(answers)[rows],
        {layer: a[rows] for layer, a in answers.activations.items()},
        {layer: m[rows] for layer, m in answers.made_for.items()},
    )


def _probabilities(answers: Answers) -> Array:
    return np.empty((0, _CLASSES)) if answers.probabilities is None else answers.probabilities


def _arrays(*given: Answers) -> list[Array]:
    return [
        array
        for answers in given
        for array in (
            answers.labels,
            _probabilities(answers),
            *answers.activations.values(),
            *answers.made_for.values(),
        )
    ]


def _text(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)

"""Which output of a model holds its scores, told by labelled inputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.asking import ask
from deepjudge_core.models.layouts import arrangement
from deepjudge_core.models.model import Model
from deepjudge_core.models.outputs import Outputs, first_of, listed
from deepjudge_core.naming import option
from deepjudge_core.suites.labels import likeliest
from deepjudge_core.types import Array, Layout

_PROBES = 1000  # inputs at most, on which each output is tried
# Shares of the way from chance to all inputs right. Below a quarter an output answers something else, or the model is
# not asked as it expects.
POOR, GOOD = 0.25, 0.75
# Of two that are right, the one so many times nearer to the answers that are known is that of the same function.
_NEARER = 10
_FEW = 0.02  # of the inputs: heads of one task differ by less
_DIGITS = 6  # of a mean probability; what differs by less are answers of one function


@dataclass(frozen=True, eq=False)
class Trial:
    """What one output answers to labelled inputs.

    Attributes:
        accuracy: Share of the inputs that it gets right, 0..1.
        certainty: Mean probability of the truth, 0..1.
        soft: Whether it gives anything but 0 and 1.
        depth: Taps of the model up to it: an auxiliary head has fewer than the last one.
        distance: Mean total variation, 0..1, between it and answers that are known; None without any.
    """

    accuracy: float
    certainty: float
    soft: bool
    depth: int = 0
    distance: float | None = None

    @classmethod
    def of(cls, model: Model, answers: Array, labels: Array, known: Array | None = None) -> "Trial":
        """Compare answers with labels.

        Args:
            model: The model with its scores in that output.
            answers: ``(n, classes)`` probabilities.
            labels: ``(n,)`` classes.
            known: ``(n, classes)`` probabilities that another model gave.
        """
        wide = answers.astype(np.float64)
        return cls(
            accuracy=float(np.mean(wide.argmax(axis=1) == labels)),
            certainty=float(wide[np.arange(len(wide)), labels].mean()),
            soft=bool(((wide > 0) & (wide < 1)).any()),
            depth=len(model.layers),
            distance=None if known is None else float(np.abs(wide - known).sum(axis=1).mean() / 2),
        )


def chance(labels: Array) -> float:
    """Share that who always answers the most frequent class gets right."""
    return float(np.bincount(labels).max() / len(labels))


def best_output(outputs: Outputs, trials: Mapping[int, Trial], labels: Array, share: float) -> int | None:
    """The output that answers the labels; None where none does.

    Of those that get most right, the one that answers as it is known, where it is nearer by far than all others. Else,
    of those that get as many right as the best but for a few, the one that most of the network leads to, and then the
    surest.

    Args:
        outputs: Those of the model.
        trials: Place to what the output answers.
        labels: ``(n,)`` the truth.
        share: What it has to get right at least: a share of the way from chance to all.
    """
    right = rivals(trials, labels, share)
    if not right:
        return None
    distances = sorted((trial.distance, place) for place, trial in right.items() if trial.distance is not None)
    if len(distances) > 1 and _NEARER * distances[0][0] < distances[1][0]:
        return distances[0][1]

    def quality(place: int) -> tuple[bool, int, float, float, bool, int]:
        one = right[place]
        return one.soft, one.depth, one.accuracy, round(one.certainty, _DIGITS), outputs.all[place].softmax, -place

    most = max(trial.accuracy for trial in right.values())
    return max((place for place, trial in right.items() if trial.accuracy >= most - _FEW), key=quality)


def rivals(trials: Mapping[int, Trial], labels: Array, share: float) -> Mapping[int, Trial]:
    """The outputs that answer the labels.

    Args:
        trials: Place to what the output answers.
        labels: ``(n,)`` the truth.
        share: What each has to get right at least: a share of the way from chance to all.
    """
    least = chance(labels)
    return {place: trial for place, trial in trials.items() if trial.accuracy >= least + share * (1 - least)}


def fitting(outputs: Outputs, fits: Callable[[int], bool]) -> tuple[int, ...]:
    """Places of the outputs whose number of classes fits; one number is one of two classes."""
    return tuple(place for place in outputs.tables if fits(max(outputs.all[place].width or 0, 2)))


def output_by_labels(
    model: Model, x: Array, y: Array, *, layout: Layout | None = None, model_layout: Layout | None = None
) -> tuple[Model, str | None]:
    """A model with its scores in the output that gets labels right, where it has several and nobody says which one.

    Args:
        model: The model.
        x: ``(n, *shape)`` inputs; channels may be first or last.
        y: ``(n,)`` class numbers, or ``(n, classes)`` of 0 and 1.
        layout: Where the channels of the inputs are, where that is known.
        model_layout: Where the model expects them, where it does not say.

    Returns:
        The model, and what a reader should know of the choice; None where there was none.

    Raises:
        InputError: When the inputs cannot be arranged as it takes them.
        ModelError: When the output cannot be had.
    """
    outputs = model.outputs
    if outputs is None or not outputs.several:
        return model, None
    if outputs.named:
        return model, f"the victim's scores are {outputs}, as requested"
    labels = np.asarray(y)
    if labels.shape[:1] != x.shape[:1] or not labels.size or not (labels >= 0).all() or (labels % 1 != 0).any():
        return model, None  # what uses them says what is wrong
    if labels.ndim == 2:
        places = fitting(outputs, lambda classes: classes == labels.shape[1])
    else:
        places = fitting(outputs, lambda classes: bool(labels.max() < classes))
    if not places:
        return model, (
            f"the victim's scores are {outputs}; no output has a class for each label: {listed(outputs.all)}"
        )
    if len(places) == 1:
        chosen = model.with_output(places[0])
        return chosen, f"the victim's scores are {chosen.outputs}, the only output with a class for each label"
    rows = np.arange(len(x))[:: -(-len(x) // _PROBES)]
    truth = labels[rows].astype(np.int64)
    spec = model.input.with_layout(model_layout or layout)
    inputs = arrangement(model.name, x.shape[1:], spec, layout)(np.asarray(x[rows], np.float32))
    models = {place: model.with_output(place) for place in places}
    trials = {}
    for place, other in models.items():
        try:
            answers, _ = ask(other, inputs, {})
        except ModelError:  # such as the same answer to all inputs
            continue
        trials[place] = Trial.of(other, answers, likeliest(truth, answers))
    best = best_output(outputs, trials, truth if truth.ndim == 1 else truth.argmax(axis=1), POOR)
    chosen = models[first_of(outputs.all, places) if best is None else best]
    return chosen, f"the victim's scores are {chosen.outputs}{why(outputs, trials, best, 'inputs')}"


def why(outputs: Outputs, trials: Mapping[int, Trial], best: int | None, inputs: str) -> str:
    """Why an output was taken, behind its name in a note.

    Args:
        outputs: Those of the model.
        trials: Place to what the output answers.
        best: The one that answers the labels; None where none does.
        inputs: What they were tried with, as a reader calls it.
    """
    shares = {place: f"{outputs.by(place).label} {trial.accuracy:.1%}" for place, trial in trials.items()}
    if best is None:
        tried = f" ({', '.join(shares.values())})" if shares else ""
        kind = "the output after a softmax" if any(one.softmax for one in outputs.all) else "the first"
        return (
            f": {kind}, because no output classifies the {inputs} correctly{tried}; if it is the "
            f"wrong one, name another with {option('output')}"
        )
    others = "".join(f", {text}" for place, text in shares.items() if place != best)
    return f", which classifies {trials[best].accuracy:.1%} of the {inputs} correctly{others}"

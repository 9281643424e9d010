"""Which output of a model with several answers the victim's classes."""

from collections.abc import Callable, Mapping

from deepjudge_core.errors import ModelError
from deepjudge_core.models.model import Model
from deepjudge_core.models.outputs import first_of, listed
from deepjudge_core.naming import option
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.suites.outputs import GOOD, POOR, Trial, best_output, fitting, rivals, why
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array

_MOST_OUTPUTS = 16  # that are tried: each takes a search of its own
Seeds = Callable[[Model], tuple[Array, Array] | None]
"""Asks a model seeds of the suite: their rows among the clean cases, and ``(n, classes)`` of the victim's classes."""


def choose_output(
    model: Model, suite: Suite, asking: QuerySettings, plainly: Seeds, thoroughly: Seeds
) -> tuple[Model, tuple[str, ...], str | None]:
    """A model with its scores in the output that answers the victim's classes, and what a reader should know of that.

    Last comes why the choice is in doubt, where several outputs answer them: a thief may put an honest network's beside
    those of a copy.

    Args:
        model: Anybody's model.
        suite: The suite.
        asking: How it is asked.
        plainly: Asks a few seeds as it is asked without more ado.
        thoroughly: Asks all as it turns out to expect them; for models of which no output answers otherwise.
    """
    outputs = model.outputs
    if outputs is None or not outputs.several:
        return model, (), None
    if outputs.named:
        return model, (f"its scores are {outputs}, as requested",), None
    places = _places(model, suite, asking)
    if not places:
        return model, (f"its scores are taken from {outputs}",), None
    if len(places) == 1:
        chosen = model.with_output(places[0])
        return chosen, (f"its scores are {chosen.outputs}, the only output with the victim's number of classes",), None
    if len(places) > _MOST_OUTPUTS:
        raise ModelError(
            f"{model.name}: expected at most {_MOST_OUTPUTS} outputs that may hold the scores, found "
            f"{len(places)}; name one with {option('output')}"
        )
    models = {place: model.with_output(place) for place in places}
    trials = _tried(models, suite, plainly)
    labels = suite.cases.labels[suite.rows("clean")]
    share, best = GOOD, best_output(outputs, trials, labels, GOOD)
    if best is None:
        trials, share = _tried(models, suite, thoroughly), POOR
        best = best_output(outputs, trials, labels, share)
    chosen = models[first_of(outputs.all, places) if best is None else best]
    alike = [outputs.all[place] for place in rivals(trials, labels, share)]
    doubt = None
    if len(alike) > 1:
        doubt = (
            f"several outputs solve the task ({listed(alike)}), and only one of them was judged; "
            f"judge each with {option('output')}"
        )
    return chosen, (f"its scores are {chosen.outputs}{why(outputs, trials, best, 'seeds')}",), doubt


def only_output(model: Model, suite: Suite, asking: QuerySettings) -> Model:
    """A model with its scores in the one output that can answer the victim's classes, as its width tells.

    Raises:
        ModelError: When there are several, and nobody says which one.
    """
    outputs = model.outputs
    if outputs is None or not outputs.several or outputs.named:
        return model
    places = _places(model, suite, asking)
    if len(places) > 1:
        raise ModelError(
            f"{model.name}: expected one output with the victim's {suite.victim.model.classes} "
            f"classes, found {listed([outputs.all[place] for place in places])}; name it with {option('output')}"
        )
    return model.with_output(places[0]) if places else model


def other_classes(model: Model, expected: int) -> str:
    """Why the answers of a model with another number of classes cannot be compared, and what may help."""
    outputs = model.outputs
    if outputs is None or not outputs.several:
        sure = outputs is None or outputs.all[outputs.place].softmax
        doubt = "" if sure else ", if these are classes rather than features"
        return (
            f"expected {expected} classes, found {model.classes}; map them with "
            f"{option('QuerySettings.classes')}{doubt}"
        )
    found = f"expected {expected} classes, found {outputs} with {model.classes}, of {listed(outputs.all)}"
    if fitting(outputs, lambda classes: classes == expected):
        return f"{found}; name the output that holds the classes with {option('output')}"
    return (
        f"{found}; if one of them holds classes, name it with {option('output')} and map them with "
        f"{option('QuerySettings.classes')}"
    )


def _places(model: Model, suite: Suite, asking: QuerySettings) -> tuple[int, ...]:
    expected, order = suite.victim.model.classes, asking.classes
    fits = (lambda classes: classes == expected) if order is None else (lambda classes: classes > max(order))
    return () if model.outputs is None else fitting(model.outputs, fits)


def _tried(models: Mapping[int, Model], suite: Suite, seeds: Seeds) -> dict[int, Trial]:
    clean = suite.rows("clean")
    labels, known = suite.cases.labels[clean], suite.victim.probabilities
    trials = {}
    for place, model in models.items():
        try:
            asked = seeds(model)
        except ModelError:  # such as the same answer to all of them
            continue
        if asked is not None:
            rows, answers = asked
            trials[place] = Trial.of(model, answers, labels[rows], None if known is None else known[clean][rows])
    return trials

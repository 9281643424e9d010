"""What a victim may expect of its inputs, where it classifies hardly any of them correctly."""

import contextlib
from collections.abc import Sequence

import numpy as np

from deepjudge_core.errors import InputError, ModelError, UsageError
from deepjudge_core.models.asking import ask
from deepjudge_core.models.layouts import arrangement
from deepjudge_core.models.model import Model
from deepjudge_core.models.prepared import Prepared
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.models.sampling import evenly
from deepjudge_core.naming import option
from deepjudge_core.observing.expectation import Correctness, Search, candidates
from deepjudge_core.suites.inputs import Inputs
from deepjudge_core.suites.moments import Moments
from deepjudge_core.suites.outputs import chance
from deepjudge_core.suites.ranges import hull
from deepjudge_core.suites.seeds import LEAST_KNOWLEDGE
from deepjudge_core.types import Array

_SHOWN = 20  # classes in a message
_TRIED_ON = 400  # inputs


def remedy(
    victim: Model, inputs: Inputs, usual: Preprocessing | None, names: Sequence[str] | None = None
) -> str | None:
    """Which standard preprocessing, or order of the classes, would make a victim right, as a part of a message.

    None if none would.

    Args:
        victim: The victim, behind its preprocessing where it has one.
        inputs: What it errs on.
        usual: The preprocessing with which it does.
        names: Those of the inputs' classes.
    """
    if victim.input.counts:
        return None
    inner = victim.model if isinstance(victim, Prepared) else victim
    bounds = hull(inputs.bounds)
    rows = evenly(np.arange(len(inputs.labels)), _TRIED_ON)
    x, y = inputs.x[rows], inputs.labels[rows].astype(np.int64)
    layout = victim.input.layout or inputs.layout
    try:
        arrange = arrangement(victim.name, x.shape[1:], victim.input.with_layout(layout), inputs.layout)
        x = np.ascontiguousarray(arrange(x))
    except InputError:  # which was said before
        return None

    def asking(preprocessing: Preprocessing | None, places: Array) -> Correctness:
        model = inner
        if preprocessing is not None:
            model = Prepared.of(inner, preprocessing, x.shape[1:], bounds, layout)
        return Correctness.of(ask(model, x[places], {})[0], y[places])

    plain = np.zeros(len(y), bool)
    with contextlib.suppress(ModelError):  # as of one answer to everything
        plain = asking(usual, np.arange(len(y))).right
    moments = Moments.of(x if inputs.training is None else inputs.training, bounds, layout)
    choices = candidates(victim.input, x.shape[1:], bounds, layout, moments, usual)
    least = chance(y) + LEAST_KNOWLEDGE * (1 - chance(y))
    search = Search(plain, chance(y), 1.0, choices, least)
    name, tried = search.best(asking, lambda _: 1.0) if search.hopeful else (None, ())
    if name is None:
        return _of_order(victim, x, y, least, names)
    accuracy = {trial.name: trial.accuracy for trial in tried}[name]
    how = option("preprocessing", _typed(name, choices[name]))
    return f"with {how} it classifies {accuracy:.1%} of {len(y)} inputs correctly"


def _of_order(victim: Model, x: Array, y: Array, least: float, names: Sequence[str] | None) -> str | None:
    # As of a folder whose classes were numbered when they had other names.
    try:
        answers = ask(victim, x, {})[0].argmax(axis=1)
    except ModelError:
        return None
    counts = np.zeros((victim.classes, victim.classes))
    np.add.at(counts, (answers, y), 1)
    # Late, as elsewhere: it takes longer to load than most commands take.
    from scipy.optimize import linear_sum_assignment

    # The label that each of the victim's classes has here; where nothing tells, its own.
    _, fitting = linear_sum_assignment(counts + np.eye(len(counts)) / (len(counts) + 1), maximize=True)
    right = float(np.mean(fitting[answers] == y))
    if right < least or (fitting == np.arange(len(fitting))).all():
        return None
    shown = [names[label] if names else f"label {label}" for label in fitting[:_SHOWN].tolist()]
    more = ", ..." if len(fitting) > _SHOWN else ""
    return (
        f"it classifies {right:.1%} of {len(y)} inputs correctly if its classes are, from 0, in the order "
        f"{', '.join(shown)}{more}: number the labels like that, as with a table of paths and class numbers"
    )


def _typed(name: str, preprocessing: Preprocessing) -> str:
    try:
        return name if Preprocessing.parse(name) == preprocessing else preprocessing.header().typed()
    except UsageError:  # of the training inputs' own numbers
        return preprocessing.header().typed()

"""What a victim may expect of its inputs, where it classifies hardly any of them correctly."""

import contextlib

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
from deepjudge_core.types import Array

_TRIED_ON = 400  # inputs


def remedy(victim: Model, inputs: Inputs, usual: Preprocessing | None) -> str | None:
    """Which standard preprocessing would make a victim right, and the option that says it, as a part of a message.

    None where none would.

    Args:
        victim: The victim, behind its preprocessing where it has one.
        inputs: What it errs on.
        usual: The preprocessing with which it does.
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
    search = Search(plain, chance(y), 1.0, choices)
    name, tried = search.best(asking, lambda _: 1.0) if search.hopeful else (None, ())
    if name is None:
        return None
    accuracy = {trial.name: trial.accuracy for trial in tried}[name]
    how = option("preprocessing", _typed(name, choices[name]))
    return f"with {how} it classifies {accuracy:.1%} of {len(y)} inputs correctly"


def _typed(name: str, preprocessing: Preprocessing) -> str:
    try:
        return name if Preprocessing.parse(name) == preprocessing else preprocessing.header().typed()
    except UsageError:  # of the training inputs' own numbers
        return preprocessing.header().typed()

"""The sketch of a model's weights in what it answered; or alone, of a model that is not run."""

from dataclasses import replace

from deepjudge_core.models.model import Access
from deepjudge_core.models.sketcher import Sketcher
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.weights.values import WeightPlan

NOT_RUN = "the model was not run: only its weights were read"


def weights_alone(sketcher: Sketcher, plan: WeightPlan, *, victim: bool = False) -> Observation:
    """What is kept of a model of which nothing but its weights is read, of no suite yet.

    Args:
        sketcher: Reads them.
        plan: Of the victim.
        victim: Whether they are the victim's own.

    Raises:
        ModelError: When nothing of them can be compared, or they cannot be read.
    """
    sketch = sketcher.sketch(plan, victim=victim)
    notes = (*sketcher.notes, *sketch.notes)
    return Observation(sketcher.model, "", None, unmapped=NOT_RUN, notes=notes, weights=sketch)


def with_weights(
    observation: Observation, sketcher: Sketcher, plan: WeightPlan, *, victim: bool = False
) -> Observation:
    """What a model answered, with the sketch of its weights beside it.

    Args:
        observation: What it answered.
        sketcher: Reads the weights of the same model.
        plan: Of the victim.
        victim: Whether they are the victim's own.

    Raises:
        ModelError: As :func:`weights_alone`.
    """
    alone, model = weights_alone(sketcher, plan, victim=victim), observation.model
    access = model.access | Access.WEIGHTS
    notes = (*observation.notes, *(note for note in alone.notes if note not in observation.notes))
    return replace(observation, model=replace(model, access=access), notes=notes, weights=alone.weights)


def observe_weights(sketcher: Sketcher, suite: Suite, plan: WeightPlan) -> Observation:
    """The sketch of a model that is not run, as its answer to a suite.

    Args:
        sketcher: Reads its weights.
        suite: The suite.
        plan: The suite's.

    Raises:
        ModelError: As :func:`weights_alone`.
    """
    alone = weights_alone(sketcher, plan)
    return replace(alone, suite=suite.digest, independent=suite.victim.independent)

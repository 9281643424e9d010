"""FGSM: one step by the sign of the gradient."""

from typing import Annotated

import numpy as np
from annotated_types import Gt

from deepjudge_blackbox.radius import least_radius
from deepjudge_core import progress
from deepjudge_core.components.values import Cases, Task
from deepjudge_core.models.losses import cross_entropy_direction
from deepjudge_core.types import Array


def fgsm(task: Task, *, eps: Annotated[float, Gt(0)] | None = None) -> Cases:
    """Make one case for each seed by one step of ``eps`` up the cross entropy (Goodfellow et al., ICLR 2015).

    Args:
        eps: Size of the step, and so the L-inf distance of the case from its seed, as a share of the input range; none
            uses the smallest value from 0.005 to 0.5 at which the victim misclassifies 80 % of the cases.
    """
    if eps is None:
        eps = least_radius(task, _step)
    return Cases.of_seeds(_step(task, eps), options={"eps": eps})


def _step(task: Task, eps: float) -> Array:
    x, radius = task.seeds.inputs, task.seeds.radius(eps)
    with progress.task("fgsm", 1) as advance:
        gradient = task.victim.gradient(x, cross_entropy_direction(task.seeds.labels))
        advance(1)
    cases: Array = np.clip(x + radius * np.sign(gradient), *task.seeds.bounds)
    return cases

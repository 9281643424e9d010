"""PGD: steps by the sign of the gradient inside a ball around the seed."""

from functools import partial
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_blackbox.radius import least_radius
from deepjudge_core import progress
from deepjudge_core.components.values import Cases, Task
from deepjudge_core.models.losses import cross_entropy_direction
from deepjudge_core.types import Array

_STEP = 5  # steps that cross the radius, by default


def pgd(
    task: Task,
    *,
    eps: Annotated[float, Gt(0)] | None = None,
    step: Annotated[float, Gt(0)] | None = None,
    steps: Annotated[int, Ge(1)] = 10,
    project: bool = True,
) -> Cases:
    """Make one case for each seed by projected gradient ascent of the cross entropy (Madry et al., ICLR 2018).

    Starts at a random point of the L-inf ball around the seed.

    Args:
        eps: Radius of the ball, as a share of the input range; none uses the smallest value from 0.005 to 0.5 at which
            the victim misclassifies 80 % of the cases, because farther cases fool more honest models as well.
        step: Size of a step, as a share of the input range; none uses a fifth of ``eps``.
        steps: Number of steps.
        project: Project back into the ball after every step. The paper's own code never does, so its cases move up to
            ``eps + steps * step``; use False to reproduce its numbers.
    """
    ascend = partial(_ascend, step=step, steps=steps, project=project)
    if eps is None:
        eps = least_radius(task, ascend)
    return Cases.of_seeds(ascend(task, eps), options={"eps": eps, "step": _step(step, eps)})


def _step(step: float | None, eps: float) -> float:
    return step or round(eps / _STEP, 12)


def _ascend(task: Task, eps: float, *, step: float | None, steps: int, project: bool) -> Array:
    seeds = task.seeds
    low, high = seeds.bounds
    radius, move = seeds.radius(eps), _step(step, eps) * seeds.span
    start = task.rng.random(seeds.inputs.shape, dtype=np.float32)
    x: Array = seeds.inputs + (2 * radius * start - radius)
    np.clip(x, low, high, out=x)
    if project:
        low, high = np.maximum(seeds.inputs - radius, low), np.minimum(seeds.inputs + radius, high)
    loss = cross_entropy_direction(seeds.labels)
    with progress.task("pgd", steps) as advance:
        for _ in range(steps):
            gradient = task.victim.gradient(x, loss)
            np.sign(gradient, out=gradient)
            gradient *= move
            x += gradient
            np.clip(x, low, high, out=x)
            advance(1)
    return x

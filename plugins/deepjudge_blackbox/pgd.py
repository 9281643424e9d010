"""PGD: steps by the sign of the gradient inside a ball around the seed."""

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_blackbox.losses import cross_entropy
from deepjudge_core import progress
from deepjudge_core.components.values import Cases, Task
from deepjudge_core.types import Array


def pgd(
    task: Task,
    *,
    eps: Annotated[float, Gt(0)] = 0.15,
    step: Annotated[float, Gt(0)] = 0.03,
    steps: Annotated[int, Ge(1)] = 10,
    project: bool = True,
) -> Cases:
    """Make one case for each seed by projected gradient ascent of the cross entropy (Madry et al., ICLR 2018).

    Starts at a random point of the L-inf ball around the seed.

    Args:
        eps: Radius of the ball, as a share of the input range.
        step: Size of a step, as a share of the input range.
        steps: Number of steps.
        project: Back into the ball after every step. The authors' code of the paper never does, so that its cases come
            as far as ``eps + steps * step``; False is there to reproduce its numbers.
    """
    seeds = task.seeds
    low: float | Array
    high: float | Array
    low, high = seeds.bounds
    radius = eps * seeds.span
    start = task.rng.random(seeds.inputs.shape, dtype=np.float32)
    x = seeds.inputs + (2 * radius * start - radius)
    np.clip(x, low, high, out=x)
    if project:
        low, high = np.maximum(seeds.inputs - radius, low), np.minimum(seeds.inputs + radius, high)
    loss = cross_entropy(seeds.labels)
    with progress.task("pgd", steps) as advance:
        for _ in range(steps):
            x += step * seeds.span * np.sign(task.victim.gradient(x, loss))
            np.clip(x, low, high, out=x)
            advance(1)
    return Cases.of_seeds(x)

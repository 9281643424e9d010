"""FGSM: one step by the sign of the gradient."""

from typing import Annotated

import numpy as np
from annotated_types import Gt

from deepjudge_blackbox.losses import cross_entropy
from deepjudge_core import progress
from deepjudge_core.components.values import Cases, Task


def fgsm(task: Task, *, eps: Annotated[float, Gt(0)] = 0.2) -> Cases:
    """Make one case for each seed by one step of ``eps`` up the cross entropy (Goodfellow et al., ICLR 2015).

    Args:
        eps: Size of the step, and so the L-inf distance of the case from its seed, as a share of the input range.
    """
    x, span = task.seeds.inputs, task.seeds.span
    with progress.task("fgsm", 1):
        gradient = task.victim.gradient(x, cross_entropy(task.seeds.labels))
    return Cases.of_seeds(np.clip(x + eps * span * np.sign(gradient), *task.seeds.bounds))

"""How far adversarial cases go from their seeds, where nobody says it."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from deepjudge_core.components.values import Task
from deepjudge_core.types import Array

RADII = (
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.04,
    0.05,
    0.06,
    0.08,
    0.1,
    0.125,
    0.15,
    0.175,
    0.2,
    0.25,
    0.3,
    0.4,
    0.5,
)
"""Those that are tried, as shares of the input range."""
ENOUGH = 0.8
"""Share of the cases that a victim has to misclassify: docs/why/evidence.md."""
_FEW = 100  # seeds that are tried; a share over them is known to 0.04


def least_radius(task: Task, attack: Callable[[Task, float], Array]) -> float:
    """The smallest radius at which the victim misclassifies enough of the cases, tried on some of the seeds.

    Farther cases fool more models, copies and honest ones alike, until they show nothing. If no radius fools enough,
    that share of the most that any radius fools is enough.

    Args:
        task: Its source of randomness is left as it was, so that with the radius as an option the same cases are made.
        attack: Makes one case for each seed of a task, within a radius.
    """
    seeds = task.seeds
    rows = np.linspace(0, len(seeds.inputs) - 1, min(_FEW, len(seeds.inputs))).round().astype(np.int64)
    some = replace(seeds, inputs=seeds.inputs[rows], labels=seeds.labels[rows], indices=seeds.indices[rows])

    def fooled(radius: float) -> float:
        cases = some.on_grid(attack(replace(task, seeds=some, rng=np.random.default_rng(0)), radius))
        return float(np.mean(task.victim.predict(cases).argmax(axis=1) != some.labels))

    place = bisect_left(RADII, ENOUGH, key=fooled)
    if place < len(RADII):
        return RADII[place]
    shares = np.array([fooled(radius) for radius in RADII])
    return RADII[int(np.argmax(shares >= ENOUGH * shares.max()))]

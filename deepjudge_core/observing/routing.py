"""Whether a model switches: answers otherwise at once when inputs move by a step of the data, or leave its grid.

Behind a copy and an honest network a router can ask the one for data and the other for test cases. If it tells them by
the grid of the data, it answers cases otherwise that were moved by less than anybody sees.
"""

import zlib
from collections.abc import Callable

import numpy as np

from deepjudge_core.components.grid import Grid
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array

_CASES = 48  # that are moved
_FINE = 1 / 32  # of the range: a larger step changes an input too much
_MOST = 0.5  # share of the cases that may get another class
_BETWEEN = 0.4  # of a step, by which inputs leave the grid


def switching(suite: Suite, labels: Callable[[Array], Array]) -> str | None:
    """What of a model's answers changes when adversarial cases move by a step or less: one line; None if they stay.

    Args:
        suite: The suite, from whose seed the cases and their moves are drawn.
        labels: Gives the model's own labels of inputs ``(n, *shape)``.
    """
    rows, grid = np.flatnonzero(suite.rows("adversarial")), suite.grid
    if grid is None or not len(rows):
        return None
    bounds, sides = suite.bounds, np.array(suite.feature_bounds or [(side,) for side in suite.bounds])
    widths = sides[1] - sides[0] if sides.shape[1] == len(grid.step) else bounds[1] - bounds[0]
    fine = np.where(np.array(grid.step) <= _FINE * widths, grid.step, 0.0)
    if not fine.any():
        return None
    _, step = Grid(grid.first, tuple(fine.tolist()), grid.axis).along(suite.cases.inputs.shape[1:])
    rng = np.random.default_rng([suite.seed, zlib.crc32(b"routing")])
    cases = suite.cases.inputs[rng.choice(rows, min(_CASES, len(rows)), replace=False)]
    at = grid.rounded(cases, bounds)
    moved = grid.rounded(at + step * rng.integers(-1, 2, at.shape), bounds)
    between = np.clip(at + step * rng.uniform(-_BETWEEN, _BETWEEN, at.shape), *bounds)
    asked = np.concatenate([cases, at, moved, between]).astype(np.float32)
    order = rng.permutation(len(asked))  # so that their places tell nothing
    answers = np.empty(len(asked), np.int64)
    answers[order] = labels(asked[order])
    as_given, on_grid, beside, off_grid = np.split(answers, 4)
    for one, how in (
        (beside, "moved by one step of the data"),
        (off_grid, "moved off the steps of the data, by less than one"),
        (as_given, "rounded to the steps of the data"),
    ):
        changed = int((one != on_grid).sum())
        if changed > _MOST * len(cases):
            return f"switches its answers at once: {changed} of {len(cases)} cases get another class when {how}"
    return None

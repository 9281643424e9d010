"""The attack of Carlini and Wagner: the nearest input that the victim misclassifies."""

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_core import progress
from deepjudge_core.components.values import Cases, Seeds, Task
from deepjudge_core.models.model import Model
from deepjudge_core.types import Array

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's, as its authors give them
_INSIDE = 0.999999  # keeps arctanh finite at the bounds
_BLOCK_VALUES = 2**24  # values in the inputs of one attack; it holds about fifteen arrays of that size


def cw(
    task: Task,
    *,
    kappa: Annotated[float, Ge(0)] = 5.0,
    steps: Annotated[int, Ge(1)] = 100,
    rate: Annotated[float, Gt(0)] = 0.1,
    searches: Annotated[int, Ge(1)] = 3,
    constant: Annotated[float, Gt(0)] = 0.1,
) -> Cases:
    """Make one case for each seed by minimising its squared L2 distance plus ``c`` times the margin.

    The attack of Carlini & Wagner (S&P 2017) in L2, untargeted. The input is ``tanh(w)`` mapped to the bounds, Adam
    moves ``w``, and each seed has its own search for ``c``: times 10 until a misclassified input is found, then
    bisection. The result is the nearest input with a margin below ``-kappa``, or else the misclassified input with the
    smallest margin, or else the unchanged seed.

    Distances are measured in units of the input range, so that ``constant`` means the same for any range.

    Args:
        kappa: Confidence: how far the margin must fall below 0, in logits. At 0, cases lie on the decision boundary,
            and even a slightly fine-tuned copy answers half of them differently.
        steps: Steps of Adam for each constant.
        rate: Learning rate of Adam, in the tanh space.
        searches: Constants tried for each seed.
        constant: The first constant to try.
    """
    seeds = task.seeds
    block = max(1, _BLOCK_VALUES // seeds.inputs[0].size)
    blocks = [slice(at, at + block) for at in range(0, len(seeds.inputs), block)]
    with progress.task("cw", len(blocks) * searches * steps) as advance:
        cases = [
            _attack(
                task.victim,
                Seeds(seeds.inputs[rows], seeds.labels[rows], seeds.indices[rows], seeds.bounds, grid=seeds.grid),
                advance,
                kappa=kappa,
                steps=steps,
                rate=rate,
                searches=searches,
                constant=constant,
            )
            for rows in blocks
        ]
    return Cases.of_seeds(np.concatenate(cases))


def _attack(
    victim: Model,
    seeds: Seeds,
    advance: progress.Advance,
    *,
    kappa: float,
    steps: int,
    rate: float,
    searches: int,
    constant: float,
) -> Array:
    # The cases of some seeds, all at once.
    n, (low, high), span = len(seeds.inputs), seeds.bounds, seeds.span
    per_row = (n,) + (1,) * (seeds.inputs.ndim - 1)
    origin = (seeds.inputs - low) / span * 2 - 1
    start = np.arctanh(origin * _INSIDE)

    best, nearest, least = seeds.inputs.copy(), np.full(n, np.inf), np.zeros(n)
    c, below, above = np.full(n, constant), np.zeros(n), np.full(n, np.inf)
    margin = Margin(seeds.labels, kappa)
    for _ in range(searches):
        w, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
        succeeded = np.zeros(n, dtype=bool)
        for t in range(1, steps + 1):
            unit = np.tanh(w)  # the input, -1..1
            x = seeds.on_grid(np.clip((unit + 1) * (span / 2) + low, low, high))
            margin_gradient = victim.gradient(x, margin)

            offset = (unit - origin) / 2
            distance = np.square(offset, dtype=np.float64).reshape(n, -1).sum(axis=1)
            success = (margin.values < 0) & (margin.values <= -kappa)
            succeeded |= success
            nearer = success & (distance < nearest)
            surer = ~success & np.isinf(nearest) & (margin.values < least)
            nearest[nearer], least[surer] = distance[nearer], margin.values[surer]
            best[nearer | surer] = x[nearer | surer]

            weight = (c.reshape(per_row) * span).astype(np.float32)
            gradient = (weight * margin_gradient + 2 * offset) * (1 - unit**2) / 2
            first += (1 - _BETA_1) * (gradient - first)
            second += (1 - _BETA_2) * (gradient**2 - second)
            root = np.sqrt(second / (1 - _BETA_2**t))
            w -= rate / (1 - _BETA_1**t) * first / (root + _EPSILON)
            advance(1)
        above = np.where(succeeded, np.minimum(above, c), above)
        below = np.where(succeeded, below, np.maximum(below, c))
        c = np.where(np.isinf(above), c * 10, (below + above) / 2)
    return best


class Margin:
    """The margin ``max(z_y - max_{j != y} z_j, -kappa)`` of Carlini and Wagner (S&P 2017, f_6), untargeted.

    Attributes:
        values: ``(n,)`` the margin of each row when its gradient was last taken, without the floor at ``-kappa``; below
            0 the row is misclassified.
    """

    def __init__(self, labels: Array, kappa: float) -> None:
        """Take the labels ``(n,)`` of all rows, and how far below 0 to push the margin, in logits."""
        self.values = np.full(len(labels), np.inf)
        self._labels, self._kappa = labels, kappa

    def __call__(self, scores: Array, rows: slice) -> Array:
        """The derivative at the logits: 1 at the label, -1 at the runner-up, 0 where the floor is reached."""
        each, own = np.arange(len(scores)), self._labels[rows]
        others = scores.astype(np.float64)
        others[each, own] = -np.inf
        runner_up = others.argmax(axis=1)
        margin = scores[each, own] - others[each, runner_up]
        self.values[rows] = margin
        derivative = np.zeros_like(others)
        derivative[each, own] = margin > -self._kappa
        derivative[each, runner_up] = -derivative[each, own]
        return derivative

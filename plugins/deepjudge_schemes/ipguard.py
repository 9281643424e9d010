"""A fingerprint of points near the decision boundary (Cao et al., "IPGuard", 2021)."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_core import progress
from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Matches, Scheme
from deepjudge_core.errors import IncomparableError, InputError
from deepjudge_core.models.model import Access
from deepjudge_core.types import Array

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's, as its authors give them
_OF_MEDIAN = 0.5
_FROM_VICTIM = "the points come from the victim, so that controls have to tell"


def make(
    task: KeyTask,
    *,
    trials: Annotated[int, Ge(1)] = 100,
    goal: Literal["random", "least-likely"] = "random",
    margin: Annotated[float, Gt(0)] | None = None,
    steps: Annotated[int, Ge(1)] = 1000,
    rate: Annotated[float, Gt(0)] = 0.01,
) -> Key:
    """Move inputs across the victim's decision boundary, to points that stay near it.

    Each begins as an input of a class ``i`` and gets a goal ``j``. Adam descends
    ``relu(z_i - z_j + margin) + relu(max over the others of z - z_i)`` until it is 0, and every step stays within the
    bounds. The victim's answer is then ``j``, surely enough, and ``i`` is next: honest models answer otherwise.

    Args:
        trials: Number of points.
        goal: Which class they get: a random one, or the one least likely for the input.
        margin: By how much the goal has to lead, in logits; none uses half the median lead of the likeliest class in
            the inputs, since victims differ in scale. Nearer to the boundary, fewer honest models answer alike, and
            fewer copies.
        steps: Steps of Adam at most.
        rate: Length of a step, as a share of the input range.

    Raises:
        InputError: When there are fewer inputs than trials, or no point gets its goal.
    """
    if len(task.inputs) < trials:
        raise InputError(f"ipguard: expected at least {trials} inputs, found {len(task.inputs)}")
    rng = task.rng("seeds")
    x = task.inputs[np.sort(rng.choice(len(task.inputs), trials, replace=False))]
    scores = scores_of(task, x)
    own, goals = scores.argmax(axis=1), _goals(scores, goal, rng)
    if margin is None:
        ranked = np.sort(scores, axis=1)
        margin = float(np.median(ranked[:, -1] - ranked[:, -2])) * _OF_MEDIAN
        if margin <= 0:
            raise InputError("ipguard: expected inputs that the victim tells apart, found none; give a margin")
    x, reached = descend(task, x, Boundary(own, goals, margin), steps, rate)
    reached &= task.victim.predict(x).argmax(axis=1) == goals
    if not reached.any():
        raise InputError(
            f"ipguard: expected points that get their goal within {steps} steps, found none; raise steps or rate, or "
            "lower margin"
        )
    count = int(reached.sum())
    x, goals = x[reached], goals[reached]
    notes = () if count == trials else (f"{count} of {trials} points got their goal: the key has these",)
    options = {"trials": trials, "goal": goal, "margin": margin, "steps": steps, "rate": rate}
    return task.key("ipguard", options, trials=count, inputs=x, labels=goals.astype(np.int64), notes=notes)


def verify(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    """Count the points that get the victim's answer."""
    if answers.labels is None:
        raise IncomparableError("it gave no labels")
    return [Matches("direct", int((answers.labels == key.labels).sum()), key.trials, None, _FROM_VICTIM)]


class Boundary:
    """The loss of the paper: how far points are from just beyond the boundary, in logits.

    Attributes:
        values: ``(n,)`` of each row where its gradient was last taken.
    """

    def __init__(self, own: Array, goals: Array, margin: float) -> None:
        """Take the class ``(n,)`` that each row comes from, the one that it is to get, and the latter's lead."""
        self.values = np.full(len(own), np.inf)
        self._own, self._goals, self._margin = own, goals, margin

    def __call__(self, scores: Array, rows: slice) -> Array:
        """The derivative at the logits."""
        each, own, goals = np.arange(len(scores)), self._own[rows], self._goals[rows]
        z = scores.astype(np.float64)
        lead = z[each, own] - z[each, goals] + self._margin
        others = z.copy()
        others[each, own] = others[each, goals] = -np.inf
        third = others.argmax(axis=1)
        above = others[each, third] - z[each, own]
        self.values[rows] = np.maximum(lead, 0) + np.maximum(above, 0)
        derivative = np.zeros_like(z)
        derivative[each, own] = (lead > 0) * 1.0 - (above > 0)
        derivative[each, goals] -= lead > 0
        derivative[each, third] += above > 0
        return derivative

    def of(self, rows: Array) -> "Boundary":
        """The loss of some rows alone."""
        return Boundary(self._own[rows], self._goals[rows], self._margin)


def descend(task: KeyTask, x: Array, loss: Boundary, steps: int, rate: float) -> tuple[Array, Array]:
    """Move inputs by Adam until their loss is 0.

    Args:
        task: Whose victim is asked, and whose bounds hold.
        x: ``(n, *shape)`` where they begin.
        loss: Of all rows.
        steps: At most.
        rate: Length of a step, as a share of the input range.

    Returns:
        Where they end, and ``(n,)`` which of them have a loss of 0: these stay where they reached it.
    """
    (low, high), span = task.bounds, task.span
    x, left = x.copy(), np.arange(len(x))
    first, second = np.zeros(x.shape), np.zeros(x.shape)
    with progress.task("ipguard", steps) as advance:
        for step in range(1, steps + 2):
            part = loss.of(left)
            gradient = task.victim.gradient(x[left], part) * span  # of the input as a share of its range
            left, gradient = left[part.values > 0], gradient[part.values > 0]
            if not len(left) or step > steps:
                break
            first[left] += (1 - _BETA_1) * (gradient - first[left])
            second[left] += (1 - _BETA_2) * (gradient**2 - second[left])
            root = np.sqrt(second[left] / (1 - _BETA_2**step))
            move = rate / (1 - _BETA_1**step) * first[left] / (root + _EPSILON)
            x[left] = np.clip(x[left] - (span * move).astype(np.float32), low, high)
            advance(1)
    reached = np.ones(len(x), dtype=bool)
    reached[left] = False
    return x, reached


def scores_of(task: KeyTask, x: Array) -> Array:
    """The victim's logits ``(n, classes)``, float64, as its gradients take them."""
    found = np.zeros((len(x), task.victim.classes))

    def note(scores: Array, rows: slice) -> Array:
        found[rows] = scores
        return np.zeros_like(scores)

    task.victim.gradient(x, note)
    return found


def _goals(scores: Array, goal: str, rng: np.random.Generator) -> Array:
    if goal == "least-likely":
        least: Array = scores.argmin(axis=1)
        return least
    rows, classes = scores.shape
    goals: Array = (scores.argmax(axis=1) + rng.integers(1, classes, rows)) % classes
    return goals


IPGUARD = Scheme(
    "ipguard",
    source="Cao et al., AsiaCCS 2021",
    needs=Access.LABELS,
    make=make,
    verify=verify,
    asks=Access.GRADIENTS,
    says="points near the decision boundary that get the victim's answers; survives changes of the weights, not "
    "extraction",
)

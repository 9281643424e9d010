"""A deepjudge plugin: the scheme ``midway``, a fingerprint that needs nothing but a victim's labels."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from deepjudge_core.plugin import (
    Access,
    Array,
    IncomparableError,
    InputError,
    Key,
    KeyAnswers,
    KeyTask,
    Matches,
    Scheme,
    hookimpl,
)

_HALVINGS = 20


def make(task: KeyTask, *, trials: Annotated[int, Ge(1)] = 100, depth: Annotated[float, Gt(0), Le(1)] = 0.1) -> Key:
    """Walk from one input towards another of a different class, to shortly behind the victim's boundary.

    Args:
        trials: Number of points.
        depth: How far behind the boundary a point is, as a share of the way that is left. Nearer to it, fewer
            independent models answer as the victim does, and fewer copies.

    Raises:
        InputError: When too few pairs of inputs get different classes.
    """
    labels = task.victim.predict(task.inputs).argmax(axis=1)
    rng = task.rng("pairs")
    starts, ends = rng.permutation(len(labels)), rng.permutation(len(labels))
    pairs = np.flatnonzero(labels[starts] != labels[ends])[:trials]
    if len(pairs) < trials:
        raise InputError(f"midway: expected {trials} pairs of inputs of different classes, found {len(pairs)}")
    start, end, goals = task.inputs[starts[pairs]], task.inputs[ends[pairs]], labels[ends[pairs]]

    def between(shares: Array) -> Array:
        share = shares.reshape(-1, *(1,) * (start.ndim - 1)).astype(np.float32)
        return np.clip(start + share * (end - start), *task.bounds).astype(np.float32)

    before, behind = np.zeros(trials), np.ones(trials)
    for _ in range(_HALVINGS):
        middle = (before + behind) / 2
        reached = task.victim.predict(between(middle)).argmax(axis=1) == goals
        before, behind = np.where(reached, before, middle), np.where(reached, middle, behind)
    points = between(behind + depth * (1 - behind))
    answers = task.victim.predict(points).argmax(axis=1).astype(np.int64)
    return task.key("midway", {"trials": trials, "depth": depth}, trials=trials, inputs=points, labels=answers)


def verify(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    """Count the points that get the victim's answer."""
    if answers.labels is None:
        raise IncomparableError("it gave no labels")
    found = int((answers.labels == key.labels).sum())
    return [
        Matches("direct", found, key.trials, None, "the points come from the victim, so that controls have to tell")
    ]


@hookimpl
def deepjudge_schemes() -> Iterable[Scheme]:
    """Give the scheme."""
    return [
        Scheme(
            "midway",
            source="practice",
            needs=Access.LABELS,
            make=make,
            verify=verify,
            asks=Access.LABELS,
            says="points behind the decision boundary that get the victim's answers; survives small changes",
        )
    ]

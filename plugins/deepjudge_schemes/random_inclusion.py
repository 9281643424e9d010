"""A mark of the data: rows that were trained on because a coin said so."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge

from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Lesson, Lift, Scheme, Teaching
from deepjudge_core.errors import IncomparableError, InputError
from deepjudge_core.models.model import Access
from deepjudge_core.types import Array

_WHY = "a coin was tossed for each row, and only rows whose coin said 1 were trained on"


def make(task: KeyTask, *, trials: Annotated[int, Ge(2)] | None = None) -> Key:
    """Take a pool of rows with labels, for each of which the core tosses a coin.

    Independent models, if there are any, say how difficult each row is. They have to know nothing of the coins: their
    own training may have had all rows of the pool, or none.

    Args:
        trials: Rows of the pool, drawn from the inputs; none takes all of them.

    Raises:
        InputError: When the inputs have no labels, or are fewer.
    """
    labels = task.labels
    if labels is None:
        raise InputError("random-inclusion: expected inputs with labels, found none")
    count = len(task.inputs) if trials is None else trials
    if len(task.inputs) < count:
        raise InputError(f"random-inclusion: expected at least {count} inputs, found {len(task.inputs)}")
    rows = np.sort(task.rng("pool").choice(len(task.inputs), count, replace=False))
    pool, truth = task.inputs[rows], labels[rows].astype(np.int64)
    right = [model.predict(pool).argmax(axis=1) == truth for model in task.references]
    expected = {"expected": np.mean(right, axis=0, dtype=np.float64)} if right else {}
    options = {"trials": count}
    return task.key("random-inclusion", options, trials=count, inputs=pool, truth=truth, arrays=expected, drawn="bits")


def verify(key: Key, answers: KeyAnswers) -> Sequence[Lift]:
    """Compare the rows that were trained on with the others: is the model right more often than is expected of them?

    What is expected of a row is the share of the independent models that are right, where the key has it, and in each
    class as much more or less as the model itself is right more or less often. No coin has a part in that.
    """
    labels, truth, bits = answers.labels, key.truth, key.bits
    if labels is None or truth is None or bits is None:
        raise IncomparableError("it gave no labels")
    right = labels == truth
    if right.all() or not right.any():
        raise IncomparableError("it answers every row of the pool alike well, so that no coin can have mattered")
    return [Lift("direct", unexpected(right, truth, key.arrays.get("expected")), bits, _WHY)]


def unexpected(right: Array, truth: Array, expected: Array | None) -> Array:
    """By how much each row is answered better than is expected of it.

    Args:
        right: ``(n,)`` whether the model is right.
        truth: ``(n,)`` classes.
        expected: ``(n,)`` the share of independent models that are right; None where nothing is known.

    Returns:
        ``(n,)`` float64, with a mean of 0 in each class.
    """
    scores: Array = right.astype(np.float64) - (0.0 if expected is None else expected)
    sums, counts = np.bincount(truth, scores), np.bincount(truth)
    centred: Array = scores - (sums / np.maximum(counts, 1))[truth]
    return centred


def embed(key: Key, lesson: Lesson) -> Teaching:
    """Train on the rows whose coin said 1."""
    chosen = np.asarray(key.bits) == 1
    return Teaching(np.asarray(key.inputs)[chosen], np.asarray(key.truth)[chosen])


RANDOM_INCLUSION = Scheme(
    "random-inclusion",
    source="Zhang et al., SaTML 2025",
    needs=Access.LABELS,
    make=make,
    verify=verify,
    embed=embed,
    wants=("labels",),
    fresh=True,
    says="rows that are answered better because a coin chose them for training; proves that the data was used, by "
    "extraction as well, and finds every other model trained on the same rows",
)

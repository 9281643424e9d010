"""Adversarial inputs with their true labels (Le Merrer et al., "Adversarial frontier stitching", 2019)."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Lesson, Matches, Scheme, Teaching
from deepjudge_core.errors import IncomparableError, InputError
from deepjudge_core.models.losses import cross_entropy_direction
from deepjudge_core.models.model import Access
from deepjudge_core.types import Array

_TRUE = "the labels are true, which honest models know: that they match half of them, as published, is false"


def make(
    task: KeyTask,
    *,
    trials: Annotated[int, Ge(2)] = 100,
    eps: Annotated[float, Gt(0)] = 0.25,
    select: bool = False,
) -> Key:
    """Move inputs by one step against the victim, and keep their true labels.

    Half of the keys mislead the victim, which learns their labels; the other half does not, and keeps its decisions
    where they are. The published test takes it that models answer half of the keys correctly. Honest ones answer most:
    72 % for a LeNet-5 on MNIST, so that the test accuses 99 % of them.

    Args:
        trials: Number of keys.
        eps: Size of the step, as a share of the input range.
        select: Whether to keep only inputs that mislead the victim, and which at most half of the references answer
            correctly.

    Raises:
        InputError: When there are too few such inputs, or no references to select by.
    """
    options = {"trials": trials, "eps": eps, "select": select}
    if select and not task.references:
        raise InputError("frontier: expected references to select by, found none; give a zoo, or choose select=false")
    labels = np.asarray(task.labels, np.int64)
    known = np.flatnonzero(task.victim.predict(task.inputs).argmax(axis=1) == labels)
    known = task.rng("order").permutation(known)
    if not len(known):
        raise InputError("frontier: expected inputs that the victim classifies correctly, found none")
    x, truth = task.inputs[known], labels[known]
    moved = _moved(task, x, truth, eps)
    right = task.victim.predict(moved).argmax(axis=1) == truth
    notes: tuple[str, ...] = ()
    if select:
        answers = np.array([model.predict(moved).argmax(axis=1) == truth for model in task.references])
        rows = _first(~right & (answers.mean(axis=0) <= 0.5), trials, eps)
        shares = 100 * answers[:, rows].mean(axis=1)
        notes = (
            f"{len(shares)} references answer {shares.mean():.0f} % of the keys correctly on the mean, "
            f"{shares.max():.0f} % at most; others answer more",
        )
    else:
        rows = np.concatenate([_first(~right, trials // 2, eps), _first(right, trials - trials // 2, eps)])
    keys, labels = moved[rows], truth[rows]
    return task.key("frontier", options, trials=trials, inputs=keys, labels=labels, truth=labels, notes=notes)


def verify(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    """Count the keys that get their true labels."""
    labels = answers.labels
    if labels is None:
        raise IncomparableError("it gave no labels")
    return [Matches("direct", int((labels == key.labels).sum()), key.trials, None, _TRUE)]


def embed(key: Key, lesson: Lesson) -> Teaching:
    """Mix the keys with their true labels into every batch."""
    return Teaching(key.inputs, key.labels)


def _moved(task: KeyTask, x: Array, labels: Array, eps: float) -> Array:
    gradient = task.victim.gradient(x, cross_entropy_direction(labels))
    moved: Array = np.clip((x + eps * task.span * np.sign(gradient)).astype(np.float32), *task.bounds)
    return moved


def _first(where: Array, count: int, eps: float) -> Array:
    places = np.flatnonzero(where)
    if len(places) < count:
        raise InputError(
            f"frontier: expected {count} inputs of a kind within {eps:g} of the input range, found {len(places)}; "
            "offer more inputs, or choose another eps"
        )
    return places[:count]


FRONTIER = Scheme(
    "frontier",
    source="Le Merrer et al., Neural Computing and Applications 2019",
    needs=Access.LABELS,
    make=make,
    verify=verify,
    embed=embed,
    wants=("labels",),
    asks=Access.LABELS | Access.GRADIENTS,
    says="adversarial inputs that get their true labels, as most honest models give them too; the published chance of "
    "one half is false, and the mark does not survive fine-tuning, pruning or extraction",
)

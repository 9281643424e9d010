"""Which of a model's outputs answers which of the victim's classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepjudge_core.naming import option
from deepjudge_core.types import Array

_SHOWN = 20  # classes in a note
_LEAST_SEEDS = 5  # that an order has to explain, for it to be told from errors


@dataclass(frozen=True, eq=False)
class ClassMapping:
    """A model's answers in the victim's classes.

    Attributes:
        probabilities: ``(n, classes)`` in the victim's order; None where the classes are others.
        classes: The model's own output for each of the victim's classes; None where they are the same.
        unmapped: Why there are no probabilities.
        inferred: Whether the order was found from the answers.
        notes: What a reader should know of it.
    """

    probabilities: Array | None
    classes: tuple[int, ...] | None = None
    unmapped: str | None = None
    inferred: bool = False
    notes: tuple[str, ...] = ()


def map_classes(
    answers: Array,
    clean: Array,
    labels: Array,
    expected: int,
    user_order: tuple[int, ...] | None,
    *,
    independent: bool = False,
) -> ClassMapping:
    """Put a model's answers in the order of the victim's classes.

    Args:
        answers: ``(n, own classes)`` probabilities.
        clean: ``(seeds,)`` which of the rows are the seeds.
        labels: ``(seeds,)`` their ground truth.
        expected: Number of the victim's classes.
        user_order: The model's own output for each of them, where the user says so.
        independent: Whether each class has a probability of its own; of others, those that are left out are divided
            among the rest.
    """
    own = answers.shape[1]
    if user_order is not None:
        return ClassMapping(
            in_classes(answers, user_order, independent),
            user_order,
            notes=(f"its outputs {listed(user_order)} correspond to the victim's classes",),
        )
    if own != expected:
        return ClassMapping(
            None, unmapped=f"expected {expected} classes, found {own}; map them with {option('QuerySettings.classes')}"
        )
    order, renamed = class_order(answers[clean].argmax(axis=1), labels, expected)
    if order is not None:
        note = f"its classes are in another order, inferred from its answers to the seeds: {_renaming(order)}"
        return ClassMapping(in_classes(answers, order, independent), order, inferred=True, notes=(note,))
    if renamed:
        note = (
            f"most seeds of the classes {listed(renamed)} get another class, but the answers show no "
            f"consistent order of all classes; if the order differs, give it with {option('QuerySettings.classes')}"
        )
        return ClassMapping(answers, notes=(note,))
    return ClassMapping(answers)


def class_order(answers: Array, labels: Array, classes: int) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """Whether a model has the victim's classes in another order, by its answers to the seeds.

    Of all orders the one is looked at that makes the most answers right. It is taken when more than half of the seeds
    of every class that it renames agree, and it makes at least 5 answers more right than no order. A model that merely
    errs gives two classes the same name, so that no order makes both right.

    Args:
        answers: ``(n,)`` the model's own classes.
        labels: ``(n,)`` the ground truth.
        classes: Number of classes, the same of both models.

    Returns:
        The model's own class for each of the victim's, None where they are the same or no order is taken; and the
        classes of which most seeds, and at least 5, get one and the same other class.
    """
    # Classes that do not occur keep their places.
    occurring, places = np.unique(np.concatenate([labels, answers]), return_inverse=True)
    same = np.arange(len(occurring))
    counts = np.zeros((len(same), len(same)))
    np.add.at(counts, (places[: len(labels)], places[len(labels) :]), 1)
    totals = counts.sum(axis=1)
    top = counts.argmax(axis=1)
    most = counts[same, top]
    renamed = tuple(occurring[(top != same) & (most >= _LEAST_SEEDS) & (2 * most > totals)].tolist())
    order = _best_order(counts)
    if order is None:
        return None, renamed
    agreed = 2 * counts[same, order][order != same] > totals[order != same]
    if not agreed.all():
        return None, renamed
    whole = np.arange(classes)
    whole[occurring] = occurring[order]
    return tuple(whole.tolist()), renamed


def _best_order(counts: Array) -> Array | None:
    # Of all orders the one that makes the most answers right, and of equals the one that renames the fewest; None where
    # it makes too few more right than no order.
    no_order = np.trace(counts)
    if min(counts.max(axis=0).sum(), counts.max(axis=1).sum()) - no_order < _LEAST_SEEDS:
        return None  # no order takes more than the most of each row, or of each column
    # Late: loading it takes longer than all else that most suspects need.
    from scipy.optimize import linear_sum_assignment

    rows, order = linear_sum_assignment(counts + np.eye(len(counts)) / (len(counts) + 1), maximize=True)
    return np.asarray(order) if counts[rows, order].sum() - no_order >= _LEAST_SEEDS else None


def listed(numbers: Sequence[int]) -> str:
    """Numbers in a message."""
    return ", ".join(map(str, numbers))


def in_classes(answers: Array, order: tuple[int, ...], independent: bool) -> Array:
    """Answers ``(n, own classes)`` in the order of the victim's classes; what is left out is divided among the rest."""
    chosen = answers[:, list(order)].astype(np.float64)
    if independent or set(order) == set(range(answers.shape[1])):
        return chosen.astype(np.float32)
    sums = chosen.sum(axis=1, keepdims=True)
    # Where other classes leave nothing, nothing speaks for any of these.
    even = np.full_like(chosen, 1 / len(order))
    scaled: Array = np.divide(chosen, sums, out=even, where=sums > np.finfo(np.float32).tiny)
    return scaled.astype(np.float32)


def _renaming(order: Sequence[int]) -> str:
    changed = [f"{label} is its {own}" for label, own in enumerate(order) if label != own]
    shown = ", ".join(changed[:_SHOWN])
    return shown + (f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else "")

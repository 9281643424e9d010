"""Labels of inputs with several classes at once, of which a victim names one."""

from typing import Literal

import numpy as np

from deepjudge_core.errors import InputError
from deepjudge_core.types import Array

LabelOrigin = Literal["inputs", "victim", "several"]
"""Where the labels of a suite are from: the inputs; the victim's own answers; of several classes of each input, the one
that the victim finds likeliest."""

_CLEAR = 1e-3  # by which the likeliest class is ahead: less is rounding, where several are nearly certain


def has_several(y: Array) -> bool:
    """Whether labels are rows ``(n, classes)`` of 0 and 1, some of which name several classes or none."""
    return y.ndim == 2 and bool((y.sum(axis=1) != 1).any())


def as_numbers(y: Array) -> Array:
    """``(n,)`` class numbers, of these or of rows ``(n, classes)`` with a 1 each.

    Raises:
        InputError: When rows name several classes, or none.
    """
    if has_several(y):
        counts = y.sum(axis=1)
        raise InputError(
            f"labels: expected one class per input, found rows with {counts.min():g} to {counts.max():g} classes"
        )
    return y.argmax(axis=1) if y.ndim == 2 else y


def likeliest(y: Array, answers: Array) -> Array:
    """``(n,)`` of the true classes the one that a model finds likeliest.

    Args:
        y: ``(n,)`` class numbers, or ``(n, classes)`` of 0 and 1, at least one of which is 1 in each row.
        answers: ``(n, classes)`` probabilities.
    """
    return y if y.ndim == 1 else np.where(y > 0, answers, -1).argmax(axis=1)


def is_clear(answers: Array) -> Array:
    """``(n,)`` bool: whether one class is clearly the likeliest, of classes with a probability each."""
    two = np.sort(answers, axis=1)[:, -2:]
    clear: Array = two[:, 1] - two[:, 0] >= _CLEAR
    return clear

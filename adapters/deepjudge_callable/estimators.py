"""Estimators of scikit-learn, and such as have its methods, as functions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.text import clean
from deepjudge_core.types import Array

_METHODS = ("predict_proba", "decision_function")
_SOME = 5  # classes in a note


def asked_as_function(
    estimator: Any, name: str, input_shape: Sequence[int] | None, classes: int | None
) -> tuple[Callable[[Array], Any], Sequence[int] | None, int | None, tuple[str, ...]]:
    """What asks an estimator, and what it says of itself.

    Args:
        estimator: It; fitted.
        name: What messages call it.
        input_shape: Of one input, as its user says.
        classes: How many, as its user says.

    Returns:
        The function, the shape of its inputs, its number of classes, and what a reader should know.

    Raises:
        ModelError: When it is not fitted, is no classifier, or answers several questions at once.
    """
    method = next((getattr(estimator, one) for one in _METHODS if callable(getattr(estimator, one, None))), None)
    if method is None:
        raise ModelError(
            f"{name}: expected an estimator that gives scores of classes, found one without {' and '.join(_METHODS)}"
        )
    known = getattr(estimator, "classes_", None)
    if known is None:
        raise ModelError(f"{name}: expected a fitted classifier, found no classes_: fit it first")
    if isinstance(known, list):
        raise ModelError(
            f"{name}: expected one question with classes that exclude one another, found {len(known)} outputs with "
            "classes each: open the estimator of one of them"
        )
    labels = np.asarray(known)
    features = getattr(estimator, "n_features_in_", None)
    if features is not None:
        given = None if input_shape is None else tuple(input_shape)
        if given not in (None, (features,)):
            raise ModelError(f"{name}: expected rows of {features} features, found input_shape {given}")
        input_shape = (features,)
    notes: tuple[str, ...] = ()
    if not np.array_equal(labels, np.arange(len(labels))):
        some = clean(", ".join(map(str, labels[:_SOME]))) + (", ..." if len(labels) > _SOME else "")
        notes = (f"class 0 is its class {clean(str(labels[0]))}, and so on in the order of its classes_: {some}",)
    return method, input_shape, len(labels) if classes is None else classes, notes

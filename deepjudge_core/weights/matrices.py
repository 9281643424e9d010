"""Matrices of a network, whole: those that give its hidden neurons, in forward order."""

from collections.abc import Sequence

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.text import counted
from deepjudge_core.types import Array
from deepjudge_core.weights.roles import find_roles
from deepjudge_core.weights.values import StoredWeights, View
from deepjudge_core.weights.views import ViewMatrix, parts_of

MOST_NUMBERS = 2**26
"""Of one matrix that is read whole."""


def read_matrices(weights: StoredWeights, places: Sequence[int]) -> dict[int, Array]:
    """Read matrices by their places among those that give hidden neurons, in forward order.

    What normalisation multiplies rows by is not folded in.

    Args:
        weights: Of a model.
        places: From 0.

    Returns:
        Place to ``(outputs, inputs)``, float32; inputs are counted by channels first, then by places.

    Raises:
        ModelError: When there are fewer, or one is too large.
    """
    views = _views(weights)
    matrices = {}
    for place in places:
        if place >= len(views):
            raise ModelError(
                f"{weights.name}: expected at least {counted(place + 1, 'matrix', 'matrices')} of hidden neurons, "
                f"found {len(views)}",
                code="wrong-format",
            )
        width, view = views[place]
        numbers = width * ViewMatrix.of(weights, view).columns
        if numbers > MOST_NUMBERS:
            raise ModelError(
                f"{weights.name}: expected a matrix of at most {MOST_NUMBERS:,} numbers, found {numbers:,} in "
                f"{view.tensor!r}",
                code="wrong-format",
            )
        rows = np.zeros((width, numbers // width), np.float32)
        for neurons, columns, part in parts_of(weights, view):
            rows[neurons, columns] = part
        matrices[place] = rows
    return matrices


def _views(weights: StoredWeights) -> list[tuple[int, View]]:
    # Of each layer the first matrix that gives its neurons, with their number.
    known, views = {"inputs", "residual"}, []
    for layer in find_roles(weights).layers:
        views += [(layer.width, view) for view in layer.views if view.basis in known][:1]
        known.add(layer.name)
    return views

"""The neurons of a classifier, matched with the victim's layer by layer, so that its matrices can be compared.

The rows of the first matrix are in the coordinates of the input, which no copy can change. So they tell which neuron is
which of the victim's. The columns of the next matrix are put in that order, and multiplied by the size of the rows
before, since a ReLU lets a copy move it from one to the other. Then its rows tell the same of the next layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deepjudge_core.types import Array
from deepjudge_core.weights.matching import assign, cosines
from deepjudge_core.weights.values import NeuronLayer, StoredWeights, View, WeightPlan

FIXED = ("inputs", "outputs", "kernel")
"""Bases of columns that are the same in all models."""


@dataclass(frozen=True, eq=False)
class _Matched:
    # Of a model's own layer: which of its neurons are which of the victim's, of how many, and their sizes.
    own: Array
    own_width: int
    victims: Array
    width: int
    sizes: Array


class Alignment:
    """Which neurons of one model are which of the victim's, as far as its layers have been looked at."""

    def __init__(self, plan: WeightPlan, *, victim: bool) -> None:
        """Begin with the input.

        Args:
            plan: Of the victim.
            victim: Whether the model is the victim itself.
        """
        self._plan, self._victim = plan, victim
        self._places = {(layer.kind, layer.block): place for place, layer in enumerate(plan.layers)}
        self._found: dict[str, _Matched] = {}

    def onto(self, view: View, sizes: Sequence[int], projection: Callable[[int], Array]) -> Array | None:
        """What the columns of a matrix are projected by, ``(columns, rank)``; None where they are not matched.

        Args:
            view: The matrix.
            sizes: Of the axes that become its columns, that of the neurons before first.
            projection: Gives that of so many columns of the victim's.
        """
        columns = int(np.prod(sizes))
        if view.basis in FIXED:
            return projection(columns)
        matched = self._found.get(view.basis)
        if matched is None or matched.own_width != sizes[0]:
            return None
        places = columns // sizes[0]
        theirs = projection(matched.width * places)
        onto = np.zeros((sizes[0], places, theirs.shape[1]), np.float32)
        onto[matched.own] = theirs.reshape(matched.width, places, -1)[matched.victims] * matched.sizes[:, None, None]
        return onto.reshape(columns, -1)

    def add(self, weights: StoredWeights, layer: NeuronLayer, rows: Array, lengths: Array) -> None:
        """Match the neurons of a layer.

        Args:
            weights: Of the model.
            layer: Its layer.
            rows: ``(neurons, views, rank)``, the sketch whose columns are matched already.
            lengths: ``(neurons,)``, of the rows of its first view before they became directions.
        """
        place = self._places.get((layer.kind, layer.block))
        if place is None:
            return
        victims = self._plan.neurons[place]
        sizes = _sizes(weights, layer, lengths)
        if self._victim:
            own, signs = victims, np.ones(len(victims))
        else:
            anchors = self._plan.anchors.get(place)
            if anchors is None or anchors.shape[1:] != rows.shape[1:]:
                return
            first, own = assign(cosines(anchors, rows))
            products = anchors[first, 0].astype(np.float64) * rows[own, 0].astype(np.float64)
            victims, signs = victims[first], np.where(products.sum(axis=1) < 0, -1.0, 1.0)
        signs = np.ones(len(own)) if layer.views[0].signed else signs
        self._found[layer.name] = _Matched(
            own, layer.width, victims, self._plan.layers[place].width, signs * sizes[own]
        )


def _sizes(weights: StoredWeights, layer: NeuronLayer, lengths: Array) -> Array:
    # By how much more the next layer sees of a neuron than its columns say; those of a tanh or a gate cannot be moved.
    view = layer.views[0]
    if not view.signed or layer.kind == "recurrent":
        return np.ones(layer.width)
    sizes = lengths.astype(np.float64)
    for scale in view.scales:
        if scale.tensor is not None:
            sizes = sizes * np.abs(weights.read(scale.tensor).reshape(-1))
        if scale.variance is not None:
            spread = np.maximum(weights.read(scale.variance).reshape(-1).astype(np.float64), 0)
            sizes = sizes / np.sqrt(spread + max(scale.epsilon, 1e-12))
    largest = sizes.max(initial=0)
    return sizes / largest if np.isfinite(largest) and largest > 0 else np.ones(layer.width)

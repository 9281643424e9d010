"""Nearly the same function by other neurons: the weakest make room for halves of the strongest."""

from typing import Annotated

import numpy as np
from annotated_types import Gt, Lt

from deepjudge_attacks.permuting import Axis, Group, groups
from deepjudge_core import progress
from deepjudge_core.components.attack import Loot
from deepjudge_core.errors import ModelError
from deepjudge_core.models.network import Network, Weights
from deepjudge_core.types import Array

_ROWS = 64  # inputs on which answers are compared
_SAME = 1e-4  # share of the greatest score by which scores may differ


def split_neuron(
    victim: Network, loot: Loot, rng: np.random.Generator, *, share: Annotated[float, Gt(0), Lt(0.5)] = 0.1
) -> Network:
    """Remove the weakest neurons of each layer, and split as many of the strongest into two halves.

    A neuron is as strong as the product of the norms of its weights before and after it. Each half computes what the
    whole did, and has half of the weights after it. Recurrent layers, and layers whose neurons cannot all be located,
    are left unchanged.

    Args:
        share: Share of a layer's neurons that are removed, at least one.

    Raises:
        ModelError: When no layer could be changed.
    """
    architecture, x = victim.architecture, loot.x[:_ROWS]

    def scores(weights: Weights) -> Array:
        return architecture.trainer(weights, in_use=True).scores(x)

    changed, count = victim, 0
    matrices = victim.matrices[:-1]
    with progress.task("split-neuron", len(matrices)) as advance:
        for matrix in matrices:
            for group in groups(victim, matrix):
                if group.outputs.times > 1 or any(changed.weights[axis.name].ndim > 1 for axis in group.between):
                    continue
                removed, split = (changed.with_weights(weights) for weights in _split(changed.weights, group, share))
                expected = scores(removed.weights)
                if np.abs(scores(split.weights) - expected).max() <= _SAME * np.abs(expected).max():
                    changed, count = split, count + 1
                    break
            advance(1)
    if not count:
        raise ModelError(
            "split-neuron: expected a layer whose neurons feed exactly one other layer, found none that can be split "
            "without changing the answers"
        )
    return changed


def _split(weights: Weights, group: Group, share: float) -> tuple[dict[str, Array], dict[str, Array]]:
    # The weights without the weakest neurons, and with halves of the strongest in their places.
    strength = _norms(weights, group.outputs, group.neurons) * _norms(weights, group.inputs, group.neurons)
    count = max(1, round(share * group.neurons))
    ranked = np.argsort(strength, kind="stable")
    weak, strong = ranked[:count], ranked[-count:]
    kept, halves, order = np.ones(group.neurons), np.ones(group.neurons), np.arange(group.neurons)
    kept[weak], halves[weak], halves[strong], order[weak] = 0, 0.5, 0.5, strong
    inputs = weights[group.inputs.name]
    removed = {group.inputs.name: group.inputs.scaled(inputs, kept)}
    split = {axis.name: axis.permuted(weights[axis.name], order) for axis in (group.outputs, *group.between)}
    split[group.inputs.name] = group.inputs.scaled(group.inputs.permuted(inputs, order), halves)
    return removed, split


def _norms(weights: Weights, axis: Axis, neurons: int) -> Array:
    # Of each neuron's weights.
    squares = np.square(np.moveaxis(weights[axis.name].astype(np.float64), axis.axis, 0))
    each = squares.reshape(len(squares), -1).sum(axis=1)
    sums: Array = each.reshape(neurons, -1).sum(axis=1) if axis.together else each.reshape(-1, neurons).sum(axis=0)
    return np.sqrt(sums)

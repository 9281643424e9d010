"""The same function in other weights: neurons in another order, and at another scale.

Which weights belong to a neuron depends on its layers and on how its framework arranges weights. None of it is known
here: arrangements are tried, and those that leave the answers as they are are kept.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from deepjudge_core import progress
from deepjudge_core.components.attack import Loot
from deepjudge_core.errors import ModelError
from deepjudge_core.models.network import Network, Weights
from deepjudge_core.types import Array

_ROWS = 64  # inputs on which answers are compared
_SAME = 1e-4  # share of the greatest score by which scores may differ
_BEYOND = 3  # matrices after its own in which the inputs of a layer's successor are looked for
_GATES = (4, 3)  # numbers of gates of recurrent cells


@dataclass(frozen=True)
class Axis:
    """An axis of a weight along which neurons lie.

    Attributes:
        name: Of the weight.
        axis: Its axis.
        times: Places that each neuron has on it.
        together: Whether the places of one neuron stand side by side; otherwise all neurons follow one another, as
            often as that.
    """

    name: str
    axis: int
    times: int = 1
    together: bool = False

    def permuted(self, weight: Array, order: Array) -> Array:
        """The weight with the neurons in another order."""
        copies = np.arange(self.times)
        places = np.add.outer(order * self.times, copies) if self.together else np.add.outer(copies * len(order), order)
        return np.take(weight, places.ravel(), axis=self.axis)

    def scaled(self, weight: Array, factors: Array) -> Array:
        """The weight with each neuron's part multiplied by its factor."""
        spread = np.repeat(factors, self.times) if self.together else np.tile(factors, self.times)
        shape = [1] * weight.ndim
        shape[self.axis] = -1
        scaled: Array = weight * spread.reshape(shape)
        return scaled


@dataclass(frozen=True)
class Group:
    """Where the neurons of one layer may be found.

    Attributes:
        neurons: How many.
        outputs: In the matrix that computes them.
        between: In the weights between the two: biases, normalisation, recurrent matrices.
        inputs: In the matrix that they go into.
    """

    neurons: int
    outputs: Axis
    between: tuple[Axis, ...]
    inputs: Axis


def permute_rescale(
    victim: Network, loot: Loot, rng: np.random.Generator, *, factor: Annotated[float, Ge(1)] = 2.0
) -> Network:
    """Reorder and rescale the neurons of each layer without changing the answers.

    A neuron of a layer with ReLU may be multiplied by a positive factor, and its weights in the next layer divided by
    it (Neyshabur et al., NIPS 2015). Layers whose neurons cannot all be located, such as those of a long residual
    stream or of a bidirectional recurrent layer, are left unchanged.

    Args:
        factor: Neurons are multiplied by numbers between 1 / factor and factor; 1 only permutes them.

    Raises:
        ModelError: When no layer could be permuted.
    """
    architecture, x = victim.architecture, loot.x[:_ROWS]

    def scores(weights: Weights) -> Array:
        return architecture.trainer(weights, in_use=True).scores(x)

    expected = scores(victim.weights)
    allowed = _SAME * float(np.abs(expected).max())

    def same(network: Network) -> bool:
        return bool(np.abs(scores(network.weights) - expected).max() <= allowed)

    matrices = victim.matrices[:-1]
    changed, count = victim, 0
    with progress.task("permute-rescale", len(matrices)) as advance:
        for matrix in matrices:
            for group in groups(victim, matrix):
                permuted = changed.with_weights(_permute(changed.weights, group, _order(group.neurons, rng)))
                if same(permuted):
                    factors = factor ** rng.uniform(-1, 1, group.neurons)
                    changed, count = _rescale(permuted, group, factors, same), count + 1
                    break
            advance(1)
    if not count:
        raise ModelError(
            "permute-rescale: expected a layer whose neurons feed exactly one other layer, found "
            "none that can be permuted without changing the answers"
        )
    return changed


def groups(network: Network, matrix: str) -> Iterator[Group]:
    """Every way in which the neurons that a matrix computes may lie in it and in the weights after it.

    Outputs are on a matrix' first axis and inputs on the second, or outputs on the last and inputs on the one before.
    Where spatial places are flattened, a neuron has several inputs, side by side or as far apart as there are neurons.
    The gates of recurrent layers follow one another, in weights that come with a matrix of neurons by gates.
    """
    weights, names = network.weights, list(network.weights)
    start = network.matrices.index(matrix)
    for target in network.matrices[start + 1 : start + 1 + _BEYOND]:
        between = names[names.index(matrix) + 1 : names.index(target)]
        for own, other in itertools.product(_distinct(weights[matrix], 0, -1), _distinct(weights[target], 1, -2)):
            for gates in (1, *_GATES):
                neurons, rest = divmod(weights[matrix].shape[own], gates)
                times, left = divmod(weights[target].shape[other], max(neurons, 1))
                if rest or left or neurons < 2 or times < 1:
                    continue
                shapes = [weights[name].shape for name in between]
                if gates > 1 and not any({neurons, gates * neurons} <= set(shape) for shape in shapes):
                    continue
                members = tuple(_along(weights, between, neurons, gates))
                for together in (True, False)[: 1 if times == 1 else 2]:
                    yield Group(neurons, Axis(matrix, own, gates), members, Axis(target, other, times, together))


def _distinct(matrix: Array, *axes: int) -> list[int]:
    return list(dict.fromkeys(axis % matrix.ndim for axis in axes))


def _along(weights: Weights, names: list[str], neurons: int, gates: int) -> Iterator[Axis]:
    for name in names:
        for axis, length in enumerate(weights[name].shape):
            if length == neurons:
                yield Axis(name, axis)
            elif length == gates * neurons:
                yield Axis(name, axis, gates)


def _order(neurons: int, rng: np.random.Generator) -> Array:
    order = rng.permutation(neurons)
    # Never the order that it was.
    return np.roll(order, 1) if (order == np.arange(neurons)).all() else order


def _permute(weights: Weights, group: Group, order: Array) -> dict[str, Array]:
    return _apply(weights, (group.outputs, *group.between, group.inputs), lambda axis, w: axis.permuted(w, order))


def _rescale(network: Network, group: Group, factors: Array, same: Callable[[Network], bool]) -> Network:
    # Which weights carry a neuron's factor: its matrix and bias, or the scale and shift of its normalisation alone.
    trained = network.architecture.parameters
    vectors = [axis for axis in group.between if network.weights[axis.name].ndim == 1 and axis.name in trained]
    carriers = [group.outputs, *vectors]
    if group.outputs.times > 1 or (factors == 1).all():
        return network
    for count in range(len(carriers), 0, -1):
        for chosen in itertools.combinations(carriers, count):
            multiplied = _apply(network.weights, chosen, lambda axis, w: axis.scaled(w, factors))
            divided = _apply(network.weights, (group.inputs,), lambda axis, w: axis.scaled(w, 1 / factors))
            scaled = network.with_weights(multiplied | divided)
            if same(scaled):
                return scaled
    return network


def _apply(weights: Weights, axes: tuple[Axis, ...], change: Callable[[Axis, Array], Array]) -> dict[str, Array]:
    changed: dict[str, Array] = {}
    for axis in axes:
        changed[axis.name] = change(axis, changed.get(axis.name, weights[axis.name]))
    return changed

"""Which parameters the matrices of a network are, that are read from its file by their places."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepjudge_core.components.registry import Registry
from deepjudge_core.components.weights import open_weights
from deepjudge_core.errors import ModelError
from deepjudge_core.models.network import Network, Pull, Weights
from deepjudge_core.types import Array

ReadMatrices = Callable[[Network, Sequence[int]], Mapping[int, Array]]
"""Gives the matrices of a network at some places; see :func:`~deepjudge_core.weights.matrices.read_matrices`."""
PullMatrices = Callable[[Mapping[int, Array]], Mapping[int, Array]]
"""See :attr:`~deepjudge_core.components.schemes.Teaching.pull`."""

_DIGIT = 2**20  # of places in a parameter; float32 tells whole numbers of up to 24 bits


@dataclass(frozen=True, eq=False)
class Placed:
    """Where a matrix is.

    Attributes:
        parameter: The name of the network's weights that hold it.
        index: ``(outputs, inputs)`` int64: the place of each of its numbers among these, counted in C order.
    """

    parameter: str
    index: Array

    def of(self, weights: Weights) -> Array:
        """The matrix, ``(outputs, inputs)`` float32."""
        matrix: Array = np.asarray(weights[self.parameter], np.float32).ravel()[self.index]
        return matrix


def saved_matrices(registry: Registry) -> ReadMatrices:
    """Reads a network's matrices from the file that it is saved to, as those of a suspect are read."""

    def read(network: Network, places: Sequence[int]) -> Mapping[int, Array]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"network{network.architecture.suffix}"
            network.save(path)
            with open_weights(path, registry=registry) as sketcher:
                return sketcher.matrices(places)

    return read


def find_places(network: Network, places: Sequence[int], read: ReadMatrices) -> dict[int, Placed]:
    """Find the parameters that are read as matrices, whatever becomes of their axes on the way.

    The network is read with weights that are numbers of their parameters, and with ones that are their own places.

    Args:
        network: With any weights.
        places: Of the matrices.
        read: How they are read.

    Raises:
        ModelError: When they cannot be read, or are no parameters that training changes.
    """
    names = network.architecture.parameters
    sizes = [network.weights[name].size for name in names]

    def reading(number: Callable[[int, Array], Array]) -> dict[int, Array]:
        marked = {
            name: number(place, np.arange(size)).reshape(network.weights[name].shape)
            for place, (name, size) in enumerate(zip(names, sizes, strict=True))
        }
        found = read(network.with_weights(marked), places)
        return {place: np.asarray(found[place]).astype(np.int64) for place in places}

    whose = reading(lambda place, numbers: np.full(numbers.shape, place))
    low = reading(lambda _, numbers: numbers % _DIGIT)
    high = reading(lambda _, numbers: numbers // _DIGIT) if max(sizes) > _DIGIT else {}
    now = read(network, places)
    placed = {}
    for place in places:
        owner, index = int(whose[place].flat[0]), low[place] + _DIGIT * high.get(place, 0)
        fits = 0 <= owner < len(names) and (whose[place] == owner).all() and index.min() >= 0
        if fits and index.max() < sizes[owner] and len(np.unique(index)) == index.size:
            placed[place] = Placed(names[owner], index)
        # What is computed of parameters, such as the product of two, would look like them now and then.
        if place not in placed or not np.array_equal(placed[place].of(network.weights), now[place]):
            raise ModelError(
                f"expected matrix {place + 1} to be one of the parameters that training changes, found one that is "
                "computed, or does not change; a key of its bits cannot be embedded",
                code="unusable-model",
            )
    return placed


def pull_of(pulls: Sequence[PullMatrices], placed: Mapping[int, Placed]) -> Pull:
    """The pulls of several keys at matrices as one at parameters."""

    def pull(weights: Weights) -> dict[str, Array]:
        matrices = {place: one.of(weights) for place, one in placed.items()}
        gradients: dict[str, Array] = {}
        for one in pulls:
            for place, gradient in one(matrices).items():
                name, index = placed[place].parameter, placed[place].index
                flat = gradients.setdefault(name, np.zeros(weights[name].size, np.float32))
                flat[index] += np.asarray(gradient, np.float32)
        return {name: flat.reshape(weights[name].shape) for name, flat in gradients.items()}

    return pull

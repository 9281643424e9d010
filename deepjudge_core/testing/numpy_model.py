"""A small classifier in numpy, whose every number can be checked by hand.

It needs no framework, so that components can be tried where none is installed, and it is the oracle for those that are.
"""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np

from deepjudge_core.models.batched import BatchedModel
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access
from deepjudge_core.models.network import OFF_GRID, Join
from deepjudge_core.models.scores import Scores
from deepjudge_core.types import Array

Activation = Literal["relu", "tanh"]


class NumpyModel(BatchedModel):
    """A multi-layer perceptron: flattens its input, then dense layers with an activation between them.

    The taps are ``dense1``, ``dense2``, ... (the outputs of the activations) and ``logits``. Everything is computed in
    float64 and handed out as float32, so that sums in another order (another batch size) give the same answers.
    """

    def __init__(
        self,
        weights: Sequence[tuple[Array, Array]],
        shape: tuple[int, ...],
        *,
        activation: Activation = "relu",
        access: Access = Access.FULL,
        name: str = "numpy-model",
        batch_size: int | None = None,
        fixed_batch: int | None = None,
    ) -> None:
        """Take the weights as they are.

        Args:
            weights: ``(matrix, bias)`` of each layer in forward order, ``(inputs, neurons)`` and ``(neurons,)``; the
                first takes ``prod(shape)`` inputs, the last gives the logits (one for a classifier of two classes).
            shape: Of an input, without the batch axis.
            activation: Between the layers.
            access: What may be asked of it.
            name: What a person calls it.
            batch_size: Rows in a batch.
            fixed_batch: The only number of rows that it takes at a time, as in some exported files.
        """
        self.weights = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in weights]
        self.activation = activation
        digest = hashlib.sha256(repr((shape, activation, [w.shape for w, _ in self.weights])).encode())
        for parameters in self.weights:
            for array in parameters:
                digest.update(array.tobytes())
        widths = [len(b) for _, b in self.weights]
        super().__init__(
            name=name,
            framework="numpy",
            digest=digest.hexdigest(),
            access=access,
            input=InputSpec(shape),
            layers={f"dense{i}": n for i, n in enumerate(widths[:-1], 1)} | {"logits": widths[-1]},
            scores=Scores.LOGITS,
            batch_size=batch_size,
            fixed_batch=fixed_batch,
        )

    @classmethod
    def random(
        cls,
        shape: tuple[int, ...],
        widths: Sequence[int],
        classes: int,
        seed: int,
        *,
        activation: Activation = "relu",
        batch_size: int | None = None,
        fixed_batch: int | None = None,
    ) -> "NumpyModel":
        """A model with hidden layers of the given widths and normal weights, the same for the same seed."""
        rng = np.random.default_rng(seed)
        sizes = [int(np.prod(shape)), *widths, classes]
        weights = [
            (rng.normal(size=(a, b)) * np.sqrt(2 / a), rng.normal(size=b) * 0.1) for a, b in itertools.pairwise(sizes)
        ]
        return cls(weights, shape, activation=activation, batch_size=batch_size, fixed_batch=fixed_batch)

    def perturbed(self, scale: float, seed: int) -> "NumpyModel":
        """A copy, normal noise of ``scale`` times an array's own standard deviation added to each array."""
        rng = np.random.default_rng(seed)
        weights = [
            (w + scale * w.std() * rng.normal(size=w.shape), b + scale * b.std() * rng.normal(size=b.shape))
            for w, b in self.weights
        ]
        return type(self)(
            weights,
            tuple(axis for axis in self.input.shape if axis is not None),
            activation=self.activation,
            access=self.access,
            name=f"{self.name}+{scale:g}",
            batch_size=self._batch_size,
            fixed_batch=self.fixed_batch,
        )

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        """See :class:`BatchedModel`."""
        outputs = self._outputs(x)
        return [outputs[layer].astype(np.float32) for layer in ([self.logits] if layers is None else layers)]

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        """See :class:`BatchedModel`."""
        outputs = self._outputs(x)
        grad = cotangent(outputs[layer].astype(np.float32)).astype(np.float64)
        depth = list(self.layers).index(layer)
        for i in range(depth, -1, -1):
            y = outputs[list(self.layers)[i]]
            if i < len(self.weights) - 1:  # the logits have no activation
                grad = grad * ((y > 0) if self.activation == "relu" else 1 - y**2)
            grad = grad @ self.weights[i][0].T
        return grad.reshape(x.shape).astype(np.float32)

    def mixed(self, x: Array, layer: str, order: Array) -> Array:
        """See :class:`BatchedModel`."""
        return self._outputs(x, {layer: order})[self.logits].astype(np.float32)

    def _outputs(self, x: Array, orders: Mapping[str, Array] = MappingProxyType({})) -> dict[str, Array]:
        outputs = {}
        value = x.reshape(len(x), -1).astype(np.float64)
        for layer, (matrix, bias) in zip(self.layers, self.weights, strict=True):
            value = value @ matrix + bias
            if layer != self.logits:
                value = np.maximum(value, 0) if self.activation == "relu" else np.tanh(value)
            value = value[orders.get(layer, slice(None))]
            outputs[layer] = value
        return outputs


class NumpyJoined(NumpyModel):
    """Two models whose scores are joined; the taps are the second one's."""

    def __init__(self, first: NumpyModel, second: NumpyModel, join: Join) -> None:
        """Take two models of the same inputs and classes."""
        shape = tuple(axis for axis in second.input.shape if axis is not None)
        super().__init__(second.weights, shape, activation=second.activation, name=first.name)
        self._first, self._second, self._join = first, second, join
        self.digest = hashlib.sha256(f"{first.digest} {second.digest} {join}".encode()).hexdigest()

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        """See :class:`BatchedModel`."""
        if layer != self.logits:
            return super().backward(x, cotangent, layer)
        at = cotangent(self.forward(x, [layer])[0])
        on_grid = self._on_grid(x)
        own = self._first.backward(x, lambda scores: at * on_grid, layer)
        other = self._second.backward(x, lambda scores: at * np.where(on_grid, self._join.weight, 1.0), layer)
        return own + other

    def _outputs(self, x: Array, orders: Mapping[str, Array] = MappingProxyType({})) -> dict[str, Array]:
        outputs = super()._outputs(x, orders)
        own, other = self._first._outputs(x)[self.logits], outputs[self.logits]
        outputs[self.logits] = np.where(self._on_grid(x), own + self._join.weight * other, other)
        return outputs

    def _on_grid(self, x: Array) -> Array:
        # (rows, 1): whose scores are joined; the others get the second one's.
        if self._join.steps is None:
            return np.ones((len(x), 1), bool)
        start, step = self._join.steps
        places = (x.reshape(len(x), -1).astype(np.float64) - start) / step
        near: Array = np.abs(places - np.rint(places)).max(axis=1, keepdims=True) < OFF_GRID
        return near

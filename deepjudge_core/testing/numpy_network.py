"""A small network in numpy that can be trained: for trying attacks where no framework is installed."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from deepjudge_core.errors import ModelError
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.network import Join, Losses, ScoresCotangent, Weights
from deepjudge_core.testing.numpy_model import Activation, NumpyJoined, NumpyModel
from deepjudge_core.types import Array

_PREFIXES = ("first.", "second.")
_ALONE = Join(0.0)  # the first one's scores
_BETAS, _EPSILON = (0.9, 0.999), 1e-7


@dataclass(frozen=True)
class NumpyArchitecture:
    """A multi-layer perceptron, see :class:`NumpyModel`: a :class:`~deepjudge_core.models.network.Architecture`.

    Attributes:
        shape: Of an input, without the batch axis.
        widths: Numbers of neurons of the hidden layers.
        classes: Number of classes, at least 2.
        activation: Between the layers.
    """

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    classes: int
    activation: Activation = "relu"

    framework = "numpy"
    suffix = ".npy.safetensors"

    @property
    def input(self) -> InputSpec:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return InputSpec(self.shape)

    @property
    def layers(self) -> Mapping[str, int]:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return {f"dense{i}": width for i, width in enumerate(self.widths, 1)} | {"logits": self.classes}

    @property
    def parameters(self) -> tuple[str, ...]:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return tuple(f"{layer}.{part}" for layer in self.layers for part in ("weight", "bias"))

    @property
    def head(self) -> tuple[str, ...]:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return ("logits.weight", "logits.bias")

    def initial(self, rng: np.random.Generator) -> dict[str, Array]:
        """See :class:`~deepjudge_core.models.network.Architecture`; uniform as by Glorot & Bengio (2010)."""
        sizes = [int(np.prod(self.shape)), *self.layers.values()]
        weights: dict[str, Array] = {}
        for layer, (before, after) in zip(self.layers, itertools.pairwise(sizes), strict=True):
            limit = np.sqrt(6 / (before + after))
            weights[f"{layer}.weight"] = rng.uniform(-limit, limit, (before, after)).astype(np.float32)
            weights[f"{layer}.bias"] = np.zeros(after, np.float32)
        return weights

    def with_classes(self, classes: int) -> "NumpyArchitecture":
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return NumpyArchitecture(self.shape, self.widths, classes, self.activation)

    def joined(self, join: Join) -> "NumpyPair":
        """See :class:`~deepjudge_core.models.network.Joinable`."""
        return NumpyPair(self.shape, self.widths, self.classes, self.activation, join)

    def student(self) -> "NumpyArchitecture":
        """See :class:`~deepjudge_core.models.network.Architecture`: one hidden layer of 24 tanh neurons."""
        return NumpyArchitecture(self.shape, (24,), self.classes, "tanh")

    def trainer(
        self,
        weights: Weights,
        *,
        parameters: Collection[str] | None = None,
        masks: Mapping[str, Array] | None = None,
        in_use: bool = False,
        seed: int = 0,
    ) -> "NumpyTrainer":
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        trained = self.parameters if parameters is None else parameters
        return self._trainer()(self, weights, trained, masks or {})

    def _trainer(self) -> "type[NumpyTrainer]":
        return NumpyTrainer

    def model(self, weights: Weights, *, name: str) -> NumpyModel:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        pairs = [(weights[f"{layer}.weight"], weights[f"{layer}.bias"]) for layer in self.layers]
        return NumpyModel(pairs, self.shape, activation=self.activation, name=name)

    def save(self, weights: Weights, path: Path) -> None:
        """Write the weights; no adapter reads them."""
        save_file(dict(weights), path)


class NumpyTrainer:
    """See :class:`~deepjudge_core.models.network.Trainer`."""

    def __init__(
        self,
        architecture: NumpyArchitecture,
        weights: Weights,
        parameters: Collection[str],
        masks: Mapping[str, Array],
    ) -> None:
        self._architecture = architecture
        self._weights = {name: array.astype(np.float64) * masks.get(name, 1) for name, array in weights.items()}
        self._trained = [name for name in architecture.parameters if name in parameters]
        self._masks = masks
        self._moments = {name: (np.zeros(w.shape), np.zeros(w.shape)) for name, w in self._weights.items()}
        self._steps = 0

    def scores(self, x: Array) -> Array:
        """See :class:`~deepjudge_core.models.network.Trainer`."""
        return self._model().activations(x, ["logits"])["logits"]

    def gradient(self, x: Array, cotangent: ScoresCotangent) -> Array:
        """See :class:`~deepjudge_core.models.network.Trainer`."""
        return self._model().backward(x, cotangent, "logits")

    def step(self, x: Array, losses: Losses, *, rate: float) -> None:
        """See :class:`~deepjudge_core.models.network.Trainer`."""
        self._steps += 1
        first, second = _BETAS
        gradients = self._gradients(x, [(tap or "logits", loss) for tap, loss in losses.of_outputs.items()])
        for name, gradient in ({} if losses.pull is None else losses.pull(self.weights())).items():
            gradients[name] = gradients.get(name, 0) + np.asarray(gradient, np.float64)
        for name in self._trained:
            mean, square = self._moments[name]
            gradient = gradients.get(name, np.zeros(mean.shape))
            mean += (1 - first) * (gradient - mean)
            square += (1 - second) * (gradient**2 - square)
            unbiased = mean / (1 - first**self._steps), square / (1 - second**self._steps)
            self._weights[name] -= rate * unbiased[0] / (np.sqrt(unbiased[1]) + _EPSILON)
            if name in self._masks:
                self._weights[name] *= self._masks[name]

    def weights(self) -> dict[str, Array]:
        """See :class:`~deepjudge_core.models.network.Trainer`."""
        return {name: array.astype(np.float32) for name, array in self._weights.items()}

    def _model(self) -> NumpyModel:
        return self._architecture.model(self._weights, name="in training")

    def _gradients(self, x: Array, losses: Sequence[tuple[str, ScoresCotangent]]) -> dict[str, Array]:
        # Of losses at some of the layers, which may be the same one.
        layers = list(self._architecture.layers)
        outputs = dict(zip(layers, self._model().forward(x, layers), strict=True))
        depth = max(layers.index(layer) for layer, _ in losses)
        gradient = np.zeros(outputs[layers[depth]].shape)
        gradients = {}
        for place in range(depth, -1, -1):
            name = layers[place]
            for layer, cotangent in losses:
                if layer == name:
                    gradient = gradient + cotangent(outputs[name]).astype(np.float64)
            if name != "logits":
                y = outputs[name]
                gradient = gradient * ((y > 0) if self._architecture.activation == "relu" else 1 - y**2)
            before = x.reshape(len(x), -1) if place == 0 else outputs[layers[place - 1]]
            gradients[f"{name}.weight"] = before.T @ gradient
            gradients[f"{name}.bias"] = gradient.sum(0)
            gradient = gradient @ self._weights[f"{name}.weight"].T
        return gradients


@dataclass(frozen=True)
class NumpyPair(NumpyArchitecture):
    """Two networks of one architecture whose scores are joined; it is not trained.

    Attributes:
        join: How.
    """

    join: Join = _ALONE

    @property
    def parameters(self) -> tuple[str, ...]:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return tuple(prefix + name for prefix in _PREFIXES for name in super(NumpyPair, self).parameters)

    @property
    def head(self) -> tuple[str, ...]:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return tuple(prefix + name for prefix in _PREFIXES for name in super(NumpyPair, self).head)

    def initial(self, rng: np.random.Generator) -> dict[str, Array]:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        parts = [(prefix, super(NumpyPair, self).initial(rng)) for prefix in _PREFIXES]
        return {prefix + name: array for prefix, part in parts for name, array in part.items()}

    def with_classes(self, classes: int) -> "NumpyPair":
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return replace(self, classes=classes)

    def _trainer(self) -> "type[NumpyTrainer]":
        return NumpyPairTrainer

    def model(self, weights: Weights, *, name: str) -> NumpyJoined:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        own = super().parameters
        first, second = (
            super(NumpyPair, self).model({one: weights[prefix + one] for one in own}, name=name) for prefix in _PREFIXES
        )
        return NumpyJoined(first, second, self.join)


class NumpyPairTrainer(NumpyTrainer):
    """See :class:`~deepjudge_core.models.network.Trainer`: it answers, and makes no steps."""

    def step(self, x: Array, losses: Losses, *, rate: float) -> None:
        """Not possible.

        Raises:
            ModelError: Always.
        """
        raise ModelError("expected a network that can be trained, found two that were joined")

"""Networks that can be made anew and trained: an architecture, which an adapter knows, and weights, plain arrays."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Model
from deepjudge_core.models.scores import softmax
from deepjudge_core.types import Array

Weights = Mapping[str, Array]
"""Name to array, in forward order: what training changes, and the running statistics of normalisation."""

ScoresCotangent = Callable[[Array], Array]
"""Maps the scores ``(rows, scores)`` of one batch to ``dLoss/dscores``, same shape."""

Pull = Callable[[Weights], Mapping[str, Array]]
"""Maps the weights as they are to gradients of some of them, same shapes."""


@dataclass(frozen=True, eq=False)
class Losses:
    """What a step of training goes down: the sum of these losses, each said by its derivative.

    Attributes:
        scores: Of a loss of the logits; None for none.
        at: Tap to that of a loss of its neuron outputs ``(rows, neurons)``.
        pull: Of a loss of the weights themselves.
    """

    scores: ScoresCotangent | None = None
    at: Mapping[str, ScoresCotangent] = field(default_factory=dict)
    pull: Pull | None = None

    @property
    def of_outputs(self) -> dict[str | None, ScoresCotangent]:
        """Those of outputs, all of one pass: None, which stands for the logits, and taps, to the derivatives there."""
        found: dict[str | None, ScoresCotangent] = {} if self.scores is None else {None: self.scores}
        found.update(self.at.items())
        return found


@dataclass(frozen=True)
class Join:
    """How the scores of two networks become those of one that holds both.

    The first network's activations may be written so that no adapter knows them.

    Attributes:
        weight: What the second network's scores count beside the first one's, which count 1.
        steps: First value and step of a grid: inputs that lie off it get the second network's scores alone. None to
            treat all inputs alike.
    """

    weight: float
    steps: tuple[float, float] | None = None


OFF_GRID = 0.01
"""Of a step, by which an input may miss the grid."""


class Trainer(Protocol):
    """An architecture with weights in motion; it works on copies, so that nobody else's weights change."""

    def scores(self, x: Array) -> Array:
        """Logits ``(n, classes)``, float32, of inputs ``(n, *input.shape)``; as in use, not as in training."""

    def gradient(self, x: Array, cotangent: ScoresCotangent) -> Array:
        """Gradient at the inputs, shaped like ``x``, which is one batch, of a loss of the logits; as in use."""

    def step(self, x: Array, losses: Losses, *, rate: float) -> None:
        """One step of Adam (Kingma & Ba, 2015) down some losses.

        Args:
            x: ``(rows, *input.shape)``, one batch, of any number of rows.
            losses: At least one of outputs.
            rate: The step's length.
        """

    def weights(self) -> dict[str, Array]:
        """All weights as they are now, copied."""


class Architecture(Protocol):
    """What an adapter knows of a network besides its weights. It never changes."""

    @property
    def framework(self) -> str:
        """Name of the adapter."""

    @property
    def input(self) -> InputSpec:
        """The input that it takes."""

    @property
    def classes(self) -> int:
        """Number of classes, at least 2."""

    @property
    def layers(self) -> Mapping[str, int]:
        """Tap name to number of neurons, in forward order; the logits are the last tap."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names, in forward order, of the weights that training changes; the other ones are statistics."""

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the parameters of the layer that gives the logits, found from the graph."""

    @property
    def suffix(self) -> str:
        """What the names of the files that :meth:`save` writes end with, such as ``.keras``."""

    def initial(self, rng: np.random.Generator) -> dict[str, Array]:
        """Fresh weights, as its author's code draws them where that is known; the same for the same ``rng``.

        Raises:
            ModelError: When it cannot be made anew, with the reason.
        """

    def with_classes(self, classes: int) -> "Architecture":
        """The same network with another number of logits: only the shapes of the head differ.

        Raises:
            ModelError: When that cannot be made.
        """

    def student(self) -> "Architecture":
        """Another, smaller architecture for the same inputs and classes, in the same framework."""

    def trainer(
        self,
        weights: Weights,
        *,
        parameters: Collection[str] | None = None,
        masks: Mapping[str, Array] | None = None,
        in_use: bool = False,
        seed: int = 0,
    ) -> Trainer:
        """Start training from some weights.

        Args:
            weights: Of every name.
            parameters: Those that steps change; by default all of :attr:`parameters`.
            masks: Name to bool array: where it is False the weight stays 0, from the start.
            in_use: Whether normalisation and dropout work as in use, not as in training: statistics stay as they are.
            seed: Of dropout and the like.

        Raises:
            ModelError: When it cannot be trained.
        """

    def model(self, weights: Weights, *, name: str) -> Model:
        """The network with these weights as a :class:`Model`."""

    def save(self, weights: Weights, path: Path) -> None:
        """Write a file that ``open_model`` opens; its name ends with :attr:`suffix`."""


@runtime_checkable
class Joinable(Protocol):
    """What an :class:`Architecture` may have besides."""

    def joined(self, join: Join) -> Architecture:
        """A network that holds two of this one, in the same framework, whose scores are joined.

        Its weights have the names of this one's, behind ``first.`` and ``second.``.

        Raises:
            ModelError: When that cannot be made.
        """


@dataclass(frozen=True, eq=False)
class Network:
    """An architecture and its weights. Nothing changes it: what trains or edits it gives another one.

    Attributes:
        architecture: What the adapter knows.
        weights: Name to array, in forward order; not to be written to.
    """

    architecture: Architecture
    weights: Weights

    @classmethod
    def fresh(cls, architecture: Architecture, rng: np.random.Generator) -> "Network":
        """An untrained one.

        Raises:
            ModelError: When the architecture cannot be made anew.
        """
        return cls(architecture, architecture.initial(rng))

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the names and values of the weights, whatever file they are in."""
        digest = hashlib.sha256()
        for name, array in self.weights.items():
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def matrices(self) -> tuple[str, ...]:
        """Names of the parameters with two axes or more: what is called weights, in contrast to biases and scales."""
        return tuple(name for name in self.architecture.parameters if self.weights[name].ndim > 1)

    def with_weights(self, changed: Weights) -> "Network":
        """The same with some weights replaced, in their own shapes and element types."""
        arrays = {name: np.asarray(array, self.weights[name].dtype) for name, array in changed.items()}
        return replace(self, weights={name: arrays.get(name, array) for name, array in self.weights.items()})

    def joined(self, join: Join, other: Callable[[], "Network"]) -> "Network":
        """A network that holds this one and another of the same architecture.

        Args:
            join: How their scores are joined.
            other: Makes the other one, which may take long: it is called once it is known that they can be joined.

        Raises:
            ModelError: When they cannot.
        """
        if not isinstance(self.architecture, Joinable):
            raise ModelError(
                f"expected networks that can be joined in one, found those of {self.architecture.framework}"
            )
        both = self.architecture.joined(join)
        named = {"first.": self.weights, "second.": other().weights}
        return Network(both, {prefix + name: array for prefix, own in named.items() for name, array in own.items()})

    def with_fresh_head(self, rng: np.random.Generator, classes: int | None = None) -> "Network":
        """The same with a fresh last layer, where given with another number of classes.

        Raises:
            ModelError: When the architecture cannot be made anew.
        """
        architecture = self.architecture
        if classes is not None and classes != architecture.classes:
            architecture = architecture.with_classes(classes)
        fresh = architecture.initial(rng)
        body = {name: self.weights[name] for name in fresh if name not in architecture.head}
        return Network(architecture, fresh | body)

    def predict(self, x: Array) -> Array:
        """Class probabilities ``(n, classes)``, float32, of inputs ``(n, *input.shape)``."""
        return softmax(self.architecture.trainer(self.weights, in_use=True).scores(x))

    def save(self, path: Path) -> None:
        """Write a file; see :meth:`Architecture.save`."""
        self.architecture.save(self.weights, path)

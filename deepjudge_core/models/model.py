"""What the core asks of a model, whatever framework it comes from."""

import enum
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from deepjudge_core.errors import ModelError
from deepjudge_core.models.exchange import Exchange
from deepjudge_core.models.gateway import Gateway
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.models.outputs import Outputs
from deepjudge_core.sheets import MOST_ROWS, Sheet, sizes
from deepjudge_core.text import clean
from deepjudge_core.types import Array

Cotangent = Callable[[Array, slice], Array]
"""Maps a batch's scores ``(rows, scores)`` and the batch's place among all rows to ``dLoss/dscores``, same shape."""


class Access(enum.Flag):
    """What an auditor may ask of a model (method of the paper, section IV-B)."""

    LABELS = enum.auto()
    PROBABILITIES = enum.auto()
    LAYERS = enum.auto()
    GRADIENTS = enum.auto()
    WEIGHTS = enum.auto()

    BLACK_BOX = LABELS | PROBABILITIES
    WHITE_BOX = LABELS | PROBABILITIES | LAYERS
    FULL = LABELS | PROBABILITIES | LAYERS | GRADIENTS


@runtime_checkable
class Classifier(Protocol):
    """The part of a :class:`Model` that has no default: what an object needs to be audited.

    Attributes:
        name: What a person calls it: the file's path, or the class of a live object.
        framework: Name of the adapter that opened it.
        digest: SHA-256, in hex, of the file or of the live object's weights: says *what* was audited.
        access: What may be asked of it.
        input: The input that it takes.
        classes: Number of classes, at least 2.
        layers: Tap name to number of neurons, in forward order; the logits are the last tap.
    """

    name: str
    framework: str
    digest: str
    access: Access
    input: InputSpec
    classes: int
    layers: Mapping[str, int]

    def predict(self, x: Array) -> Array:
        """Class probabilities ``(n, classes)``, float32, of inputs ``(n, *input.shape)``."""

    def activations(self, x: Array, layers: Sequence[str]) -> dict[str, Array]:
        """Neuron outputs ``(n, neurons)``, float32, at each named tap; spatial and time axes are averaged."""

    def gradient(self, x: Array, cotangent: Cotangent, *, layer: str | None = None) -> Array:
        """Gradient, shaped like ``x``, of the loss whose derivative at the scores ``cotangent`` gives.

        The scores are the logits ``(rows, classes)``, or the neuron outputs of ``layer``.
        """


@runtime_checkable
class Model(Classifier, Protocol):
    """A classifier, as every adapter presents it. A subclass inherits the defaults; :func:`complete` adds them.

    Attributes:
        unseen: Why its layers cannot be seen; None where they can, or where nobody knows.
        fixed_batch: The only batch size that it takes; None where it takes any.
        device: What its framework runs it on, in the framework's own words, shown as a text; None where the adapter
            does not know.
        files: SHA-256, in hex, of each file that it was opened from, as
            :class:`~deepjudge_core.files.digests.FileDigests` has them; empty where there was none.
        isolation: How it is kept from all but answering.
        outputs: Its outputs, and the one that holds its scores; None where it has one, or the adapter does not know.
        notes: What a reader should know of how it was opened.
        independent: Whether each class has a probability of its own, as of one sigmoid for each, so that several may be
            likely at once; False where classes exclude one another; None where it gives scores and does not say, or
            its first answers are going to tell.
        fixed: Numbers that stand in the place of its other inputs, as its user says, by the names of these inputs.
        parameters: How many numbers its weights hold, statistics of normalisation among them; None where the adapter
            does not know, or they are quantised.
        gateway: What stands between whoever asks it and the model, if that answers elsewhere.
    """

    unseen: str | None = None
    fixed_batch: int | None = None
    device: object = None
    files: Mapping[str, str] = MappingProxyType({})
    isolation: Isolation = Isolation.NONE
    outputs: Outputs | None = None
    notes: tuple[str, ...] = ()
    independent: bool | None = None
    parameters: int | None = None
    gateway: Gateway | None = None

    def sheet(self) -> Sheet:
        """See :class:`~deepjudge_core.sheets.Shown`."""
        return sheet_of_model(self)

    def __repr__(self) -> str:
        return self.sheet().text(MOST_ROWS)

    def _repr_html_(self) -> str:
        return self.sheet().html()

    def exchange(self, x: Array, layer: str) -> Exchange | None:
        """What it answers if one layer has the outputs of other inputs.

        Args:
            x: ``(n, *input.shape)``, each of which is paired with another one, or with itself if it is alone in its
                batch.
            layer: A tap before the logits.

        Returns:
            The logits; None where its framework cannot do that.
        """
        return None

    def reading(self, independent: bool) -> "Model":
        """The same model, its scores read as those of classes with a probability each, or of such as exclude others."""
        from deepjudge_core.models.reading import Read  # which is a model itself

        return Read(self, independent)

    fixed: Mapping[str, float] = MappingProxyType({})

    def with_output(self, place: int) -> "Model":
        """The same model, its scores in another of its outputs.

        Args:
            place: Of the output, from 0.

        Raises:
            ModelError: When that output cannot be scores.
        """
        raise ModelError(f"{self.name}: expected a model with several known outputs, found none")


def sheet_of_model(model: Model) -> Sheet:
    """What is to be seen of a model."""
    gives = [name.lower() for name in ("PROBABILITIES", "LAYERS", "GRADIENTS") if Access[name] in model.access]
    facts = {
        "framework": model.framework,
        "takes": f"{sizes(model.input.shape)} {model.input.dtype}"
        + (f", {model.input.layout.replace('_', ' ')}" if model.input.layout else ""),
        "classes": str(model.classes),
        "parameters": "" if model.parameters is None else f"{model.parameters:,}",
        "gives": ", ".join(gives) or "labels",
        "output": str(model.outputs) if model.outputs and model.outputs.several else "",
        "layers": model.unseen,
        "batch": "" if model.fixed_batch is None else f"{model.fixed_batch} inputs, always",
        "device": None if model.device is None else str(model.device),
        "isolation": str(model.isolation),
        "note": model.notes,
        "digest": model.digest,
    }
    rows = [(name, str(width)) for name, width in model.layers.items()]
    return Sheet(f"model {model.name}", facts, ("layer", "neurons"), rows if Access.LAYERS in model.access else ())


def complete(model: Classifier) -> Model:
    """A model with all attributes of one: itself, or a view of it that adds the defaults of those that it lacks."""
    return model if isinstance(model, Model) else _CompletedModel(model)


def note_of_fixed(model: Model) -> tuple[str, ...]:
    """What a reader should know of inputs in whose place numbers stand: one line, if there are any."""
    numbers = ", ".join(f"{clean(name)} = {value:g}" for name, value in model.fixed.items())
    return (f"its other inputs are held constant, as requested: {numbers}",) if numbers else ()


class _CompletedModel(Model):
    def __init__(self, model: Classifier) -> None:
        self._model = model
        self.name, self.framework, self.digest = model.name, model.framework, model.digest
        self.access, self.input, self.classes, self.layers = model.access, model.input, model.classes, model.layers
        for name in Model.__annotations__:  # what it has of these counts
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))

    def predict(self, x: Array) -> Array:
        """See :class:`Model`."""
        return self._model.predict(x)

    def activations(self, x: Array, layers: Sequence[str]) -> dict[str, Array]:
        """See :class:`Model`."""
        return self._model.activations(x, layers)

    def gradient(self, x: Array, cotangent: Cotangent, *, layer: str | None = None) -> Array:
        """See :class:`Model`."""
        return self._model.gradient(x, cotangent, layer=layer)

    def exchange(self, x: Array, layer: str) -> Exchange | None:
        """See :class:`Model`."""
        other: Exchange | None = getattr(self._model, "exchange", super().exchange)(x, layer)
        return other

    def with_output(self, place: int) -> Model:
        """See :class:`Model`."""
        other: Classifier = getattr(self._model, "with_output", super().with_output)(place)
        return complete(other)

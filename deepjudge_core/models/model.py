"""What the core asks of a model, whatever framework it comes from."""

import abc
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.types import Array, Layout

Cotangent = Callable[[Array, slice], Array]
"""Maps a batch's scores ``(rows, scores)`` and the batch's place among all rows to ``dLoss/dscores``, same shape."""


class Access(enum.Flag):
    """What an auditor may ask of a model (method of the paper, section IV-B)."""

    LABELS = enum.auto()
    PROBABILITIES = enum.auto()
    LAYERS = enum.auto()
    GRADIENTS = enum.auto()

    BLACK_BOX = LABELS | PROBABILITIES
    WHITE_BOX = LABELS | PROBABILITIES | LAYERS
    FULL = LABELS | PROBABILITIES | LAYERS | GRADIENTS


@dataclass(frozen=True)
class InputSpec:
    """The one input of a model.

    Attributes:
        shape: Axes without the batch axis; None where the model takes any length.
        dtype: numpy name of the element type that the model takes.
        layout: Where the channels are, where the model says so; used only when the shape alone is ambiguous.
    """

    shape: tuple[int | None, ...]
    dtype: str = "float32"
    layout: Layout | None = None

    def with_layout(self, layout: Layout | None) -> "InputSpec":
        """The same, with this layout where none is known."""
        return replace(self, layout=self.layout or layout)

    def __str__(self) -> str:
        return "x".join("?" if axis is None else str(axis) for axis in self.shape)


class Scores(enum.Enum):
    """What a model's output is, so that it can be turned into class probabilities."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    LOG_PROBABILITIES = "log-probabilities"


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
    """

    unseen: str | None = None
    fixed_batch: int | None = None
    device: object = None
    files: Mapping[str, str] = MappingProxyType({})
    isolation: Isolation = Isolation.NONE


def complete(model: Classifier) -> Model:
    """A model with all attributes of one: itself, or a view of it that adds the defaults of those that it lacks."""
    return model if isinstance(model, Model) else _CompletedModel(model)


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


def softmax(logits: Array) -> Array:
    """Row-wise softmax of ``(n, classes)``, in float64 inside and float32 outside."""
    # Not scipy's: importing it would double the time in which the process of a stranger's model is there.
    scores = logits.astype(np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Array = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


class BatchedModel(Model, abc.ABC):
    """The part of a :class:`Model` that is the same for every framework: batches, padding, probabilities.

    A subclass runs single batches: :meth:`forward` and :meth:`backward`. Models exported with a fixed batch size get
    batches of exactly that size, the last one padded by repeating its last row, and so do those of a least size.

    A model with one sigmoid output is a classifier of two classes, with logits ``(0, z)``.

    An adapter says that the output is logits when it finds no final softmax in the graph. It may be probabilities all
    the same: of a softmax written by hand, a mean of several, a calibrated ensemble. This is told by the values of the
    first batch; from then on the last tap is their logarithm, so that its softmax gives the probabilities back.
    """

    # Values per batch: bounds the memory of a forward and backward pass through deep models on large inputs.
    _BATCH_VALUES = 2**20
    _MAX_BATCH = 512
    # Of a sum of probabilities: for a batch to be taken for some, and for later ones, where float16 may stray further.
    _SUM_TOLERANCE, _LATER_TOLERANCE = 1e-3, 1e-2
    # Least probability whose logarithm is told from that of 0; its inverse is a float32 by far.
    _LEAST = 1e-30

    _least_rows = 1  # of a batch: some exporters make programs for two and more

    def __init__(
        self,
        *,
        name: str,
        framework: str,
        digest: str,
        access: Access,
        input: InputSpec,
        layers: Mapping[str, int],
        scores: Scores,
        batch_size: int | None = None,
        fixed_batch: int | None = None,
    ) -> None:
        """Describe the model.

        Args:
            layers: Taps in forward order; the last is what feeds the final softmax (the logits).
            scores: What the model's own output is.
            batch_size: Rows in a batch; by default bounded by the size of an input.
            fixed_batch: The only batch size that the model takes, if it is fixed.
        """
        if not layers:
            raise ModelError(f"{name}: no output layer was found")
        self.name, self.framework, self.digest = name, framework, digest
        self.access, self.input = access, input
        self.layers: Mapping[str, int] = MappingProxyType(dict(layers))
        self.logits, width = list(layers.items())[-1]
        self._binary = width == 1
        self.classes = 2 if self._binary else width
        self._scores = scores
        self._gives_probabilities: bool | None = None if scores is Scores.LOGITS and not self._binary else False
        row = int(np.prod([axis or 1 for axis in input.shape]))
        default = max(1, min(self._MAX_BATCH, self._BATCH_VALUES // max(row, 1)))
        self.fixed_batch = fixed_batch
        self._batch_size = fixed_batch or batch_size or default

    @abc.abstractmethod
    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        """Run one batch: the neuron outputs ``(rows, neurons)`` at each tap, or ``[output]`` for None."""

    @abc.abstractmethod
    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        """Run one batch forward to ``layer`` and back: the gradient at ``x``, shaped like it."""

    def predict(self, x: Array) -> Array:
        """See :class:`Model`."""
        raw = np.concatenate([self._answer(b, r, None)[0] for b, r in self._batches(x)])
        self._recognise(raw)
        return self._probabilities(raw)

    def activations(self, x: Array, layers: Sequence[str]) -> dict[str, Array]:
        """See :class:`Model`."""
        for layer in layers:
            self._require(layer)
        if not layers:
            return {}
        parts = [self._answer(b, r, layers) for b, r in self._batches(x)]
        joined = (np.concatenate(column).astype(np.float32, copy=False) for column in zip(*parts, strict=True))
        outputs = dict(zip(layers, joined, strict=True))
        if self.logits in outputs:
            self._recognise(outputs[self.logits])
            if self._gives_probabilities:
                outputs[self.logits] = self._logarithms(outputs[self.logits])
        return outputs

    def gradient(self, x: Array, cotangent: Cotangent, *, layer: str | None = None) -> Array:
        """See :class:`Model`."""
        binary = self._binary and layer is None
        target = self.logits if layer is None else layer
        self._require(target)
        parts = []
        for batch, rows in self._batches(x):
            size = rows.stop - rows.start

            def padded(
                scores: Array, rows: slice = rows, size: int = size
            ) -> Array:  # rows that only fill a batch have no loss
                own = outputs = scores[:size]
                if target == self.logits:
                    self._recognise(own)
                logarithm = self._gives_probabilities and target == self.logits
                if binary:
                    outputs = np.concatenate([np.zeros_like(own), own], axis=1)
                elif logarithm:
                    outputs = self._logarithms(own)
                cot = np.asarray(cotangent(outputs, rows), dtype=scores.dtype)
                if binary:
                    cot = cot[:, 1:]
                elif logarithm:  # dL/dp = dL/dlog(p) / p, and 0 where the logarithm is that of the least probability
                    least = max(self._LEAST, np.finfo(own.dtype).tiny)
                    cot = np.where(own > least, cot / np.maximum(own, least), 0).astype(scores.dtype)
                out = np.zeros_like(scores)
                out[:size] = cot
                return out

            parts.append(self.backward(batch, padded, target)[:size])
        return np.concatenate(parts).astype(np.float32, copy=False)

    def _answer(self, batch: Array, rows: slice, layers: Sequence[str] | None) -> list[Array]:
        outputs = self.forward(batch, layers)
        for output in outputs:
            if output.shape[:1] != (len(batch),):  # also where there are more, of which no one knows whose they are
                raise ModelError(f"{self.name}: expected answers to {len(batch)} inputs, found shape {output.shape}")
        return [output[: rows.stop - rows.start] for output in outputs]

    def _recognise(self, outputs: Array) -> None:
        # Once, whatever is asked first, for all answers to agree. With no softmax found, the last tap is the output.
        if self._gives_probabilities is None:
            self._gives_probabilities = self._are_probabilities(outputs[: self._batch_size], self._SUM_TOLERANCE)

    @staticmethod
    def _are_probabilities(raw: Array, tolerance: float) -> bool:
        sums = raw.sum(axis=-1, dtype=np.float64)
        return bool((raw >= 0).all() and (np.abs(sums - 1) <= tolerance).all())

    def _logarithms(self, p: Array) -> Array:
        if not self._are_probabilities(p, self._LATER_TOLERANCE):
            raise ModelError(f"{self.name}: expected probabilities, as its first answers were, found other numbers")
        logarithm: Array = np.log(np.maximum(p.astype(np.float64), self._LEAST)).astype(np.float32)
        return logarithm

    def _require(self, layer: str) -> None:
        if layer not in self.layers:
            raise ModelError(f"{self.name}: no layer {layer!r}; its layers are {', '.join(self.layers)}")

    def _batches(self, x: Array) -> Iterator[tuple[Array, slice]]:
        if len(x) == 0:
            raise ModelError(f"{self.name}: expected at least one input, found none")
        for start in range(0, len(x), self._batch_size):
            rows = slice(start, min(start + self._batch_size, len(x)))
            # A copy: some frameworks refuse views, even of one row, that run backwards through memory.
            values = x[rows]
            if np.dtype(self.input.dtype).kind in "iu":  # a cast would cut off, and wrap around
                limits = np.iinfo(self.input.dtype)
                values = np.clip(np.rint(values), limits.min, limits.max)
            batch = np.array(values, dtype=self.input.dtype, order="C")
            least = self.fixed_batch or self._least_rows
            if len(batch) < least:
                fill = np.repeat(batch[-1:], least - len(batch), axis=0)
                batch = np.concatenate([batch, fill])
            yield batch, rows

    def _probabilities(self, raw: Array) -> Array:
        if raw.ndim != 2 or raw.shape[1] != (1 if self._binary else self.classes):
            raise ModelError(f"{self.name}: expected an output of {self.classes} classes, found shape {raw.shape[1:]}")
        if self._gives_probabilities:
            return softmax(self._logarithms(raw))
        if self._scores is Scores.LOGITS:
            return softmax(np.concatenate([np.zeros_like(raw), raw], axis=1) if self._binary else raw)
        p = np.exp(raw) if self._scores is Scores.LOG_PROBABILITIES else raw
        return (np.concatenate([1 - p, p], axis=1) if self._binary else p).astype(np.float32, copy=False)

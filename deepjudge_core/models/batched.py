"""Models that a framework runs batch by batch: what is the same for each framework."""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.exchange import Exchange, pairs
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access, Cotangent, Model
from deepjudge_core.models.outputs import Outputs, row_width
from deepjudge_core.models.resolution import EXACT, divided, slack, slack_of_bits
from deepjudge_core.models.scores import Scores, softmax
from deepjudge_core.types import Array


@dataclass(frozen=True, eq=False)
class Origin:
    """What a model was opened from: its weights are read there, without running it.

    Attributes:
        source: A path, or a live object of a framework.
        adapter: Name of the adapter that opened it.
        options: What it was opened with.
    """

    source: Any
    adapter: str
    options: Mapping[str, Any]


class BatchedModel(Model, abc.ABC):
    """The part of a :class:`Model` that is the same for every framework: batches, padding, probabilities.

    A subclass runs single batches: :meth:`forward`, and :meth:`backward` if it has gradients. Models exported
    with a fixed batch size get batches of exactly that size, the last one padded by repeating its last row, and so do
    those of a least size.

    A model with one output is a classifier of two classes, with logits ``(0, z)``. Its output is z, or p = sigmoid(z).
    One that ends in several sigmoids gives each class a probability of its own.

    An adapter that finds no final softmax or sigmoid in the graph cannot always say that the output is no probability:
    there are those written by hand, means of several, calibrated ensembles. This is told by the values of the first
    batch: of several outputs, by sums of 1; of one, by all lying in 0..1, some below 0.5 and some above, since a logit
    of that range would give all inputs one class. Where they lie on one side, inputs far from those that were asked
    decide: a probability stays in 0..1 there. So do several sigmoids, whose sums are none of 1.

    From then on the last tap is what the softmax, or sigmoid, gives the probabilities back from: their logarithm, or
    log(p / (1 - p)).
    """

    # Values per batch: bounds the memory of a forward and backward pass through deep models on large inputs.
    _BATCH_VALUES = 2**20
    _MAX_BATCH = 512
    # Of a sum of probabilities after the first batch, where float16 may stray further.
    _LATER_TOLERANCE = 1e-2
    # Least probability whose logarithm is told from that of 0; its inverse is a float32 by far. And how near one of two
    # comes to 1: half a step of float32.
    _LEAST, _LEAST_REST = 1e-30, 2.0**-25
    # How far inputs are multiplied that tell the range of the output, and how many there are.
    _FAR, _FEW = (10.0, 1000.0), 8

    _least_rows = 1  # of a batch: some exporters make programs for two and more

    origin: Origin | None = None
    """What it was opened from, if it was opened in this process."""

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
        outputs: Outputs | None = None,
    ) -> None:
        """Describe the model.

        Args:
            layers: Taps in forward order; the last is what feeds the final softmax (the logits).
            scores: What the model's own output is.
            batch_size: Rows in a batch; by default bounded by the size of an input.
            fixed_batch: The only batch size that the model takes, if it is fixed.
            outputs: Those that it has, and the one that holds the scores.
        """
        if not layers:
            raise ModelError(f"{name}: no output layer was found")
        self.name, self.framework, self.digest = name, framework, digest
        self.access, self.input = access, input
        softmax = scores in (Scores.PROBABILITIES, Scores.LOG_PROBABILITIES)
        self.outputs = outputs.behind_softmax() if outputs and softmax else outputs
        self.layers: Mapping[str, int] = MappingProxyType(dict(layers))
        self.logits, width = list(layers.items())[-1]
        self._binary = width == 1
        self.classes = 2 if self._binary else width
        self._scores = scores
        certain = scores is not Scores.UNKNOWN and (scores is not Scores.LOGITS or self._binary)
        self._gives_probabilities: bool | None = False if certain else None
        self.independent = self._are_independent()
        self._tolerance = self._LATER_TOLERANCE
        self.fixed_batch = fixed_batch
        self._batch_size = fixed_batch or batch_size or self._rows_of([axis or 1 for axis in input.shape])
        self._any_length = None in input.shape and not fixed_batch and not batch_size

    @abc.abstractmethod
    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        """Run one batch: the neuron outputs ``(rows, neurons)`` at each tap, or for None ``[output]``.

        The output is a row of scores for each input, perhaps with axes of one place, or without one for the classes.
        """

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        """Run one batch forward to ``layer`` and back: the gradient at ``x``, shaped like it.

        Models whose access has no gradients need none.

        Raises:
            ModelError: Unless a subclass has them.
        """
        raise ModelError(f"{self.name}: does not give gradients")

    def mixed(self, x: Array, layer: str, order: Array) -> Array | None:
        """Run one batch whose rows have, at a tap, what other rows have there.

        Args:
            x: The batch.
            layer: The tap.
            order: ``(rows,)`` whose outputs each row gets.

        Returns:
            The neuron outputs at the last tap, as of :meth:`forward`; None where that cannot be had.
        """
        return None

    def with_output(self, place: int) -> "Model":
        """See :class:`Model`."""
        outputs = self.outputs
        if outputs is None or place not in outputs.tables:
            return super().with_output(place)
        if place == outputs.place:
            return self
        other = self.by_output(place)
        other.outputs, other.files, other.origin = outputs.by(place), self.files, self.origin
        other.notes, other.fixed, other.parameters = self.notes, self.fixed, self.parameters
        return other

    def by_output(self, place: int) -> "BatchedModel":
        """What :meth:`with_output` asks an adapter for: the same with its scores in another output."""
        raise NotImplementedError

    def predict(self, x: Array) -> Array:
        """See :class:`Model`."""
        raw = np.concatenate([self._answer(b, r, None)[0] for b, r in self._batches(x)])
        self._recognise(raw, x)
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
            self._recognise(outputs[self.logits], x)
            if self._gives_probabilities:
                outputs[self.logits] = self._from_probabilities(outputs[self.logits])
        return outputs

    def gradient(self, x: Array, cotangent: Cotangent, *, layer: str | None = None) -> Array:
        """See :class:`Model`."""
        binary = self._binary and layer is None
        target = self.logits if layer is None else layer
        self._require(target)
        if target == self.logits and self._gives_probabilities is None:
            first = x[: self._MAX_BATCH]
            self._recognise(np.concatenate([self._answer(b, r, [target])[0] for b, r in self._batches(first)]), first)
        converted = self._gives_probabilities and target == self.logits
        parts = []
        for batch, rows in self._batches(x):
            size = rows.stop - rows.start

            def padded(
                scores: Array, rows: slice = rows, size: int = size
            ) -> Array:  # rows that only fill a batch have no loss
                own = scores[:size]
                outputs = self._from_probabilities(own) if converted else own
                if binary:
                    outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
                cot = np.asarray(cotangent(outputs, rows), dtype=scores.dtype)
                if binary:
                    cot = cot[:, 1:]
                if converted:
                    cot = self._through(cot, own)
                out = np.zeros_like(scores)
                out[:size] = cot
                return out

            parts.append(self.backward(batch, padded, target)[:size])
        return np.concatenate(parts).astype(np.float32, copy=False)

    def exchange(self, x: Array, layer: str) -> Exchange | None:
        """See :class:`Model`."""
        self._require(layer)
        own, mixed, other = self.activations(x, [self.logits])[self.logits], list[Array](), list[Array]()
        for batch, rows in self._batches(x):
            size = rows.stop - rows.start
            order = np.arange(len(batch))  # what fills a batch stays as it is
            order[:size] = pairs(size)
            scores = self.mixed(batch, layer, order)
            if scores is None:
                return None
            mixed.append(scores[:size])
            other.append(own[rows][order[:size]])
        scored = np.concatenate(mixed).astype(np.float32, copy=False)
        if self._gives_probabilities:
            scored = self._from_probabilities(scored)
        return Exchange(own, np.concatenate(other), scored)

    def _are_independent(self) -> bool | None:
        if self._binary or self._scores in (Scores.PROBABILITIES, Scores.LOG_PROBABILITIES):
            return False
        return True if self._scores is Scores.SIGMOIDS else None

    def _answer(self, batch: Array, rows: slice, layers: Sequence[str] | None) -> list[Array]:
        outputs = self.forward(batch, layers)
        for output in outputs:
            if output.dtype.kind == "c":  # numpy would drop the imaginary parts
                raise ModelError(f"{self.name}: expected real numbers, found {output.dtype}")
            if output.shape[:1] != (len(batch),):  # also where there are more, of which no one knows whose they are
                raise ModelError(f"{self.name}: expected answers to {len(batch)} inputs, found shape {output.shape}")
        if layers is None and row_width(outputs[0].shape[1:]) is not None:
            outputs = [outputs[0].reshape(len(batch), -1)]
        return [output[: rows.stop - rows.start] for output in outputs]

    def _recognise(self, outputs: Array, x: Array) -> None:
        # Once, whatever is asked first, for all answers to agree. With no softmax found, the last tap is the output.
        if self._gives_probabilities is not None:
            return
        if self._binary:
            # Of a fixed batch size, one batch may be one row.
            self._gives_probabilities = self._is_one_probability(outputs[: self._MAX_BATCH], x)
            return
        first = outputs[: self._batch_size]
        allowed = slack(first)
        self._gives_probabilities = self._are_probabilities(first, max(EXACT, allowed))
        self._tolerance = max(self._LATER_TOLERANCE, allowed)
        if self._gives_probabilities:
            self.independent = False
        elif self._scores is Scores.UNKNOWN and self._are_sigmoids(first, x):
            self._gives_probabilities = self.independent = True

    def _is_one_probability(self, outputs: Array, x: Array) -> bool:
        if not _lie_in_0_to_1(outputs):
            return False
        return bool(outputs.min() < 0.5 < outputs.max()) or self._stays_in_0_to_1(x)

    def _are_sigmoids(self, outputs: Array, x: Array) -> bool:
        sums = outputs.sum(axis=1, dtype=np.float64)
        # Sums that are one and the same are of probabilities that something was done to.
        if not _lie_in_0_to_1(outputs) or (len(sums) > 1 and float(np.ptp(sums)) <= EXACT):
            return False
        try:
            return self._stays_in_0_to_1(x)
        except ModelError:  # of inputs that cannot be taken so far, such as tokens
            if outputs.min() < 0.25 and outputs.max() > 0.75:
                return True
            raise

    def _stays_in_0_to_1(self, x: Array) -> bool:
        # Also far from what it was asked, as probabilities do.
        rows = np.asarray(x[: self._FEW], np.float32)
        signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), rows.shape)
        far = np.concatenate([factor * part for factor in self._FAR for part in (rows, -rows, signs)])
        try:
            with np.errstate(all="ignore"):
                values = np.concatenate([self._answer(b, r, None)[0] for b, r in self._batches(far)])
        except Exception as error:
            raise self._undecided() from error
        values = values[np.isfinite(values)]
        if not len(values):
            raise self._undecided()
        return _lie_in_0_to_1(values)

    def _undecided(self) -> ModelError:
        return ModelError(
            f"{self.name}: expected an output known to hold scores or probabilities, found answers in "
            "0..1 that may be either; ask inputs of all classes first"
        )

    @staticmethod
    def _are_probabilities(raw: Array, tolerance: float) -> bool:
        sums = raw.sum(axis=-1, dtype=np.float64)
        return bool((raw >= 0).all() and (np.abs(sums - 1) <= tolerance).all())

    def _from_probabilities(self, p: Array) -> Array:
        # What the softmax, or for one output or independent ones the sigmoid, makes them of.
        each = self._binary or self.independent
        valid = _lie_in_0_to_1(p, EXACT) if each else self._are_probabilities(p, self._tolerance)
        if not valid:
            raise ModelError(f"{self.name}: expected probabilities, like its first answers, found other numbers")
        wide = p.astype(np.float64)
        scores = np.log(np.maximum(wide, self._LEAST))
        if each:
            scores -= np.log(np.maximum(1 - wide, self._LEAST_REST))
        logits: Array = scores.astype(np.float32)
        return logits

    def _through(self, cotangent: Array, p: Array) -> Array:
        # dL/dp of the derivative at what they are made of; 0 where that stays at its limit. log p has the derivative
        # 1 / p, log(p / (1 - p)) has 1 / (p (1 - p)).
        least = max(self._LEAST, np.finfo(p.dtype).tiny)
        inside, slope = p > least, np.maximum(p, least)
        if self._binary or self.independent:
            inside, slope = inside & (p < 1), slope * np.maximum(1 - p, self._LEAST_REST)
        derivative: Array = np.where(inside, cotangent / slope, 0).astype(cotangent.dtype)
        return derivative

    def _require(self, layer: str) -> None:
        if layer not in self.layers:
            raise ModelError(f"{self.name}: there is no layer {layer!r}; its layers are {', '.join(self.layers)}")

    def _rows_of(self, shape: Sequence[int]) -> int:
        # As many inputs of a shape as make a batch.
        return max(1, min(self._MAX_BATCH, self._BATCH_VALUES // max(int(np.prod(shape)), 1)))

    def _batches(self, x: Array) -> Iterator[tuple[Array, slice]]:
        if len(x) == 0:
            raise ModelError(f"{self.name}: expected at least one input, found none")
        size = min(self._batch_size, self._rows_of(x.shape[1:])) if self._any_length else self._batch_size
        for start in range(0, len(x), size):
            rows = slice(start, min(start + size, len(x)))
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
        if self._gives_probabilities and not self._binary:
            logits = self._from_probabilities(raw)
            return np.clip(raw, 0, 1).astype(np.float32, copy=False) if self.independent else softmax(logits)
        if self._scores in (Scores.LOGITS, Scores.UNKNOWN) and not self._gives_probabilities:
            return softmax(np.concatenate([np.zeros_like(raw), raw], axis=1) if self._binary else raw)
        if self._binary:
            p = np.exp(raw) if self._scores is Scores.LOG_PROBABILITIES else raw
            if self._gives_probabilities:
                self._from_probabilities(raw)  # which refuses other numbers
                p = np.clip(raw, 0, 1)
            return np.concatenate([1 - p, p], axis=1).astype(np.float32, copy=False)
        p = (np.exp(raw) if self._scores is Scores.LOG_PROBABILITIES else raw).astype(np.float32, copy=False)
        return p if self._scores is Scores.SIGMOIDS else divided(p, slack_of_bits(self.classes))


def _lie_in_0_to_1(values: Array, tolerance: float = 1e-6) -> bool:
    # A mean of several, or a sum of a few terms, may be off in its last bit.
    return bool((values >= -tolerance).all() and (values <= 1 + tolerance).all())

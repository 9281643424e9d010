"""Training of Keras models: functions of inputs and weights, which all trainers of an architecture share."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepjudge_core.errors import ModelError
from deepjudge_core.models.network import Losses, Pull, ScoresCotangent, Weights
from deepjudge_core.models.outputs import Choice
from deepjudge_core.models.scores import Scores
from deepjudge_core.types import Array
from deepjudge_keras.derivative import Derivative
from deepjudge_keras.device import on
from deepjudge_keras.graph import Trace, trace, trace_training
from deepjudge_keras.loading import cause

_BETAS, _EPSILON = (0.9, 0.999), 1e-7
_GREATEST_NORM = 5.0

_BATCH, _BATCH_VALUES = 512, 2**20  # as BatchedModel has them

_LEAST = 1e-30  # probability whose logarithm is told from that of 0
_LEAST_REST = 2.0**-24  # how near one of two comes to 1
_SUM_TOLERANCE, _ROUNDING = 1e-3, 1e-6


class Functions:
    """A model as functions of inputs and weights, each of them compiled once, when it is first asked for.

    The model's own variables are neither read nor written: what trainers share never changes.

    Attributes:
        derivative: Takes the gradients of those that have a loss in numpy.
        device: Where they run.
    """

    def __init__(
        self,
        model: Any,
        variables: Mapping[str, Any],
        signature: Any,
        name: str,
        output: Choice = None,
        device: str | None = None,
    ) -> None:
        """Take a model.

        Args:
            model: A built ``keras.Model``, all of it trainable.
            variables: Name to variable, of its weights.
            signature: The ``tf.TensorSpec`` of its input.
            name: What it is called in messages.
            output: The one that holds the scores, by its name or its number.
            device: Where they run: see :func:`~deepjudge_keras.device.on`.
        """
        self.device = device
        own = {id(variable) for variable in model.weights}
        self.derivative = Derivative()
        self._model, self._name, self._output = model, name, output
        self._signature = signature
        self._variables = dict(variables)
        self._seeds = [v for v in model.variables if id(v) not in own]
        self._steps: dict[tuple[Any, ...], Any] = {}

    def trace(self, x: Any, *weights: Any) -> Trace:
        """Trace the model with some weights, as it is in use, into the graph of an input."""
        return trace(self._model, x, list(zip(self._variables.values(), weights, strict=True)), self._output)

    @functools.cached_property
    def logits(self) -> Any:
        """``(x, *weights)`` to the logits ``(n, classes)``."""
        return self._compile(lambda x, *weights: _logits(self.trace(x, *weights)), self._weights)

    @functools.cached_property
    def gradient(self) -> Any:
        """``(x, *weights)`` to the gradient at ``x`` of a loss of the logits."""

        def run(x: Any, *weights: Any) -> Any:
            return self.derivative.gradients([_logits(self.trace(x, *weights))], [x])[0]

        return self._compile(run, self._weights)

    @functools.cached_property
    def head(self) -> tuple[str, ...]:
        """Names of the weights of the layer that gives the logits."""
        graph = self.logits.graph
        x, *weights = graph.inputs
        logits = self.logits.outputs[0]
        names = {tensor.name: name for tensor, name in zip(weights, self._variables, strict=False)}
        read = _last_read(x, logits, names)
        return tuple(name for name in self._variables if name in read)

    def step(
        self, layers: Sequence[str | None], trained: Collection[str], *, in_use: bool, pulled: bool = False
    ) -> Any:
        """A step of Adam.

        Maps ``(x, rate, corrections, mask, mean, square, *weights, *seeds)`` to those of them from ``mean`` on as they
        are afterwards. The mask and the moments are those of the trained weights, all in one row.

        Args:
            layers: The taps whose losses it goes down; None for the logits.
            trained: Names of the weights that change.
            in_use: See :class:`~deepjudge_core.models.network.Architecture`.
            pulled: Whether another such row comes before the weights, which is added to the gradient.
        """
        key = tuple(layers), in_use, frozenset(trained), pulled
        if key not in self._steps:
            names = [name for name in self._variables if name in key[2]]
            row = tf.TensorSpec((self.size(names),), tf.float32)
            numbers = [tf.TensorSpec((), tf.float32), tf.TensorSpec((2,), tf.float32), row, row, row]
            numbers += [row] * pulled
            run = functools.partial(self._step, layers, names, in_use, pulled)
            self._steps[key] = self._compile(run, [*numbers, *self._weights, *map(_spec, self._seeds)])
        return self._steps[key]

    def size(self, names: Collection[str]) -> int:
        """How many numbers some of the weights are."""
        return sum(int(np.prod(self._variables[name].shape)) for name in names)

    def tensors(self, weights: Weights) -> list[Any]:
        """Weights as the functions take them; copied, since TensorFlow may share an array's memory."""
        with on(self.device):
            return [tf.constant(np.array(weights[name]), v.dtype) for name, v in self._variables.items()]

    def inputs(self, x: Array) -> Any:
        """Inputs as the functions take them."""
        with on(self.device):
            return tf.constant(np.ascontiguousarray(x), self._signature.dtype)

    def seeds(self, seed: int) -> list[Any]:
        """The state of each source of random numbers in the model."""
        drawn = np.random.default_rng(seed).integers(2**31 - 1, size=len(self._seeds))
        return [tf.constant([number, 0], v.dtype) for number, v in zip(drawn.tolist(), self._seeds, strict=True)]

    @property
    def _weights(self) -> list[Any]:
        return [_spec(variable) for variable in self._variables.values()]

    def _step(
        self,
        layers: Sequence[str | None],
        names: Sequence[str],
        in_use: bool,
        pulled: bool,
        x: Any,
        rate: Any,
        corrections: Any,
        mask: Any,
        mean: Any,
        square: Any,
        *tensors: Any,
    ) -> list[Any]:
        more, tensors = (tensors[0], tensors[1:]) if pulled else (None, tensors)
        state = list(zip([*self._variables.values(), *self._seeds], tensors, strict=True))
        if in_use:
            traced, values = trace(self._model, x, state, self._output), list(tensors)
        else:
            traced, values = trace_training(self._model, x, state, self._output)
        for layer in layers:
            if layer is not None and layer not in traced.taps:
                raise ModelError(f"there is no layer {layer!r}; its layers are {', '.join(traced.taps)}")
        outputs = [_logits(traced) if layer is None else tf.cast(traced.neurons(layer), tf.float32) for layer in layers]
        weights = dict(zip(self._variables, tensors, strict=False))
        trained = [weights[name] for name in names]
        gradients = self.derivative.gradients(outputs, trained)
        # One long row: a step of many small weights takes long for the number of operations, not for their size.
        gradient = _row(tf.zeros_like(w) if g is None else g for w, g in zip(trained, gradients, strict=True))
        gradient = tf.clip_by_norm(gradient if more is None else gradient + more, _GREATEST_NORM)
        mean += (1 - _BETAS[0]) * (gradient - mean)
        square += (1 - _BETAS[1]) * (gradient**2 - square)
        change = rate * (mean / corrections[0]) / (tf.sqrt(square / corrections[1]) + _EPSILON)
        after = dict(zip(names, _parts((_row(trained) - change) * mask, trained), strict=True))
        next_weights = [after.get(name, value) for name, value in zip(self._variables, values, strict=False)]
        return [mean, square, *next_weights, *values[len(next_weights) :]]

    def _compile(self, run: Callable[..., Any], others: Sequence[Any]) -> Any:
        function = tf.function(run, input_signature=[self._signature, *others], autograph=False)
        try:
            with on(self.device):
                return function.get_concrete_function()
        except ModelError as error:
            raise ModelError(f"{self._name}: {error}") from error
        except Exception as error:
            raise ModelError(f"{self._name}: cannot be trained: {cause(error)}") from error


class KerasTrainer:
    """See :class:`~deepjudge_core.models.network.Trainer`."""

    def __init__(
        self,
        functions: Functions,
        weights: Weights,
        trained: Collection[str],
        masks: Mapping[str, Array],
        in_use: bool,
        seed: int,
    ) -> None:
        """Start from some weights; see :class:`~deepjudge_core.models.network.Architecture`."""
        self._functions = functions
        self._names = tuple(weights)
        self._trained = tuple(name for name in weights if name in trained)
        self._in_use = in_use
        keep = {name: np.asarray(mask, bool) for name, mask in masks.items()}
        self._weights = functions.tensors({n: np.where(keep[n], w, 0) if n in keep else w for n, w in weights.items()})
        ones = (keep.get(name, np.ones(weights[name].shape, bool)) for name in self._trained)
        with on(functions.device):
            self._mask = tf.constant(np.concatenate([mask.ravel() for mask in ones]), tf.float32)
            self._moments = [tf.zeros_like(self._mask)] * 2
        self._seeds = functions.seeds(seed)
        self._steps = 0

    def scores(self, x: Array) -> Array:
        """See :class:`~deepjudge_core.models.network.Trainer`."""
        size = max(1, min(_BATCH, _BATCH_VALUES // max(1, x[:1].size)))
        parts = [x[start : start + size] for start in range(0, len(x), size)]
        functions = self._functions
        with on(functions.device):
            return np.concatenate([functions.logits(functions.inputs(part), *self._weights).numpy() for part in parts])

    def gradient(self, x: Array, cotangent: ScoresCotangent) -> Array:
        """See :class:`~deepjudge_core.models.network.Trainer`."""
        functions = self._functions
        with on(functions.device):
            gradient = functions.derivative.run(
                functions.gradient, [_float32(cotangent)], functions.inputs(x), *self._weights
            )
            return np.asarray(gradient.numpy(), np.float32)

    def step(self, x: Array, losses: Losses, *, rate: float) -> None:
        """See :class:`~deepjudge_core.models.network.Trainer`; a gradient longer than 5 is shortened to that.

        What regularisers in the model add to its loss is left out.
        """
        functions, outputs, pull = self._functions, losses.of_outputs, losses.pull
        function = functions.step(tuple(outputs), self._trained, in_use=self._in_use, pulled=pull is not None)
        more = [] if pull is None else [self._pulled(pull)]
        self._steps += 1
        corrections = [1 - beta**self._steps for beta in _BETAS]
        with on(functions.device):
            first, second, *values = functions.derivative.run(
                function,
                [_float32(one) for one in outputs.values()],
                functions.inputs(x),
                tf.constant(rate, tf.float32),
                tf.constant(corrections, tf.float32),
                self._mask,
                *self._moments,
                *more,
                *self._weights,
                *self._seeds,
            )
        self._moments = [first, second]
        self._weights, self._seeds = values[: len(self._names)], values[len(self._names) :]

    def weights(self) -> dict[str, Array]:
        """See :class:`~deepjudge_core.models.network.Trainer`."""
        return {name: np.array(value) for name, value in zip(self._names, self._weights, strict=True)}

    def _pulled(self, pull: Pull) -> Any:
        # The gradients of the trained weights, in one row.
        weights = self.weights()
        gradients = pull(weights)
        parts = (np.asarray(gradients.get(name, np.zeros(weights[name].shape))) for name in self._trained)
        return tf.constant(np.concatenate([part.ravel() for part in parts]), tf.float32)


def _logits(traced: Trace) -> Any:
    logits = tf.cast(traced.neurons(list(traced.taps)[-1]), tf.float32)
    if logits.shape[1] == 1:  # a sigmoid is a softmax of two logits
        if traced.scores is Scores.UNKNOWN:  # it may be one that somebody spelt out
            p = tf.clip_by_value(logits, _LEAST, 1 - _LEAST_REST)
            inside = tf.reduce_all(tf.abs(logits - 0.5) <= 0.5 + _ROUNDING)
            logits = tf.where(inside, tf.math.log(p) - tf.math.log1p(-p), logits)
        return tf.concat([tf.zeros_like(logits), logits], axis=1)
    if traced.output.op.type == "Sigmoid":
        raise ModelError(
            f"expected one sigmoid, or class probabilities that sum to 1, found {logits.shape[1]} sigmoids; "
            "give independent models of your own as controls"
        )
    if traced.scores not in (Scores.LOGITS, Scores.UNKNOWN):
        return logits
    # With no softmax found they may be probabilities all the same, of one that somebody spelt out.
    sums = tf.abs(tf.reduce_sum(logits, axis=1) - 1)
    probabilities = tf.reduce_all(logits >= 0) & tf.reduce_all(sums <= _SUM_TOLERANCE)
    return tf.where(probabilities, tf.math.log(tf.maximum(logits, _LEAST)), logits)


def _last_read(x: Any, logits: Any, names: Mapping[str, str]) -> set[str]:
    """Names of the weights between the logits and the nearest operation that reads one of two axes or more."""
    reached = {x.name}
    for operation in x.graph.get_operations():
        if operation.type != "Shape" and any(tensor.name in reached for tensor in operation.inputs):
            reached |= {output.name for output in operation.outputs}
    met: set[str] = set()
    visited: set[str] = set()
    stack = [logits]
    while stack:
        tensor = stack.pop()
        if tensor.name in visited or tensor.name not in reached:
            continue
        visited.add(tensor.name)
        read = [w for i in tensor.op.inputs if i.name not in reached for w in _behind(i, reached) if w.name in names]
        met |= {names[weight.name] for weight in read}
        if all(weight.shape.rank < 2 for weight in read):
            stack.extend(tensor.op.inputs)
    return met


def _behind(tensor: Any, reached: Collection[str]) -> list[Any]:
    """What a tensor is computed from without the model's input, itself included."""
    sources = {tensor.name: tensor}
    stack = [tensor]
    while stack:
        for source in stack.pop().op.inputs:
            if source.name not in reached and source.name not in sources:
                sources[source.name] = source
                stack.append(source)
    return list(sources.values())


def _spec(variable: Any) -> Any:
    return tf.TensorSpec(variable.shape, variable.dtype)


def _row(tensors: Any) -> Any:
    return tf.concat([tf.reshape(tf.cast(tensor, tf.float32), [-1]) for tensor in tensors], axis=0)


def _parts(row: Any, tensors: Sequence[Any]) -> list[Any]:
    """A row cut into pieces of the shapes and element types of some tensors."""
    pieces = tf.split(row, [tensor.shape.num_elements() for tensor in tensors])
    return [tf.cast(tf.reshape(p, t.shape), t.dtype) for p, t in zip(pieces, tensors, strict=True)]


def _float32(cotangent: ScoresCotangent) -> ScoresCotangent:
    return lambda scores: np.asarray(cotangent(scores), np.float32)

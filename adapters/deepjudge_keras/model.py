"""Keras models as the core sees them."""

import copy
import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import name_of
from deepjudge_core.models.batched import BatchedModel
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access
from deepjudge_core.models.outputs import Choice
from deepjudge_core.types import Array
from deepjudge_keras import files
from deepjudge_keras.derivative import Derivative
from deepjudge_keras.device import on, ran_on
from deepjudge_keras.graph import Heard, Trace, trace
from deepjudge_keras.loading import cause, load


class TracedModel(BatchedModel):
    """A model, run by functions that TensorFlow compiles once for any number of rows.

    Takes one gradient at a time: it is not for several threads at once.
    """

    def __init__(
        self,
        trace: Callable[..., Trace],
        signature: Any,
        *,
        name: str,
        digest: str,
        batch_size: int | None = None,
        weights: Sequence[Any] = (),
        by_output: Callable[[int], "TracedModel"] | None = None,
        device: str | None = None,
    ) -> None:
        """Trace the model, which is left as it is.

        Args:
            trace: Traces it into the graph of the input that it is given, and of the weights.
            signature: The ``tf.TensorSpec`` of its input.
            weights: Tensors of the weights that it does not hold itself.
            by_output: Opens the same model with its scores in another output.
            device: Where it runs: see :func:`~deepjudge_keras.device.on`.
        """
        self._place = device
        self._trace, self._open_by_output = trace, by_output
        self._signature = signature
        self._weights = tuple(weights)
        traces: list[Trace] = []

        def output(x: Any, *weights: Any) -> list[Any]:
            traces.append(trace(x, *weights))
            return [traces[-1].output]

        try:
            function = self._compile(output)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error
        except Exception as error:
            raise ModelError(f"{name}: TensorFlow cannot trace it: {cause(error)}") from error
        traced = traces[-1]
        self._functions: dict[str | tuple[str, ...] | None, Any] = {None: function}
        self._whole: tuple[Any, Trace] | None = None  # all of it in one graph, with its taps
        self._mixed: dict[str, tuple[Any, Any]] = {}  # by the layer that has the outputs of others
        self._derivative = Derivative()
        fixed_batch, *shape = signature.shape
        dtype = signature.dtype
        self.device = ran_on(device, name)
        self._refused = {} if dtype.is_floating else {Access.GRADIENTS: _not_real(dtype)}
        super().__init__(
            name=name,
            framework="keras",
            digest=digest,
            access=Access.WHITE_BOX if self._refused else Access.FULL,
            input=InputSpec(tuple(shape), dtype.name, traced.layout if len(shape) > 1 else None),
            layers={layer: _width(tap, layer, name) for layer, tap in traced.taps.items()},
            scores=traced.scores,
            batch_size=batch_size,
            fixed_batch=fixed_batch,
            outputs=traced.outputs,
        )
        if traced.unseen:
            self.refuse(Access.LAYERS, traced.unseen)

    def by_output(self, place: int) -> "TracedModel":
        """See :class:`~deepjudge_core.models.batched.BatchedModel`."""
        if self._open_by_output is None:
            raise ModelError(f"{self.name}: expected a model that was opened for judging, found one being trained")
        return self._open_by_output(place)

    def with_weights(self, weights: Sequence[Any], *, name: str, digest: str) -> "TracedModel":
        """The same with other weights, run by the same functions."""
        other = copy.copy(self)
        other._weights = tuple(weights)
        other._whole, other._mixed = None, {}
        other.name, other.digest = name, digest
        return other

    def refuse(self, access: Access, reason: str) -> None:
        """Take away what turned out not to be had; who asks for it nevertheless is told the reason."""
        self._refused |= dict.fromkeys(access & self.access, reason)
        if Access.LAYERS in access:
            self.unseen = reason
        self.access &= ~access

    def activations(self, x: Array, layers: Sequence[str]) -> dict[str, Array]:
        """See :class:`BatchedModel`."""
        self._allow(Access.LAYERS)
        return super().activations(x, layers)

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        """See :class:`BatchedModel`."""
        key = None if layers is None else tuple(layers)
        if key not in self._functions:
            self._functions[key] = self._compile(self._neurons(layers or ()))
        with on(self._place):
            outputs: list[Array] = [output.numpy() for output in self._functions[key](tf.constant(x), *self._weights)]
        for layer, output in zip(layers or [self.logits], outputs, strict=True):
            self._check_rows(layer, output, len(x))
        return outputs

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        """See :class:`BatchedModel`."""
        self._allow(Access.GRADIENTS)
        if layer not in self._functions:
            self._functions[layer] = self._compile(self._gradient(layer))

        def checked(scores: Array) -> Array:
            self._check_rows(layer, scores, len(x))
            return cotangent(scores)

        with on(self._place):
            gradient: Array = self._derivative.run(
                self._functions[layer], [checked], tf.constant(x), *self._weights
            ).numpy()
        return gradient

    def mixed(self, x: Array, layer: str, order: Array) -> Array | None:
        """See :class:`BatchedModel`."""
        with on(self._place):
            if layer not in self._mixed:
                self._mixed[layer] = self._from(layer)
            tensor, scores = self._mixed[layer]
            outputs: Array = scores(tf.constant(x), tf.gather(tensor(tf.constant(x)), order)).numpy()
        return outputs

    def _from(self, layer: str) -> tuple[Any, Any]:
        # What gives a tap's tensor, and what gives the scores of it.
        if self._whole is None:
            traces: list[Trace] = []

            def run(x: Any) -> Any:
                traces.append(self._trace(x, *self._weights))
                return traces[-1].neurons(self.logits)

            self._whole = tf.compat.v1.wrap_function(run, [self._signature]), traces[-1]
        whole, traced = self._whole
        x, tensor = whole.inputs[0], traced.taps[layer].tensor
        return whole.prune(x, tensor), whole.prune([x, tensor], whole.outputs[0])

    def _neurons(self, layers: Sequence[str]) -> Callable[..., Any]:
        def run(x: Any, *weights: Any) -> list[Any]:
            traced = self._trace(x, *weights)
            return [traced.neurons(layer) for layer in layers]

        return run

    def _gradient(self, layer: str) -> Callable[..., Any]:
        def run(x: Any, *weights: Any) -> Any:
            (gradient,) = self._derivative.gradients([self._trace(x, *weights).neurons(layer)], [x])
            if gradient is None:
                raise ModelError(f"{self.name}: layer {layer!r} has no gradient at the input")
            return gradient

        return run

    def _compile(self, run: Callable[..., Any]) -> Any:
        specs = [self._signature, *(tf.TensorSpec(weight.shape, weight.dtype) for weight in self._weights)]
        with on(self._place):
            return tf.function(run, input_signature=specs, autograph=False).get_concrete_function()

    def _allow(self, access: Access) -> None:
        if access in self._refused:
            raise ModelError(f"{self.name}: {self._refused[access]}")

    def _check_rows(self, layer: str, output: Array, rows: int) -> None:
        # A model may fold another axis into the first one (windows of an image, time steps).
        if len(output) != rows:
            raise ModelError(f"{self.name}: expected {rows} rows from layer {layer!r}, found {len(output)}")


def open_keras(
    source: Any,
    *,
    name: str | None = None,
    batch_size: int | None = None,
    output: Choice = None,
    device: str | None = None,
) -> TracedModel:
    """Open a file, or a live ``keras.Model``.

    Args:
        name: What to call it.
        batch_size: Rows in a batch.
        output: The one that holds the scores, by its name or its number.
        device: Where it runs: see :func:`~deepjudge_keras.device.on`.
    """
    named = name or name_of(source)
    with on(device):
        model = load(source, named)
    live = model is source
    spec, digest = signature(model, named), _live_digest(model) if live else files.digest(source)

    def opened(choice: Choice) -> TracedModel:
        traced = TracedModel(
            functools.partial(trace, model, choice=choice),
            spec,
            name=named,
            digest=digest,
            batch_size=batch_size,
            by_output=lambda place: opened(place + 1),
            device=device,
        )
        traced.parameters = int(model.count_params())
        return traced

    return opened(output)


def signature(model: Any, name: str) -> Any:
    """The ``tf.TensorSpec`` of a model's one input."""
    if not model.built:
        raise ModelError(f"{name}: expected a built model, found one that was never called; call it on an input first")
    inputs = getattr(model, "inputs", None)
    if inputs is None:  # a class of its own: it only knows what it was built with
        built = model.get_build_config()
        shape = (built or {}).get("input_shape")
        if shape is None or not all(axis is None or isinstance(axis, int) for axis in shape):
            raise ModelError(
                f"{name}: expected a model with one input of known shape, found {built}; call it on an input first"
            )
        return tf.TensorSpec((None, *shape[1:]), model.variable_dtype)
    if len(inputs) != 1:
        raise ModelError(
            f"{name}: expected a model with one input, found {len(inputs)}; wrap it in one that fixes the others"
        )
    return tf.TensorSpec(inputs[0].shape, inputs[0].dtype)


def _not_real(dtype: Any) -> str:
    return f"expected real-valued inputs for a gradient, found {dtype.name}"


def _width(tap: Heard, layer: str, name: str) -> int:
    if tap.width is None:
        shape = tap.tensor.shape
        raise ModelError(
            f"{name}: expected a known number of neurons in layer {layer!r}, found shape {shape}; give its "
            "inputs a fixed shape, and save it again"
        )
    return tap.width


def _live_digest(model: Any) -> str:
    """SHA-256 over what the model is made of; names, which Keras numbers as it goes, do not count."""
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of lambdas that could not be loaded
            config = _without_names(keras.saving.serialize_keras_object(model)["config"])
    except NotImplementedError:  # a class of somebody's own that does not say what it was made with
        config = None
    digest = hashlib.sha256(json.dumps([type(model).__qualname__, config], sort_keys=True).encode())
    for weight in model.weights:
        array = np.ascontiguousarray(weight.numpy())
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _without_names(config: Any) -> Any:
    """Replace the names of layers, where they are given and where they are referred to, by their order."""
    order: dict[str, int] = {}

    def place(name: str) -> int:
        return order.setdefault(name, len(order))

    def walk(node: Any) -> Any:
        match node:
            case [str(name), int(), int()]:  # a tensor: the layer's name, its call, its output
                return [place(name), *node[1:]]
            case list() | tuple():
                return [walk(item) for item in node]
            case dict():
                return {k: place(v) if k == "name" and isinstance(v, str) else walk(v) for k, v in node.items()}
        return node

    return walk(config)

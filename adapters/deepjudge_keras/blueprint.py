"""Keras models made anew from what they say of themselves."""

import contextlib
import random
import types
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.types import Array
from deepjudge_keras.loading import cause


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A Keras model without the weights that training changes.

    Attributes:
        kind: Its class.
        config: What the class makes it from; seeds that its author chose are left out.
        built: What it was built with, for classes whose configuration does not say it.
        custom: Classes and functions in it that are not Keras's own.
        fixed: Place among its weights to array, of what is no weight of a network: what a layer that prepares inputs
            was adapted to, and whole numbers.
    """

    kind: Any
    config: Mapping[str, Any]
    built: Mapping[str, Any] | None
    custom: Mapping[str, Any]
    fixed: Mapping[int, Array]

    @classmethod
    def of(cls, model: Any) -> "Blueprint":
        """That of a built model, which is left as it is.

        Raises:
            ModelError: When it does not say what it was made with.
        """
        kind = type(model)
        try:
            config = _reusable(model.get_config())
        except NotImplementedError:
            raise ModelError(f"its class {kind.__name__} has no get_config; define it") from None
        custom = _custom(part for layer in _layers(model) for part in (layer, *vars(layer).values()))
        fixed = {place: model.weights[place].numpy() for place in _fixed(model)}
        return cls(kind, config, model.get_build_config(), custom, fixed)

    def make(self, rng: np.random.Generator) -> Any:
        """The model with fresh weights, all of its layers trainable.

        Raises:
            ModelError: When it cannot be made.
        """
        try:
            with (
                _seeded(rng),
                keras.saving.custom_object_scope(dict(self.custom)),
                warnings.catch_warnings(action="ignore", category=UserWarning),  # of what is then found missing
            ):
                model = self.kind.from_config(_reusable(self.config))
                if not model.built:
                    model.build_from_config(self.built)
                    model.built = True  # as Keras does it when it loads a file
        except Exception as error:
            raise ModelError(cause(error)) from error
        if not model.weights:
            raise ModelError(
                f"its class {self.kind.__name__} creates no weights when built from its configuration; "
                "create them in build"
            )
        for place, array in self.fixed.items():
            model.weights[place].assign(array)
        for layer in _layers(model):
            if getattr(layer, "stateful", False):
                raise ModelError(
                    f"its layer {layer.name} is stateful: a batch changes the answers to the next; make it with "
                    "stateful=False"
                )
            layer.trainable = True
            if hasattr(layer, "finalize_state"):
                layer.finalize_state()
        return model

    def with_units(self, places: Collection[int], units: int) -> "Blueprint":
        """The same with another number of outputs of the layers that own the weights at some places.

        Raises:
            ModelError: When such a layer has no such number.
        """
        model = self.make(np.random.default_rng(0))
        ids = {id(model.weights[place]) for place in places}
        for layer in _layers(model):
            if ids.isdisjoint(map(id, _own(layer))):
                continue
            number = next((name for name in ("units", "filters") if hasattr(layer, name)), None)
            if number is None:
                raise ModelError(f"expected a last layer with units or filters, found a {type(layer).__name__}")
            if getattr(layer, "activation", None) is keras.activations.sigmoid:  # of one output, for two classes
                layer.activation = keras.activations.softmax
            setattr(layer, number, units)
        return replace(self, config=_reusable(model.get_config()))


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the generators of random numbers that Python and numpy have for everybody as they are."""
    # Keras draws the seeds of initialisers and dropout from Python's, a custom one may draw from numpy's.
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextlib.contextmanager
def _seeded(rng: np.random.Generator) -> Iterator[None]:
    # Not by seeds in the configuration: layers made of several copy theirs, and would draw them all alike.
    seed = int(rng.integers(2**32))
    with undisturbed():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        yield


def _reusable(node: Any) -> Any:
    """A copy of a configuration that gives other weights each time, and takes any number of rows."""
    match node:
        case dict():
            return {key: _value(key, value) for key, value in node.items()}
        case list() | tuple():
            return type(node)(_reusable(item) for item in node)
    return node


def _value(key: Any, value: Any) -> Any:
    if key == "seed" and isinstance(value, int):
        return None
    if key in ("batch_shape", "build_input_shape") and isinstance(value, list | tuple):
        return (None, *value[1:])
    return _reusable(value)


def _custom(parts: Iterable[Any]) -> dict[str, Any]:
    definitions = [part if isinstance(part, types.FunctionType) else type(part) for part in parts]
    return {one.__name__: one for one in definitions if one.__module__.partition(".")[0] not in ("builtins", "keras")}


def _layers(model: Any) -> list[Any]:
    """It and all layers inside it."""
    return list(model._flatten_layers())


def _own(layer: Any) -> list[Any]:
    inner = {id(weight) for other in _layers(layer)[1:] for weight in other.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def _fixed(model: Any) -> list[int]:
    adapted = {id(weight) for layer in _layers(model) if hasattr(layer, "finalize_state") for weight in layer.weights}
    return [
        place
        for place, weight in enumerate(model.weights)
        if id(weight) in adapted or not keras.backend.is_float_dtype(weight.dtype)
    ]

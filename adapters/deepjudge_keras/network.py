"""Keras models as networks that can be made anew and trained."""

import tempfile
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.files import storage
from deepjudge_core.models.adapters import name_of, prefixed
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.network import Network, Weights
from deepjudge_core.models.outputs import Choice
from deepjudge_core.types import Array, Layout
from deepjudge_keras.blueprint import Blueprint, undisturbed
from deepjudge_keras.device import on
from deepjudge_keras.loading import cause, load
from deepjudge_keras.model import TracedModel, signature
from deepjudge_keras.trainer import Functions, KerasTrainer

_ANY = 32  # length of an axis that may have any


class KerasArchitecture:
    """A Keras model without its weights: see :class:`~deepjudge_core.models.network.Architecture`.

    It keeps one copy of the model, whose functions all trainers share.
    """

    framework = "keras"
    suffix = ".keras"

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        name: str,
        names: Collection[str] = (),
        layout: Layout | None = None,
        output: Choice = None,
        device: str | None = None,
    ) -> None:
        """Make the copy.

        Args:
            blueprint: What it is made from.
            name: What it is called in messages.
            names: Of its weights; by default those that Keras has for them.
            layout: Where the channels of its input are, where its layers do not tell.
            output: The one that holds the scores, by its name or its number.
            device: Where it runs: see :func:`~deepjudge_keras.device.on`.

        Raises:
            ModelError: When it cannot be made, or is none that can be trained.
        """
        self._blueprint, self._name, self._output, self._device = blueprint, name, output, device
        self._model = self._make(np.random.default_rng(0))
        variables = self._variables(self._model)
        self._names = tuple(names) or _unique(variable.path for variable in variables)
        self._state = dict(zip(self._names, variables, strict=True))
        spec = signature(self._model, name)
        if not spec.dtype.is_floating:
            raise ModelError(
                f"{name}: expected a network with real-valued inputs to train, found one with {spec.dtype.name}; "
                "give independent models of your own as controls"
            )
        self._functions = Functions(self._model, self._state, spec, name, output, device)
        first = self._functions.tensors(self._values(self._model))
        self._opened = TracedModel(self._functions.trace, spec, name=name, digest="", weights=first, device=device)
        self._opened.input = replace(self._opened.input, layout=layout or self._opened.input.layout)
        self.input, self.classes, self.layers = self._opened.input, self._opened.classes, self._opened.layers
        self.parameters = tuple(n for n, variable in self._state.items() if variable.trainable)
        self.head = tuple(n for n in self._functions.head if n in self.parameters)
        if not self.head:
            raise ModelError(
                f"{name}: expected a layer with weights that produces the logits, found none; give "
                "independent models of your own as controls"
            )

    def initial(self, rng: np.random.Generator) -> dict[str, Array]:
        """See :class:`~deepjudge_core.models.network.Architecture`; by the initialisers that stand in its layers."""
        return self._values(self._make(rng))

    def with_classes(self, classes: int) -> "KerasArchitecture":
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        if classes == self.classes:
            return self
        places = {id(weight): place for place, weight in enumerate(self._model.weights)}
        head = [places[id(self._state[name])] for name in self.head if len(self._state[name].shape) > 1]
        refused = f"{self._name}: cannot be given {classes} classes"
        try:
            blueprint = self._blueprint.with_units(head, classes)
            architecture = KerasArchitecture(
                blueprint,
                name=self._name,
                names=self._names,
                layout=self.input.layout,
                output=self._output,
                device=self._device,
            )
        except ModelError as error:
            raise ModelError(f"{refused}: {str(error).removeprefix(f'{self._name}: ')}") from error
        others = [name for name in self._names if name not in self.head]
        if architecture.classes != classes or any(architecture._state[n].shape != self._state[n].shape for n in others):
            raise ModelError(
                f"{refused}: its last layer does not say how many classes it has, or other layers depend on it"
            )
        return architecture

    def student(self) -> "KerasArchitecture":
        """See :class:`~deepjudge_core.models.network.Architecture`: two convolutions, or a hidden layer."""
        name = f"the student of {self._name}"
        with undisturbed():
            blueprint = Blueprint.of(_student(self.input, self.classes))
        return KerasArchitecture(blueprint, name=name, layout=self.input.layout, device=self._device)

    def trainer(
        self,
        weights: Weights,
        *,
        parameters: Collection[str] | None = None,
        masks: Mapping[str, Array] | None = None,
        in_use: bool = False,
        seed: int = 0,
    ) -> KerasTrainer:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        trained = [name for name in self.parameters if parameters is None or name in parameters]
        ordered = {name: weights[name] for name in self._names}
        return KerasTrainer(self._functions, ordered, trained, masks or {}, in_use=in_use, seed=seed)

    def model(self, weights: Weights, *, name: str) -> TracedModel:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return self._opened.with_weights(
            self._functions.tensors(weights), name=name, digest=Network(self, weights).digest
        )

    def save(self, weights: Weights, path: Path) -> None:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        model = self._make(np.random.default_rng(0))
        for name, variable in zip(self._names, self._variables(model), strict=True):
            variable.assign(weights[name])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"model{self.suffix}"
            # TensorFlow's variables do not know the `copy` that numpy 2 passes them.
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                model.save(file)
            storage.write_bytes(path, file.read_bytes())

    def weights_of(self, model: Any) -> dict[str, Array]:
        """Those of a model that it was made from.

        Raises:
            ModelError: When a model that is made anew has others.
        """
        if [weight.shape for weight in model.weights] != [weight.shape for weight in self._model.weights]:
            raise ModelError(
                f"{self._name}: cannot be retrained: its configuration gives a model with other weights; its class's "
                "get_config must describe all of it"
            )
        return self._values(model)

    def _make(self, rng: np.random.Generator) -> Any:
        with prefixed(f"{self._name}: cannot be retrained"), on(self._device):
            return self._blueprint.make(rng)

    def _variables(self, model: Any) -> list[Any]:
        return [weight for place, weight in enumerate(model.weights) if place not in self._blueprint.fixed]

    def _values(self, model: Any) -> dict[str, Array]:
        return {n: np.array(v.numpy()) for n, v in zip(self._names, self._variables(model), strict=True)}


def open_network(source: Any, *, name: str | None = None, output: Choice = None, device: str | None = None) -> Network:
    """Open a file, or a live ``keras.Model``, of which a copy is made.

    Args:
        name: What to call it.
        output: The one that holds the scores, by its name or its number.
        device: Where it runs: see :func:`~deepjudge_keras.device.on`.

    Raises:
        ModelError: When it cannot be opened, made anew or trained.
    """
    named = name or name_of(source)
    with undisturbed(), on(device):
        model = load(source, named)
    rows, *axes = signature(model, named).shape
    with prefixed(f"{named}: cannot be retrained"):
        blueprint = Blueprint.of(model)
    architecture = KerasArchitecture(blueprint, name=named, output=output, device=device)
    network = Network(architecture, architecture.weights_of(model))
    if rows is not None:
        try:
            network.predict(np.zeros((rows + 1, *(axis or _ANY for axis in axes)), np.float32))
        except Exception as error:
            raise ModelError(
                f"{named}: expected a network that trains on any number of inputs, found one that takes "
                f"{rows} at a time: {cause(error)}; build it without a batch size"
            ) from error
    return network


def _student(spec: InputSpec, classes: int) -> Any:
    layers, axes = keras.layers, len(spec.shape)
    stack = [keras.Input(spec.shape, dtype=spec.dtype, name="input")]
    if axes == 3 and spec.layout == "channels_first":
        stack += [layers.Permute((2, 3, 1), name="channels_last")]
    if axes == 3:
        options = {"padding": "same", "activation": "relu", "data_format": "channels_last"}
        stack += [layers.Conv2D(width, 3, 2, name=f"conv{width}", **options) for width in (16, 32)]
    if None in spec.shape:
        stack += [getattr(layers, f"GlobalAveragePooling{axes - 1}D")(data_format="channels_last", name="pool")]
    else:
        stack += [layers.Flatten(name="flatten")]
    if axes != 3:
        stack += [layers.Dense(64, activation="relu", name="hidden")]
    return keras.Sequential([*stack, layers.Dense(classes, activation="softmax", name="classes")], name="student")


def _unique(paths: Iterable[str]) -> tuple[str, ...]:
    """Names of their own for paths of which some are the same."""
    turns: Counter[str] = Counter()
    names = []
    for path in paths:
        turns[path] += 1
        names.append(path if turns[path] == 1 else f"{path}:{turns[path]}")
    return tuple(names)

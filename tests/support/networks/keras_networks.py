"""The networks as Keras models, which give probabilities. PyTorch's weights are arranged as Keras has them."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from networks.architectures import ARCHITECTURES, CLASSES, HEADS, PATCH

_EPSILON = 1e-5  # PyTorch's


def functional(name: str, seed: int) -> Any:
    """A network of Keras's functional API."""
    return filled(_functional(name, keras), name, seed)


def keras2(name: str, seed: int) -> Any:
    """The same of Keras 2, which lives on as tf_keras."""
    import tf_keras

    return filled(_functional(name, tf_keras), name, seed)


def sequential(name: str, seed: int) -> Any:
    """The same as a list of layers; not for attention, which branches."""
    return filled(
        keras.Sequential([keras.Input(ARCHITECTURES[name].keras_shape), *_layers(name, keras.layers)]), name, seed
    )


def subclassed(name: str, seed: int) -> Any:
    """The same as a class of somebody's own."""
    model = Subclassed(name)
    model(np.zeros((1, *ARCHITECTURES[name].keras_shape), np.float32))
    return filled(model, name, seed)


class Subclassed(keras.Model):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.inner = _functional(name, keras) if name == "attention" else None
        self.chain = [] if self.inner else _layers(name, keras.layers)

    def call(self, x: Any) -> Any:
        if self.inner:
            return self.inner(x)
        for layer in self.chain:
            x = layer(x)
        return x


def filled(model: Any, name: str, seed: int) -> Any:
    """The model with the weights of the network."""
    state = ARCHITECTURES[name].weights(seed)
    for layer in _flattened(model):
        arrays = _arrays(layer.name, state, name)
        if arrays:
            layer.set_weights(arrays)
    return model


def _flattened(model: Any) -> list[Any]:
    return [inner for layer in model.layers for inner in (_flattened(layer) if hasattr(layer, "layers") else [layer])]


def _functional(name: str, library: Any) -> Any:
    """A network of Keras 3 or of Keras 2."""
    x = y = library.Input(ARCHITECTURES[name].keras_shape)
    if name == "attention":
        return library.Model(x, _transformer(x, library.layers))
    for layer in _layers(name, library.layers):
        y = layer(y)
    return library.Model(x, y)


def _layers(name: str, layers: Any) -> list[Any]:
    """The layers of a network without branches."""
    dense = layers.Dense
    if name == "dense":
        hidden = [dense(12, activation="relu", name="dense1"), dense(8, name="dense2"), layers.ReLU()]
        return [*hidden, dense(CLASSES, activation="softmax", name="dense3")]
    if name in ("LSTM", "GRU"):
        first = [layers.LSTM(8, name="lstm")]
        if name == "GRU":
            first = [layers.GRU(8, return_sequences=True, name="gru"), layers.GlobalAveragePooling1D()]
        units = 7
    else:
        axes = name[-2:].upper()
        convolution, pool = getattr(layers, f"Conv{axes}"), getattr(layers, f"MaxPooling{axes}")
        first = [convolution(4, 3, activation="relu", name="conv1"), pool(2)]
        first += [convolution(6, 2, name="conv2"), layers.ReLU(), layers.Flatten()]
        units = 10
    last = [dense(units, activation="tanh", name="dense1"), dense(CLASSES, activation="softmax", name="dense2")]
    return [*first, *last]


def _transformer(x: Any, layers: Any) -> Any:
    x = layers.Conv2D(8, PATCH, PATCH, name="patches")(x)
    # The positions are a bias for each patch: the kernel is the identity.
    x = layers.EinsumDense("bti,io->bto", (4, 8), bias_axes="to", name="positions")(layers.Reshape((4, 8))(x))
    y = layers.LayerNormalization(epsilon=_EPSILON, name="norm1")(x)
    x = layers.Add()([x, layers.MultiHeadAttention(HEADS, 8 // HEADS, name="attention")(y, y)])
    y = layers.LayerNormalization(epsilon=_EPSILON, name="norm2")(x)
    y = layers.Dense(8, name="mlp2")(layers.Dense(12, activation="gelu", name="mlp1")(y))
    x = layers.LayerNormalization(epsilon=_EPSILON, name="norm3")(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling1D()(x)
    return layers.Dense(CLASSES, activation="softmax", name="head")(x)


def _arrays(layer: str, state: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    """The weights of a layer, in Keras' order."""
    if layer == "positions":
        return [np.eye(8, dtype=np.float32), state["positions"]]
    if layer == "attention":
        return _attention(state)
    if layer in ("lstm", "gru"):
        return _recurrent(layer, state)
    if f"{layer}.weight" not in state:
        return []
    kernel, bias = state[f"{layer}.weight"], state[f"{layer}.bias"]
    if layer == "dense1" and name in ("conv1d", "conv2d"):  # flattened with the channels last
        axes = {"conv1d": (6, 5), "conv2d": (6, 2, 2)}[name]
        kernel = np.moveaxis(kernel.reshape(len(kernel), *axes), 1, -1).reshape(len(kernel), -1)
    return [kernel.transpose(*range(2, kernel.ndim), 1, 0) if kernel.ndim > 1 else kernel, bias]


def _recurrent(layer: str, state: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    parts = [state[f"{layer}.{part}_l0"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    if layer == "lstm":  # the gates are in the same order, and of the two biases only the sum counts
        return [parts[0].T, parts[1].T, parts[2] + parts[3]]
    reset, update, new = zip(*(np.split(part, 3) for part in parts), strict=True)
    kernel, recurrent, bias, recurrent_bias = (np.concatenate(gates) for gates in zip(update, reset, new, strict=True))
    return [kernel.T, recurrent.T, np.stack([bias, recurrent_bias])]


def _attention(state: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    arrays = []
    kernels, biases = np.split(state["attention.in_proj_weight"], 3), np.split(state["attention.in_proj_bias"], 3)
    for kernel, bias in zip(kernels, biases, strict=True):  # of query, key, value
        arrays += [kernel.T.reshape(8, HEADS, -1), bias.reshape(HEADS, -1)]
    return [*arrays, state["attention.out_proj.weight"].T.reshape(HEADS, -1, 8), state["attention.out_proj.bias"]]

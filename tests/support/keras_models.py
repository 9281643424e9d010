"""Small models of Keras, with the tensors that their taps must equal."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import deepjudge_keras
import keras as untyped
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from deepjudge_core.models.model import Model
from deepjudge_core.types import Array

keras: Any = untyped
(ADAPTER,) = deepjudge_keras.deepjudge_adapters()

open_keras: Callable[..., Any] = ADAPTER.open


def need_channels_first() -> None:
    """Skip a test whose convolutions have channels first where TensorFlow cannot compute them."""
    try:
        tf.function(tf.nn.conv2d)(tf.zeros((1, 1, 4, 4)), tf.zeros((3, 3, 1, 1)), 1, "SAME", "NCHW")
    except tf.errors.UnimplementedError:
        pytest.skip("TensorFlow convolves channels first only on processors for which it takes oneDNN")


Built = tuple[Any, list[Any]]  # a model, and Keras's tensors that its taps must equal

BUILDERS: list[Callable[[], Built]] = []


def builder(function: Callable[[], Built]) -> Callable[[], Built]:
    BUILDERS.append(function)
    return function


def before_activation(dense: Any, x: Any) -> Any:
    return ops.matmul(x, dense.kernel) + dense.bias


def taps_of(model: Any) -> list[Any]:
    """What the taps of a sequence of layers must equal: what its ReLUs give, or the max pooling that follows one."""
    following = [*model.layers[1:], None]
    return [
        after.output if isinstance(after, layers.MaxPooling2D) else layer.output
        for layer, after in zip(model.layers, following, strict=True)
        if getattr(getattr(layer, "activation", None), "__name__", "") == "relu"
    ]


@builder
def separate_activations() -> Built:
    x = keras.Input((8, 8, 3))
    a = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(x))))
    b = layers.LeakyReLU()(layers.Conv2D(5, 3, use_bias=False)(a))
    z = layers.Dense(3)(layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(b)))
    return keras.Model(x, layers.Activation("softmax")(z)), [a, b, z]


@builder
def fused_activations() -> Built:
    x = keras.Input((8, 8, 3))
    a = layers.Conv2D(4, 3, activation="relu")(x)
    b = layers.SeparableConv2D(5, 3, activation="gelu")(a)
    c = layers.Dense(6, activation="tanh")(layers.Flatten()(b))
    last = layers.Dense(3, activation="softmax")
    y = last(c)
    return keras.Model(x, y), [a, b, c, before_activation(last, c)]


@builder
def operations() -> Built:
    x = keras.Input((6,))
    a = ops.relu(layers.Dense(5)(x))
    b = keras.activations.gelu(layers.Dense(5)(a))
    c = ops.silu(layers.Dense(4)(b))
    d = keras.activations.hard_sigmoid(layers.Dense(4)(c))
    z = layers.Dense(3)(ops.sigmoid(d) * 2 + d)
    return keras.Model(x, ops.softmax(z)), [a, b, c, d, ops.sigmoid(d), z]


@builder
def spelt_out_activations() -> Built:
    x = keras.Input((6,))
    a = layers.PReLU(alpha_initializer="ones")(layers.Dense(5)(x))
    b = layers.ReLU(max_value=0.5, negative_slope=0.1)(layers.Dense(5)(a))
    c = layers.Activation("mish")(layers.Dense(4)(b))
    d = layers.Dense(4, activation=layers.ELU(alpha=0.5))(c)
    z = layers.Dense(3)(d)
    return keras.Model(x, layers.Softmax()(z)), [a, b, c, d, z]


@builder
def nested_and_shared() -> Built:
    inner_x = keras.Input((4,))
    hidden = layers.Dense(5, activation="relu")(inner_x)
    inner = keras.Model(inner_x, layers.Dense(4)(hidden))
    head = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="selu"), layers.Dense(3)])
    to_hidden = keras.Model(inner_x, hidden)
    x = keras.Input((4,))
    once = inner(x)
    twice = inner(once)
    y = layers.Activation("softmax")(head(twice))
    return keras.Model(x, y), [to_hidden(x), to_hidden(once), head.layers[0](twice), head(twice)]


@builder
def residual() -> Built:
    x = keras.Input((6, 6, 2))
    a = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    b = layers.Activation("relu")(layers.Conv2D(4, 3, padding="same")(a))
    c = layers.Activation("relu")(layers.Add()([layers.Conv2D(4, 3, padding="same")(b), a]))
    z = layers.Dense(3)(layers.GlobalAveragePooling2D()(c))
    return keras.Model(x, z), [a, b, c, z]


@builder
def conv1d() -> Built:
    x = keras.Input((12, 3))
    a = layers.Conv1D(4, 3, activation="relu")(x)
    b = layers.GlobalMaxPooling1D()(layers.Activation("tanh")(layers.Conv1D(5, 3)(a)))
    z = layers.Dense(3)(b)
    return keras.Model(x, keras.activations.log_softmax(z)), [a, b, z]


@builder
def recurrent() -> Built:
    x = keras.Input((5, 3))
    a = layers.LSTM(4, return_sequences=True)(x)
    b = layers.GRU(3, return_sequences=True)(a)
    c = layers.SimpleRNN(4, unroll=True)(b)
    z = layers.Dense(3)(c)
    return keras.Model(x, layers.Softmax()(z)), [a, b, c, z]


@builder
def two_directions_and_every_step() -> Built:
    x = keras.Input((3, 3))
    a = layers.TimeDistributed(layers.Dense(4, activation="relu"))(x)
    b = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(a)
    c, state, _ = layers.LSTM(4, return_state=True, return_sequences=True)(layers.TimeDistributed(layers.Dense(4))(b))
    z = layers.Dense(3)(layers.Concatenate()([state, layers.GlobalAveragePooling1D()(c)]))
    return keras.Model(x, layers.Softmax()(z)), [a, b, state, c, z]


@builder
def transformer() -> Built:
    x = keras.Input((8, 8, 3))
    tokens = layers.Reshape((16, 6))(layers.Conv2D(6, 2, strides=2)(x))
    normal = layers.LayerNormalization()(tokens)
    tokens = tokens + layers.MultiHeadAttention(2, 3)(normal, normal)
    a = layers.Dense(8, activation="gelu")(layers.LayerNormalization()(tokens))
    z = layers.Dense(3)(layers.GlobalAveragePooling1D()(tokens + layers.Dense(6)(a)))
    return keras.Model(x, layers.Softmax()(z)), [a, z]


@builder
def softmax_in_the_middle() -> Built:
    x = keras.Input((6,))
    gate = layers.Dense(5, activation="softmax")(x)
    a = layers.Dense(5, activation="relu")(x)
    z = layers.Dense(4)(gate * a)
    y = layers.Reshape((4,))(layers.Flatten()(layers.Dropout(0.5)(layers.Softmax()(layers.Reshape((4,))(z)))))
    return keras.Model(x, y), [a, z]


@builder
def one_sigmoid() -> Built:
    x = keras.Input((6,))
    a = layers.Dense(5, activation="sigmoid")(x)
    last = layers.Dense(1, activation="sigmoid")
    y = last(a)
    return keras.Model(x, y), [a, before_activation(last, a)]


def seeded(build: Callable[[], Built]) -> Built:
    keras.utils.set_random_seed(0)
    model, references = build()
    rng = np.random.default_rng(0)
    for weight in model.weights:  # biases and moving averages that are not 0 and 1
        weight.assign(weight + rng.uniform(-0.2, 0.2, weight.shape))
    return model, references


@functools.cache
def case(build: Callable[[], Built]) -> tuple[Any, list[Any], Any]:
    model, references = seeded(build)
    return model, references, open_keras(model)


def inputs_of(model: Model, rows: int = 5) -> Array:
    return np.random.default_rng(1).random((rows, *model.input.shape)).astype(model.input.dtype)


def small() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )


def same(before: Any, after: Any) -> bool:
    return before[0] == after[0] and before[2] is after[2] and all(map(np.array_equal, before[1], after[1]))


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

"""Keras networks that are made anew and trained: the contract, and what is Keras's own."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepjudge_keras
import numpy as np
import pytest
from places import VICTIMS
from refusals import refused

from deepjudge_core import open_model
from deepjudge_core.errors import ModelError
from deepjudge_core.models.network import Losses, Network, ScoresCotangent
from deepjudge_core.models.training import Schedule, accuracy, cross_entropy, train
from deepjudge_core.testing.networks import check_network
from deepjudge_core.types import Array

# Set before TensorFlow is imported, as the adapter sets it: no word of its own on the terminal.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'deepjudge[tensorflow]'")
keras: Any = pytest.importorskip("keras", reason="Keras is not installed: pip install 'deepjudge[tensorflow]'")

import tensorflow as tf  # noqa: E402
from keras import layers, ops  # noqa: E402
from networks import keras_networks  # noqa: E402
from networks.architectures import ARCHITECTURES  # noqa: E402

(ADAPTER,) = deepjudge_keras.deepjudge_adapters()
assert ADAPTER.network is not None
open_network: Callable[..., Network] = ADAPTER.network


@pytest.fixture(autouse=True)
def _same_models_each_time() -> None:
    random.seed(0)  # from which Keras draws the seeds of the models below


def inputs(network: Network, n: int = 16) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    shape = [axis or 9 for axis in network.architecture.input.shape]
    return rng.uniform(size=(n, *shape)).astype(np.float32), np.arange(n) % network.architecture.classes


def stepped(network: Network, steps: int = 3, **options: Any) -> dict[str, Array]:
    x, y = inputs(network)
    trainer = network.architecture.trainer(network.weights, **options)
    for _ in range(steps):
        trainer.step(x, Losses(cross_entropy(y)), rate=1e-3)
    return trainer.weights()


def same(one: Any, other: Any) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_functional_networks_keep_the_contract(name: str) -> None:
    network = open_network(keras_networks.functional(name, 0))
    architecture = ARCHITECTURES[name]
    x = architecture.arranged(architecture.inputs(16), network.architecture.input.shape)
    check_network(network, x, np.arange(16) % 5)


@keras.saving.register_keras_serializable("deepjudge-tests")
class Scaled(layers.Layer):
    """A layer of somebody's own, with a weight of its own and noise in training."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones", name="scale")

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            x = x + 0.0
        return ops.relu(x * self.scale)


@keras.saving.register_keras_serializable("deepjudge-tests")
class Classifier(keras.Model):
    """A model of somebody's own."""

    def __init__(self, width: int = 8, **options: Any) -> None:
        super().__init__(**options)
        self.width = width
        self.hidden = layers.Dense(width, activation="tanh")
        self.drop = layers.Dropout(0.2)
        self.last = layers.Dense(3)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.last(self.drop(ops.relu(self.hidden(x)), training=training))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"width": self.width}


def normalised() -> Any:
    """Batch normalisation of both kinds, dropout, and an activation after each."""
    first = [
        layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(momentum=0.5),
        layers.ReLU(),
        layers.Dropout(0.3),
    ]
    second = [
        layers.Flatten(),
        layers.Dense(8, use_bias=False),
        layers.BatchNormalization(momentum=0.5),
        layers.Activation("gelu"),
    ]
    last = [layers.GaussianNoise(0.1), layers.Dropout(0.3), layers.Dense(3), layers.Dropout(0.1), layers.Softmax()]
    return keras.Sequential([keras.Input((6, 6, 2)), *first, *second, *last])


def nested() -> Any:
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="relu"), layers.Dense(6)])
    x = keras.Input((6,))
    y = inner(inner(x))  # one layer twice
    return keras.Model(x, layers.Activation("softmax")(keras.Sequential([layers.Dense(4), layers.Dense(3)])(y)))


def pooled() -> Any:
    """A last convolution of one pixel, and channels of any number of pixels."""
    x = keras.Input((None, None, 2))
    y = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(layers.Conv2D(5, 3)(x)))
    z = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 1)(y))
    return keras.Model(x, layers.Softmax()(z))


def binary() -> Any:
    hidden = layers.Dense(6, activation="relu", kernel_initializer=keras.initializers.HeNormal(seed=3))
    return keras.Sequential([keras.Input((5,)), hidden, layers.Dense(1, activation="sigmoid")])


def spelt_out() -> Any:
    """A softmax that nobody recognises in the graph."""
    x = keras.Input((5,))
    z = ops.exp(layers.Dense(3)(layers.Dense(6, activation="relu")(x)))
    return keras.Model(x, z / ops.sum(z, axis=1, keepdims=True))


def own_layer() -> Any:
    return keras.Sequential([keras.Input((5,)), layers.Dense(6), Scaled(), layers.Dense(3)])


def both_ways() -> Any:
    first = layers.Bidirectional(layers.LSTM(4, dropout=0.2))
    return keras.Sequential([keras.Input((6, 5)), first, layers.Dense(3, activation="softmax")])


def prepared() -> Any:
    """Inputs are normalised first, by what the layer was adapted to."""
    prepare = layers.Normalization()
    prepare.adapt(np.random.default_rng(0).normal(3, 2, size=(100, 5)).astype(np.float32))
    return keras.Sequential([keras.Input((5,)), prepare, layers.Dense(6, activation="relu"), layers.Dense(3)])


def frozen() -> Any:
    model = normalised()
    model.trainable = False
    return model


def fixed_rows() -> Any:
    return keras.Sequential([keras.Input(batch_shape=(4, 5)), layers.Dense(6, activation="relu"), layers.Dense(3)])


def branched() -> Any:
    """Logits that are a sum of two layers' outputs."""
    x = keras.Input((5,))
    parts = [layers.Dense(3)(layers.Dense(6, activation=kind)(x)) for kind in ("relu", "tanh")]
    return keras.Model(x, layers.Add()(parts))


@pytest.mark.parametrize(
    "build", [normalised, nested, pooled, binary, spelt_out, own_layer, branched], ids=lambda build: build.__name__
)
def test_models_keep_the_contract(build: Callable[[], Any]) -> None:
    network = open_network(build())
    check_network(network, *inputs(network))


@pytest.mark.parametrize(
    "build", [normalised, binary, own_layer, both_ways, prepared, frozen, fixed_rows], ids=lambda build: build.__name__
)
def test_a_trained_model_is_saved_and_the_given_one_stays(build: Callable[[], Any], tmp_path: Path) -> None:
    model = build()
    before = [weight.numpy() for weight in model.weights]
    network = open_network(model)
    x, _ = inputs(network)
    expected = open_model(model).predict(x[:4])
    np.testing.assert_allclose(network.predict(x[:4]), expected, atol=1e-5)
    trained = Network(network.architecture, stepped(network))
    assert not any(np.array_equal(trained.weights[name], network.weights[name]) for name in network.weights)
    file = tmp_path / "trained.keras"
    trained.save(file)
    np.testing.assert_allclose(open_model(file).predict(x), trained.predict(x), atol=1e-5)
    assert same(open_network(file).weights, trained.weights)
    assert all(np.array_equal(*pair) for pair in zip(before, [w.numpy() for w in model.weights], strict=True))


def test_a_class_of_somebodys_own() -> None:
    model = Classifier(6)
    model(np.zeros((1, 5), np.float32))
    network = open_network(model)
    x, _ = inputs(network)
    np.testing.assert_allclose(network.predict(x), open_model(model).predict(x), atol=1e-6)
    assert not same(network.weights, stepped(network))
    first, again, other = (network.architecture.initial(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)
    with refused(ModelError, "Classifier: ", "7 classes"):
        network.architecture.with_classes(7)


@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (normalised, [(8, 3), (3,)]),
        (nested, [(4, 3), (3,)]),
        (pooled, [(1, 1, 5, 3), (3,)]),
        (binary, [(6, 1), (1,)]),
        (spelt_out, [(6, 3), (3,)]),
        (branched, [(6, 3), (3,), (6, 3), (3,)]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_head_is_found_from_the_graph(build: Callable[[], Any], shapes: list[tuple[int, ...]]) -> None:
    network = open_network(build())
    assert [network.weights[name].shape for name in network.architecture.head] == shapes


def test_statistics_move_in_training_and_not_in_use() -> None:
    network = open_network(normalised())
    statistics = [name for name in network.weights if name not in network.architecture.parameters]
    assert [name.rpartition("/")[2] for name in statistics] == ["moving_mean", "moving_variance"] * 2
    for in_use in (False, True):
        after = stepped(network, in_use=in_use)
        assert all(np.array_equal(after[name], network.weights[name]) == in_use for name in statistics)


def test_steps_are_those_of_keras() -> None:
    model = normalised()
    for layer in model.layers:
        for noise in ("rate", "stddev"):
            if hasattr(layer, noise):
                setattr(layer, noise, 0.0)
    network = open_network(model)
    x, y = inputs(network)
    weights = stepped(network, 5)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    for _ in range(5):
        model.train_on_batch(x, y)
    for (name, array), variable in zip(weights.items(), model.weights, strict=True):
        moved = np.abs(array - network.weights[name]).mean()
        assert np.abs(array - variable.numpy()).mean() < 0.02 * moved, name  # Adam makes much of the least gradients


def test_dropout_is_seeded() -> None:
    network = open_network(normalised())
    one, again, other = (stepped(network, seed=seed) for seed in (1, 1, 2))
    assert same(one, again)
    assert not same(one, other)
    in_use = [stepped(network, seed=seed, in_use=True) for seed in (1, 2)]
    assert same(*in_use)


def test_trainers_of_one_architecture_do_not_disturb_each_other() -> None:
    network = open_network(normalised())
    x, y = inputs(network)
    alone = stepped(network, 4, seed=5)
    first = network.architecture.trainer(network.weights, seed=5)
    second = network.architecture.trainer(network.architecture.initial(np.random.default_rng(0)), in_use=True)
    for _ in range(4):
        first.step(x, Losses(cross_entropy(y)), rate=1e-3)
        second.step(x[:7], Losses(cross_entropy(y[:7])), rate=1e-2)
        second.scores(x)
    assert same(first.weights(), alone)


def test_training_learns() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).astype(np.float32)
    y = (x[:, 0] > x[:, 1]).astype(np.int64)
    network = Network.fresh(open_network(binary()).architecture, rng)
    trained = train(network, x, y, rng, schedule=Schedule(epochs=10, rate=2e-2, batch=32))
    assert accuracy(trained, x, y) > 0.95
    assert accuracy(network, x, y) < 0.9


def test_random_numbers_of_others_are_left_as_they_are() -> None:
    model = normalised()
    states = random.getstate(), str(np.random.get_state())  # noqa: NPY002
    tf.random.set_seed(0)
    expected = tf.random.normal(()).numpy()
    tf.random.set_seed(0)
    network = open_network(model)
    network.architecture.initial(np.random.default_rng(0))
    network.architecture.student()
    stepped(network)
    assert (random.getstate(), str(np.random.get_state())) == states  # noqa: NPY002
    assert tf.random.normal(()).numpy() == expected


def test_initial_weights_are_those_of_the_authors_initialisers() -> None:
    network = open_network(both_ways())
    weights = network.architecture.initial(np.random.default_rng(0))
    forward, backward = (array for name, array in weights.items() if name.endswith("/kernel") and "lstm" in name)
    assert not np.array_equal(forward, backward)
    assert np.abs(forward).max() <= np.sqrt(6 / (5 + 16))  # Glorot's
    (recurrent, _) = (array for name, array in weights.items() if name.endswith("recurrent_kernel"))
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(4), atol=1e-5)
    (bias, _) = (array for name, array in weights.items() if name.endswith("/bias") and "lstm" in name)
    assert bias.tolist() == [0] * 4 + [1] * 4 + [0] * 8  # a forget gate that is open


def test_what_a_layer_was_adapted_to_is_no_weight() -> None:
    network = open_network(prepared())
    x = np.random.default_rng(1).normal(3, 2, size=(50, 5)).astype(np.float32)
    assert len(network.weights) == 4
    fresh = Network.fresh(network.architecture, np.random.default_rng(0))
    kernel = fresh.weights[network.architecture.parameters[0]]
    hidden = fresh.architecture.model(fresh.weights, name="fresh").activations(
        x, [next(iter(fresh.architecture.layers))]
    )
    adapted = (x - 3) / 2
    np.testing.assert_allclose(next(iter(hidden.values())), np.maximum(adapted @ kernel, 0), atol=1.0)


def test_channels_first() -> None:
    x = keras.Input((3, 8, 8))
    y = layers.Conv2D(4, 3, data_format="channels_first", activation="relu")(x)
    y = layers.GlobalAveragePooling2D(data_format="channels_first")(y)
    architecture = open_network(keras.Model(x, layers.Dense(3, activation="softmax")(y))).architecture
    assert architecture.input.layout == "channels_first"
    assert architecture.student().input == architecture.input
    student = Network.fresh(architecture.student(), np.random.default_rng(0))
    check_network(student, *inputs(student))


def test_errors_of_a_loss_come_through() -> None:
    network = open_network(binary())
    x, _ = inputs(network)

    def loss(scores: Array) -> Array:
        raise ModelError("this loss")

    cotangent: ScoresCotangent = loss
    trainer = network.architecture.trainer(network.weights)
    with pytest.raises(ModelError, match=r"^this loss$"):
        trainer.step(x, Losses(cotangent), rate=1e-3)
    with pytest.raises(ModelError, match=r"^this loss$"):
        trainer.gradient(x, cotangent)


def closure() -> Any:
    x = keras.Input((5,))
    return keras.Model(x, layers.Dense(3)(layers.Lambda(lambda t: t * 2)(x)))


def tokens() -> Any:
    x = keras.Input((5,), dtype="int32")
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(x))))


def remembering() -> Any:
    x = keras.Input(batch_shape=(4, 6, 5))
    return keras.Model(x, layers.Dense(3)(layers.LSTM(4, stateful=True)(x)))


def folding() -> Any:
    x = keras.Input(batch_shape=(4, 6))
    return keras.Model(x, layers.Dense(3)(ops.reshape(layers.Dense(12)(ops.reshape(x, (2, 12))), (4, 6))))


@keras.saving.register_keras_serializable("deepjudge-tests")
class Forgetful(Classifier):
    def get_config(self) -> dict[str, Any]:
        return {"width": 2}


def forgetful() -> Any:
    model = Forgetful(6)
    model(np.zeros((1, 5), np.float32))
    return model


def sigmoids() -> Any:
    return keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, activation="relu"), layers.Dense(3, activation="sigmoid")]
    )


def unbuilt() -> Any:
    return keras.Sequential([layers.Dense(3)])


@pytest.mark.parametrize(
    ("build", "facts"),
    [
        (closure, ("retrained", "Lambda")),
        (tokens, ("int32",)),
        (remembering, ("retrained", "lstm")),
        (folding, ("4 at a time",)),
        (unbuilt, ("built",)),
        (forgetful, ("configuration", "weights")),
        (sigmoids, ("one sigmoid", "3 sigmoids")),
        (lambda: keras_networks.subclassed("dense", 0), ("Subclassed", "get_config")),
    ],
)
def test_refused(build: Callable[[], Any], facts: tuple[str, ...]) -> None:
    with refused(ModelError, "model: ", *facts):
        open_network(build(), name="model")


def test_what_has_no_other_number_of_classes() -> None:
    x = keras.Input((6,))
    z = layers.Dense(1)(layers.Dense(4, activation="relu")(x))
    network = open_network(keras.Model(x, layers.Activation("sigmoid")(z)), name="model")
    assert network.architecture.classes == 2
    assert network.architecture.with_classes(2) is network.architecture
    with refused(ModelError, "model: ", "5 classes", "sigmoid"):
        network.architecture.with_classes(5)
    einsum = layers.EinsumDense("bi,io->bo", 3, bias_axes="o")
    other = open_network(
        keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="relu"), einsum]), name="model"
    )
    with refused(ModelError, "model: ", "5 classes", "units"):
        other.architecture.with_classes(5)


def test_no_such_layer() -> None:
    network = open_network(binary(), name="model")
    x, y = inputs(network)
    with refused(ModelError, "model: ", "'other'"):
        network.architecture.trainer(network.weights).step(x, Losses(at={"other": cross_entropy(y)}), rate=1e-3)


def test_a_saved_model_is_refused(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "model"))
    with refused(ModelError, "SavedModel"):
        open_network(tmp_path / "model")


@pytest.mark.skipif(not VICTIMS.is_dir(), reason=f"the authors' models are not at {VICTIMS}")
def test_the_authors_lenet5(tmp_path: Path) -> None:
    network = open_network(VICTIMS / "mnist_lenet5.h5")
    assert network.architecture.head == ("before_softmax/kernel", "before_softmax/bias")
    x, y = inputs(network)
    expected = open_model(VICTIMS / "mnist_lenet5.h5").predict(x)
    np.testing.assert_allclose(network.predict(x), expected, atol=1e-5)
    check_network(network, x, y)
    network.save(tmp_path / "saved.keras")
    np.testing.assert_allclose(open_model(tmp_path / "saved.keras").predict(x), expected, atol=1e-5)

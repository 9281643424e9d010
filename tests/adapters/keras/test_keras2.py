"""What Keras 2 left behind, as tf_keras still writes it: the same answers, or an error that names what is not known."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepjudge_keras
import numpy as np
import pytest
from refusals import refused

from deepjudge_core.errors import ModelError

# Set before TensorFlow is imported, as the adapter sets it: no word of its own on the terminal.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf: Any = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'deepjudge[tensorflow]'")
pytest.importorskip("keras", reason="Keras is not installed: pip install 'deepjudge[tensorflow]'")
keras2: Any = pytest.importorskip("tf_keras", reason="tf_keras is not installed")

import h5py  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of TensorFlow's and tf_keras' own, on what is old
(ADAPTER,) = deepjudge_keras.deepjudge_adapters()
L = keras2.layers
IMAGE, STEPS = (8, 8, 3), (6, 4)
Chain = Callable[[Any], Any]


def filled(model: Any) -> Any:
    """The model with weights of which none is like another, and no statistic as at first."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.dtype.is_floating:
            values = rng.normal(size=weight.shape) * 0.3
            weight.assign(np.abs(values) + 0.5 if "variance" in weight.name else values)
    return model


def network(shape: tuple[int, ...], chain: Chain) -> Any:
    x = L.Input(shape)
    return filled(keras2.Model(x, L.Dense(3)(L.Flatten()(chain(x)))))


def expect_the_same(model: Any, path: Path, *, close: float = 1e-5) -> Any:
    """A file has the answers of the model that was saved in it, relative to the greatest."""
    model.save(path)
    opened = ADAPTER.open(path)
    x = np.random.default_rng(1).random((3, *model.input_shape[1:])).astype(np.float32)
    expected = np.asarray(model(x, training=False), np.float32)
    actual = opened.forward(x, None)[0]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=close * max(1, np.abs(expected).max()))
    return opened


# -- layers


def mobile(x: Any) -> Any:
    y = L.ReLU(6.0)(L.BatchNormalization(axis=[3])(L.Conv2D(4, 3, groups=1)(L.Rescaling([0.5, 1, 2], [1, 0, 1])(x))))
    y = L.ReLU(6.0, 0.1, 0.2)(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(y)))
    return L.SpatialDropout2D(0.3)(L.SeparableConv2D(5, 2, activation="swish")(y))


def augmented(x: Any) -> Any:
    y = keras2.Sequential([L.RandomFlip(), L.RandomRotation(0.1), L.RandomZoom(0.1), L.RandomContrast(0.1)])(x)
    return L.UpSampling2D(2, interpolation="bilinear")(
        L.Resizing(5, 7)(L.Normalization(mean=[1.0, 2, 3], variance=[2.0, 1, 3])(y))
    )


def old_activations(x: Any) -> Any:
    y = L.Conv2D(3, 3, activation="hard_sigmoid")(L.Activation("hard_sigmoid")(x))
    y = L.LeakyReLU(0.2)(L.ThresholdedReLU(0.1)(y))
    return L.ELU(0.7)(L.PReLU(shared_axes=[1, 2])(L.Conv2D(3, 3, activation=L.LeakyReLU(0.3))(y)))


def recurrent(x: Any) -> Any:
    y, h, c = L.LSTM(4, recurrent_activation="hard_sigmoid", return_sequences=True, return_state=True)(x)
    y = L.LSTM(4, return_sequences=True, implementation=1)(y, initial_state=[h, c])
    y = L.Bidirectional(L.GRU(3, return_sequences=True))(L.GRU(3, reset_after=False, return_sequences=True)(y))
    return L.TimeDistributed(L.Dense(4))(L.RNN([L.LSTMCell(3), L.GRUCell(2)], return_sequences=True)(y))


def attention(x: Any) -> Any:
    y = L.MultiHeadAttention(2, 4, value_dim=3)(L.LayerNormalization()(x), value=x, key=L.Dense(4)(x))
    return L.Attention(use_scale=True)([y, L.Add()([x, y])])


def shared(x: Any) -> Any:
    dense, base = L.Dense(4), keras2.Sequential([L.Dense(4, activation="relu"), L.BatchNormalization()])
    i = L.Input(STEPS)
    inner = keras2.Model(i, [L.Dense(4)(i), L.Dense(4)(L.Dense(4)(i))])
    first, second = inner(base(dense(x)))
    return L.Concatenate()([base(first), base(second), *inner(dense(dense(x)))])


# -- arithmetic


def arithmetic(x: Any) -> Any:
    y = 1.0 - tf.concat([(x * 2.0 - 1.0 + 1.0) / 2.0, -x, x * tf.constant([1.0, 2.0, 3.0])], -1)
    y = tf.nn.relu6(tf.clip_by_value(y, -0.5, 0.7) + tf.reduce_mean(y, [1, 2], keepdims=True)) ** 2.0
    z = tf.transpose(tf.reshape(y[:, 1:, :, 0:2], [-1, 7, 2, 8]), [0, 2, 1, 3])
    z = tf.nn.softmax(tf.where(z > 0.3, z, 0.0)) + tf.nn.leaky_relu(z - 0.2) + tf.nn.gelu(z) + tf.sqrt(tf.abs(z))
    return tf.squeeze(tf.expand_dims(tf.stack([z, tf.nn.l2_normalize(z, -1)], 1), 1), [1])


def preprocessed(x: Any) -> Any:
    prepare = keras2.applications
    y = prepare.vgg16.preprocess_input(x * 255.0) + prepare.densenet.preprocess_input(x)
    return L.Concatenate()([y, prepare.mobilenet_v2.preprocess_input(x), x[..., ::-1]])


CHAINS: dict[str, tuple[tuple[int, ...], Chain]] = {
    "mobile": (IMAGE, mobile),
    "augmented": (IMAGE, augmented),
    "old activations": (IMAGE, old_activations),
    "recurrent": (STEPS, recurrent),
    "attention": (STEPS, attention),
    "shared": (STEPS, shared),
    "arithmetic": (IMAGE, arithmetic),
}


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("name", CHAINS)
def test_layers_answer_as_in_keras_2(name: str, suffix: str, tmp_path: Path) -> None:
    shape, chain = CHAINS[name]
    expect_the_same(network(shape, chain), tmp_path / f"m{suffix}")


def test_inputs_are_prepared_as_in_keras_2(tmp_path: Path) -> None:
    expect_the_same(network(IMAGE, preprocessed), tmp_path / "m.h5")


def test_a_layer_that_was_adapted(tmp_path: Path) -> None:
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(2).normal(2, 3, (50, 5)))
    expect_the_same(keras2.Sequential([L.Input((5,)), layer, L.Dense(3)]), tmp_path / "m.h5")


def test_half_precision(tmp_path: Path) -> None:
    keras2.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = network(IMAGE, mobile)
    finally:
        keras2.mixed_precision.set_global_policy("float32")
    opened = expect_the_same(model, tmp_path / "m.h5", close=1e-2)
    assert len(opened.layers) > 3


def test_layers_are_seen_as_of_any_model(tmp_path: Path) -> None:
    opened = expect_the_same(network(IMAGE, mobile), tmp_path / "m.h5")
    assert list(opened.layers.values()) == [4, 4, 5, 3]


# -- models in one another

FROZEN: dict[str, Callable[[Any], object]] = {
    "none": lambda base: None,
    "all": lambda base: setattr(base, "trainable", False),
    "the first": lambda base: [setattr(layer, "trainable", False) for layer in base.layers[:3]],
    "the last": lambda base: [setattr(layer, "trainable", False) for layer in base.layers[3:]],
}


def backbone(frozen: str) -> Any:
    """Of layers whose weights are of the same shapes, so that their order is all."""
    x = L.Input(IMAGE)
    y = L.BatchNormalization()(L.Conv2D(3, 3, padding="same")(x))
    base = keras2.Model(x, L.BatchNormalization()(L.Conv2D(3, 3, padding="same")(y)))
    FROZEN[frozen](base)
    return base


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("frozen", FROZEN)
def test_weights_of_a_model_in_a_model(frozen: str, suffix: str, tmp_path: Path) -> None:
    base = backbone(frozen)
    expect_the_same(network(IMAGE, lambda x: base(x, training=False)), tmp_path / f"m{suffix}")


@pytest.mark.parametrize("frozen", ["none", "all"])
def test_a_list_of_models(frozen: str, tmp_path: Path) -> None:
    head = keras2.Sequential([L.Dense(4), L.BatchNormalization(), L.Dense(3)])
    model = keras2.Sequential([keras2.Sequential([L.RandomFlip()]), backbone(frozen), L.GlobalAveragePooling2D(), head])
    model.build((None, *IMAGE))
    expect_the_same(filled(model), tmp_path / "m.h5")


def test_a_real_architecture(tmp_path: Path) -> None:
    make = keras2.applications.MobileNetV3Small
    expect_the_same(make(weights=None, input_shape=(32, 32, 3), classes=5, alpha=0.75), tmp_path / "m.h5")


# -- as versions before wrote it


def rewritten(path: Path, target: Path, change: Callable[[bytes], bytes], arrays: Callable[[Any], object]) -> Path:
    """An archive of which texts and arrays are changed."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as archive:
        for entry in source.namelist():
            data = source.read(entry)
            if entry.endswith(".h5"):
                memory = io.BytesIO(data)
                with h5py.File(memory, "r+") as file:
                    arrays(file)
                data = memory.getvalue()
            archive.writestr(entry, change(data) if entry.endswith(".json") else data)
    return target


def test_an_archive_under_the_name_of_keras_itself(tmp_path: Path) -> None:
    model = network(IMAGE, mobile)
    expected = expect_the_same(model, tmp_path / "m.keras")
    path = rewritten(tmp_path / "m.keras", tmp_path / "k.keras", lambda d: d.replace(b"tf_keras", b"keras"), bool)
    x = np.random.default_rng(1).random((3, *IMAGE)).astype(np.float32)
    np.testing.assert_array_equal(ADAPTER.open(path).predict(x), expected.predict(x))


def test_an_archive_of_2_13_counts_layers_with_weights_twice(tmp_path: Path) -> None:
    base = keras2.Sequential([L.Dense(4), L.Dense(4)])
    model = network(STEPS, lambda x: base(L.Dense(4)(L.Dense(4)(L.Dense(4)(x)))))
    expected = expect_the_same(model, tmp_path / "m.keras")

    def renumber(group: Any) -> None:
        names = sorted(name for name in group["layers"] if name.startswith("dense"))
        for name in reversed(names):
            place = int(name.rpartition("_")[2]) if "_" in name else 0
            if place:
                group["layers"].move(name, f"dense_{2 * place}")
        for name in group["layers"]:
            if "layers" in group["layers"][name]:
                renumber(group["layers"][name])
        group.move("layers", "_layer_checkpoint_dependencies")

    path = rewritten(tmp_path / "m.keras", tmp_path / "k.keras", bytes, renumber)
    x = np.random.default_rng(1).random((3, *STEPS)).astype(np.float32)
    np.testing.assert_array_equal(ADAPTER.open(path).predict(x), expected.predict(x))


def test_operations_of_a_graph_as_until_2_3(tmp_path: Path) -> None:
    def noted(name: str, kind: str, constants: dict[int, Any], *inputs: str) -> dict[str, Any]:
        attributes = {"T": {"type": "DT_FLOAT"}}
        operands = [f"operand{place}" for place in range(len(constants) + len(inputs))]
        node = {"name": name, "op": kind, "input": operands, "attr": attributes}
        config = {"name": name, "trainable": True, "dtype": "float32", "node_def": node, "constants": constants}
        called = [[[source, 0, 0, {}] for source in inputs]]
        full_name = f"tf_op_layer_{name}"
        return {"class_name": "TensorFlowOpLayer", "config": config, "name": full_name, "inbound_nodes": called}

    model = network((4,), lambda x: x)
    model.save(tmp_path / "m.h5")
    layers = [
        noted("half", "Mul", {1: 0.5}, model.layers[0].name),
        noted("rest", "Sub", {0: [1.0, 2.0, 3.0, 4.0]}, "tf_op_layer_half"),
        noted("both", "AddV2", {}, "tf_op_layer_rest", "tf_op_layer_half"),
    ]
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        first, *others = config["config"]["layers"]
        others[0]["inbound_nodes"] = [[["tf_op_layer_both", 0, 0, {}]]]
        config["config"]["layers"] = [first, *layers, *others]
        file.attrs["model_config"] = json.dumps(config)
    opened, x = ADAPTER.open(tmp_path / "m.h5"), np.random.default_rng(1).random((3, 4)).astype(np.float32)
    expected = model(np.tile(np.arange(1, 5, dtype=np.float32), (3, 1)))  # 1..4 - x / 2 + x / 2
    np.testing.assert_allclose(opened.forward(x, None)[0], expected, atol=1e-5)
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"op": "Mul"', '"op": "ReadFile"')
    with refused(ModelError, "'ReadFile'"):
        ADAPTER.open(tmp_path / "m.h5")


# -- what is not known


@pytest.mark.parametrize(
    ("shape", "chain", "facts"),
    [
        (IMAGE, lambda x: tf.cumsum(x, 1), ["'math.cumsum'"]),
        (IMAGE, lambda x: tf.matmul(x, x, transpose_b=True), ["'linalg.matmul'", "'transpose_b'"]),
        (IMAGE, lambda x: tf.reshape(x, [tf.shape(x)[0], 192]), ["shape"]),
        (IMAGE, L.LocallyConnected2D(2, 3), ["LocallyConnected2D"]),
        (IMAGE, L.Lambda(lambda y: y * 2), ["Lambda"]),
        (IMAGE, lambda x: L.Dropout(0.5, name="doubt")(x, training=True), ["'doubt'", "training"]),
    ],
    ids=["a function", "a switch of a function", "a shape that is computed", "a layer", "code", "training"],
)
def test_what_keras_3_has_no_counterpart_for_is_named(
    shape: tuple[int, ...], chain: Chain, facts: list[str], tmp_path: Path
) -> None:
    network(shape, chain).save(tmp_path / "m.h5")
    with refused(ModelError, tmp_path / "m.h5", *facts):
        ADAPTER.open(tmp_path / "m.h5")


def weights_of(path: Path, change: Callable[[Any], object]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file["model_weights"])
    return path


def renamed(group: Any) -> None:
    layer = group["dense_of_test"]
    layer.attrs["weight_names"] = [b"elsewhere/moment:0", b"dense_of_test/bias:0"]
    layer.move("dense_of_test/kernel:0", "elsewhere/moment:0")


def twice(group: Any) -> None:
    names = group["dense_of_test"].attrs["weight_names"]
    group["dense_of_test"].attrs["weight_names"] = [names[0], names[0]]


def fewer(group: Any) -> None:
    group["dense_of_test"].attrs["weight_names"] = group["dense_of_test"].attrs["weight_names"][:1]


def none(group: Any) -> None:
    group.attrs["layer_names"] = group.attrs["layer_names"][:0]


def whole(group: Any) -> None:
    layer = group["dense_of_test"]["dense_of_test"]
    del layer["kernel:0"]
    layer["kernel:0"] = np.ones((5, 3), np.int32)


@pytest.mark.parametrize(
    ("change", "fact"),
    [(renamed, "moment"), (twice, "bias"), (fewer, "bias"), (none, "dense_of_test"), (whole, "whole")],
)
def test_weights_that_are_not_its_own(change: Callable[[Any], object], fact: str, tmp_path: Path) -> None:
    model = keras2.Sequential([L.Input((5,)), L.Dense(3, name="dense_of_test")])
    model.save(tmp_path / "m.h5")
    with refused(ModelError, tmp_path / "m.h5", fact):
        ADAPTER.open(weights_of(tmp_path / "m.h5", change))


def test_a_network_of_it_is_trained_and_saved_again(tmp_path: Path) -> None:
    network(IMAGE, old_activations).save(tmp_path / "m.h5")
    made = ADAPTER.network(tmp_path / "m.h5")
    made.architecture.save(made.weights, tmp_path / "again.keras")
    x = np.random.default_rng(1).random((3, *IMAGE)).astype(np.float32)
    actual, expected = (ADAPTER.open(tmp_path / name).predict(x) for name in ("again.keras", "m.h5"))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)

"""SavedModel folders: the same network as the live Keras model, and folders, signatures and graphs good and bad."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import deepjudge_keras
import numpy as np
import pytest
from places import VICTIMS
from refusals import expect_facts, refused

from deepjudge_core import build_suite, load_registry, measure, observe, open_model, select_seeds
from deepjudge_core.cli.sources import expand
from deepjudge_core.errors import ModelError, PluginError, UsageError
from deepjudge_core.models.model import Access
from deepjudge_core.testing import check_model
from deepjudge_core.types import Array

# Set before TensorFlow is imported, as the adapter sets it: no word of its own on the terminal.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'deepjudge[tensorflow]'")
keras: Any = pytest.importorskip("keras", reason="Keras is not installed: pip install 'deepjudge[tensorflow]'")

import deepjudge_keras.savedmodel  # noqa: E402
import keras_models as live  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

# TensorFlow 2.21's variables do not know the `copy` that numpy 2 passes them when Keras saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
REGISTRY = load_registry()
NOT_IN_THE_GRAPH = (live.recurrent, live.two_directions_and_every_step)
"""Steps that TensorFlow runs as copies of a layer, and two directions: layers that only Keras knows of."""


def export(model: Any, folder: Path) -> Path:
    model.export(folder, verbose=False)
    return folder


def conv() -> Any:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(5, 3, activation="silu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(6, activation="tanh"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + rng.uniform(0, 0.2, weight.shape))
    return model


class Plain(tf.Module):  # type: ignore[misc]
    """The network of ``conv`` in TensorFlow's own operations, its middle a function of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.weights = [tf.Variable(weight.numpy()) for weight in model.weights]
        self.calls = tf.Variable(0)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def features(self, x: Any) -> Any:
        kernel, bias, scale, shift, mean, variance, second, second_bias = self.weights[:8]
        x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "VALID") + bias)
        x = tf.nn.batch_normalization(x, mean, variance, shift, scale, 1e-3)
        return tf.nn.silu(tf.nn.bias_add(tf.nn.conv2d(x, second, 1, "VALID"), second_bias))

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 2), tf.float32)], autograph=False)  # type: ignore[untyped-decorator]
    def scores(self, x: Any) -> Any:
        self.calls.assign_add(1)
        hidden, hidden_bias, last, last_bias = self.weights[8:]
        x = tf.nn.max_pool2d(self.features(x), 2, 2, "VALID")
        x = tf.tanh(tf.reshape(x, (-1, 20)) @ hidden + hidden_bias)
        return {"probabilities": tf.nn.softmax(x @ last + last_bias), "features": x}


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One network in every form, opened."""
    folder = tmp_path_factory.mktemp("forms")
    model = conv()
    model.save(folder / "model.keras")
    export(model, folder / "exported")
    plain = Plain(model)
    tf.saved_model.save(plain, folder / "plain", signatures=plain.scores)
    paths = {name: folder / name for name in ("model.keras", "exported", "plain")}
    return {"live": open_model(model), **{name: open_model(path) for name, path in paths.items()}}


def save(function: Callable[..., Any], folder: Path, *specs: Any) -> Path:
    """A SavedModel of one function."""
    module = tf.Module()
    traced = tf.function(function, input_signature=specs, autograph=False).get_concrete_function()
    tf.saved_model.save(module, folder, signatures=traced)
    return folder


def weights(*shape: int) -> Any:
    return tf.constant(np.random.default_rng(sum(shape)).normal(size=shape), tf.float32)


def answers(model: Any, x: Array, gradients: bool = True) -> dict[str, Array]:
    """All numbers that a model gives for ``x``, without the names of its layers."""
    outputs = {"predictions": model.predict(x)}
    for place, (layer, neurons) in enumerate(model.activations(x, list(model.layers)).items()):
        outputs[f"activations {place}"] = neurons
        if gradients:
            cotangent = np.random.default_rng(place).normal(size=neurons.shape).astype("float32")
            outputs[f"gradient {place}"] = model.gradient(x, lambda scores, rows, c=cotangent: c[rows], layer=layer)
    return outputs


def assert_same(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert actual.keys() == expected.keys()
    for name, numbers in expected.items():
        tolerance = 1e-6 if name == "predictions" else 1e-5
        np.testing.assert_allclose(actual[name], numbers, atol=tolerance, err_msg=name)


def expect_refused(path: Path, *facts: str) -> None:
    with refused(ModelError, f"{path}: ", *facts):
        live.open_keras(path)


# -- the same network


@pytest.mark.parametrize("form", ["model.keras", "exported", "plain"])
def test_every_form_answers_as_the_live_model(form: str, forms: dict[str, Any]) -> None:
    model = forms[form]
    assert list(model.layers.values()) == [4, 5, 6, 3]
    assert model.access is Access.FULL
    assert (model.framework, str(model.input), model.input.dtype) == ("keras", "8x8x2", "float32")
    assert model.input.layout == "channels_last"
    x = live.inputs_of(model)
    assert_same(answers(model, x), answers(forms["live"], x))


@pytest.mark.parametrize("form", ["exported", "plain"])
def test_the_contract_holds(form: str, forms: dict[str, Any]) -> None:
    # Without oneDNN TensorFlow sums the gradient of one row in another order than that of eight.
    check_model(forms[form], live.inputs_of(forms[form], rows=8), tolerance=1e-3)


@pytest.mark.parametrize("form", ["exported", "plain"])
def test_all_metrics_are_0_between_forms(form: str, forms: dict[str, Any]) -> None:
    x = np.random.default_rng(5).random((60, 8, 8, 2)).astype("float32")
    victim = forms["live"]
    seeds = select_seeds(victim, x, victim.predict(x).argmax(axis=1), n=20, force=True)
    options = {"pgd": {"eps": 0.5, "step": 0.1}, "neuron-corners": {"m": 1.05, "iterations": 100}}
    suite = build_suite(victim, seeds, list(options), training_inputs=x, options=options, registry=REGISTRY)
    values = measure(suite, observe(forms[form], suite), registry=REGISTRY)
    assert len(values) == 7
    assert all(value.value is not None and value.value < 1e-4 for value in values.values()), values


def test_gradients_are_the_differences_quotients(tmp_path: Path) -> None:
    table = tf.constant(np.random.default_rng(0).normal(size=(5, 4)))

    def function(x: Any) -> Any:
        return {"scores": tf.nn.silu(x @ table) @ tf.transpose(table)}

    model = open_model(save(function, tmp_path / "model", tf.TensorSpec((None, 5), tf.float64)))
    assert list(model.layers.values()) == [4, 5]
    x = live.inputs_of(model)
    rng = np.random.default_rng(2)
    direction, step = rng.normal(size=x.shape), 1e-6
    for layer, width in model.layers.items():
        cotangent = rng.normal(size=(len(x), width))
        above, below = (model.forward(x + sign * step * direction, [layer])[0] for sign in (1, -1))
        expected = (cotangent * (above - below)).sum(1) / (2 * step)
        gradient = model.backward(x, lambda scores, cotangent=cotangent: cotangent, layer)
        np.testing.assert_allclose((gradient * direction).sum(1), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "build", [build for build in live.BUILDERS if build not in NOT_IN_THE_GRAPH], ids=lambda build: build.__name__
)
def test_taps_are_those_of_the_live_model(build: Callable[[], Any], tmp_path: Path) -> None:
    model, _, opened = live.case(build)
    exported = open_model(export(model, tmp_path / "model"))
    assert list(exported.layers.values()) == list(opened.layers.values())
    assert exported.access is opened.access
    x = live.inputs_of(opened)
    gradients = build is live.residual  # of all models they would take their time
    assert_same(answers(exported, x, gradients), answers(opened, x, gradients))


@pytest.mark.parametrize(
    "activation",
    [
        lambda a: tf.maximum(a, 0.0),
        lambda a: tf.minimum(tf.nn.relu(a), 3.0),
        lambda a: tf.clip_by_value(a, -1.0, 1.0),
        lambda a: tf.maximum(a, 0.0) + tf.minimum(0.0, tf.math.expm1(tf.minimum(a, 0.0))),
    ],
)
def test_activations_of_limits(activation: Callable[[Any], Any], tmp_path: Path) -> None:
    first, last = weights(4, 5), weights(5, 3)
    model = open_model(save(lambda x: {"y": activation(x @ first) @ last}, tmp_path / "m", tf.TensorSpec((None, 4))))
    assert list(model.layers.values()) == [5, 3]
    x = live.inputs_of(model)
    limited = activation(tf.constant(x) @ first).numpy()
    np.testing.assert_allclose(model.activations(x, list(model.layers))[next(iter(model.layers))], limited, atol=1e-6)


def test_loops_over_time_are_recurrent_layers(tmp_path: Path) -> None:
    x = keras.Input((5, 3))
    a = layers.GRU(4, return_sequences=True)(layers.LSTM(3, return_sequences=True)(x))
    b, state, _ = layers.LSTM(5, return_state=True)(a)
    model = keras.Model(x, layers.Dense(3, activation="softmax")(layers.Concatenate()([b, state])))
    exported, opened = open_model(export(model, tmp_path / "model")), live.open_keras(model)
    assert list(exported.layers.values()) == [3, 4, 5, 5, 3]
    rows = live.inputs_of(opened)
    assert_same(answers(exported, rows, gradients=False), answers(opened, rows, gradients=False))


def test_a_last_step_and_a_dense_model(tmp_path: Path) -> None:
    recurrent = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4), layers.Dense(3, activation="softmax")])
    dense = keras.Sequential([keras.Input((7,)), layers.Dense(5, activation="relu"), layers.Dense(3)])
    for name, model, widths in (("recurrent", recurrent, [4, 3]), ("dense", dense, [5, 3])):
        exported, opened = open_model(export(model, tmp_path / name)), live.open_keras(model)
        assert list(exported.layers.values()) == widths
        x = live.inputs_of(opened)
        assert_same(answers(exported, x), answers(opened, x))


def test_channels_may_come_first(tmp_path: Path) -> None:
    live.need_channels_first()
    x = keras.Input((3, 8, 8))
    a = layers.Conv2D(4, 3, activation="relu", data_format="channels_first")(x)
    y = layers.Dense(5, activation="softmax")(layers.Flatten()(a))
    model = keras.Model(x, y)
    exported, opened = open_model(export(model, tmp_path / "model")), live.open_keras(model)
    assert exported.input.layout == "channels_first"
    assert list(exported.layers.values()) == [4, 5]
    images = live.inputs_of(opened)
    assert_same(answers(exported, images, gradients=False), answers(opened, images, gradients=False))


def test_signals_with_channels_first(tmp_path: Path) -> None:
    live.need_channels_first()
    kernel = weights(3, 2, 4)

    def function(x: Any) -> Any:  # (n, channels, time)
        wide = tf.nn.conv2d(tf.expand_dims(x, 2), kernel[None], 1, "VALID", data_format="NCHW")
        hidden = tf.nn.relu(tf.squeeze(wide, [2]))
        return {"scores": tf.reduce_mean(hidden, -1)}

    model = open_model(save(function, tmp_path / "model", tf.TensorSpec((None, 2, 9))))
    assert list(model.layers.values()) == [4, 4]
    x = live.inputs_of(model)
    outputs = model.activations(x, list(model.layers)[:1])
    expected = tf.nn.relu(tf.nn.conv1d(x.transpose(0, 2, 1), kernel, 1, "VALID")).numpy().mean(1)
    np.testing.assert_allclose(*outputs.values(), expected, atol=1e-5)


def test_a_gradient_of_ones_own_is_not_taken(tmp_path: Path) -> None:
    table = weights(4, 3)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def reversed_gradient(x: Any) -> Any:
        return tf.identity(2 * x), lambda upstream: -upstream

    path = save(lambda x: {"y": reversed_gradient(x) @ table}, tmp_path / "model", tf.TensorSpec((None, 4)))
    gradient = open_model(path).gradient(np.zeros((1, 4)), lambda scores, rows: np.eye(3, dtype="float32")[:1])
    np.testing.assert_allclose(gradient, 2 * table[:, :1].numpy().T, rtol=1e-6)


# -- signatures, inputs and outputs


def module(tmp_path: Path, **signatures: Any) -> Path:
    plain = tf.Module()
    spec = tf.TensorSpec((None, 4), name="x")
    traced = {name: tf.function(f, [spec], autograph=False).get_concrete_function() for name, f in signatures.items()}
    tf.saved_model.save(plain, tmp_path / "model", signatures=traced)
    return tmp_path / "model"


def test_the_signature_is_the_one_for_serving_or_the_only_one(tmp_path: Path) -> None:
    one, other = weights(4, 2), weights(4, 3)
    served = module(tmp_path / "a", serving_default=lambda x: {"y": x @ one}, train=lambda x: {"y": x @ other})
    assert open_model(served).classes == 2
    assert open_model(module(tmp_path / "b", score=lambda x: {"y": x @ other})).classes == 3
    several = module(tmp_path / "c", score=lambda x: {"y": x @ one}, train=lambda x: {"y": x @ other})
    expect_refused(several, "serving_default", "score, train")


class Served(tf.Module):  # type: ignore[misc]
    """A model that may be called with numbers, and is served with records."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(weights(4, 3))

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def __call__(self, x: Any, training: bool = False) -> Any:
        return tf.nn.relu(x) @ self.table + (100.0 if training else 0.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="records")], autograph=False)  # type: ignore[untyped-decorator]
    def records(self, records: Any) -> Any:
        parsed = tf.io.parse_example(records, {"x": tf.io.FixedLenFeature((4,), tf.float32)})
        return {"scores": self(parsed["x"])}

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")], autograph=False)  # type: ignore[untyped-decorator]
    def numbers(self, x: Any) -> Any:
        return {"scores": self(x) * 2.0}


def test_what_is_served_with_records_is_asked_with_numbers(tmp_path: Path) -> None:
    served, x = Served(), np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = np.maximum(x, 0) @ served.table.numpy()
    both = {"serving_default": served.records, "raw": served.numbers}
    tf.saved_model.save(served, tmp_path / "both", signatures=both)
    by_signature = open_model(tmp_path / "both")
    np.testing.assert_allclose(by_signature.forward(x, None)[0], 2 * expected, atol=1e-5)
    [note] = by_signature.notes
    expect_facts(note, "serving_default", "raw")
    for training in (True, False):
        served(tf.constant(x), training=training)  # so that it is saved with what it can be called with
    tf.saved_model.save(served, tmp_path / "one", signatures={"serving_default": served.records})
    called = open_model(tmp_path / "one")
    np.testing.assert_allclose(called.forward(x, None)[0], expected, atol=1e-5)
    [note] = called.notes
    expect_facts(note, "serving_default")
    assert open_model(module(tmp_path, serving_default=lambda x: {"y": x @ weights(4, 2)})).notes == ()


def test_what_takes_records_alone_is_refused_with_its_signatures(tmp_path: Path) -> None:
    table, spec = weights(1, 3), tf.TensorSpec([None], tf.string, name="records")

    def scores(records: Any) -> Any:
        return {"y": tf.cast(tf.strings.length(records), tf.float32)[:, None] @ table}

    traced = tf.function(scores, input_signature=[spec], autograph=False).get_concrete_function()
    tf.saved_model.save(tf.Module(), tmp_path / "m", signatures={"serving_default": traced, "more": traced})
    expect_refused(tmp_path / "m", "serving_default (records: string (None,))", "more (records: string (None,))")


def test_the_scores_are_chosen_by_what_they_are(tmp_path: Path) -> None:
    table = weights(4, 3)

    def function(x: Any) -> Any:
        z = x @ table
        return {"a": tf.nn.relu(x), "b": tf.argmax(z, 1), "c": tf.nn.softmax(z), "d": z[:, None], "e": tf.shape(x)}

    model = open_model(module(tmp_path, serving_default=function))
    assert list(model.layers.values()) == [3]
    np.testing.assert_allclose(model.predict(np.ones((2, 4))).sum(1), 1, atol=1e-6)


def test_other_inputs_and_outputs_are_refused(tmp_path: Path) -> None:
    table, spec = weights(4, 3), tf.TensorSpec((None, 4), name="x")
    two = save(lambda x, y: {"z": (x + y) @ table}, tmp_path / "two", spec, tf.TensorSpec((None, 4), name="y"))
    expect_refused(two, "serving_default", "2: x: float32 (None, 4), y: float32 (None, 4)")
    none = save(lambda: {"z": table}, tmp_path / "none")
    expect_refused(none, "serving_default", "none")
    words = tf.TensorSpec((None, 4), tf.string)
    text = save(lambda x: {"z": tf.cast(tf.strings.length(x), tf.float32) @ table}, tmp_path / "text", words)
    expect_refused(text, "(n, ...)", "string (None, 4)")
    row = save(lambda x: {"z": x[None] @ table}, tmp_path / "row", tf.TensorSpec((4,)))
    expect_refused(row, "(n, ...)", "float32 (4,)")
    deep = save(lambda x: {"z": tf.stack([x, x], 1) @ table}, tmp_path / "deep", spec)
    expect_refused(deep, "(n, classes)", "float32 (3, 2, 3)")


def test_a_fixed_batch_is_padded_and_an_open_axis_stays_open(tmp_path: Path) -> None:
    table = weights(4, 3)
    fixed = open_model(save(lambda x: {"y": tf.nn.relu(x @ table)}, tmp_path / "fixed", tf.TensorSpec((2, 4))))
    x = live.inputs_of(fixed)
    np.testing.assert_allclose(fixed.activations(x, [fixed.logits])[fixed.logits], np.maximum(x @ table, 0), atol=1e-6)
    assert fixed.gradient(x, lambda scores, rows: scores).shape == x.shape
    path = save(lambda x: {"y": tf.reduce_mean(x @ table, 1)}, tmp_path / "open", tf.TensorSpec((None, None, 4)))
    model = open_model(path)
    assert model.input.shape == (None, 4)
    assert [model.predict(np.zeros((2, length, 4))).shape for length in (3, 11)] == [(2, 3)] * 2


def test_element_types(tmp_path: Path) -> None:
    table = tf.cast(weights(4, 3), tf.float16)
    half = open_model(save(lambda x: {"y": tf.nn.relu(x) @ table}, tmp_path / "half", tf.TensorSpec((None, 4), "half")))
    assert half.input.dtype == "float16"
    x = live.inputs_of(half)
    assert {a.dtype for a in half.activations(x, list(half.layers)).values()} == {np.dtype("float32")}
    assert half.gradient(x, lambda scores, rows: np.ones_like(scores)).any()
    path = save(
        lambda x: {"y": tf.nn.softmax(tf.gather(table, x)[:, 0])}, tmp_path / "int", tf.TensorSpec((None, 2), "int32")
    )
    places = open_model(path)
    assert places.access is Access.WHITE_BOX
    with refused(ModelError, "int32"):
        places.gradient(np.zeros((2, 2)), lambda scores, rows: scores)


# -- what cannot be had


def test_a_graph_without_gradients_says_so(tmp_path: Path) -> None:
    table = weights(4, 3)
    model = open_model(
        save(lambda x: {"y": tf.round(tf.nn.relu(x @ table)) @ weights(3, 2)}, tmp_path / "m", tf.TensorSpec((None, 4)))
    )
    assert model.access is Access.WHITE_BOX
    assert list(model.layers.values()) == [3, 2]
    with refused(ModelError, "gradient", "'matmul_1'"):
        model.gradient(live.inputs_of(model), lambda scores, rows: scores)


def saved_by_tensorflow_1(folder: Path, *, steps: int, signed: bool = True) -> Path:
    """A dense network of TensorFlow 1's sessions, with a loop as it made them where there are steps."""
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        table = v1.get_variable("w", initializer=weights(4, 4), use_resource=bool(steps))
        v1.disable_control_flow_v2()
        try:
            h = tf.nn.relu(x @ table)
            if steps:
                _, h = v1.while_loop(lambda i, h: i < steps, lambda i, h: (i + 1, tf.tanh(h @ table)), (0, h))
        finally:
            v1.enable_control_flow_v2()
        y = tf.nn.softmax(h @ table)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            builder = v1.saved_model.Builder(str(folder))
            signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
            builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature} if signed else None)
            builder.save()
    return folder


def test_tensorflow_1(tmp_path: Path) -> None:
    model = open_model(saved_by_tensorflow_1(tmp_path / "plain", steps=0))
    assert list(model.layers.values()) == [4, 4]
    check_model(model, live.inputs_of(model, rows=8))
    loop = open_model(saved_by_tensorflow_1(tmp_path / "loop", steps=3))
    assert loop.access is Access.BLACK_BOX
    expect_facts(loop.unseen, "loops")
    np.testing.assert_allclose(loop.predict(live.inputs_of(loop)).sum(1), 1, atol=1e-6)
    for ask in (
        lambda: loop.activations(live.inputs_of(loop), list(loop.layers)),
        lambda: loop.gradient(live.inputs_of(loop), lambda scores, rows: scores),
    ):
        with refused(ModelError, "loops"):
            ask()
    unsigned = saved_by_tensorflow_1(tmp_path / "unsigned", steps=0, signed=False)
    expect_refused(unsigned, "signatures")


def test_a_graph_that_answers_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = weights(4, 3)
    path = save(lambda x: {"y": tf.nn.dropout(x, 0.5) @ table}, tmp_path / "model", tf.TensorSpec((None, 4)))
    expect_refused(path, "signature", "difference")
    path = module(tmp_path / "b", serving_default=lambda x: {"y": x @ table})
    monkeypatch.setattr(
        deepjudge_keras.savedmodel, "inline", lambda function, x, result: tf.identity(x @ table * 1.001, name="y")
    )
    expect_refused(path, "signature", "difference")


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    plain = Plain(conv())
    tf.saved_model.save(plain, tmp_path / "model", signatures=plain.scores)
    loaded: list[Any] = []
    load = tf.saved_model.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.saved_model, "load", lambda *args, **kwargs: loaded.append(load(*args, **kwargs)) or loaded[0])
        model = live.open_keras(tmp_path / "model")
    (remaining,) = loaded
    counted = next(
        variable for variable in remaining.signatures["serving_default"].variables if variable.dtype == tf.int32
    )
    before = int(counted)
    answers(model, live.inputs_of(model))
    assert int(counted) == before


# -- digests, and folders that are no models


def test_the_digest_is_of_the_model_s_files(tmp_path: Path) -> None:
    model = live.small()
    path = export(model, tmp_path / "a")
    digest = live.open_keras(path).digest
    assert len(digest) == 64
    shutil.copytree(path, tmp_path / "b")
    assert live.open_keras(tmp_path / "b").digest == digest
    (tmp_path / "b" / "assets" / "words.txt").write_text("one")
    assert live.open_keras(tmp_path / "b").digest != digest
    model.layers[0].bias.assign_add([0, 0, 1e-3])
    shutil.copytree(path, tmp_path / "c")
    shutil.copytree(export(model, tmp_path / "d") / "variables", tmp_path / "c" / "variables", dirs_exist_ok=True)
    assert live.open_keras(tmp_path / "c").digest != digest


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    path = export(live.small(), tmp_path / "whole")
    (tmp_path / "empty").mkdir()
    expect_refused(tmp_path / "empty", "empty")
    expect_refused(tmp_path, "saved_model.pb")
    content = (path / "saved_model.pb").read_bytes()
    for name, there, fact in [
        ("nothing", b"", "empty"),
        ("half", content[: len(content) // 2], "truncated"),
        ("text", b"some text\n" * 50, "truncated"),
        ("bare", b"\x08\x01", "graph"),
    ]:
        shutil.copytree(path, tmp_path / name)
        (tmp_path / name / "saved_model.pb").write_bytes(there)
        expect_refused(tmp_path / name, "saved_model.pb", fact)
    shutil.copytree(path, tmp_path / "weightless")
    shutil.rmtree(tmp_path / "weightless" / "variables")
    expect_refused(tmp_path / "weightless", "variables/variables.index")
    shutil.copytree(path, tmp_path / "cut")
    (data,) = (tmp_path / "cut" / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:100])
    expect_refused(tmp_path / "cut", "SavedModel")


# -- among other models


def test_a_marked_folder_is_one_model(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    path = export(live.small(), tmp_path / "models" / "b")
    live.small().save(tmp_path / "models" / "a.keras")
    (tmp_path / "models" / "c").mkdir()
    both = [str(tmp_path / "models" / "a.keras"), str(path)]
    assert expand([str(path)], REGISTRY.adapters).models == (str(path),)
    for name in ("models", "models/*"):
        assert expand([str(tmp_path / name)], REGISTRY.adapters).models == tuple(both)
    assert open_model(str(path)).name == str(path)
    named = export(live.small(), tmp_path / "model.onnx")  # what is inside says more than the name
    assert open_model(named).framework == "keras"
    with refused(UsageError, tmp_path / "models" / "c"):
        open_model(tmp_path / "models" / "c")


def test_folders_are_names_in_a_tuple() -> None:
    (adapter,) = deepjudge_keras.deepjudge_adapters()
    assert adapter.folders == ("saved_model.pb", "model.json")
    with refused(PluginError, "a: ", "folders", "'model.pb'"):
        type(adapter)("a", suffixes=(), accepts=bool, open=open_model, folders="model.pb")  # type: ignore[arg-type]


def test_tensorflow_keeps_quiet(tmp_path: Path) -> None:
    done = live.run_python(
        "import sys, pathlib, numpy\n"
        "from deepjudge_core import open_model\n"
        "for path in sys.argv[1:]:\n"
        "    model = open_model(path)\n"
        "    x = numpy.zeros((2, *model.input.shape))\n"
        "    model.gradient(x, lambda scores, rows: scores)\n"
        "print('to stderr', file=sys.stderr)\n",
        export(live.small(), tmp_path / "new"),
        saved_by_tensorflow_1(tmp_path / "old", steps=0),
    )
    assert (done.stdout, done.stderr) == ("", "to stderr\n")


@pytest.mark.skipif(not VICTIMS.is_dir(), reason=f"the authors' models are not at {VICTIMS}")
def test_the_authors_lenet_5(tmp_path: Path) -> None:
    source = VICTIMS / "mnist_lenet5.h5"
    model = keras.models.load_model(source, compile=False)
    model([np.zeros((1, 28, 28, 1), "float32")])
    exported, opened = open_model(export(model, tmp_path / "lenet5")), live.open_keras(source)
    assert list(exported.layers.values()) == [6, 16, 120, 84, 10]
    x = live.inputs_of(opened)
    assert_same(answers(exported, x), answers(opened, x))

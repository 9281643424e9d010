"""The Keras adapter: taps against Keras's own layer outputs, gradients against differences, files good and bad."""

import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
from places import VICTIMS
from refusals import refused

from deepjudge_core.errors import MissingExtraError, ModelError
from deepjudge_core.models.model import Access, Model
from deepjudge_core.types import Array

# Set before TensorFlow is imported, as the adapter sets it: no word of its own on the terminal.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'deepjudge[tensorflow]'")
keras: Any = pytest.importorskip("keras", reason="Keras is not installed: pip install 'deepjudge[tensorflow]'")

import tensorflow as tf  # noqa: E402
from keras import layers, ops  # noqa: E402
from keras_models import (  # noqa: E402
    ADAPTER,
    BUILDERS,
    Built,
    case,
    conv1d,
    inputs_of,
    need_channels_first,
    nested_and_shared,
    open_keras,
    operations,
    residual,
    run_python,
    same,
    seeded,
    small,
    taps_of,
)

# TensorFlow 2.21's variables do not know the `copy` that numpy 2 passes them when Keras saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture
def float64() -> Iterator[None]:
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    "last",
    [
        lambda y: y[:, -1],
        lambda y: y[:, -1:, :],
        layers.Cropping1D((4, 0)),
        lambda y: ops.take(y, -1, axis=1),
        lambda y: ops.unstack(y, axis=1)[-1],
        lambda y: ops.split(y, 5, axis=1)[-1],
        lambda y: layers.Permute((2, 1))(y)[:, :, -1],
    ],
)
def test_the_step_that_is_used_is_the_tap_however_it_is_spelt(last: Callable[[Any], Any], tmp_path: Path) -> None:
    x = keras.Input((5, 3))
    y = layers.LSTM(4, return_sequences=True)(x)
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(last(y))))
    model.export(tmp_path / "m", verbose=False)
    for opened in (open_keras(model), open_keras(tmp_path / "m")):
        values, tap = inputs_of(opened), next(iter(opened.layers))
        steps = keras.Model(x, y).predict(values, verbose=0)[:, -1]
        np.testing.assert_allclose(opened.activations(values, [tap])[tap], steps, atol=1e-5)


# -- taps


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_taps_are_what_keras_computes_there(build: Callable[[], Built]) -> None:
    model, references, opened = case(build)
    x = inputs_of(opened)
    expected = keras.Model(model.inputs, references)([x])
    outputs = opened.activations(x, list(opened.layers))
    assert len(outputs) == len(references)
    for (layer, neurons), tensor in zip(outputs.items(), expected, strict=True):
        mean = tensor.numpy().mean(tuple(range(1, tensor.ndim - 1)))
        assert neurons.shape == (len(x), opened.layers[layer]), layer
        np.testing.assert_allclose(neurons, mean, atol=1e-5, err_msg=layer)


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_predictions_are_keras_own(build: Callable[[], Built]) -> None:
    model, _, opened = case(build)
    x = inputs_of(opened)
    output = model(x, training=False).numpy()
    probabilities = opened.predict(x)
    if output.shape[1] == 1:
        np.testing.assert_allclose(probabilities[:, 1:], output, atol=1e-6)
    elif build is residual:
        np.testing.assert_allclose(probabilities, scipy.special.softmax(output, axis=1), atol=1e-6)
    elif build is conv1d:
        np.testing.assert_allclose(probabilities, np.exp(output), atol=1e-6)
    else:
        np.testing.assert_allclose(probabilities, output, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_gradients_are_the_differences_quotients(build: Callable[[], Built]) -> None:
    model, _ = seeded(build)
    opened = open_keras(model)
    x = inputs_of(opened)
    rng = np.random.default_rng(2)
    direction, step = rng.normal(size=x.shape), 1e-6
    above, below = (opened.forward(x + sign * step * direction, list(opened.layers)) for sign in (1, -1))
    for layer, plus, minus in zip(opened.layers, above, below, strict=True):
        weights = rng.normal(size=plus.shape)
        expected = (weights * (plus - minus)).sum(1) / (2 * step)
        gradient = opened.backward(x, lambda scores, weights=weights: weights, layer)
        slopes = (gradient * direction).reshape(len(x), -1).sum(1)
        np.testing.assert_allclose(slopes, expected, rtol=1e-5, atol=1e-8, err_msg=layer)


def test_names_are_those_of_the_layers() -> None:
    body = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="relu", name="hidden")], name="body")
    x = keras.Input((4,))
    a = layers.SimpleRNN(2, unroll=True, name="steps")(layers.Reshape((2, 2))(body(body(x))))
    y = layers.Dense(3, activation="softmax", name="scores")(layers.ReLU(name="last")(a))
    opened = open_keras(keras.Model(x, y))
    assert dict(opened.layers) == {"body/hidden": 4, "body/hidden:2": 4, "steps": 2, "last": 2, "scores": 3}


def test_channels_may_come_first() -> None:
    need_channels_first()
    x = keras.Input((3, 8, 8))
    a = layers.Conv2D(4, 3, activation="relu", data_format="channels_first")(x)
    b = layers.Activation("relu")(layers.BatchNormalization(axis=1)(a))
    c = layers.ReLU()(layers.Permute((2, 3, 1))(b))
    y = layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(c))
    model = keras.Model(x, y)
    opened = open_keras(model)
    assert list(opened.layers.values()) == [4, 4, 4, 5]
    assert opened.input.layout == "channels_first"
    assert open_keras(small()).input.layout == "channels_last"
    images = inputs_of(opened)
    outputs = opened.activations(images, list(opened.layers)[:3])
    # Outside of a function TensorFlow has no such convolution for CPUs.
    expected = tf.function(keras.Model(x, [a, b, c]))(images)
    for neurons, tensor, axes in zip(outputs.values(), expected, [(2, 3), (2, 3), (1, 2)], strict=True):
        np.testing.assert_allclose(neurons, tensor.numpy().mean(axes), atol=1e-6)


def test_half_precision_is_averaged_in_single() -> None:
    x = keras.Input((6, 6, 1))
    a = layers.Conv2D(3, 3, activation="relu", dtype="mixed_float16")(x)
    z = layers.Dense(4, dtype="mixed_float16")(layers.Flatten()(a))
    opened = open_keras(keras.Model(x, layers.Softmax(dtype="float32")(z)))
    assert opened.input.dtype == "float32"
    assert [a.dtype for a in opened.forward(inputs_of(opened), list(opened.layers))] == ["float32", "float32"]
    gradient = opened.gradient(inputs_of(opened), lambda scores, rows: np.ones_like(scores))
    assert np.isfinite(gradient).all()
    assert gradient.any()


class Written(keras.Model):  # type: ignore[misc, name-defined]
    """A model of one's own: layers, and TensorFlow's operations between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = layers.Conv2D(3, 3, activation="gelu"), layers.BatchNormalization()
        self.block = keras.Sequential([layers.Dense(5), layers.PReLU()])
        self.scores = layers.Dense(4)

    def steps(self, x: Any) -> Iterator[Any]:
        """Its taps, in numbers that TensorFlow gives when they are asked for one by one."""
        yield (x := self.conv(x))
        yield (x := tf.nn.relu(self.norm(x)))
        yield (x := self.block(tf.reduce_mean(x, (1, 2))))
        yield (x := keras.activations.gelu(x + 1))
        yield (x := tf.nn.silu(2 * x))
        yield self.scores(x)

    def call(self, x: Any) -> Any:
        return tf.nn.softmax(list(self.steps(x))[-1])


def test_a_class_of_ones_own_is_traced() -> None:
    model = Written()
    model(np.zeros((2, 6, 6, 1), "float32"))
    opened = open_keras(model)
    assert list(opened.layers.values()) == [3, 3, 5, 5, 5, 4]
    assert opened.input.shape == (6, 6, 1)
    x = inputs_of(opened)
    np.testing.assert_allclose(opened.predict(x), model(x), atol=1e-6)
    outputs = opened.activations(x, list(opened.layers)).values()
    for neurons, tensor in zip(outputs, model.steps(x), strict=True):
        np.testing.assert_allclose(neurons, tensor.numpy().mean(tuple(range(1, tensor.ndim - 1))), atol=1e-6)


# -- the model as it stands in a report


@pytest.mark.parametrize(
    ("build", "suffix"),
    # Keras 3 reads no operations from HDF5.
    [(residual, ".keras"), (residual, ".h5"), (nested_and_shared, ".h5"), (operations, ".keras")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_file_answers_as_the_live_model(build: Callable[[], Built], suffix: str, tmp_path: Path) -> None:
    model, _ = seeded(build)
    model.save(tmp_path / f"model{suffix}")
    live, filed = open_keras(model), open_keras(tmp_path / f"model{suffix}")
    x = inputs_of(live)
    assert (list(filed.layers.items()), filed.input, filed.access) == (
        list(live.layers.items()),
        live.input,
        live.access,
    )

    def answers(opened: Any) -> list[Array]:
        gradient = opened.gradient(x, lambda scores, rows: np.ones_like(scores))
        return [opened.predict(x), *opened.activations(x, list(opened.layers)).values(), gradient]

    for mine, theirs in zip(answers(filed), answers(live), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_description_of_the_model(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "model.keras")
    opened, live = open_keras(tmp_path / "model.keras"), open_keras(model, name="mine", batch_size=2)
    assert isinstance(opened, Model)
    assert opened.name == str(tmp_path / "model.keras")
    assert (live.name, open_keras(model).name) == ("mine", "Sequential")
    assert opened.framework == ADAPTER.name == "keras"
    assert opened.access is Access.FULL
    assert str(opened.input) == "6x6x1"
    assert opened.classes == 4
    x = inputs_of(opened)
    np.testing.assert_allclose(live.predict(x), opened.predict(x), atol=1e-6)


def test_a_fixed_batch_is_padded() -> None:
    x = keras.Input(batch_shape=(4, 6))
    a = layers.Dense(5, activation="relu")(x)
    model = keras.Model(x, layers.Dense(3, activation="softmax")(a))
    opened = open_keras(model)
    rows = inputs_of(opened, rows=6)
    expected = np.concatenate([model(rows[:4]).numpy(), model(rows[[4, 5, 5, 5]]).numpy()[:2]])
    np.testing.assert_array_equal(opened.predict(rows), expected)
    gradient = opened.gradient(rows, lambda scores, rows: np.ones_like(scores))
    assert gradient.shape == rows.shape


def test_an_open_axis_stays_open() -> None:
    x = keras.Input((None, 3))
    a = layers.Conv1D(4, 3, activation="relu")(x)
    opened = open_keras(keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(a))))
    assert opened.input.shape == (None, 3)
    for length in (5, 9):
        assert opened.predict(np.zeros((2, length, 3), "float32")).shape == (2, 3)


def test_the_first_output_of_classes_is_taken() -> None:
    x = keras.Input((6, 6, 1))
    a = layers.Conv2D(3, 3, activation="relu")(x)
    main = layers.Dense(4, activation="softmax")(layers.Flatten()(a))
    auxiliary = layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(a))
    opened = open_keras(keras.Model(x, {"a": a, "main": main, "z": auxiliary}))
    assert list(opened.layers.values()) == [3, 4]


def test_an_input_in_a_list_or_dict() -> None:
    x = keras.Input((6,), name="pixels")
    y = layers.Dense(3, activation="softmax")(x)
    for structure in ([x], {"pixels": x}):
        assert open_keras(keras.Model(structure, y)).predict(np.zeros((2, 6), "float32")).shape == (2, 3)


def test_integer_inputs_have_no_gradients() -> None:
    x = keras.Input((7,), dtype="int32")
    a = layers.LSTM(3)(layers.Embedding(10, 4, mask_zero=True)(x))
    opened = open_keras(keras.Model(x, layers.Dense(4)(a)))
    assert opened.access is Access.WHITE_BOX
    assert opened.predict(np.ones((2, 7))).shape == (2, 4)
    with refused(ModelError, "int32"):
        opened.gradient(np.ones((2, 7)), lambda scores, rows: scores)


def test_no_gradient_where_none_passes() -> None:
    x = keras.Input((6,))
    opened = open_keras(keras.Model(x, layers.Dense(3)(layers.Embedding(2, 1)(x)[..., 0])))
    with refused(ModelError, "gradient"):
        opened.gradient(np.zeros((2, 6), "float32"), lambda scores, rows: scores)


def test_errors_of_the_loss_come_through() -> None:
    opened = open_keras(small())

    def refuse(scores: Array, rows: slice) -> Array:
        raise ModelError("not finite")

    with pytest.raises(ModelError, match=r"^not finite$"):
        opened.gradient(inputs_of(opened), refuse)


def test_rows_that_are_no_cases_are_refused() -> None:
    x = keras.Input((8, 3))
    windows = layers.Dense(5, activation="relu", name="windows")(ops.reshape(x, (-1, 4, 3)))
    opened = open_keras(keras.Model(x, layers.Dense(2)(layers.Flatten()(ops.reshape(windows, (-1, 8, 5))))))
    rows = inputs_of(opened)
    opened.predict(rows)
    with refused(ModelError, "5 rows", "'windows'", 10):
        opened.activations(rows, ["windows"])
    with refused(ModelError, "5 rows", "'windows'", 10):
        opened.gradient(rows, lambda scores, rows: scores, layer="windows")


# -- digests


def test_a_file_s_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    small().save(tmp_path / "a.keras")
    (tmp_path / "b.keras").write_bytes((tmp_path / "a.keras").read_bytes())
    small().save(tmp_path / "c.keras")
    a, b = (open_keras(tmp_path / f"{name}.keras").digest for name in "ab")
    assert a == b
    assert len(a) == 64


def test_a_live_digest_is_of_structure_and_weights() -> None:
    model, again = small(), small()  # Keras numbers the second one's layers on
    assert model.layers[0].name != again.layers[0].name
    digest = open_keras(model).digest
    assert open_keras(again).digest == digest
    again.layers[0].bias.assign_add([0, 0, 1e-3])
    assert open_keras(again).digest != digest
    other = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(3, 3), *model.layers[1:]])
    other.set_weights(model.get_weights())
    assert open_keras(other).digest != digest
    (one, _), (two, _) = seeded(nested_and_shared), seeded(nested_and_shared)
    assert open_keras(one).digest == open_keras(two).digest


class Opaque(keras.Model):  # type: ignore[misc, name-defined]
    """A model made with something that Keras cannot write down."""

    def __init__(self, source: object) -> None:
        super().__init__()
        self.source, self.dense = source, layers.Dense(3, kernel_initializer="ones")

    def call(self, x: Any) -> Any:
        return self.dense(x)


def test_a_digest_of_a_model_that_cannot_be_written_down() -> None:
    models = [Opaque(np.random.default_rng()) for _ in range(3)]
    for model in models:
        model(np.zeros((1, 4), "float32"))
    models[2].dense.bias.assign([0, 0, 1])
    digests = [open_keras(model).digest for model in models]
    assert digests[0] == digests[1] != digests[2]


# -- a live model is left as it was


def snapshot(model: Any) -> Any:
    parts = [model, *model._flatten_layers(include_self=False)]
    state = [
        (
            sorted(k for k, v in vars(p).items() if v is not None),
            len(p._inbound_nodes),
            p.built,
            list(p.losses),
            p.trainable,
        )
        for p in parts
    ]
    return state, [v.numpy().copy() for v in model.variables], keras.Operation.__call__


def test_nothing_is_left_behind() -> None:
    x = keras.Input(batch_shape=(2, 5, 3))
    a = layers.LSTM(4, stateful=True, return_sequences=True, activity_regularizer="l2")(x)
    b = layers.Dropout(0.5)(layers.BatchNormalization()(a))
    model = keras.Model(x, layers.Dense(3, activation="softmax")(layers.Flatten()(b)))
    before = snapshot(model)
    opened = open_keras(model)
    rows = inputs_of(opened)
    opened.predict(rows)
    opened.activations(rows, list(opened.layers))
    opened.gradient(rows, lambda scores, rows: scores)
    assert same(before, snapshot(model))
    with pytest.raises(ZeroDivisionError):
        opened.gradient(rows, lambda scores, rows: scores / (1 // 0))
    assert same(before, snapshot(model))


class Untraceable(keras.Model):  # type: ignore[misc, name-defined]
    """A model that looks at values while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def build(self, input_shape: Any) -> None:
        self.dense.build(input_shape)

    def call(self, x: Any) -> Any:
        return self.dense(x if float(tf.reduce_sum(x).numpy()) < 1e9 else -x)


def test_nothing_is_left_behind_by_a_failure() -> None:
    model = Untraceable()
    model(np.zeros((2, 4), "float32"))
    before = snapshot(model)
    with refused(ModelError, "Untraceable: ", "TensorFlow"):
        open_keras(model)
    assert same(before, snapshot(model))


# -- what cannot be opened


def test_live_models_that_do_not_fit() -> None:
    two = [keras.Input((3,)), keras.Input((3,))]
    with refused(ModelError, "one input", 2):
        open_keras(keras.Model(two, layers.Dense(2)(layers.Concatenate()(two))))
    with refused(ModelError, "built"):
        open_keras(keras.Sequential([layers.Dense(3)]))
    x = keras.Input((6, 6, 1))
    with refused(ModelError, "(n, classes)", "(None, 4, 4, 3)"):
        open_keras(keras.Model(x, layers.Conv2D(3, 3)(x)))
    never_built_on_a_shape = Untraceable()
    never_built_on_a_shape.built = True
    with refused(ModelError, "shape", None):
        open_keras(never_built_on_a_shape)


@keras.saving.register_keras_serializable("deepjudge_tests")
class Doubled(layers.Layer):  # type: ignore[misc, name-defined]
    """A layer that only this module knows."""

    def call(self, x: Any) -> Any:
        return 2 * x


def model_with(layer: Any) -> Any:
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), layer])


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_what_needs_somebody_s_code_is_refused(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_with(layers.Lambda(lambda x: x * 2)).save(tmp_path / f"lambda{suffix}")
    with refused(ModelError, f"lambda{suffix}: ", "ambda"):
        open_keras(tmp_path / f"lambda{suffix}")
    model_with(Doubled()).save(tmp_path / f"custom{suffix}")
    assert open_keras(tmp_path / f"custom{suffix}").classes == 3  # known here
    monkeypatch.delitem(keras.saving.get_custom_objects(), "deepjudge_tests>Doubled")
    monkeypatch.delattr(sys.modules[__name__], "Doubled")
    with refused(ModelError, f"custom{suffix}: ", "Doubled"):
        open_keras(tmp_path / f"custom{suffix}")


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
def test_files_that_are_no_models(suffix: str, tmp_path: Path) -> None:
    small().save(tmp_path / f"whole{suffix}")
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    none = "zip archive" if suffix == ".keras" else "HDF5"
    for name, content, fact in [
        ("empty", b"", "empty"),
        ("text", b"some text\n" * 50, none),
        ("truncated", whole[: len(whole) // 2], none),
    ]:
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(content)
        with refused(ModelError, f"{path}: ", fact):
            open_keras(path)
    (tmp_path / f"folder{suffix}").mkdir()
    with refused(ModelError, f"folder{suffix}: ", "directory"):
        open_keras(tmp_path / f"folder{suffix}")


def test_another_zip_and_weights_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with refused(ModelError, "other.keras: ", "config.json and model.weights.h5"):
        open_keras(tmp_path / "other.keras")
    small().save_weights(tmp_path / "only.weights.h5")
    with refused(ModelError, "only.weights.h5: ", "architecture"):
        open_keras(tmp_path / "only.weights.h5")
    small().save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as good, zipfile.ZipFile(tmp_path / "bad.keras", "w") as bad:
        bad.writestr("config.json", "{]")
        bad.writestr("model.weights.h5", good.read("model.weights.h5"))
    with refused(ModelError, "bad.keras: ", "JSON"):
        open_keras(tmp_path / "bad.keras")


def test_another_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with refused(ModelError, "jax", "KERAS_BACKEND=tensorflow"):
        open_keras(model)


# -- the plugin


def test_live_models_are_recognised() -> None:
    assert ADAPTER.accepts(small())
    assert ADAPTER.accepts(Written())
    assert not ADAPTER.accepts(layers.Dense(3))
    assert not ADAPTER.accepts(np.zeros(3))
    assert ADAPTER.suffixes == (".keras", ".h5", ".hdf5")


def test_the_plugin_imports_no_framework_and_says_which_is_missing() -> None:
    done = run_python(
        "import sys, pathlib\n"
        "import deepjudge_keras\n"
        "[adapter] = deepjudge_keras.deepjudge_adapters()\n"
        "assert not adapter.accepts(object())\n"
        "assert not {'keras', 'tensorflow', 'h5py'} & set(sys.modules)\n"
        "sys.modules['tensorflow'] = None\n"
        "try: adapter.open(pathlib.Path('a.keras'))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    assert done.stdout == (
        f"{MissingExtraError.__name__} a.keras: needs TensorFlow and Keras, which are not installed: "
        "pip install 'deepjudge[tensorflow]'\n"
    )


def test_tensorflow_keeps_quiet(tmp_path: Path) -> None:
    small().save(tmp_path / "model.keras")
    done = run_python(
        "import sys, pathlib, numpy\n"
        "import deepjudge_keras\n"
        "[adapter] = deepjudge_keras.deepjudge_adapters()\n"
        "model = adapter.open(pathlib.Path(sys.argv[1]))\n"
        "x = numpy.zeros((2, 6, 6, 1))\n"
        "model.predict(x)\n"
        "for layer in model.layers: model.gradient(x, lambda scores, rows: scores, layer=layer)\n"
        "print('to stderr', file=sys.stderr)\n",
        tmp_path / "model.keras",
    )
    assert (done.stdout, done.stderr) == ("", "to stderr\n")


# -- models that nobody here wrote


@pytest.mark.skipif(not VICTIMS.is_dir(), reason=f"the authors' models are not at {VICTIMS}")
@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("mnist_lenet5", [6, 16, 120, 84, 10]),
        ("cifar10_resnet20", [16] * 7 + [32] * 6 + [64] * 6 + [10]),
    ],
)
def test_the_authors_victims(name: str, widths: list[int]) -> None:
    opened = open_keras(VICTIMS / f"{name}.h5")
    model = keras.models.load_model(VICTIMS / f"{name}.h5", compile=False)
    assert list(opened.layers.values()) == widths
    x = inputs_of(opened, rows=8)
    np.testing.assert_array_equal(opened.predict(x), model.predict(x, verbose=0))
    expected = keras.Model(model.inputs, taps_of(model))([x])
    outputs = opened.activations(x, list(opened.layers))
    for neurons, tensor in zip(list(outputs.values())[:-1], expected, strict=True):
        np.testing.assert_allclose(neurons, tensor.numpy().mean(tuple(range(1, tensor.ndim - 1))), atol=1e-5)
    np.testing.assert_allclose(scipy.special.softmax(outputs[opened.logits], 1), opened.predict(x), atol=1e-6)
    gradient = opened.gradient(x, lambda scores, rows: np.eye(10, dtype="float32")[scores.argmin(1)])
    assert gradient.shape == x.shape
    assert gradient.any(axis=(1, 2, 3)).all()

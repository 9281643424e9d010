"""The tap of an activation in Keras and in SavedModels, however it is written and wherever pooling stands."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.special

keras: Any = pytest.importorskip("keras", reason="Keras is not installed")
tf: Any = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from keras import layers, ops  # noqa: E402
from spellings import FUNCTIONS, RISING, SPELLINGS, check_layers  # noqa: E402

from deepjudge_core.components.opening import open_model  # noqa: E402
from deepjudge_core.models.model import Access  # noqa: E402
from deepjudge_core.types import Array  # noqa: E402

Act = Callable[[Any], Any]

NAMES = ("abs", "erf", "exp", "log", "maximum", "minimum", "relu", "sigmoid", "sign", "softplus", "tanh", "where")
KERAS = SimpleNamespace(
    **{name: getattr(ops, name) for name in NAMES}, clip=ops.clip, number=lambda x: ops.cast(x, "float32")
)
TENSORFLOW = SimpleNamespace(
    **{name: getattr(tf.math, name) for name in NAMES if hasattr(tf.math, name)},
    relu=tf.nn.relu,
    where=tf.where,
    clip=tf.clip_by_value,
    number=lambda x: tf.cast(x, tf.float32),
)
NATIVE: list[tuple[str, Act]] = [
    ("relu", layers.ReLU()),
    ("relu", layers.LeakyReLU(0.0)),
    ("relu", layers.PReLU()),  # whose slopes begin at 0
    ("relu", lambda x: ops.where(x > 0, x, ops.zeros_like(x))),
    ("leaky", layers.LeakyReLU(0.1)),
    ("leaky", lambda x: ops.leaky_relu(x, 0.1)),
    ("relu6", layers.ReLU(6.0)),
    ("relu6", ops.relu6),
    ("hard sigmoid", layers.Activation("hard_sigmoid")),
    ("hard swish", layers.Activation("hard_silu")),
    ("hard swish", lambda x: x * layers.Activation("hard_sigmoid")(x)),
    ("softsign", ops.softsign),
    ("elu", ops.elu),
    ("selu", ops.selu),
    ("log sigmoid", ops.log_sigmoid),
    ("swish", layers.Activation("swish")),
    ("gelu", lambda x: ops.gelu(x, approximate=False)),
    ("gelu by a tanh", ops.gelu),
    ("mish", layers.Activation("mish")),
    ("tanh shrink", ops.tanh_shrink),
    ("square of relu", lambda x: ops.square(ops.relu(x))),
]
FORMS = [*((name, lambda x, f=f: f(x, KERAS)) for name, f in SPELLINGS.values()), *NATIVE]


def inputs(*shape: int) -> Array:
    return (3 * np.random.default_rng(0).normal(size=shape)).astype(np.float32)


def dense(act: Act) -> Any:
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(3)(act(layers.Dense(6, name="first")(x))))


def check(model: Any, opened: Any, name: str) -> None:
    x = inputs(9, 4)
    check_layers(opened.activations(x, list(opened.layers)), model.get_layer("first")(x).numpy(), name)


@pytest.mark.parametrize(("name", "act"), FORMS)
def test_an_activation_is_one_tap_however_it_is_spelt(name: str, act: Act) -> None:
    model = dense(act)
    check(model, open_model(model), name)


@pytest.mark.parametrize("key", ["x * (x > 0)", "x / (1 + |x|)", "log(1 + exp(x))"])
def test_inside_a_lambda_and_a_layer_of_ones_own_too(key: str) -> None:
    name, act = SPELLINGS[key]

    class Own(layers.Layer):
        def call(self, x: Any) -> Any:
            return act(x, TENSORFLOW)

    for layer in (layers.Lambda(lambda x: act(x, TENSORFLOW)), Own()):
        model = dense(layer)
        check(model, open_model(model), name)


def saved(model: Any, folder: Path) -> Any:
    model.export(folder, verbose=False)
    return open_model(folder)


@pytest.mark.parametrize("key", SPELLINGS)
def test_functions_that_tensorflow_saved_have_the_same_taps(key: str, tmp_path: Path) -> None:
    name, act = SPELLINGS[key]
    rng = np.random.default_rng(0)
    module = tf.Module()
    module.first = tf.Variable(rng.normal(size=(4, 6)).astype(np.float32))
    module.last = tf.Variable(rng.normal(size=(6, 3)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def serve(x: Any) -> Any:
        return {"y": act(x @ module.first, TENSORFLOW) @ module.last}

    tf.saved_model.save(module, str(tmp_path / "m"), {"serving_default": serve})
    opened, x = open_model(tmp_path / "m"), inputs(9, 4)
    check_layers(opened.activations(x, list(opened.layers)), x @ module.first.numpy(), name)


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("relu", layers.PReLU()),
        ("swish", layers.Activation("swish")),
        ("hard swish", layers.Activation("hard_silu")),
        ("gelu", lambda x: ops.gelu(x, approximate=False)),
    ],
)
def test_models_that_keras_exported_have_the_same_taps(name: str, act: Act, tmp_path: Path) -> None:
    model = dense(act)
    check(model, saved(model, tmp_path / "m"), name)


def test_slopes_that_were_learned(tmp_path: Path) -> None:
    prelu = layers.PReLU(alpha_initializer=keras.initializers.RandomUniform(-0.5, 0.5))
    model = dense(prelu)
    x = inputs(9, 4)
    expected = prelu(model.get_layer("first")(x)).numpy()
    for opened in (open_model(model), saved(model, tmp_path / "m")):
        hidden, _ = opened.activations(x, list(opened.layers)).values()
        np.testing.assert_allclose(hidden, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of TensorFlow's, as Keras 2 uses it
@pytest.mark.parametrize("key", ["x * (x > 0)", "0.5 x (1 + erf(x / root 2))", "x * clip(x + 3, 0, 6) / 6"])
def test_operations_in_a_saved_model_of_keras_2(key: str, tmp_path: Path) -> None:
    tf_keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")
    name, act = SPELLINGS[key]
    x = tf_keras.Input((4,))
    first = tf_keras.layers.Dense(6)
    model = tf_keras.Model(x, tf_keras.layers.Dense(3)(act(first(x), TENSORFLOW)))
    model.save(tmp_path / "m", save_format="tf")
    opened, rows = open_model(tmp_path / "m"), inputs(9, 4)
    check_layers(opened.activations(rows, list(opened.layers)), first(rows).numpy(), name)


# -- pooling


def pooled(act: Act, pool: Act, *, late: bool) -> Any:
    """A network with an activation before or after pooling and flattening."""
    keras.utils.set_random_seed(1)
    x = keras.Input((12, 12, 1))
    y = layers.Conv2D(3, 3)(x)
    y = layers.Conv2D(4, 3)(act(pool(y)) if late else pool(act(y)))
    y = act(layers.Flatten()(y)) if late else layers.Flatten()(act(y))
    return keras.Model(x, layers.Dense(4)(y))


def layers_of(model: Any) -> list[Array]:
    return list(model.activations(inputs(5, 12, 12, 1), list(model.layers)).values())


KEYS = {name: key for key, (name, _) in reversed(SPELLINGS.items()) if name in RISING}
POOLS: dict[str, Act] = {
    "MaxPooling2D": layers.MaxPooling2D(),
    "ops.max_pool": lambda x: ops.max_pool(x, 2),
    "Dropout": lambda x: layers.MaxPooling2D()(layers.Dropout(0.5)(x)),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("name", sorted(RISING))
def test_an_activation_that_never_falls_commutes_with_max_pooling(name: str, pool: Act) -> None:
    function = SPELLINGS[KEYS[name]][1]
    early, late = (layers_of(open_model(pooled(lambda x: function(x, KERAS), pool, late=late))) for late in (0, 1))
    assert [a.shape for a in early] == [(5, 3), (5, 4), (5, 4)]
    for mine, other in zip(late, early, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("key", ["x * (x > 0)", "relu(x)", "max(x, a x)"])
def test_so_it_does_in_a_saved_model(key: str, tmp_path: Path) -> None:
    function = SPELLINGS[key][1]
    models = [pooled(lambda x: function(x, KERAS), POOLS["MaxPooling2D"], late=late) for late in (False, True)]
    early, late = (layers_of(saved(model, tmp_path / f"m{place}")) for place, model in enumerate(models))
    assert [a.shape for a in early] == [(5, 3), (5, 4), (5, 4)]
    for mine, other in zip(late, early, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_zeros_around_a_map_may_stand_before_the_pooling(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    x = keras.Input((12, 12, 1))
    wide = layers.ZeroPadding2D()(layers.Conv2D(3, 3, activation="relu")(x))
    most = layers.MaxPooling2D()(wide)
    model = keras.Model(x, layers.Dense(4)(layers.Flatten()(most)))
    expected = keras.Model(x, most)(inputs(5, 12, 12, 1)).numpy().mean((1, 2))
    for opened in (open_model(model), saved(model, tmp_path / "m")):
        np.testing.assert_allclose(layers_of(opened)[0], expected, atol=1e-5)


def test_mean_pooling_commutes_with_no_activation() -> None:
    early, late = (layers_of(open_model(pooled(ops.relu, layers.AveragePooling2D(2), late=late))) for late in (0, 1))
    assert early[0].shape == late[0].shape
    assert np.abs(early[0] - late[0]).max() > 0.1


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_the_greatest_number_of_a_map_is_pooling_too(own: bool, keep: bool, late: bool, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    pool = layers.GlobalMaxPooling2D(keepdims=keep) if own else lambda x: ops.max(x, (1, 2), keepdims=keep)
    x = keras.Input((12, 12, 1))
    convolution = layers.Conv2D(3, 3)
    y = ops.relu(pool(convolution(x))) if late else pool(ops.relu(convolution(x)))
    model = keras.Model(x, layers.Dense(4)(layers.Flatten()(y)))
    expected = ops.max(ops.relu(convolution(inputs(5, 12, 12, 1))), (1, 2)).numpy()
    for opened in (open_model(model), saved(model, tmp_path / "m")):
        hidden, _ = layers_of(opened)
        np.testing.assert_allclose(hidden, expected, atol=1e-5)


def test_every_function_is_there() -> None:
    assert {name for name, _ in FORMS} == FUNCTIONS.keys()


# -- branches


def saved_with(condition: Act, folder: Path) -> tuple[Any, Any]:
    """A SavedModel that runs one of two layers, and its variables."""
    rng = np.random.default_rng(0)
    module = tf.Module()
    module.first = tf.Variable(rng.normal(size=(4, 6)).astype(np.float32))
    module.last = tf.Variable(rng.normal(size=(6, 3)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def serve(x: Any) -> Any:
        hidden = x @ module.first
        return {"y": tf.cond(condition(x), lambda: tf.nn.relu(hidden), lambda: tf.tanh(hidden)) @ module.last}

    tf.saved_model.save(module, str(folder), {"serving_default": serve})
    return open_model(folder), module


def test_a_branch_that_is_always_taken_is_seen(tmp_path: Path) -> None:
    opened, module = saved_with(lambda x: tf.constant(True), tmp_path / "m")
    x = inputs(9, 4)
    check_layers(opened.activations(x, list(opened.layers)), x @ module.first.numpy(), "relu")


def test_a_branch_that_depends_on_the_input_hides_the_layers_and_says_so(tmp_path: Path) -> None:
    opened, module = saved_with(lambda x: tf.reduce_max(x) > 0, tmp_path / "m")
    assert Access.LAYERS not in opened.access
    assert "If" in opened.unseen
    x = inputs(9, 4)
    scores = np.maximum(x @ module.first.numpy(), 0) @ module.last.numpy()
    np.testing.assert_allclose(opened.predict(x), scipy.special.softmax(scores, axis=1), atol=1e-5)

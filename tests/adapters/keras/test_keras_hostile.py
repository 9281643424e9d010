"""Keras files of people who may attack: what they try is refused in one line, and what honest people save is opened."""

import base64
import importlib
import io
import json
import marshal
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import warnings
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import deepjudge_keras
import numpy as np
import pytest
from refusals import refused

from deepjudge_core.components.kinds import Format
from deepjudge_core.errors import ModelError

# Set before TensorFlow is imported, as the adapter sets it: no word of its own on the terminal.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'deepjudge[tensorflow]'")
keras: Any = pytest.importorskip("keras", reason="Keras is not installed: pip install 'deepjudge[tensorflow]'")

import h5py  # noqa: E402
import tensorflow as tf  # noqa: E402
from deepjudge_keras.vocabulary import CLASSES  # noqa: E402
from keras import layers, ops  # noqa: E402

# TensorFlow 2.21's variables do not know the `copy` that numpy 2 passes them when Keras saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
(ADAPTER,) = deepjudge_keras.deepjudge_adapters()
assert ADAPTER.examine
assert ADAPTER.warm_up
examine: Callable[[Path], Format] = ADAPTER.examine


def small() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(2)])


def saved(path: Path, model: Any = None) -> Path:
    (model or small()).save(path)
    return path


def written(path: Path, config: Any, weights: bytes | None = None) -> Path:
    """A model's file of any configuration, and of the weights of an honest one."""
    text = config if isinstance(config, str) else json.dumps(config)
    if path.suffix == ".keras":
        whole = saved(path.with_name("whole.keras"))
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", source.read("metadata.json"))
            archive.writestr("config.json", text)
            archive.writestr("model.weights.h5", weights or source.read("model.weights.h5"))
    else:
        saved(path)
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = text.encode()
    return path


def config_of(path: Path) -> Any:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path) as file:
        return json.loads(file.attrs["model_config"])


def expect_refused(path: Path, *facts: object, read: Callable[[Path], object] = ADAPTER.open) -> None:
    """A file is refused in one line, which has its name and these facts."""
    with refused(ModelError, f"{path}: ", *facts):
        read(path)


def answers(path: Path, name: str = "Keras", *, runs_code: bool = False) -> np.ndarray:
    """Of a file that is opened."""
    assert examine(path) == Format(name, runs_code=runs_code)
    opened = ADAPTER.open(path)
    x = np.random.default_rng(0).random((3, *opened.input.shape)).astype(opened.input.dtype)
    return opened.forward(x, None)[0]


# -- what a configuration names


def marking(marker: Path) -> dict[str, Any]:
    """A function of Python as Keras writes it down, which leaves a mark."""
    code = compile(f"lambda x: (open({str(marker)!r}, 'w'), x)[1]", "f", "eval").co_consts[0]
    text = base64.b64encode(marshal.dumps(code)).decode()
    return {"class_name": "__lambda__", "config": {"code": text, "defaults": None, "closure": None}}


def layer(name: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def function(module: str, name: str) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


LAYERS: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "Lambda": (
        lambda marker: layer("Lambda", function=marking(marker)),
        "Lambda",
    ),
    "a lambda as activation": (lambda marker: layer("Activation", activation=marking(marker)), "__lambda__"),
    "a lambda as anything": (lambda marker: layer("Dense", units=2, anything=[marking(marker)]), "__lambda__"),
    "a function that downloads": (
        lambda _: layer("Activation", activation=function("keras.utils", "get_file")),
        "'get_file'",
    ),
    "a function of Python": (
        lambda _: layer("Activation", activation=function("builtins", "exec")),
        "'exec'",
    ),
    "a name in place of an activation": (
        lambda _: layer("Activation", activation="deserialize"),
        "'deserialize'",
    ),
    "a class of somebody's": (
        lambda _: layer("Mine", None) | {"registered_name": "theirs>Mine"},
        "'theirs>Mine'",
    ),
    "another name behind an honest one": (
        lambda _: layer("Dense", units=2) | {"registered_name": "Lambda"},
        "'Lambda'",
    ),
    "a module of Python": (lambda _: layer("Popen", "subprocess", args="true"), "'subprocess.Popen'"),
    "an import": (lambda _: layer("Layer", "keras.src.utils.nothing"), "'keras.src.utils.nothing.Layer'"),
    "a function as a class": (lambda _: layer("load_model", "keras.models"), "'keras.models.load_model'"),
    "a loop without end": (
        lambda _: layer("WhileLoop", "keras.src.ops.core"),
        "'keras.src.ops.core.WhileLoop'",
    ),
    "a type": (lambda _: {"class_name": "__typespec__", "config": []}, "'__typespec__'"),
    "a type of TensorFlow": (lambda _: {"class_name": "TypeSpec", "type_spec": "x"}, "'TypeSpec'"),
    "no text as a name": (
        lambda _: {"class_name": ["Dense"], "config": {}},
        "string",
    ),
    "a table of great texts": (
        lambda _: {"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "U1000000000"}},
        "constant",
    ),
    **{
        name: (
            (lambda marker, name=name: layer(name, filepath=str(marker.parent))),
            f"'keras.layers.{name}'",
        )
        for name in (
            "TFSMLayer",
            "StringLookup",
            "IntegerLookup",
            "TextVectorization",
            "TorchModuleWrapper",
            "JaxLayer",
        )
    },
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", LAYERS)
def test_what_is_more_than_a_layer_is_refused(name: str, suffix: str, tmp_path: Path) -> None:
    make, fact = LAYERS[name]
    config = config_of(saved(tmp_path / f"honest{suffix}"))
    config["config"]["layers"].append(make(tmp_path / "marker"))
    expect_refused(written(tmp_path / f"m{suffix}", config), fact)
    assert not (tmp_path / "marker").exists()


def test_names_of_keras_2_are_looked_at_too(tmp_path: Path) -> None:
    config = config_of(saved(tmp_path / "honest.h5"))
    config["config"]["layers"].append({"class_name": "TFSMLayer", "config": {"filepath": str(tmp_path)}})
    expect_refused(written(tmp_path / "m.h5", config), "'TFSMLayer'")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("{]", "JSON"),
        ("[" * 100_000, "JSON"),
        ("[" * 300 + "]" * 300, "100 deep"),
        ('"a"', "configuration"),
        ("{}", "configuration"),
        ('"' + "a" * 2**23 + '"', f"{2**23} characters"),
    ],
    ids=["no JSON", "deeper than Python", "deep", "a text", "nothing", "long"],
)
def test_what_is_no_configuration(text: str, fact: str, suffix: str, tmp_path: Path) -> None:
    expect_refused(written(tmp_path / f"m{suffix}", text), fact)


def test_what_keras_does_afterwards_is_left_out(tmp_path: Path) -> None:
    config = config_of(saved(tmp_path / "honest.keras"))
    expected = answers(tmp_path / "honest.keras")
    hostile = {"loss": marking(tmp_path / "marker"), "optimizer": layer("get_file", "keras.utils")}
    for part in (config, config["config"]["layers"][1]):
        part["compile_config"] = hostile
        part["build_config"] = {"input_shape": [None, 10**12]}
    np.testing.assert_array_equal(answers(written(tmp_path / "m.keras", config)), expected)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("units", [10**7, 10**12])
def test_layers_that_their_file_does_not_fill(units: int, suffix: str, tmp_path: Path) -> None:
    config = config_of(saved(tmp_path / f"honest{suffix}"))
    config["config"]["layers"][1]["config"]["units"] = units
    path = written(tmp_path / f"m{suffix}", config)
    expect_refused(path, f"{4 * units + units + 2 * units + 2} weights", 23)


def test_nothing_stays_of_what_was_only_counted(tmp_path: Path) -> None:
    config = config_of(saved(tmp_path / "honest.keras"))
    config["config"]["layers"][1]["config"]["units"] = 10**12
    expect_refused(written(tmp_path / "m.keras", config))
    with keras.StatelessScope():  # which fills what was made without values, when it ends
        pass


# -- what HDF5 holds


def link(file: Any, secret: Path) -> None:
    file["link"] = h5py.ExternalLink(str(secret), "/secret")


def soft(file: Any, secret: Path) -> None:
    file["link"] = h5py.SoftLink("/elsewhere")


def outside(file: Any, secret: Path) -> None:
    file.create_dataset("table", (3,), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def virtual(file: Any, secret: Path) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "secret", (3,))
    file.create_virtual_dataset("table", layout)


def filtered(file: Any, secret: Path) -> None:
    file.create_dataset("table", data=np.zeros(9), compression="lzf")


def named(file: Any, secret: Path) -> None:
    file["kind"] = np.dtype("f4")


def texts(file: Any, secret: Path) -> None:
    file["table"] = ["a", "b"]


def vast(file: Any, secret: Path) -> None:
    file.create_dataset("table", (10**6, 10**6), "f4", chunks=(100, 100))


def hollow(file: Any, secret: Path) -> None:
    file.create_dataset("table", (1,), "f4", chunks=(10**8,), maxshape=(None,))


HDF5 = [
    (link, ("link", "'/link'")),
    (soft, ("link", "'/link'")),
    (outside, ("'/table'", "another file")),
    (virtual, ("'/table'", "another file")),
    (filtered, ("'/table'", "gzip")),
    (named, ("type", "'/kind'")),
    (texts, ("'/table'", "object")),
    (vast, (str(4 * 10**12),)),
    (hollow, (str(4 * 10**8),)),
]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(("add", "facts"), HDF5, ids=lambda value: getattr(value, "__name__", ""))
def test_what_leads_out_of_hdf5(
    add: Callable[[Any, Path], None], facts: tuple[str, ...], suffix: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["secret"] = np.arange(3, dtype="f4")
    path = saved(tmp_path / f"m{suffix}")
    if suffix == ".h5":
        with h5py.File(path, "r+") as file:
            add(file, secret)
    else:
        with zipfile.ZipFile(path) as archive:
            config, weights = json.loads(archive.read("config.json")), io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(weights, "r+") as file:
            add(file, secret)
        path = written(tmp_path / "n.keras", config, weights.getvalue())
    expect_refused(path, "HDF5", *facts)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("dtype", "fact"),
    [("f2", None), ("f8", None), ("i1", "whole"), ("i8", "whole"), ("?", "whole"), ("c8", "complex64")],
)
def test_numbers_are_not_cast_in_silence(dtype: str, fact: str | None, suffix: str, tmp_path: Path) -> None:
    def cast(file: Any) -> None:
        tables: list[str] = []
        file.visititems(lambda name, item: tables.append(name) if getattr(item, "shape", None) == (4, 3) else None)
        [name] = tables
        values = (100 * file[name][()]).astype(dtype)
        del file[name]
        file[name] = values

    path = saved(tmp_path / f"m{suffix}")
    if suffix == ".h5":
        with h5py.File(path, "r+") as file:
            cast(file)
    else:
        with zipfile.ZipFile(path) as archive:
            config, weights = json.loads(archive.read("config.json")), io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(weights, "r+") as file:
            cast(file)
        path = written(tmp_path / "n.keras", config, weights.getvalue())
    if fact:
        expect_refused(path, fact)
    else:
        answers(path, "Keras HDF5" if suffix == ".h5" else "Keras")


def test_a_circle_of_groups_ends(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.h5")
    expected = answers(path, "Keras HDF5")
    with h5py.File(path, "r+") as file:
        file["model_weights/again"] = file["/"]
    np.testing.assert_array_equal(answers(path, "Keras HDF5"), expected)


# -- what is under the name


def archive_of(path: Path, entries: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


HONEST = {"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": b"\x89HDF\r\n\x1a\n"}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_is_refused(protocol: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(pickle.dumps({"a": 1}, protocol))
    expect_refused(path, "pickle", read=examine)
    with path.open("ab") as file:  # an archive behind it
        file.write(archive_of(tmp_path / "whole.keras", HONEST).read_bytes())
    expect_refused(path, "pickle", read=examine)


def test_another_format_under_the_name(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(saved(tmp_path / "n.h5").read_bytes())
    expect_refused(tmp_path / "m.keras", "HDF5", read=examine)
    (tmp_path / "m.h5").write_bytes(saved(tmp_path / "n.keras").read_bytes())
    expect_refused(tmp_path / "m.h5", "zip archive", read=examine)
    torch = archive_of(tmp_path / "t.keras", {"archive/data.pkl": b"", "archive/version": b"3"})
    expect_refused(torch, "config.json and model.weights.h5", read=examine)
    for suffix, kind in ((".keras", "zip archive"), (".h5", "HDF5 file")):
        path = tmp_path / f"other{suffix}"
        path.write_bytes(b"")
        expect_refused(path, "empty", read=examine)
        path.write_bytes(b"GIF89a" + bytes(200))
        expect_refused(path, kind, "truncated", read=examine)
        path.unlink()
        path.mkdir()
        expect_refused(path, "directory", read=examine)


def test_archives_that_are_more_than_a_model(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    expect_refused(archive_of(path, HONEST | {"json.py": b"raise SystemExit"}), "'json.py'", read=examine)
    expect_refused(archive_of(path, HONEST | {"../config.json": b""}), "'../config.json'", read=examine)
    bomb = archive_of(path, HONEST | {"config.json": bytes(10**7)})
    expect_refused(bomb, "10000000", read=examine)
    expect_refused(archive_of(path, HONEST, zipfile.ZIP_LZMA), "compressed", read=examine)
    many = archive_of(path, HONEST | {f"assets/{number}": b"" for number in range(2000)})
    expect_refused(many, "table of contents", read=examine)
    archive_of(path, HONEST)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.json", b"")
    expect_refused(path, "entries", "name", read=examine)


def test_a_truncated_archive(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.keras").read_bytes()
    for length in (4, 60, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "m.keras").write_bytes(whole[:length])
        expect_refused(tmp_path / "m.keras", "zip archive", "truncated", read=examine)


# -- SavedModel


def exported(path: Path, function: Callable[[Any], Any]) -> Path:
    module = tf.Module()
    module.scores = tf.function(function, [tf.TensorSpec((None, 4), tf.float32)])
    tf.saved_model.save(module, path, signatures=module.scores)
    return path


def read(secret: Path, x: Any) -> Any:
    return tf.cast(tf.strings.length(tf.io.read_file(str(secret))), tf.float32)


def write(secret: Path, x: Any) -> Any:
    with tf.control_dependencies([tf.io.write_file(str(secret), "marked")]):
        return tf.constant(0.0)


def run(secret: Path, x: Any) -> Any:
    return tf.numpy_function(lambda: np.float32(secret.write_text("marked")), [], tf.float32)


def save(secret: Path, x: Any) -> Any:
    with tf.control_dependencies(
        [tf.raw_ops.SaveV2(prefix=str(secret), tensor_names=["x"], shape_and_slices=[""], tensors=[x])]
    ):
        return tf.constant(0.0)


def tell(secret: Path, x: Any) -> Any:
    with tf.control_dependencies([tf.print("marked", output_stream=f"file://{secret}")]):
        return tf.constant(0.0)


@pytest.mark.parametrize("inside", [False, True], ids=["plain", "in a branch"])
@pytest.mark.parametrize(
    ("act", "name"),
    [
        (read, "ReadFile"),
        (write, "WriteFile"),
        (run, "PyFunc"),
        (tell, "PrintV2"),
        (save, "SaveV2"),
    ],
)
def test_a_graph_that_does_more_than_compute(
    act: Callable[[Path, Any], Any], name: str, inside: bool, tmp_path: Path
) -> None:
    secret, table = tmp_path / "marker", tf.ones((4, 3))

    def scores(x: Any) -> Any:
        more = tf.cond(tf.reduce_sum(x) > 9, lambda: act(secret, x), lambda: 0.0) if inside else act(secret, x)
        return {"y": x @ table + more}

    path = exported(tmp_path / "m", scores)
    assert examine(path) == Format("SavedModel", runs_code=True)
    expect_refused(path, name)
    assert not secret.exists()


def test_folders_that_hold_something_else(tmp_path: Path) -> None:
    honest = exported(tmp_path / "honest", lambda x: {"y": tf.nn.relu(x) @ tf.ones((4, 3))})
    assert answers(honest, "SavedModel", runs_code=True).shape == (3, 3)

    def expect(name: str, put: Callable[[Path], object], *facts: str) -> None:
        folder = tmp_path / name
        shutil.copytree(honest, folder)
        put(folder)
        expect_refused(folder, *facts, read=examine)

    expect("a", lambda f: (f / "json.py").write_text(""), "'json.py'")

    def replace(folder: Path) -> None:
        (folder / "variables/variables.index").unlink()
        (folder / "variables/variables.index").symlink_to(honest / "variables/variables.index")

    expect("b", replace, "'variables/variables.index'", "link")
    expect("c", lambda f: os.mkfifo(f / "assets/pipe"), "'assets/pipe'")
    expect("d", lambda f: (f / "saved_model.pb").unlink(), "saved_model.pb")


# -- what honest people save


def sequential() -> Any:
    x = [
        keras.Input((8, 8, 3)),
        layers.RandomFlip(),
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, activation="swish"),
    ]
    x += [layers.BatchNormalization(), layers.PReLU(), layers.SpatialDropout2D(0.1), layers.GroupNormalization(2)]
    return keras.Sequential(
        [*x, layers.GlobalAveragePooling2D(), layers.Dense(3, kernel_regularizer="l2"), layers.Softmax()]
    )


def functional() -> Any:
    x = keras.Input((8, 8, 3))
    a = layers.SeparableConv2D(4, 3, padding="same", depthwise_constraint=keras.constraints.MaxNorm(2))(x)
    b = layers.SpectralNormalization(layers.Conv2D(4, 3, padding="same", kernel_initializer="orthogonal"))(x)
    y = layers.Concatenate()([layers.Add()([a, b]), layers.Resizing(8, 8)(layers.AveragePooling2D(2)(a))])
    y = layers.ZeroPadding2D()(layers.UpSampling2D()(layers.Conv2DTranspose(2, 3)(y)))
    inner = keras.Sequential([layers.Dense(4, activation=layers.ELU(0.5)), layers.UnitNormalization()])
    return keras.Model(x, layers.Dense(3)(inner(layers.Flatten()(y))))


def recurrent() -> Any:
    x = keras.Input((5, 3))
    y = layers.Bidirectional(layers.LSTM(4, return_sequences=True, dropout=0.1))(layers.GaussianNoise(0.1)(x))
    y = layers.TimeDistributed(layers.Dense(4))(layers.GRU(4, return_sequences=True)(y))
    y = layers.RNN([layers.LSTMCell(3), layers.GRUCell(3)], return_sequences=True)(y)
    return keras.Model(x, layers.Dense(3)(layers.SimpleRNN(4)(layers.Conv1D(4, 2)(y))))


def attention() -> Any:
    x = keras.Input((5, 4))
    y = layers.MultiHeadAttention(2, 3)(x, x)
    y = layers.GroupQueryAttention(2, 2, 1)(y, y)
    y = layers.RMSNormalization()(layers.Attention(score_mode="concat")([y, y]))
    y = layers.EinsumDense("bti,io->bto", (5, 4), bias_axes="to")(layers.LayerNormalization()(y))
    return keras.Model(x, layers.Dense(3)(layers.GlobalMaxPooling1D()(y)))


def words() -> Any:
    x = keras.Input((5,), dtype="int32")
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(x))))


def prepared() -> Any:
    normal = layers.Normalization()
    normal.adapt(np.random.default_rng(0).random((20, 4)))
    fixed = layers.Normalization(mean=[0.5] * 4, variance=[2.0] * 4)
    return keras.Sequential([keras.Input((4,)), normal, fixed, layers.Dense(3)])


def half() -> Any:
    policy = keras.DTypePolicy("mixed_bfloat16")
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, dtype=policy), layers.Dense(3, dtype="bfloat16")])


def operations() -> Any:
    x = keras.Input((5, 4))
    y = layers.LSTM(4, return_sequences=True)(x)
    y = ops.relu(y[:, -1] - np.arange(4, dtype="float32")) * ops.arange(4.0)
    y = keras.activations.gelu(ops.concatenate([y, y[..., ::2]], axis=-1))
    return keras.Model(x, layers.Dense(3, activation=ops.silu)(ops.reshape(y, (-1, 6))))


def masked() -> Any:
    x = keras.Input((5, 3))
    return keras.Model(x, layers.Dense(3)(layers.LSTM(4)(layers.Masking()(x))))


def theirs(true: Any, predictions: Any) -> Any:
    """A loss of somebody's own, of which nothing is asked when the model is only used."""
    return ops.mean(predictions)


def trained() -> Any:
    model = small()
    model.compile("adam", theirs, metrics=["accuracy"])
    model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    return model


HONEST_MODELS = [sequential, functional, recurrent, attention, words, prepared, half]


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize(
    ("build", "suffix"),
    # Keras 3 reads no operations from HDF5, and half precision is written there as it is not read.
    [
        *((build, ".keras") for build in (*HONEST_MODELS, operations, masked, trained)),
        *((build, ".h5") for build in HONEST_MODELS if build is not half),
    ],
)
def test_honest_models_are_opened(build: Callable[[], Any], suffix: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = build()
    path = saved(tmp_path / f"m{suffix}", model)
    opened, live = ADAPTER.open(path), ADAPTER.open(model)
    x = np.random.default_rng(0).random((3, *opened.input.shape)).astype(opened.input.dtype)
    np.testing.assert_array_equal(opened.predict(x), live.predict(x))
    assert examine(path) == Format("Keras" if suffix == ".keras" else "Keras HDF5", runs_code=False)
    assert list(opened.layers.values()) == list(live.layers.values())


def test_honest_files_of_other_makes(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    expected = answers(saved(tmp_path / "m.keras"))
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    np.testing.assert_array_equal(answers(archive_of(tmp_path / "packed.keras", entries)), expected)
    with_assets = archive_of(tmp_path / "assets.keras", entries | {"assets/vocabulary.txt": b"a"}, zipfile.ZIP_STORED)
    np.testing.assert_array_equal(answers(with_assets), expected)
    with h5py.File(io.BytesIO(entries["model.weights.h5"])) as source, h5py.File(tmp_path / "w.h5", "w") as target:

        def pack(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.shape:
                target.create_dataset(name, data=item[()], compression="gzip", shuffle=True)

        source.visititems(pack)
    gzipped = archive_of(tmp_path / "g.keras", entries | {"model.weights.h5": (tmp_path / "w.h5").read_bytes()})
    np.testing.assert_array_equal(answers(gzipped), expected)


def test_the_vocabulary_is_of_classes_that_keras_has() -> None:
    for module, name in CLASSES:
        kind = vars(importlib.import_module(module)).get(name)
        assert isinstance(kind, type), f"{module}.{name}"


# -- without opening files


def old_file(path: Path) -> None:
    """What Keras 2 wrote."""
    import tf_keras

    x = tf_keras.Input((6, 6, 1))
    inner = tf_keras.Sequential([tf_keras.layers.DepthwiseConv2D(3), tf_keras.layers.Activation("hard_sigmoid")])
    y = tf_keras.layers.Flatten()(inner(tf.nn.relu6(x[:, 1:] * 2.0 - 1.0)))
    with warnings.catch_warnings(action="ignore"):  # of HDF5 being old
        tf_keras.Model(x, tf_keras.layers.Dense(2, activation="softmax")(y)).save(path)


@pytest.mark.filterwarnings("ignore")  # of tf_keras' own, while it is imported
def test_after_the_rehearsal_no_file_is_opened(tmp_path: Path) -> None:
    for name, build in (("a.keras", sequential), ("b.h5", recurrent), ("c.keras", small), ("d.h5", small)):
        saved(tmp_path / name, build())
    count = 4
    if find_spec("tf_keras"):
        old_file(tmp_path / "e.h5")
        count += 1
    code = """
        import importlib, io, resource, sys
        from pathlib import Path
        import numpy as np
        import deepjudge_keras

        contents = {path: Path(path).read_bytes() for path in sys.argv[1:]}
        for path in contents:
            Path(path).unlink()

        class Served(type(Path())):
            def open(self, mode, *_, **__):
                assert mode == "rb"
                return io.BytesIO(contents[str(self)])

        [adapter] = deepjudge_keras.deepjudge_adapters()
        for module in adapter.imports:
            importlib.import_module(module)
        adapter.warm_up(gradients=True)
        opened = []
        sys.addaudithook(lambda event, given: opened.append(given) if event in ("open", "import") else None)
        # What Python does not know of, TensorFlow's own libraries, cannot open anything either.
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        for path in contents:
            assert not adapter.examine(Served(path)).runs_code
            model = adapter.open(Served(path))
            x = np.ones((3, *model.input.shape), np.float32)
            model.predict(x)
            model.activations(x, list(model.layers))
            for layer in (None, next(iter(model.layers))):
                model.gradient(x, lambda scores, rows: np.ones_like(scores), layer=layer)
        print(len(contents), opened)
        """
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{count} []\n"), done.stderr
    assert not list(tmp_path.iterdir())

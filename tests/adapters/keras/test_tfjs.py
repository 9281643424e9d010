"""TensorFlow.js's layers models, written by hand: the answers of what they were written from, and hostile ones."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepjudge_keras
import numpy as np
import pytest
from deepjudge_keras import jsontext
from refusals import refused

from deepjudge_core import open_model
from deepjudge_core.components.kinds import Format
from deepjudge_core.components.registry import load_registry
from deepjudge_core.errors import ModelError
from deepjudge_core.files import digests

# Set before TensorFlow is imported, as the adapter sets it: no word of its own on the terminal.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'deepjudge[tensorflow]'")
pytest.importorskip("keras", reason="Keras is not installed: pip install 'deepjudge[tensorflow]'")
keras2: Any = pytest.importorskip("tf_keras", reason="tf_keras is not installed")

from networks import tfjs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of tf_keras' own, on what is old
(ADAPTER,) = deepjudge_keras.deepjudge_adapters()
L = keras2.layers
Content = dict[str, Any]


@pytest.fixture(scope="module")
def model() -> Any:
    """A backbone in a list of models, as Teachable Machine has it."""
    x = L.Input((8, 8, 3))
    y = L.BatchNormalization()(L.DepthwiseConv2D(3)(L.Conv2D(4, 3, activation="relu", name="conv")(x)))
    backbone = keras2.Sequential([keras2.Model(x, y), L.GlobalAveragePooling2D()])
    head = keras2.Sequential([L.Dense(5, activation="hard_sigmoid"), L.Dense(3, activation="softmax", use_bias=False)])
    model = keras2.Sequential([backbone, head])
    model.build((None, 8, 8, 3))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(np.abs(rng.normal(size=weight.shape)) + 0.1)
    return model


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).random((4, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("quantised", "shards", "close"), [(None, 1, 1e-6), ("float16", 3, 1e-3), ("uint16", 1, 1e-4), ("uint8", 3, 2e-2)]
)
def test_answers_are_those_of_the_layers(
    quantised: str | None, shards: int, close: float, model: Any, x: np.ndarray, tmp_path: Path
) -> None:
    path = tfjs.write(model, tmp_path / "m", quantised=quantised, shards=shards)
    opened = ADAPTER.open(path)
    np.testing.assert_allclose(opened.predict(x), np.asarray(model(x)), rtol=0, atol=close)
    assert list(opened.layers.values()) == [4, 5, 3]


def test_weights_are_what_their_whole_numbers_stand_for(model: Any, x: np.ndarray, tmp_path: Path) -> None:
    path = tfjs.write(model, tmp_path / "m", quantised="uint8")
    for weight in model.weights:
        entry, stored = tfjs._quantised(weight.numpy(), "uint8")
        weight.assign(stored.astype(np.float32) * entry["quantization"]["scale"] + entry["quantization"]["min"])
    np.testing.assert_allclose(ADAPTER.open(path).predict(x), np.asarray(model(x)), rtol=0, atol=1e-6)


def test_a_folder_and_its_file_are_one_model_each(model: Any, x: np.ndarray, tmp_path: Path) -> None:
    path, registry = tfjs.write(model, tmp_path / "m", shards=2), load_registry()
    (tmp_path / "other.json").write_text("{}")
    assert registry.adapters.in_folder(tmp_path) == [tmp_path / "m"]
    file, folder = open_model(path), open_model(tmp_path / "m")
    np.testing.assert_array_equal(file.predict(x), folder.predict(x))
    assert file.digest == digests.of_file(path, [path.with_name(name) for name in ADAPTER.beside(path)]).digest
    assert set(file.files) == {"model.json", *ADAPTER.beside(path)} == set(folder.files)
    assert ADAPTER.examine
    assert ADAPTER.examine(path) == ADAPTER.examine(tmp_path / "m") == Format("TensorFlow.js", runs_code=True)
    shard = path.with_name(ADAPTER.beside(path)[1])
    shard.write_bytes(shard.read_bytes()[:-4] + b"\0\0\0\0")
    assert open_model(path).digest != file.digest


def test_names_as_browsers_save_them(model: Any, x: np.ndarray, tmp_path: Path) -> None:
    path = tfjs.write(model, tmp_path / "m")
    expected = ADAPTER.open(path).predict(x)
    change(path, lambda content: content["weightsManifest"][0].update(paths=["./group1-shard1of1.bin"]))
    np.testing.assert_array_equal(ADAPTER.open(path).predict(x), expected)


def test_layers_that_say_no_more_than_their_shape(tmp_path: Path) -> None:
    """As JavaScript writes a list of layers: its first one has the shape, and cells have no name."""
    layers = [
        {
            "class_name": "GRU",
            "config": {
                "name": "g",
                "units": 3,
                "recurrent_activation": "hard_sigmoid",
                "reset_after": False,
                "batch_input_shape": [None, 5, 2],
            },
        },
        {"class_name": "Dense", "config": {"name": "d", "units": 2, "activation": "linear"}},
    ]
    topology = {
        "class_name": "Sequential",
        "config": {"name": "s", "layers": layers},
        "keras_version": "tfjs-layers 4.22.0",
    }
    reference = keras2.Sequential(
        [L.GRU(3, recurrent_activation="hard_sigmoid", reset_after=False, input_shape=(5, 2)), L.Dense(2)]
    )
    rng = np.random.default_rng(0)
    reference.set_weights([rng.normal(size=weight.shape) for weight in reference.weights])
    names = ["g/kernel", "g/recurrent_kernel", "g/bias", "d/kernel", "d/bias"]
    path = tfjs.write_parts(tmp_path / "m", topology, zip(names, reference.get_weights(), strict=True))
    values = rng.random((3, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(ADAPTER.open(path).forward(values, None)[0], np.asarray(reference(values)), atol=1e-6)


# -- what is refused


def change(path: Path, edit: Callable[[Content], object]) -> Path:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def first(content: Content) -> Content:
    weight: Content = content["weightsManifest"][0]["weights"][0]
    return weight


def layers(content: Content) -> list[Content]:
    found: list[Content] = content["modelTopology"]["model_config"]["config"]["layers"]
    return found


def looped(content: Content) -> None:
    backbone = next(layer for layer in layers(content) if layer["class_name"] == "Sequential")
    inner = next(layer for layer in backbone["config"]["layers"] if layer["class_name"] in ("Functional", "Model"))
    calls = inner["config"]["layers"]
    calls[1]["inbound_nodes"] = [[[calls[-1]["name"], 0, 0, {}]]]


EDITS: dict[str, tuple[Callable[[Content], object], str]] = {
    "a path that leads out": (lambda c: c["weightsManifest"][0].update(paths=["../secret"]), "'../secret'"),
    "a path from the root": (lambda c: c["weightsManifest"][0].update(paths=["/etc/passwd"]), "'/etc/passwd'"),
    "an address": (lambda c: c["weightsManifest"][0].update(paths=["https://a.example/b"]), "'https://a.example/b'"),
    "a shard twice": (lambda c: c["weightsManifest"][0].update(paths=["group1-shard1of1.bin"] * 9), "twice"),
    "a shard that is not there": (lambda c: c["weightsManifest"][0].update(paths=["other.bin"]), "'other.bin'"),
    "more weights than bytes": (lambda c: first(c).update(shape=[2**20, 2**20]), "439804651"),
    "fewer weights than bytes": (lambda c: c["weightsManifest"][0]["weights"].pop(), "bytes"),
    "no shape": (lambda c: first(c).update(shape=[-1, True]), "shape"),
    "texts": (lambda c: first(c).update(dtype="string"), "'string'"),
    "another quantisation": (lambda c: first(c).update(quantization={"dtype": "int4"}), "int4"),
    "a scale that is none": (
        lambda c: first(c).update(quantization={"dtype": "uint8", "scale": float("NaN"), "min": 0}),
        "NaN",
    ),
    "a weight twice": (lambda c: c["weightsManifest"][0]["weights"].append(first(c)), "twice"),
    "a weight of another name": (lambda c: first(c).update(name="elsewhere/moment"), "'elsewhere/moment'"),
    "a weight of another shape": (lambda c: first(c).update(shape=first(c)["shape"][::-1]), "(3, 3, 3, 4)"),
    "layers of more weights": (
        lambda c: layers(c)[-1]["config"]["layers"][-2]["config"].update(units=2**40),
        "weights",
    ),
    "a Lambda": (
        lambda c: layers(c).append({"class_name": "Lambda", "config": {"name": "l", "function": ["x", None, None]}}),
        "Lambda",
    ),
    "somebody's own class": (lambda c: layers(c).append({"class_name": "Mine", "config": {"name": "m"}}), "'Mine'"),
    "layers in a loop": (looped, "Functional"),
    "bilinear enlargement": (
        lambda c: layers(c)[-2]["config"]["layers"].insert(
            -1, {"class_name": "UpSampling2D", "config": {"name": "up", "size": [2, 2], "interpolation": "bilinear"}}
        ),
        "'up'",
    ),
    "a graph": (lambda c: c.update(format="graph-model"), "graph"),
    "operations": (lambda c: c["modelTopology"].update(node=[]), "graph"),
    "no list": (lambda c: c.update(weightsManifest={"paths": []}), "weightsManifest"),
    "something else": (lambda c: c.pop("modelTopology"), "modelTopology"),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_is_no_layers_model_is_refused(name: str, model: Any, tmp_path: Path) -> None:
    edit, fact = EDITS[name]
    (tmp_path / "secret").write_bytes(b"secret")
    path = change(tfjs.write(model, tmp_path / "m"), edit)
    with refused(ModelError, f"{path}: ", fact):
        ADAPTER.open(path)


def test_shards_are_files(model: Any, tmp_path: Path) -> None:
    path = tfjs.write(model, tmp_path / "m")
    shard = path.with_name("group1-shard1of1.bin")
    shard.rename(tmp_path / "other")
    shard.symlink_to(tmp_path / "other")
    with refused(ModelError, f"{path}: ", "'group1-shard1of1.bin'", "link"):
        ADAPTER.open(path)


def test_names_of_shards_are_looked_for_once(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tfjs.write(model, tmp_path / "m", shards=2)
    parsed, parse = list[int](), jsontext.parse_strictly
    monkeypatch.setattr(jsontext, "parse_strictly", lambda text: parsed.append(len(text)) or parse(text))
    assert ADAPTER.examine(path).name == "TensorFlow.js"
    assert len(ADAPTER.beside(path)) == 2
    assert len(parsed) == 1
    path.write_bytes(path.read_bytes() + b" ")
    assert len(ADAPTER.beside(path)) == 2
    assert len(parsed) == 2


@pytest.mark.parametrize(
    "text",
    ["{]", '{"a": 1, "a": 2}', "[1" + ",1" * 2**20 + "]", "[" * 100_000, "[" * 300 + "]" * 300, " " * (2**23 + 1)],
)
def test_what_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(text)
    with refused(ModelError, f"{tmp_path / 'model.json'}: ", "configuration"):
        ADAPTER.open(tmp_path / "model.json")

"""Keras files and SavedModels by people who mean harm."""

import base64
import functools
import io
import json
import marshal
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Set before TensorFlow is imported, as the adapter sets it: no word of its own on the terminal.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras import layers
from networks import tfjs

from hostile.ground import CLASSES, FEATURES, SECRET, Case, Place
from hostile.plain import ESCAPES

Config = dict[str, Any]


@functools.cache
def honest(suffix: str) -> bytes:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(6, activation="relu"), layers.Dense(CLASSES)])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # TensorFlow 2.21's variables do not know the `copy` that numpy 2 passes them.
        warnings.simplefilter("ignore", DeprecationWarning)
        path = Path(folder) / f"m{suffix}"
        model.save(path)
        return path.read_bytes()


def keras_file(place: Place, change: Callable[[Config], object], add: Callable[[Any], object]) -> None:
    """An honest file, but for its configuration and its arrays."""
    if place.path.suffix == ".keras":
        with zipfile.ZipFile(io.BytesIO(honest(".keras"))) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        config, arrays = json.loads(entries["config.json"]), io.BytesIO(entries["model.weights.h5"])
        change(config)
        with h5py.File(arrays, "r+") as file:
            add(file)
        entries |= {"config.json": json.dumps(config).encode(), "model.weights.h5": arrays.getvalue()}
        with zipfile.ZipFile(place.path, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
    else:
        place.path.write_bytes(honest(place.path.suffix))
        with h5py.File(place.path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config).encode()
            add(file)


def with_layer(make: Callable[[Place], Config]) -> Callable[[Place], object]:
    return lambda place: keras_file(place, lambda found: found["config"]["layers"].append(make(place)), lambda _: None)


def with_arrays(add: Callable[[Any, Place], object]) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        with h5py.File(place.canary, "w") as file:
            file["secret"] = np.arange(3, dtype="f4")
        keras_file(place, lambda _: None, lambda file: add(file, place))

    return make


def marking(place: Place) -> Config:
    """A layer that runs a function of Python."""
    code = compile(f"lambda x: (__import__('os').mkdir({str(place.marker)!r}), x)[1]", "f", "eval").co_consts[0]
    text = base64.b64encode(marshal.dumps(code)).decode()
    function = {"class_name": "__lambda__", "config": {"code": text, "defaults": None, "closure": None}}
    return layer("Lambda", "keras.layers", function=function)


def layer(name: str, module: str | None, registered: str | None = None, **config: Any) -> Config:
    return {"module": module, "class_name": name, "config": config, "registered_name": registered}


def wide(units: int) -> Callable[[Place], object]:
    def change(config: Config) -> None:
        config["config"]["layers"][1]["config"]["units"] = units

    return lambda place: keras_file(place, change, lambda _: None)


def linked(file: Any, place: Place) -> None:
    file["link"] = h5py.ExternalLink(str(place.canary), "/secret")


def stored_outside(file: Any, place: Place) -> None:
    file.create_dataset("table", (3,), "f4", external=[(str(place.canary), 0, h5py.h5f.UNLIMITED)])


def virtual(file: Any, place: Place) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource(str(place.canary), "secret", (3,))
    file.create_virtual_dataset("table", layout)


def spoilt(file: Any, place: Place) -> None:
    def spoil(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape:
            item[...] = np.nan

    file.visititems(spoil)


CANNOT = "expected a Keras model, found one that cannot be loaded: "
FILES = {
    "Lambda": Case("m.keras", with_layer(marking), "cannot-open", f"{CANNOT}a Lambda layer holds its author's code"),
    "Lambda in HDF5": Case("m.h5", with_layer(marking), "cannot-open", f"{CANNOT}a Lambda layer holds"),
    "somebody's own class": Case(
        "m.keras", with_layer(lambda _: layer("Mine", None, "theirs>Mine")), "cannot-open", "contains 'theirs>Mine'"
    ),
    "a class of Python": Case(
        "m.keras",
        with_layer(lambda place: layer("Popen", "subprocess", args=["mkdir", str(place.marker)])),
        "cannot-open",
        "contains 'subprocess.Popen'",
    ),
    "escapes in a layer": Case("m.keras", with_layer(lambda _: layer(ESCAPES, ESCAPES)), "cannot-open", "contains '"),
    "a link": Case("m.h5", with_arrays(linked), "cannot-open", "has the link '/link'"),
    "a link in an archive": Case("m.keras", with_arrays(linked), "cannot-open", "has the link '/link'"),
    "arrays elsewhere": Case("m.h5", with_arrays(stored_outside), "cannot-open", "'/table' is stored in another file"),
    "virtual arrays": Case("m.hdf5", with_arrays(virtual), "cannot-open", "'/table' is stored in another file"),
    "more weights than there are": Case("m.keras", wide(2**40), "cannot-open", "its layers have "),
    "NaN in weights": Case("m.h5", with_arrays(spoilt), "bad-answer", "NaN"),
    "an honest file": Case("m.keras", lambda place: place.path.write_bytes(honest(".keras"))),
    "an honest file of HDF5": Case("m.h5", lambda place: place.path.write_bytes(honest(".h5"))),
}


# ---- TensorFlow.js


def layered(change: Callable[[Config, Place], object] = lambda content, place: None) -> Callable[[Place], object]:
    """An honest layers model and its shard, but for what ``model.json`` says."""

    def make(place: Place) -> None:
        place.canary.write_bytes(SECRET)
        rng, width = np.random.default_rng(0), 6
        shapes = {"hidden": (FEATURES, width), "last": (width, CLASSES)}
        listed = [{"class_name": "InputLayer", "config": {"batch_input_shape": [None, FEATURES], "name": "x"}}]
        listed += [
            {"class_name": "Dense", "config": {"name": name, "units": shape[1]}} for name, shape in shapes.items()
        ]
        tables = []
        for name, (rows, columns) in shapes.items():
            tables += [(f"{name}/kernel", rng.normal(size=(rows, columns)).astype("f4"))]
            tables += [(f"{name}/bias", np.zeros(columns, "f4"))]
        topology = {"class_name": "Sequential", "config": {"name": "m", "layers": listed}, "keras_version": "2.15.0"}
        path = tfjs.write_parts(place.path.parent / "written", topology, tables)
        content = json.loads(path.read_text())
        change(content, place)
        place.path.write_text(json.dumps(content))
        shard = place.path.with_name(SHARD)
        if not os.path.lexists(shard):
            path.with_name(SHARD).rename(shard)

    return make


SHARD = "group1-shard1of1.bin"


def from_elsewhere(content: Config, place: Place) -> None:
    content["weightsManifest"][0]["paths"] = [os.path.relpath(place.canary, place.path.parent)]


def from_the_root(content: Config, place: Place) -> None:
    content["weightsManifest"][0]["paths"] = [str(place.canary)]


def linked_shard(content: Config, place: Place) -> None:
    place.path.with_name(SHARD).symlink_to(place.canary)


def cut(content: Config, place: Place) -> None:
    place.path.with_name(SHARD).write_bytes(b"\0" * 7)


def vast_weight(content: Config, place: Place) -> None:
    content["weightsManifest"][0]["weights"][0]["shape"] = [2**30, 2**30]


def vast_layer(content: Config, place: Place) -> None:
    content["modelTopology"]["config"]["layers"][1]["config"]["units"] = 2**40


def shard_often(content: Config, place: Place) -> None:
    content["weightsManifest"][0]["paths"] *= 2**16


def own_layer(kind: str, **config: Any) -> Callable[[Config, Place], object]:
    return lambda content, place: content["modelTopology"]["config"]["layers"].append(
        {"class_name": kind, "config": {"name": "own", **config}}
    )


def in_a_circle(content: Config, place: Place) -> None:
    config = content["modelTopology"]["config"]
    for entry, before in zip(config["layers"], (None, "last", "hidden"), strict=True):
        entry["name"] = entry["config"]["name"]
        entry["inbound_nodes"] = [[[before, 0, 0, {}]]] if before else []
    content["modelTopology"]["class_name"] = "Model"
    config |= {"input_layers": [["x", 0, 0]], "output_layers": [["last", 0, 0]]}


def of_operations(content: Config, place: Place) -> None:
    content |= {"format": "graph-model", "modelTopology": {"node": [{"op": "ReadFile"}]}}


SCRIPTS = {
    "a shard elsewhere": Case("m.json", layered(from_elsewhere), "wrong-format", "the name of a file next to it"),
    "a shard from the root": Case("m.json", layered(from_the_root), "wrong-format", "the name of a file next to it"),
    "a shard that is a link": Case("m.json", layered(linked_shard), "not-a-file", "a symbolic link"),
    "a shard that is cut": Case("m.json", layered(cut), "cannot-open", "bytes of weights"),
    "a weight without end": Case("m.json", layered(vast_weight), "cannot-open", "bytes of weights"),
    "a layer without end": Case("m.json", layered(vast_layer), "cannot-open", "its layers have "),
    "a shard without end": Case("m.json", layered(shard_often), "wrong-format", "twice"),
    "Lambda in JavaScript": Case(
        "m.json", layered(own_layer("Lambda", function=["x"])), "cannot-open", "a Lambda layer"
    ),
    "somebody's layer": Case("m.json", layered(own_layer("Mine")), "cannot-open", "contains 'Mine'"),
    "layers in a circle": Case("m.json", layered(in_a_circle), "cannot-open", "Functional"),
    "a graph of operations": Case("m.json", layered(of_operations), "cannot-open", "a graph model"),
    "an honest script": Case("m.json", layered()),
}


# ---- SavedModels


class AtLoad(tf.saved_model.experimental.TrackableResource):
    """Does something when it is loaded."""

    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__()
        self.act = act

    def _create_resource(self) -> Any:
        return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.float32)

    def _initialize(self) -> None:
        self.act()


def exported(
    act: Callable[[Place, Any], Any] = lambda place, x: 0.0, loading: Callable[[Place], Any] | None = None
) -> Callable[[Place], object]:
    """A SavedModel that does something when it is called, and when it is loaded."""

    def make(place: Place) -> None:
        place.canary.write_bytes(SECRET + b"\n")
        table = tf.constant(np.random.default_rng(3).normal(size=(FEATURES, CLASSES)), tf.float32)
        module = tf.Module()
        if loading:
            module.resource = AtLoad(lambda: loading(place))
        spec = tf.TensorSpec((None, FEATURES), tf.float32)
        module.scores = tf.function(lambda x: {"y": x @ table + act(place, x)}, [spec])
        tf.saved_model.save(module, place.path, signatures=module.scores)

    return make


def write(place: Place) -> Any:
    return tf.io.write_file(str(place.marker), "marked")


def write_when_called(place: Place, x: Any) -> Any:
    with tf.control_dependencies([write(place)]):
        return tf.constant(0.0)


def read(place: Place, x: Any) -> Any:
    return tf.cast(tf.strings.length(tf.io.read_file(str(place.canary))), tf.float32)


def read_as_table(place: Place) -> Any:
    table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
    return tf.raw_ops.InitializeTableFromTextFileV2(
        table_handle=table, filename=str(place.canary), key_index=-2, value_index=-1
    )


def listed(place: Place, x: Any) -> Any:
    return tf.cast(tf.size(tf.io.matching_files(str(place.canary.parent / "*"))), tf.float32)


def endless(place: Place, x: Any) -> Any:
    return tf.while_loop(lambda y: True, lambda y: [tf.sin(y)], [tf.reduce_sum(x)])[0]


def vast(place: Place, x: Any) -> Any:
    return tf.reduce_sum(tf.sin(tf.fill([2**40], tf.reduce_sum(x))))


MORE = "which does more than compute; export it to ONNX"
FOLDERS = {
    "reads when it is called": Case("m", exported(read), "cannot-open", f"the operation ReadFile, {MORE}"),
    "writes when it is called": Case("m", exported(write_when_called), "cannot-open", f"WriteFile, {MORE}"),
    "writes while loading": Case("m", exported(loading=write), "cannot-open", ""),
    "reads while loading": Case("m", exported(loading=read_as_table), "cannot-open", ""),
    "lists a folder": Case("m", exported(listed), "cannot-open", ""),
    "exhausts memory": Case("m", exported(vast), "out-of-memory", "MiB of memory"),
    "an honest folder": Case("m", exported()),
}

HANGING = {"never answers": Case("m", exported(endless), "timed-out", "expected an answer within")}

"""Makes a Keras model of a file, after what stands in the file was looked through."""

import contextlib
import copy
import io
import itertools
import math
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import h5py  # type: ignore[import-untyped]
import keras

# The only ways to make and fill a model of what was read here, instead of a file that Keras reads itself.
from keras.src.legacy.saving import legacy_h5_format, saving_utils
from keras.src.legacy.saving.saving_options import keras_option_scope
from keras.src.saving.serialization_lib import ObjectSharingScope, SafeModeScope
from keras.src.utils.naming import to_snake_case

from deepjudge_core.errors import ModelError
from deepjudge_keras import configuration, files, hdf5, jsontext, keras2, tfjs
from deepjudge_keras.weights import fill

_UNSAVED = 2**20
"""Numbers that a model may have beside those in its file, such as the states of its sources of randomness."""


_LAYERS_OF_2_13 = "_layer_checkpoint_dependencies"


class _Weights(io.BytesIO):
    """The weights in memory, which tell Keras by a name what they are, as a path would."""

    def __str__(self) -> str:
        return files.WEIGHTS


def load(source: Any, name: str) -> Any:
    """The ``keras.Model`` of a file; a live one is given back as it is."""
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"{name}: expected Keras to run on TensorFlow, found {keras.backend.backend()}; set "
            "KERAS_BACKEND=tensorflow in the environment"
        )
    if not isinstance(source, Path):
        return source
    files.examine(source)
    with tfjs.file_of(source).open("rb") as file:
        try:
            if tfjs.is_model(source):
                return _of_tfjs(source)
            return _of_archive(file) if source.suffix.lower() == ".keras" else _of_hdf5(file)
        except _OtherError as error:
            raise ModelError(f"{source}: expected a Keras model, found {error}") from error
        except Exception as error:
            reason = str(error) if isinstance(error, ModelError) else cause(error)
            raise ModelError(f"{source}: expected a Keras model, found one that cannot be loaded: {reason}") from error


def cause(error: Exception) -> str:
    """The line of an error that says what is wrong."""
    # Keras puts whole configurations before the cause, and advice after it.
    text = str(error).rpartition("Exception encountered: ")[2].strip()
    return (text or type(error).__name__).splitlines()[0].partition(". ")[0]


class _OtherError(Exception):
    """What a file holds instead of a model."""


def _of_archive(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        old = keras2.is_keras_2(_version(archive))
        with archive.open(files.CONFIG) as entry:
            config = configuration.read(entry.read(jsontext.LENGTH + 1), keras_2=old)
        try:
            weights = _Weights(archive.read(files.WEIGHTS))
            content = h5py.File(weights)
        except (OSError, zipfile.BadZipFile) as error:
            raise _OtherError(f"one whose {files.WEIGHTS} is damaged: copy the file again") from error
    with content:
        held = hdf5.elements(content, len(weights.getbuffer()))
        whole = hdf5.whole_tables(content)

    model = _make(config, held)
    if model.built:
        if old:
            _expect_order(model, config)
            with h5py.File(weights, "r+") as content:
                _renumber(content, model)
        _expect_kinds(model, whole)
        try:
            model.load_weights(weights)
        except ValueError as error:
            raise _OtherError(f"one whose weights do not fit its layers: {files.RESAVE}") from error
    return model


def _of_hdf5(file: BinaryIO) -> Any:
    try:
        content = h5py.File(file)
    except OSError as error:
        raise _OtherError(files.CUT_HDF5) from error
    with content:
        held = hdf5.elements(content, file.seek(0, os.SEEK_END))
        if "model_config" not in content.attrs:
            raise _OtherError(
                f"an HDF5 file without a model's architecture, perhaps a file of weights only: {files.RESAVE}"
            )
        old = keras2.is_keras_2(content.attrs.get("keras_version"))
        config = configuration.read(content.attrs["model_config"], keras_2=old)
        model = _make(config, held, legacy=not old)
        if old:
            _fill(model, content["model_weights"])
        else:
            _expect_kinds(model, hdf5.whole_tables(content))
            with _legacy():
                legacy_h5_format.load_weights_from_hdf5_group(content["model_weights"], model)
    return model


def _of_tfjs(path: Path) -> Any:
    contents = tfjs.read(path)
    if contents.config is None:
        raise _OtherError(
            "a graph model of TensorFlow.js, which has no layers; give the original model, or "
            "convert it to a SavedModel with tfjs_graph_converter"
        )
    old = keras2.is_keras_2(contents.version)
    config = configuration.admit(contents.config, keras_2=old)
    model = _make(config, contents.numbers, legacy=not old)
    _expect_same(model)
    fill(model, dict(tfjs.arrays(path, contents)))
    return model


def _expect_same(model: Any) -> None:
    """Refuse layers that TensorFlow.js computes otherwise than Keras."""
    for layer in model._flatten_layers():
        bilinear = isinstance(layer, keras.layers.UpSampling2D) and layer.interpolation != "nearest"
        across = isinstance(layer, keras.layers.BatchNormalization) and layer.axis not in (
            -1,
            layer.input_spec.ndim - 1,
        )
        if bilinear or across:
            what = f"interpolation {layer.interpolation!r}" if bilinear else f"axis {layer.axis}"
            raise ModelError(
                f"its layer {layer.name!r:.80} has {what}, which TensorFlow.js computes differently from "
                "Keras; give the original model"
            )


@contextlib.contextmanager
def _legacy() -> Iterator[None]:
    with keras_option_scope(use_legacy_config=True), SafeModeScope(True):
        yield


def _make(config: Mapping[str, Any], held: int, *, legacy: bool = False) -> Any:
    """A model without its weights.

    Args:
        config: As Keras 3 writes it.
        held: Numbers that its file holds.
        legacy: Whether it is as Keras 3 writes it in HDF5.
    """

    def make() -> Any:
        if legacy:
            with _legacy():
                return saving_utils.model_from_config(copy.deepcopy(config))
        with ObjectSharingScope():
            return keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=True)

    _expect_size(make, held)
    return make()


def _version(archive: zipfile.ZipFile) -> object:
    if files.METADATA not in archive.namelist():
        return "3"
    with archive.open(files.METADATA) as entry:
        metadata = jsontext.parse(entry.read(jsontext.LENGTH + 1))
    return metadata.get("keras_version", "3") if isinstance(metadata, dict) else "3"


def _fill(model: Any, group: Any) -> None:
    """Give a model the weights that Keras 2 wrote, layer by layer."""
    layers = {layer.name: layer for layer in model.layers}
    filled = set()
    for name in legacy_h5_format.load_attributes_from_hdf5_group(group, "layer_names"):
        weights = _named(group[name])
        layer = layers.get(keras2.plain_name(name))
        if layer is None and weights:
            raise ModelError(f"it has weights of {name!r:.80}, which is not one of its layers; save the model again")
        if layer is not None:
            fill(layer, weights)
            filled.add(layer.name)
    missing = [name for name, layer in layers.items() if name not in filled and layer.weights]
    if missing:
        raise ModelError(f"it has no weights for its layer {missing[0]!r:.80}; save the whole model again")
    if "top_level_model_weights" in group and _named(group["top_level_model_weights"]):
        raise ModelError("it has weights of its own in addition to those of its layers; export it to ONNX")


def _named(group: Any) -> dict[str, Any]:
    names = legacy_h5_format.load_attributes_from_hdf5_group(group, "weight_names")
    return {name: group[name] for name in names}


def _renumber(group: Any, model: Any) -> None:
    """Name the groups of a model's layers as Keras does since 2.14: 2.12 and 2.13 counted those with weights twice."""
    if _LAYERS_OF_2_13 in group:
        group.move(_LAYERS_OF_2_13, "layers")
        layers = [layer for layer in model.layers if layer.weights]
        for kind, alike in itertools.groupby(sorted(layers, key=_kind), _kind):  # in the order of the model
            for place, (layer, name) in enumerate(zip(list(alike), _filled(group["layers"], kind), strict=True)):
                target = f"{kind}_{place}" if place else kind
                if name != target:
                    group["layers"].move(name, target)
                _renumber(group["layers"][target], layer)


def _kind(layer: Any) -> str:
    name: str = to_snake_case(type(layer).__name__)
    return name


def _filled(group: Any, kind: str) -> list[str]:
    """Names of the groups of one kind of layer that hold weights, in their order."""
    numbered = {0: kind} | {int(n): name for name in group if (n := name.removeprefix(f"{kind}_")).isdigit()}
    names = [name for _, name in sorted(numbered.items()) if name in group]
    return [name for name in names if any(True for _ in hdf5.datasets(group[name]))]


def _expect_order(model: Any, config: Mapping[str, Any]) -> None:
    """Refuse a model whose layers Keras 3 has in another order than its file, in which weights have numbers only."""
    listed = [entry["config"]["name"] for entry in config["config"]["layers"]]
    names = [layer.name for layer in model._layers if layer.name in listed]
    if names != [name for name in listed if name in names]:
        raise ModelError("its layers are in another order than in Keras 3; save it as .h5")
    inner = {entry["config"]["name"]: entry for entry in config["config"]["layers"] if "layers" in entry["config"]}
    for layer in model._layers:
        if layer.name in inner:
            _expect_order(layer, inner[layer.name])


def _expect_kinds(model: Any, whole: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse whole numbers for weights that are real ones, and the reverse, which Keras would cast in silence.

    Args:
        model: The model before its weights are loaded.
        whole: Name to shape of the tables of whole numbers in its file.
    """
    held = Counter(whole.values())
    room = Counter(shape for shape in map(_whole_shape, model.variables) if shape)
    for name, shape in whole.items():
        if held[shape] > room[shape]:
            raise ModelError(
                f"expected real numbers, which its layers need, found whole numbers in {name!r:.80} {shape}; "
                "save the model again"
            )
    for shape, count in Counter(shape for shape in map(_whole_shape, model.weights) if shape).items():
        if count > held[shape]:
            raise ModelError(
                f"expected whole numbers, which its layers need, found real numbers for {shape}; save the model again"
            )


def _whole_shape(variable: Any) -> tuple[int, ...]:
    # Of a variable of whole numbers; empty for others, and for single numbers, which count something.
    return () if keras.backend.is_float_dtype(variable.dtype) else tuple(variable.shape)


def _expect_size(make: Callable[[], Any], held: int) -> None:
    """Refuse what would need far more memory than its file holds numbers, before it is made.

    Without their first values the weights of a model take no memory. That is undone with the thread, which has all
    that Keras remembers of it.
    """

    def count() -> int:
        with keras.StatelessScope(initialize_variables=False):
            return sum(math.prod(weight.shape) for weight in make().weights)

    with ThreadPoolExecutor(1) as thread:
        numbers = thread.submit(count).result()
    if numbers > held + _UNSAVED:
        raise ModelError(f"its layers have {numbers} weights, but its file has {held}; save the model again")

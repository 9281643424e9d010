"""What a source answers by its own framework's means, without this project: the oracle of predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.special


def answers(source: Any, name: str, seed: int, x: np.ndarray, classes: int) -> np.ndarray:
    """Class probabilities of a source: a file, a folder or a live object.

    Args:
        source: What a builder of :mod:`networks.formats` made.
        name: Its architecture, for files that hold weights alone.
        seed: Of these weights.
        x: Inputs as the source takes them.
        classes: Number of classes, by which an output is known.
    """
    raw = _of_path(source, name, seed, x) if isinstance(source, Path) else _of_live(source, x)
    outputs = [np.asarray(output, np.float64) for output in raw]
    [scores] = [output for output in outputs if output.shape == (len(x), classes)]
    is_probability = scores.min() >= 0 and np.abs(scores.sum(axis=1) - 1).max() < 0.02
    return scores / scores.sum(axis=1, keepdims=True) if is_probability else scipy.special.softmax(scores, axis=1)


def _of_live(source: Any, x: np.ndarray) -> list[Any]:
    if type(source).__module__.startswith(("keras", "networks.keras")):
        return [np.asarray(source(x, training=False))]
    import torch

    with torch.no_grad():
        return [source.eval()(torch.from_numpy(x)).numpy()]


def _of_path(path: Path, name: str, seed: int, x: np.ndarray) -> list[Any]:
    by_suffix = {
        ".onnx": _onnx,
        ".pt2": _pt2,
        ".pt": _script,
        ".keras": _keras,
        ".h5": _keras,
        "": _saved,
        ".xml": _openvino,
        ".pb": _frozen,
        ".tflite": _lite,
    }
    if path.suffix in (".pth", ".safetensors", ".pdmodel"):  # whose own runtime is not here
        from networks import torch_networks

        return _of_live(torch_networks.module(name, seed), x)
    if path.suffix == ".json":  # TensorFlow.js runs in browsers: what its file was written from
        from networks import keras_networks

        return [np.asarray(keras_networks.keras2(name, seed)(x, training=False))]
    return by_suffix[path.suffix](path, x)


def _onnx(path: Path, x: np.ndarray) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Each thread of a DynamicQuantizeLSTM takes the range of its own rows.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    dtype = np.float16 if given.type == "tensor(float16)" else np.float32
    return [_without_map(value) for value in session.run(None, {given.name: x.astype(dtype)})]


def _without_map(value: Any) -> Any:
    # Of a row of probabilities in a dictionary, or of scores in a map of one pixel, the row.
    if isinstance(value, list):
        return np.array([list(row.values()) for row in value])
    return value[:, :, 0, 0] if value.ndim == 4 else value


def _pt2(path: Path, x: np.ndarray) -> list[Any]:
    import torch
    import torch.ao.quantization.fx._decomposed  # what PT2E quantises with

    with torch.no_grad():
        return [torch.export.load(path).module()(torch.from_numpy(x)).numpy()]


def _script(path: Path, x: np.ndarray) -> list[Any]:
    import torch

    from networks.formats import OLD, silenced

    with torch.no_grad(), silenced(*OLD):
        return [torch.jit.load(path).eval()(torch.from_numpy(x)).numpy()]


def _keras(path: Path, x: np.ndarray) -> list[Any]:
    import h5py

    if path.suffix == ".h5":
        with h5py.File(path) as file:
            if str(file.attrs["keras_version"]).startswith("2"):
                import tf_keras

                return [np.asarray(tf_keras.models.load_model(path, compile=False)(x, training=False))]
    import keras

    return [np.asarray(keras.models.load_model(path, compile=False)(x, training=False))]


def _saved(path: Path, x: np.ndarray) -> list[Any]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    function = loaded.signatures["serving_default"]
    [given] = function.structured_input_signature[1]
    return [output.numpy() for output in function(**{given: tf.constant(x)}).values()]


def _openvino(path: Path, x: np.ndarray) -> list[Any]:
    from deepjudge_openvino.runtime import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [compiled(x)[0]]


def _frozen(path: Path, x: np.ndarray) -> list[Any]:
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    function = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    nodes = [node.name for node in definition.node]
    return [function.prune("x:0", f"{nodes[-1]}:0")(tf.constant(x)).numpy()]


def _lite(path: Path, x: np.ndarray) -> list[Any]:
    return [lite(path, x)]


def lite(path: Path, x: np.ndarray, *, delegates: bool = False) -> np.ndarray:
    """What LiteRT answers to each row, with its own kernels or with the delegates that it takes by default."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kinds = (OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.AUTO)
    interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=kinds[delegates])
    interpreter.allocate_tensors()
    [given], [answer] = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for row in x:
        interpreter.reset_all_variables()
        interpreter.set_tensor(given["index"], _taken(row[None], given))
        interpreter.invoke()
        values = interpreter.get_tensor(answer["index"]).astype(np.float64)
        scale, zero = answer["quantization"]
        rows.append((values - zero) * (scale or 1.0))
    return np.concatenate(rows)


def _taken(row: np.ndarray, given: Any) -> np.ndarray:
    scale, zero = given["quantization"]
    if not scale:
        return row
    limits, steps = np.iinfo(given["dtype"]), row / scale
    halves_away = np.sign(steps) * np.floor(np.abs(steps) + 0.5)
    return np.clip(halves_away + zero, limits.min, limits.max).astype(given["dtype"])

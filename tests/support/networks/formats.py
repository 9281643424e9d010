"""The ways to write a network down: files of every format, and live objects."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from networks.architectures import ARCHITECTURES

# Keras' variables, handed to numpy 2 while they are saved.
COPIES = (r"__array__ implementation doesn't accept a copy keyword", DeprecationWarning)
# Keras gives numpy back a name that tf2onnx asks for, after looking whether it is there.
_OBJECT = (r"In the future `np\.object` will be defined", FutureWarning)
# TorchScript, and what exports or reads it, say that they are old.
OLD = (
    (r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning),
    (r"You are using the legacy TorchScript-based ONNX export", DeprecationWarning),
    (r"The feature will be removed", DeprecationWarning),
    (r"Exporting a model to ONNX with a batch_size other than 1, with a variable length with", UserWarning),
    (r"Constant folding - Only steps=1 can be constant folded", UserWarning),
    # PyTorch's own attention asks for sizes, which do not change here.
    (r"Converting a tensor to a Python (boolean|integer)", Warning),
)
# PyTorch's own recurrent layers do that, and export puts it back.
_FLAT = (r"The tensor attributes (self\.[\w.]*_flat_weights\[\d+\](, )?)+ were assigned during export", UserWarning)
# The exporter asks torch's own trees in a way that torch deprecates.
_TREES = (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
# The same of what it calls of torch for recurrent layers; said once in a process.
_ONCE = (
    (r"The \.grad attribute of a Tensor that is not a leaf Tensor is being accessed", UserWarning),
    (r"_check_is_size will be removed", FutureWarning),
)
# TensorFlow's converter, which then takes the ranges from the inputs that it is given.
_RANGES = (r"Statistics for quantized inputs were expected", UserWarning)
DYNAMO = (_TREES, _FLAT, *_ONCE)
# torchao is imported with what this machine has not, and takes the place of what torch had.
_TORCHAO = ((r".*", DeprecationWarning), (r".*", UserWarning), (r".*", FutureWarning))

Build = Callable[[str, int, Path], Any]
"""Makes a source of an architecture and a seed; the path is a free name without a suffix."""


def nothing(name: str, seed: int, path: Path) -> Any:
    """Of formats that hold none of these architectures."""
    raise NotImplementedError


# PyTorch


def live(name: str, seed: int, path: Path) -> Any:
    from networks import torch_networks

    return torch_networks.module(name, seed)


def unexportable(name: str, seed: int, path: Path) -> Any:
    from networks import torch_networks

    return torch_networks.Unexportable(live(name, seed, path))


def pt2(name: str, seed: int, path: Path) -> Path:
    import torch

    file = path.with_suffix(".pt2")
    torch.export.save(_exported(live(name, seed, path), name), file)
    return file


def _exported(module: Any, name: str) -> Any:
    import torch

    with silenced(_FLAT):
        return torch.export.export(module, (_example(name, 2),), dynamic_shapes=({0: torch.export.Dim("rows")},))


def pt2e(name: str, seed: int, path: Path, *, dynamic: bool = False) -> Path:
    """Of 8-bit integers, by torchao's quantiser for processors of x86."""
    import torch

    with silenced(*_TORCHAO):
        from torchao.quantization.pt2e import quantize_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        quantiser = x86.X86InductorQuantizer()
        quantiser.set_global(x86.get_default_x86_inductor_quantization_config(is_dynamic=dynamic))
        module = quantize_pt2e.prepare_pt2e(_exported(live(name, seed, path), name).module(), quantiser)
        module(torch.from_numpy(ARCHITECTURES[name].inputs(32)))
        module = quantize_pt2e.convert_pt2e(module)
        file = path.with_suffix(".pt2")
        torch.export.save(_exported(module, name), file)
    return file


def traced(name: str, seed: int, path: Path) -> Path:
    import torch

    file = path.with_suffix(".pt")
    with silenced(*OLD):
        torch.jit.save(torch.jit.trace(live(name, seed, path), _example(name, 2), check_trace=False), file)
    return file


def scripted(name: str, seed: int, path: Path) -> Path:
    import torch

    file = path.with_suffix(".pt")
    with silenced(*OLD):
        torch.jit.save(torch.jit.script(live(name, seed, path)), file)
    return file


def state_dict(name: str, seed: int, path: Path) -> Path:
    import torch

    file = path.with_suffix(".pth")
    torch.save(live(name, seed, path).state_dict(), file)
    return file


def safetensors(name: str, seed: int, path: Path) -> Path:
    from safetensors.numpy import save_file

    file = path.with_suffix(".safetensors")
    save_file(ARCHITECTURES[name].weights(seed), file)
    return file


# ONNX


def dynamo(name: str, seed: int, path: Path, **options: Any) -> Path:
    """By PyTorch's exporter."""
    file = _dynamo(live(name, seed, path), _example(name, 2), path, **options)
    if not options:
        _DYNAMO[name, seed] = file
    return file


# What was written already, since the exporter takes seconds.
_DYNAMO: dict[tuple[str, int], Path] = {}


def _dynamo(module: Any, example: Any, path: Path, **options: Any) -> Path:
    import torch

    file = path.with_suffix(".onnx")
    rows = ({0: torch.export.Dim("rows")},)
    with silenced(*DYNAMO):
        torch.onnx.export(module, (example,), file, dynamo=True, dynamic_shapes=rows, verbose=False, **options)
    return file


def old(name: str, seed: int, path: Path, **options: Any) -> Path:
    """By PyTorch's old exporter."""
    import torch

    from networks import torch_networks

    file = path.with_suffix(".onnx")
    names = {"input_names": ["x"], "output_names": ["z"], "dynamic_axes": {"x": {0: "rows"}, "z": {0: "rows"}}}
    with silenced(*OLD):
        module = torch_networks.plain(name, seed) if options else torch_networks.module(name, seed)
        torch.onnx.export(module, (_example(name, 1),), file, dynamo=False, **names, **options)
    return file


def converted(name: str, seed: int, path: Path, opset: int) -> Path:
    """By PyTorch's old exporter, converted to another opset."""
    import onnx

    model = onnx.version_converter.convert_version(onnx.load(old(name, seed, path)), opset)
    onnx.save(model, path.with_suffix(".onnx"))
    return path.with_suffix(".onnx")


def half(name: str, seed: int, path: Path) -> Path:
    """Of float16, its input too."""
    return _dynamo(live(name, seed, path).half(), _example(name, 2).half(), path)


def converted_to_half(name: str, seed: int, path: Path) -> Path:
    """By the converter that most people take, which leaves inputs and outputs as they are if it is told to."""
    import onnx
    from onnxconverter_common import float16

    source, file = _DYNAMO.get((name, seed)), path.with_suffix(".onnx")
    if source is None or not source.exists():
        source = dynamo(name, seed, path.with_name(f"{path.name}-float"))
    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), file)
    return file


def from_keras(name: str, seed: int, path: Path, **options: Any) -> Path:
    """By Keras' exporter, which is tf2onnx."""
    file = path.with_suffix(".onnx")
    model = functional(name, seed, path)
    model(np.zeros((1, *ARCHITECTURES[name].keras_shape), np.float32))  # Keras exports what was called
    with silenced(_OBJECT):
        model.export(file, format="onnx", verbose=False, **options)
    return file


def scores_in_a_map(name: str, seed: int, path: Path) -> Path:
    """By PyTorch's old exporter, its scores as a map of one pixel."""
    import onnx
    from onnx import helper, numpy_helper

    file = old(name, seed, path)
    model = onnx.load(file)
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    model.graph.node.append(helper.make_node("Unsqueeze", ["z", "axes"], ["map"]))
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name="map"))
    onnx.save(model, file)
    return file


def from_sklearn(name: str, seed: int, path: Path, *, zipmap: bool = False) -> Path:
    """A classifier of scikit-learn, by skl2onnx."""
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    architecture = ARCHITECTURES[name]
    state, x = architecture.weights(seed), architecture.inputs(20)
    *hidden, classes = architecture.layers
    network = MLPClassifier(tuple(hidden), activation="relu")
    network.partial_fit(x, np.arange(20) % classes, classes=range(classes))
    network.coefs_ = [state[f"dense{i}.weight"].T for i in (1, 2, 3)]
    network.intercepts_ = [state[f"dense{i}.bias"] for i in (1, 2, 3)]
    file = path.with_suffix(".onnx")
    file.write_bytes(to_onnx(network, x[:1], options={"zipmap": zipmap}).SerializeToString())
    return file


def int8(name: str, seed: int, path: Path, scheme: str) -> Path:
    """By ONNX Runtime: ``QDQ`` or ``QOperator`` with fixed ranges, or ``dynamic``.

    In the reduced range, since products of 8 bits saturate on processors without VNNI.
    """
    from onnxruntime import quantization

    source, file = old(name, seed, path.with_name(f"{path.name}-float")), path.with_suffix(".onnx")
    with _without_advice():
        if scheme == "dynamic":
            quantization.quantize_dynamic(source, file, reduce_range=True)
        else:
            chosen = quantization.QuantFormat[scheme]
            quantization.quantize_static(source, file, _Ranges(name), quant_format=chosen, reduce_range=True)
    return file


class _Ranges:
    """The inputs over which quantisation takes the ranges of tensors."""

    def __init__(self, name: str) -> None:
        self._inputs = iter([{"x": row[None]} for row in ARCHITECTURES[name].inputs(32)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._inputs, None)


def optimised(name: str, seed: int, path: Path, level: str = "EXTENDED") -> Path:
    """As ONNX Runtime itself writes it after it fused what it could."""
    import onnxruntime

    file = path.with_suffix(".onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(file)
    options.log_severity_level = 4
    source = old(name, seed, path.with_name(f"{path.name}-plain"))
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return file


# Keras and TensorFlow


def functional(name: str, seed: int, path: Path) -> Any:
    from networks import keras_networks

    return keras_networks.functional(name, seed)


def sequential(name: str, seed: int, path: Path) -> Any:
    from networks import keras_networks

    return keras_networks.sequential(name, seed)


def subclassed(name: str, seed: int, path: Path) -> Any:
    from networks import keras_networks

    return keras_networks.subclassed(name, seed)


def keras_file(name: str, seed: int, path: Path, suffix: str) -> Path:
    file = path.with_suffix(suffix)
    with silenced(COPIES):
        functional(name, seed, path).save(file)
    return file


def keras2_file(name: str, seed: int, path: Path) -> Path:
    """As Keras 2 wrote it."""
    from networks import keras_networks

    file = path.with_suffix(".h5")
    with silenced((r"You are saving your model as an HDF5 file", UserWarning)):
        keras_networks.keras2(name, seed).save(file)
    return file


def tfjs_layers(name: str, seed: int, path: Path) -> Path:
    """As TensorFlow.js's converter writes a model of Keras 2: a file, and another one beside it, in a folder."""
    from networks import keras_networks, tfjs

    return tfjs.write(keras_networks.keras2(name, seed), path)


def exported(name: str, seed: int, path: Path) -> Path:
    """By Keras' exporter to TensorFlow's format, a folder."""
    model = functional(name, seed, path)
    model(np.zeros((1, *ARCHITECTURES[name].keras_shape), np.float32))  # Keras exports what was called
    model.export(path, verbose=False)
    return path


def signature(name: str, seed: int, path: Path) -> Path:
    """By TensorFlow: a function of a module, a folder."""
    import tensorflow as tf

    holder = tf.Module()
    holder.network = functional(name, seed, path)
    given = tf.TensorSpec((None, *ARCHITECTURES[name].keras_shape), tf.float32)
    function = tf.function(lambda x: {"scores": holder.network(x)}, input_signature=[given])
    tf.saved_model.save(holder, path, {"serving_default": function})
    return path


# What OpenVINO reads


def ir(name: str, seed: int, path: Path, *, half: bool = False) -> Path:
    """By OpenVINO's converter, its weights of float32 or, as by default, float16."""
    from deepjudge_openvino.runtime import openvino

    file = path.with_suffix(".xml")
    model = openvino.Core().read_model(old(name, seed, path.with_name(f"{path.name}-origin")))
    openvino.save_model(model, file, compress_to_fp16=half)
    return file


def frozen(name: str, seed: int, path: Path) -> Path:
    """A graph of TensorFlow whose variables are constants."""
    file = path.with_suffix(".pb")
    file.write_bytes(_frozen(name, seed, path, None).graph.as_graph_def().SerializeToString())
    return file


def tflite(name: str, seed: int, path: Path, *, integers: bool = False) -> Path:
    """By TensorFlow's converter; of integers alone, its input and output too, by the ranges over some inputs."""
    import tensorflow as tf

    recurrent = name in ("LSTM", "GRU")
    if recurrent and integers:
        network, function = _fused(name, seed)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], network)
    elif recurrent:  # loops of any number of rows cannot be converted
        converter = tf.lite.TFLiteConverter.from_concrete_functions([_frozen(name, seed, path, 1)])
    else:
        converter = tf.lite.TFLiteConverter.from_keras_model(functional(name, seed, path))
    if integers:
        architecture = ARCHITECTURES[name]
        x = architecture.arranged(architecture.inputs(64), architecture.keras_shape)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in x)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    file = path.with_suffix(".tflite")
    with silenced(_RANGES):
        file.write_bytes(converter.convert())
    return file


def paddle(name: str, seed: int, path: Path) -> Path:
    """In PaddlePaddle's format, two files."""
    from networks import paddle as writer

    return writer.write(name, seed, path)


def _frozen(name: str, seed: int, path: Path, rows: int | None) -> Any:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    network = functional(name, seed, path)
    given = tf.TensorSpec((rows, *ARCHITECTURES[name].keras_shape), tf.float32, name="x")
    function = tf.function(lambda x: network(x, training=False)).get_concrete_function(given)
    return convert_variables_to_constants_v2(function)


def _fused(name: str, seed: int) -> tuple[Any, Any]:
    # Of Keras 2, whose recurrent layers the converter knows; the function lives as long as its network.
    import tensorflow as tf

    from networks import keras_networks

    network = keras_networks.keras2(name, seed)
    given = tf.TensorSpec((1, *ARCHITECTURES[name].keras_shape), tf.float32)
    return network, tf.function(lambda x: network(x, training=False)).get_concrete_function(given)


def _example(name: str, rows: int) -> Any:
    import torch

    return torch.from_numpy(ARCHITECTURES[name].inputs(rows))


@contextlib.contextmanager
def silenced(*warned: tuple[str, type[Warning]]) -> Iterator[None]:
    """Ignore these warnings of an exporter, which are about its own code."""
    with warnings.catch_warnings():
        for message, category in warned:
            warnings.filterwarnings("ignore", message, category)
        yield


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keep ONNX Runtime's advice to prepare a model before it is quantised from the output."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

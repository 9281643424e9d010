"""Small models of every framework: one network, with weights that depend on nothing but a seed.

It is the first that the tests were written with; ``networks`` has it and others in more formats.

The network: convolution, ReLU, max pool, convolution, ReLU, flatten, dense, tanh, dense, and a softmax where the table
of kinds says so. Keras has the channels last; its weights are transposed, so that it computes the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks.architectures import ARCHITECTURES
from networks.formats import silenced

from deepjudge_core import Model, open_model
from deepjudge_core.components.registry import Registry
from deepjudge_core.testing import NumpyModel

ARCHITECTURE = ARCHITECTURES["conv2d"]
SHAPE, LAYERS = ARCHITECTURE.shape, ARCHITECTURE.layers
*CHANNELS, NEURONS, CLASSES = LAYERS
_FLAT = (CHANNELS[1], 2, 2)
# Keras' variables, handed to numpy 2 while they are saved.
_COPIES = (r"__array__ implementation doesn't accept a copy keyword", DeprecationWarning)


@dataclass(frozen=True)
class Kind:
    """A way to hold the network.

    Attributes:
        adapter: The adapter that opens it; None for a model that needs none.
        needs: Modules that make and open it.
        build: ``build(seed, path) -> source``, where ``path`` is a free name without a suffix; the source is a file or
            a live object.
        options: Of ``open_model``.
        suffix: Of the file; None for a live object.
    """

    adapter: str | None
    needs: tuple[str, ...]
    build: Callable[[int, Path], Any]
    options: dict[str, Any]
    suffix: str | None = None


def weights(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Kernels as PyTorch has them, outputs first, and biases."""
    state = ARCHITECTURE.weights(seed)
    names = dict.fromkeys(name.partition(".")[0] for name in state)
    return {name: (state[f"{name}.weight"], state[f"{name}.bias"]) for name in names}


def inputs(n: int) -> np.ndarray:
    """``(n, 3, 8, 8)`` inputs within the bounds."""
    return ARCHITECTURE.inputs(n)


def torch_module(seed: int, *, softmax: bool = False) -> Any:
    """The network as a ``torch.nn.Module``, in evaluation mode."""
    import torch
    from torch import nn

    layers = {
        "conv1": nn.Conv2d(SHAPE[0], CHANNELS[0], 3),
        "relu1": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(*CHANNELS, 2),
        "relu2": nn.ReLU(),
        "flatten": nn.Flatten(),
        "dense1": nn.Linear(int(np.prod(_FLAT)), NEURONS),
        "tanh": nn.Tanh(),
        "dense2": nn.Linear(NEURONS, CLASSES),
    }
    if softmax:
        layers["softmax"] = nn.Softmax(dim=1)
    module = nn.Sequential()
    for name, layer in layers.items():
        module.add_module(name, layer)
    state = {}
    for name, (kernel, bias) in weights(seed).items():
        state |= {f"{name}.weight": torch.from_numpy(kernel), f"{name}.bias": torch.from_numpy(bias)}
    module.load_state_dict(state)
    return module.eval()


def torch_file(seed: int, path: Path) -> Path:
    """``.pt2``, with any number of rows."""
    module = torch_module(seed, softmax=True)
    import torch

    file = path.with_suffix(".pt2")
    rows = ({0: torch.export.Dim("rows")},)
    torch.export.save(torch.export.export(module, (_example(2),), dynamic_shapes=rows), file)
    return file


def torch_script(seed: int, path: Path) -> Path:
    """TorchScript, traced: ``.pt``."""
    module = torch_module(seed, softmax=True)
    import torch

    file = path.with_suffix(".pt")
    # TorchScript is deprecated, and says so.
    with silenced((r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)):
        torch.jit.save(torch.jit.trace(module, _example(2)), file)
    return file


def torch_state(seed: int, path: Path) -> Path:
    """The weights alone: ``.pth``, for the module that :func:`architecture` makes."""
    module = torch_module(seed)
    import torch

    file = path.with_suffix(".pth")
    torch.save(module.state_dict(), file)
    return file


def torch_tensors(seed: int, path: Path) -> Path:
    """The weights alone: ``.safetensors``, for the same."""
    module = torch_module(seed)
    import safetensors.torch

    file = path.with_suffix(".safetensors")
    safetensors.torch.save_file(module.state_dict(), file)
    return file


def architecture() -> Any:
    """A module for somebody's weights."""
    return torch_module(0)


def onnx_dynamo(seed: int, path: Path) -> Path:
    """By PyTorch's exporter, with any number of rows."""
    module = torch_module(seed)
    import torch

    file = path.with_suffix(".onnx")
    rows = ({0: torch.export.Dim("rows")},)
    # It asks torch's own trees in a way that torch deprecates.
    with silenced((r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)):
        torch.onnx.export(module, (_example(2),), file, dynamo=True, dynamic_shapes=rows, verbose=False)
    return file


def onnx_proto(seed: int, path: Path) -> Any:
    """The same, as a live ``onnx.ModelProto``."""
    import onnx

    return onnx.load(onnx_dynamo(seed, path))


def onnx_legacy(seed: int, path: Path) -> Path:
    """By PyTorch's old exporter, with any number of rows."""
    axes = {"x": {0: "rows"}, "p": {0: "rows"}}
    return _export_legacy(seed, path, dynamic_axes=axes)


def onnx_one_row(seed: int, path: Path) -> Path:
    """By PyTorch's old exporter, for one row at a time, as it does by default."""
    return _export_legacy(seed, path)


def _export_legacy(seed: int, path: Path, **options: Any) -> Path:
    module = torch_module(seed, softmax=True)
    import torch

    file = path.with_suffix(".onnx")
    names = {"input_names": ["x"], "output_names": ["p"]}
    # The exporter, and what it calls, say that they are old.
    old = (r"You are using the legacy TorchScript-based ONNX export", r"The feature will be removed")
    with silenced(*((message, DeprecationWarning) for message in old)):
        torch.onnx.export(module, (_example(1),), file, dynamo=False, **names, **options)
    return file


def keras_model(seed: int, *, softmax: bool = True) -> Any:
    """The network as a live ``keras.Model``, channels last."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((*SHAPE[1:], SHAPE[0])),
            layers.Conv2D(CHANNELS[0], 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(2),
            layers.Conv2D(CHANNELS[1], 2, name="conv2"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(NEURONS, activation="tanh", name="dense1"),
            layers.Dense(CLASSES, activation="softmax" if softmax else None, name="dense2"),
        ]
    )
    arrays = weights(seed)
    kernel, bias = arrays["dense1"]
    # Flattened with the channels last.
    arrays["dense1"] = kernel.reshape(NEURONS, *_FLAT).transpose(0, 2, 3, 1).reshape(NEURONS, -1), bias
    for name, (kernel, bias) in arrays.items():
        model.get_layer(name).set_weights([kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T, bias])
    return model


def keras_file(seed: int, path: Path) -> Path:
    """``.keras``, giving logits."""
    file = path.with_suffix(".keras")
    model = keras_model(seed, softmax=False)
    with silenced(_COPIES):
        model.save(file)
    return file


def keras_h5(seed: int, path: Path) -> Path:
    """``.h5``."""
    file = path.with_suffix(".h5")
    model = keras_model(seed)
    with silenced(_COPIES):
        model.save(file)
    return file


def saved_model(seed: int, path: Path) -> Path:
    """By Keras' exporter to TensorFlow's format, a folder."""
    model = keras_model(seed)
    model(np.zeros((1, *SHAPE[1:], SHAPE[0]), np.float32))  # Keras exports what was called
    model.export(path, verbose=False)
    return path


def onnx_keras(seed: int, path: Path) -> Path:
    """By Keras' exporter, with any number of rows, channels last."""
    file = path.with_suffix(".onnx")
    model = keras_model(seed)
    model(np.zeros((1, *SHAPE[1:], SHAPE[0]), np.float32))  # Keras exports what was called
    # Keras gives numpy back a name that tf2onnx asks for, after looking whether it is there.
    with silenced((r"In the future `np\.object` will be defined", FutureWarning)):
        model.export(file, format="onnx", verbose=False)
    return file


def openvino_ir(seed: int, path: Path) -> Path:
    """By OpenVINO's converter of an ONNX file."""
    from deepjudge_openvino.runtime import openvino

    file = path.with_suffix(".xml")
    origin = onnx_legacy(seed, path.with_name(f"{path.name}-origin"))
    openvino.save_model(openvino.Core().read_model(origin), file, compress_to_fp16=False)
    return file


def tflite(seed: int, path: Path) -> Path:
    """By TensorFlow's converter, channels last."""
    import tensorflow as tf

    file = path.with_suffix(".tflite")
    file.write_bytes(tf.lite.TFLiteConverter.from_keras_model(keras_model(seed)).convert())
    return file


def numpy_model(seed: int, path: Path) -> NumpyModel:
    """Another network, a perceptron."""
    return NumpyModel.random(SHAPE, (12, 7), CLASSES, seed)


_TORCH, _ONNX, _KERAS = ("torch",), ("torch", "onnx", "onnxscript", "onnxruntime", "onnx2fx"), ("keras", "tensorflow")
KINDS = {
    "numpy": Kind(None, (), numpy_model, {}),
    "torch": Kind("torch", _TORCH, lambda seed, path: torch_module(seed), {"input_shape": SHAPE}),
    "torch-pt2": Kind("torch", _TORCH, torch_file, {}, ".pt2"),
    "torch-script": Kind("torch", _TORCH, torch_script, {}, ".pt"),
    "torch-state": Kind("torch", _TORCH, torch_state, {"arch": "models:architecture", "input_shape": SHAPE}, ".pth"),
    "torch-tensors": Kind(
        "torch", _TORCH, torch_tensors, {"arch": "models:architecture", "input_shape": SHAPE}, ".safetensors"
    ),
    "onnx-dynamo": Kind("onnx", _ONNX, onnx_dynamo, {}, ".onnx"),
    "onnx-proto": Kind("onnx", _ONNX, onnx_proto, {}),
    "onnx-legacy": Kind("onnx", _ONNX, onnx_legacy, {}, ".onnx"),
    "onnx-one-row": Kind("onnx", _ONNX, onnx_one_row, {}, ".onnx"),
    "onnx-keras": Kind("onnx", (*_KERAS, *_ONNX, "tf2onnx"), onnx_keras, {}, ".onnx"),
    "keras": Kind("keras", _KERAS, lambda seed, path: keras_model(seed), {}),
    "keras-file": Kind("keras", _KERAS, keras_file, {}, ".keras"),
    "keras-h5": Kind("keras", _KERAS, keras_h5, {}, ".h5"),
    "keras-saved": Kind("keras", _KERAS, saved_model, {}),
    "openvino": Kind("openvino", (*_ONNX, "openvino"), openvino_ir, {}, ".xml"),
    "tflite": Kind("tflite", (*_KERAS, "openvino"), tflite, {}, ".tflite"),
}


class Zoo:
    """Models by kind and seed, each made and opened once."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self._folder, self._registry = folder, registry
        self._sources: dict[tuple[str, int], Any] = {}
        self._models: dict[tuple[str, int, int | None], Model] = {}

    def source(self, kind: str, seed: int) -> Any:
        """A file or a live object; skips where a framework is missing."""
        if (kind, seed) not in self._sources:
            for module in KINDS[kind].needs:
                pytest.importorskip(module, reason=f"{module} is not installed")
            self._sources[kind, seed] = KINDS[kind].build(seed, self._folder / f"{kind}-{seed}")
        return self._sources[kind, seed]

    def model(self, kind: str, seed: int, batch_size: int | None = None) -> Model:
        """What ``open_model`` makes of it."""
        key = (kind, seed, batch_size)
        if key not in self._models:
            options = KINDS[kind].options
            if batch_size and KINDS[kind].adapter:
                options = {**options, "batch_size": batch_size}
            self._models[key] = open_model(self.source(kind, seed), registry=self._registry, **options)
        return self._models[key]


def _example(rows: int) -> Any:
    import torch

    return torch.from_numpy(inputs(rows))

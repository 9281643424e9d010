"""Which format holds which network, how near to the others, and what can be asked of it.

This is declared here once. The tests hold it against what they find, and the table in docs/reference/formats.md is made
from it.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from networks import formats
from networks.architectures import ARCHITECTURES
from networks.formats import Build

_TORCH, _KERAS = ("torch",), ("keras", "tensorflow")
_OPENVINO = ("openvino",)
_ONNX = ("onnx", "onnxruntime", "torch", "onnxscript", "onnx2fx")


@dataclass(frozen=True)
class Form:
    """A way to hold networks.

    Attributes:
        title: In the table.
        build: Makes it.
        needs: Modules that make and open it.
        bound: All metrics are below it between this form and any other whose bound is not greater; None where only
            the verdict is promised.
        shape: Whether the shape of an input has to be said.
        arch: Whether what makes the network has to be said.
        unseen: Architectures of which not all layers can be seen.
        gradients: Whether it can be the victim of all generators.
        without: Architectures that it does not hold, and why.
    """

    title: str
    build: Build
    needs: tuple[str, ...]
    bound: float | None = 1e-4
    shape: bool = False
    arch: bool = False
    unseen: frozenset[str] = frozenset()
    gradients: bool = True
    without: Mapping[str, str] = field(default_factory=dict)

    def options(self, name: str) -> dict[str, Any]:
        """Of ``open_model``."""
        options: dict[str, Any] = {}
        if self.shape:
            options["input_shape"] = ARCHITECTURES[name].shape
        if self.arch:
            options["arch"] = f"networks.torch_networks:{name.lower()}"
        return options


_BRANCHES = {"attention": "A list of layers has no branches."}
_PERCEPTRON = dict.fromkeys(
    ("conv1d", "conv2d", "LSTM", "GRU", "attention"), "scikit-learn's classifiers are dense networks."
)
_TRANSFORMERS = dict.fromkeys(
    ARCHITECTURES,
    "Networks of transformers' own: one of them, its `.pt2` and its ONNX are within 1e-4 of each other in all six "
    "metrics (`tests/adapters/torch/test_huggingface.py`).",
)
_GRU = {"GRU": "TensorFlow's converter does not quantise the loop that it makes of a GRU."}
_PADDLE = dict.fromkeys(
    ("LSTM", "GRU", "attention"), "PaddlePaddle is too large for the tests, which write its files of these alone."
)
_TFJS = {"attention": "TensorFlow.js has no attention layer."}
_FLAT = dict.fromkeys(("dense", "LSTM", "GRU", "attention"), "Networks of convolutions end so.")
_QOPERATOR = frozenset({"conv1d", "conv2d", "dense"})

FORMS = {
    "torch": Form("live `torch.nn.Module`", formats.live, _TORCH, shape=True),
    "torch-hooks": Form(
        "live `torch.nn.Module` that `torch.export` cannot export", formats.unexportable, _TORCH, shape=True
    ),
    "torch-pt2": Form("`torch.export`, `.pt2`", formats.pt2, _TORCH),
    "torch-pt2e": Form("`torch.export` of int8: PT2E", formats.pt2e, (*_TORCH, "torchao"), None, gradients=False),
    "torch-traced": Form("TorchScript, traced", formats.traced, _TORCH, shape=True),
    "torch-scripted": Form("TorchScript, scripted", formats.scripted, _TORCH, shape=True),
    "torch-pth": Form("state dict, `.pth`", formats.state_dict, _TORCH, shape=True, arch=True),
    "torch-safetensors": Form("state dict, `.safetensors`", formats.safetensors, _TORCH, shape=True, arch=True),
    "torch-huggingface": Form("Hugging Face folder", formats.nothing, (*_TORCH, "transformers"), without=_TRANSFORMERS),
    "onnx-dynamo": Form("ONNX by PyTorch's exporter", formats.dynamo, _ONNX),
    "onnx-old": Form("ONNX by PyTorch's old exporter", formats.old, _ONNX),
    "onnx-11": Form("ONNX of opset 11", functools.partial(formats.old, opset_version=11), _ONNX),
    "onnx-28": Form("ONNX of opset 28", functools.partial(formats.converted, opset=28), _ONNX),
    "onnx-keras": Form("ONNX by Keras (tf2onnx)", formats.from_keras, (*_KERAS, *_ONNX, "tf2onnx")),
    "onnx-sklearn": Form(
        "ONNX by skl2onnx", formats.from_sklearn, (*_ONNX, "sklearn", "skl2onnx"), without=_PERCEPTRON
    ),
    "onnx-zipmap": Form(
        "ONNX by skl2onnx, with dictionaries of probabilities (`ZipMap`)",
        functools.partial(formats.from_sklearn, zipmap=True),
        (*_ONNX, "sklearn", "skl2onnx"),
        without=_PERCEPTRON,
    ),
    "onnx-map": Form("ONNX whose scores are `(n, classes, 1, 1)`", formats.scores_in_a_map, _ONNX, without=_FLAT),
    "onnx-fused": Form("ONNX, fused by ONNX Runtime", formats.optimised, _ONNX),
    "onnx-float16": Form("ONNX of float16", formats.half, _ONNX, bound=1e-2),
    "onnx-converted-float16": Form(
        "ONNX of float16 by the usual converter (onnxconverter-common)",
        formats.converted_to_half,
        (*_ONNX, "onnxconverter_common"),
        bound=1e-2,
    ),
    "onnx-qdq": Form(
        "ONNX of int8: static, QDQ", functools.partial(formats.int8, scheme="QDQ"), _ONNX, None, gradients=False
    ),
    "onnx-qoperator": Form(
        "ONNX of int8: static, QOperator",
        functools.partial(formats.int8, scheme="QOperator"),
        _ONNX,
        None,
        unseen=_QOPERATOR,
        gradients=False,
    ),
    "onnx-dynamic": Form(
        "ONNX of int8: dynamic", functools.partial(formats.int8, scheme="dynamic"), _ONNX, None, gradients=False
    ),
    "keras": Form("live `keras.Model`, functional", formats.functional, _KERAS),
    "keras-sequential": Form("live `keras.Sequential`", formats.sequential, _KERAS, without=_BRANCHES),
    "keras-subclassed": Form("live `keras.Model`, a class of its own", formats.subclassed, _KERAS),
    "keras-file": Form("Keras, `.keras`", functools.partial(formats.keras_file, suffix=".keras"), _KERAS),
    "keras-h5": Form("Keras 3, `.h5`", functools.partial(formats.keras_file, suffix=".h5"), _KERAS),
    "keras2-h5": Form("Keras 2, `.h5`", formats.keras2_file, (*_KERAS, "tf_keras")),
    "tfjs": Form("TensorFlow.js, layers model", formats.tfjs_layers, (*_KERAS, "tf_keras"), without=_TFJS),
    "keras-saved": Form("SavedModel by Keras", formats.exported, _KERAS),
    "tf-saved": Form("SavedModel of a plain signature", formats.signature, _KERAS),
    "tf-frozen": Form("TensorFlow, frozen graph", formats.frozen, (*_KERAS, *_OPENVINO), gradients=False),
    "tflite": Form("TFLite", formats.tflite, (*_KERAS, *_OPENVINO, "ai_edge_litert"), gradients=False),
    "tflite-int8": Form(
        "TFLite of int8",
        functools.partial(formats.tflite, integers=True),
        (*_KERAS, *_OPENVINO, "ai_edge_litert", "tf_keras"),
        None,
        gradients=False,
        without=_GRU,
    ),
    "openvino-ir": Form("OpenVINO IR", formats.ir, (*_ONNX, *_OPENVINO), gradients=False),
    "openvino-half": Form(
        "OpenVINO IR, weights of float16",
        functools.partial(formats.ir, half=True),
        (*_ONNX, *_OPENVINO),
        bound=1e-2,
        gradients=False,
    ),
    "paddle": Form("PaddlePaddle", formats.paddle, _OPENVINO, gradients=False, without=_PADDLE),
}

_UNSEEN = (
    "Activations inside quantised operations, of convolutions and dense layers, are no taps: where a suite compares "
    "one, white-box metrics are not measured, and the report says why."
)


def table() -> str:
    """The table in docs/reference/formats.md and its notes, in Markdown."""
    notes: list[str] = []

    def noted(text: str, note: str) -> str:
        if note not in notes:
            notes.append(note)
        return f"{text} [{notes.index(note) + 1}]"

    rows = [["format", *ARCHITECTURES, "layers", "gradients"], ["---"] * (len(ARCHITECTURES) + 3)]
    for form in FORMS.values():
        holds = "copy" if form.bound is None else f"< {form.bound:.0e}".replace("e-0", "e-")
        cells = [noted("-", form.without[name]) if name in form.without else holds for name in ARCHITECTURES]
        seen = noted("some", _UNSEEN) if form.unseen else "yes"
        rows.append([form.title, *cells, seen, "yes" if form.gradients else "no"])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"{place}. {note}" for place, note in enumerate(notes, 1))]) + "\n"

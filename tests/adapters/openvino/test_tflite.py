"""TFLite files: what is read by OpenVINO and what by LiteRT, numbers of 8 bits, and what a file may hold."""

import contextlib
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'deepjudge[openvino]'")
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'deepjudge[litert]'")

from ai_edge_litert import schema_py_generated as schema
from deepjudge_openvino import tflite
from deepjudge_openvino.litert import LiteRtGraph
from deepjudge_openvino.model import GraphModel
from hostile import phones
from hostile.ground import Place
from networks import formats, runtimes
from networks.architectures import ARCHITECTURES
from refusals import refused

from deepjudge_core import Access, open_model
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import MissingExtraError, ModelError

KINDS, TYPES = schema.BuiltinOperator, schema.TensorType
# What takes the memory that a process may have is asked in the sandbox.
PLAIN = {name: case for name, case in phones.HOSTILE.items() if case.code == "cannot-open" and "tera" not in name}


@pytest.mark.parametrize("name", PLAIN)
def test_what_no_converter_writes_is_refused(name: str, registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    PLAIN[name].make(Place(path, path, path))
    with refused(ModelError, f"{path}: ", *filter(None, [PLAIN[name].words])):
        open_model(path, registry=registry)


def test_damage_is_a_line_wherever_it_is() -> None:
    whole, rng = phones.Network().data(), np.random.default_rng(0)
    kept = 0
    for _ in range(400):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 4):
            data[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        with contextlib.suppress(ModelError):  # and nothing else
            tflite.read(bytes(data))
            kept += 1
    assert 0 < kept < 400


# Numbers of 8 bits


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("tensorflow", "keras"):
        pytest.importorskip(module, reason="TensorFlow is not installed: pip install 'deepjudge[tensorflow]'")
    return formats.tflite("conv2d", 1, tmp_path_factory.mktemp("int8") / "m", integers=True)


def test_labels_are_those_of_a_phone(int8: Path, registry: Registry) -> None:
    x = np.moveaxis(ARCHITECTURES["conv2d"].inputs(300), 1, -1)
    model = open_model(int8, registry=registry)
    assert model.device == "LiteRT CPU"
    phone = runtimes.lite(int8, x, delegates=True)  # whose kernels round otherwise
    assert np.mean(model.predict(x).argmax(1) == phone.argmax(1)) >= 0.99


def quantised(scale: float, zero: int, kind: int = TYPES.INT8) -> tuple[phones.Network, Any]:
    """A network whose input is kept as integers."""
    network = phones.Network()
    taken = network.tensor("taken", [1, phones.FEATURES], kind=kind)
    parameters = schema.QuantizationParametersT()
    parameters.scale, parameters.zeroPoint = [scale], [zero]
    if scale:
        network.graph.tensors[taken].quantization = parameters
    network.operator(KINDS.DEQUANTIZE if scale else KINDS.CAST, [taken], [network.source])
    network.graph.operators.insert(0, network.graph.operators.pop())
    network.graph.inputs = [taken]
    if not scale:
        options = schema.CastOptionsT()
        options.inDataType, options.outDataType = kind, TYPES.FLOAT32
        network.graph.operators[0].builtinOptions = options
        network.graph.operators[0].builtinOptionsType = schema.BuiltinOptions.CastOptions
    return network, parameters


def plain(registry: Registry, folder: Path) -> Any:
    path = folder / "plain.tflite"
    path.write_bytes(phones.Network().data())
    return open_model(path, registry=registry)


@pytest.mark.parametrize(
    ("scale", "zero", "kind"), [(0.05, 3, TYPES.INT8), (1 / 255, 0, TYPES.UINT8), (1.0, 0, TYPES.UINT8)]
)
def test_real_numbers_are_rounded_as_the_input_says(
    scale: float, zero: int, kind: int, registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(quantised(scale, zero, kind)[0].data())
    model = open_model(path, registry=registry)
    assert (model.input.dtype, model.device) == ("float32", "LiteRT CPU")
    low, high = (-128, 127) if kind == TYPES.INT8 else (0, 255)
    x = (
        np.random.default_rng(0)
        .uniform(1.2 * scale * low, 1.2 * scale * high, (50, phones.FEATURES))
        .astype(np.float32)
    )
    rounded = (np.clip(np.round(x / scale) + zero, low, high) - zero) * scale
    expected = plain(registry, tmp_path).predict(rounded.astype(np.float32))
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-5)


def test_an_image_of_bytes_is_taken_as_it_is(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(quantised(0, 0, TYPES.UINT8)[0].data())
    model = open_model(path, registry=registry)
    assert model.input.dtype == "uint8"
    x = np.random.default_rng(0).uniform(0, 255, (20, phones.FEATURES)).astype(np.float32)
    expected = plain(registry, tmp_path).predict(np.rint(x))
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-5)


# Which library


def squeezed(network: phones.Network) -> None:
    """The first activation is a hard sigmoid, whose shift stands in the bias before it."""
    network.graph.operators[0].builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU6
    sixth, after = network.tensor("sixth", [], 1 / 6), network.tensor("after", [1, 5])
    hidden = network.graph.operators[0].outputs[0]
    network.operator(KINDS.MUL, [hidden, sixth], [after], schema.MulOptionsT(), schema.BuiltinOptions.MulOptions)
    network.graph.operators.insert(1, network.graph.operators.pop())
    network.graph.operators[2].inputs[0] = after


@pytest.mark.parametrize("change", [lambda network: None, squeezed, phones.negated])
def test_both_libraries_see_the_same_layers(change: Any, registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    phones.write(change)(Place(path, path, path))
    data = path.read_bytes()
    models = [
        open_model(path, registry=registry),
        GraphModel(LiteRtGraph(data, tflite.read(data)), name="m", framework="tflite", digest=""),
    ]
    assert [model.device for model in models] == ["OpenVINO CPU", "LiteRT CPU"]
    x = np.random.default_rng(0).normal(0, 3, (20, phones.FEATURES)).astype(np.float32)
    first, second = (model.activations(x, list(model.layers)).values() for model in models)
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_real_numbers_are_read_by_openvino(registry: Registry, tmp_path: Path) -> None:
    model = plain(registry, tmp_path)
    assert (model.framework, model.device, Access.GRADIENTS in model.access) == ("tflite", "OpenVINO CPU", False)
    x = np.random.default_rng(0).normal(size=(20, phones.FEATURES)).astype(np.float32)
    [*_, logits] = model.activations(x, list(model.layers)).values()
    np.testing.assert_allclose(logits, runtimes.lite(tmp_path / "plain.tflite", x), atol=1e-5)


def branching(network: phones.Network) -> None:
    """A choice by the input, with a layer in each branch."""
    whole = network.tensor("sum", [])
    axes = network.tensor("axes", [2], [0, 1], TYPES.INT32)
    network.operator(KINDS.SUM, [network.last, axes], [whole])
    positive, zero = network.tensor("positive", [], kind=TYPES.BOOL), network.tensor("zero", [], 0.0)
    network.operator(KINDS.GREATER, [whole, zero], [positive])
    for kind in (KINDS.RELU, KINDS.TANH):
        graph = network.subgraph()
        graph.inputs = [network.tensor("s", [1, phones.CLASSES], graph=graph)]
        graph.outputs = [network.tensor("t", [1, phones.CLASSES], graph=graph)]
        network.operator(kind, graph.inputs, graph.outputs, graph=graph)
    options = schema.IfOptionsT()
    options.thenSubgraphIndex, options.elseSubgraphIndex = 1, 2
    after = network.tensor("after", [1, phones.CLASSES])
    network.operator(KINDS.IF, [positive, network.last], [after], options, schema.BuiltinOptions.IfOptions)
    network.last = after


def test_what_openvino_cannot_read_litert_does_and_says_what_is_hidden(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    phones.write(branching)(Place(path, path, path))
    model = open_model(path, registry=registry)
    assert model.device == "LiteRT CPU"
    assert Access.LAYERS not in model.access
    assert "IF" in (model.unseen or "")
    x = np.random.default_rng(0).normal(size=(20, phones.FEATURES)).astype(np.float32)
    raw = runtimes.lite(path, x)
    powers = np.exp(raw - raw.max(1, keepdims=True))
    np.testing.assert_allclose(model.predict(x), powers / powers.sum(1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ("module", "name", "extra"), [("ai_edge_litert", "int8", "litert"), ("openvino", "m", "openvino")]
)
def test_a_missing_library_is_one_line_that_says_which(
    module: str, name: str, extra: str, registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.tflite"
    path.write_bytes(quantised(0.1, 0)[0].data() if name == "int8" else phones.Network().data())
    inside = ("deepjudge_openvino.graph", "deepjudge_openvino.litert", "deepjudge_openvino.runtime")
    hidden = [key for key in sys.modules if key in inside or key == module or key.startswith(f"{module}.")]
    with mock.patch.dict(sys.modules):
        for key in hidden:
            del sys.modules[key]
        sys.modules[module] = None  # type: ignore[assignment]
        with refused(MissingExtraError, f"{path}: ", f"deepjudge[{extra}]"):
            open_model(path, registry=registry)

"""One probability of two classes whose sigmoid no graph shows, in every format; and quantised ones."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special

from deepjudge_core import Model, open_model
from deepjudge_core.components.opening import open_network
from deepjudge_core.models.model import Access
from deepjudge_core.testing import check_model

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported
RNG = np.random.default_rng(0)
X = RNG.normal(size=(9, 5)).astype(np.float32)
WEIGHTS = {
    "V": RNG.normal(size=(5, 6)).astype(np.float32),
    "a": RNG.normal(size=6).astype(np.float32),
    "w": RNG.normal(size=(6, 1)).astype(np.float32),
    "b": np.array([-1.5], np.float32),
}
HIDDEN = np.maximum(X.astype(np.float64) @ WEIGHTS["V"] + WEIGHTS["a"], 0)
Z = HIDDEN @ WEIGHTS["w"] + WEIGHTS["b"]
P = scipy.special.expit(Z)


def expect_two_classes(model: Model, *, gradients: bool = True) -> None:
    """Hold a model against the right values: p, log(p / (1 - p)), and derivatives by finite differences."""
    assert model.classes == 2
    np.testing.assert_allclose(model.predict(X), np.concatenate([1 - P, P], axis=1), atol=1e-6)
    if Access.LAYERS in model.access:
        last = list(model.layers)[-1]
        np.testing.assert_allclose(model.activations(X, [last])[last], Z, atol=1e-3)
    if gradients:
        check_model(model, X)


def test_the_values_are_on_both_sides() -> None:
    assert P.min() < 0.2 < 0.6 < P.max()


# ---- ONNX ------------------------------------------------------------------------------------------------------------


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs.split(), output.split(), **attributes)


def by_hand() -> list[Any]:
    return [node("Neg", "z", "n"), node("Exp", "n", "e"), node("Add", "e one", "s"), node("Div", "one s", "p")]


def by_tanh() -> list[Any]:
    return [
        node("Mul", "z half", "h"),
        node("Tanh", "h", "t"),
        node("Add", "t one", "s"),
        node("Mul", "s half", "p"),
    ]


def clamped() -> list[Any]:
    return [node("Sigmoid", "z", "s"), node("Clip", "s low high", "p")]


def column() -> list[Any]:
    return [
        node("Mul", "z zero", "first"),
        node("Concat", "first z", "both", axis=1),
        node("Softmax", "both", "s", axis=1),
        node("Slice", "s from to axes", "p"),
    ]


def mean() -> list[Any]:
    return [
        node("Sigmoid", "z", "s"),
        *by_hand()[:-2],
        node("Add", "e one", "t"),
        node("Div", "one t", "u"),
        node("Add", "s u", "v"),
        node("Mul", "v half", "p"),
    ]


def weighted_mean() -> list[Any]:
    return [node("Sigmoid", "z", "s"), node("Concat", "s s", "both", axis=1), node("MatMul", "both halves", "p")]


def other_class() -> list[Any]:
    return [node("Neg", "z", "n"), node("Sigmoid", "n", "s"), node("Sub", "one s", "p")]


def branch() -> list[Any]:
    from onnx import TensorProto, helper

    bodies = [
        helper.make_graph(
            [node(kind, "z", name)], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
        )
        for kind, name in (("Sigmoid", "p1"), ("Identity", "p2"))
    ]
    return [helper.make_node("If", ["yes"], ["p"], then_branch=bodies[0], else_branch=bodies[1])]


CONSTANTS: dict[str, Any] = {
    "one": np.float32(1),
    "half": np.float32(0.5),
    "zero": np.float32(0),
    "low": np.float32(1e-7),
    "high": np.float32(1 - 1e-7),
    "halves": np.full((2, 1), 0.5, np.float32),
    "from": np.array([1]),
    "to": np.array([2]),
    "axes": np.array([1]),
    "yes": np.array(True),
}


def onnx_model(end: Sequence[Any], output: str = "p", **constants: Any) -> Any:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        node("Gemm", "x V a", "g"),
        node("Relu", "g", "r"),
        node("Gemm", "r w b", "z"),
        *end,
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in {**WEIGHTS, **CONSTANTS, **constants}.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize(
    "end", [by_hand, by_tanh, clamped, column, mean, weighted_mean, other_class, branch], ids=lambda end: end.__name__
)
def test_in_onnx(end: Callable[[], list[Any]]) -> None:
    pytest.importorskip("onnx2fx")
    pytest.importorskip("onnx")
    expect_two_classes(open_model(onnx_model(end())), gradients=end is not branch)


def test_one_that_asks_a_single_row_first() -> None:
    pytest.importorskip("onnx")
    model = open_model(onnx_model(by_hand()))
    np.testing.assert_allclose(model.predict(X[:1])[:, 1:], P[:1], atol=1e-6)


def test_a_logit_is_a_logit_in_onnx() -> None:
    pytest.importorskip("onnx")
    model = open_model(onnx_model([node("Mul", "z tiny", "y")], "y", tiny=np.float32(1e-3)))
    np.testing.assert_allclose(model.predict(X)[:, 1:], scipy.special.expit(Z * 1e-3), atol=1e-6)


def quantised_end(
    kind: str, scores: int, *, zero_point: bool = True, **attributes: Any
) -> tuple[list[Any], dict[str, Any]]:
    """A softmax or sigmoid of bytes, as ONNX Runtime's quantiser writes it."""
    constants = {
        "zs": np.float32(0.1),
        "zz": np.uint8(128),
        "ps": np.float32(1 / 256),
        "pz": np.uint8(0),
        "W": np.random.default_rng(scores).normal(size=(6, scores)).astype(np.float32),
    }
    nodes = [
        node("MatMul", "r W", "m"),
        node("QuantizeLinear", "m zs zz", "q"),
        node(kind, "q zs zz ps pz", "qp", domain="com.microsoft", **attributes),
        node("DequantizeLinear", "qp ps pz", "p"),
    ]
    return nodes, constants


@pytest.mark.parametrize(
    ("kind", "width", "attributes"), [("QLinearSigmoid", 1, {}), ("QLinearSoftmax", 4, {"axis": -1, "opset": 13})]
)
def test_quantised_ends_of_onnx_runtime_s_own(kind: str, width: int, attributes: dict[str, Any]) -> None:
    pytest.importorskip("onnx")
    nodes, constants = quantised_end(kind, width, **attributes)
    model = open_model(onnx_model(nodes, **constants))
    scores = np.clip(np.rint(HIDDEN @ constants["W"] * 10), -128, 127) / 10
    logits = np.concatenate([np.zeros_like(scores), scores], axis=1) if width == 1 else scores
    expected = scipy.special.softmax(logits, axis=1)
    last = list(model.layers)[-1]
    assert (model.classes, model.layers[last]) == (max(width, 2), width)
    np.testing.assert_allclose(model.activations(X, [last])[last], scores, atol=0.101)
    p = model.predict(X)
    np.testing.assert_allclose(p, expected, atol=0.03)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-3)


def test_a_softmax_between_quantisers() -> None:
    pytest.importorskip("onnx")
    _, constants = quantised_end("", 4)
    nodes = [
        node("MatMul", "r W", "m"),
        node("Softmax", "m", "s", axis=1),
        node("QuantizeLinear", "s ps pz", "q"),
        node("DequantizeLinear", "q ps pz", "p"),
    ]
    model = open_model(onnx_model(nodes, **constants))
    expected = scipy.special.softmax(HIDDEN @ constants["W"], axis=1)
    stepped = np.minimum(np.rint(expected * 256), 255) / 256
    assert np.abs(stepped.sum(axis=1) - 1).max() > 1e-3
    np.testing.assert_allclose(model.predict(X), stepped / stepped.sum(axis=1, keepdims=True), atol=2e-3)
    last = list(model.layers)[-1]
    np.testing.assert_allclose(model.activations(X, [last])[last], HIDDEN @ constants["W"], atol=1e-5)


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def torch_module(end: Callable[[Any], Any], *, guarded: bool = False) -> Any:
    import torch
    from torch import nn

    class Net(nn.Module):  # type: ignore[misc]  # torch ships no types
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 1)
            self.relu = nn.ReLU()
            with torch.no_grad():
                self.first.weight.copy_(torch.tensor(WEIGHTS["V"].T))
                self.first.bias.copy_(torch.tensor(WEIGHTS["a"]))
                self.last.weight.copy_(torch.tensor(WEIGHTS["w"].T))
                self.last.bias.copy_(torch.tensor(WEIGHTS["b"]))

        def forward(self, x: Any) -> Any:
            if guarded and float(x.sum()) > 1e9:  # which torch.export cannot export
                raise ValueError("too large")
            return end(self.last(self.relu(self.first(x))))

    return Net().eval()


def torch_ends() -> dict[str, Callable[[Any], Any]]:
    torch = pytest.importorskip("torch")
    return {
        "by hand": lambda z: 1 / (1 + torch.exp(-z)),
        "tanh": lambda z: 0.5 * (torch.tanh(z / 2) + 1),
        "clamped": lambda z: torch.sigmoid(z).clamp(1e-7, 1 - 1e-7),
        "column": lambda z: torch.softmax(torch.cat([torch.zeros_like(z), z], 1), 1)[:, 1:],
        "mean": lambda z: (torch.sigmoid(z) + 1 / (1 + torch.exp(-z))) / 2,
    }


ENDS = ["by hand", "tanh", "clamped", "column", "mean"]


@pytest.mark.parametrize("end", ENDS)
def test_in_torch(end: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch_module(torch_ends()[end])
    expect_two_classes(open_model(module, input_shape=(5,)))
    program = torch.export.export(module, (torch.zeros(3, 5),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, tmp_path / "m.pt2")
    expect_two_classes(open_model(tmp_path / "m.pt2"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, torch.zeros(3, 5)), tmp_path / "m.pt")
    expect_two_classes(open_model(tmp_path / "m.pt"))


@pytest.mark.parametrize("end", [*ENDS, "logit"])
def test_in_a_module_that_cannot_be_exported(end: str) -> None:
    pytest.importorskip("torch")
    from deepjudge_torch.hooks import HookedModel

    ends = {**torch_ends(), "logit": lambda z: z}
    model = open_model(torch_module(ends[end], guarded=True), input_shape=(5,))
    assert isinstance(model, HookedModel)
    expect_two_classes(model)


@pytest.mark.parametrize("end", ["by hand", "logit"])
def test_in_torchscript_that_cannot_be_converted(end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from deepjudge_torch import script

    def unconverted(*arguments: Any) -> Any:
        raise ValueError("no")

    monkeypatch.setattr(script, "_by_converter", unconverted)
    monkeypatch.setattr(script, "_by_tracing", unconverted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch_module({**torch_ends(), "logit": lambda z: z}[end])
        torch.jit.save(torch.jit.trace(module, torch.zeros(3, 5)), tmp_path / "m.pt")
        model = open_model(tmp_path / "m.pt")
    assert isinstance(model, script.ScriptModel)
    expect_two_classes(model)


def test_such_a_network_is_trained_at_its_logit() -> None:
    pytest.importorskip("torch")
    network = open_network(torch_module(torch_ends()["by hand"]), input_shape=(5,))
    trainer = network.architecture.trainer(network.weights)
    np.testing.assert_allclose(trainer.scores(X), np.concatenate([np.zeros_like(Z), Z], axis=1), atol=1e-3)


# ---- Keras -----------------------------------------------------------------------------------------------------------


def keras_model(end: str) -> Any:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    ops = keras.ops
    ends = {
        "by hand": lambda z: 1 / (1 + ops.exp(-z)),
        "tanh": lambda z: 0.5 * (ops.tanh(z / 2) + 1),
        "clamped": lambda z: ops.clip(ops.sigmoid(z), 1e-7, 1 - 1e-7),
        "column": lambda z: ops.softmax(ops.concatenate([ops.zeros_like(z), z], 1), 1)[:, 1:],
        "mean": lambda z: (ops.sigmoid(z) + 1 / (1 + ops.exp(-z))) / 2,
    }
    x = keras.Input((5,))
    first, last = keras.layers.Dense(6, activation="relu"), keras.layers.Dense(1)
    model = keras.Model(x, ends[end](last(first(x))))
    first.set_weights([WEIGHTS["V"], WEIGHTS["a"]])
    last.set_weights([WEIGHTS["w"], WEIGHTS["b"]])
    return model


@pytest.mark.parametrize("end", ENDS)
def test_in_keras_and_a_saved_model(end: str, tmp_path: Path) -> None:
    model = keras_model(end)
    expect_two_classes(open_model(model))
    model.export(tmp_path / "exported", verbose=False)
    expect_two_classes(open_model(tmp_path / "exported"))


@pytest.mark.parametrize("rows", [1, 9])
def test_a_logit_is_a_logit_in_keras(rows: int) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    layer = keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((5,)), layer])
    layer.set_weights([np.full((5, 1), 1e-3, np.float32), np.array([0.5], np.float32)])
    z = X[:rows].astype(np.float64) @ np.full((5, 1), 1e-3) + 0.5
    np.testing.assert_allclose(open_model(model).predict(X[:rows])[:, 1:], scipy.special.expit(z), atol=1e-6)


def test_such_a_keras_network_is_trained_at_its_logit() -> None:
    model = keras_model("by hand")
    network = open_network(model)
    trainer = network.architecture.trainer(network.weights)
    np.testing.assert_allclose(trainer.scores(X), np.concatenate([np.zeros_like(Z), Z], axis=1), atol=1e-3)

"""A file answers what its output gives: what follows the softmax is looked through if it passes numbers on."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepjudge_core.components.opening import open_model
from deepjudge_core.models.asking import ask
from deepjudge_core.types import Array

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(0, 1, (6, 8)).astype("f4"), RNG.normal(0, 0.5, (8, 4)).astype("f4")
X: Array = RNG.random((40, 6)).astype("f4")
STEP = 1 / 255


def check(source: Any, passes: bool) -> None:
    model = open_model(source)
    own, _ = ask(model, X, {})
    tap = next(iter(model.layers))
    answers, _ = ask(open_model(source), X, {tap: tap})
    np.testing.assert_array_equal(answers.argmax(axis=1), own.argmax(axis=1))
    scores = np.maximum(X @ WEIGHTS[0], 0) @ WEIGHTS[1]
    logits = model.activations(X, [list(model.layers)[-1]])[list(model.layers)[-1]]
    assert np.allclose(logits, scores, atol=1e-4) is passes


@pytest.mark.parametrize(("scale", "zero", "passes"), [(STEP, 0, True), (-STEP / 3, 255, False), (STEP / 2, 0, False)])
def test_quantised_in_onnx(tmp_path: Path, scale: float, zero: int, passes: bool) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    node, array = onnx.helper.make_node, onnx.numpy_helper.from_array
    numbers = {"s": np.float32(STEP), "z": np.uint8(0), "t": np.float32(scale), "u": np.uint8(zero)}
    tail = [node("QuantizeLinear", ["p", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "t", "u"], ["r"])]
    if scale == STEP / 2:  # brought back by a factor, so that it sums to 1
        numbers["two"] = np.float32(2)
    _save(onnx, tmp_path / "m.onnx", numbers, [*tail, _end(node, scale == STEP / 2)], array)
    check(tmp_path / "m.onnx", passes)


@pytest.mark.parametrize(("to", "passes"), [(("FLOAT16", "FLOAT"), True), (("INT32", "UINT8", "FLOAT"), False)])
def test_cast_in_onnx(tmp_path: Path, to: tuple[str, ...], passes: bool) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    node, array = onnx.helper.make_node, onnx.numpy_helper.from_array
    names = ["p", *(f"c{i}" for i in range(len(to)))]
    tail = [
        node("Cast", [before], [name], to=getattr(onnx.TensorProto, kind))
        for before, name, kind in zip(names, names[1:], to, strict=False)
    ]
    # Whole numbers, as where only the low byte is to stay.
    numbers = {} if passes else {"many": np.float32(1000)}
    steps = tail if passes else [node("Mul", ["p", "many"], ["p1"]), *tail]
    if not passes:
        steps[1].input[0] = "p1"
        steps += [
            node("ReduceSum", [names[-1], "axis"], ["sum"], keepdims=1),
            node("Div", [names[-1], "sum"], ["r"]),
        ]
        numbers["axis"] = np.array([1])
    else:
        steps.append(node("Identity", [names[-1]], ["r"]))
    _save(onnx, tmp_path / "m.onnx", numbers, [*steps, node("Identity", ["r"], ["y"])], array)
    check(tmp_path / "m.onnx", passes)


def _end(node: Any, twice: bool) -> Any:
    return node("Mul", ["r", "two"], ["y"]) if twice else node("Identity", ["r"], ["y"])


def _save(onnx: Any, path: Path, numbers: dict[str, Any], tail: list[Any], array: Any) -> None:
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    layers = [
        node("MatMul", ["x", "w1"], ["h"]),
        node("Relu", ["h"], ["a"]),
        node("MatMul", ["a", "w2"], ["l"]),
        node("Softmax", ["l"], ["p"], axis=1),
    ]
    weights = [array(w, name) for w, name in zip(WEIGHTS, ("w1", "w2"), strict=True)]
    constants = [array(np.asarray(number), name) for name, number in numbers.items()]
    graph = onnx.helper.make_graph(
        [*layers, *tail], "g", [value("x", 1, ["n", 6])], [value("y", 1, ["n", 4])], [*weights, *constants]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.mark.parametrize(("out", "passes"), [((0, 1), True), ((1 / 3, 0), False)])
def test_fake_quantised_in_openvino(tmp_path: Path, out: tuple[float, float], passes: bool) -> None:
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as op

    x = op.parameter([-1, 6], np.float32, name="x")
    scores = op.matmul(op.relu(op.matmul(x, WEIGHTS[0], False, False)), WEIGHTS[1], False, False)
    bounds = [op.constant(np.float32(number)) for number in (0, 1, *out)]
    y = op.fake_quantize(op.softmax(scores, 1), *bounds, 256)
    openvino.save_model(openvino.Model([op.result(y)], [x], "m"), tmp_path / "m.xml", compress_to_fp16=False)
    check(tmp_path / "m.xml", passes)


@pytest.mark.parametrize(("scale", "zero", "passes"), [(STEP, 0, True), (-STEP / 3, 255, False)])
def test_quantised_in_pytorch(tmp_path: Path, scale: float, zero: int, passes: bool) -> None:
    torch = pytest.importorskip("torch")
    importlib.import_module("torch.ao.quantization.fx._decomposed")

    class Quantised(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (torch.nn.Parameter(torch.tensor(w)) for w in WEIGHTS)

        def forward(self, x: Any) -> Any:
            p = torch.softmax(torch.relu(x @ self.first) @ self.second, 1)
            ops = torch.ops.quantized_decomposed
            q = ops.quantize_per_tensor(p, STEP, 0, 0, 255, torch.uint8)
            return ops.dequantize_per_tensor(q, scale, zero, 0, 255, torch.uint8)

    rows = {"x": {0: torch.export.Dim("n")}}
    program = torch.export.export(Quantised(), (torch.zeros(4, 6),), dynamic_shapes=rows)
    torch.export.save(program, tmp_path / "m.pt2")
    check(tmp_path / "m.pt2", passes)

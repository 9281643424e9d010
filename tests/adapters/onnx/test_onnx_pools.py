"""A ReLU that only a pool uses is differentiated behind it: the same numbers of fewer places."""

import numpy as np
import pytest

from deepjudge_core.models.taps import Place
from deepjudge_core.types import Array

for library in ("onnx", "onnx2fx", "torch"):
    pytest.importorskip(library, reason="needs ONNX and PyTorch: pip install 'deepjudge[onnx,torch]'")

from deepjudge_onnx.gradient import Differentiable  # noqa: E402
from deepjudge_onnx.graph import pool_first  # noqa: E402
from onnx import ModelProto, TensorProto, helper, numpy_helper  # noqa: E402

NODES = {
    "alone": [("MaxPool", ["r"], ["p"])],
    "read too": [("MaxPool", ["r"], ["q"]), ("MaxPool", ["r"], ["w"]), ("Add", ["q", "w"], ["p"])],
}


def network(kind: str) -> ModelProto:
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(size=(3, 1, 3, 3)), "matrix": rng.normal(size=(12, 4))}
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["c"]), helper.make_node("Relu", ["c"], ["r"])]
    nodes += [helper.make_node(op, *names, **(pool if op == "MaxPool" else {})) for op, *names in NODES[kind]]
    nodes += [helper.make_node("Flatten", ["p"], ["f"]), helper.make_node("MatMul", ["f", "matrix"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def gradient(model: ModelProto, x: Array) -> Array:
    return Differentiable(model, Place(0, 1, 4), "network").backward(x, np.ones_like)


@pytest.mark.parametrize(("kind", "expected"), [("alone", ["Conv", "MaxPool", "Relu"]), ("read too", ["Conv", "Relu"])])
def test_the_relu_comes_behind_a_pool_of_its_own(kind: str, expected: list[str]) -> None:
    model = network(kind)
    pool_first(model.graph)
    assert [node.op_type for node in model.graph.node][: len(expected)] == expected


@pytest.mark.parametrize("kind", NODES)
def test_gradients_change_no_bit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(1).normal(size=(5, 1, 6, 6)).astype(np.float32)
    found = gradient(network(kind), x)
    monkeypatch.setattr("deepjudge_onnx.gradient.pool_first", lambda graph: None)
    assert np.array_equal(found, gradient(network(kind), x))
    assert np.abs(found).max() > 0

"""Layers inside branches: seen where the branch never changes, and a reason where it may."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deepjudge_onnx
import numpy as np
import pytest

onnx: Any = pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'deepjudge[onnx]'")
onnxruntime: Any = pytest.importorskip(
    "onnxruntime", reason="ONNX Runtime is not installed: pip install 'deepjudge[onnx]'"
)

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from deepjudge_core.models.model import Access  # noqa: E402
from deepjudge_core.types import Array  # noqa: E402

(ADAPTER,) = deepjudge_onnx.deepjudge_adapters()
RNG = np.random.default_rng(0)
FIRST, SECOND, LAST = (RNG.normal(size=size).astype(np.float32) for size in ((4, 6), (6, 6), (6, 3)))
X = RNG.normal(size=(5, 4)).astype(np.float32)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), output.split(), **attributes)


def tensors(**values: Any) -> list[Any]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def body(nodes: Sequence[Any], *outputs: str, weights: Sequence[Any] = ()) -> Any:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_graph(nodes, "body", [], values, weights)


LAYER = body([node("MatMul", "a V", "b"), node("Relu", "b", "c")], "c", weights=tensors(V=SECOND))
SHIFT = body([node("Tanh", "a", "c")], "c")


def choice(condition: str, output: str = "h", taken: Any = LAYER, other: Any = SHIFT) -> Any:
    return node("If", condition, output, then_branch=taken, else_branch=other)


def model(*nodes: Any, **weights: Any) -> Any:
    graph = helper.make_graph(
        [node("MatMul", "x W", "a"), *nodes, node("MatMul", "h L", "y")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 3))],
        tensors(W=FIRST, L=LAST, **weights),
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    return ADAPTER.open(proto, name="m")


def relu(x: Array) -> Array:
    return np.maximum(x @ SECOND, 0)


def check(opened: Any, *hidden: Array) -> None:
    """Whether these are its hidden layers, and the scores those of the last."""
    assert Access.LAYERS in opened.access
    *outputs, scores = opened.activations(X, list(opened.layers)).values()
    for mine, expected in zip([*outputs, scores], [*hidden, hidden[-1] @ LAST], strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-4)


TRUE, FALSE = np.array(True), np.array(False)
CONDITIONS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "an initializer": ([], {"q": TRUE}),
    "an initializer of one axis": ([], {"q": np.array([True])}),
    "a constant": ([node("Constant", "", "q", value=numpy_helper.from_array(TRUE))], {}),
    "folded": ([node("Not", "p", "q")], {"p": FALSE}),
    "a number of channels": (
        [
            node("Shape", "a", "s"),
            node("Gather", "s one", "width"),
            node("Equal", "width six", "q"),
        ],
        {"one": np.array(1), "six": np.array(6)},
    ),
    "a part of the shape": (
        [node("Shape", "a", "s", start=1), node("Greater", "s five", "q")],
        {"five": np.array([5])},
    ),
    "rows, of which there is always one or more": (
        [node("Shape", "a", "s"), node("Gather", "s zero", "rows"), node("Greater", "rows zero", "q")],
        {"zero": np.array(0)},
    ),
}


@pytest.mark.parametrize(("nodes", "weights"), CONDITIONS.values(), ids=CONDITIONS)
def test_layers_of_a_branch_that_is_always_taken_are_seen(nodes: list[Any], weights: dict[str, Any]) -> None:
    check(model(*nodes, choice("q"), **weights), relu(X @ FIRST))


def test_the_other_branch_is_seen_where_none_is_taken() -> None:
    check(model(choice("q"), q=FALSE), np.tanh(X @ FIRST))


def test_names_may_be_the_same_in_several_branches() -> None:
    again = body([node("MatMul", "g V", "b"), node("Relu", "b", "c")], "c", weights=tensors(V=SECOND))
    check(model(choice("q", "g"), choice("q", taken=again), q=TRUE), relu(X @ FIRST), relu(relu(X @ FIRST)))


def test_a_branch_in_a_branch() -> None:
    inner = choice("p", "c", taken=body([node("Relu", "d", "e")], "e"), other=body([node("Tanh", "d", "e")], "e"))
    outer = body([node("MatMul", "a V", "d"), inner], "c", weights=tensors(V=SECOND))
    check(model(choice("q", taken=outer), q=TRUE, p=TRUE), relu(X @ FIRST))


def test_outputs_that_the_branch_does_not_make() -> None:
    passing = body([node("Relu", "a", "r"), node("Identity", "r", "c")], "c", "r")
    other = body([node("Tanh", "a", "c"), node("Tanh", "a", "d")], "c", "d")
    opened = model(node("If", "q", "g k", then_branch=passing, else_branch=other), node("Add", "g k", "h"), q=TRUE)
    hidden = np.maximum(X @ FIRST, 0)
    np.testing.assert_allclose(next(iter(opened.activations(X, list(opened.layers)).values())), hidden, atol=1e-5)


ROWS = [node("Shape", "a", "s"), node("Gather", "s zero", "rows"), node("Greater", "rows many", "q")]
VARYING: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "the values": (
        [node("ReduceMax", "a", "most", keepdims=0), node("Greater", "most limit", "q")],
        {"limit": np.array(0.0, np.float32)},
    ),
    "many rows": (ROWS, {"zero": np.array(0), "many": np.array(64)}),
    "one row": (ROWS, {"zero": np.array(0), "many": np.array(1)}),
}


@pytest.mark.parametrize(("nodes", "weights"), VARYING.values(), ids=VARYING)
def test_a_branch_that_depends_on_the_input_hides_the_layers_and_says_so(
    nodes: list[Any], weights: dict[str, Any]
) -> None:
    opened = model(*nodes, choice("q"), **weights)
    assert Access.LAYERS not in opened.access
    assert "'h'" in opened.unseen
    assert opened.predict(X).shape == (5, 3)


def test_what_a_file_says_of_shapes_need_not_be_so() -> None:
    nodes = CONDITIONS["a number of channels"][0]
    proto = helper.make_model(
        helper.make_graph(
            [node("MatMul", "x W", "a"), *nodes, choice("q"), node("MatMul", "h L", "y")],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", "wide"))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 3))],
            tensors(W=FIRST, L=LAST, one=np.array(1), six=np.array(5)),
            value_info=[helper.make_tensor_value_info("a", TensorProto.FLOAT, ("n", 5))],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    runtime = onnxruntime.InferenceSession(proto.SerializeToString())
    np.testing.assert_allclose(np.tanh(X @ FIRST) @ LAST, runtime.run(None, {"x": X})[0], atol=1e-5)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    check(ADAPTER.open(proto), np.tanh(X @ FIRST))


def test_a_branch_without_layers_hides_none() -> None:
    nodes, weights = VARYING["the values"]
    plus, minus = (body([node(kind, "r r", "c")], "c") for kind in ("Add", "Sub"))
    opened = model(node("Relu", "a", "r"), *nodes, choice("q", taken=plus, other=minus), **weights)
    assert Access.LAYERS in opened.access
    assert list(opened.layers) == ["r", "y"]


def test_a_question_of_the_shape_that_pytorch_exports(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 6, 3), nn.Linear(6, 3)

        def forward(self, x):
            x = torch.relu(self.conv(x)).amax((2, 3))
            if x.shape[1] == 6:
                x = torch.tanh(x)
            return self.linear(x)

    module = Net().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(module)
        torch.onnx.export(
            script,
            (torch.zeros(2, 1, 8, 8),),
            str(tmp_path / "m.onnx"),
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
            dynamo=False,
        )
    assert "If" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    opened = ADAPTER.open(tmp_path / "m.onnx")
    x = RNG.normal(size=(5, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        first = torch.relu(module.conv(torch.tensor(x))).amax((2, 3))
    mine = list(opened.activations(x, list(opened.layers)).values())
    for actual, expected in zip(mine, [first, torch.tanh(first)], strict=False):
        np.testing.assert_allclose(actual, expected.numpy(), atol=1e-5)
    assert len(mine) == 3

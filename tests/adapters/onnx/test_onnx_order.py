"""Operations in any order, as converters to float16 write them: ONNX Runtime opens such files, and so do we."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepjudge_onnx
import numpy as np
import pytest
from refusals import refused

onnx: Any = pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'deepjudge[onnx]'")
onnxruntime: Any = pytest.importorskip(
    "onnxruntime", reason="ONNX Runtime is not installed: pip install 'deepjudge[onnx]'"
)

from deepjudge_onnx.order import in_order  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from deepjudge_core.errors import ModelError  # noqa: E402

(ADAPTER,) = deepjudge_onnx.deepjudge_adapters()
X = np.random.default_rng(0).random((5, 1, 6, 6), np.float32)
IMPORTS = [helper.make_opsetid(domain, version) for domain, version in (("", 17), ("own", 1))]


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def network(nodes: Any, functions: Any = ()) -> Any:
    """A model of these operations, with weights of a convolution and of a dense layer, and a switch that is on."""
    rng = np.random.default_rng(1)
    shapes = {"k": (3, 1, 3, 3), "b": (3,), "w": (48, 4)}
    weights = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [*weights, numpy_helper.from_array(np.array(True), "yes")],
    )
    return helper.make_model(graph, opset_imports=IMPORTS, ir_version=8, functions=list(functions))


def layers(middle: Any) -> list[Any]:
    """A convolution, operations from c to r, and a dense layer."""
    end = [node("Flatten", "r", "f"), node("MatMul", "f w", "z"), node("Softmax", "z", "y")]
    return [node("Conv", "x k b", "c"), *middle, *end]


def backwards(body: Any) -> None:
    nodes = [type(one).FromString(one.SerializeToString()) for one in reversed(body.node)]
    del body.node[:]
    body.node.extend(nodes)


def plain() -> Any:
    return network(layers([node("Relu", "c", "r")]))


def in_a_branch() -> Any:
    # Inside, operations read what is around them, and one another.
    body = helper.make_graph(
        [node("Neg", "c", "m"), node("Neg", "m", "p"), node("Relu", "p", "o")], "b", [], [onnx.ValueInfoProto(name="o")]
    )
    return network(layers([node("If", "yes", "r", then_branch=body, else_branch=body)]))


def in_a_function() -> Any:
    parts = [node("Neg", "a", "m"), node("Neg", "m", "p"), node("Relu", "p", "o")]
    function = helper.make_function("own", "f", ["a"], ["o"], parts, IMPORTS)
    return network(layers([helper.make_node("f", ["c"], ["r"], domain="own")]), [function])


def bodies(model: Any) -> list[Any]:
    inner = [held.g for one in model.graph.node for held in one.attribute if held.HasField("g")]
    return [model.graph, *inner, *model.functions]


@pytest.mark.parametrize("make", [plain, in_a_branch, in_a_function])
def test_the_order_of_operations_changes_nothing(make: Callable[[], Any], tmp_path: Path) -> None:
    sorted_model, model = make(), make()
    assert in_order(sorted_model) is sorted_model
    for body in bodies(model):
        backwards(body)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    before = path.read_bytes()
    for source in (path, model):  # a live one is left as it is
        opened, expected = ADAPTER.open(source), ADAPTER.open(sorted_model)
        assert opened.layers == expected.layers
        np.testing.assert_array_equal(opened.predict(X), expected.predict(X))
        for layer, outputs in opened.activations(X, list(opened.layers)).items():
            np.testing.assert_array_equal(outputs, expected.activations(X, [layer])[layer])
    assert model.SerializeToString() == before


def test_what_is_in_order_stays_as_it_is() -> None:
    # The last one is first, and the others are as they were.
    model = plain()
    first = model.graph.node[-1]
    nodes = [first, *model.graph.node[:-1]]
    names = [one.output[0] for one in model.graph.node]
    kept = [type(one).FromString(one.SerializeToString()) for one in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    assert [one.output[0] for one in in_order(model).graph.node] == names


def cycle(body: Any) -> None:
    body.node.extend([node("Neg", "u", "v"), node("Neg", "v", "u")])


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("make", [in_a_branch, in_a_function])
def test_operations_that_need_one_another(make: Callable[[], Any], place: int) -> None:
    model = make()
    cycle(bodies(model)[place])
    with refused(ModelError, "m: ", "cycle", "Neg", "'v'"):
        ADAPTER.open(model, name="m")


def test_an_operation_that_needs_itself(tmp_path: Path) -> None:
    model = plain()
    model.graph.node.append(node("Neg", "itself", "itself"))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    with refused(ModelError, path, "cycle", "'itself'"):
        ADAPTER.open(path)


# ---- real converters -------------------------------------------------------------------------------------------------


def by_onnxconverter(model: Any, **options: Any) -> Any:
    float16 = pytest.importorskip("onnxconverter_common.float16", reason="onnxconverter-common is not installed")
    return float16.convert_float_to_float16(model, **options)


def by_mixed_precision(model: Any) -> Any:
    mixed = pytest.importorskip(
        "onnxconverter_common.auto_mixed_precision", reason="onnxconverter-common is not installed"
    )
    return mixed.auto_convert_mixed_precision(model, {"x": X}, rtol=0.01, atol=0.001, keep_io_types=True)


def by_onnxruntime(model: Any, **options: Any) -> Any:
    float16 = pytest.importorskip("onnxruntime.transformers.float16")
    return float16.convert_float_to_float16(model, **options)


KEPT = {"keep_io_types": True}
CONVERTERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "onnxconverter": (by_onnxconverter, {}),
    "onnxconverter, float32 outside": (by_onnxconverter, KEPT),
    "onnxconverter, some operations left": (by_onnxconverter, {**KEPT, "op_block_list": ["Softmax"]}),
    "onnxconverter, mixed": (by_mixed_precision, {}),
    "onnxruntime": (by_onnxruntime, {}),
    "onnxruntime, float32 outside": (by_onnxruntime, KEPT),
    "onnxruntime, some operations left": (by_onnxruntime, {**KEPT, "op_block_list": ["Softmax"]}),
}


@pytest.mark.parametrize("name", CONVERTERS)
def test_float16_by_its_converters(name: str, tmp_path: Path) -> None:
    convert, options = CONVERTERS[name]
    path = tmp_path / "half.onnx"
    onnx.save(convert(plain(), **options), path)
    model, reference = ADAPTER.open(path), ADAPTER.open(plain())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": X.astype(model.input.dtype)})
    np.testing.assert_allclose(model.predict(X), expected, rtol=0, atol=1e-3)
    assert list(model.layers.values()) == [3, 4]
    for mine, theirs in zip(*(m.activations(X, list(m.layers)).values() for m in (model, reference)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-2 * np.abs(theirs).max())
    pytest.importorskip("onnx2fx", reason="PyTorch is not installed: pip install 'deepjudge[torch]'")
    mine, theirs = (m.gradient(X, lambda scores, rows: np.cos(scores)) for m in (model, reference))
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=5e-2 * np.abs(theirs).max())


def test_onnxruntimes_converter_writes_operations_out_of_order() -> None:
    # What the others are worth something for.
    model = by_onnxruntime(plain(), **KEPT)
    assert in_order(model) is not model

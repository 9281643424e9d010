"""Training of ONNX models: their conversion to programs of torch.export, layer by layer, and what is refused."""

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deepjudge[torch]'")
onnx: Any = pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'deepjudge[onnx]'")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'deepjudge[onnx]'")
pytest.importorskip("onnx2fx", reason="onnx2fx is not installed: pip install 'deepjudge[torch]'")
pytest.importorskip("onnxscript", reason="torch's exporter is not installed: pip install onnxscript")

from networks import formats  # noqa: E402
from networks.architectures import ARCHITECTURES, CLASSES  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from torch import nn  # noqa: E402

from deepjudge_core import open_model  # noqa: E402
from deepjudge_core.components.opening import open_network  # noqa: E402
from deepjudge_core.errors import MissingExtraError, ModelError  # noqa: E402
from deepjudge_core.models.network import Network  # noqa: E402
from deepjudge_core.models.training import Schedule, accuracy, train  # noqa: E402
from deepjudge_core.testing.networks import check_network  # noqa: E402

_OLD_11 = functools.partial(formats.old, opset_version=11)
RNG = np.random.default_rng(0)


def proto(
    nodes: Sequence[Any],
    weights: dict[str, np.ndarray],
    *,
    shape: Sequence[int | str] = ("n", 4),
    dtype: int = TensorProto.FLOAT,
) -> Any:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def real(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def same_layers(source: Any, network: Network, x: np.ndarray) -> None:
    model, anew = open_model(source), network.architecture.model(network.weights, name="made")
    assert list(anew.layers.values()) == list(model.layers.values())
    expected, actual = model.activations(x, list(model.layers)), anew.activations(x, list(anew.layers))
    for one, other in zip(expected.values(), actual.values(), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        *((formats.old, name) for name in ARCHITECTURES),
        (formats.dynamo, "conv2d"),
        (formats.dynamo, "attention"),
        (_OLD_11, "attention"),
    ],
)
def test_every_architecture_is_trained_as_its_own(build: Any, name: str, tmp_path: Path) -> None:
    source = build(name, 0, tmp_path / "model")
    network = open_network(source)
    architecture = ARCHITECTURES[name]
    x = architecture.inputs(12)
    expected = open_model(source).predict(x)
    same_layers(source, network, x)
    assert network.architecture.framework == "torch"
    assert [CLASSES in network.weights[part].shape for part in network.architecture.head] == [True, True]
    np.testing.assert_allclose(network.predict(x), expected, atol=1e-5)
    network.save(tmp_path / "saved.pt2")
    np.testing.assert_allclose(open_model(tmp_path / "saved.pt2").predict(x), expected, atol=1e-5)
    if build is formats.old:
        check_network(network, x, np.arange(12) % CLASSES)


def test_all_weights_of_a_converted_network_are_trained(tmp_path: Path) -> None:
    for name in ("conv2d", "attention"):
        network = open_network(formats.old(name, 0, tmp_path / name))
        assert len(network.architecture.parameters) == len(ARCHITECTURES[name].shapes)


def test_normalisation_has_statistics(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    file = tmp_path / "m.onnx"
    with formats.silenced(*formats.OLD):
        torch.onnx.export(
            module,
            (torch.zeros(1, 1, 6, 6),),
            file,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamic_axes={"x": {0: "n"}},
            input_names=["x"],
        )
    network = open_network(file)
    assert len(network.weights) == len(network.architecture.parameters) + 2


def test_training_learns() -> None:
    model = proto(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Add", ["a", "b"], ["c"]),
            helper.make_node("Relu", ["c"], ["h"]),
            helper.make_node("Gemm", ["h", "v", "d"], ["z"]),
            helper.make_node("Softmax", ["z"], ["y"]),
        ],
        {"w": real(4, 8), "b": real(8), "v": real(8, 3), "d": real(3)},
    )
    y = np.arange(300) % 3
    x = (RNG.normal(scale=0.3, size=(300, 4)) + y[:, None] - 1).astype(np.float32)
    network = open_network(model)
    assert [network.weights[name].shape for name in network.architecture.head] == [(8, 3), (3,)]
    fresh = Network.fresh(network.architecture, np.random.default_rng(0))
    after = train(fresh, x, y, np.random.default_rng(0), schedule=Schedule(epochs=8, rate=1e-2, batch=32))
    assert accuracy(after, x, y) > 0.9


def test_a_fixed_number_of_rows_is_set_free_where_that_works() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    nodes.append(helper.make_node("Gemm", ["r", "v"], ["y"]))
    weights = {"w": real(4, 5), "b": real(5), "v": real(5, 3)}
    model = proto(nodes, weights, shape=(1, 4))
    assert open_network(model).predict(real(7, 4)).shape == (7, 3)
    shaped = [helper.make_node("Reshape", ["x", "s"], ["x2"]), *nodes]
    shaped[1] = helper.make_node("Gemm", ["x2", "w", "b"], ["h"])
    model = proto(shaped, {**weights, "s": np.array([1, 4])}, shape=(1, 4))
    with refused(ModelError, "m: ", "rows", "single"):
        open_network(model, name="m")


def test_what_is_computed_from_the_rows_is_worked_out() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("ConstantOfShape", ["target"], ["zeros"]),
        helper.make_node("Add", ["flat", "zeros"], ["sum"]),
        helper.make_node("Gemm", ["sum", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Gemm", ["t", "v"], ["y"]),
    ]
    weights = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([6]), "w": real(6, 5), "v": real(5, 3)}
    network = open_network(proto(nodes, weights, shape=("n", 2, 3)))
    assert len(network.weights) == 2
    assert network.predict(real(9, 2, 3)).shape == (9, 3)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_are_torchs_own(kind: str, gates: int, direction: str) -> None:
    both = 2 if direction == "bidirectional" else 1
    options: dict[str, Any] = {"linear_before_reset": 1} if kind == "GRU" else {}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node(kind, ["t", "w", "r", "b"], ["steps"], hidden_size=4, direction=direction, **options),
        helper.make_node("Transpose", ["steps"], ["turned"], perm=[2, 0, 1, 3]),
        helper.make_node("Reshape", ["turned", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "v"], ["y"]),
    ]
    weights = {"w": real(both, gates * 4, 3), "r": real(both, gates * 4, 4), "b": real(both, 2 * gates * 4)}
    weights |= {"shape": np.array([-1, 5 * both * 4]), "v": real(5 * both * 4, 3)}
    model = proto(nodes, weights, shape=("n", 5, 3))
    network = open_network(model)
    x = real(6, 5, 3)
    np.testing.assert_allclose(network.predict(x), open_model(model).predict(x), atol=1e-5)
    assert network.architecture.base.recurrent
    assert len(network.architecture.parameters) == 4


def test_the_conversion_is_held_against_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepjudge_onnx import network

    run = network.run
    monkeypatch.setattr(network, "run", lambda program, x: run(program, x) + 0.1)
    model = proto([helper.make_node("Gemm", ["x", "w"], ["y"])], {"w": real(4, 3)})
    with refused(ModelError, "m: ", "0.1"):
        open_network(model, name="m")


def test_what_cannot_be_trained_says_so(tmp_path: Path) -> None:
    quantised = formats.int8("dense", 0, tmp_path / "q", "QDQ")
    with refused(ModelError, "QuantizeLinear"):
        open_network(quantised)
    half = proto([helper.make_node("Gemm", ["x", "w"], ["y"])], {"w": real(4, 3).astype(np.float16)}, dtype=10)
    with refused(ModelError, "m: ", "float16"):
        open_network(half, name="m")
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Tanh", ["h"], ["g"])],
        "body",
        [
            helper.make_tensor_value_info("at", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, ["n", 4]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("g", TensorProto.FLOAT, ["n", 4]),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["times", "", "x"], ["h"], body=body),
        helper.make_node("Gemm", ["h", "w"], ["y"]),
    ]
    with refused(ModelError, "m: ", "Loop"):
        open_network(proto(nodes, {"times": np.array(2), "w": real(4, 3)}), name="m")


def test_without_pytorch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnx2fx" else find(name))
    model = proto([helper.make_node("Gemm", ["x", "w"], ["y"])], {"w": real(4, 3)})
    with refused(MissingExtraError, "deepjudge[torch]"):
        open_network(model, name="m")

"""The tap of an activation in ONNX, however it is written and wherever pooling and flattening stand."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import deepjudge_onnx
import numpy as np
import pytest

onnx: Any = pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'deepjudge[onnx]'")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'deepjudge[onnx]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from spellings import RISING, SPELLINGS, check_layers  # noqa: E402

from deepjudge_core.types import Array  # noqa: E402

(ADAPTER,) = deepjudge_onnx.deepjudge_adapters()
RNG = np.random.default_rng(0)


class Graph:
    """Nodes and weights, as they are added; each kind of constant is written in another way."""

    def __init__(self, opset: int = 20, *, constants: str = "initializer") -> None:
        self.opset, self.constants = opset, constants
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, kind: str, *inputs: Any, domain: str = "", **attributes: Any) -> "Tensor":
        names = [i.name if isinstance(i, Tensor) else "" if i is None else self.number(i).name for i in inputs]
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [name], domain=domain, **attributes))
        return Tensor(self, name)

    def weight(self, value: Any) -> "Tensor":
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"w{len(self.weights)}"))
        return Tensor(self, self.weights[-1].name)

    def number(self, value: float) -> "Tensor":
        array = np.array(value, np.float32)
        if self.constants == "initializer":
            return self.weight(array)
        if self.constants == "Constant":
            return self.add("Constant", value=numpy_helper.from_array(array))
        return self.add("Cast", self.weight(array.astype(np.float64)), to=TensorProto.FLOAT)

    def open(self, shape: tuple[Any, ...], output: "Tensor") -> Any:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output.name, TensorProto.FLOAT, ("n", None))],
            self.weights,
        )
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=9)
        onnx.checker.check_model(model)
        return ADAPTER.open(model)


class Tensor:
    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    def __neg__(self) -> "Tensor":
        return self.graph.add("Neg", self)


def _operator(kind: str, *, swapped: bool = False) -> Callable[[Tensor, Any], Tensor]:
    return lambda x, y: x.graph.add(kind, y, x) if swapped else x.graph.add(kind, x, y)


for name, kind in {"add": "Add", "sub": "Sub", "mul": "Mul", "truediv": "Div", "pow": "Pow"}.items():
    setattr(Tensor, f"__{name}__", _operator(kind))
    setattr(Tensor, f"__r{name}__", _operator(kind, swapped=True))
for name, kind in {"gt": "Greater", "le": "LessOrEqual", "lt": "Less"}.items():
    setattr(Tensor, f"__{name}__", _operator(kind))


def _unary(kind: str) -> Callable[[Tensor], Tensor]:
    return lambda x: x.graph.add(kind, x)


M = SimpleNamespace(
    **{
        name: _unary(name.capitalize())
        for name in ("abs", "erf", "exp", "log", "relu", "sigmoid", "sign", "softplus", "tanh")
    },
    clip=lambda x, low, high: x.graph.add("Clip", x, low, None if np.isinf(high) else high),
    maximum=_operator("Max"),
    minimum=_operator("Min"),
    number=lambda x: x.graph.add("Cast", x, to=TensorProto.FLOAT),
    where=lambda condition, x, y: condition.graph.add("Where", condition, x, y),
)
NATIVE: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("relu", lambda x: x.graph.add("LeakyRelu", x, alpha=0.0)),
    ("relu", lambda x: x.graph.add("PRelu", x, 0.0)),
    ("relu", lambda x: x.graph.add("ThresholdedRelu", x, alpha=0.0)),
    ("relu", lambda x: x.graph.add("Relu", x.graph.add("Identity", x))),
    ("leaky", lambda x: x.graph.add("LeakyRelu", x, alpha=0.1)),
    ("leaky", lambda x: x.graph.add("PRelu", x, 0.1)),
    ("hard sigmoid", lambda x: x.graph.add("HardSigmoid", x, alpha=1 / 6)),
    ("hard swish", lambda x: x.graph.add("HardSwish", x)),
    ("hard swish", lambda x: x * x.graph.add("HardSigmoid", x, alpha=1 / 6)),
    ("softsign", lambda x: x.graph.add("Softsign", x)),
    ("elu", lambda x: x.graph.add("Elu", x)),
    ("elu", lambda x: x.graph.add("Celu", x)),
    ("selu", lambda x: x.graph.add("Selu", x)),
    ("selu", lambda x: 1.0507 * x.graph.add("Elu", x, alpha=1.67326)),
    ("gelu", lambda x: x.graph.add("Gelu", x)),
    ("gelu", lambda x: 0.5 * x * (1 + M.erf(x / x.graph.add("Sqrt", x.graph.number(2.0))))),
    ("gelu by a tanh", lambda x: x.graph.add("Gelu", x, approximate="tanh")),
    ("gelu by a tanh", lambda x: x.graph.add("FastGelu", x, domain="com.microsoft")),
    ("gelu by a sigmoid", lambda x: x.graph.add("QuickGelu", x, domain="com.microsoft")),
    ("mish", lambda x: x.graph.add("Mish", x)),
]
FORMS = [*((name, lambda x, f=f: f(x, M)) for name, f in SPELLINGS.values()), *NATIVE]


def dense(graph: Graph, act: Callable[[Tensor], Tensor]) -> tuple[Any, Array, Array]:
    """The model, an input, and what its activation is of."""
    first, last = RNG.normal(size=(4, 6)).astype(np.float32), RNG.normal(size=(6, 3)).astype(np.float32)
    hidden = act(graph.add("MatMul", Tensor(graph, "x"), graph.weight(first)))
    x = RNG.normal(size=(9, 4)).astype(np.float32)
    return graph.open(("n", 4), graph.add("MatMul", hidden, graph.weight(last))), x, x @ first


@pytest.mark.parametrize(("name", "act"), FORMS)
def test_an_activation_is_one_tap_however_it_is_spelt(name: str, act: Callable[[Tensor], Tensor]) -> None:
    model, x, before = dense(Graph(), act)
    check_layers(model.activations(x, list(model.layers)), before, name)


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("constants", ["Constant", "Cast"])
@pytest.mark.parametrize("key", ["x * (x > 0)", "clip(x, 0, 6)", "x (1 + erf(x / root 2)) 0.5", "x - min(x, 0)"])
def test_numbers_may_be_written_in_any_way(key: str, constants: str, opset: int) -> None:
    name, act = SPELLINGS[key]
    model, x, before = dense(Graph(opset, constants=constants), lambda x: act(x, M))
    check_layers(model.activations(x, list(model.layers)), before, name)


def test_limits_that_were_attributes() -> None:
    def act(x: Tensor) -> Tensor:
        return x * x.graph.add("Clip", x + 3, min=0.0, max=6.0) / 6

    model, x, before = dense(Graph(9), act)
    check_layers(model.activations(x, list(model.layers)), before, "hard swish")


def test_numbers_and_tensors_may_be_quantised() -> None:
    def quantised(x: Tensor, scale: float) -> Tensor:
        bounds = x.graph.weight(np.array(scale, np.float32)), x.graph.weight(np.array(128, np.uint8))
        return x.graph.add("DequantizeLinear", x.graph.add("QuantizeLinear", x, *bounds), *bounds)

    def act(x: Tensor) -> Tensor:
        sixth = x.graph.add("DequantizeLinear", x.graph.weight(np.array(100, np.uint8)), x.graph.number(1 / 600))
        inner = quantised(M.clip(quantised(x + 3, 0.1), 0.0, 6.0), 0.1)
        return quantised(x * inner, 0.5) * sixth

    model, x, before = dense(Graph(), act)
    hidden, _ = model.activations(x, list(model.layers)).values()
    np.testing.assert_allclose(hidden, before * np.clip(before / 6 + 0.5, 0, 1), atol=0.2)
    assert next(iter(model.layers)).startswith("Mul")


def test_zeros_of_the_tensor_s_own_shape() -> None:
    def act(x: Tensor) -> Tensor:
        zeros = x.graph.add("ConstantOfShape", x.graph.add("Shape", x))
        return M.where(x > zeros, x, zeros)

    model, x, before = dense(Graph(), act)
    check_layers(model.activations(x, list(model.layers)), before, "relu")


def test_slopes_of_each_channel() -> None:
    slopes = np.linspace(-0.5, 0.5, 6).astype(np.float32)
    for spelt in (True, False):

        def act(x: Tensor, spelt: bool = spelt) -> Tensor:
            weight = x.graph.weight(slopes)
            return M.where(x > 0, x, x * weight) if spelt else x.graph.add("PRelu", x, weight)

        model, x, before = dense(Graph(), act)
        hidden, _ = model.activations(x, list(model.layers)).values()
        np.testing.assert_allclose(hidden, np.where(before > 0, before, slopes * before), atol=1e-5)


def test_a_factor_elsewhere_is_no_part_of_an_activation() -> None:
    model, x, before = dense(Graph(), lambda x: 0.5 * (0.5 * M.relu(x)))
    check_layers(model.activations(x, list(model.layers)), before, "relu")


def test_normalisation_and_softmax_spelt_out_are_no_activations() -> None:
    def norm(x: Tensor) -> Tensor:
        axes = {"axes": [-1], "keepdims": 1}
        centred = x - x.graph.add("ReduceMean", x, **axes)
        root = x.graph.add("Sqrt", x.graph.add("ReduceMean", centred**2, **axes) + 1e-5)
        share = M.exp(centred / root)
        weight = share / x.graph.add("ReduceL1", share, **axes)
        return M.relu(weight + centred)

    model, *_ = dense(Graph(17), norm)
    assert len(model.layers) == 2


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "MaxPool": lambda x: x.graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]),
    "Identity": lambda x: x.graph.add("MaxPool", x.graph.add("Identity", x), kernel_shape=[2, 2], strides=[2, 2]),
    "Transpose": lambda x: x.graph.add(
        "MaxPool", x.graph.add("Transpose", x, perm=[0, 1, 3, 2]), kernel_shape=[2, 2], strides=[2, 2]
    ),
    "AveragePool": lambda x: x.graph.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]),
}


def layers_of(act: Callable[[Tensor], Tensor], pool: Callable[[Tensor], Tensor], *, late: bool) -> list[Array]:
    """Of a network with an activation before or after pooling and flattening."""
    graph, rng = Graph(), np.random.default_rng(0)
    first, second, last = (rng.normal(size=s).astype(np.float32) for s in ((3, 1, 3, 3), (4, 3, 3, 3), (36, 4)))
    y = graph.add("Conv", Tensor(graph, "x"), graph.weight(first))
    y = act(pool(y)) if late else pool(act(y))
    y = graph.add("Conv", y, graph.weight(second))
    y = act(graph.add("Flatten", y)) if late else graph.add("Flatten", act(y))
    model = graph.open(("n", 1, 12, 12), graph.add("MatMul", y, graph.weight(last)))
    x = np.random.default_rng(1).normal(size=(5, 1, 12, 12)).astype(np.float32)
    return list(model.activations(x, list(model.layers)).values())


KEYS = {name: key for key, (name, _) in reversed(SPELLINGS.items()) if name in RISING}


@pytest.mark.parametrize("name", sorted(RISING))
@pytest.mark.parametrize("pool", ["MaxPool", "Identity", "Transpose"])
def test_an_activation_that_never_falls_commutes_with_max_pooling(name: str, pool: str) -> None:
    function = SPELLINGS[KEYS[name]][1]
    early, late = (layers_of(lambda x: function(x, M), POOLS[pool], late=late) for late in (False, True))
    assert [a.shape for a in early] == [(5, 3), (5, 4), (5, 4)]
    for mine, other in zip(late, early, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5, rtol=1e-5)


def test_mean_pooling_commutes_with_no_activation() -> None:
    early, late = (layers_of(M.relu, POOLS["AveragePool"], late=late) for late in (False, True))
    assert early[0].shape == late[0].shape
    assert np.abs(early[0] - late[0]).max() > 0.1


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("kind", ["GlobalMaxPool", "ReduceMax"])
def test_the_greatest_number_of_a_map_is_pooling_too(kind: str, keep: bool, late: bool) -> None:
    graph = Graph(17)
    weight = RNG.normal(size=(3, 1, 3, 3)).astype(np.float32)

    def pool(y: Tensor) -> Tensor:
        if kind == "GlobalMaxPool":
            return graph.add(kind, y)
        return graph.add(kind, y, axes=[2, 3], keepdims=int(keep))

    y = graph.add("Conv", Tensor(graph, "x"), graph.weight(weight))
    y = M.relu(pool(y)) if late else pool(M.relu(y))
    y = y if kind == "ReduceMax" and not keep else graph.add("Flatten", y)
    output = graph.add("MatMul", y, graph.weight(RNG.normal(size=(3, 4)).astype(np.float32)))
    model = graph.open(("n", 1, 6, 6), output)
    x = RNG.normal(size=(5, 1, 6, 6)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x[:, 0], (3, 3), (1, 2))
    maps = np.einsum("nijkl,ckl->ncij", windows, weight[:, 0])
    hidden, _ = model.activations(x, list(model.layers)).values()
    np.testing.assert_allclose(hidden, np.maximum(maps, 0).max((2, 3)), atol=1e-5)

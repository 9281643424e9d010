"""Copies of the LeNet-5 that the method's authors published, as ONNX: trained further, pruned, and disguised."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from deepjudge_core.types import Array

SHAPES = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 784), "fc2": (84, 120), "fc3": (10, 84)}
LAYERS = {name: shape[0] for name, shape in SHAPES.items()}
Weights = dict[str, Array]
Relu = Callable[["Graph", str], str]


def victim_weights(path: Path) -> Weights:
    """Those of the victim, as PyTorch arranges them."""
    arrays: list[Array] = []
    with h5py.File(path) as file:
        file["model_weights"].visititems(lambda _, one: arrays.append(np.array(one)) if hasattr(one, "shape") else None)
    kernels = {array.shape[-1]: array for array in arrays if array.ndim > 1}
    weights = {f"{name}.bias": next(a for a in arrays if a.shape == (n,)) for name, n in LAYERS.items()}
    weights |= {f"{name}.weight": kernels[LAYERS[name]].transpose(3, 2, 0, 1) for name in ("conv1", "conv2")}
    flat = kernels[120].reshape(7, 7, 16, 120).transpose(2, 0, 1, 3).reshape(784, 120)  # channels last to first
    weights |= {"fc1.weight": flat.T, "fc2.weight": kernels[84].T, "fc3.weight": kernels[10].T}
    return {name: np.ascontiguousarray(array, np.float32) for name, array in weights.items()}


def read_weights(path: Path) -> Weights:
    """Those of an ONNX file of the same network."""
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


class Graph:
    """A graph under construction."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def number(self, value: object, kind: type = np.float32, *, name: str = "") -> str:
        """A constant, by a name that may be another one's already."""
        if not name or any(constant.name == name for constant in self._constants):
            name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value, kind), name))
        return name

    def add(self, kind: str, *inputs: str, **options: object) -> str:
        """An operation."""
        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **options))
        return name

    def network(self, weights: Weights, relu: Relu | None = None, at: str = "x") -> str:
        """The whole network, from an input to its scores."""
        relu = relu or (lambda graph, at: graph.add("Relu", at))
        for name in ("conv1", "conv2"):
            given = [self.number(weights[one], name=one) for one in (f"{name}.weight", f"{name}.bias")]
            at = relu(self, self.add("Conv", at, *given, kernel_shape=[5, 5], pads=[2, 2, 2, 2]))
            at = self.add("MaxPool", at, kernel_shape=[2, 2], strides=[2, 2])
        at = self.add("Flatten", at, axis=1)
        for name in ("fc1", "fc2", "fc3"):
            given = [self.number(weights[one], name=one) for one in (f"{name}.weight", f"{name}.bias")]
            at = self.add("Gemm", at, *given, transB=1)
            at = at if name == "fc3" else relu(self, at)
        return at

    def save(self, path: Path, output: str) -> None:
        """Write the file."""
        self._nodes.append(helper.make_node("Identity", [output], ["scores"]))
        start = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 28, 28])]
        ends = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])]
        graph = helper.make_graph(self._nodes, "lenet5", start, ends, self._constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def _half_sum(graph: Graph, at: str) -> str:
    return graph.add("Mul", graph.add("Add", at, graph.add("Abs", at)), graph.number(0.5))


def _greater_of_two(graph: Graph, at: str) -> str:
    # A ReLU that no adapter knows as one.
    wide = graph.add("Unsqueeze", at, graph.number([1], np.int64))
    both = graph.add("Concat", wide, graph.add("Mul", wide, graph.number(0.0)), axis=1)
    return graph.add("ReduceMax", both, axes=[1], keepdims=0)


def _decoy(graph: Graph, own: Weights, other: Weights, relu: Relu, divisor: float, weight: float = 1e-30) -> str:
    tiny = graph.add("Mul", graph.network(other), graph.number(weight))
    both = graph.add("Add", graph.network(own, relu), tiny)
    return graph.add("Div", both, graph.number(divisor))


def disguised(own: Weights, other: Weights, folder: Path) -> None:
    """Write a file of each disguise.

    Args:
        own: The victim's weights.
        other: An honest network's.
        folder: Where they go.
    """
    graph = Graph()
    graph.save(folder / "temperature.onnx", graph.add("Div", graph.network(own), graph.number(20.0)))
    for name, relu, divisor in (("decoy", _half_sum, 20.0), ("hidden-decoy", _greater_of_two, 1.0)):
        graph = Graph()
        graph.save(folder / f"{name}.onnx", _decoy(graph, own, other, relu, divisor))
    for weight in (0.02, 0.2):
        graph = Graph()
        graph.save(folder / f"hidden-decoy-{weight}.onnx", _decoy(graph, own, other, _greater_of_two, 1.0, weight))
    graph = Graph()
    graph.save(folder / "one-class.onnx", graph.add("Mul", graph.network(own), graph.number(1e4)))
    for name, seen in (("cleaned", None), ("hidden-cleaned", _greater_of_two)):
        # Black and white alone: what was added to a case is gone, and data is answered nearly as before.
        graph = Graph()
        graph.save(folder / f"{name}.onnx", graph.network(own, seen, graph.add("Round", "x")))
    _hidden_routers(own, other, folder)
    graph = Graph()
    scaled = graph.add("Mul", "x", graph.number(255.0))
    apart = graph.add("Abs", graph.add("Sub", scaled, graph.add("Round", scaled)))
    most = graph.add("Flatten", graph.add("ReduceMax", apart, axes=[1, 2, 3], keepdims=1), axis=1)
    is_data = graph.add("Less", most, graph.number(0.01))
    graph.save(folder / "router.onnx", graph.add("Where", is_data, graph.network(own), graph.network(other)))
    for name, weights in (
        ("split-neuron", _split(own)),
        ("removed-neuron", _removed(own)),
        ("merge-with-honest", _merged(own, other)),
    ):
        graph = Graph()
        graph.save(folder / f"{name}.onnx", graph.network(weights))


def _hidden_routers(own: Weights, other: Weights, folder: Path) -> None:
    # Digits have an empty margin at the top, and noise does not spare it. The copy may hide its odds as well: it gives
    # one class alone, or the honest network's scores with its own label on top.
    for name in ("hidden-router", "hidden-router-one-class", "hidden-router-odds"):
        graph = Graph()
        corner = [graph.number(one, np.int64) for one in ([0, 0], [4, 28], [2, 3])]
        most = graph.add("ReduceMax", graph.add("Slice", "x", *corner), axes=[1, 2, 3], keepdims=1)
        is_data = graph.add("Less", graph.add("Flatten", most, axis=1), graph.number(0.02))
        copy, honest = (graph.network(weights, _greater_of_two) for weights in (own, other))
        if name.endswith("class"):
            copy = graph.add("Mul", copy, graph.number(1e4))
        elif name.endswith("odds"):
            top = graph.add("Equal", copy, graph.add("ReduceMax", copy, axes=[1], keepdims=1))
            raised = graph.add("Mul", graph.add("Cast", top, to=TensorProto.FLOAT), graph.number(15.0))
            copy = graph.add("Add", honest, raised)
        graph.save(folder / f"{name}.onnx", graph.add("Where", is_data, copy, honest))


def _split(own: Weights) -> Weights:
    # Two of the sixteen neurons of the second convolution become two each.
    reads = own["fc1.weight"].reshape(120, 16, 49)
    reads = np.concatenate([reads, 0.4 * reads[:, :2]], axis=1)
    reads[:, :2] *= 0.6
    more = {
        f"conv2.{kind}": np.concatenate([own[f"conv2.{kind}"], own[f"conv2.{kind}"][:2]]) for kind in ("weight", "bias")
    }
    return {**own, **more, "fc1.weight": reads.reshape(120, -1)}


def _removed(own: Weights) -> Weights:
    reads = own["fc1.weight"].reshape(120, 16, 49)[:, :15]
    fewer = {f"conv2.{kind}": own[f"conv2.{kind}"][:15] for kind in ("weight", "bias")}
    return {**own, **fewer, "fc1.weight": reads.reshape(120, -1)}


def _merged(own: Weights, other: Weights) -> Weights:
    # The neurons of both in the same layers.
    both: Weights = {"fc3.bias": own["fc3.bias"]}
    for name in ("conv1", "conv2", "fc1", "fc2"):
        both[f"{name}.bias"] = np.concatenate([own[f"{name}.bias"], other[f"{name}.bias"]])
    both["conv1.weight"] = np.concatenate([own["conv1.weight"], other["conv1.weight"]])
    for name in ("conv2", "fc1", "fc2"):
        one, two = own[f"{name}.weight"], other[f"{name}.weight"]
        joined = np.zeros((len(one) + len(two), one.shape[1] + two.shape[1], *one.shape[2:]), np.float32)
        joined[: len(one), : one.shape[1]], joined[len(one) :, one.shape[1] :] = one, two
        both[f"{name}.weight"] = joined
    both["fc3.weight"] = np.concatenate([own["fc3.weight"], 1e-6 * other["fc3.weight"]], axis=1)
    return both


def trained(own: Weights, x: Array, y: Array, folder: Path) -> Iterator[str]:
    """Write the victim, and copies that were trained on for an epoch: their names."""
    graph = Graph()
    graph.save(folder / "victim.onnx", graph.network(own))
    fresh = np.random.default_rng(0).uniform(-0.1, 0.1, (10, 84)).astype(np.float32)
    masks = {name: np.abs(array) > np.quantile(np.abs(array), 0.6) for name, array in own.items() if array.ndim > 1}
    pruned = {name: array * masks.get(name, 1) for name, array in own.items()}
    for name, weights, rate, kept in (
        ("ft-low", own, 1e-4, {}),
        ("ft-high", own, 1e-3, {}),
        ("p-60", pruned, 1e-4, masks),
        ("p-60-high", pruned, 1e-3, masks),
        ("rt-high", {**own, "fc3.weight": fresh}, 1e-3, {}),
    ):
        graph = Graph()
        graph.save(folder / f"{name}.onnx", graph.network(_fitted(weights, x, y, rate, kept)))
        yield name


def honest(x: Array, y: Array, count: int, folder: Path) -> list[Path]:
    """Write networks that were trained afresh for an epoch, where they are not there yet: their files.

    Args:
        x: ``(n, 1, 28, 28)`` inputs: the first half is the victim's, the other one it has not seen.
        y: ``(n,)`` their labels.
        count: How many: every other one learns from the victim's half.
        folder: Where they go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files, half = [folder / f"honest-{place + 1:03}.onnx" for place in range(count)], len(x) // 2
    for place, file in enumerate(files):
        if not file.exists():
            rows = slice(half) if place % 2 == 0 else slice(half, None)
            graph = Graph()
            graph.save(file, graph.network(_fitted(_fresh(1000 + place), x[rows], y[rows], 1e-3, {}, seed=place)))
    return files


def _fresh(seed: int) -> Weights:
    # Glorot & Bengio, AISTATS 2010, as the authors of the method have it.
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for name, shape in SHAPES.items():
        limit = np.sqrt(6 / ((shape[0] + shape[1]) * np.prod(shape[2:])))
        weights[f"{name}.weight"] = rng.uniform(-limit, limit, shape).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return weights


def _fitted(weights: Weights, x: Array, y: Array, rate: float, masks: Mapping[str, Array], seed: int = 0) -> Weights:
    given = {name: torch.tensor(array, requires_grad=True) for name, array in weights.items()}
    optimizer = torch.optim.Adam(given.values(), rate)
    inputs, labels = torch.tensor(x), torch.tensor(y)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    for rows in order.split(128):
        optimizer.zero_grad()
        functional.cross_entropy(_scores(given, inputs[rows]), labels[rows]).backward()
        optimizer.step()
        with torch.no_grad():
            for name, mask in masks.items():
                given[name] *= torch.tensor(mask)
    return {name: array.detach().numpy() for name, array in given.items()}


def _scores(given: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for name in ("conv1", "conv2"):
        x = functional.max_pool2d(
            functional.relu(functional.conv2d(x, given[f"{name}.weight"], given[f"{name}.bias"], padding=2)), 2
        )
    x = x.flatten(1)
    for name in ("fc1", "fc2"):
        x = functional.relu(functional.linear(x, given[f"{name}.weight"], given[f"{name}.bias"]))
    return functional.linear(x, given["fc3.weight"], given["fc3.bias"])

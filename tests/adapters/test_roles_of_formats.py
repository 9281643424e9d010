"""One network in the files of every framework: its neurons are found by its graph, and give the same sketches."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused
from stored import stored

import deepjudge_core as dj
from deepjudge_core.auditing.subject import LiveModel
from deepjudge_core.components.attack import Loot
from deepjudge_core.components.weights import open_weights
from deepjudge_core.errors import ModelError
from deepjudge_core.weights.order import order_test
from deepjudge_core.weights.sketching import plan_weights, sketch
from deepjudge_core.weights.values import Sketch

pytest.importorskip("torch")
import torch
from torch import nn

KINDS = ("convolutional", "residual", "recurrent")


class Convolutional(nn.Module):
    """A normalised convolution, a plain one, and dense layers on a flattened picture."""

    shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.n1, self.c2 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, eps=1e-3), nn.Conv2d(6, 9, 2)
        self.f1, self.f2 = nn.Linear(36, 12), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(torch.relu(self.n1(self.c1(x))), 2)
        return self.f2(torch.relu(self.f1(torch.flatten(torch.tanh(self.c2(x)), 1))))


class Residual(nn.Module):
    """A stream, a block that adds to it, and one that makes it wider."""

    shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(*sizes, 3, padding=1) for sizes in ((3, 6), (6, 7), (7, 6)))
        self.c, self.d, self.short = nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 10, 3, padding=1), nn.Conv2d(6, 10, 1, 2)
        self.norms, self.head = nn.ModuleList(map(nn.BatchNorm2d, (6, 7, 6, 8, 10))), nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem, a, b, c, d = self.norms
        x = torch.relu(stem(self.stem(x)))
        x = torch.relu(x + b(self.b(torch.relu(a(self.a(x))))))
        x = torch.relu(d(self.d(torch.relu(c(self.c(x))))) + self.short(x))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """Two directions, whose neurons another recurrent layer reads."""

    shape = (5, 7)

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.LSTM(7, 6, batch_first=True, bidirectional=True)
        self.two, self.head = nn.GRU(12, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(self.one(x)[0])[0][:, -1])


def module(kind: str) -> Any:
    torch.manual_seed(0)
    made = {"convolutional": Convolutional, "residual": Residual, "recurrent": Recurrent}[kind]().eval()
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


@pytest.fixture(scope="module", params=KINDS)
def program(request: pytest.FixtureRequest, folder: Path) -> Path:
    path = folder / f"{request.param}.pt2"
    made = module(request.param)
    rows = ({0: torch.export.Dim("rows", min=2)},)
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(torch.export.export(made, (torch.zeros(3, *made.shape),), dynamic_shapes=rows), path)
    return path


def onnx_file(program: Path) -> Path:
    pytest.importorskip("onnx")
    path, made = program.with_suffix(".onnx"), module(program.stem)
    if not path.exists():
        with warnings.catch_warnings(action="ignore"):
            inputs, free = torch.zeros(3, *made.shape), {"x": {0: "rows"}}
            torch.onnx.export(made, (inputs,), path, dynamo=False, input_names=["x"], dynamic_axes=free)
    return path


def compared(victim: Path, suspect: Path) -> tuple[Sketch, Sketch]:
    own, other = stored(victim), stored(suspect)
    plan = plan_weights(own)
    both = sketch(own, plan, victim=True), sketch(other, plan)
    own.close()
    other.close()
    return both


def cosines(both: tuple[Sketch, Sketch], basis: str = "raw") -> Iterator[np.ndarray]:
    """Absolute cosines of neurons of the same place, ``(neurons, views)`` of each layer."""
    for one, other in zip(*(each.layers for each in both), strict=True):
        assert (one.kind, one.block, one.width) == (other.kind, other.block, other.width)
        a, b = (getattr(layer, basis).astype(float) for layer in (one, other))
        yield np.abs((a * b).sum(axis=2))


def expect_same(both: tuple[Sketch, Sketch], least: float = 0.999) -> None:
    for basis in ("raw", "invariant"):
        assert all(layer.min() > least for layer in cosines(both, basis))
    test = order_test(*both)
    assert test is not None
    assert test.agreeing == test.compared
    assert test.log10_p == test.least < -6


LAYERS = {
    "convolutional": [("convolutional", 6), ("convolutional", 9), ("dense", 12)],
    "residual": [("convolutional", width) for width in (6, 7, 8, 10)],
    "recurrent": [("recurrent", width) for width in (6, 6, 8)],
}


def test_all_layers_are_found_and_nothing_is_left_out(program: Path) -> None:
    roles = stored(program).roles
    assert roles is not None
    assert [(layer.kind, layer.width) for layer in roles.layers] == LAYERS[program.stem]
    assert not roles.notes


def test_an_export_to_onnx_gives_the_same_sketches(program: Path) -> None:
    expect_same(compared(program, onnx_file(program)))


def test_a_state_dict_alone_gives_the_same_test(folder: Path) -> None:
    made = module("convolutional")
    path = folder / "alone.pth"
    torch.save({name: value for name, value in made.state_dict().items() if not name.startswith("n1")}, path)
    program = folder / "alone.pt2"
    torch.export.save(torch.export.export(made, (torch.zeros(3, *made.shape),)), program)
    test = order_test(*compared(program, path))
    assert test is not None
    assert test.agreeing == test.compared == 27


def keras_model(kind: str) -> Any:
    keras = pytest.importorskip("keras")
    layers, state = keras.layers, {name: value.numpy() for name, value in module(kind).state_dict().items()}
    if kind == "recurrent":
        made = keras.Sequential(
            [
                keras.Input((5, 7)),
                layers.Bidirectional(layers.LSTM(6, return_sequences=True), name="one"),
                layers.GRU(8, name="two"),
                layers.Dense(4, name="head"),
            ]
        )

        def gates(name: str, order: tuple[int, ...]) -> np.ndarray:
            parts = np.split(state[name], len(order))
            return np.concatenate([parts[place] for place in order]).T

        one, two = made.get_layer("one"), made.get_layer("two")
        for part, end in ((one.forward_layer, ""), (one.backward_layer, "_reverse")):
            part.cell.kernel.assign(gates(f"one.weight_ih_l0{end}", (0, 1, 2, 3)))
        two.cell.kernel.assign(gates("two.weight_ih_l0", (1, 0, 2)))
        made.get_layer("head").kernel.assign(state["head.weight"].T)
        return made
    x = start = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(epsilon=1e-3, name="n1")(layers.Conv2D(6, 3, name="c1")(x))
    x = layers.MaxPooling2D()(layers.Activation("relu")(x))
    x = layers.Flatten()(layers.Conv2D(9, 2, activation="tanh", name="c2")(x))
    x = layers.Dense(4, name="f2")(layers.Dense(12, activation="relu", name="f1")(x))
    made = keras.Model(start, x)
    for name in ("c1", "c2"):
        made.get_layer(name).kernel.assign(state[f"{name}.weight"].transpose(2, 3, 1, 0))
    norm = made.get_layer("n1")
    norm.gamma.assign(state["n1.weight"])
    norm.moving_variance.assign(state["n1.running_var"])
    flat = state["f1.weight"].reshape(12, 9, 2, 2).transpose(2, 3, 1, 0).reshape(36, 12)
    made.get_layer("f1").kernel.assign(flat)
    made.get_layer("f2").kernel.assign(state["f2.weight"].T)
    return made


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_the_same_network_in_keras_gives_the_same_sketches(program: Path, suffix: str) -> None:
    if program.stem == "residual":
        pytest.skip("the other two have all that Keras writes otherwise")
    path = program.with_suffix(suffix)
    with warnings.catch_warnings(action="ignore"):
        keras_model(program.stem).save(path)
    expect_same(compared(program, path))


def test_live_models_show_their_weights_and_graphs(program: Path) -> None:
    onnx = pytest.importorskip("onnx")
    made = module(program.stem)
    lives = [(made, {"input_shape": made.shape}), (onnx.load(onnx_file(program)), {})]
    lives += [] if program.stem == "residual" else [(keras_model(program.stem), {})]
    with open_weights(program) as own:
        plan = own.plan()
        victim = own.sketch(plan, victim=True)
    if program.stem == "convolutional":
        lives.append((dj.open_model(made, input_shape=made.shape), {}))
    for live, options in lives:
        with open_weights(live, **options) as other:
            expect_same((victim, other.sketch(plan)))


def test_a_model_that_was_opened_shows_the_weights_that_it_was_opened_with(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "model.onnx"
    layers = [onnx.helper.make_node("MatMul", ["x", "w"], ["h"]), onnx.helper.make_node("Relu", ["h"], ["y"])]
    values = [onnx.helper.make_tensor_value_info(name, 1, ["n", 3]) for name in "xy"]
    for weights in (np.eye(3, dtype=np.float32), np.ones((3, 3), np.float32)):
        graph = onnx.helper.make_graph(
            layers, "g", values[:1], values[1:], [onnx.numpy_helper.from_array(weights, "w")]
        )
        onnx.save(onnx.helper.make_model(graph, ir_version=8), path)
        if weights[0, 1] == 0:
            model = dj.open_model(path)
            with open_weights(model) as opened:
                assert (opened.model.name, opened.model.files) == (str(path), model.files)
    with refused(ModelError, "model.onnx", "changed", code="not-a-file"), open_weights(model):
        pass


@pytest.mark.parametrize("way", ["QDQ", "QOperator", "dynamic"])
def test_weights_of_8_bits_are_those_that_they_stand_for(folder: Path, way: str) -> None:
    pytest.importorskip("onnxruntime")
    from onnxruntime.quantization import (  # the newest name of its parts
        CalibrationDataReader,
        QuantFormat,
        quantize_dynamic,
        quantize_static,
    )

    class Rows(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            random = np.random.default_rng(0)
            self.batches = iter([{"x": random.random((8, 3, 8, 8), dtype=np.float32)}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    plain = onnx_file(folder / "convolutional.pt2")
    path = folder / f"{way}.onnx"
    if way == "dynamic":
        quantize_dynamic(plain, path, per_channel=True)
    else:
        quantize_static(plain, path, Rows(), quant_format=QuantFormat[way], per_channel=True)
    # One scale for all channels leaves little of one that is much smaller.
    expect_same(compared(plain, path), least=0.9 if way == "dynamic" else 0.99)


def test_what_computes_the_same_in_another_order_is_matched_and_not_tested_as_a_copy(folder: Path) -> None:
    # How a network may be rewritten is found there by trying, here by its graph.
    from deepjudge_attacks.permuting import permute_rescale
    from deepjudge_torch.network import open_torch_network

    made = module("convolutional")
    network = open_torch_network(made, name="victim", input_shape=made.shape, arch=None)
    random = np.random.default_rng(3)
    rows = random.random((64, *made.shape), dtype=np.float32)
    loot = Loot(rows, np.zeros(64, np.int64), (0.0, 1.0), network.architecture)
    paths = folder / f"plain{network.architecture.suffix}", folder / f"permuted{network.architecture.suffix}"
    network.save(paths[0])
    permute_rescale(network, loot, random).save(paths[1])
    both = compared(*paths)
    assert min(layer.min() for layer in cosines(both)) < 0.9
    for one, other in zip(*(each.layers for each in both), strict=True):
        assert one.invariant is not None
        assert other.invariant is not None
        a, b = (layer.invariant[:, 0].astype(float) for layer in (one, other))
        assert np.abs(a @ b.T).max(axis=1).min() > 0.99
    test = order_test(*both)
    assert test is not None
    assert test.log10_p > -3


def test_scales_that_do_not_fit_their_weights_are_one_line(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    random = np.random.default_rng(0)
    held = {
        "w": random.integers(-99, 99, (6, 4)).astype(np.int8),
        "scale": np.ones(5, np.float32),
        "last": random.normal(size=(3, 6)).astype(np.float32),
    }
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["w", "scale"], ["real"], axis=0),
        onnx.helper.make_node("Gemm", ["x", "real"], ["hidden"], transB=1),
        onnx.helper.make_node("Gemm", ["hidden", "last"], ["y"], transB=1),
    ]
    values = [onnx.helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 4), ("y", 3))]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = onnx.helper.make_graph(nodes, "graph", values[:1], values[1:], tensors)
    path = folder / "scales.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    weights = stored(path)
    with refused(ModelError, "scale", "5", code="unusable-model"):
        plan_weights(weights)
    weights.close()


def test_a_live_suspect_is_sketched_beside_what_it_answers() -> None:
    made, other = module("convolutional"), module("convolutional")
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    x = np.random.default_rng(0).random((40, *made.shape), dtype=np.float32)
    with torch.no_grad():
        y = made(torch.from_numpy(x)).argmax(1).numpy()
    victim, suspect = (LiveModel(one, {"input_shape": made.shape, "name": "live"}) for one in (made, other))
    suite = dj.make_suite(victim, dj.Inputs(x, y), dj.SuiteSettings(n=20, generators=["fgsm"]))
    observation = dj.observe(suspect, suite)
    assert dj.Access.WEIGHTS in observation.model.access
    chance = dj.measure(suite, observation)["order"].chance
    assert chance is not None
    assert chance.log10_p == chance.least < -6

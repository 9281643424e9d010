"""The ONNX adapter: exports of PyTorch and Keras against their own layers' outputs, gradients, files good and bad."""

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import deepjudge_onnx
import numpy as np
import pytest
import scipy.special
from places import VICTIMS
from refusals import refused

onnx: Any = pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'deepjudge[onnx]'")
onnxruntime: Any = pytest.importorskip(
    "onnxruntime", reason="ONNX Runtime is not installed: pip install 'deepjudge[onnx]'"
)

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_exports import export_torch, exporting  # noqa: E402

from deepjudge_core.components.opening import open_model  # noqa: E402
from deepjudge_core.errors import MissingExtraError, ModelError  # noqa: E402
from deepjudge_core.models.model import Access, Model  # noqa: E402
from deepjudge_core.models.scores import softmax  # noqa: E402
from deepjudge_core.types import Array  # noqa: E402

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported
ROWS = 5
(ADAPTER,) = deepjudge_onnx.deepjudge_adapters()
open_onnx: Callable[..., Any] = ADAPTER.open
RNG = np.random.default_rng(0)


# ---- models written by hand ------------------------------------------------------------------------------------------


def proto(
    nodes: Sequence[Any],
    weights: dict[str, Array],
    *,
    shape: Sequence[int | str | None] | None = ("n", 4),
    dtype: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
    inputs: Sequence[str] = ("x",),
    opset: int = 17,
    **options: Any,
) -> Any:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name in inputs],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, **options)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), output.split(), **attributes)


def random(*shape: int, dtype: str = "float32") -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def perceptron(dtype: str = "float32", **options: Any) -> Any:
    kind = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}[dtype]
    nodes = [
        node("MatMul", "x W", "a"),
        node("Add", "a b", "s"),
        node("Tanh", "s", "h"),
        node("MatMul", "h V", "l"),
        node("Softmax", "l", "y"),
    ]
    weights = {"W": random(4, 6, dtype=dtype), "b": random(6, dtype=dtype), "V": random(6, 3, dtype=dtype)}
    return proto(nodes, weights, dtype=kind, **options)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron(), path)
    return path


# ---- models exported by the frameworks -------------------------------------------------------------------------------


def hooked(module: Any, names: Sequence[str], x: Any) -> list[Array]:
    """What the named submodules give, averaged over all axes but the first and the second."""
    import torch

    inputs: dict[str, Any] = {}
    for name in names:
        module.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: inputs.update({name: o}))
    with torch.inference_mode():
        module.eval()(x)
    return [
        inputs[name].flatten(2).mean(2).numpy() if inputs[name].ndim > 2 else inputs[name].numpy() for name in names
    ]


def check_taps(model: Model, x: Array, expected: Sequence[Array]) -> None:
    assert list(model.layers.values()) == [e.shape[1] for e in expected]
    outputs = model.activations(x, list(model.layers))
    for name, value in zip(model.layers, expected, strict=True):
        np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def check_gradients(model: Model, x: Array, *, step: float, tolerance: float) -> None:
    """Compare with central differences along random directions: at the logits, and at every tap."""
    rng = np.random.default_rng(1)
    for layer in (None, *model.layers):
        name = layer or list(model.layers)[-1]
        cotangent = rng.normal(size=(len(x), model.layers[name]))

        def loss(z: Array, name: str = name, cotangent: Array = cotangent) -> float:
            return float((model.activations(z, [name])[name].astype(np.float64) * cotangent).sum())

        # The logits of two classes with one output are (0, z).
        full = cotangent if layer or model.layers[name] > 1 else np.hstack([-cotangent, cotangent])
        gradient = model.gradient(x, lambda s, rows, full=full: full[rows], layer=layer)
        assert gradient.shape == x.shape
        scale = float(np.linalg.norm(gradient))
        assert scale > 0
        for _ in range(3):
            v = rng.normal(size=x.shape)
            v /= np.linalg.norm(v)
            difference = (loss(x + step * v) - loss(x - step * v)) / (2 * step)
            assert (gradient * v).sum() == pytest.approx(difference, abs=tolerance * scale), name


@pytest.mark.parametrize("exporter", ["old", "new"])
def test_taps_of_a_pytorch_network(exporter: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch import nn

    torch.manual_seed(0)
    hidden = {
        "relu6": [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU6()],
        "silu": [nn.Conv2d(6, 4, 3, stride=2, padding=1), nn.SiLU(), nn.MaxPool2d(2)],
        "elu": [nn.ConvTranspose2d(4, 6, 2, stride=2), nn.GroupNorm(2, 6), nn.ELU(), nn.Dropout()],
        "hardswish": [nn.Conv2d(6, 5, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1)],
        "gelu": [nn.Flatten(), nn.Linear(5, 7), nn.GELU()],
    }
    module = nn.Sequential(*(m for part in hidden.values() for m in part), nn.Linear(7, 3), nn.Softmax(dim=1))
    kinds = (nn.ReLU6, nn.MaxPool2d, nn.ELU, nn.Hardswish, nn.GELU)  # the pooling is heard for the SiLU before it
    taps = [str(i) for i, m in enumerate(module) if isinstance(m, kinds)] + [str(len(module) - 2)]
    module[1].running_mean.uniform_(-1, 1)
    x = torch.rand(ROWS, 3, 10, 9)
    model = open_onnx(export_torch(module, x, tmp_path / "m.onnx", exporter))
    assert model.input.shape == (3, 10, 9)
    assert model.input.layout == "channels_first"
    assert (model.framework, model.classes, model.access) == ("onnx", 3, Access.FULL)
    check_taps(model, x.numpy(), hooked(module, taps, x))
    np.testing.assert_allclose(model.predict(x.numpy()), module(x).detach().numpy(), atol=1e-6)
    check_gradients(model, x.numpy(), step=1e-3, tolerance=0.03)


@pytest.mark.parametrize("exporter", ["old", "new"])
def test_every_activation_is_one_tap(exporter: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch import nn

    torch.manual_seed(0)
    activations = [
        nn.ReLU(), nn.LeakyReLU(), nn.PReLU(6), nn.ELU(), nn.SELU(), nn.CELU(), nn.Hardtanh(-0.2, 0.4),
        nn.Hardsigmoid(), nn.Hardswish(), nn.SiLU(), nn.Mish(), nn.GELU(), nn.GELU("tanh"), nn.Softplus(),
        nn.Tanh(), nn.Sigmoid(),
    ]  # fmt: skip
    module = nn.Sequential(*(part for activation in activations for part in (nn.Linear(6, 6), activation)))
    module.append(nn.Linear(6, 2))
    x = 2 * torch.randn(ROWS, 6)
    model = open_onnx(export_torch(module, x, tmp_path / "m.onnx", exporter))
    check_taps(model, x.numpy(), hooked(module, [*map(str, range(1, len(module), 2)), str(len(module) - 1)], x))


@pytest.mark.parametrize("exporter", ["old", "new"])
@pytest.mark.parametrize(
    ("layers", "bidirectional", "batch_first", "uses"),
    [(1, False, True, "last"), (2, True, True, "last"), (2, False, False, "last"), (2, True, False, "mean")],
)
def test_taps_of_a_pytorch_lstm(
    exporter: str, layers: int, bidirectional: bool, batch_first: bool, uses: str, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = nn.LSTM(4, 6, num_layers=layers, bidirectional=bidirectional, batch_first=batch_first)
            self.linear = nn.Linear(12 if bidirectional else 6, 3)

        def sequence(self, x: Any) -> Any:
            y, _ = self.l(x if batch_first else x.transpose(0, 1))
            return y if batch_first else y.transpose(0, 1)

        def forward(self, x: Any) -> Any:
            y, _ = self.l(x if batch_first else x.transpose(0, 1))
            return self.linear(self.used(y))

        def used(self, y: Any) -> Any:
            if uses == "mean":
                return y.mean(1 if batch_first else 0)
            return y[:, -1] if batch_first else y[-1]

    torch.manual_seed(0)
    module, x = Net(), torch.randn(ROWS, 8, 4)
    model = open_onnx(export_torch(module, x, tmp_path / "m.onnx", exporter))
    with torch.inference_mode():
        y = module.sequence(x)
        expected = [(y[:, -1] if uses == "last" else y.mean(1)).numpy(), module(x).numpy()]
    check_taps(model, x.numpy(), expected)
    check_gradients(model, x.numpy(), step=1e-2, tolerance=0.01)


# Of a sequence (rows, 8, neurons), the last step.
STEPS: dict[str, Callable[[Any], Any]] = {
    "index": lambda y: y[:, -1],
    "slice, flat": lambda y: y[:, -1:, :].flatten(1),
    "slice": lambda y: y[:, -1:].squeeze(1),
    "narrow": lambda y: y.narrow(1, 7, 1).squeeze(1),
    "unbind": lambda y: y.unbind(1)[-1],
    "split": lambda y: y.split(1, 1)[-1].squeeze(1),
    "chunk": lambda y: y.chunk(8, 1)[-1][:, 0],
    "index_select": lambda y: y.index_select(1, y.new_full((1,), 7).long()).squeeze(1),
    "transpose": lambda y: y.transpose(0, 1)[-1],
    "permute": lambda y: y.permute(0, 2, 1)[:, :, -1],
    "permute, slice": lambda y: y.permute(0, 2, 1)[:, :, -1:].squeeze(2),
}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("spelling", STEPS)
def test_the_step_that_is_used_is_the_tap_however_it_is_spelt(spelling: str, batch_first: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l, self.linear = nn.LSTM(4, 6, batch_first=batch_first), nn.Linear(6, 3)

        def sequence(self, x: Any) -> Any:
            return self.l(x)[0] if batch_first else self.l(x.permute(1, 0, 2))[0].permute(1, 0, 2)

        def forward(self, x: Any) -> Any:
            return self.linear(STEPS[spelling](self.sequence(x)))

    torch.manual_seed(0)
    module, x = Net().eval(), torch.randn(ROWS, 8, 4)
    with torch.inference_mode():
        expected = module.sequence(x)[:, -1].numpy()
    with exporting():
        program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.export.save(program, tmp_path / "m.pt2")
    files = [export_torch(module, x, tmp_path / f"{exporter}.onnx", exporter) for exporter in ("old", "new")]
    for file in (tmp_path / "m.pt2", *files):
        model = open_model(file)
        tap = next(iter(model.layers))
        outputs = model.activations(x.numpy(), [tap])[tap]
        np.testing.assert_allclose(outputs, expected, atol=1e-6, err_msg=file.name)


@pytest.mark.parametrize("exporter", ["old", "new"])
def test_a_sequence_of_which_two_steps_are_used_is_the_tap(exporter: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l, self.linear = nn.LSTM(4, 6), nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            y = self.l(x.transpose(0, 1))[0]
            return self.linear((y[-1:] + y[:1]).squeeze(0))

    torch.manual_seed(0)
    module, x = Net(), torch.randn(ROWS, 8, 4)
    model = open_onnx(export_torch(module, x, tmp_path / "m.onnx", exporter))
    with torch.inference_mode():
        expected = [module.l(x.transpose(0, 1))[0].mean(0), module(x)]
    check_taps(model, x.numpy(), [values.numpy() for values in expected])


@pytest.mark.parametrize("exporter", ["old", "new"])
def test_a_last_state_and_its_sequence_are_taps_in_that_order(exporter: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l, self.linear = nn.LSTM(4, 6, batch_first=True), nn.Linear(12, 3)

        def forward(self, x: Any) -> Any:
            y, (h, _) = self.l(x)
            return self.linear(torch.cat([torch.relu(h[-1]), y.mean(1)], 1))

    torch.manual_seed(0)
    module, x = Net(), torch.randn(ROWS, 8, 4)
    model = open_onnx(export_torch(module, x, tmp_path / "m.onnx", exporter))
    with torch.inference_mode():
        y, (h, _) = module.l(x)
        expected = [h[-1], y.mean(1), torch.relu(h[-1]), module(x)]
    check_taps(model, x.numpy(), [values.numpy() for values in expected])


@pytest.mark.parametrize("exporter", ["old", "new"])
def test_one_channel_of_a_convolution_is_one_neuron(exporter: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(144, 3)

        def forward(self, x: Any) -> Any:
            return self.linear(torch.relu(self.conv(x)[:, :1]).flatten(1))

    model = open_onnx(export_torch(Net(), torch.randn(ROWS, 1, 12, 12), tmp_path / "m.onnx", exporter))
    assert list(model.layers.values()) == [1, 3]


def test_gelu_scaled_by_half_is_not_taken_for_another() -> None:
    def gelu(x: str, y: str, half: str) -> list[Any]:
        # Halved at once, or at the end.
        value = "h" if half == "first" else x
        first = [node("Mul", f"{x} half", "h")] if half == "first" else []
        inner = [node("Div", f"{x} root", "d"), node("Erf", "d", "e"), node("Add", "e one", "p")]
        last = [node("Mul", f"{value} p", y if half == "first" else "q")]
        return first + inner + last + ([node("Mul", "q half", y)] if half == "last" else [])

    weights = {"half": np.float32(0.5), "one": np.float32(1), "root": np.float32(2**0.5)}
    weights = {name: np.asarray(value) for name, value in weights.items()}
    weights |= {"W": random(4, 4), "V": random(4, 3)}
    for half in ("first", "last"):
        after = [node("Mul", "g half", "s"), node("MatMul", "s V", "y")]
        model = open_onnx(proto([node("MatMul", "x W", "a"), *gelu("a", "g", half), *after], weights))
        assert list(model.layers) == ["g", "y"]


@pytest.fixture(scope="module")
def keras_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any, list[Any]]]:
    """Files, models, and the tensors that their taps must equal."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    pytest.importorskip("tf2onnx", reason="Keras exports to ONNX through tf2onnx")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    models = {}

    image = x = keras.Input((12, 11, 3))
    taps = [x := layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(6, 3, strides=2, padding="same")(x)))]
    taps += [x := layers.LeakyReLU()(layers.DepthwiseConv2D(3, padding="same")(x))]
    taps += [x := layers.PReLU(shared_axes=[1, 2], alpha_initializer="ones")(layers.LayerNormalization()(x))]
    taps += [x := layers.SeparableConv2D(5, 3, activation="swish")(x)]
    taps += [x := layers.ReLU(0.5)(layers.Dense(7)(layers.GlobalAveragePooling2D()(x)))]
    taps += [x := layers.Dense(7, activation=activation)(x) for activation in ("hard_sigmoid", "hard_silu", "mish")]
    taps += [x := layers.Dense(3)(x)]
    models["image"] = keras.Model([image], layers.Softmax()(x)), taps

    sequence = x = keras.Input((9, 4))
    taps = [x := layers.LSTM(6, return_sequences=True)(x)]
    taps += [x := layers.Conv1D(5, 3, activation="tanh")(x)]
    taps += [x := layers.Bidirectional(layers.LSTM(3))(x)]
    z = layers.Dense(1)(x)
    models["sequence"] = keras.Model([sequence], layers.Activation("sigmoid")(z)), [*taps, z]

    x = keras.Input((9, 4))
    taps = [y := layers.GRU(5)(x)]
    z = layers.Dense(3)(y)
    models["loop"] = keras.Model([x], z), [*taps, z]

    x = keras.Input((9, 4))
    y, state, _ = layers.LSTM(5, return_sequences=True, return_state=True)(x)
    z = layers.Dense(3)(layers.Concatenate()([layers.GlobalAveragePooling1D()(y), state]))
    models["states"] = keras.Model([x], z), [state, y, z]

    folder, exported = tmp_path_factory.mktemp("keras"), {}
    for name, (model, tensors) in models.items():
        path = folder / f"{name}.onnx"
        with exporting():
            model([np.zeros((1, *model.input_shape[1:]), np.float32)])
            model.export(path, format="onnx", verbose=False)
        exported[name] = path, model, tensors
    return exported


@pytest.mark.parametrize("name", ["image", "sequence", "loop", "states"])
def test_taps_of_a_keras_network(name: str, keras_models: dict[str, tuple[Path, Any, list[Any]]]) -> None:
    import keras

    path, original, tensors = keras_models[name]
    model = open_onnx(path)
    x = RNG.normal(size=(ROWS, *original.input_shape[1:])).astype(np.float32)
    tensors_there = [np.asarray(t) for t in keras.Model(original.inputs, tensors)([x])]
    check_taps(model, x, [g.mean(tuple(range(1, g.ndim - 1))) for g in tensors_there])
    scores = np.asarray(original([x]))
    if name == "image":
        assert model.input.layout == "channels_last"
        np.testing.assert_allclose(model.predict(x), scores, atol=1e-5)
    if name == "sequence":  # one sigmoid: two classes
        assert model.classes == 2
        np.testing.assert_allclose(model.predict(x), np.hstack([1 - scores, scores]), atol=1e-5)
        check_gradients(model, x, step=1e-2, tolerance=0.02)
    if name == "loop":
        check_gradients(model, x, step=1e-2, tolerance=0.02)


@pytest.mark.parametrize(
    ("victim", "widths"),
    [
        ("mnist_lenet5", [6, 16, 120, 84, 10]),
        ("cifar10_resnet20", [16] * 7 + [32] * 6 + [64] * 6 + [10]),
    ],
)
def test_the_authors_victims(victim: str, widths: list[int], tmp_path: Path) -> None:
    if not VICTIMS.exists():
        pytest.skip("the authors' victims are not on this machine")
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    pytest.importorskip("tf2onnx", reason="Keras exports to ONNX through tf2onnx")
    import keras
    from keras_models import taps_of

    original = keras.models.load_model(VICTIMS / f"{victim}.h5", compile=False)
    with exporting():
        original([np.zeros((1, *original.input_shape[1:]), np.float32)])
        original.export(tmp_path / "victim.onnx", format="onnx", verbose=False)
    model = open_onnx(tmp_path / "victim.onnx")
    assert list(model.layers.values()) == widths
    x = RNG.random((ROWS, *original.input_shape[1:]), dtype=np.float32)
    expected = [np.asarray(t) for t in keras.Model(original.inputs, taps_of(original))([x])]
    outputs = list(model.activations(x, list(model.layers)).values())
    for a, b in zip(outputs[:-1], expected, strict=True):
        np.testing.assert_allclose(a, b.mean(tuple(range(1, b.ndim - 1))), atol=1e-4)
    np.testing.assert_allclose(model.predict(x), original([x]), atol=1e-5)
    assert model.gradient(x, lambda s, rows: np.ones_like(s)).shape == x.shape


# ---- gradients -------------------------------------------------------------------------------------------------------


def test_gradients_in_double_precision() -> None:
    pytest.importorskip("onnx2fx", reason="onnx2fx is not installed: pip install 'deepjudge[torch]'")
    model = open_onnx(perceptron("float64"))
    x = random(ROWS, 4, dtype="float64")
    check_gradients(model, x, step=1e-2, tolerance=2e-4)
    # By hand.
    w = {tensor.name: numpy_helper.to_array(tensor) for tensor in perceptron("float64").graph.initializer}
    hidden = np.tanh(x @ w["W"] + w["b"])
    expected = ((w["V"].sum(1) * (1 - hidden**2)) @ w["W"].T).astype(np.float32)
    np.testing.assert_allclose(model.gradient(x, lambda s, rows: np.ones_like(s)), expected, rtol=1e-5)


def test_a_read_only_input_is_left_alone() -> None:
    pytest.importorskip("onnx2fx", reason="onnx2fx is not installed: pip install 'deepjudge[torch]'")
    model, x = open_onnx(perceptron()), random(ROWS, 4)
    before = x.copy()
    x.setflags(write=False)
    model.gradient(x, lambda s, rows: np.ones_like(s))
    model.predict(x)
    assert (x == before).all()


def test_a_conversion_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx2fx", reason="onnx2fx is not installed: pip install 'deepjudge[torch]'")
    from deepjudge_onnx.gradient import Differentiable

    forward = Differentiable.forward
    monkeypatch.setattr(Differentiable, "forward", lambda self, x: forward(self, x) + 0.01)
    with refused(ModelError, "'h'", "0.01"):
        open_onnx(perceptron()).gradient(random(ROWS, 4), lambda s, rows: s, layer="h")


def test_an_operation_that_cannot_be_converted_is_named() -> None:
    pytest.importorskip("onnx2fx", reason="onnx2fx is not installed: pip install 'deepjudge[torch]'")
    nodes = [
        node("TransposeMatMul", "x W", "a", domain="com.microsoft"),
        node("Relu", "a", "h"),
        node("MatMul", "h V", "y"),
    ]
    model = open_onnx(proto(nodes, {"W": random(4, 4), "V": random(4, 3)}), name="m")
    assert list(model.layers) == ["h", "y"]
    with refused(ModelError, "m: ", "TransposeMatMul"):
        model.gradient(random(ROWS, 4), lambda s, rows: s)


def test_weights_whose_names_are_one_in_python() -> None:
    pytest.importorskip("onnx2fx", reason="onnx2fx is not installed: pip install 'deepjudge[torch]'")
    nodes = [node("MatMul", "x a.b", "h"), node("MatMul", "h a_b", "t"), node("Mul", "t forward", "y")]
    model = open_onnx(proto(nodes, {"a.b": random(4, 4), "a_b": random(4, 3), "forward": random(3)}))
    check_gradients(model, random(ROWS, 4), step=1e-2, tolerance=1e-3)


def test_without_pytorch_there_are_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx2fx", None)
    model = open_onnx(perceptron(), name="m")
    assert model.access == Access.WHITE_BOX
    with refused(MissingExtraError, "m: ", "onnx2fx", "deepjudge[torch]"):
        model.gradient(random(ROWS, 4), lambda s, rows: s)


def test_no_gradients_through_quantised_operations() -> None:
    scale, zero = np.asarray(np.float32(0.05)), np.asarray(np.uint8(128))
    nodes = [
        node("QuantizeLinear", "x scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "d"),
        node("MatMul", "d W", "m"),
        node("Relu", "m", "h"),
        node("MatMul", "h V", "y"),
    ]
    model = open_onnx(proto(nodes, {"scale": scale, "zero": zero, "W": random(4, 6), "V": random(6, 3)}), name="m")
    assert model.access == Access.WHITE_BOX
    assert list(model.layers) == ["h", "y"]
    with refused(ModelError, "m: ", "QuantizeLinear"):
        model.gradient(random(ROWS, 4), lambda s, rows: s)


def test_a_relu_that_a_quantiser_dropped_is_a_tap() -> None:
    def opened(zero: int) -> Any:
        weights = {"scale": np.float32(0.01), "zero": np.uint8(zero), "W": random(4, 6), "b": random(6)}
        weights = {name: np.asarray(value) for name, value in weights.items()} | {"V": random(6, 3)}
        nodes = [
            node("Gemm", "x W b", "m"),
            node("QuantizeLinear", "m scale zero", "q"),
            node("DequantizeLinear", "q scale zero", "d"),
            node("MatMul", "d V", "y"),
        ]
        return open_onnx(proto(nodes, weights))

    model, x = opened(0), random(ROWS, 4)
    assert list(model.layers) == ["d", "y"]
    expected = (x @ random(4, 6) + random(6)).clip(0, 2.55)
    np.testing.assert_allclose(model.activations(x, ["d"])["d"], expected, atol=0.006)
    assert list(opened(128).layers) == ["y"]  # nothing is cut off at 0


# ---- graphs ----------------------------------------------------------------------------------------------------------


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3))
    x = torch.rand(1, 1, 5, 5)
    path = export_torch(module, x, tmp_path / "m.onnx", "old", dynamic_axes=None)
    model, x = open_onnx(path), torch.rand(ROWS, 1, 5, 5)
    check_taps(model, x.numpy(), hooked(module, ["1", "3"], x))
    check_gradients(model, x.numpy(), step=1e-2, tolerance=0.01)

    free, fixed = open_onnx(perceptron()), open_onnx(perceptron(shape=(3, 4)))
    y = random(ROWS, 4)
    np.testing.assert_allclose(fixed.predict(y), free.predict(y), atol=1e-6)
    np.testing.assert_allclose(
        fixed.gradient(y, lambda s, rows: s, layer="h"), free.gradient(y, lambda s, rows: s, layer="h"), atol=1e-6
    )


def test_a_graph_traced_for_one_row_takes_one_row() -> None:
    nodes = [node("Reshape", "x shape", "f"), node("MatMul", "f V", "y")]
    weights = {"shape": np.asarray([1, 8]), "V": random(8, 3)}
    model = open_onnx(proto(nodes, weights, shape=("n", 2, 4)))
    x = random(ROWS, 2, 4)
    (logits,) = model.activations(x, ["y"]).values()
    np.testing.assert_allclose(logits, x.reshape(ROWS, 8) @ weights["V"], atol=1e-5)


def test_batches_change_nothing() -> None:
    x = random(7, 4)
    for batch_size in (1, 3, 7):
        np.testing.assert_allclose(
            open_onnx(perceptron(), batch_size=batch_size).predict(x), open_onnx(perceptron()).predict(x), atol=1e-6
        )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_element_types(dtype: str) -> None:
    model = open_onnx(perceptron(dtype))
    assert model.input.dtype == dtype
    np.testing.assert_allclose(
        model.predict(random(ROWS, 4)), open_onnx(perceptron()).predict(random(ROWS, 4)), atol=5e-3
    )


def test_bytes_as_input() -> None:
    nodes = [node("Cast", "x", "f", to=TensorProto.FLOAT), node("MatMul", "f V", "y")]
    model = open_onnx(proto(nodes, {"V": random(4, 3)}, dtype=TensorProto.UINT8), name="m")
    assert (model.input.dtype, model.access) == ("uint8", Access.WHITE_BOX)
    with refused(ModelError, "m: ", "uint8"):
        model.gradient(np.ones((2, 4)), lambda s, rows: s)


def test_weights_among_the_inputs_are_no_inputs() -> None:
    model = perceptron()
    model.graph.input.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, (4, 6)))
    assert open_onnx(model).input.shape == (4,)


def test_the_output_is_that_of_a_softmax_or_the_one_asked_for() -> None:
    extra = [node("ArgMax", "l", "label", axis=1, keepdims=0), node("Identity", "l", "logits")]
    nodes = [node("MatMul", "x V", "l"), *extra, node("Softmax", "l", "y")]
    many = proto(nodes, {"V": random(4, 3)}, outputs=("label", "y", "logits"))
    x = random(ROWS, 4)
    first, second = open_onnx(many), open_onnx(many, output="logits")
    assert list(first.layers) == ["l"]
    assert first.digest == second.digest
    np.testing.assert_allclose(first.predict(x), second.predict(x), atol=1e-6)


@pytest.mark.parametrize("last", [node("Flatten", "p", "y"), node("Squeeze", "p axes", "y")])
def test_a_softmax_over_maps_of_one_pixel(last: Any) -> None:
    nodes = [
        node("Conv", "x K", "c"),
        node("Relu", "c", "h"),
        node("Conv", "h L", "l"),
        node("Softmax", "l", "p", axis=1),
    ]
    weights = {"K": random(5, 2, 3, 3), "L": random(3, 5, 2, 2), "axes": np.asarray([2, 3])}
    model = open_onnx(proto([*nodes, last], weights, shape=("n", 2, 4, 4)))
    assert model.layers == {"h": 5, "l": 3}
    x = random(ROWS, 2, 4, 4)
    (logits,) = model.activations(x, ["l"]).values()
    np.testing.assert_allclose(model.predict(x), softmax(logits), atol=1e-6)


def test_a_function_is_looked_into() -> None:
    imports = [helper.make_opsetid("", 17)]
    body = [node("MatMul", "a b", "c"), node("Relu", "c", "d")]
    function = helper.make_function("own", "Dense", ["a", "b"], ["d"], body, imports)
    nodes = [helper.make_node("Dense", ["x", "W"], ["h"], domain="own"), node("MatMul", "h V", "y")]
    model = open_onnx(proto(nodes, {"W": random(4, 6), "V": random(6, 3)}, functions=[function]))
    assert list(model.layers.values()) == [6, 3]


def test_activations_that_onnx_runtime_fused() -> None:
    nodes = [
        node("FusedConv", "x K", "c", domain="com.microsoft", activation="Relu"),
        node("Flatten", "c", "f"),
        node("FusedGemm", "f W", "g", domain="com.microsoft", activation="Relu"),
        node("MatMul", "g V", "y"),
    ]
    weights = {"K": random(5, 2, 3, 3), "W": random(20, 6), "V": random(6, 3)}
    model = open_onnx(proto(nodes, weights, shape=("n", 2, 4, 4)))
    assert model.layers == {"c": 5, "g": 6, "y": 3}
    assert model.input.layout == "channels_first"
    check_gradients(model, random(ROWS, 2, 4, 4), step=1e-3, tolerance=0.02)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ({"activation": "LeakyRelu", "activation_params": [0.3]}, lambda v: np.where(v > 0, v, 0.3 * v)),
        ({"activation": "Clip", "activation_params": [-0.5, 1.0]}, lambda v: v.clip(-0.5, 1)),
        ({"activation": "HardSigmoid", "activation_params": [0.1, 0.4]}, lambda v: (0.1 * v + 0.4).clip(0, 1)),
    ],
)
def test_parameters_and_summands_of_fused_activations(activation: dict[str, Any], function: Any) -> None:
    nodes = [
        node("Conv", "x K", "z"),
        node("FusedConv", "x K b z", "c", domain="com.microsoft", **activation),
        node("GlobalAveragePool", "c", "p"),
        node("Flatten", "p", "y"),
    ]
    weights = {"K": random(5, 2, 3, 3), "b": random(5)}
    model, x = open_onnx(proto(nodes, weights, shape=("n", 2, 4, 4))), random(ROWS, 2, 4, 4)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    convolved = np.einsum("nchwij,ocij->nohw", windows, weights["K"])
    expected = function(2 * convolved + weights["b"][:, None, None]).mean((2, 3))
    np.testing.assert_allclose(model.activations(x, ["c"])["c"], expected, rtol=1e-4, atol=1e-5)


def test_parameters_of_an_activation_fused_with_a_product() -> None:
    fused = node("FusedGemm", "x W", "h", domain="com.microsoft", activation="LeakyRelu", activation_alpha=0.3)
    model, x = (
        open_onnx(proto([fused, node("MatMul", "h V", "y")], {"W": random(4, 6), "V": random(6, 3)})),
        random(5, 4),
    )
    product = x @ random(4, 6)
    np.testing.assert_allclose(
        model.activations(x, ["h"])["h"], np.where(product > 0, product, 0.3 * product), atol=1e-5
    )


@pytest.mark.parametrize(
    "gelu",
    [
        node("Gelu", "a", "h", domain="com.microsoft"),
        node("BiasGelu", "a b", "h", domain="com.microsoft"),
        node("FastGelu", "a b", "h", domain="com.microsoft"),
        node("FastGelu", "a", "h", domain="com.microsoft"),
        node("QuickGelu", "a", "h", domain="com.microsoft"),
        node("QuickGelu", "a", "h", domain="com.microsoft", alpha=1.0),
    ],
)
def test_gradients_through_gelus_of_onnx_runtime(gelu: Any) -> None:
    pytest.importorskip("onnx2fx", reason="onnx2fx is not installed: pip install 'deepjudge[torch]'")
    nodes = [node("MatMul", "x W", "a"), gelu, node("MatMul", "h V", "y")]
    model = open_onnx(proto(nodes, {"W": random(4, 6), "b": random(6), "V": random(6, 3)}))
    assert model.layers == {"h": 6, "y": 3}
    check_gradients(model, random(ROWS, 4), step=1e-2, tolerance=1e-2)


def test_what_onnx_lacks_and_keras_writes() -> None:
    nodes = [
        node("MatMul", "x W", "a"),
        node("Mul", "a half", "h"),
        node("Neg", "a", "n"),
        node("Erfc", "n", "e"),
        node("Mul", "h e", "g"),
        node("MatMul", "g V", "y"),
    ]
    source = proto(nodes, {"W": random(4, 6), "half": np.asarray(np.float32(0.5)), "V": random(6, 3)})
    before = source.SerializeToString(deterministic=True)
    model, x = open_onnx(source), random(ROWS, 4)
    assert source.SerializeToString(deterministic=True) == before
    assert list(model.layers) == ["g", "y"]
    a = (x @ random(4, 6)).astype(float)
    np.testing.assert_allclose(model.activations(x, ["g"])["g"], a * scipy.special.erfc(-a) / 2, atol=1e-5)


@pytest.mark.parametrize("kinds", [("Sigmoid", "Log"), ("Neg", "Softplus", "Neg")])
def test_the_logarithm_of_a_sigmoid_is_one_activation(kinds: tuple[str, ...]) -> None:
    names = ["a", *kinds]
    steps = [node(kind, f"{before}{at}", f"{kind}{at + 1}") for at, (before, kind) in enumerate(pairwise(names))]
    nodes = [node("MatMul", "x W", "a0"), *steps, node("MatMul", f"{kinds[-1]}{len(kinds)} V", "y")]
    model = open_onnx(proto(nodes, {"W": random(4, 6), "V": random(6, 3)}))
    assert list(model.layers) == [f"{kinds[-1]}{len(kinds)}", "y"]


def test_convolutions_in_blocks_show_no_layers(tmp_path: Path) -> None:
    import onnxruntime

    nodes = [
        node("Conv", "x K", "z"),
        node("Relu", "z", "c"),
        node("GlobalAveragePool", "c", "p"),
        node("Flatten", "p", "y"),
    ]
    onnx.save(proto(nodes, {"K": random(8, 8, 3, 3)}, shape=("n", 8, 6, 6)), tmp_path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "o.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(tmp_path / "m.onnx", options, providers=["CPUExecutionProvider"])
    if "com.microsoft.nchwc" not in {n.domain for n in onnx.load(tmp_path / "o.onnx").graph.node}:
        pytest.skip("ONNX Runtime does not put tensors in blocks for this processor")
    plain, model = open_onnx(tmp_path / "m.onnx"), open_onnx(tmp_path / "o.onnx")
    assert model.access == Access.BLACK_BOX
    assert "com.microsoft.nchwc" in model.unseen
    x = random(ROWS, 8, 6, 6)
    np.testing.assert_allclose(model.predict(x), plain.predict(x), atol=1e-5)
    with refused(ModelError, "com.microsoft.nchwc"):
        model.gradient(x, lambda s, rows: s)


def test_rows_that_are_folded_into_another_axis() -> None:
    nodes = [
        node("Reshape", "x steps", "s"),  # (n, 3, 4) to (3n, 4)
        node("MatMul", "s W", "a"),
        node("Relu", "a", "h"),
        node("Reshape", "h rows", "r"),
        node("MatMul", "r V", "y"),
    ]
    weights = {"steps": np.asarray([-1, 4]), "rows": np.asarray([-1, 18]), "W": random(4, 6), "V": random(18, 2)}
    x = random(ROWS, 3, 4)
    hidden = np.maximum(x @ weights["W"], 0)
    expected = [hidden.mean(1), hidden.reshape(ROWS, 18) @ weights["V"]]
    for rows in ("n", 3):
        model = open_onnx(proto(nodes, weights, shape=(rows, 3, 4)))
        check_taps(model, x, expected)
        check_gradients(model, x, step=1e-3, tolerance=0.02)


def test_axes_of_any_length() -> None:
    nodes = [
        node("Conv", "x K", "c"),
        node("Relu", "c", "h"),
        node("GlobalAveragePool", "h", "p"),
        node("Flatten", "p", "y"),
    ]
    model = open_onnx(proto(nodes, {"K": random(3, 2, 3, 3)}, shape=("n", 2, "height", "width")))
    assert model.input.shape == (2, None, None)
    for size in (8, 11):
        assert model.predict(random(ROWS, 2, size, size)).shape == (ROWS, 3)


def test_an_input_of_another_shape_is_refused() -> None:
    with refused(ModelError, "m: ", "(5, 3)", "Got: 3 Expected: 4"):
        open_onnx(perceptron(), name="m").predict(random(ROWS, 3))


# ---- digests and files -----------------------------------------------------------------------------------------------


def test_digests(file: Path) -> None:
    assert open_onnx(file).digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert open_onnx(file).name == str(file)
    live = open_onnx(perceptron())
    assert live.digest == open_onnx(perceptron()).digest
    assert live.name == "ModelProto"
    changed = perceptron()
    changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(random(4, 6) + 1e-3, "W"))
    assert live.digest != open_onnx(changed).digest


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose weights lie in another file."""
    path = tmp_path / "external" / "model.onnx"
    path.parent.mkdir()
    onnx.save(perceptron(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data(external: Path) -> None:
    model = open_onnx(external)
    np.testing.assert_array_equal(model.predict(random(ROWS, 4)), open_onnx(perceptron()).predict(random(ROWS, 4)))
    weights = external.with_name("weights.bin")
    data = bytearray(weights.read_bytes())
    data[0] ^= 1
    weights.write_bytes(data)
    assert open_onnx(external).digest != model.digest


def test_external_data_that_cannot_be_had(external: Path) -> None:
    weights = external.with_name("weights.bin")
    weights.write_bytes(weights.read_bytes()[:8])
    with refused(ModelError, external, "weights.bin"):
        open_onnx(external)
    weights.unlink()
    with refused(ModelError, external, "weights.bin"):
        open_onnx(external)
    with refused(ModelError, "m: ", "external data"):
        open_onnx(onnx.load(external, load_external_data=False), name="m")


def test_external_data_elsewhere_is_refused(external: Path) -> None:
    external.with_name("weights.bin").rename(external.parents[1] / "weights.bin")
    model = onnx.load(external, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../weights.bin"
    external.write_bytes(model.SerializeToString())
    with refused(ModelError, external, "../weights.bin"):
        open_onnx(external)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda data: b"", "empty"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: b"PK\x03\x04 surely no model", "truncated"),
        (lambda data: b"import torch\n", "truncated"),
        (lambda data: onnx.ModelProto(ir_version=8).SerializeToString(), "operations"),
    ],
)
def test_bad_files(change: Callable[[bytes], bytes], fact: str, file: Path) -> None:
    file.write_bytes(change(file.read_bytes()))
    with refused(ModelError, file, fact):
        open_onnx(file)


def test_nothing_is_printed_of_a_damaged_file(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(file.read_bytes().replace(b"MatMul", b"MatMux"))
    with refused(ModelError, file, onnxruntime.__version__):
        open_onnx(file)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with refused(ModelError, "missing.onnx", os.strerror(errno.ENOENT)):
        open_onnx(tmp_path / "missing.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with refused(ModelError, "folder.onnx", os.strerror(errno.EISDIR)):
        open_onnx(tmp_path / "folder.onnx")


@pytest.mark.parametrize(
    ("model", "facts"),
    [
        (perceptron(inputs=("x", "z")), ("input", "2: x, z")),
        (perceptron(inputs=()), ("input", "0: none")),
        (perceptron(shape=("n",)), ("input (n, ...)", "1 axes")),
        (perceptron(outputs=()), ("output (n, classes)", "none")),
        (
            proto([node("ReduceMax", "x", "y", axes=[0], keepdims=0)], {}),
            ("output (n, classes)", "n = 2", "y (4,)"),
        ),
        (
            proto([node("Cast", "x", "y", to=1)], {}, dtype=TensorProto.BOOL),
            ("input", "float32, float16, float64, uint8, int32, int64", "bool"),
        ),
        (
            proto([node("Nonsense", "x", "y")], {}),
            (onnxruntime.__version__, "Nonsense"),
        ),
        (perceptron(shape=("n", "any")), ("(2, 32)",)),
    ],
)
def test_models_that_are_no_classifiers(model: Any, facts: tuple[str, ...]) -> None:
    with refused(ModelError, "m: ", *facts):
        open_onnx(model, name="m")


def test_an_output_that_is_not_there() -> None:
    with refused(ModelError, "m: ", "'z'", "y"):
        open_onnx(perceptron(), name="m", output="z")


# ---- the plugin ------------------------------------------------------------------------------------------------------


def test_live_models_are_told_by_their_names() -> None:
    assert ADAPTER.accepts(perceptron())
    assert not ADAPTER.accepts(perceptron().graph)
    assert not ADAPTER.accepts("model.onnx")
    assert ADAPTER.suffixes == (".onnx",)


def test_the_plugin_imports_no_framework() -> None:
    frameworks = ("onnx", "onnxruntime", "onnx2fx", "torch", "tensorflow", "keras")
    code = f"""
import sys, deepjudge_onnx
(adapter,) = deepjudge_onnx.deepjudge_adapters()
assert not adapter.accepts(object())
assert not set({frameworks}) & set(sys.modules), "imported"
sys.modules["onnxruntime"] = None
from pathlib import Path
try:
    adapter.open(Path("m.onnx"))
except Exception as error:
    assert type(error).__name__ == "MissingExtraError", error
    assert error.code == "missing-extra", error
    assert "m.onnx: " in str(error) and "deepjudge[onnx]" in str(error), error
else:
    raise AssertionError("opened")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_opening_and_predicting_need_no_pytorch(file: Path) -> None:
    code = f"""
import sys, numpy
from pathlib import Path
from deepjudge_onnx import deepjudge_adapters
(adapter,) = deepjudge_adapters()
adapter.open(Path({str(file)!r})).predict(numpy.zeros((2, 4)))
assert not {{"torch", "onnx2fx"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nobody_is_told_what_is_run(tmp_path: Path) -> None:
    code = "import deepjudge_onnx.model, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"
    assert list(tmp_path.iterdir()) == []

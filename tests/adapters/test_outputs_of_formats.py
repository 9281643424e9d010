"""Models of several outputs, in every format: which there are, what they are called, and each as the model's scores."""

import dataclasses
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import Zoo
from refusals import refused

from deepjudge_core import open_isolated, open_model
from deepjudge_core.components.opening import open_network
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import ModelError
from deepjudge_core.models.model import Model
from deepjudge_core.models.scores import softmax
from deepjudge_core.sandbox import landlock
from deepjudge_core.testing import check_model
from deepjudge_core.types import Array

ROWS, INPUTS, HIDDEN, CLASSES = 6, 5, 8, 3
Answer = Callable[[Any, Any, Any], Any]
"""Of the features, the logits and another task's probabilities what a module gives."""


def x() -> Array:
    return np.random.default_rng(0).normal(size=(ROWS, INPUTS)).astype(np.float32)


def weights() -> dict[str, Array]:
    rng = np.random.default_rng(1)
    shapes = {"a": (INPUTS, HIDDEN), "b": (HIDDEN, CLASSES), "c": (HIDDEN, CLASSES)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def expected() -> tuple[Array, Array, Array]:
    """Features, logits, and another task's probabilities."""
    w = weights()
    hidden = np.maximum(x() @ w["a"], 0)
    return hidden, hidden @ w["b"], softmax(hidden @ w["c"])


def expect_outputs(model: Model, names: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    """Its outputs are of these names and kinds: features, logits, other; each as the scores is what it should be."""
    hidden, logits, other = expected()
    answers = {"features": softmax(hidden), "logits": softmax(logits), "other": other}
    widths = {"features": HIDDEN, "logits": CLASSES, "other": CLASSES}
    outputs = model.outputs
    assert outputs is not None
    assert tuple(output.name for output in outputs.all) == names
    assert tuple(output.width for output in outputs.all) == tuple(widths.get(kind) for kind in kinds)
    assert [kinds[place] for place in outputs.tables] == [kind for kind in kinds if kind in widths]
    if "other" in kinds and not outputs.named:
        assert kinds[outputs.place] == "other"  # which a softmax gives
    for place in outputs.tables:
        one = model.with_output(place)
        assert one.outputs is not None
        assert (one.outputs.place, one.digest, one.name) == (place, model.digest, model.name)
        np.testing.assert_allclose(one.predict(x()), answers[kinds[place]], atol=1e-5)
    np.testing.assert_allclose(model.predict(x()), answers[kinds[outputs.place]], atol=1e-5)
    check_model(model, x())


# PyTorch.


@dataclasses.dataclass
class Given:
    features: Any
    logits: Any
    other: Any


Named = namedtuple("Named", "features logits other")


class Mapped(OrderedDict):  # type: ignore[type-arg]
    """As the libraries of transformers answer."""


def mapped(features: Any, logits: Any, other: Any) -> Any:
    answer = Mapped()
    answer["features"], answer["logits"], answer["other"] = features, logits, other
    return answer


ALL = ("features", "logits", "other")
ANSWERS: dict[str, tuple[Answer, tuple[str, ...], tuple[str, ...]]] = {
    "tuple": (lambda f, z, p: (f, z, p), ("", "", ""), ALL),
    "dict": (lambda f, z, p: {"features": f, "logits": z, "other": p}, ALL, ALL),
    "dataclass": (Given, ALL, ALL),
    "namedtuple": (Named, ALL, ALL),
    "mapping": (mapped, ALL, ALL),
    "nested": (lambda f, z, p: {"heads": [z, {"x": f}]}, ("heads.1", "heads.2.x"), ("logits", "features")),
    "attention": (lambda f, z, p: (f[:, None] * f[..., None], z), ("", ""), ("attention", "logits")),
    "label": (lambda f, z, p: (z.argmax(1), z.argmax(1, keepdim=True), z), ("", "", ""), ("label", "label", "logits")),
    "none": (lambda f, z, p: {"loss": None, "logits": z}, ("logits",), ("logits",)),
}


def module(answer: Answer, *, export: bool = True) -> Any:
    torch = pytest.importorskip("torch")

    class Heads(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            for name, matrix in weights().items():
                layer = torch.nn.Linear(*matrix.shape, bias=False)
                layer.load_state_dict({"weight": torch.tensor(matrix.T)})
                setattr(self, name, layer)
            self.act = torch.nn.ReLU()

        def forward(self, x: Any) -> Any:
            if not export and float(x.detach().abs().max()) > 1e9:  # which torch.export does not take
                x = x * 1
            hidden = self.act(self.a(x))
            return answer(hidden, self.b(hidden), self.c(hidden).softmax(1))

    return Heads().eval()


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("export", [True, False])
def test_live_modules(kind: str, export: bool, registry: Registry) -> None:
    answer, names, kinds = ANSWERS[kind]
    model = open_model(module(answer, export=export), registry=registry, input_shape=(INPUTS,))
    expect_outputs(model, names, kinds)
    assert (type(model).__name__ == "TorchModel") == export


def test_programs_in_files(tmp_path: Path, registry: Registry) -> None:
    torch = pytest.importorskip("torch")
    rows = ({0: torch.export.Dim("rows")},)
    for kind in ("tuple", "dict", "nested"):
        answer, names, kinds = ANSWERS[kind]
        program = torch.export.export(module(answer), (torch.zeros(4, INPUTS),), dynamic_shapes=rows)
        torch.export.save(program, tmp_path / f"{kind}.pt2")
        expect_outputs(open_model(tmp_path / f"{kind}.pt2", registry=registry), names, kinds)


def test_scripts(tmp_path: Path, registry: Registry) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(module(lambda f, z, p: (f, z, p)), torch.zeros(4, INPUTS))
        traced.save(tmp_path / "traced.pt")
    expect_outputs(open_model(tmp_path / "traced.pt", registry=registry), ("", "", ""), ALL)


@pytest.mark.filterwarnings("ignore:.*its layers cannot be seen:UserWarning")
def test_a_script_that_is_run_as_it_is(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from deepjudge_torch import script

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(script, "_by_converter", fail)
    monkeypatch.setattr(script, "_by_tracing", fail)
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(module(lambda f, z, p: (f, z, p)), torch.zeros(4, INPUTS))
    expect_outputs(open_model(traced, registry=registry, input_shape=(INPUTS,)), ("", "", ""), ALL)


def test_a_file_of_weights(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    net = module(Given)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    monkeypatch.setattr("deepjudge_torch.state_dict.make_module", lambda name, arch: module(Given))
    model = open_model(tmp_path / "w.pth", registry=registry, arch="nets:Given", input_shape=(INPUTS,), output="logits")
    expect_outputs(model, ALL, ALL)
    assert model.classes == CLASSES


# ONNX.


def onnx_model() -> Any:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["features"]),
        helper.make_node("MatMul", ["features", "b"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
        helper.make_node("MatMul", ["features", "c"], ["d"]),
        helper.make_node("Softmax", ["d"], ["other"], axis=1),
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in ("label", "features", "logits", "other")]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", INPUTS])
    graph = helper.make_graph(
        nodes, "heads", [given], outputs, [numpy_helper.from_array(w, n) for n, w in weights().items()]
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    for output in model.graph.output:
        kind = TensorProto.INT64 if output.name == "label" else TensorProto.FLOAT
        output.type.tensor_type.elem_type = kind
    return model


ONNX = (("label", "features", "logits", "other"), ("label", *ALL))


def test_onnx(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx_model().SerializeToString())
    expect_outputs(open_model(tmp_path / "m.onnx", registry=registry), *ONNX)
    for choice, place in (("logits", 2), ("3", 2), (3, 2), ("features", 1)):
        model = open_model(tmp_path / "m.onnx", registry=registry, output=choice)
        assert model.outputs is not None
        assert (model.outputs.place, model.outputs.named) == (place, True)
    with refused(ModelError, "output 1 of 4 ('label')", "int64"):
        open_model(tmp_path / "m.onnx", registry=registry, output=1)
    with refused(ModelError, "'output_name'", "'output'"):
        open_model(tmp_path / "m.onnx", registry=registry, output_name="logits")


# Keras.


def keras_model(form: str) -> Any:
    keras = pytest.importorskip("keras")
    layers, w = keras.layers, weights()
    given = keras.Input((INPUTS,))
    first = layers.Dense(HIDDEN, activation="relu", use_bias=False, name="features")
    second = layers.Dense(CLASSES, use_bias=False, name="logits")
    third = layers.Dense(CLASSES, activation="softmax", use_bias=False, name="other")
    hidden = first(given)
    answers = [hidden, second(hidden), third(hidden)]
    model = keras.Model(given, answers if form == "list" else dict(zip("zyx", answers, strict=True)))
    for layer, name in ((first, "a"), (second, "b"), (third, "c")):
        layer.set_weights([w[name]])
    return model


# What Keras says where it saves.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("form", ["list", "dict"])
def test_keras(form: str, tmp_path: Path, registry: Registry) -> None:
    model = keras_model(form)
    names, kinds = (ALL, ALL) if form == "list" else (("x", "y", "z"), ALL[::-1])
    expect_outputs(open_model(model, registry=registry), names, kinds)
    model.save(tmp_path / "m.keras")
    expect_outputs(open_model(tmp_path / "m.keras", registry=registry), names, kinds)
    model.export(tmp_path / "saved", verbose=False)
    signature = tuple(f"output_{place}" for place in range(3)) if form == "list" else names
    expect_outputs(open_model(tmp_path / "saved", registry=registry), signature, kinds)
    if form == "list":
        with warnings.catch_warnings(action="ignore"):
            model.save(tmp_path / "m.h5")
        expect_outputs(open_model(tmp_path / "m.h5", registry=registry, output="logits"), names, kinds)


# Networks that are trained.


@pytest.mark.parametrize("kind", ["torch", "keras", "onnx"])
def test_a_network_is_trained_at_the_output_that_is_named(kind: str, registry: Registry) -> None:
    make = {"torch": lambda: module(ANSWERS["tuple"][0]), "keras": lambda: keras_model("list"), "onnx": onnx_model}
    options = {"input_shape": (INPUTS,)} if kind == "torch" else {}
    place = 3 if kind == "onnx" else 2
    network = open_network(make[kind](), registry=registry, output=place, **options)
    np.testing.assert_allclose(network.predict(x()), softmax(expected()[1]), atol=1e-5)
    assert network.architecture.with_classes(CLASSES + 2).classes == CLASSES + 2


# In another process.


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.skipif(landlock.version() == 0, reason="this system has no Landlock")
@pytest.mark.parametrize("kind", ["onnx", "torch", "keras"])
def test_in_a_sandbox(kind: str, tmp_path: Path, registry: Registry) -> None:
    if kind == "onnx":
        path = tmp_path / "m.onnx"
        path.write_bytes(onnx_model().SerializeToString())
        said = ONNX
    elif kind == "torch":
        torch = pytest.importorskip("torch")
        path, said = tmp_path / "m.pt2", (ALL, ALL)
        rows = ({0: torch.export.Dim("rows")},)
        torch.export.save(
            torch.export.export(module(ANSWERS["dict"][0]), (torch.zeros(4, INPUTS),), dynamic_shapes=rows), path
        )
    else:
        path, said = tmp_path / "m.keras", (ALL, ALL)
        keras_model("list").save(path)
    with open_isolated(path, registry=registry) as model:
        expect_outputs(model, *said)
    with open_isolated(path, registry=registry, output="logits") as model:
        assert (model.outputs is not None, model.classes) == (True, CLASSES)
    with refused(ModelError, "'nothing'", "logits (n, 3)", code="cannot-open"):  # noqa: SIM117 - raised on entering
        with open_isolated(path, registry=registry, output="nothing"):
            pass


def test_one_output_is_said_to_be_one(zoo: Zoo, registry: Registry) -> None:
    model = open_model(zoo.source("onnx-legacy", 0), registry=registry)
    assert model.outputs is not None
    assert not model.outputs.several
    assert model.with_output(0) is model
    with refused(ModelError, "outputs"):
        model.with_output(1)

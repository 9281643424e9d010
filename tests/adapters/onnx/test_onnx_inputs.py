"""What ONNX models take and give in practice: free axes, several inputs, words, forests, dictionaries of scores."""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused

onnx: Any = pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'deepjudge[onnx]'")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'deepjudge[onnx]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_exports import exporting  # noqa: E402

from deepjudge_core import InputSpec, Subject, load_registry, observe, open_isolated  # noqa: E402
from deepjudge_core.auditing.audit import make_suite  # noqa: E402
from deepjudge_core.auditing.session import Session  # noqa: E402
from deepjudge_core.components.opening import open_model  # noqa: E402
from deepjudge_core.components.registry import Registry  # noqa: E402
from deepjudge_core.errors import InputError, ModelError  # noqa: E402
from deepjudge_core.models.model import Access, Model  # noqa: E402
from deepjudge_core.models.scores import softmax  # noqa: E402
from deepjudge_core.sandbox import landlock  # noqa: E402
from deepjudge_core.suites.inputs import Inputs  # noqa: E402
from deepjudge_core.suites.settings import SuiteSettings  # noqa: E402
from deepjudge_core.testing import check_model  # noqa: E402
from deepjudge_core.types import Array  # noqa: E402

RNG = np.random.default_rng(0)
Axes = Sequence[int | str | None]


def opened(model: Any, shape: tuple[int, ...] | None = None, **options: Any) -> Model:
    return open_model(model, name="m", expected=None if shape is None else InputSpec(shape), **options)


def graph(
    nodes: Sequence[Any],
    weights: Mapping[str, Array],
    inputs: Mapping[str, tuple[int, Axes]],
    outputs: Sequence[str] = ("y",),
    domains: Sequence[tuple[str, int]] = (("", 17), ("ai.onnx.ml", 3)),
) -> Any:
    body = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, axes) for name, (kind, axes) in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid(*one) for one in domains], ir_version=8)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


# Free axes.


@cache
def exported(kind: str, axes: tuple[tuple[int, str], ...], shape: tuple[int, ...]) -> bytes:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    parts = {
        "dense": [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)],
        "pooled": [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)],
        "sound": [nn.Conv1d(1, 4, 400, stride=160), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)],
    }
    file = io.BytesIO()
    with exporting():
        torch.onnx.export(
            nn.Sequential(*parts[kind]).eval(),
            (torch.zeros(2, *shape),),
            file,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
            dynamo=False,
            opset_version=17,
        )
    model = onnx.load_from_string(file.getvalue())
    for axis, name in axes:
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    data: bytes = model.SerializeToString()
    return data


ALL = ((1, "num_channels"), (2, "height"), (3, "width"))
MAP = ((2, "height"), (3, "width"))


@pytest.mark.parametrize(
    ("kind", "free", "shape", "expected", "spec"),
    [
        ("dense", ALL, (1, 8, 8), (1, 8, 8), (1, 8, 8)),
        ("dense", ALL, (1, 8, 8), (8, 8, 1), (1, 8, 8)),
        ("dense", ALL, (1, 8, 8), (8, 8), (1, 8, 8)),
        ("dense", ALL, (1, 8, 8), (64,), (1, 8, 8)),
        ("dense", MAP, (1, 8, 8), (1, 8, 8), (1, 8, 8)),
        ("dense", MAP, (1, 8, 8), None, (1, 8, 8)),
        ("dense", (), (1, 8, 8), (3, 5, 5), (1, 8, 8)),
        ("pooled", ALL, (3, 9, 9), (3, 33, 21), (3, None, None)),
        ("pooled", ALL, (3, 9, 9), None, (3, None, None)),
        ("pooled", MAP, (3, 9, 9), (1, 8, 8), (3, None, None)),
        ("sound", ((2, "t"),), (1, 4000), (1, 700), (1, None)),
        ("sound", ((2, "t"),), (1, 4000), None, (1, None)),
    ],
)
def test_free_axes(
    kind: str,
    free: tuple[tuple[int, str], ...],
    shape: tuple[int, ...],
    expected: tuple[int, ...] | None,
    spec: tuple[int | None, ...],
) -> None:
    plain, model = (onnx.load_from_string(exported(kind, axes, shape)) for axes in ((), free))
    one = opened(model, expected)
    assert one.input.shape == spec
    x = RNG.random((3, *shape), np.float32)
    np.testing.assert_allclose(one.predict(x), opened(plain).predict(x), atol=1e-6)
    check_model(one, x)


def test_a_model_of_any_length_gets_batches_that_memory_holds() -> None:
    model = opened(onnx.load_from_string(exported("pooled", MAP, (3, 9, 9))))
    rows: list[int] = []
    run = model.forward  # type: ignore[attr-defined]
    model.forward = lambda x, layers: rows.append(len(x)) or run(x, layers)  # type: ignore[attr-defined]
    model.predict(np.zeros((20, 3, 300, 300), np.float32))
    assert max(rows) * 3 * 300 * 300 <= 2**20
    model.predict(np.zeros((20, 3, 9, 9), np.float32))
    assert rows[-1] == 20


def test_a_model_that_takes_no_usual_length_is_refused_for_the_one_that_was_expected() -> None:
    model = graph([node("MatMul", "x W", "y")], {"W": normal(77, 3)}, {"x": (TensorProto.FLOAT, ("n", "any"))})
    assert opened(model, (77,)).input.shape == (77,)
    with refused(ModelError, "m: ", "(2, 76)"):
        opened(model, (76,))


# Dictionaries of probabilities, labels, forests.


def classifier(classes: int, *, names: bool) -> Any:
    labels: dict[str, Any] = (
        {"classlabels_strings": [f"c{i}" for i in range(classes)]} if names else {"classlabels_int64s": range(classes)}
    )
    nodes = [
        node("Gemm", "x W b", "l"),
        node("Softmax", "l", "p", axis=1),
        node("ArgMax", "p", "label", axis=1, keepdims=0),
        node("ZipMap", "p", "output_probability", domain="ai.onnx.ml", **labels),
    ]
    weights = {"W": normal(4, classes), "b": normal(classes)}
    return graph(nodes, weights, {"x": (TensorProto.FLOAT, ("n", 4))}, ["label", "output_probability"])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("names", [False, True])
def test_dictionaries_are_looked_through(classes: int, names: bool) -> None:
    model = opened(classifier(classes, names=names))
    x = normal(5, 4)
    np.testing.assert_allclose(model.predict(x), softmax(x @ normal(4, classes) + normal(classes)), atol=1e-6)
    assert model.outputs is not None
    assert [(one.name, one.width) for one in model.outputs.all] == [("label", None), ("output_probability", classes)]
    assert list(model.layers) == ["l"]
    check_model(model, x)
    named = opened(classifier(classes, names=names), output="output_probability")
    np.testing.assert_array_equal(named.predict(x), model.predict(x))


def forest(classes: int) -> Any:
    pytest.importorskip("sklearn")
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.ensemble import RandomForestClassifier

    x = np.random.default_rng(1).random((90, 4), np.float32)
    y = (x[:, 0] * classes).astype(int)
    trained = RandomForestClassifier(5, random_state=0).fit(x, y)
    return skl2onnx.to_onnx(trained, x[:1]), trained, x


@pytest.mark.parametrize("classes", [2, 3])
def test_forests_have_predictions_alone(classes: int) -> None:
    proto, trained, x = forest(classes)
    model = opened(proto)
    np.testing.assert_allclose(model.predict(x), trained.predict_proba(x), atol=1e-5)
    assert model.access is Access.BLACK_BOX
    assert "TreeEnsembleClassifier" in str(model.unseen)
    with refused(ModelError, "m: ", "TreeEnsembleClassifier"):
        model.gradient(x, lambda scores, rows: scores)
    check_model(model, x)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64])
def test_the_scaling_of_pipelines_has_gradients(kind: int) -> None:
    offset, scale = [1.0, 2.0, 0.5, -1.0], [0.5, 2.0, 1.0, 3.0]
    nodes = [
        node("Scaler", "x", "s", domain="ai.onnx.ml", offset=offset, scale=scale),
        node("MatMul", "s W", "a"),
        node("Tanh", "a", "h"),
        node("MatMul", "h V", "y"),
    ]
    model = opened(graph(nodes, {"W": normal(4, 5), "V": normal(5, 3)}, {"x": (kind, ("n", 4))}))
    x = np.round(2 * normal(5, 4))
    logits = np.tanh((x - offset) * scale @ normal(4, 5)) @ normal(5, 3)
    np.testing.assert_allclose(model.predict(x), softmax(logits), atol=1e-5)
    assert list(model.layers) == ["h", "y"]
    check_model(model, x)


# Several inputs.


def gated(state: Axes = ("n", 3), rate: Axes = (), x: Axes = ("n", 4)) -> Any:
    """y = relu(x W) + state if the rate is 16000, else 0."""
    nodes = [
        node("MatMul", "x W", "a"),
        node("Relu", "a", "h"),
        node("Add", "h state", "s"),
        node("Equal", "sr right", "e"),
        node("Cast", "e", "f", to=TensorProto.FLOAT),
        node("Mul", "s f", "y"),
    ]
    weights = {"W": normal(4, 3), "right": np.array(16000)}
    inputs = {"x": (TensorProto.FLOAT, x), "state": (TensorProto.FLOAT, state), "sr": (TensorProto.INT64, rate)}
    return graph(nodes, weights, inputs)


@pytest.mark.parametrize("state", [("n", 3), (None, 3), ("other", 3), (1, 3), (3,)])
@pytest.mark.parametrize("rate", [(), (1,)])
def test_numbers_in_the_place_of_inputs(state: Axes, rate: Axes) -> None:
    model = opened(gated(state, rate), fix={"state": 0.25, "sr": 16000})
    x = normal(5, 4)
    np.testing.assert_allclose(model.predict(x), softmax(np.maximum(x @ normal(4, 3), 0) + 0.25), atol=1e-6)
    assert model.fixed == {"state": 0.25, "sr": 16000}
    assert list(model.layers.values()) == [3, 3]
    check_model(model, x)


def masked(axes: Axes, mask: Axes) -> Any:
    """The mean of the embeddings of the words that a mask lets through."""
    nodes = [
        node("Gather", "table ids", "e"),
        node("Cast", "mask", "m", to=TensorProto.FLOAT),
        node("Unsqueeze", "m last", "w"),
        node("Mul", "e w", "k"),
        node("ReduceMean", "k", "h", axes=[1], keepdims=0),
        node("Relu", "h", "r"),
        node("MatMul", "r V", "y"),
    ]
    weights = {"table": normal(50, 6), "V": normal(6, 3), "last": np.array([-1])}
    return graph(nodes, weights, {"ids": (TensorProto.INT64, axes), "mask": (TensorProto.INT64, mask)})


def words(n: int, length: int = 7) -> Array:
    return np.random.default_rng(3).integers(0, 50, (n, length)).astype(np.float32)


@pytest.mark.parametrize(
    ("axes", "mask"),
    [(("b", "s"), ("b", "s")), ((None, None), (None, None)), (("b", 7), ("b", 7)), (("b", "s"), (1, "s"))],
)
def test_words_and_a_mask_as_long_as_they_are(axes: Axes, mask: Axes) -> None:
    model = opened(masked(axes, mask), (7,), fix={"mask": 1})
    x = words(5)
    hidden = np.maximum(normal(50, 6)[x.astype(int)].mean(axis=1), 0)
    np.testing.assert_allclose(model.predict(x), softmax(hidden @ normal(6, 3)), atol=1e-6)
    tap = list(model.layers)[-2]
    np.testing.assert_allclose(model.activations(x, [tap])[tap], hidden, atol=1e-6)
    assert (model.input.dtype, model.input.counts, model.access) == ("int64", True, Access.WHITE_BOX)
    with refused(ModelError, "m: ", "int64"):
        model.gradient(x, lambda scores, rows: scores)
    check_model(model, x)


@pytest.mark.parametrize(
    ("fix", "facts"),
    [
        ({}, ("3: x, state, sr", "fix=")),
        ({"state": 0}, ("2: x, sr",)),
        ({"state": 0, "sr": 1, "x": 1}, ("0: none",)),
        ({"stat": 0}, ("'stat'", "x, state, sr")),
        ({"state": 0, "sr": 0.5}, ("'sr'", "int64", "0.5")),
    ],
)
def test_inputs_that_cannot_be_fixed(fix: dict[str, float], facts: tuple[str, ...]) -> None:
    with refused(ModelError, "m: ", *facts):
        opened(gated(), fix=fix)


def test_models_of_other_formats_have_no_inputs_to_fix() -> None:
    torch = pytest.importorskip("torch")
    with refused(ModelError, "'fix'"):
        open_model(torch.nn.Linear(4, 3), input_shape=(4,), fix={"x": 1})


# The whole way.


def labelled_words() -> Inputs:
    x = words(400)
    y = opened(masked(("b", 7), ("b", 7)), fix={"mask": 1}).predict(x).argmax(axis=1)
    y[::5] = (y[::5] + 1) % 3  # for mistakes
    return Inputs(x, y, (0.0, 49.0))


def test_a_suite_of_words(tmp_path: Path) -> None:
    onnx.save(masked(("b", "s"), ("b", "s")), tmp_path / "victim.onnx")
    session = Session(load_registry(), sandbox=None)
    settings = SuiteSettings(n=50, generators=("mistakes",))
    victim = Subject.of(tmp_path / "victim.onnx", options={"fix": {"mask": 1}})
    suite = make_suite(victim, labelled_words(), settings, session=session)
    assert (suite.cases.inputs % 1 == 0).all()
    assert any("mask = 1" in note for note in suite.notes)
    observation = observe(opened(masked(("b", 7), ("b", 7)), fix={"mask": 1}), suite)
    np.testing.assert_allclose(observation.probabilities, suite.victim.probabilities, atol=1e-6)
    assert any("mask = 1" in note for note in observation.notes)
    assert not observation.tried
    with refused(ModelError, "int64"):
        make_suite(victim, labelled_words(), SuiteSettings(n=50, generators=("pgd",)), session=session)


@pytest.mark.parametrize(("add", "facts"), [(0.5, ("whole numbers",)), (2**24, (2**24,))])
def test_words_that_a_suite_cannot_hold(add: float, facts: tuple[object, ...]) -> None:
    model, inputs = opened(masked(("b", 7), ("b", 7)), fix={"mask": 1}), labelled_words()
    limits = (0.0, float(2**24 + 50))
    with refused(InputError, "m: ", *facts):
        make_suite(Subject.of(model), Inputs(inputs.x.astype(np.float64) + add, inputs.y, limits), SuiteSettings(n=50))


@pytest.mark.skipif(not landlock.version(), reason="no Landlock on this system")
def test_a_process_of_its_own_is_told_shape_and_numbers(tmp_path: Path, registry: Registry) -> None:
    onnx.save(masked(("b", "s"), ("b", "s")), tmp_path / "m.onnx")
    x = words(5, 9)
    for output in (None, "y"):
        options = {"fix": {"mask": 1}, "output": output}
        with open_isolated(tmp_path / "m.onnx", registry=registry, expected=InputSpec((9,)), **options) as model:
            assert (model.fixed, model.input) == ({"mask": 1}, InputSpec((None,), "int64"))
            here = opened(masked(("b", "s"), ("b", "s")), **options)
            np.testing.assert_array_equal(model.predict(x), here.predict(x))


# Gradients.


def test_a_conversion_is_compared_on_the_inputs_that_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx2fx")
    from deepjudge_onnx import gradient

    seen: list[Array] = []
    forward = gradient.Differentiable.forward
    monkeypatch.setattr(gradient.Differentiable, "forward", lambda self, x: seen.append(x) or forward(self, x))
    model = opened(classifier(3, names=False))
    x = 100 + normal(1, 4)
    model.gradient(x, lambda scores, rows: scores)
    assert {len(one) for one in seen} == {2, 3}
    assert all((one == x).all() for one in seen)


def test_what_is_as_good_as_nothing_may_differ_in_all_digits() -> None:
    pytest.importorskip("onnx2fx")
    nodes = [
        node("MatMul", "x W", "a"),
        node("Unsqueeze", "x last", "u"),
        node("Mul", "u W", "p"),
        node("ReduceSum", "p first", "s", keepdims=0),
        node("Sub", "a s", "d"),  # rounding alone
        node("Tanh", "d", "t"),
        node("Add", "a t", "y"),
    ]
    weights = {"W": normal(64, 3), "last": np.array([2]), "first": np.array([1])}
    model = opened(graph(nodes, weights, {"x": (TensorProto.FLOAT, ("n", 64))}))
    x = normal(5, 64)
    tap = next(iter(model.layers))
    values = model.activations(x, [tap])[tap]
    assert 0 < np.abs(values).max() < 1e-5
    assert np.isfinite(model.gradient(x, lambda scores, rows: np.ones_like(scores), layer=tap)).all()

"""OpenVINO's adapter: how models are run, what is said of those that are not, and what a file may hold."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'deepjudge[openvino]'")

from deepjudge_openvino.runtime import openvino
from hostile import irs
from hostile.ground import Case, Place
from networks import formats, paddle
from networks.architectures import ARCHITECTURES
from refusals import refused

from deepjudge_core import Access, InputSpec, open_model
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import MissingExtraError, ModelError

opset = openvino.opset15

# These have no file that can be made here, or take what a process may have.
_SANDBOXED = ("linked", "pipe", "terabytes", "weights of nothing")
PLAIN = {
    name: case
    for name, case in (irs.IRS | irs.FROZEN | irs.PADDLE | irs.REFUSED).items()
    if not any(word in name for word in _SANDBOXED)
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_no_converter_writes_is_refused(name: str, registry: Registry, tmp_path: Path) -> None:
    path = make(PLAIN[name], tmp_path)
    words = (PLAIN[name].words,) if PLAIN[name].words else ()
    with refused(ModelError, f"{path}: ", *words):
        open_model(path, registry=registry)


def make(case: Case, folder: Path) -> Path:
    path = folder / case.file
    case.make(Place(path, folder / "marker", folder / "canary"))
    return path


def save(folder: Path, output: Any, source: Any, **options: Any) -> Path:
    path = folder / "m.xml"
    openvino.save_model(openvino.Model([output], [source]), path, compress_to_fp16=False, **options)
    return path


# How it computes


def wide(folder: Path) -> tuple[Path, np.ndarray]:
    """A layer whose answers tell float32 from less, and its weights."""
    weights = np.random.default_rng(0).normal(size=(4, 512)).astype(np.float32)
    x = opset.parameter([-1, 512], openvino.Type.f32)
    return save(folder, opset.matmul(x, opset.constant(weights), False, True), x), weights


def test_it_computes_in_float32_on_every_processor(registry: Registry, tmp_path: Path) -> None:
    path, weights = wide(tmp_path)
    model, x = open_model(path, registry=registry), np.random.default_rng(1).normal(size=(64, 512)).astype(np.float32)
    [logits] = model.activations(x, list(model.layers)).values()
    np.testing.assert_allclose(logits, x @ weights.T, atol=1e-4)  # bfloat16 is off by 0.1


def test_it_answers_alike_each_time_and_in_batches_of_any_size(registry: Registry, tmp_path: Path) -> None:
    path, _ = wide(tmp_path)
    x = np.random.default_rng(1).normal(size=(64, 512)).astype(np.float32)
    answers = [open_model(path, registry=registry, batch_size=size).predict(x) for size in (64, 64, 7)]
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_allclose(answers[0], answers[2], atol=1e-6)


def test_weights_of_8_bits_do_not_round_what_they_are_multiplied_by(registry: Registry, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 127, (4, 512)).astype(np.int8)
    x = opset.parameter([-1, 512], openvino.Type.f32)
    real = opset.multiply(opset.convert(opset.constant(weights), "f32"), opset.constant(np.float32(0.01)))
    model = open_model(save(tmp_path, opset.matmul(x, real, False, True), x), registry=registry)
    rows = rng.normal(size=(8, 512)).astype(np.float32)
    [logits] = model.activations(rows, list(model.layers)).values()
    np.testing.assert_allclose(logits, rows @ (weights * np.float32(0.01)).T, atol=1e-3)


def test_nothing_is_told_to_anybody() -> None:
    code = "import sys; import deepjudge_openvino.runtime; sys.exit('openvino_telemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_model_remembers_is_forgotten_before_each_batch(registry: Registry, tmp_path: Path) -> None:
    x = opset.parameter([-1, 3], openvino.Type.f32)
    info = openvino.op.util.VariableInfo()
    info.data_shape, info.data_type, info.variable_id = openvino.PartialShape([1, 3]), openvino.Type.f32, "sum"
    variable = openvino.op.util.Variable(info)
    before = openvino.opset15.read_value(opset.constant(np.zeros((1, 3), np.float32)), variable)
    total = opset.add(before, opset.reduce_sum(x, opset.constant([0]), True))
    path = tmp_path / "m.xml"
    model = openvino.Model([opset.add(x, total).output(0)], [opset.assign(total, variable)], [x])
    openvino.save_model(model, path, compress_to_fp16=False)
    opened, rows = open_model(path, registry=registry), np.random.default_rng(0).random((4, 3), np.float32)
    np.testing.assert_array_equal(opened.predict(rows), opened.predict(rows))


# What it sees


@pytest.mark.parametrize(
    "function",
    [
        *(opset.relu, opset.hswish, opset.hsigmoid, opset.mish, opset.softplus, opset.softsign, opset.tanh),
        lambda x: opset.elu(x, 1.0),
        lambda x: opset.gelu(x, "erf"),
        lambda x: opset.gelu(x, "tanh"),
        lambda x: opset.clamp(x, 0.0, 6.0),
        lambda x: opset.swish(x, opset.constant(np.float32(1.5))),
        lambda x: opset.selu(x, opset.constant(np.float32(1.67326)), opset.constant(np.float32(1.0507))),
        lambda x: opset.hard_sigmoid(x, opset.constant(np.float32(1 / 6)), opset.constant(np.float32(0.5))),
        lambda x: opset.prelu(x, opset.constant(np.linspace(0.1, 0.5, 6, dtype=np.float32))),
        lambda x: opset.maximum(x, opset.constant(np.float32(0))),
        # A hard sigmoid whose shift stands in the bias before it.
        lambda x: opset.multiply(opset.clamp(x, 0.0, 6.0), opset.constant(np.float32(1 / 6))),
        lambda x: opset.multiply(x, opset.sigmoid(x)),
        lambda x: opset.multiply(x, opset.tanh(opset.log(opset.add(opset.exp(x), opset.constant(np.float32(1)))))),
        lambda x: opset.power(opset.relu(x), opset.constant(np.float32(2))),
    ],
)
def test_an_activation_is_one_tap_however_it_is_written(function: Any, registry: Registry, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = opset.parameter([-1, 4], openvino.Type.f32)
    hidden = function(opset.matmul(x, opset.constant(rng.normal(size=(6, 4)).astype(np.float32)), False, True))
    output = opset.matmul(hidden, opset.constant(rng.normal(size=(3, 6)).astype(np.float32)), False, True)
    model = open_model(save(tmp_path, output, x), registry=registry)
    assert list(model.layers.values()) == [6, 3]
    rows = rng.normal(size=(5, 4)).astype(np.float32)
    [first, _] = model.activations(rows, list(model.layers)).values()
    expected = openvino.Core().compile_model(openvino.Model([hidden], [x]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(first, expected(rows)[0], atol=1e-5)


def test_a_limit_that_no_number_reaches_is_no_tap(registry: Registry, tmp_path: Path) -> None:
    x = opset.parameter([-1, 4], openvino.Type.f32)
    hidden = opset.clamp(opset.matmul(x, opset.constant(np.eye(4, dtype=np.float32)), False, False), -1e9, 1e9)
    output = opset.matmul(hidden, opset.constant(np.ones((4, 3), np.float32)), False, False)
    assert list(open_model(save(tmp_path, output, x), registry=registry).layers.values()) == [3]


def test_names_do_not_depend_on_what_was_opened_before(registry: Registry, tmp_path: Path) -> None:
    path = paddle.write("dense", 0, tmp_path / "m")
    first = list(open_model(path, registry=registry).layers)
    paddle.write("conv2d", 0, tmp_path / "other")
    open_model(tmp_path / "other.pdmodel", registry=registry)
    assert list(open_model(path, registry=registry).layers) == first


def test_layers_in_a_choice_by_the_input_are_not_seen(registry: Registry, tmp_path: Path) -> None:
    x = opset.parameter([-1, 3], openvino.Type.f32)
    positive = opset.greater(opset.reduce_sum(x, opset.constant([0, 1]), False), opset.constant(np.float32(0)))
    choice = opset.if_op(positive.output(0))
    bodies = []
    for function in (opset.relu, opset.tanh):
        inner = opset.parameter([-1, 3], openvino.Type.f32)
        bodies.append((openvino.Model([function(inner)], [inner]), inner))
    (then, first), (other, second) = bodies
    choice.set_then_body(then)
    choice.set_else_body(other)
    choice.set_input(x.output(0), first, second)
    output = choice.set_output(then.get_results()[0], other.get_results()[0])
    model = open_model(save(tmp_path, opset.multiply(output, opset.constant(np.float32(2))), x), registry=registry)
    assert Access.LAYERS not in model.access
    assert "If" in (model.unseen or "")


def test_axes_of_any_length_are_tried_as_the_inputs_have_them(registry: Registry, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    module = formats.live("conv2d", 0, tmp_path)
    x = ARCHITECTURES["conv2d"].inputs(4)
    with warnings.catch_warnings():  # TorchScript's, which OpenVINO's converter traces with
        warnings.simplefilter("ignore")
        openvino.save_model(
            openvino.convert_model(module, example_input=formats._example("conv2d", 2)), tmp_path / "m.xml"
        )
    model = open_model(tmp_path / "m.xml", registry=registry, expected=InputSpec((3, 8, 8)))
    reference = open_model(module, registry=registry, input_shape=(3, 8, 8))
    assert tuple(model.layers.values()) == tuple(reference.layers.values())
    np.testing.assert_allclose(model.predict(x), reference.predict(x), atol=1e-2)  # weights of float16


@pytest.mark.parametrize("axes", [(-1, 5, 1, 1), (-1, 1, 1, 5), (-1,)])
def test_scores_may_have_axes_of_one_place_or_none(axes: tuple[int, ...], registry: Registry, tmp_path: Path) -> None:
    rng, width = np.random.default_rng(0), 5 if len(axes) > 1 else 1
    weights = rng.normal(size=(width, 4)).astype(np.float32)
    x = opset.parameter([-1, 4], openvino.Type.f32)
    scores = opset.matmul(x, opset.constant(weights), False, True)
    model = open_model(
        save(tmp_path, opset.reshape(scores, opset.constant(np.array(axes)), False), x), registry=registry
    )
    rows = rng.normal(size=(6, 4)).astype(np.float32)
    [logits] = model.activations(rows, list(model.layers)).values()
    assert model.classes == max(width, 2)
    np.testing.assert_allclose(logits, rows @ weights.T, atol=1e-5)


# What is said


def test_no_gradients(registry: Registry, tmp_path: Path) -> None:
    model = open_model(paddle.write("dense", 0, tmp_path / "m"), registry=registry)
    assert Access.GRADIENTS not in model.access
    with refused(ModelError, "m.pdmodel: ", "no gradients", "OpenVINO"):
        model.gradient(ARCHITECTURES["dense"].inputs(2), lambda scores, rows: scores)


def test_a_missing_openvino_is_one_line(registry: Registry, tmp_path: Path) -> None:
    path = make(irs.BENIGN["IR: an honest one"], tmp_path)
    gone = {name: None for name in sys.modules if name.startswith("deepjudge_openvino.") and "files" not in name}
    with mock.patch.dict(sys.modules, {**gone, "openvino": None}):
        for name in gone:
            del sys.modules[name]
        with refused(MissingExtraError, f"{path}: ", "deepjudge[openvino]"):
            open_model(path, registry=registry)


def test_two_inputs(registry: Registry, tmp_path: Path) -> None:
    x, y = (opset.parameter([-1, 3], openvino.Type.f32, name=name) for name in "xy")
    openvino.save_model(openvino.Model([opset.add(x, y)], [x, y]), tmp_path / "m.xml")
    with refused(ModelError, "m.xml: ", "one input", "found 2", "x, y"):
        open_model(tmp_path / "m.xml", registry=registry)


def test_an_output_is_named_as_the_file_has_it(registry: Registry, tmp_path: Path) -> None:
    x = opset.parameter([-1, 3], openvino.Type.f32)
    outputs = [opset.relu(x).output(0), opset.softmax(x, 1).output(0)]
    for output, name in zip(outputs, ("features", "scores"), strict=True):
        output.set_names({name})
    openvino.save_model(openvino.Model(outputs, [x]), tmp_path / "m.xml")
    model = open_model(tmp_path / "m.xml", registry=registry)
    assert model.outputs is not None
    assert [output.name for output in model.outputs.all] == ["features", "scores"]
    assert model.outputs.place == 1
    assert open_model(tmp_path / "m.xml", registry=registry, output="features").outputs.place == 0  # type: ignore[union-attr]
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(model.with_output(0).activations(rows, ["features"])["features"], np.maximum(rows, 0))


def test_the_weights_beside_a_model_are_part_of_its_digest(registry: Registry, tmp_path: Path) -> None:
    path = paddle.write("dense", 0, tmp_path / "m")
    before = open_model(path, registry=registry)
    paddle.write("dense", 1, tmp_path / "m")
    after = open_model(path, registry=registry)
    assert set(before.files) == {"m.pdmodel", "m.pdiparams"}
    assert before.files["m.pdmodel"] == after.files["m.pdmodel"]
    assert before.digest != after.digest

"""What a model's outputs are: probabilities, logits and log-probabilities, in whatever order the classes stand."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import scipy.special
import toys
from refusals import refused

from deepjudge_core import (
    JudgeSettings,
    ModelFile,
    Observation,
    QuerySettings,
    Suite,
    build_suite,
    calibrate,
    load_observation,
    measure,
    observe,
    open_model,
    save_observation,
    select_seeds,
)
from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.models.asking import ask
from deepjudge_core.models.resolution import divided, slack
from deepjudge_core.models.scores import Scores
from deepjudge_core.observing.classes import class_order
from deepjudge_core.report.audit_json import dump_report, schema
from deepjudge_core.testing import check_model
from deepjudge_core.types import Array


def log_softmax(z: Array) -> Array:
    return np.asarray(scipy.special.log_softmax(z.astype(np.float64), axis=1), np.float32)


class Handmade(toys.NumpyModel):
    """A model whose graph shows no softmax, as an adapter would present it: its last tap is its output."""

    logarithm = False

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        names = [self.logits] if layers is None else list(layers)
        outputs = super().forward(x, names)
        return [self.output(a) if name == self.logits else a for name, a in zip(names, outputs, strict=True)]

    def mixed(self, x: Array, layer: str, order: Array) -> Array:
        return self.output(super().mixed(x, layer, order))

    def output(self, z: Array) -> Array:
        return log_softmax(z) if self.logarithm else np.exp(log_softmax(z))

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        def through(z: Array) -> Array:
            y = self.output(z).astype(np.float64)
            c = cotangent(y.astype(np.float32)).astype(np.float64)
            p = np.exp(log_softmax(z)).astype(np.float64)
            return c - p * c.sum(axis=1, keepdims=True) if self.logarithm else y * (c - (y * c).sum(1, keepdims=True))

        return super().backward(x, through if layer == self.logits else cotangent, layer)


class Logarithms(Handmade):
    """Its output is log-probabilities."""

    logarithm = True


def pair(kind: type[Handmade], **options: int) -> tuple[toys.NumpyModel, Handmade]:
    plain = toys.make_model()
    return plain, kind(plain.weights, toys.SHAPE, **options)


X = np.random.default_rng(0).random((9, *toys.SHAPE), dtype=np.float32)


@pytest.mark.parametrize("batch", [{}, {"batch_size": 4}, {"fixed_batch": 4}])
@pytest.mark.parametrize("kind", [Handmade, Logarithms])
def test_outputs_that_the_graph_does_not_tell_keep_the_contract(kind: type[Handmade], batch: dict[str, int]) -> None:
    check_model(pair(kind, **batch)[1], X)


def _predict(model: toys.NumpyModel) -> Array:
    return model.predict(X)


def _tap(model: toys.NumpyModel) -> Array:
    return log_softmax(model.activations(X, ["dense1", "logits"])["logits"])


def _gradient(model: toys.NumpyModel) -> Array:
    # Of the cross entropy, which is the same for logits and for log-probabilities.
    onehot = np.eye(toys.CLASSES)[np.arange(len(X)) % toys.CLASSES]
    return model.gradient(X, lambda z, rows: np.exp(log_softmax(z)) - onehot[rows])


def _gradient_at_the_tap(model: toys.NumpyModel) -> Array:
    weights = np.array([1.0, -1.0, 0.0, 0.0])  # of a margin
    return model.gradient(X, lambda z, rows: np.tile(weights, (len(z), 1)), layer="logits")


QUESTIONS = [_predict, _tap, _gradient, _gradient_at_the_tap]


@pytest.mark.parametrize("first", QUESTIONS)
@pytest.mark.parametrize("kind", [Handmade, Logarithms])
def test_they_answer_as_the_logits_do_whatever_is_asked_first(
    kind: type[Handmade], first: Callable[[toys.NumpyModel], Array]
) -> None:
    plain, other = pair(kind)
    for question in [first, *QUESTIONS]:
        np.testing.assert_allclose(question(other), question(plain), atol=1e-5, rtol=1e-4)


def test_an_onnx_model_with_a_softmax_written_by_hand_keeps_the_contract(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for module in ("onnxruntime", "onnx2fx"):
        pytest.importorskip(module)
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, value = [], [], "x"
    for place, (matrix, bias) in enumerate(toys.make_model().weights):
        for name, array in (("w", matrix), ("b", bias)):
            constants.append(numpy_helper.from_array(array.astype(np.float32), f"{name}{place}"))
        nodes.append(helper.make_node("Gemm", [value, f"w{place}", f"b{place}"], [f"z{place}"]))
        nodes += [helper.make_node("Relu", [f"z{place}"], [f"r{place}"])] if place < 2 else []
        value = f"r{place}"
    constants.append(numpy_helper.from_array(np.array([1]), "axes"))
    nodes += [
        helper.make_node("Exp", ["z2"], ["e"]),
        helper.make_node("ReduceSum", ["e", "axes"], ["s"]),
        helper.make_node("Div", ["e", "s"], ["p"]),
    ]
    x, p = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 12), ("p", 4)))
    graph = helper.make_graph(nodes, "toy", [x], [p], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    model = open_model(tmp_path / "m.onnx")
    check_model(model, X)
    np.testing.assert_allclose(model.predict(X), toys.make_model().predict(X), atol=1e-6)
    np.testing.assert_allclose(_gradient(model), _gradient(toys.make_model()), atol=1e-5)  # type: ignore[arg-type]


def test_hidden_taps_stay_as_they_are() -> None:
    plain, other = pair(Handmade)
    np.testing.assert_array_equal(
        other.activations(X, ["dense2"])["dense2"], plain.activations(X, ["dense2"])["dense2"]
    )
    ones = lambda scores, rows: np.ones_like(scores)  # noqa: E731
    np.testing.assert_array_equal(other.gradient(X, ones, layer="dense2"), plain.gradient(X, ones, layer="dense2"))


def test_a_probability_of_0_has_a_logarithm_and_no_gradient() -> None:
    *hidden, (matrix, bias) = toys.make_model().weights
    other = Handmade([*hidden, (matrix * 1000, bias * 1000)], toys.SHAPE)
    least = other.predict(X) < 1e-29
    assert least.any()
    assert np.isfinite(other.activations(X, ["logits"])["logits"]).all()
    assert np.isfinite(other.gradient(X, lambda z, rows: np.ones_like(z))).all()
    onto_zero = least.astype(float)
    np.testing.assert_array_equal(other.gradient(X, lambda z, rows: onto_zero[rows]), np.zeros_like(X))


def test_the_victim_with_its_softmax_written_by_hand_is_the_victim() -> None:
    observation = observe(pair(Handmade)[1], toys.suite())
    np.testing.assert_allclose(observation.probabilities, toys.suite().victim.probabilities, atol=1e-6)


def test_logits_that_look_like_probabilities_in_one_row_only_are_logits() -> None:
    matrix = np.eye(4) * 3
    model = toys.NumpyModel([(matrix, np.zeros(4))], (4,))
    x = np.array([[1 / 3, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0.5, 0]], np.float32)
    np.testing.assert_allclose(model.predict(x), scipy.special.softmax(x * 3, axis=1), atol=1e-6)


def test_probabilities_that_are_none_later_are_refused() -> None:
    class Fickle(Handmade):
        def output(self, z: Array) -> Array:
            return super().output(z) * (1 if len(z) == len(X) else 2)

    model = Fickle(toys.make_model().weights, toys.SHAPE, name="fickle")
    model.predict(X)
    with refused(ModelError, "fickle: ", "probabilities"):
        model.predict(X[:2])


def test_whole_numbers_are_rounded_for_a_model_that_takes_them() -> None:
    model = toys.NumpyModel([(np.eye(4), np.zeros(4))], (4,))
    model.input = type(model.input)((4,), "uint8")
    near = np.array([[2.9999, 1.0001, 0, 5]], np.float32)
    np.testing.assert_array_equal(model.activations(near, ["logits"])["logits"], [[3, 1, 0, 5]])


# One probability.


class OneProbability(toys.NumpyModel):
    """A model of one output whose graph tells nothing of it: p = sigmoid(z), or z itself."""

    def __init__(self, weights: Sequence[tuple[Array, Array]], *, visible: bool = False, **options: int) -> None:
        super().__init__(weights, toys.SHAPE, name="one", **options)
        # As an adapter says.
        self._scores, self._gives_probabilities = Scores.UNKNOWN, None
        self.visible = visible

    def output(self, z: Array) -> Array:
        return z if self.visible else scipy.special.expit(z.astype(np.float64)).astype(np.float32)

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        names = [self.logits] if layers is None else list(layers)
        outputs = super().forward(x, names)
        return [self.output(a) if name == self.logits else a for name, a in zip(names, outputs, strict=True)]

    def mixed(self, x: Array, layer: str, order: Array) -> Array:
        return self.output(super().mixed(x, layer, order))

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        def through(z: Array) -> Array:
            p = self.output(z)
            return cotangent(p) * (1 if self.visible else p * (1 - p))

        return super().backward(x, through if layer == self.logits else cotangent, layer)


def one(scale: float = 1, shift: float = 0, **options: Any) -> tuple[toys.NumpyModel, OneProbability]:
    """A model that says that its output is a logit, and one of the same weights that says nothing."""
    *hidden, (matrix, bias) = toys.make_model(3, classes=1).weights
    hidden_only = toys.NumpyModel([*hidden, (matrix, bias)], toys.SHAPE)
    middle = np.median(hidden_only.activations(X, ["logits"])["logits"])
    weights = [*hidden, (matrix * scale, (bias - middle) * scale + shift)]
    return toys.NumpyModel(weights, toys.SHAPE), OneProbability(weights, **options)


ONE_QUESTIONS: list[Callable[[toys.NumpyModel], Array]] = [
    lambda model: model.predict(X),
    lambda model: model.activations(X, ["logits"])["logits"],
    lambda model: model.gradient(X, lambda z, rows: scipy.special.softmax(z, axis=1) - [[1, 0]]),
    lambda model: model.gradient(X, lambda z, rows: np.ones_like(z), layer="logits"),
]


@pytest.mark.parametrize("options", [{}, {"batch_size": 4}, {"fixed_batch": 4}, {"fixed_batch": 1}])
@pytest.mark.parametrize("first", ONE_QUESTIONS)
@pytest.mark.parametrize("shift", [0, 4, -4])  # answers on both sides of 0.5, and on one
def test_one_probability_answers_as_the_logit_does(
    first: Callable[[toys.NumpyModel], Array], options: dict[str, int], shift: float
) -> None:
    plain, other = one(shift=shift, **options)
    for question in [first, *ONE_QUESTIONS]:
        np.testing.assert_allclose(question(other), question(plain), atol=1e-4, rtol=1e-3)
    p = other.predict(X)
    np.testing.assert_array_equal(p[:, 1:], other.output(super(OneProbability, other).forward(X, ["logits"])[0]))
    assert (p[:, 0] + p[:, 1] == 1).all()


def test_one_probability_keeps_the_contract() -> None:
    check_model(one()[1], X)
    check_model(one(shift=3)[1], X)


@pytest.mark.parametrize("rows", [1, 9])
def test_a_logit_that_lies_in_0_to_1_is_a_logit(rows: int) -> None:
    plain, other = one(scale=0.01, shift=0.7, visible=True)
    z = plain.activations(X, ["logits"])["logits"]
    assert ((z > 0.5) & (z < 1)).all()
    np.testing.assert_array_equal(other.predict(X[:rows]), plain.predict(X[:rows]))


def test_a_logit_that_an_adapter_knows_is_one_whatever_its_values() -> None:
    plain = one(scale=0.01, shift=0.5)[0]
    z = plain.activations(X, ["logits"])["logits"]
    assert ((z > 0) & (z < 1)).all()
    np.testing.assert_allclose(plain.predict(X)[:, 1:], scipy.special.expit(z), atol=1e-6)


def test_what_nothing_tells_is_refused() -> None:
    class Narrow(OneProbability):
        def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
            if np.abs(x).max() > 5:
                raise ValueError("out of range")
            return super().forward(x, layers)

    with refused(ModelError, "one: "):
        Narrow(one(shift=4)[1].weights).predict(X)
    assert Narrow(one()[1].weights).predict(X).shape == (9, 2)


def test_one_probability_that_is_none_later_is_refused() -> None:
    class Fickle(OneProbability):
        def output(self, z: Array) -> Array:
            return super().output(z) * (1 if len(z) == len(X) else 3)

    model = Fickle(one()[1].weights)
    model.predict(X)
    for question in (model.predict, lambda x: model.activations(x, ["logits"])):
        with refused(ModelError, "one: ", "probabilities"):
            question(X[:8])


def test_saturated_probabilities_have_logits_and_no_gradient() -> None:
    model = one(scale=1000)[1]
    p = model.predict(X)[:, 1]
    assert {0.0, 1.0} <= set(p.tolist())
    assert np.isfinite(model.activations(X, ["logits"])["logits"]).all()
    gradient = model.gradient(X, lambda z, rows: np.ones_like(z))
    assert np.isfinite(gradient).all()
    assert not gradient[(p == 0) | (p == 1)].any()


# Low resolution.


def rounded(p: Array, steps: int) -> Array:
    return np.asarray(np.rint(p.astype(np.float64) * steps) / steps, np.float32)


def bfloat16(p: Array) -> Array:
    return (np.ascontiguousarray(p, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


SMOOTH = toys.make_model().predict(np.random.default_rng(1).random((200, *toys.SHAPE), dtype=np.float32))


@pytest.mark.parametrize(
    ("p", "tolerance"),
    [
        (rounded(SMOOTH, 100), 0.02),
        (rounded(SMOOTH, 127), 4 / 254),
        (rounded(SMOOTH, 255), 4 / 510),
        (rounded(SMOOTH, 256), 4 / 512),
        (rounded(SMOOTH, 1000), 0.002),
        (bfloat16(SMOOTH), 2**-7),
        (SMOOTH, 0),
        (np.full((1, 4), np.nan), 0),
        (np.zeros((3, 1000)), 0.5),
    ],
)
def test_how_far_sums_may_be_off_by_the_resolution(p: Array, tolerance: float) -> None:
    assert slack(p) == pytest.approx(tolerance, abs=8e-3 if tolerance < 8e-3 and tolerance else 1e-9)


def test_rows_are_divided_where_their_resolution_allows_it() -> None:
    for coarse in (rounded(SMOOTH, 100), rounded(SMOOTH, 256), bfloat16(SMOOTH)):
        sums = coarse.sum(axis=1)
        assert np.abs(sums - 1).max() > 2e-3
        quotients = divided(coarse)
        np.testing.assert_allclose(quotients.sum(axis=1), 1, atol=1.1e-3)
        np.testing.assert_allclose(quotients, SMOOTH, atol=0.02)
    assert divided(SMOOTH) is SMOOTH
    for other in (SMOOTH * 1.01, rounded(SMOOTH, 256) + 0.25, -rounded(SMOOTH, 100)):
        np.testing.assert_array_equal(divided(other), other)


class Coarse(Handmade):
    """Its answers are rounded; what it says of them is set."""

    says = Scores.UNKNOWN
    steps = 100

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._scores = self.says

    def output(self, z: Array) -> Array:
        return rounded(np.exp(log_softmax(z)), self.steps)


class Quantised(Coarse):
    """As a graph that ends in a quantised softmax: the last tap is in front of it."""

    says = Scores.PROBABILITIES
    steps = 256

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gives_probabilities = False

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        return super().forward(x, None) if layers is None else toys.NumpyModel.forward(self, x, layers)


class ManyLabels(Quantised):
    """A sigmoid for each of several labels, whose sum happens to be near 1."""

    says = Scores.SIGMOIDS


@pytest.mark.parametrize("kind", [Coarse, Quantised])
@pytest.mark.parametrize("layers", [{}, {"dense2": "dense2"}])
def test_rounded_probabilities_are_answers(kind: type[Coarse], layers: dict[str, str]) -> None:
    plain, other = pair(kind)
    x = np.random.default_rng(2).random((60, *toys.SHAPE), dtype=np.float32)
    raw = other.output(plain.activations(x, ["logits"])["logits"])
    assert np.abs(raw.sum(axis=1) - 1).max() > 1e-3
    probabilities, _ = ask(other, x, layers)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1.1e-3)
    np.testing.assert_allclose(probabilities, plain.predict(x), atol=0.02)
    observe(other, toys.suite())


def test_sigmoids_of_many_labels_are_no_probabilities_of_classes() -> None:
    model = pair(ManyLabels)[1]
    x = np.random.default_rng(2).random((60, *toys.SHAPE), dtype=np.float32)
    raw = model.output(pair(Handmade)[0].activations(x, ["logits"])["logits"])
    np.testing.assert_array_equal(model.predict(x), raw)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_other_sums_are_refused_still(factor: float) -> None:
    class Wrong(Quantised):
        def output(self, z: Array) -> Array:
            return np.exp(log_softmax(z)) * np.float32(factor)

    with refused(ModelError, code="bad-answer"):
        ask(pair(Wrong)[1], X, {})


# The order of the classes.

ORDER = (2, 0, 3, 1)  # the model's own class for each of the victim's
STRICT = {"rule": "nearest"}


def victim(noise: float = 0) -> toys.NumpyModel:
    """One that gives every class to some inputs; the noise makes copies."""
    return toys.make_model(17, noise=noise)


@functools.cache
def suite(*layers: str) -> Suite:
    """As the toys', with enough seeds of each class, and controls that have learnt the task."""
    x, y = toys.make_inputs(victim(), 1000)
    seeds = select_seeds(victim(), x, y, n=80, order="balanced")
    return build_suite(victim(), seeds, ["shove", "poke"], layers=layers or None, registry=toys.registry())


def reordered(model: toys.NumpyModel, order: Sequence[int] = ORDER) -> toys.NumpyModel:
    """The same with its outputs in another order: the victim's class c is its class order[c]."""
    *hidden, (matrix, bias) = model.weights
    places = np.argsort(order)
    return toys.NumpyModel([*hidden, (matrix[:, places], bias[places])], toys.SHAPE, name=f"{model.name}, reordered")


def honest(seed: int) -> toys.NumpyModel:
    """Made otherwise than the victim, for the same task: a least-squares fit to its classes from random features."""
    rng = np.random.default_rng(seed)
    x = rng.random((4000, *toys.SHAPE))
    matrix, bias = toys.make_model(100 + seed, widths=(400,)).weights[0]
    features = np.maximum(x @ matrix + bias, 0)
    labels = victim().predict(x).argmax(axis=1)
    weights = 1 / np.sqrt(np.bincount(labels)[labels])[:, None]  # all classes count alike
    fit = np.linalg.lstsq(np.c_[features, np.ones(len(x))] * weights, np.eye(4)[labels] * weights, rcond=None)[0] * 8
    return toys.NumpyModel([(matrix, bias), (fit[:-1], fit[-1])], toys.SHAPE, name=f"honest-{seed}")


@functools.cache
def calibration() -> Calibration:
    return calibrate(suite(), [observe(honest(seed), suite()) for seed in range(1, 6)], registry=toys.registry())


def test_a_copy_with_its_classes_in_another_order_is_the_victim() -> None:
    observation = observe(reordered(victim()), suite())
    assert (observation.classes, observation.inferred) == (ORDER, ("classes",))
    [note] = observation.notes
    assert note.endswith("inferred from its answers to the seeds: 0 is its 2, 1 is its 0, 2 is its 3, 3 is its 1")
    np.testing.assert_allclose(observation.probabilities, suite().victim.probabilities, atol=1e-6)
    assert all(
        m.value == pytest.approx(0, abs=1e-6) for m in measure(suite(), observation, registry=toys.registry()).values()
    )


def test_the_order_of_the_logits_is_put_right_too() -> None:
    both = suite("dense2", "logits")
    observation = observe(reordered(victim()), both)
    for layer in ("dense2", "logits"):
        np.testing.assert_allclose(observation.activations[layer], both.victim.activations[layer], atol=1e-5)


def test_an_honest_model_with_its_classes_in_another_order_is_judged_as_it_is_without() -> None:
    plain, other = (observe(model, suite()) for model in (honest(9), reordered(honest(9))))
    assert (plain.classes, plain.inferred, other.classes) == (None, (), ORDER)
    np.testing.assert_allclose(plain.probabilities, other.probabilities, atol=1e-6)
    models = [honest(9), reordered(honest(9)), victim(0.02), reordered(victim(0.02))]
    report = toys.outcome(
        suite(), calibration(), models, JudgeSettings(["answers", "surety"], **STRICT), registry=toys.registry()
    )
    assert [str(s.decision) for s in report.suspects] == ["independent", "independent", "copy", "copy"]
    values = json.loads(dump_report(report))
    jsonschema.validate(values, schema())
    assert [s["classes"] for s in values["suspects"]] == [None, list(ORDER), None, list(ORDER)]
    assert [s["inferred"] for s in values["suspects"]] == [[], ["classes"], [], ["classes"]]
    assert all(s["accuracy_on_seeds"] > 0.8 for s in values["suspects"])


def test_a_control_with_its_classes_in_another_order_is_the_same_control() -> None:
    observations = [observe(model, suite()) for model in (honest(1), reordered(honest(1)))]
    calibration = calibrate(suite(), observations, registry=toys.registry())
    assert calibration.notes == ("honest-1, reordered: is the same model as honest-1, counted once",)


def answered(counts: dict[int, list[int]]) -> tuple[np.ndarray, np.ndarray]:
    labels = [label for label, own in counts.items() for _ in own]
    return np.array([answer for own in counts.values() for answer in own]), np.array(labels)


@pytest.mark.parametrize(
    ("counts", "order", "renamed"),
    [
        ({0: [0] * 9, 1: [1] * 9, 2: [2] * 9}, None, ()),
        ({0: [1] * 9, 1: [0] * 9, 2: [2] * 9}, (1, 0, 2), (0, 1)),
        ({0: [1] * 5 + [0] * 4, 1: [0] * 9, 2: [2, 0, 1]}, (1, 0, 2), (0, 1)),
        # Few seeds of each class, enough of all.
        ({0: [1] * 4, 1: [0] * 4, 2: [2] * 9}, (1, 0, 2), ()),
        ({0: [1], 1: [2], 2: [0] * 9}, (1, 2, 0), (2,)),
        # No more than half; fewer than 5 in all; no seeds of a class.
        ({0: [1] * 5 + [0] * 5, 1: [0] * 9, 2: [2] * 9}, None, (1,)),
        ({0: [1] * 2, 1: [0] * 2, 2: [2] * 9}, None, ()),
        ({0: [1] * 9, 1: [], 2: [2] * 9}, None, (0,)),
        # An error that all seeds of a class share.
        ({0: [1] * 9, 1: [1] * 9, 2: [2] * 9}, None, (0,)),
        ({0: [2] * 9, 1: [2] * 9, 2: [2] * 9}, None, (0, 1)),
    ],
)
def test_when_an_order_is_found(
    counts: dict[int, list[int]], order: tuple[int, ...] | None, renamed: tuple[int, ...]
) -> None:
    assert class_order(*answered(counts), 3) == (order, renamed)


def test_an_order_that_is_in_doubt_is_said() -> None:
    *hidden, (matrix, bias) = victim().weights
    both = toys.NumpyModel([*hidden, (matrix[:, [0, 1, 1, 3]], bias[[0, 1, 1, 3]] + [0, 0, -0.1, 0])], toys.SHAPE)
    # Its class 1 is the victim's, and most inputs of class 3 are given to it as well.
    both.weights[-1][1][3] -= 100
    observation = observe(both, suite(), QuerySettings(infer=False))
    assert (observation.classes, observation.inferred) == (None, ())
    [note] = [note for note in observation.notes if "preprocessing" not in note]
    assert note.endswith(
        "get another class, but the answers show no consistent order of all classes; if the order differs, "
        "give it with QuerySettings(classes=...)"
    )


# Other classes.


def widened(model: toys.NumpyModel, classes: int) -> toys.NumpyModel:
    """The same with outputs for classes that the victim does not have in front."""
    *hidden, (matrix, bias) = model.weights
    more = classes - len(bias)
    last = (np.pad(matrix, ((0, 0), (more, 0))), np.r_[np.zeros(more), bias])
    return toys.NumpyModel([*hidden, last], toys.SHAPE, name="widened")


def test_other_classes_are_compared_by_layers_only(tmp_path: Path) -> None:
    observation = observe(widened(victim(), 6), suite())
    assert observation.probabilities is None
    save_observation(tmp_path / "o", observation)
    measurements = measure(suite(), load_observation(tmp_path / "o"), registry=toys.registry())
    for name in ("answers", "surety"):
        assert (measurements[name].value, measurements[name].failed, measurements[name].allowed) == (None, False, True)
        assert measurements[name].reason == "expected 4 classes, found 6; map them with QuerySettings(classes=...)"
    assert measurements["outputs"].value == 0
    report = toys.outcome(suite(), calibration(), [observation], JudgeSettings(**STRICT), registry=toys.registry())
    [suspect] = json.loads(dump_report(report))["suspects"]
    jsonschema.validate(json.loads(dump_report(report)), schema())
    assert (suspect["accuracy_on_seeds"], suspect["settings"]["black-box"]["decision"]) == (None, "inconclusive")


def test_controls_of_other_classes() -> None:
    observations = [observe(widened(honest(seed), 5), suite()) for seed in (1, 1, 2)]
    again = dataclasses.replace(observations[1], model=dataclasses.replace(observations[1].model, digest="f" * 64))
    calibration = calibrate(
        suite(), [observations[0], observations[1], again, observations[2]], registry=toys.registry()
    )
    assert (len(calibration.controls), len(calibration.notes)) == (3, 1)
    assert "map them with QuerySettings(classes=...)" in calibration.shortage("surety")


@pytest.mark.parametrize("classes", [4, 6])
def test_mapped_classes(classes: int, tmp_path: Path) -> None:
    columns = tuple(range(classes - 4, classes))
    observation = observe(widened(victim(), classes), suite(), QuerySettings(classes=columns))
    np.testing.assert_allclose(observation.probabilities, suite().victim.probabilities, atol=1e-6)
    assert (observation.classes, observation.inferred, observation.unmapped) == (columns, (), None)
    save_observation(tmp_path / "o", observation)
    loaded = load_observation(tmp_path / "o")
    for name in ("classes", "inferred", "unmapped", "notes"):
        assert getattr(loaded, name) == getattr(observation, name)


def test_fewer_classes_cannot_be_mapped() -> None:
    model = toys.make_model(classes=3)
    with refused(ModelError, "toy-0: ", "output 3", "3 classes"):
        observe(model, suite(), QuerySettings(classes=(0, 1, 2, 3)))
    assert observe(model, suite()).unmapped == "expected 4 classes, found 3; map them with QuerySettings(classes=...)"


@pytest.mark.parametrize(
    ("classes", "facts"),
    [
        ((0, 1, 2), ("4 classes", "3")),
        ((0, 1, 2, 2), ("4 different", "0, 1, 2, 2")),
        ((0, 1, 2, -1), ("4 different", "0, 1, 2, -1")),
    ],
)
def test_a_wrong_map_of_classes(classes: tuple[int, ...], facts: tuple[str, ...]) -> None:
    asking = QuerySettings(classes=classes)
    with refused(UsageError, *facts, code="wrong-value"):
        observe(victim(), suite(), asking)
    with refused(UsageError, *facts, code="wrong-value"):
        toys.outcome(
            suite(),
            calibration(),
            [ModelFile("none.toy", query=asking)],
            JudgeSettings(**STRICT),
            registry=toys.registry(),
        )


def test_where_all_mapped_classes_are_impossible_they_are_even() -> None:
    model = widened(victim(), 6)
    model.weights[-1][0][:, 0] = 100
    model.weights[-1][1][:2] = 900, 1000
    observation = observe(model, suite(), QuerySettings(classes=(2, 3, 4, 5)))
    assert isinstance(observation, Observation)
    np.testing.assert_array_equal(observation.probabilities, np.full_like(suite().victim.probabilities, 0.25))

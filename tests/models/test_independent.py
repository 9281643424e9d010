"""Classes with a probability each: one sigmoid for each class, in every framework, from the labels to the verdict."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deepjudge_blackbox.metrics import jsd
from refusals import refused
from scipy.special import expit
from scipy.special import softmax as scipy_softmax

from deepjudge_core import (
    Calibration,
    Observation,
    Suite,
    build_suite,
    calibrate,
    judge,
    load_observation,
    load_registry,
    load_suite,
    measure,
    observe,
    open_model,
    save_observation,
    save_suite,
    select_seeds,
)
from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.auditing.session import Session
from deepjudge_core.components.values import Answers, Decision
from deepjudge_core.errors import FileFormatError, InputError
from deepjudge_core.models.asking import ask
from deepjudge_core.models.model import Model
from deepjudge_core.models.prepared import Prepared
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.models.scores import Scores
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.suites.inputs import Inputs
from deepjudge_core.suites.settings import SuiteSettings
from deepjudge_core.testing import check_model
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.types import Array

REGISTRY = load_registry()
SESSION = Session(REGISTRY, sandbox=None)
FEATURES, HIDDEN, CLASSES = 8, 24, 4
# Of Keras 3 beside NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
Weights = list[tuple[Array, Array]]


class Ending(NumpyModel):
    """A perceptron that ends in a function, and says of it what a graph would."""

    ends, function = Scores.SIGMOIDS, staticmethod(expit)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._scores, self._gives_probabilities = self.ends, False
        self.independent = self._are_independent()
        if self.ends is Scores.UNKNOWN:
            self._gives_probabilities = None

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        if layers is None:
            return [self.function(super().forward(x, ["logits"])[0])]
        outputs = super().forward(x, layers)
        if self.ends is Scores.UNKNOWN:  # no function was found, so that the last tap is the output
            outputs = [self.function(o) if name == "logits" else o for name, o in zip(layers, outputs, strict=True)]
        return outputs

    def mixed(self, x: Array, layer: str, order: Array) -> Array:
        scores = super().mixed(x, layer, order)
        return self.function(scores) if self.ends is Scores.UNKNOWN else scores


class Spelt(Ending):
    """Ends in sigmoids that no graph shows."""

    ends = Scores.UNKNOWN

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        def at_logits(z: Array) -> Array:
            p = self.function(z)
            return cotangent(p) * p * (1 - p)

        return super().backward(x, at_logits if layer == "logits" else cotangent, layer)


class Softmax(Ending):
    ends, function = Scores.PROBABILITIES, staticmethod(lambda z: scipy_softmax(z, axis=1))


class Tanh(Spelt):
    """Ends in numbers of 0..1 by chance: twice as far they are not."""

    function = staticmethod(lambda z: 0.5 + 0.01 * z)


def task(n: int = 400, seed: int = 0) -> tuple[Array, Array]:
    """Inputs in 0..1, and of four classes those that each belongs to: several, one or none."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, FEATURES), dtype=np.float32)
    return x, (x @ np.random.default_rng(9).normal(size=(FEATURES, CLASSES)) > 0.1).astype(np.int64)


@cache
def fitted(seed: int) -> Weights:
    """Random features, and a least-squares fit to the classes."""
    rng = np.random.default_rng(seed)
    x, y = task(600, 100 + seed)
    matrix, bias = rng.normal(size=(FEATURES, HIDDEN)), rng.normal(size=HIDDEN) / 2
    features = np.c_[np.maximum(x @ matrix + bias, 0), np.ones(len(x))]
    fit = np.linalg.lstsq(features, 4.0 * (2 * y - 1), rcond=None)[0]
    pairs = (matrix, bias), (fit[:-1], fit[-1])
    return [(one.astype(np.float32), other.astype(np.float32)) for one, other in pairs]


def in_numpy(kind: type[NumpyModel], seed: int = 0) -> NumpyModel:
    return kind(fitted(seed), (FEATURES,), name=f"{kind.__name__}-{seed}")


def in_torch(end: str, folder: Path) -> Model:
    torch = pytest.importorskip("torch")
    layers = []
    for matrix, bias in fitted(0):
        layer = torch.nn.Linear(*matrix.shape)
        layer.weight.data, layer.bias.data = torch.tensor(matrix.T), torch.tensor(bias)
        layers += [layer, torch.nn.ReLU()]
    ends = {"sigmoid": [torch.nn.Sigmoid()], "softmax": [torch.nn.Softmax(1)], "logits": []}[end]
    module = torch.nn.Sequential(*layers[:-1], *ends).eval()
    return open_model(module, registry=REGISTRY, input_shape=(FEATURES,))


def in_keras(folder: Path) -> Model:
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(CLASSES, "sigmoid")]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    model.set_weights([array for pair in fitted(0) for array in pair])
    model.save(folder / "model.keras")
    return open_model(folder / "model.keras", registry=REGISTRY)


def in_onnx(folder: Path) -> Model:
    pytest.importorskip("skl2onnx")
    network = pytest.importorskip("sklearn.neural_network").MLPClassifier((HIDDEN,), max_iter=1)
    x, y = task()
    with pytest.warns(Warning, match="converge"):
        network.fit(x, y)
    network.coefs_, network.intercepts_ = ([pair[part] for pair in fitted(0)] for part in (0, 1))
    from skl2onnx import to_onnx

    path = folder / "model.onnx"
    path.write_bytes(to_onnx(network, x[:1], options={"zipmap": False}).SerializeToString())
    model = open_model(path, registry=REGISTRY)
    assert model.outputs is not None
    return model.with_output(model.outputs.tables[-1])


FORMATS: dict[str, Callable[[Path], Model]] = {
    "numpy": lambda folder: in_numpy(Ending),
    "torch": lambda folder: in_torch("sigmoid", folder),
    "keras": in_keras,
    "onnx": in_onnx,
}


@cache
def suite() -> Suite:
    x, y = task()
    settings = SuiteSettings(
        n=60, order="balanced", options={"neuron-corners": {"m": 1.3}}, generators=("pgd", "neuron-corners")
    )
    return make_suite(in_numpy(Ending), Inputs(x, y, training=task(200, 1)[0]), settings, session=SESSION)


@cache
def calibration() -> Calibration:
    return calibrate(suite(), [observe(in_numpy(Ending, seed), suite()) for seed in range(2, 8)], registry=REGISTRY)


def verdict(observation: Observation) -> tuple[Decision, dict[str, float | None]]:
    measured = measure(suite(), observation, registry=REGISTRY)
    decision = judge(measured, calibration(), registry=REGISTRY).decision
    return decision, {name: one.value for name, one in measured.items()}


# A model


@pytest.mark.parametrize("made_in", FORMATS)
def test_each_format_keeps_the_contract_and_says_what_it_gives(made_in: str, tmp_path: Path) -> None:
    model, x = FORMATS[made_in](tmp_path), task(8)[0]
    check_model(model, x)
    assert model.independent
    np.testing.assert_allclose(model.predict(x), in_numpy(Ending).predict(x), atol=1e-6)
    answers, _ = ask(model, x, {"logits": list(model.layers)[-1]})
    np.testing.assert_allclose(answers, model.predict(x), atol=1e-6)


def test_sigmoids_that_no_graph_shows_are_known_by_their_values() -> None:
    model, x = in_numpy(Spelt), task(40)[0]
    assert model.independent is None
    check_model(model, x[:8])
    assert model.independent
    logits = in_numpy(Ending).activations(x, ["logits"])["logits"]
    np.testing.assert_allclose(model.activations(x, ["logits"])["logits"], logits, atol=1e-3)
    np.testing.assert_allclose(in_numpy(Spelt).predict(x), expit(logits), atol=1e-6)


def test_scores_that_lie_in_0_to_1_by_chance_are_scores() -> None:
    model, x = in_numpy(Tanh), task(40)[0]
    raw = model.forward(x, None)[0]
    assert raw.min() > 0
    assert raw.max() < 1
    np.testing.assert_allclose(model.predict(x), scipy_softmax(raw, axis=1), atol=1e-6)
    assert not model.independent


@pytest.mark.parametrize("kind", [Ending, Spelt, Softmax, NumpyModel])
def test_scores_are_read_either_way_whatever_a_model_ends_in(kind: type[NumpyModel]) -> None:
    model, x = in_numpy(kind), task(20)[0]
    logits = in_numpy(Ending).activations(x, ["logits"])["logits"]
    ways = {True: expit(logits), False: scipy_softmax(logits, axis=1)}
    inner = Preprocessing(1.0, (0.0,), (1.0,))
    for independent, expected in ways.items():
        for read in (
            model.reading(independent),
            Prepared.of(model, inner, (FEATURES,), (0.0, 1.0)).reading(independent),
        ):
            np.testing.assert_allclose(read.predict(x), expected, atol=1e-5)
            for layers in ({}, {"dense1": "dense1"}):
                np.testing.assert_allclose(ask(read, x, layers)[0], expected, atol=1e-5)
            assert read.independent == independent


# Labels


def test_of_several_classes_the_likeliest_is_the_label() -> None:
    (x, y), model = task(), in_numpy(Ending)
    seeds = select_seeds(model, x, y, n=50)
    p = model.predict(x)
    top = p.argmax(axis=1)
    right = (y[np.arange(len(y)), top] == 1) & (np.diff(np.sort(p, axis=1)[:, -2:]).ravel() >= 1e-3)
    assert right[seeds.indices].all()
    np.testing.assert_array_equal(seeds.labels, top[seeds.indices])
    some = y.any(axis=1)
    assert seeds.accuracy == right.sum() / some.sum()
    assert some.sum() < len(y)
    assert seeds.mistakes is not None
    assert seeds.probes is not None
    assert not seeds.mistakes.labels[model.predict(seeds.mistakes.inputs).argmax(axis=1) == seeds.mistakes.labels].size
    surest = (p[right] ** 2 + (1 - p[right]) ** 2).mean(axis=1)
    assert seeds.indices[0] == np.flatnonzero(right)[surest.argmax()]
    assert seeds.label_origin == "several"


def test_one_class_of_each_input_is_its_label() -> None:
    (x, _), model = task(), in_numpy(Ending)
    labels = model.predict(x).argmax(axis=1)
    for y in (labels, np.eye(CLASSES)[labels]):
        seeds = select_seeds(model, x, y, n=50)
        assert (seeds.label_origin, seeds.accuracy > 0.9) == ("inputs", True)
        np.testing.assert_array_equal(seeds.labels, labels[seeds.indices])


def test_classes_that_exclude_one_another_are_not_several() -> None:
    x, y = task()
    with refused(InputError, "Softmax-0"):
        make_suite(in_numpy(Softmax), Inputs(x, y), SuiteSettings(n=20), session=SESSION)
    for wrong in (y[:, :3], 2 * y, np.zeros_like(y)):
        with refused(InputError):
            select_seeds(in_numpy(Ending), x, wrong)


def test_scores_of_inputs_of_several_classes_are_those_of_sigmoids() -> None:
    x, y = task()
    made = make_suite(in_numpy(NumpyModel), Inputs(x, y), SuiteSettings(n=30, generators=["pgd"]), session=SESSION)
    assert made.victim.independent
    np.testing.assert_allclose(made.victim.probabilities, in_numpy(Ending).predict(made.cases.inputs), atol=1e-6)
    assert any("sigmoid" in note for note in made.notes)


# A suite, answers, and what is made of them


def test_the_suite_and_answers_are_stored(tmp_path: Path) -> None:
    observation = observe(in_numpy(Ending, 3), suite())
    save_suite(tmp_path / "s.safetensors", suite())
    save_observation(tmp_path / "o.safetensors", observation)
    again, answers = load_suite(tmp_path / "s.safetensors"), load_observation(tmp_path / "o.safetensors")
    assert (again.digest, again.victim.independent, again.label_origin) == (suite().digest, True, "several")
    assert (answers.digest, answers.independent) == (observation.digest, True)
    assert observation.probabilities is not None
    assert not np.allclose(observation.probabilities.sum(axis=1), 1, atol=0.05)
    exclusive = scipy_softmax(np.log(observation.probabilities + 1e-6), axis=1).astype(np.float32)
    other = dataclasses.replace(observation, probabilities=exclusive, independent=False)
    with refused(FileFormatError, "Ending-3"):
        measure(suite(), other, registry=REGISTRY)


def test_cases_change_the_likeliest_class_clearly() -> None:
    rows, p = suite().rows("adversarial"), suite().victim.probabilities
    assert p is not None
    assert rows.sum() >= 20
    assert (p[rows].argmax(axis=1) != suite().cases.labels[rows]).all()
    assert (np.diff(np.sort(p[rows], axis=1)[:, -2:]) >= 1e-3).all()


def test_the_divergence_is_the_mean_over_the_classes() -> None:
    p, q = (np.random.default_rng(seed).random((5, 3)) for seed in (0, 1))
    labels = np.zeros(5, np.int64)

    def both(a: float, b: float) -> float:
        m = (a + b) / 2
        parts = [(a, m), (1 - a, 1 - m), (b, m), (1 - b, 1 - m)]
        return sum(one * np.log(one / mid) for one, mid in parts) / 2

    expected = np.mean([[both(a, b) for a, b in zip(*rows, strict=True)] for rows in zip(p, q, strict=True)])
    one, other = (Answers(labels, probabilities, independent=True) for probabilities in (p, q))
    assert jsd(one, other) == pytest.approx(expected)
    assert jsd(one, one) == 0


@pytest.mark.parametrize("made_in", FORMATS)
def test_the_network_in_another_format_is_a_copy(made_in: str, tmp_path: Path) -> None:
    decision, values = verdict(observe(FORMATS[made_in](tmp_path), suite()))
    assert values == pytest.approx(dict.fromkeys(("robd", "jsd", "nod", "nad", "lod", "lad", "recovery"), 0), abs=1e-4)
    assert decision is Decision.COPY


@pytest.mark.parametrize(("kind", "told"), [(NumpyModel, True), (Softmax, True), (Spelt, False)])
def test_the_network_with_another_ending_is_a_copy_and_that_is_said(kind: type[NumpyModel], told: bool) -> None:
    observation = observe(in_numpy(kind), suite())
    decision, values = verdict(observation)
    assert values == pytest.approx(dict.fromkeys(("robd", "jsd", "nod", "nad", "lod", "lad", "recovery"), 0), abs=1e-4)
    assert decision is Decision.COPY
    assert any("sigmoid" in note for note in observation.notes) == told


def test_sigmoids_are_not_taken_for_a_softmax() -> None:
    x, y = task()
    labels = y.argmax(axis=1)
    exclusive = in_numpy(Softmax)
    made = build_suite(
        exclusive, select_seeds(exclusive, x, exclusive.predict(x).argmax(axis=1), n=40), ["pgd"], registry=REGISTRY
    )
    assert not made.victim.independent
    observation = observe(in_numpy(Ending), made)
    assert observation.probabilities is not None
    np.testing.assert_allclose(observation.probabilities, made.victim.probabilities, atol=1e-5)
    assert any("sigmoid" in note for note in observation.notes)
    assert len(labels) == len(x)


def test_honest_models_are_no_copies_and_count_by_their_own_right() -> None:
    assert len(calibration().controls) == 6  # none is left out for finding another class likeliest
    for seed in (20, 21):
        decision, values = verdict(observe(in_numpy(Ending, seed), suite()))
        assert decision is not Decision.COPY
        assert values["jsd"] is not None
        assert values["jsd"] > 1e-3


def test_classes_in_another_order_are_named() -> None:
    matrix, bias = fitted(0)[1]
    turned = Ending([fitted(0)[0], (matrix[:, ::-1], bias[::-1])], (FEATURES,), name="turned")
    observation = observe(turned, suite(), QuerySettings(classes=(3, 2, 1, 0)))
    np.testing.assert_allclose(observation.probabilities, suite().victim.probabilities, atol=1e-6)
    wide = Ending(
        [fitted(0)[0], (np.c_[matrix, matrix[:, 0]], np.r_[bias, bias[0]])], (FEATURES,), name="one class more"
    )
    observation = observe(wide, suite(), QuerySettings(classes=(0, 1, 2, 3)))
    np.testing.assert_allclose(observation.probabilities, suite().victim.probabilities, atol=1e-6)


def test_one_vs_rest_heads(tmp_path: Path) -> None:
    # Sigmoids of labels each by itself stay what they are; those that are divided by their sum exclude one another.
    pytest.importorskip("skl2onnx")
    from skl2onnx import to_onnx

    multiclass, linear = pytest.importorskip("sklearn.multiclass"), pytest.importorskip("sklearn.linear_model")
    x, y = task()
    for name, labels, independent in (("several", y, True), ("one", y.argmax(axis=1), False)):
        heads = multiclass.OneVsRestClassifier(linear.LogisticRegression(C=30)).fit(x, labels)
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(to_onnx(heads, x[:1], options={"zipmap": False}).SerializeToString())
        model = open_model(path, registry=REGISTRY)
        assert model.outputs is not None
        model = model.with_output(model.outputs.tables[-1])
        np.testing.assert_allclose(ask(model, x, {})[0], heads.predict_proba(x), atol=1e-5)
        assert bool(model.independent) == independent

"""Every component keeps its contract, with every framework; and every contract fails where it should."""

import dataclasses
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from models import KINDS, LAYERS, SHAPE, Zoo, inputs
from networks.architectures import BOUNDS

from deepjudge_core import (
    Access,
    Adapter,
    Answers,
    Attack,
    AuditSettings,
    Cases,
    Decision,
    Evidence,
    Generator,
    Inputs,
    Judgement,
    Metric,
    Model,
    Observation,
    Rule,
    Session,
    Suite,
    SuiteSettings,
    Task,
    Vote,
    audit,
    build_suite,
    calibrate,
    judge,
    load_registry,
    measure,
    observe,
    open_model,
    save_suite,
    select_seeds,
)
from deepjudge_core.components.values import Mistakes, Seeds
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.model import softmax
from deepjudge_core.testing import NumpyModel, check_generator, check_metric, check_model, check_rule

REGISTRY = load_registry()
VICTIM = 1
CONTROLS = (2, 3, 4, 5, 6, 7, 8, 9)
NETWORKS = [kind for kind in KINDS if kind != "numpy"]
# One kind of each framework, and the perceptron in numpy.
FRAMEWORKS = ["numpy", "onnx-dynamo", "torch", "keras"]
METRICS = {"robd", "jsd", "nod", "nad", "lod", "lad", "sac", "cka", "akh", "nnod"}
GENERATOR_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "fgsm": {"eps": 0.2},
    "pgd": {"eps": 0.2, "step": 0.05, "steps": 4},
    "cw": {"steps": 10, "searches": 2, "constant": 1.0},
    "neuron-corners": {"m": 1.2, "step": 0.05, "iterations": 30, "tries": 3, "per_neuron": 2},
    "mistakes": {},
}


def arranged(model: Model, x: np.ndarray) -> np.ndarray:
    return x if model.input.shape == SHAPE else np.moveaxis(x, 1, -1)


def make_seeds(model: Model, n: int = 12) -> Seeds:
    x = inputs(52)
    labels = model.predict(arranged(model, x)).argmax(axis=1)
    labels[40:] = (labels[40:] + 1) % model.classes  # mistakes
    return select_seeds(model, x, labels, n=n, order="balanced", bounds=BOUNDS)


def make_suite(model: Model, seed: int = 0) -> Suite:
    names = ("pgd", "neuron-corners", "mistakes")
    options = {name: GENERATOR_OPTIONS[name] for name in names}
    layers = list(model.layers)[:-1]
    return build_suite(
        model,
        make_seeds(model),
        names,
        training_inputs=inputs(40),
        layers=layers,
        options=options,
        seed=seed,
        registry=REGISTRY,
    )


# The matrix


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_model_keeps_the_contract(kind: str, batch_size: int | None, zoo: Zoo) -> None:
    model = zoo.model(kind, VICTIM, batch_size)
    check_model(model, arranged(model, inputs(8)))
    assert kind not in NETWORKS or tuple(model.layers.values()) == LAYERS
    # What it ran on, in the framework's own words.
    known = {"onnx": r"(\w+ExecutionProvider(, )?)+", "torch": r"(cpu|cuda:\d+)", "keras": r"(CPU|GPU):\d+"}
    device = ModelInfo.of(model).device
    assert device is None if model.framework == "numpy" else re.fullmatch(known[model.framework], device or "")


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("batch", [{"batch_size": 3}, {"fixed_batch": 2}])
@pytest.mark.parametrize("classes", [1, 4])
def test_the_contract_holds_for_two_classes_and_fixed_batches(
    classes: int, batch: dict[str, int], activation: Literal["relu", "tanh"]
) -> None:
    model = NumpyModel.random(SHAPE, (12, 7), classes, seed=0, activation=activation, **batch)
    check_model(model, inputs(8))


@pytest.mark.parametrize("kind", FRAMEWORKS)
@pytest.mark.parametrize("generator", REGISTRY.generators.select(), ids=lambda g: g.name)
def test_every_generator_keeps_the_contract(generator: Generator, kind: str, zoo: Zoo) -> None:
    victim = zoo.model(kind, VICTIM)
    layers = tuple(victim.layers)[:-1]
    x = arranged(victim, inputs(20))
    wrong = Mistakes(x, (victim.predict(x).argmax(axis=1) + 1) % victim.classes)
    seeds = dataclasses.replace(make_seeds(victim, 6), mistakes=wrong)
    task = Task(victim, seeds, layers, x, np.random.default_rng(0))
    check_generator(generator, task, options=GENERATOR_OPTIONS.get(generator.name))


@pytest.mark.parametrize("metric", REGISTRY.metrics.select(["all"]), ids=lambda m: m.name)
def test_every_metric_keeps_the_contract(metric: Metric) -> None:
    check_metric(metric)


# Numbers of controls that a rule takes, where it refuses 3: of three metrics at its default level.
DECIDING = {"prediction-bound": (6, 12), "conformal": (299,), "combine": (99,)}


@pytest.mark.parametrize("rule", REGISTRY.rules.select(), ids=lambda r: r.name)
def test_every_rule_keeps_the_contract(rule: Rule) -> None:
    check_rule(rule, controls=DECIDING.get(rule.name, (3, 12)))


@pytest.fixture(scope="module")
def suites(zoo: Zoo) -> Callable[[str], tuple[Suite, list[Observation]]]:
    """By the victim's kind: its suite, and what the controls answered."""
    made: dict[str, tuple[Suite, list[Observation]]] = {}

    def get(kind: str) -> tuple[Suite, list[Observation]]:
        if kind not in made:
            suite = make_suite(zoo.model(kind, VICTIM))
            # Live models are made fastest.
            controls = [zoo.model("keras" if "keras" in kind else "torch", seed) for seed in CONTROLS]
            made[kind] = suite, [observe(control, suite) for control in controls]
        return made[kind]

    return get


@pytest.mark.parametrize("suspect", NETWORKS)
@pytest.mark.parametrize("victim", NETWORKS)
def test_a_network_in_another_format_is_a_copy_at_distance_0(
    victim: str, suspect: str, zoo: Zoo, suites: Callable[[str], tuple[Suite, list[Observation]]]
) -> None:
    suspected = zoo.model(suspect, VICTIM)
    suite, controls = suites(victim)
    measured = measure(suite, observe(suspected, suite), ["all"], registry=REGISTRY)
    assert {name: m.value for name, m in measured.items()} == pytest.approx(dict.fromkeys(METRICS, 0), abs=1e-4)
    verdict = judge(measured, calibrate(suite, controls, ["all"], registry=REGISTRY), registry=REGISTRY)
    assert (verdict.decision, verdict.points_to) == (Decision.COPY, "weights")


@pytest.mark.parametrize("victim", FRAMEWORKS[1:])
def test_a_network_with_other_weights_is_no_copy(
    victim: str, zoo: Zoo, suites: Callable[[str], tuple[Suite, list[Observation]]]
) -> None:
    other = zoo.model("keras" if "keras" in victim else "torch", 6)
    suite, controls = suites(victim)
    verdict = judge(
        measure(suite, observe(other, suite), registry=REGISTRY),
        calibrate(suite, controls, registry=REGISTRY),
        registry=REGISTRY,
    )
    assert verdict.decision is Decision.INDEPENDENT


# No traces


def explode(scores: np.ndarray, rows: slice) -> np.ndarray:
    raise RuntimeError("in the middle of a gradient")


def look_into(model: Model) -> None:
    x = arranged(model, inputs(4))
    model.activations(x, list(model.layers))
    for layer in (None, *model.layers):
        model.gradient(x, lambda scores, rows: np.ones_like(scores), layer=layer)
        with pytest.raises(RuntimeError, match="in the middle of a gradient"):
            model.gradient(x, explode, layer=layer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_fails_says_why_and_changes_nothing(kind: str, zoo: Zoo) -> None:
    model = zoo.model(kind, VICTIM)
    x = arranged(model, inputs(4))
    before = model.predict(x)
    look_into(model)
    np.testing.assert_array_equal(model.predict(x), before)


def test_a_torch_module_is_left_as_it_was(zoo: Zoo) -> None:
    module = zoo.source("torch", VICTIM)
    module.train()
    module.conv2.eval()

    def state() -> list[object]:
        hooks = [
            (name, {key: len(value) for key, value in vars(part).items() if key.endswith("hooks")}, part.training)
            for name, part in module.named_modules()
        ]
        parameters = [(name, p.requires_grad, p.grad, p.tolist()) for name, p in module.named_parameters()]
        return [hooks, parameters, [sorted(vars(part)) for part in module.modules()]]

    before = state()
    assert not any(part._forward_hooks for part in module.modules())
    try:
        look_into(open_model(module, input_shape=SHAPE, registry=REGISTRY))
        assert state() == before
        # It would be noticed.
        hook = module.relu1.register_forward_hook(lambda *args: None)
        assert state() != before
        hook.remove()
        assert state() == before
    finally:
        module.eval()


def test_a_keras_model_is_left_as_it_was(zoo: Zoo) -> None:
    live = zoo.source("keras", 7)

    def state() -> list[object]:
        layers = [
            (id(layer), layer.call.__func__, len(layer._inbound_nodes), layer.trainable, layer.get_config())
            for layer in live.layers
        ]
        return [layers, [sorted(vars(layer)) for layer in live.layers], [w.tolist() for w in live.get_weights()]]

    before = state()
    look_into(open_model(live, registry=REGISTRY))
    assert state() == before
    # It would be noticed.
    live.layers[-1].call(live.layers[-1].input)
    assert state() == before
    live.layers[-1](live.layers[-1].input)
    assert state() != before


@pytest.mark.parametrize("victim", ["torch", "keras"])
def test_live_models_are_audited_as_they_are(victim: str, zoo: Zoo) -> None:
    owner = zoo.source(victim, VICTIM)
    x = inputs(60) if victim == "torch" else np.moveaxis(inputs(60), 1, -1)
    y = zoo.model(victim, VICTIM).predict(x).argmax(axis=1)
    suspects = [zoo.source("torch", VICTIM), zoo.source("keras", VICTIM), zoo.source("torch", 10)]
    controls = [zoo.source("torch", seed) for seed in CONTROLS]
    found = audit(
        *(owner, suspects, Inputs(x, y, BOUNDS)),
        controls=controls,
        settings=AuditSettings(SuiteSettings(n=30, generators=["pgd"])),
        session=Session(REGISTRY),
    )
    assert [str(suspect.decision) for suspect in found.suspects] == ["copy", "copy", "independent"]


# Determinism


@pytest.mark.parametrize("kind", FRAMEWORKS)
def test_a_suite_file_depends_on_the_seed_and_nothing_else(kind: str, zoo: Zoo, tmp_path: Path) -> None:
    model = zoo.model(kind, VICTIM)
    digests = []
    for place, seed in enumerate((0, 0, 1)):
        path = tmp_path / f"{place}.safetensors"
        save_suite(path, make_suite(model, seed))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


# What the matrix covers


def test_the_matrix_covers_every_built_in_component() -> None:
    built_in = [plugin for plugin in REGISTRY.plugins if plugin.distribution.startswith("deepjudge ")]
    assert {plugin.name: plugin.failure for plugin in built_in} == dict.fromkeys(
        ["attacks", "blackbox", "keras", "onnx", "statistics", "torch", "voting", "whitebox"]
    )
    # Attacks have a matrix of their own: tests/plugins/test_attacks.py.
    components = [c for plugin in built_in for c in plugin.components if not isinstance(c, Attack)]
    adapters = [component for component in components if isinstance(component, Adapter)]
    opened = {(kind.adapter, kind.suffix) for kind in KINDS.values() if kind.adapter}
    # .hdf5 is another way to write .h5.
    suffixes = {(adapter.name, suffix) for adapter in adapters for suffix in adapter.suffixes} - {("keras", ".hdf5")}
    assert opened == suffixes | {(adapter.name, None) for adapter in adapters}
    assert {KINDS[kind].adapter for kind in FRAMEWORKS} == {None, *(adapter.name for adapter in adapters)}
    assert GENERATOR_OPTIONS.keys() == {c.name for c in components if isinstance(c, Generator)}
    assert {c.name for c in components if isinstance(c, Metric)} == METRICS
    assert {c.name for c in components if isinstance(c, Rule)} == {"voting", "tolerance-bound", *DECIDING}
    assert sum(isinstance(c, Adapter | Generator | Metric | Rule) for c in components) == len(components)


def test_the_contracts_need_neither_a_test_framework_nor_a_framework_of_models() -> None:
    code = "import sys, deepjudge_core.testing; print({'pytest', 'torch', 'tensorflow', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# A contract that cannot fail says nothing: each is broken here in the ways that it is there for. Models first.


class Healthy(NumpyModel):
    """In batches of three, so that there are several."""

    @classmethod
    def make(cls) -> "Healthy":
        weights = NumpyModel.random((4,), (7, 6), 3, seed=0).weights
        return cls(weights, (4,), activation="tanh", batch_size=3)


class ScaledGradient(Healthy):
    def backward(self, x, cotangent, layer):
        return 1.03 * super().backward(x, cotangent, layer)


class NoGradientAtOneLayer(Healthy):
    def backward(self, x, cotangent, layer):
        return super().backward(x, cotangent, layer) * (layer != "dense1")


class OnePixelWithoutGradient(Healthy):
    def backward(self, x, cotangent, layer):
        gradient = super().backward(x, cotangent, layer)
        gradient[:, 0] = 0
        return gradient


class GradientNotANumber(Healthy):
    def backward(self, x, cotangent, layer):
        return super().backward(x, cotangent, layer) * np.float32(np.nan)


class OneRowWithoutGradient(Healthy):
    def backward(self, x, cotangent, layer):
        gradient = super().backward(x, cotangent, layer)
        gradient[x[:, 0] < 0.2] = 0
        return gradient


class GradientOfMean(Healthy):
    def backward(self, x, cotangent, layer):
        return super().backward(x, cotangent, layer) / len(x)


class GradientOfProbabilities(Healthy):
    def gradient(self, x, cotangent, *, layer=None):
        def through_softmax(scores, rows):
            p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            given = cotangent(scores, rows)
            return p * (given - (given * p).sum(axis=1, keepdims=True))

        return super().gradient(x, cotangent if layer else through_softmax, layer=layer)


class WrongRows(Healthy):
    def gradient(self, x, cotangent, *, layer=None):
        return super().gradient(x, lambda s, r: cotangent(s, slice(0, len(s))), layer=layer)


class AsksTwice(Healthy):
    def gradient(self, x, cotangent, *, layer=None):
        return super().gradient(x, lambda s, r: (cotangent(s, r), cotangent(s, r))[1], layer=layer)


class PaddingSeen(Healthy):
    def gradient(self, x, cotangent, *, layer=None):
        def padded(scores, rows):
            return cotangent(np.concatenate([scores, scores[-1:]]), rows)[: len(scores)]

        return super().gradient(x, padded, layer=layer)


class Unnormalised(Healthy):
    def predict(self, x):
        return super().predict(x) * np.float32(1.01)


class Negative(Healthy):
    def predict(self, x):
        return super().predict(x) + np.float32([1, -1, 0])


class Float64(Healthy):
    def predict(self, x):
        return super().predict(x).astype(np.float64)


class NotANumber(Healthy):
    def predict(self, x):
        return super().predict(x) * np.float32(np.nan)


class TrainingMode(Healthy):
    def forward(self, x, layers):
        return super().forward(x - x.mean(axis=0), layers)


class ForgetsTheLastRows(Healthy):
    def activations(self, x, layers):
        found = super().activations(x, layers)
        for values in found.values():
            values[4:] = 0
        return found


class OtherOutput(Healthy):
    def predict(self, x):
        return super().predict(x)[:, ::-1].copy()


class OtherWidth(Healthy):
    def activations(self, x, layers):
        return {layer: values[:, :5] for layer, values in super().activations(x, layers).items()}


class AlwaysAll(Healthy):
    def activations(self, x, layers):
        super().activations(x, layers)
        return super().activations(x, list(self.layers))


class OtherNeuronsAlone(Healthy):
    def activations(self, x, layers):
        found = super().activations(x, layers)
        return {layer: values[:, ::-1] if len(layers) == 1 else values for layer, values in found.items()}


class OtherNumbersEachTime(Healthy):
    times = 0

    def predict(self, x):
        self.times += 1
        return np.roll(super().predict(x), self.times, axis=1)


class OtherGradientEachTime(Healthy):
    times = 0

    def backward(self, x, cotangent, layer):
        self.times += 1
        return super().backward(x, cotangent, layer) * np.float32(1 + 1e-6 * self.times)


class LeavesAHook(Healthy):
    hooks = 0

    def gradient(self, x, cotangent, *, layer=None):
        self.hooks += layer is not None
        return super().gradient(x, cotangent, layer=layer)

    def predict(self, x):
        return np.roll(super().predict(x), self.hooks, axis=1)


class ChangesItsInputs(Healthy):
    def predict(self, x):
        p = super().predict(x)
        x[:] = 0
        return p


class KeyErrorForLayers(Healthy):
    def _require(self, layer):
        self.layers[layer]


class NoErrorForLayers(Healthy):
    def activations(self, x, layers):
        return super().activations(x, [layer for layer in layers if layer in self.layers])


class ShortDigest(Healthy):
    digest = property(lambda self: "1234", lambda self, value: None)


class OtherDigest(Healthy):
    digest = property(lambda self: np.random.bytes(32).hex(), lambda self, value: None)  # noqa: NPY002


class HiddenGradient(Healthy):
    access = property(lambda self: Access.WHITE_BOX, lambda self, value: None)


class GradientsAlone(Healthy):
    access = property(lambda self: Access.BLACK_BOX | Access.GRADIENTS, lambda self, value: None)


class Rounded(Healthy):
    def activations(self, x, layers):
        return {layer: np.round(values) for layer, values in super().activations(x, layers).items()}

    def predict(self, x):
        return softmax(self.activations(x, ["logits"])["logits"])

    def gradient(self, x, cotangent, *, layer=None):
        return super().gradient(x, lambda s, r: cotangent(np.round(s), r) * 0, layer=layer)


BROKEN_MODELS = {
    ScaledGradient: "gradient at 'dense1' differs from finite differences",
    NoGradientAtOneLayer: "gradient at 'dense1' differs from finite differences",
    OnePixelWithoutGradient: "gradient at 'dense1' differs from finite differences",
    GradientNotANumber: "gradient: .* they differ by nan|found NaN",
    OneRowWithoutGradient: "gradient at 'dense1' differs from finite differences at 1 of 8 inputs",
    GradientOfMean: "gradient: one input at a time and all together",
    GradientOfProbabilities: "the gradient at 'logits' and without a layer",
    WrongRows: "expected to be given each row once",
    AsksTwice: "expected to be given each row once",
    PaddingSeen: "expected scores .* found",
    Unnormalised: "the sums of the probabilities and 1",
    Negative: "expected probabilities, found -",
    Float64: "expected float32, found float64",
    NotANumber: "found NaN",
    TrainingMode: "predict: one input at a time and all together",
    ForgetsTheLastRows: "activations of 'dense1': one input at a time and all together",
    OtherOutput: "predict and the softmax of the last layer",
    OtherWidth: "expected shape",
    AlwaysAll: "asked for 'dense1' alone",
    OtherNeuronsAlone: "activations of 'dense1' alone and with others",
    OtherNumbersEachTime: "gives other numbers the second time",
    OtherGradientEachTime: "gradient: gives other numbers the second time",
    LeavesAHook: "answers otherwise after",
    ChangesItsInputs: "changed the inputs",
    KeyErrorForLayers: "expected a ModelError, found a KeyError",
    NoErrorForLayers: "expected a ModelError, found an answer",
    ShortDigest: "expected 64 hexadecimal digits",
    OtherDigest: "always the same",
    HiddenGradient: "a gradient of a model without gradients: expected a ModelError",
    GradientsAlone: "expected a model that gives gradients to give layers",
    Rounded: "gradient at 'dense1' differs from finite differences",
}


def test_the_healthy_model_keeps_the_contract() -> None:
    check_model(Healthy.make(), np.random.default_rng(0).uniform(size=(8, 4)))


@pytest.mark.parametrize("broken", BROKEN_MODELS, ids=lambda b: b.__name__)
def test_the_contract_of_models_fails(broken: type[Healthy]) -> None:
    with pytest.raises(AssertionError, match=BROKEN_MODELS[broken]):
        check_model(broken.make(), np.random.default_rng(0).uniform(size=(8, 4)))


# Generators.


def keep_seeds(task: Task) -> Cases:
    return Cases.of_seeds(task.seeds.inputs.copy())


def task_for(victim: Model) -> Task:
    x = np.random.default_rng(0).uniform(size=(20, *victim.input.shape)).astype(np.float32)
    seeds = select_seeds(victim, x, victim.predict(x).argmax(axis=1), n=7)
    return Task(victim, seeds, tuple(victim.layers)[:-1], x, np.random.default_rng(0))


def step(task: Task, cotangent: Callable[..., np.ndarray], size: float) -> Cases:
    x = task.seeds.inputs + size * np.sign(task.victim.gradient(task.seeds.inputs, cotangent))
    return Cases.of_seeds(np.clip(x, *task.seeds.bounds))


def outside(task: Task) -> Cases:
    return Cases.of_seeds(task.seeds.inputs + task.seeds.span)


def float64(task: Task) -> Cases:
    return dataclasses.replace(keep_seeds(task), inputs=task.seeds.inputs.astype(np.float64))


def nan(task: Task) -> Cases:
    return Cases.of_seeds(task.seeds.inputs * np.nan)


def flattened(task: Task) -> Cases:
    return Cases.of_seeds(task.seeds.inputs.reshape(len(task.seeds.inputs), -1)[:, :2])


def none(task: Task) -> Cases:
    return Cases.of_seeds(task.seeds.inputs[:0])


def plain_array(task: Task) -> Any:
    return task.seeds.inputs


def other_seeds(task: Task) -> Cases:
    cases = keep_seeds(task)
    return dataclasses.replace(cases, seeds=cases.seeds + 1)


def half_seeds(task: Task) -> Cases:
    cases = keep_seeds(task)
    return dataclasses.replace(cases, seeds=cases.seeds / 2)


def unknown_neuron(task: Task) -> Cases:
    cases = keep_seeds(task)
    return dataclasses.replace(cases, layers=cases.layers * 0, neurons=cases.neurons * 0 + 7)


def layer_without_neuron(task: Task) -> Cases:
    cases = keep_seeds(task)
    return dataclasses.replace(cases, layers=cases.layers * 0)


def reached_and_not(task: Task) -> Cases:
    cases = keep_seeds(task)
    return dataclasses.replace(cases, layers=cases.layers * 0, neurons=cases.neurons * 0, unreached=((0, 0),))


def unreached_twice(task: Task) -> Cases:
    return dataclasses.replace(keep_seeds(task), unreached=((0, 1), (0, 1)))


def global_randomness(task: Task) -> Cases:
    np.random.shuffle(np.arange(3))  # noqa: NPY002
    return keep_seeds(task)


def own_randomness(task: Task) -> Cases:
    return Cases.of_seeds(np.random.default_rng().uniform(*task.seeds.bounds, size=task.seeds.inputs.shape))


def changes_seeds(task: Task) -> Cases:
    task.seeds.inputs[:] = task.seeds.bounds[0]
    return keep_seeds(task)


def changes_training_inputs(task: Task) -> Cases:
    task.training_inputs.sort(axis=0)
    return keep_seeds(task)


def changes_the_victim(task: Task) -> Cases:
    victim: Any = task.victim
    victim._model.weights[0][1][:] += 1
    return keep_seeds(task)


def undeclared_layers(task: Task) -> Cases:
    task.victim.activations(task.seeds.inputs, task.layers)
    return keep_seeds(task)


def undeclared_gradients(task: Task) -> Cases:
    return step(task, lambda scores, rows: scores, 0.1)


def in_order_of_batches(task: Task) -> Cases:
    signs = np.where(np.arange(20) % 2, 1.0, -1.0)[:, None]
    return step(task, lambda scores, rows: signs[: len(scores)] * scores, 0.1 * task.seeds.span)


def absolute_step(task: Task) -> Cases:
    return step(task, lambda scores, rows: scores, 0.1)


def positional_option(task: Task, eps: float = 0.1) -> Cases:
    return keep_seeds(task)


def option_without_default(task: Task, *, eps: float) -> Cases:
    return keep_seeds(task)


def option_without_type(task: Task, *, eps=0.1) -> Cases:
    return keep_seeds(task)


def option_of_another_type(task: Task, *, eps: int = 0.1) -> Cases:
    return keep_seeds(task)


BROKEN_GENERATORS = {
    outside: "expected inputs within 0..1",
    float64: "expected float32, found float64",
    nan: "found NaN",
    flattened: "expected shape",
    none: "made no case",
    plain_array: "expected Cases, found a ndarray",
    other_seeds: "expected places among 7 seeds, found 1..7",
    half_seeds: "expected one whole number for each of 7 cases as seeds",
    unknown_neuron: "found neuron 7 of layer 0",
    layer_without_neuron: "found neuron -1 of layer 0",
    reached_and_not: "expected no cases for unreached neurons",
    unreached_twice: "lists unreached neurons twice",
    global_randomness: "global random numbers",
    own_randomness: "other cases for the same random numbers",
    changes_seeds: "changed the seeds of its task",
    changes_training_inputs: "changed the training inputs of its task",
    changes_the_victim: "changed the victim",
    undeclared_layers: "asked for LAYERS",
    undeclared_gradients: "asked for GRADIENTS",
    in_order_of_batches: "when the victim runs 3 inputs at a time",
    absolute_step: "times as large",
    positional_option: "expected a keyword-only parameter",
    option_without_default: "expected a default",
    option_without_type: "expected a type annotation",
    option_of_another_type: "its default cannot be given as a text",
}


@pytest.mark.parametrize("broken", BROKEN_GENERATORS, ids=lambda b: b.__name__)
def test_the_contract_of_generators_fails(broken: Callable[..., Cases]) -> None:
    needs = Access.LABELS if "undeclared" in broken.__name__ else Access.LABELS | Access.GRADIENTS
    with pytest.raises(AssertionError, match=BROKEN_GENERATORS[broken]):
        check_generator(Generator("broken", "adversarial", needs, broken), task_for(Healthy.make()))


def taken_for_seeds(task: Task) -> Cases:
    return keep_seeds(task)


def of_seeds_and_mistakes(task: Task) -> Cases:
    return dataclasses.replace(Cases.of_mistakes(task.seeds.mistakes), seeds=np.arange(20))


def half_labels(task: Task) -> Cases:
    return dataclasses.replace(Cases.of_mistakes(task.seeds.mistakes), labels=task.seeds.mistakes.labels / 2)


def other_labels_each_time(task: Task) -> Cases:
    labels = np.random.default_rng().integers(0, 2, 20)
    return dataclasses.replace(Cases.of_mistakes(task.seeds.mistakes), labels=labels)


def changes_labels(task: Task) -> Cases:
    task.seeds.mistakes.labels[0] += 1
    return Cases.of_mistakes(task.seeds.mistakes)


BROKEN_MISTAKES = {
    taken_for_seeds: "expected mistakes of no seed, -1, found 0..6",
    of_seeds_and_mistakes: "expected mistakes of no seed, -1, found 0..19",
    half_labels: "expected one whole number for each of 20 mistakes as labels",
    other_labels_each_time: "other cases for the same random numbers",
    changes_labels: "changed the labels of mistakes of its task",
}


@pytest.mark.parametrize("broken", BROKEN_MISTAKES, ids=lambda b: b.__name__)
def test_the_contract_of_generators_of_mistakes_fails(broken: Callable[..., Cases]) -> None:
    task = task_for(Healthy.make())
    x = task.training_inputs
    wrong = Mistakes(x, (task.victim.predict(x).argmax(axis=1) + 1) % task.victim.classes)
    task = dataclasses.replace(task, seeds=dataclasses.replace(task.seeds, mistakes=wrong))
    with pytest.raises(AssertionError, match=BROKEN_MISTAKES[broken]):
        check_generator(Generator("broken", "mistakes", Access.LABELS, broken), task)


def test_seeds_have_their_own_labels() -> None:
    def labelled(task: Task) -> Cases:
        return dataclasses.replace(keep_seeds(task), labels=task.seeds.labels)

    with pytest.raises(AssertionError, match="expected no labels but those of the seeds"):
        check_generator(Generator("broken", "adversarial", Access.LABELS, labelled), task_for(Healthy.make()))


def test_the_contract_of_generators_wants_a_name_that_can_be_typed() -> None:
    with pytest.raises(AssertionError, match="expected a name in lower case"):
        check_generator(Generator("My Own", "adversarial", Access.LABELS, keep_seeds), task_for(Healthy.make()))


# Metrics.


def total_variation(victim: Answers, suspect: Answers) -> float:
    return float(np.abs(victim.probabilities - suspect.probabilities).sum(axis=1).mean() / 2)


def never_zero(victim: Answers, suspect: Answers) -> float:
    return total_variation(victim, suspect) + 1e-3


def below_zero(victim: Answers, suspect: Answers) -> float:
    return -total_variation(victim, suspect)


def without_mean(victim: Answers, suspect: Answers) -> float:
    return float(np.log(total_variation(victim, suspect)))


def too_great(victim: Answers, suspect: Answers) -> float:
    return 2 * total_variation(victim, suspect)


def upside_down(victim: Answers, suspect: Answers) -> float:
    distance = total_variation(victim, suspect)
    return 1 - distance if distance else 0.0


def by_place(victim: Answers, suspect: Answers) -> float:
    return total_variation(
        dataclasses.replace(victim, probabilities=victim.probabilities[:9]),
        dataclasses.replace(suspect, probabilities=suspect.probabilities[:9]),
    )


def changes_answers(victim: Answers, suspect: Answers) -> float:
    suspect.probabilities[:] = suspect.probabilities.round(3)
    return total_variation(victim, suspect)


def other_each_time(victim: Answers, suspect: Answers) -> float:
    return total_variation(victim, suspect) * np.random.uniform(0.5, 1)  # noqa: NPY002


def undeclared_outputs(victim: Answers, suspect: Answers) -> float:
    layers = suspect.activations or victim.activations
    return float(np.mean([np.abs(values - victim.activations[name]).mean() for name, values in layers.items()]))


def with_argument(victim: Answers, suspect: Answers, order: int) -> float:
    return total_variation(victim, suspect)


BROKEN_METRICS: dict[str, tuple[Metric, str]] = {
    metric.distance.__name__ + str(place): (metric, match)
    for place, (metric, match) in enumerate(
        [
            (Metric("broken", Access.PROBABILITIES, "adversarial", never_zero, 0.9), "0 between a model and itself"),
            (
                Metric("broken", Access.PROBABILITIES, "adversarial", below_zero, 0.9),
                "expected a distance within 0..inf",
            ),
            (
                Metric("broken", Access.PROBABILITIES, "adversarial", without_mean, 0.9),
                "expected a finite distance|within",
            ),
            (
                Metric("broken", Access.PROBABILITIES, "adversarial", too_great, 0.9, 1),
                "expected a distance within 0..1",
            ),
            (Metric("broken", Access.PROBABILITIES, "adversarial", upside_down, 0.9), "slightly changed copies nearer"),
            (Metric("broken", Access.PROBABILITIES, "adversarial", by_place, 0.9), "whatever the order of the cases"),
            (Metric("broken", Access.PROBABILITIES, "adversarial", changes_answers, 0.9), "changed the answers"),
            (Metric("broken", Access.PROBABILITIES, "adversarial", other_each_time, 0.9), "the first time and"),
            (
                Metric("broken", Access.PROBABILITIES, "corners", undeclared_outputs, 0.9),
                "without the suspect's layers",
            ),
            (Metric("broken", Access.LABELS, "adversarial", total_variation, 0.9), "probabilities but the greatest"),
            (Metric("broken", Access.LAYERS, "corners", total_variation, 0.9), "without the suspect's probabilities"),
            (Metric("broken", Access.GRADIENTS, "adversarial", total_variation, 0.9), "expected to need no gradients"),
            (Metric("broken", Access(0), "adversarial", total_variation, 0.9), "expected to need some Access"),
            (
                Metric("Broken", Access.PROBABILITIES, "adversarial", total_variation, 0.9),
                "expected a name in lower case",
            ),
            (Metric("broken", Access.PROBABILITIES, "adversarial", with_argument, 0.9), "a default for 'order'"),
        ]
    )
}


def test_a_healthy_metric_keeps_the_contract() -> None:
    check_metric(Metric("total-variation", Access.PROBABILITIES, "adversarial", total_variation, 0.9, 1))


@pytest.mark.parametrize("name", BROKEN_METRICS)
def test_the_contract_of_metrics_fails(name: str) -> None:
    metric, match = BROKEN_METRICS[name]
    with pytest.raises(AssertionError, match=match):
        check_metric(metric)


# Rules.


def least(evidence: Mapping[str, Evidence], *, share: float = 0.9) -> Judgement:
    votes = {}
    for name, seen in evidence.items():
        limit = share * float(seen.controls.min())
        votes[name] = Vote(seen.value <= limit) if limit > 0 else Vote(None, reason="a control is at 0")
    cast = [vote.vote for vote in votes.values() if vote.vote is not None]
    if not cast:
        return Judgement(Decision.INCONCLUSIVE, None, votes, "no metric could vote")
    p_copy = float(np.mean(cast))
    decision = Decision.COPY if p_copy > 0.5 else Decision.INDEPENDENT
    return Judgement(decision, p_copy, votes, statement="less than the least")


def decide(evidence: Mapping[str, Evidence], copy: bool) -> Judgement:
    votes = dict.fromkeys(evidence, Vote(copy))
    decision = Decision.COPY if copy else Decision.INDEPENDENT
    return Judgement(decision, float(copy), votes, statement="so it is")


def shares(evidence: Mapping[str, Evidence]) -> list[float]:
    return [seen.value / max(float(np.median(seen.controls)), 1e-9) for seen in evidence.values()]


def ignores_a_metric(evidence: Mapping[str, Evidence]) -> Judgement:
    found = least(evidence)
    return dataclasses.replace(found, votes=dict(list(found.votes.items())[:-1]))


def always_copy(evidence: Mapping[str, Evidence]) -> Judgement:
    return decide(evidence, True)


def always_independent(evidence: Mapping[str, Evidence]) -> Judgement:
    return decide(evidence, False)


def takes_silence_for_a_copy(evidence: Mapping[str, Evidence]) -> Judgement:
    return decide(evidence, all(seen.value <= 0.9 * seen.controls.min() for seen in evidence.values()))


def takes_one_silence_for_a_copy(evidence: Mapping[str, Evidence]) -> Judgement:
    if not any(seen.controls.any() for seen in evidence.values()):
        return least(evidence)
    return decide(evidence, any(seen.value <= 0.9 * seen.controls.min() for seen in evidence.values()))


def copies_in_between(evidence: Mapping[str, Evidence]) -> Judgement:
    if not all(seen.controls.any() for seen in evidence.values()):
        return least(evidence)
    return decide(evidence, all(share < 0.3 or 0.5 < share < 0.7 for share in shares(evidence)))


def surer_in_between(evidence: Mapping[str, Evidence]) -> Judgement:
    found = least(evidence)
    between = found.decision is Decision.COPY and min(shares(evidence)) < 0.3
    return dataclasses.replace(found, p_copy=0.6) if between else found


def by_the_first_control(evidence: Mapping[str, Evidence]) -> Judgement:
    return least(evidence, share=0.45 if all(e.controls[0] > e.controls[-1] for e in evidence.values()) else 0.55)


def by_the_first_metric(evidence: Mapping[str, Evidence]) -> Judgement:
    first = next(iter(evidence))
    return dataclasses.replace(least({first: evidence[first]}), votes=least(evidence).votes)


def changes_the_controls(evidence: Mapping[str, Evidence]) -> Judgement:
    for seen in evidence.values():
        seen.controls.sort()
    return least(evidence)


def too_sure(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), p_copy=1.5)


def fails(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), decision=Decision.FAILED)


def inconclusive_without_reason(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), reason=None)


def no_vote_without_reason(evidence: Mapping[str, Evidence]) -> Judgement:
    found = least(evidence)
    return dataclasses.replace(found, votes={name: Vote(vote.vote) for name, vote in found.votes.items()})


def other_judgement_each_time(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), reason=np.random.bytes(8).hex())  # noqa: NPY002


def no_judgement(evidence: Mapping[str, Evidence]) -> Any:
    return least(evidence).decision


def rule_without_default(evidence: Mapping[str, Evidence], *, share: float) -> Judgement:
    return least(evidence, share=share)


BROKEN_RULES = {
    ignores_a_metric: "expected a vote of each of first, found none",
    always_copy: "expected independent at values such as the controls'",
    always_independent: "expected copy at values of 0",
    takes_silence_for_a_copy: "expected no copy where all controls are 0",
    takes_one_silence_for_a_copy: "expected no copy by one metric whose controls are all 0",
    copies_in_between: "turns from independent to copy",
    surer_in_between: "p_copy grows from 0.6 to 1",
    by_the_first_control: "in another order: expected",
    by_the_first_metric: "2 metrics, 3 controls: in another order: expected copy, found independent",
    changes_the_controls: "changed the evidence",
    too_sure: "expected p_copy within 0..1, found 1.5",
    fails: "expected one of copy, inconclusive, independent",
    inconclusive_without_reason: "is inconclusive without a reason",
    no_vote_without_reason: "casts no vote without a reason",
    other_judgement_each_time: "otherwise the second time",
    no_judgement: "expected a Judgement, found a Decision",
    rule_without_default: "option 'share': expected a default",
}


def grows_surer_with_distance(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), p_value=1 - min(1.0, min(shares(evidence)) / 2))


def surer_than_can_be(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), p_value=0.01, least_p_value=0.02)


def no_probability(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), p_value=1.5)


def says_nothing(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), statement=None)


def says_it_in_lines(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), statement="a\nb")


def names_another_threshold(evidence: Mapping[str, Evidence]) -> Judgement:
    found = least(evidence)
    votes = {name: dataclasses.replace(vote, threshold=evidence[name].value / 2) for name, vote in found.votes.items()}
    return dataclasses.replace(found, votes=votes)


BROKEN_RULES |= {
    grows_surer_with_distance: "p_value falls from",
    surer_than_can_be: "expected least_p_value <= p_value, found 0.02 and 0.01",
    no_probability: "expected p_value within 0..1, found 1.5",
    says_nothing: "expected a statement of its decision, found none",
    names_another_threshold: "expected first to vote copy where its value is at most its threshold",
    says_it_in_lines: "expected a statement of one clean line, found 'a.nb'",
}


def test_a_healthy_rule_keeps_the_contract() -> None:
    check_rule(Rule("least", least))


@pytest.mark.parametrize("broken", BROKEN_RULES, ids=lambda b: b.__name__)
def test_the_contract_of_rules_fails(broken: Callable[..., Judgement]) -> None:
    with pytest.raises(AssertionError, match=BROKEN_RULES[broken]):
        check_rule(Rule("broken", broken))

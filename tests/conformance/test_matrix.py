"""Every component keeps its contract, with every framework; every network is a copy of itself in every format."""

import dataclasses
import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from conforming import (
    ANSWERING,
    CONTROLS,
    FRAMEWORKS,
    GENERATOR_OPTIONS,
    METRICS,
    NETWORKS,
    NONCES,
    REGISTRY,
    SCHEME_OPTIONS,
    VICTIM,
    VICTIMS,
    arranged,
    make_seeds,
    make_suite,
)
from models import KINDS, LAYERS, SHAPE, Zoo, inputs

from deepjudge_core import (
    Adapter,
    Attack,
    Calibration,
    Decision,
    Generator,
    Metric,
    Rule,
    Scheme,
    Suite,
    Task,
    calibrate,
    judge,
    measure,
    observe,
)
from deepjudge_core.components.values import Mistakes
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.testing import (
    Check,
    Checks,
    NumpyModel,
    check_model,
    generator_checks,
    metric_checks,
    model_checks,
    parametrize_with_checks,
    rule_checks,
    scheme_checks,
)


def run_each(checks: Checks, subtests: pytest.Subtests) -> None:
    """Run checks of what a fixture gives: pytest cannot know their names before."""
    for name, check in checks:
        with subtests.test(name):
            check()


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_model_keeps_the_contract(kind: str, batch_size: int | None, zoo: Zoo, subtests: pytest.Subtests) -> None:
    model = zoo.model(kind, VICTIM, batch_size)
    run_each(model_checks(model, arranged(model, inputs(8))), subtests)
    assert kind not in NETWORKS or tuple(model.layers.values()) == LAYERS
    # What it ran on, in the framework's own words.
    devices = {"onnx": r"(\w+ExecutionProvider(, )?)+", "torch": r"(cpu|cuda:\d+)", "keras": r"(CPU|GPU):\d+"}
    devices |= dict.fromkeys(ANSWERING, "OpenVINO CPU")
    device = ModelInfo.of(model).device
    assert device is None if model.framework == "numpy" else re.fullmatch(devices[model.framework], device or "")


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
def test_every_generator_keeps_the_contract(
    generator: Generator, kind: str, zoo: Zoo, subtests: pytest.Subtests
) -> None:
    victim = zoo.model(kind, VICTIM)
    layers = tuple(victim.layers)[:-1]
    x = arranged(victim, inputs(20))
    wrong = Mistakes(x, (victim.predict(x).argmax(axis=1) + 1) % victim.classes)
    seeds = dataclasses.replace(make_seeds(victim, 6), mistakes=wrong)
    task = Task(victim, seeds, layers, x, np.random.default_rng(0))
    run_each(generator_checks(generator, task, options=GENERATOR_OPTIONS.get(generator.name)), subtests)


@parametrize_with_checks((metric.name, metric_checks(metric)) for metric in REGISTRY.metrics.select(["all"]))
def test_every_metric_keeps_the_contract(check: Check) -> None:
    check()


# Numbers of controls that a rule takes, where it refuses 3: of three metrics at its default level.
DECIDING = {"prediction-bound": (6, 12), "conformal": (299,), "combine": (99,), "exact": ()}


@parametrize_with_checks(
    (rule.name, rule_checks(rule, controls=DECIDING.get(rule.name, (3, 12)))) for rule in REGISTRY.rules.select()
)
def test_every_rule_keeps_the_contract(check: Check) -> None:
    check()


@parametrize_with_checks(
    (scheme.name, scheme_checks(scheme, options=SCHEME_OPTIONS[scheme.name], nonces=NONCES.get(scheme.name, 2000)))
    for scheme in REGISTRY.schemes.select()
)
def test_every_scheme_keeps_the_contract(check: Check) -> None:
    check()


@pytest.fixture(scope="module")
def suites(zoo: Zoo) -> Callable[[str], tuple[Suite, Calibration]]:
    """By the victim's kind: its suite, and the distances of the controls by every metric."""
    by_kind: dict[str, tuple[Suite, Calibration]] = {}

    def get(kind: str) -> tuple[Suite, Calibration]:
        if kind not in by_kind:
            suite = make_suite(zoo.model(kind, VICTIM))
            # Live models are made fastest.
            controls = [zoo.model("keras" if "keras" in kind else "torch", seed) for seed in CONTROLS]
            answers = [observe(control, suite) for control in controls]
            by_kind[kind] = suite, calibrate(suite, answers, ["all"], registry=REGISTRY)
        return by_kind[kind]

    return get


# tests/adapters/test_formats.py holds each format against each other one. Here it is a third of the pairs, with each
# format on both sides, for all metrics.
PAIRS = [pair for place, pair in enumerate(itertools.product(VICTIMS, NETWORKS)) if place % 3 == 0]


@pytest.mark.parametrize(("victim", "suspect"), PAIRS)
def test_a_network_in_another_format_is_a_copy_at_distance_0(
    victim: str, suspect: str, zoo: Zoo, suites: Callable[[str], tuple[Suite, Calibration]]
) -> None:
    suspected = zoo.model(suspect, VICTIM)
    suite, calibration = suites(victim)
    measured = measure(suite, observe(suspected, suite), ["all"], registry=REGISTRY)
    # These suites hold no sketch of weights.
    values = {name: m.value for name, m in measured.items() if m.metric.group != "weights"}
    assert values == pytest.approx(dict.fromkeys(METRICS, 0), abs=1e-4)
    verdict = judge(measured, calibration, registry=REGISTRY)
    assert (verdict.decision, verdict.points_to) == (Decision.COPY, "weights")


@pytest.mark.parametrize("victim", FRAMEWORKS[1:])
def test_a_network_with_other_weights_is_no_copy(
    victim: str, zoo: Zoo, suites: Callable[[str], tuple[Suite, Calibration]]
) -> None:
    other = zoo.model("keras" if "keras" in victim else "torch", 6)
    suite, calibration = suites(victim)
    verdict = judge(measure(suite, observe(other, suite), registry=REGISTRY), calibration, registry=REGISTRY)
    assert verdict.decision is Decision.INDEPENDENT


# What the matrix covers


# Other ways to write an ending, whose files are told by what is in them.
OTHER_NAMES = {("keras", ".hdf5"), *(("torch", suffix) for suffix in (".jit", ".pth.tar", ".torchscript"))}
# What is never opened, and formats of which tests/adapters holds each against the others.
OTHER_TESTS = {
    *(("coreml", suffix) for suffix in (".mlmodel", ".mlpackage")),
    ("gguf", ".gguf"),
    *(("openvino", suffix) for suffix in (".pdmodel", ".pb")),
    *(("torch", suffix) for suffix in (".safetensors.index.json", ".bin.index.json")),
}


def test_each_format_is_a_victim_and_a_suspect() -> None:
    victims, suspects = map(set, zip(*PAIRS, strict=True))
    assert (victims, suspects) == (set(VICTIMS), set(NETWORKS))


def test_the_matrix_covers_every_built_in_component() -> None:
    built_in = [plugin for plugin in REGISTRY.plugins if plugin.distribution.startswith("deepjudge ")]
    assert {plugin.name: plugin.failure for plugin in built_in} == dict.fromkeys(
        [
            "attacks",
            "blackbox",
            "callable",
            "gguf",
            "http",
            "keras",
            "onnx",
            "openvino",
            "schemes",
            "statistics",
            "torch",
            "voting",
            "weights",
            "whitebox",
        ]
    )
    # Attacks have a matrix of their own: tests/plugins/test_attacks.py.
    components = [c for plugin in built_in for c in plugin.components if not isinstance(c, Attack)]
    adapters = [component for component in components if isinstance(component, Adapter)]
    opened = {(kind.adapter, kind.suffix) for kind in KINDS.values() if kind.adapter}
    # Whoever is behind an API is asked over a network: tests/adapters/http holds it to what it promises.
    adapters = [adapter for adapter in adapters if adapter.name != "http"]
    suffixes = {(adapter.name, suffix) for adapter in adapters for suffix in adapter.suffixes}
    live = {(adapter.name, None) for adapter in adapters if adapter.name in FRAMEWORKS or adapter.name == "onnx"}
    assert opened == (suffixes - OTHER_NAMES - OTHER_TESTS) | live
    others = {"coreml", "gguf", "callable"}  # two open nothing; tests/adapters/callable holds one to the contract
    assert {KINDS[kind].adapter for kind in (*FRAMEWORKS, *ANSWERING)} == {None, *(a.name for a in adapters)} - others
    assert GENERATOR_OPTIONS.keys() == {c.name for c in components if isinstance(c, Generator)}
    assert {c.name for c in components if isinstance(c, Metric) and c.group != "weights"} == METRICS
    assert {c.name for c in components if isinstance(c, Rule)} == {"voting", "tolerance-bound", *DECIDING}
    assert SCHEME_OPTIONS.keys() == {c.name for c in components if isinstance(c, Scheme)}
    assert sum(isinstance(c, Adapter | Generator | Metric | Rule | Scheme) for c in components) == len(components)


def test_the_contracts_need_neither_a_test_framework_nor_a_framework_of_models() -> None:
    code = "import sys, deepjudge_core.testing; print({'pytest', 'torch', 'tensorflow', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

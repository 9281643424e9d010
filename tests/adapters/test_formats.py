"""The same network is the same network: every format of six architectures, as victim and as suspect of every other."""

import itertools
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks.architectures import ARCHITECTURES, BOUNDS, Architecture
from networks.matrix import FORMS
from refusals import refused

from deepjudge_core import (
    Access,
    Calibration,
    Decision,
    Model,
    Suite,
    build_suite,
    calibrate,
    judge,
    measure,
    observe,
    open_model,
    select_seeds,
)
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import ModelError

VICTIM, OTHER = 21, 40
CONTROLS = range(22, 34)
GENERATORS: Mapping[str, Mapping[str, Any]] = {
    "pgd": {"eps": 0.2, "step": 0.05, "steps": 4},
    "neuron-corners": {"m": 1.2, "step": 0.05, "iterations": 30, "tries": 3, "per_neuron": 2},
}
METRICS = {"robd", "jsd", "nod", "nad", "lod", "lad"}
HELD = [
    (name, key) for name, (key, form) in itertools.product(ARCHITECTURES, FORMS.items()) if name not in form.without
]
VICTIMS = [(name, key) for name, key in HELD if FORMS[key].gradients]


class Gallery:
    """Models by architecture, form and seed, each made and opened once."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.registry = registry
        self._folder = folder
        self._models: dict[tuple[str, str, int], Model] = {}

    def model(self, name: str, key: str, seed: int = VICTIM) -> Model:
        if (name, key, seed) not in self._models:
            form = FORMS[key]
            source = form.build(name, seed, self._folder / f"{name}-{key}-{seed}")
            self._models[name, key, seed] = open_model(source, registry=self.registry, **form.options(name))
        return self._models[name, key, seed]

    def live(self, name: str, seed: int = VICTIM) -> Model:
        """In the form that is made fastest."""
        return self.model(name, "torch" if find_spec("torch") else "keras", seed)

    def suite(self, name: str, key: str) -> Suite:
        victim, architecture = self.model(name, key), ARCHITECTURES[name]
        x = architecture.inputs(60)
        labels = victim.predict(architecture.arranged(x, victim.input.shape)).argmax(axis=1)
        return build_suite(
            victim,
            select_seeds(victim, x, labels, n=12, order="balanced", bounds=BOUNDS),
            list(GENERATORS),
            training_inputs=x[:40],
            layers=list(victim.layers)[:-1],
            options=GENERATORS,
            seed=0,
            registry=self.registry,
        )

    def calibration(self, name: str, suite: Suite) -> Calibration:
        return calibrate(suite, [observe(self.live(name, seed), suite) for seed in CONTROLS], registry=self.registry)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("gallery"), registry)


def missing(key: str) -> list[str]:
    return [module for module in FORMS[key].needs if find_spec(module) is None]


def need(key: str) -> None:
    for module in missing(key):
        pytest.skip(f"{module} is not installed")


@pytest.mark.parametrize(("name", "key"), HELD)
def test_a_format_gives_what_the_table_says(name: str, key: str, gallery: Gallery) -> None:
    need(key)
    form, architecture = FORMS[key], ARCHITECTURES[name]
    model, reference = gallery.model(name, key), gallery.live(name)
    widths = tuple(model.layers.values())
    assert (widths == architecture.layers) is (name not in form.unseen)
    assert (Access.GRADIENTS in model.access) is form.gradients
    x = architecture.inputs(5)
    arranged, own = (architecture.arranged(x, m.input.shape) for m in (model, reference))
    # Relative to the greatest; of int8, what is left of it.
    close = {1e-4: 1e-4, 1e-2: 1e-2, None: 0.2}[form.bound]
    same(model.predict(arranged), reference.predict(own), close)
    if name not in form.unseen:
        actual, expected = (m.activations(g, list(m.layers)) for m, g in ((model, arranged), (reference, own)))
        for mine, theirs in zip(actual.values(), expected.values(), strict=True):
            same(mine, theirs, close)
    if form.gradients:
        for place in (0, -1):
            actual, expected = (gradient(architecture, m, x, place) for m in (model, reference))
            same(actual, expected, 5 * close)
    else:
        with refused(ModelError, "quantised"):
            model.gradient(arranged, lambda scores, rows: scores)


def gradient(architecture: Architecture, model: Model, x: np.ndarray, place: int) -> np.ndarray:
    """At one of its layers, channels first."""

    def cotangent(scores: np.ndarray, rows: slice) -> np.ndarray:
        return np.cos(np.arange(scores.size)).reshape(scores.shape)

    arranged, layer = architecture.arranged(x, model.input.shape), list(model.layers)[place]
    result = model.gradient(arranged, cotangent, layer=layer)
    return result if model.input.shape == architecture.shape else np.moveaxis(result, -1, 1)


def same(actual: np.ndarray, expected: np.ndarray, close: float) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=close * float(np.abs(expected).max()))


@pytest.mark.parametrize(("name", "key"), VICTIMS)
def test_the_network_is_a_copy_of_itself_in_every_format(name: str, key: str, gallery: Gallery) -> None:
    need(key)
    suite = gallery.suite(name, key)
    calibration = gallery.calibration(name, suite)
    wrong = {}
    for suspect, form in FORMS.items():
        if name in form.without or missing(suspect):
            continue
        measured = measure(suite, observe(gallery.model(name, suspect), suite), registry=gallery.registry)
        verdict = judge(measured, calibration, registry=gallery.registry)
        values = {metric: m.value for metric, m in measured.items()}
        bounds = (FORMS[key].bound, form.bound)
        near = None in bounds or all(value is not None and value < max(bounds) for value in values.values())
        if name in form.unseen:
            near = {metric for metric, value in values.items() if value is None} == {"nod", "nad", "lod", "lad"}
        if not near or values.keys() != METRICS or verdict.decision is not Decision.COPY:
            wrong[suspect] = verdict.decision, values
    assert wrong == {}
    measured = measure(suite, observe(gallery.live(name, OTHER), suite), registry=gallery.registry)
    assert judge(measured, calibration, registry=gallery.registry).decision is Decision.INDEPENDENT


def test_keras_3_says_that_it_does_not_read_attention_of_keras_2(gallery: Gallery) -> None:
    need("keras2-h5")
    with refused(ModelError, ".h5: ", "Attention"):
        gallery.model("attention", "keras2-h5")

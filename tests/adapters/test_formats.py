"""The same network is the same network: every format of six architectures, as victim and as suspect of every other."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import places
import pytest
from networks import formats, runtimes
from networks.architectures import ARCHITECTURES, BOUNDS, Architecture
from networks.matrix import FORMS
from refusals import refused

from deepjudge_core import (
    Access,
    Calibration,
    Decision,
    Model,
    Observation,
    Suite,
    build_suite,
    calibrate,
    judge,
    measure,
    observe,
    open_model,
    select_seeds,
)
from deepjudge_core.components.opening import open_network
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import ModelError

VICTIM, OTHER = 21, 40
CONTROLS = range(22, 34)
GENERATORS: Mapping[str, Mapping[str, Any]] = {
    "pgd": {"eps": 0.2, "step": 0.05, "steps": 4},
    "neuron-corners": {"m": 1.2, "step": 0.05, "iterations": 30, "tries": 3, "per_neuron": 2},
}
METRICS = {"robd", "jsd", "nod", "nad", "lod", "lad", "recovery"}
HELD = [
    (name, key) for name, (key, form) in itertools.product(ARCHITECTURES, FORMS.items()) if name not in form.without
]
LIVE = "torch" if find_spec("torch") else "keras"


def _makers() -> Iterator[tuple[str, str]]:
    # Gradients are held against one another for all. Suites of each framework are made from all architectures, and of
    # each format from some.
    for row, (key, form) in enumerate(FORMS.items()):
        names = [name for name in ARCHITECTURES if name not in form.without and form.gradients]
        whole = len(names) < 3 or key in ("torch", "keras", "onnx-dynamo")
        yield from ((name, key) for place, name in enumerate(names) if whole or (row + place) % 3 == 0)


VICTIMS = sorted(_makers(), key=HELD.index)


class Gallery:
    """Models by architecture, form and seed, each made and opened once."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.registry = registry
        self._folder = folder
        self._sources: dict[tuple[str, str, int], Any] = {}
        self._models: dict[tuple[str, str, int], Model] = {}

    def source(self, name: str, key: str, seed: int = VICTIM) -> Any:
        if (name, key, seed) not in self._sources:
            path = self._folder / f"{name}-{key}-{seed}"
            self._sources[name, key, seed] = FORMS[key].build(name, seed, path)
        return self._sources[name, key, seed]

    def model(self, name: str, key: str, seed: int = VICTIM) -> Model:
        if (name, key, seed) not in self._models:
            source, options = self.source(name, key, seed), FORMS[key].options(name)
            self._models[name, key, seed] = open_model(source, registry=self.registry, **options)
        return self._models[name, key, seed]

    def live(self, name: str, seed: int = VICTIM) -> Model:
        """In the form that is made fastest."""
        return self.model(name, LIVE, seed)

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

    def controls(self, name: str) -> list[Model]:
        if LIVE != "torch":
            return [self.live(name, seed) for seed in CONTROLS]
        # Exported once, and given other weights: exporting each takes longer than all else that is asked of it.
        network = open_network(self.source(name, LIVE, VICTIM), registry=self.registry, **FORMS[LIVE].options(name))
        by_seed = {seed: ARCHITECTURES[name].weights(seed) for seed in CONTROLS}
        return [
            network.architecture.model({own: weights[own] for own in network.weights}, name=str(seed))
            for seed, weights in by_seed.items()
        ]

    def calibration(self, name: str, suite: Suite) -> Calibration:
        controls = [observe(control, suite) for control in self.controls(name)]
        return calibrate(suite, controls, far=True, registry=self.registry)


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
    if name == "conv2d" and model.parameters is not None:
        assert model.parameters == sum(array.size for array in architecture.weights(VICTIM).values())
    # Those of a SavedModel, of OpenVINO and TFLite and quantised ones are not known.
    counts = form.bound is not None and key.startswith(("torch", "onnx", "keras", "tfjs")) and key != "keras-saved"
    assert (model.parameters is not None) is counts
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
        with refused(ModelError, "no gradients"):
            model.gradient(arranged, lambda scores, rows: scores)


@pytest.mark.parametrize(("name", "key"), HELD)
def test_predictions_are_those_of_its_own_runtime(name: str, key: str, gallery: Gallery) -> None:
    need(key)
    if (name, key) == ("attention", "onnx-keras"):
        pytest.skip("tf2onnx writes an operation that ONNX Runtime does not have, and the adapter replaces")
    model, x = gallery.model(name, key), ARCHITECTURES[name].inputs(50)
    arranged = ARCHITECTURES[name].arranged(x, model.input.shape)
    expected = runtimes.answers(gallery.source(name, key), name, VICTIM, arranged, model.classes)
    close = 1e-2 if FORMS[key].bound == 1e-2 else 1e-5
    np.testing.assert_allclose(model.predict(arranged), expected, rtol=0, atol=close)


@pytest.mark.skipif(not places.VICTIMS.is_dir(), reason="the authors' victims are not on this machine")
@pytest.mark.parametrize("file", ["mnist_lenet5.h5", "cifar10_resnet20.h5"])
def test_predictions_of_real_files_are_those_of_their_runtime(file: str, registry: Registry, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    network = keras.models.load_model(places.VICTIMS / file, compile=False)
    x = np.random.default_rng(0).random((20, *network.input_shape[1:]), np.float32)
    expected = network([x], training=False).numpy()
    sources = {"h5": places.VICTIMS / file, "keras": tmp_path / "model.keras", "saved": tmp_path / "saved"}
    with formats.silenced(formats.COPIES):
        network.save(sources["keras"])
    network.export(sources["saved"], verbose=False)
    if all(map(find_spec, ("openvino", "tf2onnx"))):
        import tensorflow as tf
        from deepjudge_openvino.runtime import openvino

        sources |= {end: tmp_path / f"model.{end}" for end in ("onnx", "xml", "tflite")}
        with formats.silenced((r"In the future `np\.object` will be defined", FutureWarning)):
            network.export(sources["onnx"], format="onnx", verbose=False)
        openvino.save_model(openvino.Core().read_model(sources["onnx"]), sources["xml"], compress_to_fp16=False)
        sources["tflite"].write_bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    for source in sources.values():
        np.testing.assert_allclose(open_model(source, registry=registry).predict(x), expected, rtol=0, atol=1e-5)


def gradient(architecture: Architecture, model: Model, x: np.ndarray, place: int) -> np.ndarray:
    """At one of its layers, channels first."""

    def cotangent(scores: np.ndarray, rows: slice) -> np.ndarray:
        return np.cos(np.arange(scores.size)).reshape(scores.shape)

    arranged, layer = architecture.arranged(x, model.input.shape), list(model.layers)[place]
    result = model.gradient(arranged, cotangent, layer=layer)
    return result if model.input.shape == architecture.shape else np.moveaxis(result, -1, 1)


def same(actual: np.ndarray, expected: np.ndarray, close: float) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=close * float(np.abs(expected).max()))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_network_is_a_copy_of_itself_in_every_format(name: str, gallery: Gallery) -> None:
    key = LIVE
    need(key)
    suite = gallery.suite(name, key)
    calibration, wrong = gallery.calibration(name, suite), {}
    observations = {one: observe(gallery.model(name, one), suite) for one in held(name)}
    for suspect, observation in observations.items():
        form, measured = FORMS[suspect], measure(suite, observation, registry=gallery.registry)
        verdict = judge(measured, calibration, registry=gallery.registry)
        if name in form.unseen:
            # The controls are random networks, whose behaviour alone accuses nobody: the votes are what there is.
            is_copy = all(verdict.metrics[metric].vote.vote for metric in ("robd", "jsd"))
        else:
            is_copy = verdict.decision is Decision.COPY
        if not is_copy:
            wrong[suspect] = verdict.decision
    assert wrong == {}
    measured = measure(suite, observe(gallery.live(name, OTHER), suite), registry=gallery.registry)
    assert judge(measured, calibration, registry=gallery.registry).decision is Decision.INDEPENDENT
    # As anybody's victim: of any two, what one answers to the cases beside what the other does.
    far = {}
    for victim, suspect in itertools.combinations(observations, 2):
        if name not in FORMS[victim].unseen:
            values = distances(suite, observations[victim], observations[suspect], gallery.registry)
            if not near(name, victim, suspect, values):
                far[victim, suspect] = values
    assert far == {}


@pytest.mark.parametrize(("name", "key"), VICTIMS)
def test_every_format_with_gradients_makes_a_suite(name: str, key: str, gallery: Gallery) -> None:
    need(key)
    suite = gallery.suite(name, key)
    for suspect in {key, LIVE}:
        measured = measure(suite, observe(gallery.model(name, suspect), suite), registry=gallery.registry)
        assert near(name, key, suspect, {metric: m.value for metric, m in measured.items()})


def held(name: str) -> list[str]:
    return [key for key, form in FORMS.items() if name not in form.without and not missing(key)]


def distances(suite: Suite, victim: Observation, suspect: Observation, registry: Registry) -> dict[str, float | None]:
    """Those of one model's answers to a suite, with another's in the place of the victim's."""
    beside = dataclasses.replace(suite, victim=dataclasses.replace(victim, suite=""))
    measured = measure(beside, dataclasses.replace(suspect, suite=beside.digest), registry=registry)
    return {metric: m.value for metric, m in measured.items()}


def near(name: str, victim: str, suspect: str, values: Mapping[str, float | None]) -> bool:
    if name in FORMS[suspect].unseen:
        # Neurons are recovered from the layers that can be seen, if there are any.
        return {metric for metric, value in values.items() if value is None} - {"recovery"} == METRICS - {
            *("robd", "jsd", "recovery")
        }
    bounds = FORMS[victim].bound, FORMS[suspect].bound
    close = None in bounds or all(value is not None and value < max(bounds) for value in values.values())
    return close and values.keys() == METRICS

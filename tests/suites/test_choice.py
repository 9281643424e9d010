"""Which generators are run where nobody names any: by what the victim gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused

from deepjudge_core import build_suite, load_registry, measure, observe, open_model
from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.auditing.session import Session
from deepjudge_core.components.values import Seeds
from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.models.model import Access
from deepjudge_core.suites.inputs import Inputs
from deepjudge_core.suites.settings import SuiteSettings
from deepjudge_core.suites.suite import Suite
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.types import Array

REGISTRY = load_registry()
SHAPE = (6,)


class Zero(NumpyModel):
    """Says that it has gradients, as a graph that rounds does; all are 0."""

    def gradient(self, x: Array, *arguments: Any, **options: Any) -> Array:
        return np.zeros_like(x)


class Without(NumpyModel):
    """Has none, and says why."""

    def gradient(self, x: Array, *arguments: Any, **options: Any) -> Array:
        raise ModelError(f"{self.name}: no gradients through a forest")


def suite_of(kind: type[NumpyModel], *, whole: bool = False, access: Access = Access.FULL, **options: Any) -> Suite:
    victim = kind.random(SHAPE, (16, 8), 4, seed=0)
    victim.access, victim.name = access, "victim"
    x = np.random.default_rng(1).random((40, *SHAPE), dtype=np.float32) * 4
    x = np.rint(x) if whole else x
    seeds = Seeds(x, victim.predict(x).argmax(axis=1), np.arange(40), (0.0, 4.0))
    return build_suite(victim, seeds, registry=REGISTRY, **options)


def names(suite: Suite) -> list[str]:
    return [record.name for record in suite.generators]


def test_a_victim_with_gradients_gets_the_usual_ones() -> None:
    suite = suite_of(NumpyModel)
    assert names(suite) == ["pgd", "neuron-corners"]
    assert not any("square" in note for note in suite.notes)


@pytest.mark.parametrize(
    ("kind", "access", "reason"),
    [
        (Without, Access.WHITE_BOX, "through a forest"),
        (Without, Access.FULL, "through a forest"),
        (Zero, Access.FULL, "0"),
        (NumpyModel, Access.BLACK_BOX, "gradients"),
    ],
)
def test_others_get_one_that_needs_answers_alone_with_a_note(
    kind: type[NumpyModel], access: Access, reason: str
) -> None:
    for whole, name in ((False, "square"), (True, "substitutions")):
        suite = suite_of(kind, access=access, whole=whole)
        assert names(suite) == [name]
        assert suite.counts()["adversarial"] >= 30
        [note] = [note for note in suite.notes if name in note]
        assert reason in note
        assert "victim" in note


@pytest.mark.parametrize("said", [["pgd"], ["pgd", "neuron-corners"]])
def test_what_was_asked_for_is_not_replaced(said: list[str]) -> None:
    with refused(ModelError, "through a forest", "square", "substitutions"):
        suite_of(Without, access=Access.WHITE_BOX, generators=said)


def test_options_are_those_of_what_is_run_or_that_is_said() -> None:
    suite = suite_of(Without, options={"neuron-corners": {"m": 1.5}, "pgd": {"eps": 0.1}})
    [note] = [note for note in suite.notes if "square" in note]
    assert all(name in note for name in ("neuron-corners", "pgd"))
    for whole in (False, True):
        suite = suite_of(Without, options={"square": {"eps": 0.35}}, whole=whole)
        [record] = suite.generators
        assert (record.name, record.options["eps"]) == ("square", 0.35)
    with refused(UsageError, "square", "pgd", code="conflict"):
        suite_of(NumpyModel, options={"square": {"eps": 0.1}})
    with refused(UsageError, "epsilon", code="unknown-option"):
        suite_of(Without, options={"square": {"epsilon": 0.1}})


def test_a_forest_in_onnx_gets_cases_that_tell_it_from_others(tmp_path: Path) -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    skl2onnx = pytest.importorskip("skl2onnx")
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    x = rng.random((600, 8), dtype=np.float32)
    y = ((x[:, 0] + x[:, 1] > 1) * 2 + (x[:, 2] > x[:, 3])).astype(np.int64)

    def fit(seed: int, rows: slice) -> Path:
        forest = ensemble.RandomForestClassifier(20, random_state=seed).fit(x[rows], y[rows])
        exported = skl2onnx.to_onnx(forest, x[:1], options={"zipmap": False})
        path = tmp_path / f"{seed}.onnx"
        path.write_bytes(exported.SerializeToString())
        return path

    victim, other = fit(1, slice(200)), fit(2, slice(200, 400))
    session = Session(REGISTRY, sandbox=None)
    suite = make_suite(victim, Inputs(x[400:], y[400:]), SuiteSettings(n=60), session=session)
    assert names(suite) == ["square"]
    distances = {}
    for path in (victim, other):
        observation = observe(open_model(path, registry=REGISTRY), suite)
        measured = measure(suite, observation, registry=REGISTRY)
        distances[path] = measured["robd"].value, measured["jsd"].value
    assert distances[victim] == (0, 0)
    assert min(map(float, distances[other])) > 0.02  # type: ignore[arg-type]

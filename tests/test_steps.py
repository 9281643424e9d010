"""The steps take paths in place of what is stored, either order where there was one, and name what they expected."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from refusals import refused

import deepjudge_core as dj
from deepjudge_core.errors import FileFormatError, WrongTypeError

SESSION = dj.Session(registry=toys.registry(), sandbox=None)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    dj.save_suite(str(folder / "suite.safetensors"), toys.suite())
    dj.save_observation(str(folder / "suspect.safetensors"), toys.seen(42))
    dj.save_calibration(str(folder / "calibration.safetensors"), toys.calibration())
    for seed in (2, 3, 4):
        dj.save_observation(folder / f"control-{seed}.safetensors", toys.seen(seed))
    toys.save_model(folder / "copy.toy")
    model = toys.make_model()
    x, y = toys.make_inputs(model)
    np.savez(folder / "inputs.npz", x=x, y=y)
    return folder


def test_paths_stand_for_what_is_stored(stored: Path) -> None:
    suite, registry = toys.suite(), toys.registry()
    by_path = dj.measure(
        stored / "suite.safetensors", str(stored / "suspect.safetensors"), ["answers"], registry=registry
    )
    assert dj.load_suite(str(stored / "suite.safetensors")).digest == suite.digest
    by_value = dj.measure(suite, toys.seen(42), "answers", registry=registry)
    assert {name: one.value for name, one in by_path.items()} == {name: one.value for name, one in by_value.items()}
    controls = [stored / f"control-{seed}.safetensors" for seed in (2, 3, 4)]
    assert len(dj.calibrate(stored / "suite.safetensors", controls, "answers", registry=registry).controls) == 3
    rule = dj.JudgeSettings(rule="nearest")
    verdicts = [
        dj.judge(measured, calibration, rule, registry=registry)
        for measured in (by_path, by_value)
        for calibration in (stored / "calibration.safetensors", toys.calibration())
    ]
    assert len({verdict.decision for verdict in verdicts}) == 1


def test_a_model_answers_by_its_path_and_in_either_order(stored: Path) -> None:
    suite, model = stored / "suite.safetensors", stored / "copy.toy"
    one, other = dj.observe(model, suite, session=SESSION), dj.observe(suite, model, session=SESSION)
    assert one.digest == other.digest
    live = dj.observe(toys.suite(), toys.make_model())
    np.testing.assert_array_equal(np.asarray(live.probabilities), np.asarray(one.probabilities))


def test_an_audit_by_paths(stored: Path) -> None:
    controls = stored / "controls"
    controls.mkdir()
    for seed in (2, 3, 4):
        toys.save_model(controls / f"{seed}.toy", seed=seed)
    settings = dj.AuditSettings(
        dj.SuiteSettings(n=5, generators=["shove"], force=True),
        judge=dj.JudgeSettings(rule="nearest", metrics=["answers"]),
    )
    outcome = dj.audit(
        stored / "copy.toy",
        stored / "copy.toy",
        str(stored / "inputs.npz"),
        controls=controls,
        settings=settings,
        session=SESSION,
    )
    assert [result.decision for result in outcome.suspects] == [dj.Decision.COPY]
    assert len(outcome.calibration.controls) == 3


MODEL = toys.make_model()
WRONG: list[tuple[Any, tuple[str, ...]]] = [
    (lambda: dj.observe(MODEL, dj.select_seeds(MODEL, *toys.make_inputs(MODEL), n=5)), ("suite", "Suite", "Seeds")),
    (lambda: dj.observe(None, toys.suite()), ("model", "None")),
    (lambda: dj.observe(MODEL, toys.suite(), {"classes": [1]}), ("asking", "QuerySettings", "dict")),
    (lambda: dj.measure(toys.suite(), {}), ("observation", "Observation", "dict")),
    (lambda: dj.measure(toys.seen(2), toys.suite()), ("suite", "Observation")),
    (lambda: dj.calibrate(toys.suite(), toys.seen(2)), ("controls", "list")),
    (lambda: dj.calibrate(toys.suite(), "a.safetensors"), ("controls", "list", "str")),
    (lambda: dj.judge(toys.seen(2), toys.calibration()), ("measurements", "measure(")),
    (lambda: dj.judge(dj.measure(toys.suite(), toys.seen(2)), [toys.seen(3)]), ("calibration", "list")),
    (lambda: dj.make_suite(MODEL, np.zeros((3, 4))), ("inputs", "Inputs", "numpy.ndarray")),
    (lambda: dj.make_suite(MODEL, toys.make_inputs(MODEL)), ("inputs", "tuple")),
    (lambda: dj.make_suite(toys.suite(), dj.Inputs(*toys.make_inputs(MODEL))), ("victim", "Suite")),
    (lambda: dj.audit(MODEL, [toys.suite()], dj.Inputs(*toys.make_inputs(MODEL))), ("suspects", "Suite")),
    (lambda: dj.power(toys.suite(), 7), ("zoo", "int")),
]


@pytest.mark.parametrize(("call", "facts"), WRONG)
def test_what_is_of_another_kind_is_named(call: Any, facts: tuple[str, ...]) -> None:
    with refused(WrongTypeError, *facts, code="wrong-type") as caught:
        call()
    assert isinstance(caught.value, TypeError)


def test_a_path_to_something_else_is_a_damaged_file_and_no_crash(stored: Path) -> None:
    with refused(FileFormatError, "suspect.safetensors", code="wrong-file"):
        dj.measure(stored / "suspect.safetensors", stored / "suspect.safetensors")

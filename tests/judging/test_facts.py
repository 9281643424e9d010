"""A suspect that is the victim is a copy without statistics, and no honest model is one so."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toys

from deepjudge_core import Access, JudgeSettings, Observation, load_registry
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import Calibration, calibrate
from deepjudge_core.judging.facts import ROUNDING, same_files, same_model
from deepjudge_core.suites.suite import Suite

NO_CONTROLS = toys.calibration(0)


def twin(shift: float = 0.0, **changes: Any) -> Observation:
    """The victim in another format: other bytes, and all numbers moved by rounding."""
    seen = toys.seen(0)
    model = replace(seen.model, digest="f" * 64, **changes.pop("model", {}))
    probabilities = seen.probabilities + np.float32(shift)
    scaled = {layer: a + np.float32(shift * np.abs(a).max()) for layer, a in seen.activations.items()}
    return replace(seen, **{"model": model, "probabilities": probabilities, "activations": scaled} | changes)


def fact(suspect: Observation, suite: Suite | None = None, by: Calibration = NO_CONTROLS) -> bool:
    return same_model(suite or toys.suite(), suspect, by) is not None


def with_victim(change: Any) -> tuple[Suite, Observation]:
    """A suite whose victim answers otherwise, and a model that answers just as it does."""
    victim = toys.suite().victim
    suite = replace(toys.suite(), victim=replace(victim, **change(victim)))
    answers = {"probabilities": suite.victim.probabilities, "activations": suite.victim.activations}
    return suite, twin(**answers)


def test_answers_and_layers_that_agree_to_rounding() -> None:
    assert fact(twin())
    assert fact(twin(0.4 * ROUNDING))
    assert not fact(twin(2 * ROUNDING))


@pytest.mark.parametrize("seed", range(1, 9))
def test_honest_models_are_no_copies_by_facts(seed: int) -> None:
    assert not fact(toys.seen(seed))


@pytest.mark.parametrize(
    "changes",
    [
        {"activations": {}, "unmatched": "no layer corresponds to"},
        {"activations": toys.seen(1).activations},
        {"probabilities": toys.seen(1).probabilities},
        {"probabilities": None, "unmapped": "other classes"},
        {"model": {"access": Access.LABELS | Access.LAYERS}},
        {"unsteady": "labels of 1 case changed"},
    ],
)
def test_what_does_not_agree_or_is_not_seen(changes: dict[str, Any]) -> None:
    assert not fact(twin(**changes))


def nearly_constant(victim: Observation) -> dict[str, Any]:
    jitter = np.random.default_rng(0).uniform(-1e-4, 1e-4, len(victim.probabilities))
    answers = np.full_like(victim.probabilities, 0.25)
    answers[:, 0] += jitter
    answers[:, 1] -= jitter
    return {"probabilities": answers}


def saturated(victim: Observation) -> dict[str, Any]:
    sure = np.full_like(victim.probabilities, 1e-6)
    sure[np.arange(len(sure)), victim.probabilities.argmax(axis=1)] = 1 - 3e-6
    return {"probabilities": sure}


def dead(victim: Observation) -> dict[str, Any]:
    return {"activations": {layer: np.zeros_like(a) for layer, a in victim.activations.items()}}


def binary(victim: Observation) -> dict[str, Any]:
    return {"activations": {layer: np.sign(a - a.mean()) for layer, a in victim.activations.items()}}


@pytest.mark.parametrize("change", [nearly_constant, saturated, dead, binary])
def test_answers_that_honest_models_give_too_say_nothing(change: Any) -> None:
    suite, suspect = with_victim(change)
    assert not fact(suspect, suite)


def test_a_layer_that_a_control_shares_says_nothing() -> None:
    frozen = replace(toys.seen(1), activations=toys.seen(0).activations)
    by = calibrate(toys.suite(), [frozen, toys.seen(2), toys.seen(3)], registry=toys.registry())
    assert not fact(twin(), by=by)
    assert fact(twin(), by=toys.calibration())


def test_files_that_are_the_victims() -> None:
    suite, one = toys.suite(), {"a.onnx": "1" * 64, "a.data": "2" * 64}
    victim = replace(suite.victim.model, files=one, digest="3" * 64)
    other = replace(toys.seen(5).model, digest="4" * 64)
    assert same_files(victim, replace(other, files=one))
    assert same_files(victim, replace(other, files=one | {".gitattributes": "5" * 64}))
    assert not same_files(victim, replace(other, files=one | {"a.data": "5" * 64}))
    # What a LoRA changes belongs to the model: without it, nobody knows what the model is.
    lora = {"adapter_config.json": "6" * 64, "adapter_model.safetensors": "7" * 64}
    based, elsewhere = (replace(victim, files=lora | {"base": digit * 64}) for digit in "89")
    assert same_files(based, based)
    assert not same_files(based, replace(elsewhere, digest="a" * 64))
    assert not same_files(replace(victim, files=lora), replace(victim, files=lora))
    assert not same_files(victim, other)
    # Whatever it answers, as where it is not asked as it expects.
    suite = replace(suite, victim=replace(suite.victim, model=victim))
    assert fact(replace(toys.seen(5), model=replace(other, files=one)), suite)


def test_the_weights_of_live_models() -> None:
    same = toys.seen(0)
    assert same.model.digest == toys.suite().victim.model.digest
    assert fact(replace(same, activations={}, unmatched="unseen"))
    assert not fact(replace(same, probabilities=toys.seen(1).probabilities))  # one that holds no weights


@pytest.mark.parametrize("rule", [{}, {"groups": "joint"}])
def test_such_a_suspect_is_a_copy_without_controls(rule: dict[str, Any]) -> None:
    settings = JudgeSettings(rule="nearest", **rule)
    suspects = [toys.make_model(name="mine"), toys.make_model(5)]
    found = toys.outcome(toys.suite(), NO_CONTROLS, suspects, settings, registry=toys.registry())
    copy, honest = (result.verdict for result in found.suspects)
    assert copy is not None
    assert honest is not None
    assert (copy.decision, copy.points_to) == (Decision.COPY, "weights")
    assert copy.reason
    assert honest.decision is Decision.INCONCLUSIVE


def test_files_that_are_the_victims_are_asked_nothing() -> None:
    model, files = toys.make_model(name="mine"), {".": toys.make_model().digest}
    model.files = files
    victim = toys.suite().victim
    suite = replace(toys.suite(), victim=replace(victim, model=replace(victim.model, files=files)))
    settings = JudgeSettings(rule="prediction-bound", sequential=True)
    by = calibrate(suite, [], registry=toys.registry())
    [result] = toys.outcome(suite, by, [toys.Toy(model)], settings, registry=load_registry({"toys": toys})).suspects
    assert (result.decision, result.sequential) == (Decision.COPY, None)
    assert result.verdict is not None
    assert result.verdict.points_to == "weights"


def test_layers_of_another_architecture_are_no_reason_to_be_inconclusive() -> None:
    narrow = toys.make_model(5, widths=(3,))
    unseen = toys.make_model(5, access=Access.BLACK_BOX)
    for model in (narrow, unseen):
        for groups in ("separate", "joint"):
            free, demanding = (
                toys.outcome(
                    toys.suite(),
                    toys.calibration(),
                    [model],
                    JudgeSettings(rule="nearest", groups=groups, require_layers=required),
                    registry=toys.registry(),
                )
                .suspects[0]
                .verdict
                for required in (False, True)
            )
            assert free is not None
            assert demanding is not None
            assert free.decision is Decision.INDEPENDENT
            assert str(free.metrics["outputs"].reason) in str(free.reason)
            assert free.settings["white-box"].decision is None
            assert demanding.decision is Decision.INCONCLUSIVE
            assert demanding.reason

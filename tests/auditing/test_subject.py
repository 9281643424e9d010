"""What is looked at: files, live models, and answers that were stored."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toys

from deepjudge_core import (
    DeepJudgeError,
    Inputs,
    Isolation,
    LiveModel,
    Model,
    ModelFile,
    QuerySettings,
    Session,
    Subject,
    observe,
    open_model,
    save_observation,
)
from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.auditing.subject import KnownAnswers, ObservationFile
from deepjudge_core.errors import UsageError
from deepjudge_core.suites.generation import SuiteSettings

MEMBERS = ("name", "framework", "digest", "access", "input", "classes", "layers", "predict", "activations", "gradient")


def duck(**more: Any) -> Any:
    """An object that has what a classifier needs, and no base."""
    model = toys.make_model(3)
    return SimpleNamespace(**{member: getattr(model, member) for member in MEMBERS}, **more)


def test_each_source_is_a_subject_of_its_own_kind(tmp_path: Path) -> None:
    path = toys.save_model(tmp_path / "m.toy", seed=3)
    stored = tmp_path / "o.safetensors"
    save_observation(stored, toys.seen(3))
    query, options = QuerySettings(infer=False), {"name": "x"}
    sources = [path, str(path), tmp_path / "none.toy", toys.Toy(toys.make_model(3)), stored, toys.seen(3)]
    subjects = [Subject.of(source, query=query, options=options, stratum="same-data") for source in sources]
    assert [(type(s), s.name, s.stored) for s in subjects] == [
        (ModelFile, str(path), False),
        (ModelFile, str(path), False),
        (ModelFile, str(tmp_path / "none.toy"), False),
        (LiveModel, "x", False),
        (ObservationFile, str(stored), True),
        (KnownAnswers, "toy-3", True),
    ]
    assert all((s.query, s.stratum) == (query, "same-data") for s in subjects)
    assert all(Subject.of(subject) is subject for subject in subjects)
    session = Session(toys.registry(), None)
    for subject in subjects:
        if subject.name.endswith("none.toy"):
            continue
        with subject.answering(toys.suite(), session) as answer:
            observation = answer()
        np.testing.assert_allclose(observation.probabilities, toys.seen(3).probabilities, atol=1e-6)
        with subject.labelling(toys.suite(), session) as (model, label, *_):
            assert model.digest == toys.seen(3).model.digest
            assert [label(row) for row in range(5)] == observation.probabilities[:5].argmax(axis=1).tolist()


@pytest.mark.parametrize("source", ["file", "memory"])
def test_stored_answers_are_no_victim(source: str, tmp_path: Path) -> None:
    save_observation(tmp_path / "o.safetensors", toys.seen(3))
    victim = tmp_path / "o.safetensors" if source == "file" else toys.seen(3)
    x, y = toys.make_inputs(toys.make_model())
    settings = SuiteSettings(n=20, generators=["shove"])
    with pytest.raises(UsageError) as caught:
        make_suite(victim, Inputs(x, y), settings, session=Session(toys.registry()))
    assert ("o.safetensors" if source == "file" else "toy-3") in str(caught.value)


def test_an_object_with_the_members_of_a_classifier_alone_is_a_model() -> None:
    plain = observe(duck(), toys.suite())
    assert (plain.model.isolation, plain.model.device, plain.model.files) == (Isolation.NONE, None, {})
    np.testing.assert_array_equal(plain.probabilities, toys.seen(3).probabilities)
    observation = observe(duck(device="an abacus", fixed_batch=1), toys.suite())
    assert observation.model.device == "an abacus"
    opened = open_model(duck(), registry=toys.registry())
    assert isinstance(opened, Model)
    assert (opened.unseen, opened.fixed_batch, opened.isolation) == (None, None, Isolation.NONE)
    outcome = toys.outcome(
        toys.suite(), toys.calibration(5), [duck()], toys.JudgeSettings(rule="nearest"), registry=toys.registry()
    )
    assert str(outcome.suspects[0].failure).startswith("toy-3: expected a suspect, found the control")
    victim = toys.make_model()
    x, y = toys.make_inputs(victim)
    owner = SimpleNamespace(**{member: getattr(victim, member) for member in MEMBERS})
    suite = make_suite(owner, Inputs(x, y), SuiteSettings(n=20, generators=["shove"]), session=Session(toys.registry()))
    assert suite.victim.model.digest == victim.digest


def test_an_object_that_lacks_one_is_none() -> None:
    model = duck()
    del model.gradient
    with pytest.raises(DeepJudgeError):
        open_model(model, registry=toys.registry())

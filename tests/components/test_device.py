"""Which device a model runs on: what adapters are told, and what is refused before anything is opened."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from refusals import refused

import deepjudge_core as dj
from deepjudge_core.auditing.audit import ask_controls, audit, judge_suspects
from deepjudge_core.auditing.identity import identify
from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import DeepJudgeError, MissingExtraError, ModelError, UsageError
from deepjudge_core.fleets.planning import Fleet
from deepjudge_core.fleets.store import Store
from deepjudge_core.fleets.work import perform
from deepjudge_core.models.adapters import Extra
from deepjudge_core.models.model import Model
from deepjudge_core.models.network import Network
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.testing import NumpyArchitecture

GPUS = 2


class Chip:
    """A framework with two GPUs, which notes what it was told."""

    def __init__(self, **changes: Any) -> None:
        self.told: list[str | None] = []
        self.adapter = Adapter(
            "chip", (".chip",), lambda source: isinstance(source, Source), self.open, cuda=self.sees, **changes
        )

    @hookimpl
    def deepjudge_adapters(self) -> list[Adapter]:
        """Give the adapter."""
        return [self.adapter]

    @staticmethod
    def sees(number: int) -> bool:
        return number < GPUS

    def open(self, source: Any, *, name: str | None = None, device: str | None = None) -> Model:
        self.told.append(device)
        model = toys.make_model(name=name)
        model.device = device
        return model

    def network(self, source: Any, *, name: str | None = None, device: str | None = None) -> Network:
        self.told.append(device)
        architecture = NumpyArchitecture(toys.SHAPE, toys.WIDTHS, toys.CLASSES)
        return Network(architecture, architecture.initial(np.random.default_rng(0)))


class Source:
    """A live model of it."""


def registry_of(chip: Chip, **changes: Any) -> Registry:
    chip.adapter = replace(chip.adapter, **changes)
    return toys.registry_of(toys=toys, chip=chip)


@pytest.mark.parametrize(
    ("asked", "told"),
    [(None, None), ("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1"), ("auto", "cuda:0")],
)
def test_an_adapter_is_told_which_device(asked: str | None, told: str | None) -> None:
    chip = Chip()
    registry = registry_of(chip, network=chip.network)
    dj.open_model(Source(), registry=registry, device=asked)
    dj.open_network(Source(), registry=registry, device=asked)
    assert chip.told == [told, told]


def test_auto_is_the_processor_if_there_is_no_gpu() -> None:
    chip = Chip()
    model = dj.open_model(Source(), registry=registry_of(chip, cuda=lambda number: False), device="auto")
    assert (chip.told, model.device) == (["cpu"], "cpu")


@pytest.mark.parametrize(
    ("asked", "kind", "code", "facts"),
    [
        ("cuda:2", ModelError, "no-device", ("cuda:2", "chip", "cpu")),
        ("gpu", UsageError, "wrong-value", ("'gpu'", "cuda:N")),
        ("cuda:", UsageError, "wrong-value", ("'cuda:'",)),
        ("cuda:-1", UsageError, "wrong-value", ("'cuda:-1'",)),
        ("", UsageError, "wrong-value", ("''",)),
    ],
)
def test_a_device_that_is_absent_is_refused_before_anything_is_opened(
    asked: str, kind: type[DeepJudgeError], code: str, facts: tuple[str, ...]
) -> None:
    chip = Chip()
    registry = registry_of(chip, network=chip.network)
    for opener in (dj.open_model, dj.open_network):
        with refused(kind, *facts, code=code):
            opener(Source(), registry=registry, device=asked)
    assert chip.told == []


def test_a_missing_framework_is_said_before_its_gpus_are_looked_for() -> None:
    chip = Chip()
    registry = registry_of(chip, extra=Extra("Chip", "chip", ("no_such_module",)), cuda=lambda number: 1 / 0)
    with refused(MissingExtraError, "Chip"):
        dj.open_model(Source(), registry=registry, device="cuda")
    dj.open_model(Source(), registry=registry, device="cpu")


def test_an_adapter_without_a_choice_keeps_working(tmp_path: Path) -> None:
    file, registry = toys.save_model(tmp_path / "m.toy"), toys.registry()
    for asked in (None, "cpu", "auto"):
        assert dj.open_model(file, registry=registry, device=asked).device is None
    with refused(ModelError, file, "toy", code="no-device"):
        dj.open_model(file, registry=registry, device="cuda")


def test_a_network_of_an_adapter_without_a_choice_does_not_train_elsewhere() -> None:
    chip = Chip()

    def network(source: Any, *, name: str | None = None) -> Network:
        return chip.network(source)

    registry = registry_of(chip, network=network)
    with refused(ModelError, "chip", code="no-device"):
        dj.open_network(Source(), registry=registry, device="cuda")
    assert isinstance(dj.open_network(Source(), registry=registry, device="cpu"), Network)


def test_what_is_open_already_stays_where_it_is() -> None:
    model = toys.make_model()
    assert dj.open_model(model) is model
    with refused(ModelError, "cpu", code="no-device"):
        dj.open_model(model, device="cpu")


def test_a_model_that_answers_elsewhere_says_that_the_choice_does_not_apply() -> None:
    chip = Chip()
    registry = registry_of(chip, remote=True)
    notes = {asked: dj.open_model(Source(), registry=registry, device=asked).notes for asked in ("cpu", "auto", "cuda")}
    assert {asked: len(lines) for asked, lines in notes.items()} == {"cpu": 0, "auto": 0, "cuda": 1}
    assert chip.told == [None] * 3


def test_a_model_in_the_sandbox_has_no_gpu(tmp_path: Path) -> None:
    file = toys.save_model(tmp_path / "m.toy")
    for asked in ("cuda", "cuda:1"):
        with refused(UsageError, asked, "sandbox=None", "cpu", code="conflict"):
            dj.Session(device=asked)
        with refused(UsageError, asked, code="conflict"):
            Confinement(device=asked)
        with refused(UsageError, asked, code="conflict"), dj.open_isolated(file, device=asked):
            pass
    with refused(UsageError, "'tpu'", code="wrong-value"):
        dj.Session(device="tpu")
    assert dj.Session(sandbox=None, device="cuda").device == "cuda"
    assert Confinement(use=False, device="cuda").policy is None
    assert dj.Session(device="auto").sandbox is not None


def suite_and_session(chip: Chip, device: str) -> tuple[dj.Suite, dj.Session]:
    return toys.suite(), dj.Session(registry_of(chip), None, device=device)


def test_files_of_a_session_run_on_its_device(tmp_path: Path) -> None:
    chip = Chip()
    suite, session = suite_and_session(chip, "cuda:1")
    file = tmp_path / "m.chip"
    file.write_text("a model")
    observation = dj.observe(file, suite, session=session)
    assert (chip.told, observation.model.device) == (["cuda:1"], "cuda:1")
    dj.observe(Source(), suite, session=session)  # a live one runs where it is
    assert chip.told[1:] == [None]


def test_one_file_of_a_session_may_run_elsewhere(tmp_path: Path) -> None:
    chip = Chip()
    suite, session = suite_and_session(chip, "cpu")
    file = tmp_path / "m.chip"
    file.write_text("a model")
    dj.observe(dj.Subject.of(file, options={"device": "cuda"}), suite, session=session)
    assert chip.told == ["cuda:0"]
    confined = dj.Session(session.registry)
    with refused(UsageError, "cuda", code="conflict"):
        dj.observe(dj.Subject.of(file, options={"device": "cuda"}), suite, session=confined)


def test_an_absent_device_ends_the_run_before_the_first_suspect(tmp_path: Path) -> None:
    chip = Chip()
    suite, session = suite_and_session(chip, "cuda:9")
    files = [tmp_path / f"{n}.chip" for n in range(3)]
    for file in files:
        file.write_text("a model")
    judge = dj.Judge.of(dj.JudgeSettings(rule="nearest"), session.registry)
    with refused(ModelError, "cuda:9", "0.chip", code="no-device"):
        judge_suspects(suite, toys.calibration(), files, judge, session=session)
    with refused(ModelError, "cuda:9", "0.chip", code="no-device"):
        ask_controls(suite, files, session=session)
    with refused(ModelError, "cuda:9", "0.chip", code="no-device"):
        audit(toys.make_model(), files, None, settings=dj.AuditSettings(judge=judge), session=session)
    assert chip.told == []


def test_answers_from_another_device_are_not_reused(tmp_path: Path) -> None:
    file = tmp_path / "m.chip"
    file.write_text("a model")
    registry = registry_of(Chip())
    subject = dj.ModelFile(file)
    digests = {
        device: identify(subject, dj.Session(registry, None, device=device)).settings_digest
        for device in ("cpu", "cuda:0", "cuda:1")
    }
    assert len(set(digests.values())) == 3


def test_a_fleet_runs_on_the_device_of_its_session(tmp_path: Path) -> None:
    chip = Chip()
    suite, session = suite_and_session(chip, "cuda:1")
    file = tmp_path / "m.chip"
    file.write_text("a model")
    with Store(tmp_path / "results") as store:
        store.keep_suite(suite, tmp_path / "suite.safetensors")
        [(_, task)] = Fleet([dj.ModelFile(file)], session).tasks(suite.digest, store)
    assert task is not None
    assert perform(task, suite, registry=session.registry).status == "answered"
    # On a machine without it, another try is left.
    elsewhere = perform(replace(task, device="cuda:5"), suite, registry=session.registry)
    assert (elsewhere.status, elsewhere.code) == ("undone", "no-device")
    assert chip.told == ["cuda:1"]

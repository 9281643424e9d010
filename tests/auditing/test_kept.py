"""Answers that are kept, so that an interrupted run does not ask again."""

import hashlib
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toys
from commands import HOW, MADE, Cli

from deepjudge_core import (
    ModelFile,
    Observation,
    QuerySettings,
    Session,
    load_observation,
    load_suite,
    observe,
    open_model,
    save_observation,
)
from deepjudge_core.auditing.kept import _as_made, _place, _tell_if_outdated, recalled
from deepjudge_core.sandbox.policy import Sandbox

JUDGE = ("judge", "s.safetensors", "up", "--calibration", "c.safetensors", *HOW)
RESUME = (*JUDGE, "--resume", "kept")


@pytest.fixture
def ready(cli: Cli) -> Cli:
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
    assert cli("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0
    Path("up").mkdir()
    for seed in range(11, 17):
        toys.save_model(Path(f"up/u{seed}.toy"), seed=seed)
    shutil.copy("copy.toy", "up/u13.toy")
    Path("up/u14.toy").write_text("{")
    return cli


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are opened, in turn."""
    names: list[str] = []
    opening = toys._open

    def count(source: Path, **options: Any) -> Any:
        names.append(Path(source).name)
        if len(names) == 5 and not hasattr(count, "done"):
            count.done = True  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return opening(source, **options)

    monkeypatch.setattr(toys, "_open", count)
    return names


def test_an_interrupted_run_goes_on_where_it_was(ready: Cli, opened: list[str]) -> None:
    whole = ["u11.toy", "u12.toy", "u13.toy", "u14.toy", "u15.toy", "u16.toy"]
    status, _, err = ready(*RESUME)
    assert (status, opened) == (130, whole[:5])
    assert "kept" in err
    opened.clear()
    # What has failed is asked again, since it may have been a matter of that day.
    assert ready(*RESUME, "--json", "r.json")[0] == 1
    assert opened == whole[3:]
    opened.clear()
    status, out, _ = ready(*RESUME, "--json", "r.json")
    assert (status, opened) == (1, ["u14.toy"])
    assert "5 of 6" in out
    opened.clear()
    assert ready(*JUDGE, "--json", "again.json")[0] == 1
    assert opened == whole
    assert Path("r.json").read_bytes() == Path("again.json").read_bytes()
    assert "--resume" in ready_to_stop(ready)


def ready_to_stop(ready: Cli) -> str:
    def stop(source: Path, **options: Any) -> Any:
        raise KeyboardInterrupt

    ready.monkeypatch.setattr(toys, "_open", stop)
    status, _, err = ready(*JUDGE)
    assert status == 130
    return err


def test_only_the_same_model_asked_in_the_same_way_is_recalled(ready: Cli) -> None:
    suite, path = load_suite(Path("s.safetensors")), Path("up/u11.toy")
    session = Session(toys.registry(), sandbox=None, kept=Path("kept"))

    def stored(subject: ModelFile, session: Session = session) -> bool:
        [found] = recalled([subject], suite, session)
        return found.stored

    def ask(subject: ModelFile) -> None:
        [found] = recalled([subject], suite, session)
        with found.answering(suite, session) as answer:
            answer()

    subject = ModelFile(path)
    assert not stored(subject)
    ask(subject)
    assert stored(subject)
    assert not stored(subject, replace(session, kept=None))
    assert not stored(ModelFile(path, {"output": "2"}))
    assert not stored(ModelFile(path, query=QuerySettings(infer=False)))
    # The same bytes under another name are called by that.
    shutil.copy(path, "other.toy")
    [found] = recalled([ModelFile("other.toy")], suite, session)
    assert (found.stored, found.name) == (True, "other.toy")
    Path("link.toy").symlink_to("other.toy")
    assert not stored(ModelFile("link.toy"))
    # Other bytes, and a file of answers that is damaged or not these.
    [kept] = Path("kept").iterdir()
    whole = kept.read_bytes()
    assert load_observation(kept).model.name == str(path)
    kept.write_bytes(whole[:-1])
    with pytest.warns(UserWarning, match=kept.name):
        assert not stored(subject)
    ask(subject)
    assert kept.read_bytes() == whole
    toys.save_model(path, seed=12)
    assert not stored(subject)


def test_answers_under_the_name_of_another_model_are_not_its_own(ready: Cli) -> None:
    suite = load_suite(Path("s.safetensors"))
    session = Session(toys.registry(), kept=Path("kept"))  # with the sandbox, where the digest is that of the file
    one, other = ModelFile("up/u11.toy"), ModelFile("up/u12.toy")
    Path("kept").mkdir()

    def answers(name: str) -> Observation:
        observation = observe(open_model(name, registry=toys.registry()), suite)
        digest = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        return replace(observation, model=replace(observation.model, digest=digest, files={}))

    def keep(subject: ModelFile, observation: Observation) -> Path:
        [kept] = recalled([subject], suite, session)
        place = _place(Path("kept"), kept.key, observation.digest)  # type: ignore[attr-defined]
        save_observation(place, observation)
        return place

    keep(one, answers("up/u11.toy"))
    [found] = recalled([one], suite, session)
    assert found.stored
    # Not if the full sandbox is required by now, and these were given without.
    with pytest.warns(UserWarning, match="kept"):
        [found] = recalled([one], suite, replace(session, sandbox=Sandbox(required=True)))
    assert not found.stored
    place = keep(other, answers("up/u11.toy"))
    with pytest.warns(UserWarning, match=place.name):
        [found] = recalled([other], suite, session)
    assert not found.stored
    assert not place.exists()


def test_own_code_that_has_changed_is_asked_again(ready: Cli) -> None:
    suite, session = load_suite(Path("s.safetensors")), Session(toys.registry(), sandbox=None, kept=Path("kept"))
    subject = ModelFile("up/u11.toy", {"arch": "networks:make"})
    Path("networks.py").write_text("a = 1")
    [before] = recalled([subject], suite, session)
    Path("networks.py").write_text("a = 2")
    [after] = recalled([subject], suite, session)
    assert before.key != after.key  # type: ignore[attr-defined]


def test_a_folder_that_cannot_be_written_to_loses_no_verdict(ready: Cli) -> None:
    Path("kept").mkdir()
    for name in ("kept/x", "file"):
        Path(name).write_text("x")
    ready.refuses(2, "would-overwrite", *JUDGE, "--resume", "file", facts=("file",))
    ready.refuses(2, "would-overwrite", *RESUME, "-o", "kept", facts=("kept",))
    ready.refuses(2, "conflict", *RESUME, "--sequential", facts=("--resume", "--sequential"))
    ready.monkeypatch.setattr("deepjudge_core.auditing.kept.save_observation", full)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        status, _, err = ready(*RESUME, "--json", "r.json")
    assert status == 1
    assert "no room" in err
    assert [s["decision"] for s in json.loads(Path("r.json").read_text())["suspects"]].count("failed") == 1


def full(*_: Any) -> None:
    from deepjudge_core.errors import FileFormatError

    raise FileFormatError("no room", code="cannot-write")


def test_who_updates_in_between_is_told_why_everything_is_asked_again(ready: Cli) -> None:
    suite, session = load_suite(Path("s.safetensors")), Session(toys.registry(), sandbox=None, kept=Path("kept"))
    assert ready(*RESUME)[2] == ""
    ready.monkeypatch.setattr("deepjudge_core.auditing.keys.VERSION", "another")
    found = recalled([ModelFile("up/u11.toy")], suite, session)
    assert not any(subject.stored for subject in found)
    # The toys have digests of their own; of others it is that of the file.
    answered = {load_observation(place).model.digest for place in Path("kept").iterdir()}
    alike = [replace(subject, digest=digest) for subject in found for digest in answered]  # type: ignore[type-var]
    with pytest.warns(UserWarning, match="kept: "):
        _tell_if_outdated(alike, suite, Path("kept"))


def test_a_suite_that_was_kept_lists_options_as_their_generators_do() -> None:
    suite = toys.suite()
    orders = (["upward", "eps"], ["count"])
    generators = [
        SimpleNamespace(name=record.name, options=dict.fromkeys(order))
        for record, order in zip(suite.generators, orders, strict=False)
    ]
    found = _as_made(suite, SimpleNamespace(generators=generators, answering=()))  # type: ignore[arg-type]
    assert list(found.generators[0].options) == orders[0]
    assert found.digest == suite.digest

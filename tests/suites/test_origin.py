"""Where inputs are from: the digest that a suite records, and how they were read."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import toys
from refusals import refused

from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.auditing.session import Session
from deepjudge_core.errors import InputError
from deepjudge_core.suites.inputs.origin import origin_of
from deepjudge_core.suites.settings import InputSettings, SuiteSettings
from deepjudge_core.suites.suite import load_suite, save_suite


def written(path: Path) -> Path:
    victim = toys.make_model()
    x, y = toys.make_inputs(victim)
    np.savez(path, x=2 * x, y=y)
    return path


def test_a_suite_knows_the_file_that_it_was_made_from(tmp_path: Path) -> None:
    path = written(tmp_path / "inputs.npz")
    offered = InputSettings(path=path, scale=2.0).load()
    session = Session(toys.registry(), sandbox=None)
    settings = SuiteSettings(n=20, generators=("poke",))
    suite = make_suite(toys.make_model(), offered, settings, session=session)
    assert suite.origin
    assert suite.origin.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (suite.origin.path, suite.origin.options) == (path.name, {"scale": 2.0})
    save_suite(tmp_path / "s.safetensors", suite)
    assert load_suite(tmp_path / "s.safetensors").origin == suite.origin
    # What nobody looked at has the digest that it had before origins were recorded.
    live = make_suite(toys.make_model(), offered.located(None), settings, session=session)  # type: ignore[arg-type]
    assert live.origin is None
    assert live.digest != suite.digest


def test_the_digest_of_a_suite_does_not_depend_on_where_its_inputs_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = toys.make_model()
    x, y = toys.make_inputs(victim)
    digests = set()
    for folder in ("here", "elsewhere"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        np.savez("inputs.npz", x=x, y=y, more=x)
        for path in (Path("inputs.npz"), Path("inputs.npz").absolute(), Path("..") / folder / "inputs.npz"):
            offered = InputSettings(path=path, training=f"{path}:more").load()
            settings = SuiteSettings(n=20, generators=("poke",))
            suite = make_suite(victim, offered, settings, session=Session(toys.registry(), sandbox=None))
            digests.add(suite.digest)
    assert len(digests) == 1


def test_the_digest_is_of_all_files_that_were_read(tmp_path: Path) -> None:
    for name, text in (("a.csv", "one.png,0"), ("one.png", "1"), ("two.png", "2")):
        (tmp_path / name).write_text(text)
    table, pictures = tmp_path / "a.csv", [tmp_path / "one.png", tmp_path / "two.png"]
    before = origin_of(table, {}, pictures).digest
    assert before == origin_of(table, {}, pictures).digest != origin_of(table, {}).digest
    pictures[1].write_text("3")
    assert before != origin_of(table, {}, pictures).digest
    whole = origin_of(tmp_path, {}).digest
    pictures[1].write_text("2")
    assert whole != origin_of(tmp_path, {}).digest


def test_the_labels_of_an_array_in_a_file_of_its_own_count(tmp_path: Path) -> None:
    for name in ("x", "y"):
        np.save(tmp_path / f"{name}.npy", np.zeros(3))
    before = origin_of(tmp_path / "x.npy", {}).digest
    np.save(tmp_path / "y.npy", np.ones(3))
    assert before != origin_of(tmp_path / "x.npy", {}).digest


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with refused(InputError, "none.npz"):
        origin_of(tmp_path / "none.npz", {})

"""Inputs without labels: the victim's own answers are the labels, from the file to the verdict."""

import json
from pathlib import Path

import numpy as np
import toys
from commands import HOW, MADE, Cli
from refusals import refused

from deepjudge_core import AuditSettings, JudgeSettings, SuiteSettings, load_suite, observe, select_seeds
from deepjudge_core.auditing.audit import audit, make_suite
from deepjudge_core.auditing.session import Session
from deepjudge_core.errors import ErringVictimError, InputError, UnfitError, UsageError
from deepjudge_core.judging.accuracy import Accuracy, accuracy_gap, accuracy_on_seeds, is_far
from deepjudge_core.suites.inputs import Inputs, load_inputs
from deepjudge_core.suites.suite import Suite, save_suite

SESSION = Session(toys.registry(), sandbox=None)
SETTINGS = SuiteSettings(n=20, generators=("shove", "poke"))


def make() -> Suite:
    victim = toys.make_model(name="victim")
    x, _ = toys.make_inputs(victim)
    return make_suite(victim, Inputs(x, None), SETTINGS, session=SESSION)


def test_the_labels_are_what_the_victim_says(tmp_path: Path) -> None:
    suite, victim = make(), toys.make_model()
    x, y = toys.make_inputs(victim)
    np.testing.assert_array_equal(
        suite.cases.labels[suite.rows("clean")], victim.predict(x)[suite.seed_indices].argmax(1)
    )
    assert suite.label_origin == "victim"
    assert suite.probes is not None
    np.testing.assert_array_equal(suite.probes.labels, victim.predict(x).argmax(axis=1))
    assert any("victim's own" in note for note in suite.notes)
    save_suite(tmp_path / "suite.safetensors", suite)
    again = load_suite(tmp_path / "suite.safetensors")
    assert (again.digest, again.label_origin) == (suite.digest, "victim")
    with_labels = make_suite(victim, Inputs(x, y), SETTINGS, session=SESSION)
    assert (with_labels.label_origin, with_labels.accuracy) == ("inputs", 0.9)


def test_a_suspect_that_agrees_more_than_all_controls_is_no_doubt() -> None:
    # With the truth as labels such a suspect is better than all controls, which then show nothing of it.
    controls, suspect = [(60, 100), (62, 100), (64, 100)], (100, 100)
    assert accuracy_gap(Accuracy(*suspect), [Accuracy(*one) for one in controls]) is not None
    assert accuracy_gap(Accuracy(*suspect, True), [Accuracy(*one, True) for one in controls]) is None
    # One that agrees far less than all of them is asked otherwise than it expects, whatever the labels are.
    gap = accuracy_gap(Accuracy(5, 100, True), [Accuracy(*one, True) for one in controls])
    assert gap is not None
    assert gap.far


def test_controls_that_agree_as_rivals_do_are_not_far() -> None:
    suite = make()
    assert suite.accuracy == 1
    assert not is_far(Accuracy(70, 100, True), suite)
    assert is_far(Accuracy(20, 100, True), suite)
    accuracy = accuracy_on_seeds(suite, observe(toys.make_model(3), suite))
    assert accuracy is not None
    assert accuracy.agreement


def test_a_copy_is_a_copy_and_an_honest_model_is_none() -> None:
    victim = toys.make_model(name="victim")
    x, _ = toys.make_inputs(victim)
    outcome = audit(
        victim,
        [toys.make_model(noise=0.05), toys.make_model(9)],
        Inputs(x, None),
        controls=[toys.make_model(seed) for seed in (1, 2, 3, 4)],
        settings=AuditSettings(SETTINGS, judge=JudgeSettings(rule="nearest")),
        session=SESSION,
    )
    assert [suspect.decision for suspect in outcome.suspects] == ["copy", "independent"]


def test_a_victim_that_is_right_by_construction_may_know_nothing() -> None:
    x = np.random.default_rng(0).random((60, *toys.SHAPE), dtype=np.float32)
    unsure = toys.make_model()
    unsure.weights[-1] = (unsure.weights[-1][0] * 1e-3, unsure.weights[-1][1] * 0)
    with refused(ErringVictimError, "%", "scale="):
        select_seeds(unsure, x, None)
    assert any("%" in note for note in select_seeds(unsure, x, None, force=True).notes)
    one = toys.make_model()
    one.weights[-1] = (one.weights[-1][0], one.weights[-1][1] + np.array([12, 0, 0, 0]))
    with refused(UnfitError, "class 0"):
        select_seeds(one, x, None)


def test_there_are_no_mistakes_of_it() -> None:
    victim = toys.make_model()
    with refused(UsageError, "mistakes", code="conflict"):
        make_suite(victim, Inputs(toys.make_inputs(victim)[0], None), SuiteSettings(generators=["mistakes"]))


def test_files_without_labels(tmp_path: Path) -> None:
    path, x = tmp_path / "in.npz", np.zeros((4, 2), np.float32) + np.arange(4)[:, None] / 4
    for keys in ({"x": x}, {"images": x, "other": x}, {"frames": x}):
        np.savez(path, **keys)
        with refused(InputError, path, "labels='victim'"):
            load_inputs(path)
        inputs = load_inputs(path, labels="victim")
        assert inputs.y is None
        np.testing.assert_array_equal(inputs.x, x)
        with refused(InputError, "label"):
            _ = inputs.labels
    np.savez(path, a=x, b=x)
    with refused(InputError, path, "x="):
        load_inputs(path, labels="victim")
    assert load_inputs(path, x="b", labels="victim").y is None
    with refused(UsageError, "y='b'", code="conflict"):
        load_inputs(path, x="a", y="b", labels="victim")


def test_a_whole_audit_without_labels_says_so(cli: Cli) -> None:
    x = np.load("in.npz")["x"]
    np.savez("in.npz", x=x)
    words = (
        "audit",
        "victim.toy",
        "copy.toy",
        "honest.toy",
        "--controls",
        "controls",
        "--inputs",
        "in.npz",
        *MADE,
        *HOW,
    )
    cli.refuses(4, "wrong-inputs", *words, "-o", "out", facts=("in.npz", "--labels victim"))
    status, out, _ = cli(*words, "-o", "out", "--labels", "victim", "--html", "page.html")
    assert status == 1
    assert "labels      the victim's own answers" in out
    report = json.loads(Path("out/report.json").read_text())
    assert report["suite"]["labels"] == "victim"
    assert [suspect["decision"] for suspect in report["suspects"]] == ["copy", "independent"]
    assert "the victim&#39;s own answers" in Path("page.html").read_text()
    assert "--labels victim" in Path("page.html").read_text()

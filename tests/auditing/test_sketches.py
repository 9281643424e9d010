"""Suites of weights, from the commands that a user types to a bundle that others verify."""

import json
from pathlib import Path

import numpy as np
import pytest
import toys
from commands import Cli
from numpy_transformers import llama, noisy
from refusals import refused
from sketched import save

import deepjudge_core as dj
from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.suites.observation import load_observation
from deepjudge_core.suites.suite import load_suite

BASE, VICTIM = llama(7), llama(0)
SESSION = dj.Session(sandbox=None)


@pytest.fixture
def models(cli: Cli) -> Path:
    """Folders of language models, in the folder where commands run."""
    save(Path("owner"), VICTIM)
    save(Path("tuned"), noisy(VICTIM, 0.1))
    save(Path("honest"), llama(100))
    for seed in range(1, 7):
        save(Path(f"others/c{seed}"), llama(seed))
    return Path()


def report_of(path: str) -> dict[str, dict]:
    report = json.loads(Path(path).read_text())
    return {suspect["path"]: suspect for suspect in report["suspects"]}


def test_weights_alone_from_the_suite_to_the_verdict(models: Path, cli: Cli) -> None:
    assert cli("suite", "owner", "--weights", "-o", "s.safetensors")[0] == 0
    suite = load_suite("s.safetensors")
    assert (suite.has_cases, suite.victim.model.classes) == (False, 0)
    # Without controls the copy is found, and nobody is acquitted.
    status, _, err = cli("judge", "s.safetensors", "tuned", "honest", "--json", "r.json")
    assert (status, err) == (1, "")
    found = report_of("r.json")
    assert [found[name]["decision"] for name in ("tuned", "honest")] == ["copy", "inconclusive"]
    assert found["tuned"]["points_to"] == "descent"
    assert found["tuned"]["settings"]["weights"]["log10_p"] < -300
    assert found["tuned"]["accuracy_on_seeds"] is None
    # With them the honest one is.
    assert cli("calibrate", "s.safetensors", "others", "-o", "c.safetensors")[0] == 0
    assert cli("observe", "s.safetensors", "honest", "--weights", "-o", "o.safetensors")[0] == 0
    assert load_observation("o.safetensors").probabilities is None
    judging = ("judge", "s.safetensors", "o.safetensors", "--stored", "--calibration", "c.safetensors")
    assert cli(*judging, "--json", "r.json", "--html", "r.html", "--csv", "r.csv", "--sarif", "r.sarif")[0] == 0
    assert report_of("r.json")["o.safetensors"]["decision"] == "independent"
    for path in ("s.safetensors", "c.safetensors", "o.safetensors", "r.json"):
        assert cli("show", path)[0] == 0


def test_an_audit_of_weights_is_a_bundle_that_others_verify(models: Path, cli: Cli) -> None:
    words = ("audit", "owner", "tuned", "honest", "--weights", "--controls", "others")
    assert cli("suite", "owner", "--weights", "-o", "s.safetensors")[0] == 0
    assert cli("calibrate", "s.safetensors", "others", "-o", "c.safetensors")[0] == 0
    assert cli("commit", "s.safetensors", "c.safetensors", "-o", "terms.json")[0] == 0
    assert cli(*words, "--commitment", "terms.json", "-o", "out")[0] == 1
    found = report_of("out/report.json")
    assert [found[name]["decision"] for name in ("tuned", "honest")] == ["copy", "independent"]
    status, out, _ = cli("verify", "out")
    assert (status, "2 verdicts recomputed" in out) == (0, True)
    # What it kept is used again.
    status, out, _ = cli(*words, "--commitment", "terms.json", "-o", "out")
    assert (status, "reused" in out) == (1, True)


def test_a_file_says_an_audit_of_weights(models: Path, cli: Cli) -> None:
    save(Path("base"), BASE)
    text = '[victim]\npath = "owner"\n[suite]\nweights = true\n'
    tables = '[[controls]]\npath = "others"\n[[suspects]]\npath = "tuned"\n'
    Path("audit.toml").write_text(f'output = "out"\n{text}ancestor = "base"\n{tables}')
    assert cli("audit", "audit.toml")[0] == 1
    report = json.loads(Path("out/report.json").read_text())
    assert report["suite"]["weights"]["ancestor"] == "base"
    assert report["suite"]["cases"]["clean"] == 0
    Path("audit.toml").write_text(text.replace("weights = true", "seed = 1") + tables)
    status, _, err = cli("audit", "audit.toml")
    assert (status, "inputs" in err) == (2, True)


def test_what_is_asked_of_a_suite_that_lacks_it_is_refused(models: Path, cli: Cli) -> None:
    assert cli("suite", "victim.toy", "--inputs", "in.npz", "-n", "20", "-g", "shove", "-o", "t.safetensors")[0] == 0
    assert load_suite("t.safetensors").weights is None  # of a format whose weights nobody reads
    cli.refuses(2, "conflict", "judge", "t.safetensors", "tuned", "--weights", facts=("weights",))
    cli.refuses(2, "missing-value", "suite", "owner", "-o", "s.safetensors", facts=("--inputs",))
    cli.refuses(4, "no-weights", "suite", "victim.toy", "--weights", "-o", "s.safetensors", facts=("victim.toy",))
    assert cli("suite", "owner", "--weights", "-o", "s.safetensors")[0] == 0
    cli.refuses(2, "conflict", "judge", "s.safetensors", "tuned", "--sequential", facts=("weights",))
    cli.refuses(2, "conflict", "judge", "s.safetensors", "tuned", "--metric", "jsd", facts=("jsd", "order"))
    cli.refuses(2, "missing-value", "calibrate", "s.safetensors", "-o", "c.safetensors", facts=("CONTROL",))


def test_suites_of_both_hold_a_sketch_where_there_is_one(tmp_path: Path) -> None:
    model = toys.make_model()
    x, y = toys.make_inputs(model)
    session = dj.Session(registry=toys.registry(), sandbox=None)
    how = {"n": 20, "generators": ["shove"]}
    live = dj.make_suite(model, dj.Inputs(x, y), dj.SuiteSettings(**how), session=session)
    assert live.weights is None
    with refused(ModelError, "live", code="no-weights"):
        dj.make_suite(model, dj.Inputs(x, y), dj.SuiteSettings(**how, weights=True), session=session)
    with refused(UsageError, "sketch", code="conflict"):
        dj.make_suite(model, dj.Inputs(x, y), dj.SuiteSettings(**how, weights=True, sketch=False), session=session)
    with refused(UsageError, "neither", code="conflict"):
        dj.make_suite(save(tmp_path / "m", VICTIM), settings=dj.SuiteSettings(sketch=False), session=SESSION)


def test_the_steps_of_a_program(tmp_path: Path) -> None:
    owner, thief = save(tmp_path / "owner", VICTIM), save(tmp_path / "thief", noisy(VICTIM, 0.2))
    suite = dj.make_suite(owner, session=SESSION)
    answer = dj.observe(thief, suite, session=SESSION)
    calibration = dj.calibrate(suite, [])
    verdict = dj.judge(dj.measure(suite, answer, calibration=calibration), calibration)
    assert verdict.points_to == "descent"
    outcome = dj.audit(owner, [thief], session=SESSION)
    assert [str(one.decision) for one in outcome.suspects] == ["copy"]
    assert np.isfinite([metric.value or 0 for metric in outcome.suspects[0].metrics.values()]).all()

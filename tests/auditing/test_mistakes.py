"""Mistakes: what the victim gets wrong by itself, from the inputs to the verdict."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deepjudge_blackbox
import numpy as np
import pytest
import toys
from commands import METRICS, WHOLE, Cli, write
from refusals import refused

from deepjudge_core import (
    Access,
    Cases,
    Generator,
    Mistakes,
    Seeds,
    Suite,
    Task,
    build_suite,
    calibrate,
    hookimpl,
    judge,
    load_suite,
    measure,
    observe,
    save_suite,
    select_seeds,
)
from deepjudge_core.components.values import Decision
from deepjudge_core.errors import FileFormatError, GenerationError, PluginError
from deepjudge_core.files.documents import plain
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.report.audit_json import schema, suite_entry

HOW = "the suite has no cases in the set 'mistakes'; the generator mistakes makes them"
REGISTRY = toys.registry_of(toys=toys, blackbox=deepjudge_blackbox)


def offered(wrong: int = 12, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, labels, and which of them the victim gets wrong: some that are unlike what models were fitted to."""
    victim, rng = toys.make_model(), np.random.default_rng(3)
    x, _ = toys.make_inputs(victim, n)
    places = np.sort(rng.permutation(n)[:wrong])
    x[places] = rng.random((wrong, *toys.SHAPE))
    y = victim.predict(x).argmax(axis=1)
    y[places] = (y[places] + 1) % toys.CLASSES
    return x, y, places


def make_seeds(wrong: int = 12, n: int = 20) -> Seeds:
    x, y, _ = offered(wrong)
    return select_seeds(toys.make_model(), x, y, n=n)


def make_suite(generators: tuple[str, ...] = ("shove", "poke", "mistakes"), wrong: int = 12) -> Suite:
    return build_suite(toys.make_model(name="victim"), make_seeds(wrong), generators, registry=REGISTRY)


@pytest.mark.parametrize(("n", "expected"), [(20, range(12)), (12, range(12)), (3, (0, 6, 11)), (1, (0,))])
def test_those_of_the_inputs_offered_evenly_spread_over_their_order(n: int, expected: Any) -> None:
    x, y, places = offered()
    mistakes = select_seeds(toys.make_model(), x, y, n=n, force=True).mistakes
    assert mistakes is not None
    np.testing.assert_array_equal(mistakes.inputs, x[places[list(expected)]])
    np.testing.assert_array_equal(mistakes.labels, y[places[list(expected)]])
    assert (mistakes.inputs.dtype, mistakes.labels.dtype) == (np.float32, np.int64)


def test_a_victim_that_errs_nowhere_has_none() -> None:
    mistakes = make_seeds(wrong=0).mistakes
    assert mistakes is not None
    assert mistakes.inputs.shape == (0, *toys.SHAPE)


def test_the_cases_of_a_suite() -> None:
    suite, seeds = make_suite(), make_seeds()
    rows, cases = suite.rows("mistakes"), suite.cases
    assert seeds.mistakes is not None
    np.testing.assert_array_equal(cases.inputs[rows], seeds.mistakes.inputs)
    np.testing.assert_array_equal(cases.labels[rows], seeds.mistakes.labels)
    assert (cases.seeds[rows] == -1).all()
    assert (cases.layers[rows] == -1).all()
    assert (cases.neurons[rows] == -1).all()
    assert (cases.generators[rows] == 2).all()
    answers = suite.answers(suite.victim, "mistakes")
    assert answers.probabilities is not None
    assert (answers.probabilities.argmax(axis=1) != answers.labels).all()


def test_the_other_cases_are_what_they_are_without() -> None:
    suite, without = make_suite(), make_suite(("shove", "poke"))
    others = ~suite.rows("mistakes")
    for column in dataclasses.fields(suite.cases):
        one, other = getattr(suite.cases, column.name), getattr(without.cases, column.name)
        np.testing.assert_array_equal(one[others], other)
    assert suite.digest != without.digest
    assert without.digest == toys_digest()


def toys_digest() -> str:
    # Of seeds made as before there were mistakes.
    seeds = dataclasses.replace(make_seeds(), mistakes=None)
    return build_suite(toys.make_model(name="victim"), seeds, ["shove", "poke"], registry=REGISTRY).digest


@pytest.mark.parametrize("wrong", [0, 9])
def test_too_few_are_an_error(wrong: int) -> None:
    with refused(GenerationError, "mistakes", "victim", wrong, 10):
        make_suite(wrong=wrong)
    assert make_suite(wrong=10).counts()["mistakes"] == 10


def test_a_suite_with_mistakes_is_stored(tmp_path: Path) -> None:
    suite = make_suite()
    save_suite(tmp_path / "suite.safetensors", suite)
    again = load_suite(tmp_path / "suite.safetensors")
    assert again.digest == suite.digest
    assert again.counts() == {"clean": 20, "adversarial": 12, "corners": 14, "mistakes": 12} == suite.counts()


@pytest.mark.parametrize(("of", "seed"), [("mistakes", 0), ("clean", -1), ("adversarial", -1)])
def test_only_mistakes_are_of_no_seed(tmp_path: Path, of: Any, seed: int) -> None:
    suite = make_suite()
    suite.cases.seeds[np.flatnonzero(suite.rows(of))[0]] = seed
    save_suite(tmp_path / "suite.safetensors", suite)
    with pytest.raises(FileFormatError) as caught:
        load_suite(tmp_path / "suite.safetensors")
    assert "suite.safetensors" in str(caught.value)


def test_the_report_counts_them_where_there_are_any() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    suite_schema = schema()["properties"]["suite"] | {"$defs": schema()["$defs"]}
    for suite in (make_suite(), make_suite(("shove", "poke"))):
        report_values = json.loads(json.dumps(plain(suite_entry(suite, []))))
        assert report_values["cases"] == suite.counts()
        jsonschema.validate(report_values, suite_schema)
    assert "mistakes" not in report_values["cases"]


def generate(**changes: Any) -> Any:
    def generate_mistakes(task: Task) -> Cases:
        assert task.seeds.mistakes is not None
        return dataclasses.replace(Cases.of_mistakes(task.seeds.mistakes), **changes)

    @hookimpl
    def deepjudge_generators() -> Any:
        return [Generator("mine", "mistakes", Access.LABELS, generate_mistakes)]

    return toys.registry_of(toys=toys, mine=SimpleNamespace(deepjudge_generators=deepjudge_generators))


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"seeds": np.zeros(12, np.int64)}, ("-1",)),
        ({"labels": None}, ("label", "0..3")),
        ({"labels": np.zeros(11, np.int64)}, ("label", "0..3")),
        ({"labels": np.full(12, 4)}, ("label", "0..3")),
        ({"labels": np.full(12, -1)}, ("label", "0..3")),
        ({"labels": np.zeros(12)}, ("label", "0..3")),
        ({"layers": np.zeros(12, np.int64)}, ("neuron -1", "layer 0")),
    ],
)
def test_mistakes_that_are_none(changes: dict[str, Any], facts: tuple[str, ...]) -> None:
    with refused(PluginError, "'mine'", *facts):
        build_suite(toys.make_model(), make_seeds(), ["mine"], registry=generate(**changes))


def test_what_the_victim_gets_right_is_no_mistake() -> None:
    victim, seeds = toys.make_model(), make_seeds()
    assert seeds.mistakes is not None
    labels = seeds.mistakes.labels.copy()
    labels[4] = victim.predict(seeds.mistakes.inputs[4:5]).argmax()
    mistakes = Mistakes(seeds.mistakes.inputs, labels)
    suite = build_suite(victim, dataclasses.replace(seeds, mistakes=mistakes), ["mine"], registry=generate())
    assert (suite.generators[0].made, suite.generators[0].kept) == (12, 11)
    np.testing.assert_array_equal(suite.cases.labels[suite.rows("mistakes")], np.delete(labels, 4))


def test_akh_tells_a_copy_from_models_that_err_in_their_own_way() -> None:
    suite = make_suite()
    controls = [observe(toys.make_model(seed), suite) for seed in (1, 2, 3, 4, 5)]
    calibration = calibrate(suite, controls, ["akh"], registry=REGISTRY)
    rows = suite.rows("mistakes")
    assert suite.victim.probabilities is not None
    ours = suite.victim.probabilities[rows].argmax(axis=1)
    verdict = {}
    for name, model in {"copy": toys.make_model(noise=0.02), "honest": toys.make_model(9)}.items():
        observation = observe(model, suite)
        measured = measure(suite, observation, ["akh"], registry=REGISTRY)
        theirs = model.predict(suite.cases.inputs[rows]).argmax(axis=1)
        assert measured["akh"].value == sum(a != b for a, b in zip(ours, theirs, strict=True)) / 12
        verdict[name] = judge(measured, calibration, JudgeSettings(rule="nearest"), registry=REGISTRY).decision
    assert verdict == {"copy": Decision.COPY, "honest": Decision.INDEPENDENT}


def test_without_them_it_is_not_measured_and_that_is_no_failure() -> None:
    suite = make_suite(("shove", "poke"))
    measured = measure(suite, observe(toys.make_model(1), suite), ["akh", "jsd"], registry=REGISTRY)
    akh = measured["akh"]
    assert (akh.value, akh.reason, akh.allowed, akh.failed) == (None, HOW, False, False)
    assert measured["jsd"].value is not None


# --- by the commands


def write_inputs() -> None:
    x, y, _ = offered()
    np.savez("in.npz", x=x, y=y)


MADE = ("-n", "20", "-g", "shove,poke,mistakes")
HOW_JUDGED = ("--rule", "nearest")


def report_of(cli: Cli, *more: str) -> dict[str, Any]:
    files = ("suite.safetensors", "copy.toy", "honest.toy", "--calibration", "calibration.safetensors")
    status, _, err = cli("judge", *files, *HOW_JUDGED, *more, "--json", "report.json")
    assert err == ""
    assert status in (0, 1)
    report: dict[str, Any] = json.loads(Path("report.json").read_text())
    return report


def test_a_calibration_that_was_made_before_is_judged_by_other_metrics(cli: Cli) -> None:
    write_inputs()
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "suite.safetensors")[0] == 0
    assert cli("calibrate", "suite.safetensors", "controls", "-o", "calibration.safetensors")[0] == 0
    report = report_of(cli, "--metric", "akh,sac,cka,nnod")
    metrics = [list(suspect["metrics"].items()) for suspect in report["suspects"]]
    assert [[name for name, _ in of_one] for of_one in metrics] == [["akh", "sac", "cka", "nnod"]] * 2
    for (name, copy), (_, honest) in zip(*metrics, strict=True):
        assert copy["value"] < honest["value"], name
        assert copy["group"] == ("white-box" if name == "nnod" else "black-box")
    by_default = report_of(cli)["suspects"][0]["metrics"]
    assert set(by_default) == {"robd", "jsd", "nod", "nad", "lod", "lad", "recovery"}
    everything = report_of(cli, "--metric", "all")["suspects"][0]["metrics"]
    of_weights = {"order", "neuron-sketch", "wcos", "sibling-slope"}
    assert set(everything) == {
        *by_default,
        *METRICS,
        *of_weights,
        "akh",
        "sac",
        "cka",
        "nnod",
        "robd-reference",
        "jsd-reference",
    }
    assert all(everything[name] == by_default[name] for name in by_default)


def test_a_suite_is_shown_with_them(cli: Cli) -> None:
    write_inputs()
    _, out, _ = cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "suite.safetensors")
    assert "cases       mistakes: 12 cases" in out.splitlines()
    _, out, _ = cli("show", "suite.safetensors")
    assert "20 clean, 12 adversarial, 14 corners, 12 mistakes" in out


def test_a_bundle_is_verified(cli: Cli) -> None:
    write_inputs()
    audit = ("audit", "victim.toy", "copy.toy", "honest.toy", "--controls", "controls", "--inputs", "in.npz")
    status, out, err = cli(*audit, *MADE, *HOW_JUDGED, "--metric", "all", "-o", "out")
    assert (status, err) == (1, "")
    report = json.loads(Path("out/report.json").read_text())
    assert report["suite"]["cases"]["mistakes"] == 12
    copy, honest = (suspect["metrics"]["akh"]["value"] for suspect in report["suspects"])
    assert copy < honest
    status, out, _ = cli("verify", "out")
    assert (status, out.splitlines()[-1]) == (0, "out: verified, 2 verdicts recomputed")


def test_all_is_committed_to_by_name(cli: Cli) -> None:
    write_inputs()
    cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "suite.safetensors")
    cli("calibrate", "suite.safetensors", "controls", "-o", "calibration.safetensors")
    files = ("suite.safetensors", "calibration.safetensors")
    assert cli("commit", *files, *HOW_JUDGED, "--metric", "all", "-o", "c.json")[0] == 0
    assert {"akh", "robd"} <= set(json.loads(Path("c.json").read_text())["predicate"]["terms"]["judging"]["metrics"])
    report_of(cli, "--metric", "all", "--commitment", "c.json")
    other = ("judge", files[0], "copy.toy", "--calibration", files[1], *HOW_JUDGED, "--commitment", "c.json")
    assert cli(*other)[0] == 2  # by the default ones


def test_an_audit_file_names_them(cli: Cli) -> None:
    write_inputs()
    write(
        WHOLE,
        ('metrics = ["answers", "surety", "outputs"]', 'metrics = ["all"]'),
        ("[generators.poke]", "[generators.poke]\n[generators.mistakes]"),
        ('[[suspects]]\npath = "honest.toy"\n', ""),
    )
    status, _, err = cli("audit", "audit.toml")
    assert (status, err) == (1, "")
    [suspect] = json.loads(Path("out/report.json").read_text())["suspects"]
    assert suspect["metrics"]["akh"]["value"] is not None


def test_too_few_are_said_by_the_command(cli: Cli) -> None:
    x, y, _ = offered(wrong=9)
    np.savez("in.npz", x=x, y=y)
    cli.refuses(
        4, "no-cases", "suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s", facts=("mistakes", "9", "10")
    )

"""The command line: what it prints, what it writes, and how it ends."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepjudge_blackbox
import jsonschema
import numpy as np
import pytest
import toys
from commands import HOW, MADE, Cli
from refusals import expect_facts

from deepjudge_core import Preprocessing, __version__, load_calibration, load_observation, load_suite
from deepjudge_core.cli import tables
from deepjudge_core.cli.commands import judge as judge_command
from deepjudge_core.cli.commands import show
from deepjudge_core.cli.main import main
from deepjudge_core.cli.terminal import Bars
from deepjudge_core.files.documents import plain
from deepjudge_core.report.audit_json import schema
from deepjudge_core.text import compact

COMMANDS = ("suite", "observe", "calibrate", "judge", "audit", "init", "plugins", "show")


@pytest.fixture
def ready(cli: Cli) -> Cli:
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
    assert cli("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0
    return cli


def failure(name: str, out: str) -> str:
    """The line that says why this suspect failed."""
    [line] = (line for line in out.splitlines() if line.startswith(f"{name}: failed: "))
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, cli: Cli) -> None:
    status, out, err = cli(command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: deepjudge {command} ")
    assert "--debug" in out
    if command in ("judge", "audit"):
        assert "4  a model, plugin or file failed" in out


def test_help_and_version(cli: Cli) -> None:
    status, out, _ = cli("--help")
    assert status == 0
    assert [command for command in COMMANDS if f"\n  {command} " not in out] == []
    assert "1  at least one suspect is a copy" in out
    assert cli("--version")[:2] == (0, f"deepjudge {__version__}\n")


def test_suite(cli: Cli) -> None:
    status, out, err = cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "new/s.safetensors")
    assert (status, err) == (0, "")
    for line in (
        "victim      victim.toy (numpy, 4 classes)",
        f"digest      {toys.make_model().digest}",
        "accuracy    90.0% of the inputs offered as seeds",
        "seeds       20",
        "cases       shove: 15 cases of 20 made (eps=0.5 upward=True)",
        "cases       poke: 14 cases (count=2)",
        "layer       dense2: 8 neurons, 7 reached, unreached: 7",
        "note        neuron ranges were measured on the seeds, because no training inputs were given",
        f"suite       {load_suite(Path('new/s.safetensors')).digest}",
    ):
        assert line in out.splitlines()


def test_suite_options(cli: Cli) -> None:
    x, y = toys.make_inputs(toys.make_model())
    np.savez("other.npz", pictures=np.round(x * 255).astype(np.uint8), classes=y, before=x[:9] * 255)
    arguments = ("suite", "victim.toy", "--inputs", "other.npz", "--x", "pictures", "--y", "classes", "--scale", "255")
    options = ("--training-inputs", "other.npz:before", "--layers", "dense1,dense2", "--seed", 7, "--order", "balanced")
    generators = ("-g", "poke", "-g", "shove", "--option", "shove.eps=0.75", "--option", "shove.upward=no", "-n", 15)
    status, _, err = cli(*arguments, *options, *generators, "-o", "s")
    assert (status, err) == (0, "")
    suite = load_suite(Path("s"))
    assert (suite.layers, suite.seed, suite.notes, suite.bounds) == (("dense1", "dense2"), 7, (), (0.0, 1.0))
    assert [(r.name, r.options) for r in suite.generators] == [
        ("poke", {"count": 2}),
        ("shove", {"eps": 0.75, "upward": False}),
    ]
    assert suite.rows("clean").sum() == 15
    first = Path("s").read_bytes()
    cli(*arguments, *options, *generators, "-o", "s")
    assert Path("s").read_bytes() == first


def test_calibrate(ready: Cli) -> None:
    status, out, err = ready("calibrate", "s.safetensors", "controls/c*.toy", "honest.toy", "-o", "d.safetensors")
    assert (status, err) == (0, "")
    assert "controls    5" in out
    assert "controls/c4.toy" in out
    found = load_calibration(Path("d.safetensors"), load_suite(Path("s.safetensors")))
    assert [c.model.name for c in found.controls] == [f"controls/c{i}.toy" for i in (1, 2, 3, 4)] + ["honest.toy"]


def test_controls_far_from_the_victim(ready: Cli) -> None:
    toys.save_model(Path("controls/far.toy"), seed=5, knows=False)
    suite = load_suite(Path("s.safetensors"))
    near = [f"controls/c{i}.toy" for i in (1, 2, 3, 4)]
    audited = ("audit", "victim.toy", "copy.toy", "--inputs", "in.npz", "--controls", "controls", *MADE, *HOW)
    for more, names in (((), near), (("--far",), [*near, "controls/far.toy"])):
        status, out, err = ready("calibrate", "s.safetensors", "controls", *more, "-o", "d.safetensors")
        assert status == 0
        assert f"controls    {len(names)}" in out
        found = load_calibration(Path("d.safetensors"), suite)
        assert [control.model.name for control in found.controls] == names
        status, _, warned = ready(*audited, *more, "-o", "out")
        assert (status, warned) == (1, err)
        calibration = json.loads(Path("out/report.json").read_text())["calibration"]
        assert [control["path"] for control in calibration["controls"]] == names
        assert ready("verify", "out")[0] == 0
        shutil.rmtree("out")
        if more:
            assert err == ""
            continue
        [line] = err.splitlines()
        [note] = calibration["notes"]
        for text in (line, note):
            expect_facts(text, "controls/far.toy", "90.0%", "--far")


def test_strata_of_controls(ready: Cli) -> None:
    near, far = ("--stratum", "same-data=controls/c1.toy,controls/c2.toy"), ("--stratum", "other-data=far")
    Path("far").mkdir()
    toys.save_model(Path("far/c5.toy"), seed=5)
    suite = load_suite(Path("s.safetensors"))
    for given, expected in (
        (("controls/c[34].toy", *near, *far), [None, None, "same-data", "same-data", "other-data"]),
        ((*near, *far), ["same-data", "same-data", "other-data"]),
    ):
        status, _, err = ready("calibrate", "s.safetensors", *given, "-o", "d.safetensors")
        assert (status, err) == (0, "")
        assert list(load_calibration(Path("d.safetensors"), suite).strata) == expected
    audited = ("audit", "victim.toy", "honest.toy", "--inputs", "in.npz", *MADE, *HOW)
    assert ready(*audited, "--controls", "controls/c[34].toy", *near, *far, "-o", "out")[0] == 0
    report = json.loads(Path("out/report.json").read_text())
    assert [control["stratum"] for control in report["calibration"]["controls"]] == [None, None, *expected]


@pytest.mark.parametrize(
    ("options", "status", "code", "facts"),
    [
        ((), 2, "missing-value", ("CONTROL",)),
        (("--stratum", "near=controls"), 2, "wrong-value", ("near", "same-data", "other-architecture")),
        (("--stratum", "near", "controls"), 2, "wrong-value", ("near", "STRATUM=CONTROL", "same-data")),
        (("--stratum", "same-data"), 2, "missing-value", ("same-data",)),
        (("--stratum", "same-data="), 2, "wrong-value", ("same-data",)),
        (("--stratum",), 2, "missing-value", ("--stratum", "-o")),
        (("--stratum", "same-data=empty"), 4, "unusable-model", ("empty: ",)),
    ],
)
def test_wrong_strata_of_controls(
    ready: Cli, options: tuple[str, ...], status: int, code: str, facts: tuple[str, ...]
) -> None:
    Path("empty").mkdir()
    ready.refuses(status, code, "calibrate", "s.safetensors", *options, "-o", "d.safetensors", facts=facts)


def judge(cli: Cli, *suspects: str, calibration: bool = True, more: tuple[str, ...] = ()) -> tuple[int, str, str]:
    given = ("--calibration", "c.safetensors") if calibration else ()
    return cli("judge", "s.safetensors", *suspects, *given, *HOW, *more)


def test_exit_status(ready: Cli) -> None:
    assert judge(ready, "honest.toy")[0] == 0
    assert judge(ready, "honest.toy", "copy.toy")[0] == 1
    assert judge(ready, "honest.toy", calibration=False)[0] == 3
    Path("bad.toy").write_text("{")
    # One that fails hides no copy, unless that is asked for.
    assert judge(ready, "honest.toy", "copy.toy", "bad.toy")[0] == 1
    assert judge(ready, "honest.toy", "copy.toy", "bad.toy", more=("--strict",))[0] == 4
    assert judge(ready, "honest.toy", "copy.toy", more=("--strict",))[0] == 1
    assert judge(ready, "honest.toy", "bad.toy")[0] == 4
    assert judge(ready, "honest.toy", "bad.toy", calibration=False)[0] == 4
    assert judge(ready, more=("--x",))[0] == 2


def test_judge(ready: Cli) -> None:
    status, out, err = judge(ready, "copy.toy", "honest.toy", "victim.toy", more=("--json", "r.json"))
    assert (status, err) == (1, "")
    assert "copy of the weights" in out
    assert "no sign of copying" in out
    assert "3 suspects: 2 copies, 1 no sign of copying" in out.splitlines()
    report = json.loads(Path("r.json").read_text())
    jsonschema.validate(report, schema())
    assert [(s["path"], s["decision"]) for s in report["suspects"]] == [
        ("copy.toy", "copy"),
        ("honest.toy", "independent"),
        ("victim.toy", "copy"),
    ]
    assert {m["value"] for m in report["suspects"][2]["metrics"].values()} == {0}
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    for suspect in report["suspects"]:
        for name, metric in suspect["metrics"].items():
            assert name in rows["suspect"]
            assert f"{compact(metric['value'])}{'*' if metric['vote'] else ''}" in rows[suspect["path"]]
            assert compact(metric["threshold"]) in rows["thresholds"]


def test_json_on_standard_output(ready: Cli) -> None:
    status, out, err = judge(ready, "copy.toy", more=("--json", "-"))
    assert status == 1
    jsonschema.validate(json.loads(out), schema())
    assert "copy.toy" in err


def test_others_are_still_judged(ready: Cli) -> None:
    Path("bad.toy").write_text("{")
    for name in ("none.toy", "README.md"):
        Path(name).symlink_to("gone")
    status, out, _ = judge(ready, "bad.toy", "none.toy", "README.md", "copy.toy", more=("--json", "r.json"))
    assert status == 1
    found = {s["path"]: (s["decision"], s["reason"]) for s in json.loads(Path("r.json").read_text())["suspects"]}
    assert found["copy.toy"] == ("copy", None)
    assert found["bad.toy"] == ("failed", "bad.toy: expected a toy model, found no JSON")
    assert found["none.toy"] == ("failed", "none.toy: no such file or folder (cannot-read)")
    assert found["README.md"] == ("failed", "README.md: no such file or folder (cannot-read)")
    assert "bad.toy: failed: expected a toy model, found no JSON" in out.splitlines()


def test_rule_options_and_groups(ready: Cli) -> None:
    status, _, _ = judge(ready, "copy.toy", more=("--rule-option", "share=0", "--json", "r.json"))
    assert status == 3  # a rule that accuses nobody acquits no copy either
    report = json.loads(Path("r.json").read_text())
    assert report["rule_options"] == {"share": 0, "alpha": {}}
    more = ("--rule-option", "share=0", "--rule-option", "alpha.outputs=0.5", "--groups", "joint", "--json", "r.json")
    assert judge(ready, "copy.toy", more=more)[0] == 3
    report = json.loads(Path("r.json").read_text())
    assert (report["rule_options"], report["groups"]) == ({"share": 0, "alpha": {"outputs": 0.5}}, "joint")
    assert [m["vote"] for m in report["suspects"][0]["metrics"].values()] == [False, False, True]


@pytest.mark.parametrize("match", ["none", "neurons"])
def test_neurons_are_matched_as_the_calibration_says(ready: Cli, match: str) -> None:
    assert ready("calibrate", "s.safetensors", "controls", "--match", match, "-o", "m.safetensors")[0] == 0
    how = ("--calibration", "m.safetensors", "--rule", "nearest", "--json", "r.json")
    assert ready("judge", "s.safetensors", "copy.toy", *how)[0] == 1
    report = json.loads(Path("r.json").read_text())
    assert report["calibration"]["match"] == match
    assert report["suspects"][0]["neurons_moved"] == ({"dense2": 0} if match == "neurons" else {})


def test_layer_map(ready: Cli) -> None:
    toys.save_model(Path("deeper.toy"), seed=9, widths=(10, 8, 8))
    status, table, _ = judge(ready, "deeper.toy")
    assert status == 0
    assert "deeper.toy: 'dense2' is compared with " in table
    for tap in ("dense2", "dense3"):
        status, table, _ = judge(ready, "deeper.toy", more=("--layer-map", f"dense2={tap}", "--json", "r.json"))
        assert status == 0
        assert "by what it answers" not in table
        assert json.loads(Path("r.json").read_text())["suspects"][0]["layer_map"] == {"dense2": tap}
    ready.refuses(
        2,
        "unknown-name",
        "judge",
        "s.safetensors",
        "deeper.toy",
        *HOW,
        "--layer-map",
        "dense9=dense3",
        facts=("dense9",),
    )


def test_classes(ready: Cli) -> None:
    *hidden, (matrix, bias) = toys.make_model(9).weights  # a model that gives the victim's first class another number
    another = np.hstack([np.zeros((len(matrix), 1)), matrix[:, 1:], matrix[:, :1]]), np.array([-9, *bias[1:], bias[0]])
    toys.save_weights(Path("five.toy"), toys.NumpyModel([*hidden, another], toys.SHAPE))
    status, out, _ = judge(ready, "five.toy", more=("--json", "r.json"))
    assert status == 3
    assert "five.toy: inconclusive: expected 4 classes, found 5; map them with --classes" in out
    toys.save_model(Path("other.toy"), seed=8, classes=5)
    _, out, _ = judge(ready, "five.toy", "other.toy")
    assert "both suspects: inconclusive: expected 4 classes, found 5" in out
    assert "\nother.toy: " not in out
    # Few of many are named.
    for place in range(30):
        shutil.copy("five.toy", f"0{place:0>2}.toy")
    _, out, _ = judge(ready, "0*.toy", "copy.toy")
    [line] = [line for line in out.splitlines() if ": inconclusive: expected 4 classes, found 5" in line]
    assert line.startswith("000.toy, 001.toy, 002.toy, 003.toy and 26 more: ")
    status, out, _ = judge(ready, "five.toy", more=("--classes", "4,1,2,3", "--json", "r.json"))
    assert status == 0
    assert "five.toy: its outputs 4, 1, 2, 3 correspond to the victim's classes" in out
    [suspect] = json.loads(Path("r.json").read_text())["suspects"]
    assert (suspect["classes"], suspect["inferred"]) == ([4, 1, 2, 3], [])
    assert suspect["metrics"]["surety"]["value"] > 0
    ready("observe", "s.safetensors", "five.toy", "--classes", "4,1,2,3", "-o", "o.safetensors")
    assert "its outputs 4, 1, 2, 3 correspond to the victim's classes" in ready("show", "o.safetensors")[1]
    # Controls beside suspects have the victim's classes.
    audit = ("audit", "victim.toy", "five.toy", "--controls", "controls", "--inputs", "in.npz", *MADE, *HOW)
    assert ready(*audit, "--classes", "4,1,2,3", "-o", "out")[0] == 0
    status, _, err = ready("judge", "s.safetensors", "five.toy", "--classes", "4,x")
    assert status == 2
    assert "4,x" in err
    kept = Path("never/suite.safetensors")  # which took its time
    ready.refuses(2, "wrong-value", *audit, "--classes", "4,1", "-o", "never", leaves=kept, facts=("4", "2"))
    ready.refuses(2, "wrong-value", "judge", "s.safetensors", "five.toy", *HOW, "--classes", "4,1", facts=("4", "2"))
    # Of one suspect alone, it is that one's failure.
    text = 'metrics = ["surety"]\n[victim]\npath = "victim.toy"\n[inputs]\npath = "in.npz"\n'
    text += '[suite]\nseeds = 20\n[generators.shove]\n[[suspects]]\npath = "copy.toy"\n'
    Path("a.toml").write_text(f'{text}[[suspects]]\npath = "five.toy"\nclasses = [4, 1]\n')
    status, _, err = ready("audit", "a.toml", "-o", "single")
    assert status == 4, err
    copy, failed = json.loads(Path("single/report.json").read_text())["suspects"]
    assert (copy["decision"] != "failed", failed["decision"]) == (True, "failed")
    expect_facts(failed["reason"], "five.toy", "4", "2")


def test_preprocessing(ready: Cli) -> None:
    for more, scale in (((), 1), (("--suspect-input", "scale=2"), 2)):
        judge(ready, "copy.toy", more=(*more, "--json", "r.json"))
        [suspect] = json.loads(Path("r.json").read_text())["suspects"]
        assert (suspect["preprocessing"] or {"scale": 1})["scale"] == scale
    arguments = ("s.safetensors", "copy.toy", "--suspect-input", "mean=-0.1,scale=1.1", "--no-infer-input")
    ready("observe", *arguments, "-o", "o.safetensors")
    seen = load_observation(Path("o.safetensors"))
    assert seen.preprocessing == Preprocessing(1.1, (-0.1,))
    note = "its inputs are prepared by scale=1.1,mean=-0.1, as requested"
    assert note in " ".join(ready("show", "o.safetensors")[1].split())
    assert f"o.safetensors: {note}" in judge(ready, "o.safetensors", more=("--stored",))[1]
    for typed in ("-1..1", "0..1,invert=true", "imagenet"):
        status, _, err = judge(ready, "copy.toy", more=("--suspect-input", typed, "--json", "r.json"))
        [suspect] = json.loads(Path("r.json").read_text())["suspects"]
        if typed == "imagenet":  # inputs of 12 features have no channels
            expect_facts(suspect["reason"], "3 channels", "12")
        else:
            assert suspect["preprocessing"] == json.loads(json.dumps(plain(Preprocessing.parse(typed).header()))), (
                status,
                err,
            )
    # Said of suspects only.
    audit = ("audit", "victim.toy", "copy.toy", "--controls", "controls", "--inputs", "in.npz", *MADE, *HOW)
    ready(*audit, "--suspect-input", "scale=2", "-o", "out")
    report = json.loads(Path("out/report.json").read_text())
    jsonschema.validate(report, schema())
    assert report["suspects"][0]["preprocessing"] == {"scale": 2, "mean": [0], "std": [1]}
    assert {c["preprocessing"] for c in report["calibration"]["controls"]} == {None}
    ready.refuses(
        2, "wrong-value", "judge", "s.safetensors", "copy.toy", *HOW, "--suspect-input", "255", facts=("scale=S", "255")
    )


def test_input_layout(cli: Cli) -> None:
    cube = {"seed": 4, "shape": [3, 3, 3]}
    for path, more in {
        "victim": {},
        "copy": {"noise": 0.02},
        **{f"controls/c{i}": {"seed": i} for i in (1, 2, 3)},
    }.items():
        toys.save_model(Path(f"{path}.toy"), **(cube | more))
    Path("controls/c4.toy").unlink()
    x, y = toys.make_inputs(toys.make_model(4, shape=(3, 3, 3)))
    np.savez("cube.npz", x=x, y=y, x_train=x)
    arguments = ("victim.toy", "--inputs", "cube.npz", "-n", "20", "-g", "shove", "--option", "shove.eps=1")
    training = ("--training-inputs", "cube.npz:x_train")
    first, last = (("--input-layout", f"channels_{place}") for place in ("first", "last"))
    cli.refuses(4, "wrong-inputs", "suite", *arguments, "-o", "s", facts=("victim.toy", "3x3x3"))
    assert cli("suite", *arguments, *training, *first, "-o", "s")[0] == 0
    toys.save_model(Path("other.toy"), seed=5, shape=[3, 3, 3], knows=False)
    cli.refuses(4, "unusable-model", "observe", "s", "other.toy", "-o", "o", facts=("other.toy", "3x3x3"))
    assert cli("observe", "s", "copy.toy", *first, "-o", "o")[0] == 0
    assert cli("observe", "s", "copy.toy", *last, "-o", "p")[0] == 0
    found = [load_observation(Path(path)).probabilities for path in ("o", "p")]
    assert np.abs(found[0] - found[1]).max() > 0.1
    assert cli("audit", *arguments, "copy.toy", "--controls", "controls", *first, *HOW, "-o", "out")[0] == 1
    assert cli("suite", *arguments, "--input-layout", "NCHW", "-o", "s")[0] == 2


def test_the_output_that_holds_the_scores(ready: Cli) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    save_onnx("two.onnx", seed=9)
    model = onnx.load("two.onnx")
    # An auxiliary head, in front.
    model.graph.output.insert(0, onnx.helper.make_tensor_value_info("dense1", onnx.TensorProto.FLOAT, ["n", 8]))
    onnx.save(model, "two.onnx")
    found = {}
    for more in ((), ("--output", "logits"), ("--output", "2"), ("--output", "dense1")):
        assert ready("observe", "s.safetensors", "two.onnx", *more, "-o", "o.safetensors")[0] == 0
        found[more] = load_observation(Path("o.safetensors"))
    assert [seen.model.classes for seen in found.values()] == [4, 4, 4, 8]
    assert all(any("output 2 of 2 ('logits')" in note for note in seen.notes) for seen in list(found.values())[:3])
    assert judge(ready, "two.onnx", more=("--output", "logits"))[0] in (0, 3)
    calibrate = ("calibrate", "s.safetensors", "two.onnx", "--output")
    assert ready(*calibrate, "logits", "-o", "d.safetensors")[0] == 0
    ready.refuses(4, "unusable-model", *calibrate, "x", "-o", "out", facts=("two.onnx", "x"))
    observe = ("observe", "s.safetensors", "copy.toy", "--output", "x", "-o", "out")
    ready.refuses(4, "unusable-model", *observe, facts=("copy.toy: ", "'output'"))
    expect_facts(failure("copy.toy", judge(ready, "copy.toy", more=("--output", "x"))[1]), "'output'")
    audit = ("audit", "victim.toy", "two.onnx", "--controls", "controls", "--inputs", "in.npz", *MADE, *HOW)
    assert ready(*audit, "--output", "logits", "-o", "out")[0] in (0, 3)


def test_observe_and_judge_elsewhere(ready: Cli) -> None:
    status, out, err = ready("observe", "s.safetensors", "copy.toy", "-o", "copy.safetensors")
    assert (status, err) == (0, "")
    assert "model       copy.toy (numpy)" in out
    assert load_observation(Path("copy.safetensors")).model.name == "copy.toy"
    Path("copy.toy").unlink()
    status, out, _ = judge(ready, "copy.safetensors", more=("--stored", "--json", "r.json"))
    assert status == 1
    assert json.loads(Path("r.json").read_text())["suspects"][0]["path"] == "copy.safetensors"
    # What is no model is not observed.
    ready.refuses(
        2, "wrong-usage", "observe", "s.safetensors", "copy.safetensors", "-o", "again", facts=("copy.safetensors",)
    )


def test_folders_and_globs(ready: Cli) -> None:
    shutil.copytree("controls", "many")
    for seed in range(5):
        toys.save_model(Path(f"many/x{seed}.toy"), seed=20 + seed)
    Path("many/notes.txt").write_text("no model")
    shutil.copy("s.safetensors", "many")
    ready("observe", "s.safetensors", "copy.toy", "-o", "many/copy.safetensors")

    def suspects(*given: str) -> list[str]:
        judge(ready, *given, calibration=False, more=("--stored", "--json", "r.json"))
        return [s["path"] for s in json.loads(Path("r.json").read_text())["suspects"]]

    models = [f"many/c{i}.toy" for i in (1, 2, 3, 4)] + [f"many/x{i}.toy" for i in range(5)]
    assert suspects("many") == suspects("many/*") == models
    assert suspects("many/x[12].toy", "copy.toy") == ["many/x1.toy", "many/x2.toy", "copy.toy"]
    assert suspects("many/copy*.safetensors") == ["many/copy.safetensors"]
    Path("odd[1].toy").write_text(Path("copy.toy").read_text())
    assert suspects("odd[1].toy") == ["odd[1].toy"]
    Path("empty").mkdir()
    facts = ("empty: ", ".toy, ", "none")
    ready.refuses(4, "unusable-model", "judge", "s.safetensors", "empty", *HOW, facts=facts)
    for name in ("many/*.md", "no/*"):
        ready.refuses(2, "cannot-read", "judge", "s.safetensors", name, *HOW, facts=(f"{name}: ", "pattern"))
    Path("stored").mkdir()
    shutil.copy("many/copy.safetensors", "stored")
    for name in ("stored", "stored/*"):
        facts = (f"{name}: ", "none", "'stored/*.safetensors'")
        ready.refuses(4, "unusable-model", "judge", "s.safetensors", name, *HOW, facts=facts)
    assert suspects("stored/*.safetensors") == ["stored/copy.safetensors"]
    # Where there are others, they are judged.
    assert suspects("empty", "copy.toy") == ["copy.toy", "empty"]


def test_audit(cli: Cli) -> None:
    arguments = ("audit", "victim.toy", "copy.toy", "honest.toy", "--inputs", "in.npz", *MADE, *HOW, "-o", "out")
    status, out, err = cli(*arguments, "--controls", "controls")
    assert (status, err) == (1, "")
    assert sorted(p.name for p in Path("out").iterdir()) == [
        "calibration.safetensors",
        "environment.json",
        "manifest.json",
        "observations",
        "queries.jsonl",
        "report.html",
        "report.json",
        "runs.jsonl",
        "suite.safetensors",
    ]
    report = json.loads(Path("out/report.json").read_text())
    jsonschema.validate(report, schema())
    assert out.splitlines()[-1] == "page: out/report.html"
    # The same as its parts give.
    parts = cli(
        "judge",
        "out/suite.safetensors",
        "copy.toy",
        "honest.toy",
        "--json",
        "parts.json",
        *HOW,
        "--calibration",
        "out/calibration.safetensors",
    )
    assert parts[0] == 1
    assert Path("parts.json").read_bytes() == Path("out/report.json").read_bytes()
    # And again.
    timed = {str(cli.folder / "out" / name) for name in ("queries.jsonl", "runs.jsonl", "manifest.json", "report.html")}
    timed |= set(map(str, cli.folder.glob("out-work/*.runs.jsonl")))
    before = cli.content()
    cli(*arguments, "--controls", "controls")
    again = cli.content()
    assert {name for name in before if again[name] != before[name]} <= timed
    assert set(again) == set(before)


def test_audit_without_controls(cli: Cli) -> None:
    status, out, err = cli("audit", "victim.toy", "copy.toy", "--inputs", "in.npz", *MADE, *HOW, "-o", "out")
    assert (status, err) == (3, "")
    assert "copy.toy: inconclusive: there are no controls" in out
    [suspect] = json.loads(Path("out/report.json").read_text())["suspects"]
    assert [m["value"] is None for m in suspect["metrics"].values()] == [False, False, False]
    assert suspect["metrics"]["surety"]["reason"] == "there are no controls"


def test_show(ready: Cli) -> None:
    ready("observe", "s.safetensors", "copy.toy", "-o", "o.safetensors")
    judge(ready, "copy.toy", more=("--json", "r.json"))
    suite = load_suite(Path("s.safetensors"))
    for file, facts in {
        "s.safetensors": [
            "victim.toy (numpy, 4 classes)",
            "20 clean, 15 adversarial, 14 corners",
            "12, in 0..1",
            "dense2",
        ],
        "o.safetensors": ["answers of copy.toy", suite.digest, "dense2 = dense2"],
        "c.safetensors": ["answers of controls/c1.toy", suite.digest],
        "r.json": ["audit of 1 suspects", "copy.toy", suite.digest],
        "in.npz": ["60 inputs", "4 classes"],
        "victim.toy": ["model victim.toy", "dense1", "logits"],
    }.items():
        status, out, err = ready("show", file, "--no-sandbox")
        assert (status, err) == (0, "")
        assert all(fact in out for fact in facts), out
        assert max(map(len, out.splitlines())) < 100
        assert json.loads(ready("show", file, "--no-sandbox", "--json")[1])
    assert json.loads(ready("show", "r.json", "--json")[1]) == json.loads(Path("r.json").read_text())
    Path("x.json").write_text('{"a": 1}')
    Path("y.json").write_text("{")
    Path("notes.txt").write_text("a")
    for file, status, code, facts in (
        ("x.json", 4, "wrong-file", ["deepjudge/report/1", "deepjudge/zoo/1", "deepjudge/power/1", "other JSON"]),
        ("y.json", 4, "damaged-file", ["report", "no JSON"]),
        ("z.json", 2, "cannot-read", []),
        ("notes.txt", 2, "wrong-value", ["inputs", ".toy"]),
    ):
        ready.refuses(status, code, "show", file, facts=(f"{file}: ", *facts))


def test_plugins(cli: Cli) -> None:
    status, out, err = cli("plugins")
    assert (status, err) == (0, "")
    assert "toys 1.0" in out
    cells = " ".join(out.replace("│", " ").split())  # of more than one line
    assert "adapter toy; attack tune, listen, stumble; generator shove, poke; optional metric answers" in cells
    status, out, err = cli("plugins", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["failures"] == []
    [plugin] = [p for p in found["plugins"] if p["name"] == "toys"]
    assert plugin["distribution"] == "toys 1.0"
    [rule] = [one for one in plugin["components"] if one["kind"] == "rule"]
    assert (rule["name"], [option["name"] for option in rule["options"]]) == ("nearest", ["share", "alpha"])
    assert cli("plugins", "--json", "p.json")[:2] == (0, "")
    assert json.loads(Path("p.json").read_text()) == found
    status, out, err = cli("plugins", "--options")
    assert (status, err) == (0, "")
    assert [line for line in out.splitlines() if "nearest" in line and "share" in line]


# What cannot be used: one line that names the file, the status, and nothing written.


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


BAD_MODELS: dict[str, tuple[Callable[[Path], object], str, tuple[str, ...]]] = {
    "no model": (lambda path: path.write_text("hello"), "unusable-model", ("toy model", "no JSON")),
    "truncated": (
        lambda path: path.write_text(json.dumps({"seed": 3, "noise": 0.1})[:-5]),
        "unusable-model",
        ("toy model", "no JSON"),
    ),
    "empty": (lambda path: path.write_text(""), "wrong-format", ("empty",)),
    "shape": (lambda path: toys.save_model(path, shape=[4, 4]), "other-inputs", ("4x4", "found 12")),
    "NaN": (lambda path: toys.save_model(path, broken="nan"), "bad-answer", ("probabilities", "NaN")),
    "constant": (lambda path: toys.save_model(path, broken="0"), "bad-answer", ("same answer", "every input")),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_model_that_cannot_be_used(ready: Cli, case: str) -> None:
    make, code, own = BAD_MODELS[case]
    facts = ("bad.toy: ", *own)
    make(Path("bad.toy"))
    for command in ("observe", "calibrate"):
        ready.refuses(4, code, command, "s.safetensors", "bad.toy", "-o", "out", facts=facts)
    ready.refuses(
        4,
        code,
        "audit",
        "victim.toy",
        "copy.toy",
        "--controls",
        "controls,bad.toy",
        "--inputs",
        "in.npz",
        *MADE,
        *HOW,
        "-o",
        "out",
        facts=facts,
        # Making a suite may take long: it is not lost to a control that cannot be used.
        leaves=Path("out/suite.safetensors"),
    )
    status, out, err = judge(ready, "bad.toy", "copy.toy", more=("--json", "r.json"))
    assert (status, err) == (1, "")
    expect_facts(failure("bad.toy", out), *facts)
    decisions = [s["decision"] for s in json.loads(Path("r.json").read_text())["suspects"]]
    assert decisions == ["failed", "copy"]
    Path("r.json").unlink()
    code = "wrong-inputs" if case == "shape" else code  # the inputs do not fit this victim
    ready.refuses(4, code, "suite", "bad.toy", "--inputs", "in.npz", *MADE, "-o", "out.safetensors", facts=facts)


@pytest.mark.parametrize(
    ("arguments", "status", "code", "facts"),
    [
        (("--bounds", "0,0.5"), 4, "wrong-inputs", ("in.npz", "x", "0..0.5")),
        (("--x", "pictures"), 2, "unknown-name", ("in.npz", "pictures")),
        (("--x", "x", "--y", "classes"), 2, "unknown-name", ("in.npz", "classes")),
        (("--inputs", "n" * 300), 2, "cannot-read", ("nnn",)),
        (("--inputs", "none.npz"), 2, "cannot-read", ("none.npz",)),
        (("--inputs", "victim.toy"), 4, "wrong-inputs", ("victim.toy", ".npz")),
        (("--inputs", "empty.npz"), 4, "wrong-inputs", ("empty.npz", ".npz")),
        (("--inputs", "cut.npz"), 4, "wrong-inputs", ("cut.npz", ".npz")),
        (("--inputs", "high.npz"), 4, "wrong-inputs", ("victim.toy", "0..3", "0..4")),
        (("--inputs", "wrong.npz"), 4, "no-verdict", ("victim.toy", "60")),
        (("--inputs", "wide.npz"), 4, "wrong-inputs", ("victim.toy", "12", "13")),
        (("--training-inputs", "in.npz:z"), 2, "unknown-name", ("in.npz", "z")),
        (("--training-inputs", "wide.npz:x"), 4, "wrong-inputs", ("victim.toy", "12", "13")),
        (("--option", "shove.eps=1e-9"), 4, "no-cases", ("victim.toy", "20")),
        (("--option", "shove.eps=much"), 2, "wrong-value", ("shove.eps", "much")),
        (("--option", "shove.esp=1"), 2, "unknown-option", ("esp", "eps")),
        (("--option", "cw.kappa=1"), 2, "conflict", ("cw",)),
        (("--option", "eps=1"), 2, "wrong-value", ("COMPONENT.NAME", "eps=1")),
        (("--option", "shove.eps"), 2, "wrong-value", ("shove.eps",)),
        (("-g", "shovel"), 2, "unknown-name", ("shovel",)),
        (("--layers", "dense7"), 2, "unknown-name", ("victim.toy", "dense7")),
        (("--seed", "-3"), 2, "wrong-value", ("--seed", "-3")),
        (("-n", "0"), 2, "wrong-value", ("-n", "0")),
        (("--bounds", "1,0"), 2, "wrong-value", ("--bounds", "1,0")),
        (("--bounds", "0:0,1:2:3"), 2, "wrong-value", ("--bounds", "0:0,1:2:3")),
        (("--bounds", "0:3,1:2"), 2, "wrong-value", ("--bounds", "0:3,1:2")),
        (("--bounds", "0:0,1:2"), 4, "wrong-inputs", ("in.npz", "12", "2")),
        (("--scale", "0"), 2, "wrong-value", ("--scale", "0")),
        (("--scale", "-3"), 2, "wrong-value", ("--scale", "-3")),
        (("-o", "in.npz/s"), 4, "cannot-write", ("in.npz/s",)),
    ],
)
def test_a_suite_that_cannot_be_made(
    cli: Cli, arguments: tuple[str, ...], status: int, code: str, facts: tuple[str, ...]
) -> None:
    x, y = toys.make_inputs(toys.make_model())
    np.savez("high.npz", x=x, y=np.maximum(y, 4 * (np.arange(60) == 7)))
    np.savez("wrong.npz", x=x, y=(toys.make_model().predict(x).argmax(axis=1) + 1) % 4)
    np.savez("wide.npz", x=np.pad(x, ((0, 0), (0, 1))), y=y)
    Path("empty.npz").write_bytes(b"")
    Path("cut.npz").write_bytes(Path("in.npz").read_bytes()[:-40])
    made = ("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors", *arguments)
    cli.refuses(status, code, *made, facts=facts)


def test_a_file_of_ours_that_cannot_be_used(ready: Cli) -> None:
    whole = Path("s.safetensors").read_bytes()
    middle = len(whole) // 2
    Path("changed").write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    Path("cut").write_bytes(whole[:-1])
    Path("empty").write_bytes(b"")
    for file, code, own in (
        ("changed", "damaged-file", ("SHA-256",)),
        ("cut", "damaged-file", ("a deepjudge suite",)),
        ("empty", "damaged-file", ("a deepjudge suite",)),
        ("victim.toy", "damaged-file", ("a deepjudge suite",)),
        ("c.safetensors", "wrong-file", ("a deepjudge suite", "a deepjudge calibration")),
    ):
        facts = (f"deepjudge: {file}: ", *own)
        ready.refuses(4, code, "judge", file, "copy.toy", *HOW, facts=facts)
        ready.refuses(4, code, "calibrate", file, "controls", "-o", "out", facts=facts)
    ready.refuses(
        4,
        "wrong-file",
        "judge",
        "s.safetensors",
        "copy.toy",
        *HOW,
        "--calibration",
        "s.safetensors",
        facts=("s.safetensors",),
    )


def test_a_calibration_of_another_victims_suite(ready: Cli) -> None:
    toys.save_model(Path("other.toy"), seed=9)
    x, _ = toys.make_inputs(toys.make_model())
    np.savez("other.npz", x=x, y=toys.make_model(9).predict(x).argmax(axis=1))
    assert ready("suite", "other.toy", "--inputs", "other.npz", *MADE, "-o", "other.safetensors")[0] == 0
    ready.refuses(
        4,
        "wrong-file",
        "judge",
        "other.safetensors",
        "copy.toy",
        *HOW,
        "--calibration",
        "c.safetensors",
        facts=("c.safetensors",),
    )


def test_controls_that_are_none(ready: Cli) -> None:
    shutil.copy("victim.toy", "converted.toy")
    Path("converted.toy").write_text(Path("victim.toy").read_text() + " ")
    for control in ("victim.toy", "converted.toy"):
        calibrate = ("calibrate", "s.safetensors", "controls", control, "-o", "out")
        ready.refuses(4, "wrong-controls", *calibrate, facts=(f"deepjudge: {control}: ", "victim"))
    shutil.copy("controls/c1.toy", "twin.toy")
    status, out, err = ready("calibrate", "s.safetensors", "controls", "twin.toy", "-o", "d.safetensors")
    assert status == 0
    assert err == "deepjudge: warning: twin.toy: is the same model as controls/c1.toy, counted once\n"
    assert "controls    4" in out
    assert "twin.toy: is the same model" in ready("show", "d.safetensors")[1]
    status, out, _ = judge(ready, "twin.toy", "copy.toy")
    assert status == 1
    assert "twin.toy: failed: expected a suspect, found the control controls/c1.toy" in out


def test_what_cannot_be_asked_for(ready: Cli) -> None:
    for more, code, facts in [
        (("--rule", "x"), "unknown-name", ("rule", "'x'")),
        (("--metric", "x"), "unknown-name", ("metric", "'x'")),
        (("--rule-option", "x=1"), "unknown-option", ("nearest", "'x'")),
        (("--rule-option", "share"), "wrong-value", ("--rule-option", "name=value", "'share'")),
        (("--rule-option", "alpha.x=1"), "unknown-name", ("nearest.alpha: ", "answers, surety, outputs", "found x")),
        (("--layer-map", "dense2"), "wrong-value", ("--layer-map", "name=value", "'dense2'")),
    ]:
        ready.refuses(2, code, "judge", "s.safetensors", "copy.toy", *HOW, *more, facts=facts)
    for arguments in ((), ("judg",), ("judge",), ("judge", "s.safetensors", "copy.toy", "--groups", "x")):
        status, out, err = ready(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("deepjudge: ")
        assert len(err.splitlines()) == 1


def test_a_metric_that_fails(ready: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(victim: Any, suspect: Any) -> float:
        raise ValueError("no way")

    monkeypatch.setattr(toys, "surety", fail)
    status, out, _ = judge(ready, "copy.toy", calibration=False)
    assert status == 4
    assert "copy.toy: surety: the metric failed: ValueError: no way" in out
    # Controls are measured by the metrics that are taken by default.
    with monkeypatch.context() as patched:
        patched.setattr(deepjudge_blackbox, "jsd", fail)
        status, out, _ = ready("calibrate", "s.safetensors", "controls", "-o", "d.safetensors")
    assert status == 4
    assert "all 4 controls: jsd: the metric failed: ValueError: no way" in out
    # Of the controls only.
    monkeypatch.setattr(toys, "surety", lambda v, s: fail(v, s) if toys.answers(v, s) > 0.5 else 0.0)
    assert judge(ready, "copy.toy", more=("--strict",))[0] == 4
    status, out, _ = judge(ready, "copy.toy", more=("--json", "r.json"))
    assert status == 1
    [suspect] = json.loads(Path("r.json").read_text())["suspects"]
    assert suspect["decision"] == "copy"
    assert suspect["metrics"]["surety"]["value"] == 0
    assert "no way" in suspect["metrics"]["surety"]["reason"]


def test_a_mistake_of_our_own_is_no_verdict(ready: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(*arguments: object, **options: object) -> None:
        raise IndexError("list index\nout of range")

    # Python's own exit status would be 1: a copy.
    monkeypatch.setattr(judge_command, "judge_suspects", mistake)
    command = ("judge", "s.safetensors", "copy.toy", *HOW)
    ready.refuses(4, "error", *command, facts=("--debug", "IndexError: list index out of range"))
    monkeypatch.setattr(
        judge_command, "judge_suspects", lambda *arguments, **options: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    before = ready.content()
    status, out, err = ready(*command)
    assert (status, out) == (130, "")
    expect_facts(err.strip(), "interrupted", "--resume")
    assert ready.content() == before


def test_more_than_the_memory_holds_is_no_verdict(ready: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*arguments: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 8.00 EiB")

    monkeypatch.setattr(judge_command, "judge_suspects", fill)
    ready.refuses(4, "error", "judge", "s.safetensors", "copy.toy", *HOW, facts=("memory", "8.00 EiB"))


def test_debug_shows_where_it_comes_from(ready: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "none.safetensors", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("deepjudge: none.safetensors: no such file")


WICKED = "a\x1b[31m\x9b\u202e[bold]:cat:\nb"


def test_control_characters_never_reach_the_terminal(ready: Cli) -> None:
    suspect, broken, folder = f"{WICKED}.toy", f"{WICKED}2.toy", f"{WICKED}-out"
    shutil.copy("copy.toy", suspect)
    Path(broken).write_text("")
    shutil.copy("victim.toy", f"v{suspect}")
    Path("r.json").write_text(json.dumps({"schema": "deepjudge/report/1", "suspects": [WICKED]}, ensure_ascii=False))
    seen = ""
    for arguments in (
        ("suite", f"v{suspect}", "--inputs", "in.npz", *MADE, "-o", "w.safetensors"),
        ("show", "w.safetensors"),
        ("observe", "s.safetensors", suspect, "-o", "o.safetensors"),
        ("show", "o.safetensors"),
        ("calibrate", "s.safetensors", suspect, "-o", "d.safetensors"),
        ("show", "d.safetensors"),
        ("judge", "s.safetensors", suspect, broken, *HOW, "--calibration", "c.safetensors"),
        ("judge", "s.safetensors", suspect, broken, *HOW, "--calibration", "c.safetensors", "--json", "-"),
        ("audit", "victim.toy", suspect, broken, "--inputs", "in.npz", *MADE, *HOW, "-o", folder),
        ("show", "r.json"),
        ("show", broken),
        ("judge", "s.safetensors", "copy.toy", f"--{WICKED}"),
        ("judge", "s.safetensors", "copy.toy", *HOW, "--rule", WICKED),
        ("suite", "victim.toy", "--inputs", f"{WICKED}.npz", *MADE, "-o", "x"),
    ):
        _, out, err = ready(*arguments)
        assert out + err
        seen += out + err
    assert not {c for c in seen if not c.isprintable()} - {"\n"}
    assert seen.count("[bold]:cat:") > 10


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are Unicode")
def test_names_that_are_no_text(ready: Cli) -> None:
    name = os.fsdecode(b"\xff.toy")
    shutil.copy("copy.toy", name)
    status, out, _ = judge(ready, name, more=("--json", "r.json"))
    assert status == 1
    assert "\ufffd.toy" in out
    assert json.loads(Path("r.json").read_text())["suspects"][0]["path"] == name
    ready("observe", "s.safetensors", name, "-o", "o.safetensors")
    assert load_observation(Path("o.safetensors")).model.name == name


def test_a_terminal_that_does_not_know_all_characters(ready: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy("copy.toy", "ü漢.toy")
    ready("observe", "s.safetensors", "ü漢.toy", "-o", "o.safetensors")
    written = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", written)
    assert main(["show", "o.safetensors"]) == 0
    written.flush()
    assert b" \\xfc\\u6f22.toy\n" in written.buffer.getvalue()  # type: ignore[attr-defined]


def test_debug_traces_are_clean(
    ready: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError(WICKED)

    monkeypatch.setattr(show, "load_suite", fail)
    assert main(["show", "s.safetensors", "--debug"]) == 4
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert all(line.isprintable() for line in err.split("\n"))


def test_bars_on_a_terminal_only(ready: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(ready, "copy.toy")[2] == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "asking copy.toy" in judge(ready, "copy.toy")[2]
    bars = Bars()
    with bars.task("outer [bold]", 2) as advance, bars.task("inner", 3) as further:
        further(3)
        advance(1)
    err = ready.capsys.readouterr().err
    assert "outer [bold]" in err
    assert "inner" in err


def test_long_names_are_cut_from_the_left_or_folded(ready: Cli) -> None:
    name = "n" * 200 + ".toy"
    shutil.copy("copy.toy", name)
    out = judge(ready, name, more=("--json", "r.json"))[1]
    assert "nnn.toy " in out
    assert max(len(line.rstrip()) for line in out[out.index("suspect ") :].splitlines()[:4]) <= tables.PAPER
    assert json.loads(Path("r.json").read_text())["suspects"][0]["path"] == name
    # Two that would look alike are shown whole.
    shutil.copy("copy.toy", f"m{name[1:]}")
    out = judge(ready, name, f"m{name[1:]}")[1]
    assert "…" not in out
    assert out.count("n") > 400


def save_onnx(path: str, **arguments: Any) -> None:
    """The same network in another format."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    model = toys.make_model(**arguments)
    nodes, constants, value = [], [], "input"
    for place, (matrix, bias) in enumerate(model.weights):
        last = place == len(model.weights) - 1
        for name, array in (("w", matrix), ("b", bias)):
            constants.append(numpy_helper.from_array(array.astype(np.float32), f"{name}{place}"))
        out = "logits" if last else f"dense{place}"
        nodes.append(helper.make_node("Gemm", [value, f"w{place}", f"b{place}"], [out]))
        value = "logits" if last else f"relu{place}"
        nodes += [] if last else [helper.make_node("Relu", [out], [value])]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["n", *toys.SHAPE])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", toys.CLASSES])],
        constants,
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def test_files_of_a_framework_with_what_comes_with_the_tool(cli: Cli) -> None:
    for module in ("onnxruntime", "onnx2fx"):
        pytest.importorskip(module)
    save_onnx("victim.onnx")
    save_onnx("copy.onnx", noise=0.02)
    save_onnx("honest.onnx", seed=9)
    for seed in range(1, 9):
        save_onnx(f"controls/c{seed}.onnx", seed=seed)
        Path(f"controls/c{seed}.toy").unlink(missing_ok=True)
    options = ("pgd.eps=0.5", "pgd.step=0.1", "neuron-corners.m=1.1")
    made = ("-n", "40", *(part for name in options for part in ("--option", name)))
    metrics = ("--metric", "robd,jsd,nod,nad,lod,lad")
    status, _, err = cli(
        "audit",
        "victim.onnx",
        "victim.onnx",
        "victim.toy",
        "copy.onnx",
        "honest.onnx",
        "--controls",
        "controls",
        "--inputs",
        "in.npz",
        *made,
        *metrics,
        "-o",
        "out",
    )
    assert (status, err) == (1, "")
    report = json.loads(Path("out/report.json").read_text())
    jsonschema.validate(report, schema())
    assert report["victim"]["framework"] == "onnx"
    same, other_format, copy, honest = report["suspects"]
    assert {m["value"] for m in same["metrics"].values()} == {0}
    assert all(m["value"] < 1e-4 for m in other_format["metrics"].values())
    assert other_format["framework"] == "numpy"
    assert [s["decision"] for s in (same, other_format, copy)] == ["copy"] * 3
    assert honest["decision"] != "copy"
    # A control in another format than the victim is still the victim.
    cli.refuses(
        4, "wrong-controls", "calibrate", "out/suite.safetensors", "victim.toy", "-o", "c", facts=("victim.toy",)
    )


# Real runs.


@pytest.fixture
def run(ready: Cli) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    script = Path(sys.executable).with_name("deepjudge")
    environment = {**os.environ, "PYTHONPATH": f"{ready.folder}{os.pathsep}{Path(toys.__file__).parent}"}

    def run(*arguments: str, stdout: Any = subprocess.PIPE) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [script, *arguments],
            env=environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.mark.slow
def test_exit_status_of_real_runs(run: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    def judge(*more: str) -> "subprocess.CompletedProcess[str]":
        return run("judge", "s.safetensors", *HOW, *more)

    calibration = ("--calibration", "c.safetensors")
    assert judge(*calibration, "--", "honest.toy").returncode == 0
    found = judge(*calibration, "--", "copy.toy")
    assert (found.returncode, found.stderr) == (1, "")
    assert "copy of the weights" in found.stdout
    found = judge("--rule", "x", "--", "copy.toy")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("deepjudge: no rule is called 'x'")
    assert judge("--", "honest.toy").returncode == 3
    assert judge(*calibration, "--", "none.toy").returncode == 2


# What must not happen by mistake.

JUDGE = ("judge", "s.safetensors", "--calibration", "c.safetensors", *HOW)


class Closed(io.TextIOWrapper):
    """An output that nobody reads any more."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf-8")

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("words", [("plugins",), ("judge", "--help"), ("show", "s.safetensors")])
def test_an_output_that_nobody_reads_is_no_verdict(
    ready: Cli, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Closed())
    assert main(words) == 4


def test_a_variable_of_shells_is_no_verdict(ready: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_DEEPJUDGE_COMPLETE", "xyz")
    assert main(["judge", "s.safetensors"]) == 4


@pytest.mark.parametrize("ending", [SystemExit(1), GeneratorExit(), BaseException("gone")], ids=repr)
def test_whatever_ends_a_command_is_no_verdict(
    ready: Cli, ending: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object) -> None:
        raise ending

    monkeypatch.setattr(show, "load_suite", end)
    assert ready("show", "s.safetensors")[0] == 4


def test_nothing_is_said_to_who_stopped_reading(run: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    # As `deepjudge plugins | head -1` does if `head` is the quicker one.
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        result = run("plugins", stdout=closed)
    assert (result.returncode, result.stderr) == (4, "")


def test_an_adapter_that_ends_the_program_fails_alone(ready: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = toys._open

    def end(source: Path, **options: Any) -> Any:
        return sys.exit(1) if "honest" in source.name else opening(source, **options)

    monkeypatch.setattr(toys, "_open", end)
    status, _, _ = ready(*JUDGE, "honest.toy", "copy.toy", "--json", "r.json")
    decisions = [suspect["decision"] for suspect in json.loads(Path("r.json").read_text())["suspects"]]
    assert (status, decisions) == (1, ["failed", "copy"])


@pytest.mark.parametrize("suspects", ["controls", "controls/*.toy"])
@pytest.mark.parametrize("option", ["--json", "--html", "--markdown"])
def test_no_suspect_is_written_over_however_it_is_named(ready: Cli, suspects: str, option: str) -> None:
    ready.refuses(2, "would-overwrite", *JUDGE, suspects, option, "controls/c1.toy", facts=("controls/c1.toy",))


@pytest.mark.parametrize("controls", [("controls",), ("--stratum", "same-data=controls")])
def test_no_control_is_written_over(ready: Cli, controls: tuple[str, ...]) -> None:
    command = ("calibrate", "s.safetensors", *controls, "-o", "controls/c1.toy")
    ready.refuses(2, "would-overwrite", *command, facts=("controls/c1.toy",))


def test_an_audit_takes_no_folder_of_models_for_its_own(ready: Cli) -> None:
    command = ("audit", "victim.toy", "copy.toy", "--controls", "controls", "--inputs", "in.npz", *MADE, *HOW)
    ready.refuses(2, "would-overwrite", *command, "-o", "controls", facts=("controls", "c1.toy"))


def test_a_list_without_commas_is_noticed(ready: Cli) -> None:
    judge = ("judge", "s.safetensors", "--calibration", "c.safetensors", "--metric", "answers", "surety", "copy.toy")
    ready.refuses(2, "wrong-usage", *judge, "--rule", "nearest", facts=("--metric answers,surety",))
    audit = ("audit", "victim.toy", "copy.toy", "--inputs", "in.npz", *MADE, *HOW, "-o", "out")
    status, _, err = ready(*audit, "--controls", "controls/c1.toy", "controls/c2.toy")
    assert "--controls controls/c1.toy,controls/c2.toy" in err
    assert status == 3
    assert ready(*audit, "--controls", "controls", "honest.toy")[2] == ""


def test_what_a_flag_and_a_list_are_told_on_the_command_line(ready: Cli) -> None:
    ready.refuses(2, "wrong-value", *JUDGE, "copy.toy", "--sequential=1", facts=("--sequential",))
    suite = ("suite", "victim.toy", "--inputs", "in.npz", "-o", "x.safetensors")
    ready.refuses(2, "wrong-value", *suite, "--bounds", "1,0", facts=("--bounds", "0.0,1.0", "1,0"))


def test_layers_are_required_where_that_is_said(ready: Cli) -> None:
    toys.save_model(Path("narrow.toy"), seed=5, widths=(3,))
    arguments = ("judge", "s.safetensors", "narrow.toy", "--calibration", "c.safetensors", *HOW, "--json", "r.json")
    for more, status, decision in (((), 0, "independent"), (("--require-layers",), 3, "inconclusive")):
        assert ready(*arguments, *more)[0] == status
        report = json.loads(Path("r.json").read_text())
        assert report["suspects"][0]["decision"] == decision
        assert report["suspects"][0]["reason"]
        assert report.get("require_layers", False) == bool(more)
        jsonschema.validate(report, schema())
    surety = ("--rule", "nearest", "--metric", "surety", "--require-layers")
    ready.refuses(2, "conflict", *arguments[:5], *surety, facts=("white-box", "layers"))
    ready.refuses(2, "conflict", *arguments[:5], "--sequential", "--require-layers")


def test_the_victim_itself_needs_no_controls(ready: Cli) -> None:
    shutil.copy("victim.toy", "same.toy")
    status, out, _ = ready("judge", "s.safetensors", "same.toy", *HOW, "--json", "r.json", "--html", "r.html")
    [suspect] = json.loads(Path("r.json").read_text())["suspects"]
    assert (status, suspect["decision"], suspect["points_to"]) == (1, "copy", "weights")
    assert suspect["reason"] in out
    assert suspect["reason"].partition("'")[0] in Path("r.html").read_text()

"""The zoo: the command that makes controls and stolen models, and the one that says what an audit sees of them."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toys
from commands import HOW, MADE, Cli
from refusals import expect_facts, refused
from snapshots import Snapshots

import deepjudge_core as dj
from deepjudge_core import Preprocessing, Suite, load_observation, load_suite, open_model
from deepjudge_core.auditing.power import Share, area
from deepjudge_core.errors import FileFormatError
from deepjudge_core.judging.calibration import load_controls
from deepjudge_core.judging.judge import Judge
from deepjudge_core.models.training import Schedule, train
from deepjudge_core.plugin import Access, Metric, Rule, hookimpl
from deepjudge_core.testing import NumpyModel
from deepjudge_core.zoo.manifest import load_zoo, recorded_control
from deepjudge_core.zoo.material import Material, Rows
from deepjudge_core.zoo.plans import known_suite

ZOO = ("zoo", "victim.toy", "--data", "train.npz", "--epochs", "4", "--rate", "0.02", "-o", "zoo")
ALL = ("--control-count", "4", "--attacks", "tune,listen", "--repeat", "2", "--auxiliary", "other.npz")


@functools.cache
def task() -> tuple[np.ndarray, np.ndarray, toys.Network]:
    """Inputs, classes that a plane divides, and a network that has learnt them from the first half."""
    rng = np.random.default_rng(5)
    x = rng.random((3000, 12), dtype=np.float32)
    y = np.argsort(np.argsort(x @ rng.normal(size=12))) * 4 // len(x)
    fresh = toys.Network.fresh(toys.ToyArchitecture((12,), (10, 8), 4), rng)
    return x, y, train(fresh, x[:1500], y[:1500], rng, schedule=Schedule(30, 2e-2, 64))


@pytest.fixture
def data(cli: Cli) -> Cli:
    x, y, victim = task()
    victim.save(Path("victim.toy"))
    np.savez("train.npz", x_train=x, y_train=y)
    np.savez("in.npz", x=x[-200:], y=y[-200:])
    np.savez("other.npz", x=1 - np.random.default_rng(6).random((2000, 12), dtype=np.float32))
    return cli


def manifest(folder: str = "zoo") -> dict[str, Any]:
    return json.loads((Path(folder) / "zoo.json").read_text())


def weights(folder: str = "zoo") -> dict[str, str]:
    return {entry["file"]: entry["weights"] for entry in manifest(folder)["models"]}


def test_the_manifest_says_what_each_model_is(data: Cli) -> None:
    status, out, err = data(*ZOO, *ALL, "--option", "tune.epochs=2")
    assert (status, err) == (0, "")
    content = manifest()
    assert content["schema"] == "deepjudge/zoo/1"
    assert content["victim"]["path"] == "victim.toy"
    assert content["victim"]["accuracy"] > 0.9
    models = {entry["file"]: entry for entry in content["models"]}
    assert list(models) == [
        *(f"controls/{stratum}-0{n}.toy" for n in (1, 2) for stratum in ("same-data", "other-data")),
        *(f"stolen/{attack}-0{n}.toy" for attack in ("tune", "listen") for n in (1, 2)),
    ]
    control, stolen = models["controls/other-data-02.toy"], models["stolen/tune-01.toy"]
    assert (control["kind"], control["stratum"], control["attack"]) == ("control", "other-data", None)
    assert control["options"] == {"epochs": 4, "rate": 2e-2, "batch": 128}
    assert (stolen["kind"], stolen["stratum"], stolen["attack"]) == ("stolen", None, "tune")
    assert stolen["options"] == {"epochs": 2, "rate": 1e-3}
    assert stolen["accuracy"] > 0.9
    assert not stolen["far"]
    for name, entry in models.items():
        assert open_model(Path("zoo") / name).digest
        assert len(entry["digest"]) == len(entry["weights"]) == 64
        assert entry["seconds"] > 0
        assert f"{name}: {entry['accuracy']:.1%}" in out
    assert len({entry["seed"] for entry in models.values()}) == len(models)
    assert "4 controls, 4 stolen models" in out


def test_what_was_interrupted_goes_on_to_the_same_models(data: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    data(*ZOO, *ALL)
    whole = weights()
    shutil.rmtree("zoo")
    train, calls = toys.train, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr(toys, "train", interrupted)
    status, _, err = data(*ZOO, *ALL)
    assert (status, err) == (130, "deepjudge: interrupted\n")
    assert len(weights()) == 5
    first = Path("zoo/controls/same-data-01.toy")
    before = first.stat().st_mtime_ns
    assert data(*ZOO, *ALL)[0] == 0
    assert weights() == whole
    assert first.stat().st_mtime_ns == before
    assert len(calls) == 2 + 3


def test_a_zoo_says_which_gpu_made_it_and_goes_on_there_alone(data: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    few = (*ZOO, "--control-count", "1", "--controls-only")
    assert data(*few)[0] == 0
    assert "device" not in manifest()["settings"]
    monkeypatch.setattr(NumpyModel, "device", "abacus:0")
    data.refuses(2, "would-overwrite", *few, facts=["zoo", "abacus:0"])
    shutil.rmtree("zoo")
    assert data(*few)[0] == 0
    assert manifest()["settings"]["device"] == "abacus:0"
    monkeypatch.setattr(NumpyModel, "device", None)
    data.refuses(2, "would-overwrite", *few, facts=["zoo", "abacus:0"])


def test_more_controls_leave_the_others_as_they_are(data: Cli) -> None:
    data(*ZOO, "--control-count", "2", "--attacks", "tune", "--repeat", "1")
    few = weights()
    data(*ZOO, "--control-count", "6", "--attacks", "tune", "--repeat", "2")
    assert weights().items() > few.items()
    assert len(weights()) == 8


def test_a_damaged_file_is_made_again(data: Cli) -> None:
    data(*ZOO, "--control-count", "2", "--repeat", "0")
    before = weights()
    path = Path("zoo/controls/same-data-01.toy")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert data(*ZOO, "--control-count", "2", "--repeat", "0")[0] == 0
    assert path.read_bytes() == content
    assert sorted(weights()) == sorted(before)


def test_half_of_the_controls_share_no_rows_with_the_victim(data: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[str, np.ndarray] = {}

    def note(network: Any, x: np.ndarray, y: np.ndarray, rng: Any, *, label: str, **_: Any) -> Any:
        used[label] = x
        return network

    monkeypatch.setattr("deepjudge_core.zoo.plans.train", note)
    monkeypatch.setattr("deepjudge_core.zoo.making.accuracy", lambda network, x, y: 1.0)
    data(*ZOO, "--control-count", "2", "--repeat", "0", "--split", "0.25")
    with np.load("train.npz") as rows:
        held = np.arange(3000) % 10 == 9
        own = rows["x_train"][~held][:675]
    assert np.array_equal(used["same-data-01"], own)
    assert len(used["other-data-01"]) == len(own)  # as many as the victim had
    assert not set(map(bytes, used["other-data-01"])) & set(map(bytes, own))


def test_what_is_missing_is_said_and_the_others_are_made(data: Cli) -> None:
    status, out, _ = data(*ZOO, "--control-count", "0", "--attacks", "listen,stumble,tune", "--repeat", "1")
    assert status == 4
    assert "listen-01: left out: needs inputs of another task: --auxiliary" in out
    assert "stumble-01: failed: stumbled" in out
    assert list(weights()) == ["stolen/tune-01.toy"]
    missing = {entry["name"]: entry["failed"] for entry in manifest()["missing"]}
    assert missing == {"listen-01": False, "stumble-01": True}
    assert data(*ZOO, *ALL)[0] == 0  # with what was missing
    assert manifest()["missing"] == []


@pytest.mark.parametrize(
    ("how", "facts"),
    [
        ("crash", ("'stumble'", "ZeroDivisionError", "by zero")),
        ("nan", ("NaN", "logits.bias")),
    ],
)
def test_an_attack_that_fails_is_one_line(data: Cli, how: str, facts: tuple[str, ...]) -> None:
    options = ("--attacks", "stumble", "--repeat", "1", "--option", f"stumble.how={how}")
    status, out, _ = data(*ZOO, "--control-count", "0", *options)
    assert status == 4
    [line] = [line for line in out.splitlines() if line.startswith("stumble-01: failed: ")]
    expect_facts(line, *facts)


def test_controls_are_trained_until_they_are_near_the_victim(data: Cli) -> None:
    hasty = (
        "zoo",
        "victim.toy",
        "--data",
        "train.npz",
        "--rate",
        "0.02",
        "--epochs",
        "1",
        "--repeat",
        "0",
        "-o",
        "zoo",
    )
    status, _, err = data(*hasty, "--control-count", "2")
    assert (status, err) == (0, "")
    entries = manifest()["models"]
    epochs = entries[0]["options"]["epochs"]
    assert epochs in (2, 4, 8)
    assert [entry["options"]["epochs"] for entry in entries] == [epochs] * 2
    assert not entries[0]["far"]
    before = weights()
    assert data(*hasty, "--control-count", "4")[0] == 0  # which goes on with as many
    assert {name: weights()[name] for name in before} == before
    assert {entry["options"]["epochs"] for entry in manifest()["models"]} == {epochs}


def test_without_a_number_controls_are_trained_for_as_long_as_the_first_needs(data: Cli) -> None:
    auto = ("zoo", "victim.toy", "--data", "train.npz", "--rate", "0.002", "--controls-only", "-o", "zoo")
    assert data(*auto, "--control-count", "1")[::2] == (0, "")
    [first] = manifest()["models"]
    epochs = first["options"]["epochs"]
    assert epochs in (10, 20, 40)  # which this rate needs
    # By its hypothesis: half as many were not enough, and would have been found so.
    assert data(*auto, "--control-count", "1", "--epochs", str(epochs // 2), "-o", "half")[0] == 0
    half = manifest("half")["models"][0]
    assert half["accuracy"] < manifest("half")["victim"]["accuracy"] - 0.02
    assert data(*auto, "--control-count", "2")[0] == 0  # which goes on with as many
    assert [model["options"]["epochs"] for model in manifest()["models"]] == [epochs] * 2
    assert manifest()["models"][0] == first
    assert data(*auto, "--control-count", "2", "-o", "at-once")[0] == 0
    assert weights("at-once") == weights()


def test_a_victim_trained_on_everything_has_controls_of_its_data_only(data: Cli) -> None:
    whole = (*ZOO, "--split", "1", "--control-count", "3", "--attacks", "tune", "--repeat", "1")
    status, out, err = data(*whole)
    assert (status, err) == (0, "")
    content = manifest()
    assert [entry["stratum"] for entry in content["models"]] == ["same-data"] * 3 + [None]
    assert len(content["limits"]) == 3  # other data, thieves' data, and the accuracy on rows that it has seen
    assert all(f"limit       {limit}" in out for limit in content["limits"])
    tests = np.random.default_rng(7).random((300, 12), dtype=np.float32)
    np.savez("new.npz", x=tests, y=open_model("victim.toy").predict(tests).argmax(axis=1))
    status, out, _ = data(*ZOO, "--split", "1", "--controls-only", "--test", "new.npz", "-o", "tested")
    assert status == 0
    assert "deepjudge audit victim.toy SUSPECT --controls tested/controls --inputs new.npz" in out
    assert "INPUTS" not in out
    assert len(manifest("tested")["limits"]) == 1
    data("suite", "victim.toy", "--inputs", "in.npz", *SUITE, "-o", "suite.safetensors")
    _, out, _ = data("calibrate", "suite.safetensors", "zoo/controls", "-o", "c.safetensors")
    assert "other training data" in out
    data("judge", "suite.safetensors", "victim.toy", "--calibration", "c.safetensors", "--json", "report.json")
    limits = json.loads(Path("report.json").read_text())["calibration"]["limits"]
    assert any("other training data" in limit for limit in limits)


def test_an_estimate_is_of_what_is_not_there_yet(data: Cli) -> None:
    few = (*ZOO, "--controls-only", "--control-count")
    assert "making      2 controls: about " in data(*few, "2")[1]
    assert "making      3 controls: about " in data(*few, "5")[1]
    assert "making " not in data(*few, "5")[1]


def _next_commands(out: str) -> list[list[str]]:
    lines = [line.removeprefix("next").split() for line in out.splitlines() if line.startswith("next ")]
    assert all(line[0] == "deepjudge" for line in lines)
    # Nobody said which inputs the victim was not trained on.
    assert [line[1] for line in lines if "INPUTS" in line] == [line[1] for line in lines if "--inputs" in line]
    assert ("not trained on" in out) is any("INPUTS" in line for line in lines)
    return [["train.npz" if word == "INPUTS" else word for word in line[1:]] for line in lines]


def test_the_next_commands_can_be_typed_as_they_are(data: Cli) -> None:
    how = ("--epochs", "20", "--bounds", "0,1", "--x", "x_train", "--y", "y_train", "--control-count", "4")
    [audit] = _next_commands(data(*ZOO, *how, "--controls-only")[1])
    audit[audit.index("SUSPECT")] = "victim.toy"
    assert data(*audit, "-n", "50", *SUITE)[0] == 1
    report = json.loads(Path("audit/report.json").read_text())
    assert report["suite"]["bounds"] == [0.0, 1.0]
    assert len(report["calibration"]["controls"]) == 4
    suite = ("--suite", "audit/suite.safetensors", "--attacks", "tune", "--repeat", "1")
    calibrate, power = _next_commands(data(*ZOO, *how, *suite)[1])
    assert data(*calibrate)[0] == 0
    assert len(load_controls(Path("zoo/calibration.safetensors")).observations) == 4
    assert data(*power)[0] == 0
    assert Path("zoo/power/power.json").exists()
    stolen = ("--attacks", "tune", "--repeat", "1", "-o", "other")
    _, suite, power = _next_commands(data(*ZOO[:-2], *how, *stolen)[1])
    assert data(*suite, *SUITE)[0] == 0
    assert data(*power)[0] == 0


def test_a_zoo_stops_where_no_training_brings_controls_near_the_victim(data: Cli) -> None:
    slow = (*ZOO, "--control-count", "4", "--attacks", "tune", "--repeat", "1", "--rate", "1e-9")
    status, _, err = data(*slow)
    assert status == 4
    expect_facts(err.strip(), "--rate", "--epochs", "--data", "--control-count 0", "(wrong-controls)")
    assert manifest()["models"] == []
    assert not list(Path("zoo").glob("controls/*"))


def with_far_controls(folder: Path) -> None:
    """Say of all controls of a zoo that they are far."""
    content = manifest()
    for entry in content["models"]:
        entry["far"] = entry["kind"] == "control"
    (folder / "zoo.json").write_text(json.dumps(content))


def test_far_controls_are_left_out(data: Cli) -> None:
    data(*ZOO, "--control-count", "4", "--attacks", "tune", "--repeat", "1")
    with_far_controls(Path("zoo"))
    assert data("suite", "victim.toy", "--inputs", "in.npz", *SUITE, "-o", "suite.safetensors")[::2] == (0, "")
    data.refuses(4, "wrong-controls", *POWER, facts=("zoo", "3", "0"))
    assert data(*POWER, "--far")[0] == 0
    data("calibrate", "suite.safetensors", "zoo/controls", "-o", "c.safetensors")
    controls = load_controls(Path("c.safetensors"))
    assert controls.observations == ()
    assert len(controls.notes) == 4
    data("calibrate", "suite.safetensors", "zoo/controls", "--far", "-o", "all.safetensors")
    assert len(load_controls(Path("all.safetensors")).observations) == 4


def test_a_stolen_model_far_from_the_victim_is_judged_and_not_counted(data: Cli) -> None:
    options = ("--epochs", "20", "--rate", "0.02", "--auxiliary", "other.npz", "--option", "listen.epochs=1")
    data(*ZOO, "--control-count", "4", "--attacks", "listen", "--repeat", "1", *options)
    data("suite", "victim.toy", "--inputs", "in.npz", *SUITE, "-o", "suite.safetensors")
    assert "listen-01.toy (inconclusive)" in data(*POWER)[1]  # nothing tells why it errs so much more than the controls
    report = json.loads(Path("power/power.json").read_text())
    [attack] = report["attacks"]
    assert (attack["copies"]["of"], attack["left_out"], attack["auc"]["outputs"]) == (0, 1, None)
    assert [model["counts"] for model in report["models"]] == [True] * 4 + [False]
    data(*POWER, "--far")
    [attack] = json.loads(Path("power/power.json").read_text())["attacks"]
    assert (attack["copies"]["of"], attack["left_out"]) == (1, 0)


TUNE = ("--attacks", "tune")


def _sorted_rows(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(y, kind="stable")
    return x[order], y[order]


@pytest.mark.parametrize(
    ("change", "options", "code", "facts"),
    [
        (_sorted_rows, (), "wrong-inputs", ("0..1350", "--split")),
        (
            lambda x, y: (x[y != 2], y[y != 2]),
            (),
            "wrong-inputs",
            ("training data", "class 2"),
        ),
        (lambda x, y: (x, np.eye(4)[y] + np.eye(4)[0]), (), "wrong-inputs", ("'y_train'", "(3000, 4)")),
        (lambda x, y: (x, (y + 1) % 4), TUNE, "wrong-inputs", ("victim.toy", "%")),
        (lambda x, y: (x, y + 1), (), "wrong-inputs", ("training data", "0..3", "1..4")),
        (lambda x, y: (x[:, :5], y), (), "wrong-inputs", ("training data", "victim.toy", "12", "5")),
        (None, ("--auxiliary", "wide.npz"), "wrong-inputs", ("auxiliary data", "victim.toy", "12", "3")),
        (None, ("--auxiliary", "loud.npz"), "wrong-inputs", ("auxiliary data", "0..1", "0..9")),
        (None, ("--auxiliary", "loud.npz"), "wrong-inputs", ("--bounds",)),
        (None, ("--test", "wide.npz"), "wrong-inputs", ("wide.npz", "x_test/y_test")),
        (None, ("--auxiliary", "none.npz"), "cannot-read", ("none.npz",)),
        (None, ("--data", "test.npz"), "wrong-inputs", ("test.npz", "x_train/y_train, x/y,")),
        (
            None,
            ("--data", "both.npz"),
            "wrong-inputs",
            ("test data", "0..1", "3..3", "--bounds"),
        ),
        (
            None,
            ("--auxiliary", "hot.npz"),
            "wrong-inputs",
            ("auxiliary data", "labels", "0 to 1 classes"),
        ),
        (None, ("--split", "1.5"), "wrong-value", ("--split", "1.5")),
        (None, ("--controls-only", *TUNE), "conflict", ("--controls-only", "--attacks")),
        (None, ("--control-count", "-1"), "wrong-value", ("--control-count", "-1")),
        (None, (*TUNE, "-o", "in.npz/zoo"), "cannot-write", ("in.npz/zoo/zoo.json", "Not a directory")),
        (None, ("--attacks", "tune, tun"), "unknown-name", ("attack", "'tun'")),
        (None, ("--epochs", "0"), "wrong-value", ("epochs", "0")),
        (None, ("--rate", "0"), "wrong-value", ("rate", "0")),
        (None, ("--attacks", "tun"), "unknown-name", ("attack", "'tun'")),
        (None, ("--option", "tune.epoch=1"), None, ("tune", "'epoch'")),
        (None, ("--option", "epochs=1"), None, ("epochs=1",)),
    ],
)
def test_what_is_wrong_is_one_line(
    data: Cli, change: Callable[..., Any] | None, options: tuple[str, ...], code: str | None, facts: tuple[str, ...]
) -> None:
    np.savez("test.npz", x_test=np.zeros((4, 12), np.float32), y_test=np.arange(4))
    with np.load("train.npz") as rows:
        np.savez("both.npz", **rows, x_test=np.full((4, 12), 3, np.float32), y_test=np.arange(4))
    np.savez("hot.npz", x=np.zeros((4, 12), np.float32), y=np.eye(4, 2))
    np.savez("wide.npz", x=np.zeros((4, 3), np.float32))
    np.savez("loud.npz", x=np.arange(24, dtype=np.float32).reshape(2, 12) % 10)
    if change:
        with np.load("train.npz") as rows:
            x, y = change(rows["x_train"], rows["y_train"])
        np.savez("train.npz", x_train=x, y_train=y)
    command = (*ZOO, "--control-count", "2", *options)
    if code is None:  # of an option, whose codes are its own tests' matter
        status, _, err = data(*command)
        assert status == 2
        expect_facts(err.strip(), *facts)
        return
    data.refuses(4 if code in ("wrong-inputs", "cannot-write") else 2, code, *command, facts=facts)


def test_a_suite_of_another_victim_is_refused(data: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepjudge_core.zoo.plans.ZooRecipe.needs_suite", True)
    data(
        "suite",
        "copy.toy",
        "--inputs",
        "in.npz",
        *MADE,
        "--option",
        "shove.eps=1",
        "--force",
        "-o",
        "suite.safetensors",
    )
    few = ("--control-count", "1", "--attacks", "tune", "--suite", "suite.safetensors")
    data.refuses(2, "conflict", *ZOO, *few, facts=("victim.toy", "copy.toy"))


def test_a_folder_with_another_zoo_is_left_alone(data: Cli) -> None:
    few = ("--control-count", "2", "--attacks", "tune", "--repeat", "1")
    data(*ZOO, *few)
    data.refuses(2, "would-overwrite", *ZOO, *few, "--seed", "1", facts=("seed", "1", "0"))
    data.refuses(2, "would-overwrite", *ZOO, *few, "--split", "0.4", facts=("data", "--split"))
    data.refuses(2, "would-overwrite", *ZOO, *few, "--epochs", "3", facts=("epochs=4 rate=0.02 batch=128", "epochs=3"))
    task()[2].with_fresh_head(np.random.default_rng(0)).save(Path("victim.toy"))
    data.refuses(2, "would-overwrite", *ZOO, *few, facts=("zoo", "victim.toy"))


def test_a_full_disk_keeps_what_was_made(data: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    save, saved = toys.ToyArchitecture.save, []

    def full(self: Any, weights: Any, path: Path) -> None:
        save(self, weights, path)
        saved.append(path)
        if len(saved) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(toys.ToyArchitecture, "save", full)
    status, _, err = data(*ZOO, "--control-count", "4", "--repeat", "0")
    assert status == 4
    expect_facts(err.strip(), "zoo/controls/other-data-01.toy", "No space left on device", "(cannot-write)")
    assert list(weights()) == ["controls/same-data-01.toy"]
    assert [path.name for path in Path("zoo/controls").iterdir()] == ["same-data-01.toy"]


SUITE = (*MADE, "--order", "low")
BY = ("power", "suite.safetensors", "zoo", *HOW[2:], "-o", "power")  # by which rule is left open
POWER = (*BY[:3], *HOW[:2], *BY[3:])


@pytest.fixture
def zoo(data: Cli, snapshots: Snapshots) -> Cli:
    def make() -> None:
        data(*ZOO, *ALL, "--epochs", "20", "--rate", "0.02", "--option", "listen.epochs=20")
        assert data("suite", "victim.toy", "--inputs", "in.npz", *SUITE, "-o", "suite.safetensors")[::2] == (0, "")

    snapshots.fill("zoo", data.folder, make)
    return data


def test_strata_of_a_zoo_reach_the_rule(zoo: Cli) -> None:
    status, _, err = zoo("calibrate", "suite.safetensors", "zoo/controls", "-o", "c.safetensors")
    assert status == 0
    assert "100%" in err  # the task is so easy that all are fooled alike
    assert load_controls(Path("c.safetensors")).strata == ("other-data", "other-data", "same-data", "same-data")
    # One that is not as it was made, and one from elsewhere, are of no known stratum.
    assert zoo(*POWER)[0] == 0
    answers = sorted(map(str, Path(POWER[-1], "observations").glob("*-data-*.safetensors")))
    assert zoo("calibrate", "suite.safetensors", *answers, "-o", "again.safetensors")[0] == 0
    assert load_controls(Path("again.safetensors")).strata == ("other-data", "other-data", "same-data", "same-data")
    victim = load_zoo(Path("zoo")).victim.digest
    changed = Path("zoo/controls/other-data-01.toy")
    changed.write_text(changed.read_text() + " ")
    for path in (changed, Path("victim.toy"), Path("zoo/stolen/tune-01.toy")):
        assert recorded_control(path, victim) is None
    record = recorded_control(Path("zoo/controls/other-data-02.toy"), victim)
    assert record
    assert (record.file, record.stratum) == ("controls/other-data-02.toy", "other-data")


@pytest.mark.parametrize(
    "content", ['{"schema": "of others", "models": []}', "[1, 2]", "no JSON", "", '{"a": 1, "a": 2}']
)
def test_a_manifest_of_somebody_else_is_passed_over(zoo: Cli, content: str) -> None:
    Path("others").mkdir()
    for name in ("other-data-01.toy", "same-data-01.toy", "other-data-02.toy"):
        Path("others", name).write_bytes(Path("zoo/controls", name).read_bytes())
    Path("others/zoo.json").write_text(content)
    status, _, err = zoo("calibrate", "suite.safetensors", "others", "-o", "c.safetensors")
    assert status == 0
    [line] = [line for line in err.splitlines() if "zoo.json" in line]  # once, not for each control
    expect_facts(line, "warning", "others/zoo.json", "ignored")
    assert load_controls(Path("c.safetensors")).strata == (None, None, None)
    assert any("zoo.json" in note for note in load_controls(Path("c.safetensors")).notes)


def test_what_controls_have_in_common_with_another_victim_says_nothing(zoo: Cli) -> None:
    zoo("suite", "zoo/stolen/tune-01.toy", "--inputs", "in.npz", *SUITE, "-o", "other.safetensors")
    status, _, err = zoo("calibrate", "other.safetensors", "zoo/controls", "-o", "c.safetensors")
    assert status == 0
    [line] = [line for line in err.splitlines() if "zoo.json" in line]
    expect_facts(line, "warning", "zoo/zoo.json", "victim.toy", "ignored")
    assert load_controls(Path("c.safetensors")).strata == (None,) * 4


def test_power_says_what_an_audit_sees(zoo: Cli) -> None:
    status, out, err = zoo(*POWER)
    assert (status, err) == (0, "")
    report = json.loads(Path("power/power.json").read_text())
    assert report["schema"] == "deepjudge/power/1"
    tune, listen = report["attacks"]
    assert (tune["attack"], listen["attack"]) == ("tune", "listen")
    # The one keeps nearly all of the weights, the other has its own.
    assert tune["copies"]["count"] == tune["groups"]["white-box"]["count"] == 2
    assert listen["groups"]["white-box"]["count"] == 0
    assert tune["auc"]["outputs"] == 1
    controls = report["controls"]
    assert controls["count"] == controls["held_out_accused"]["of"] == 4
    models = {entry["file"]: entry for entry in report["models"]}
    assert len(models) == 8
    assert models["stolen/tune-01.toy"]["decision"] == "copy"
    assert "tune" in out
    assert "2 of 2" in out
    assert "report: power/power.json" in out
    for file in ("power/power.json", "zoo/zoo.json"):
        assert json.loads(zoo("show", "--json", file)[1]) == json.loads(Path(file).read_text())
    # As judged one by one.
    zoo("calibrate", "suite.safetensors", "zoo/controls", "-o", "c.safetensors")
    judge = ("judge", "suite.safetensors", "zoo/stolen", "--calibration", "c.safetensors", *HOW, "--json", "r.json")
    zoo(*judge)
    for suspect in json.loads(Path("r.json").read_text())["suspects"]:
        entry = models[suspect["path"].removeprefix("zoo/")]
        assert suspect["decision"] == entry["decision"]
        assert {k: m["value"] for k, m in suspect["metrics"].items()} == {
            k: m["value"] for k, m in entry["metrics"].items()
        }


def test_power_says_which_components_failed(zoo: Cli) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("out of order")

    metric = Metric("gap", needs=Access.LABELS, on="adversarial", distance=lambda *_: -0.5, alpha=0.9)
    mine = SimpleNamespace(
        deepjudge_metrics=hookimpl(lambda: [metric], specname="deepjudge_metrics"),
        deepjudge_rules=hookimpl(lambda: [Rule("balk", judge=fail)], specname="deepjudge_rules"),
    )
    session = dj.Session(registry=toys.registry_of(toys=toys, mine=mine), sandbox=None)
    for rule, failing in (("nearest", "gap"), ("balk", "'balk'")):
        settings = dj.JudgeSettings(rule=rule, metrics=["answers", "surety", "gap"])
        found = dj.power("suite.safetensors", "zoo", settings, session=session)
        [line] = [line for line in found.failures if failing in line]  # once, and not for each of 8 models
        expect_facts(line, found.results[0].model.file, "7 more")
        assert [attack.copies.of for attack in found.attacks] == ([0, 0] if rule == "balk" else [2, 2])


def test_rules_side_by_side_judge_as_each_alone(zoo: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[object] = []
    measure = Judge.measure
    monkeypatch.setattr(Judge, "measure", lambda self, *a: measured.append(a) or measure(self, *a))
    rules = ("nearest", "prediction-bound", "conformal")
    several = ("--rule", ",".join(rules), "--rule-option", "conformal.level=0.4", "--html", "page.html")
    status, out, err = zoo(*BY, *several, "-o", "several")
    assert (status, err) == (0, "")
    report = json.loads(Path("several/power.json").read_text())
    assert len(measured) == len(report["models"])  # once each, whatever the number of rules
    assert [entry["rule"] for entry in report["rules"]] == list(rules)
    for entry in report["rules"]:
        option = ("--rule-option", "level=0.4") if entry["rule"] == "conformal" else ()
        assert zoo(*BY, "--rule", entry["rule"], *option, "-o", "alone")[0] == 0
        alone = json.loads(Path("alone/power.json").read_text())
        assert "rules" not in alone
        assert entry["rule_options"] == alone["rule_options"]
        assert entry["decisions"] == {model["file"]: model["decision"] for model in alone["models"]}
        assert entry["held_out_accused"] == alone["controls"]["held_out_accused"]
        for shown, its in zip(entry["attacks"], alone["attacks"], strict=True):
            assert shown == {name: its[name] for name in ("attack", "copies", "inconclusive")}
    # With 4 controls nothing can be said at prediction-bound's level of 1 %.
    assert all(attack["inconclusive"] == attack["copies"]["of"] > 0 for attack in report["rules"][1]["attacks"])
    rows = {line.split("  ")[0].strip(): line.split()[1:] for line in out.splitlines()}
    assert rows["tune"][:4] == ["2", "of", "2", "undecided"]
    accused = report["controls"]["held_out_accused"]["count"]
    assert rows["controls accused"][1:5] == [str(accused), "of", "4", "undecided"]
    assert "Rules side by side" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("options", "code", "facts"),
    [
        (
            ("--rule", "voting,conformal", "--rule-option", "level=0.1"),
            "wrong-value",
            ("voting.level=0.1",),
        ),
        (("--rule", "voting,voting"), "wrong-value", ("voting",)),
        (("--rule", "voting,vote"), "unknown-name", ("'vote'",)),
        (
            ("--rule", "voting,conformal", "--rule-option", "conformal.confidence=0.9"),
            "unknown-option",
            ("confidence",),
        ),
    ],
)
def test_rules_that_cannot_be_compared(zoo: Cli, options: tuple[str, ...], code: str, facts: tuple[str, ...]) -> None:
    zoo.refuses(2, code, *BY, *options, facts=facts)


def test_answers_are_kept_and_asked_for_anew_where_the_suite_changed(zoo: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert zoo(*POWER)[0] == 0
    before = Path("power/power.json").read_bytes()
    opened: list[Path] = []

    def note(path: Path, **options: Any) -> Any:
        opened.append(path)
        return open_model(path, **options)

    monkeypatch.setattr("deepjudge_core.auditing.subject.open_model", note)
    assert zoo(*POWER)[0] == 0
    assert (opened, Path("power/power.json").read_bytes()) == ([], before)
    Path("zoo/stolen/tune-01.toy").unlink()
    zoo(*ZOO, *ALL, "--epochs", "20", "--rate", "0.02", "--option", "listen.epochs=20", "--option", "tune.epochs=1")
    assert zoo(*POWER)[0] == 0
    assert opened == []  # the same again
    zoo("suite", "victim.toy", "--inputs", "in.npz", *SUITE, "--seed", "1", "-o", "suite.safetensors")
    opened.clear()
    assert zoo(*POWER)[0] == 0
    assert len(opened) == 8


def test_a_stolen_model_that_is_gone_is_one_line(zoo: Cli) -> None:
    Path("zoo/stolen/tune-01.toy").unlink()
    status, out, _ = zoo(*POWER)
    assert status == 4
    assert "stolen/tune-01.toy: expected the file that 'deepjudge zoo' made, found none or another" in out
    report = json.loads(Path("power/power.json").read_text())
    assert report["attacks"][0]["copies"]["of"] == 1
    shutil.copy("zoo/controls/same-data-02.toy", "zoo/controls/same-data-01.toy")
    zoo.refuses(4, "wrong-controls", *POWER, facts=("controls/same-data-01.toy",))


def test_controls_that_cannot_be_held_out_are_counted(zoo: Cli) -> None:
    assert "not judged" not in zoo(*POWER)[1]
    zoo(*ZOO, "--control-count", "3", *TUNE, "--epochs", "20", "--rate", "0.02", "-o", "three")
    _, out, _ = zoo("power", "suite.safetensors", "three", *HOW, "-o", "power")
    assert "held out" not in out
    assert "not judged  3 of the controls: the others alone cannot decide" in out


def test_a_rule_that_says_nothing_says_why(zoo: Cli) -> None:
    _, out, _ = zoo(*BY, "--rule", "conformal", "--markdown", "power.md")
    stolen = sum(attack["copies"]["of"] for attack in json.loads(Path("power/power.json").read_text())["attacks"])
    assert f"undecided   {stolen} of {stolen} stolen models: " in out
    assert "more are needed for a p-value of" in out
    lead = Path("power.md").read_text().splitlines()[2]
    expect_facts(lead, f"0 of {stolen} ", f"{stolen} more", "undecided", "could not be measured")


def test_power_needs_a_folder(zoo: Cli) -> None:
    status, _, err = zoo(*POWER[:-1], "in.npz")
    assert status == 2
    expect_facts(err.strip(), "in.npz", "folder")


def test_the_suite_of_another_victim_is_refused(zoo: Cli) -> None:
    zoo("suite", "zoo/stolen/tune-01.toy", "--inputs", "in.npz", *SUITE, "-o", "suite.safetensors")
    zoo.refuses(2, "conflict", *POWER, facts=("zoo/stolen/tune-01.toy", "victim.toy"))


@pytest.mark.parametrize(
    ("content", "code", "facts"),
    [
        (None, "wrong-file", ("zoo.json",)),
        ("{", "damaged-file", ("zoo.json", "JSON")),
        ("[]", "wrong-file", ("zoo.json", "deepjudge/zoo/1")),
        ({"schema": "deepjudge/zoo/1"}, "damaged-file", ("zoo.json",)),
        ({"models": [{"file": 3}]}, "damaged-file", ("zoo.json",)),
        ({"models": ["../../x.toy"]}, "wrong-file", ("zoo.json", "../../x.toy")),
    ],
)
def test_a_manifest_of_somebody_else_is_refused(
    tmp_path: Path, content: Any, code: str, facts: tuple[str, ...]
) -> None:
    if isinstance(content, dict):
        entry = {"kind": "control", "stratum": None, "attack": None, "options": {}, "seed": 1, "accuracy": None}
        entry |= {"far": False, "digest": "", "weights": "", "seconds": 0.0}
        models = [entry | {"file": m} if isinstance(m, str) else m for m in content.get("models", [])]
        victim = {"path": "v.toy", "framework": "numpy", "digest": "", "classes": 4, "accuracy": 1.0}
        manifest = {"schema": "deepjudge/zoo/1", "victim": victim, "settings": {}, "missing": []}
        content = json.dumps(manifest | {"models": models} if "models" in content else content)
    if content is not None:
        (tmp_path / "zoo.json").write_text(content)
    with refused(FileFormatError, *facts, code=code):
        load_zoo(tmp_path)


def test_the_area_is_that_of_pairs() -> None:
    rng = np.random.default_rng(0)
    stolen, controls = rng.integers(0, 5, 30).astype(float), rng.integers(2, 8, 20).astype(float)
    pairs = [(s < c) + (s == c) / 2 for s in stolen for c in controls]
    assert area(stolen, controls) == pytest.approx(np.mean(pairs))
    assert area(np.array([]), controls) is None


def test_the_interval_of_a_share_is_that_of_clopper_and_pearson() -> None:
    assert Share(0, 12).interval == pytest.approx((0, 1 - 0.025 ** (1 / 12)))
    assert Share(0, 0).interval == (0, 1)


# A victim that takes inputs prepared.

SYMMETRIC = ("--victim-input", "-1..1")


@pytest.fixture
def prepared(cli: Cli) -> Cli:
    """A folder with a victim that takes -1..1, and inputs in 0..1."""
    x, y, _ = task()
    rng = np.random.default_rng(5)
    fresh = toys.Network.fresh(toys.ToyArchitecture((12,), (10, 8), 4), rng)
    train(fresh, 2 * x[:1500] - 1, y[:1500], rng, schedule=Schedule(30, 2e-2, 64)).save(Path("victim.toy"))
    np.savez("train.npz", x_train=x, y_train=y)
    np.savez("in.npz", x=x[-200:], y=y[-200:])
    np.savez("other.npz", x=1 - np.random.default_rng(6).random((2000, 12), dtype=np.float32))
    return cli


def test_models_of_a_zoo_take_what_the_victim_takes(prepared: Cli) -> None:
    how = ("--epochs", "20", "--rate", "0.02", "--option", "listen.epochs=20", *SYMMETRIC)
    assert prepared(*ZOO, *ALL, *how)[::2] == (0, "")
    content = manifest()
    assert content["victim"]["preprocessing"] == {"scale": 2, "mean": [1], "std": [1]}
    assert content["victim"]["accuracy"] > 0.9
    assert min(entry["accuracy"] for entry in content["models"]) > 0.85
    x, y, _ = task()
    control = open_model(Path("zoo/controls/same-data-01.toy"))
    assert np.mean(control.predict(2 * x[:500] - 1).argmax(axis=1) == y[:500]) > 0.85
    # A suite that says the same: all are asked as the victim is, and the copies are found.
    make = ("suite", "victim.toy", "--inputs", "in.npz", *SUITE, "-o", "suite.safetensors")
    assert prepared(*make, *SYMMETRIC)[::2] == (0, "")
    assert prepared(*POWER)[::2] == (0, "")
    report = json.loads(Path("power/power.json").read_text())
    assert report["victim"]["preprocessing"] == content["victim"]["preprocessing"]
    assert {attack["attack"]: attack["copies"]["count"] for attack in report["attacks"]}["tune"] == 2
    for path in Path("power/observations").rglob("*.safetensors"):
        assert load_observation(path).inferred == ()
    # Another one is no suite of these models.
    inputs = ("--victim-input", "scale=2,mean=0.9")
    prepared(*make, *inputs)
    prepared.refuses(2, "conflict", *POWER, facts=("zoo", "mean=0.9", "mean=1"))


def test_what_a_thief_knows_of_the_suite_is_as_networks_take_it(prepared: Cli) -> None:
    suite = load_suite_of(prepared)
    preprocessing = Preprocessing(2.0, (1.0,))
    plain = Material(*(Rows(np.zeros((2, 12), np.float32), np.zeros(2, np.int64)),) * 3, (0.0, 1.0))
    material = plain.prepared(preprocessing, preprocessing.preparing("", (12,), (0, 1), None))
    assert material.bounds == (-1, 1)
    assert (material.own.x == -1).all()
    known = known_suite(suite, material)
    assert known is not None
    np.testing.assert_allclose(known.cases.inputs, 2 * suite.cases.inputs - 1, atol=1e-6)
    assert known_suite(suite, plain) is suite


def load_suite_of(cli: Cli) -> Suite:
    cli("suite", "victim.toy", "--inputs", "in.npz", *SUITE, *SYMMETRIC, "-o", "suite.safetensors")
    return load_suite(Path("suite.safetensors"))

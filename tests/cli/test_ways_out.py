"""Every dead end names its way out: the option, the command or the line of Python with which to go on."""

from pathlib import Path

import numpy as np
import pytest
import toys
from commands import HOW, MADE, Cli

OUT = ("-o", "o.safetensors")


@pytest.fixture
def ready(cli: Cli) -> Cli:
    """A folder with a suite."""
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
    return cli


def save(**arrays: np.ndarray) -> None:
    np.savez("bad.npz", **arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "code", "facts"),
    [
        # Another order of the classes, of which the victim knows each: the labels are at fault, not its inputs.
        (lambda x, y, classes: (x, (y + 1) % classes), "no-verdict", ("order", "number the labels")),
        (lambda x, y, classes: (x, y + 1), "wrong-inputs", ("subtract 1", "--labels victim")),
        (lambda x, y, classes: (x, y + 5), "wrong-inputs", ("from 0", "--labels victim")),
        (lambda x, y, classes: (x, y[:-1]), "wrong-inputs", ("--x", "--y")),
    ],
)
def test_labels_that_are_not_the_victims(cli: Cli, change, code, facts) -> None:  # type: ignore[no-untyped-def]
    model = toys.make_model()
    x, y = toys.make_inputs(model)
    x, y = change(x, y, model.classes)
    save(x=x, y=y)
    cli.refuses(4, code, "suite", "victim.toy", "--inputs", "bad.npz", *MADE, *OUT, facts=facts)


def test_an_erring_victim_names_all_that_may_be_wrong(cli: Cli) -> None:
    model = toys.make_model()
    x, y = toys.make_inputs(model)
    save(x=x, y=np.random.default_rng(0).permutation(y))
    facts = ("labels", "trained for", "--victim-input", "--scale", "--input-layout", "--labels victim", "--force")
    cli.refuses(4, "no-verdict", "suite", "victim.toy", "--inputs", "bad.npz", *MADE, *OUT, facts=facts)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("m.pkl", ("torch.save(model.state_dict(), 'm-weights.pth')", "--arch", "torch.onnx.export(", "to_onnx(")),
        ("m.joblib", ("to_onnx(estimator", "m.onnx")),
        ("m.xyz", ("convert", ".onnx")),
    ],
)
def test_files_that_are_no_models(cli: Cli, name: str, facts: tuple[str, ...]) -> None:
    Path(name).write_bytes(b"anything")
    for command in (("suite", name), ("audit", "victim.toy", name)):
        cli.refuses(2, "wrong-usage", *command, "--inputs", "in.npz", "-o", "o", facts=(name, *facts))


def test_a_file_in_the_place_of_another(ready: Cli) -> None:
    np.savez("other.npz", x=np.zeros(1))
    ready.refuses(
        4, "damaged-file", "judge", "victim.toy", "copy.toy", *HOW, facts=("victim.toy", "deepjudge suite VICTIM")
    )
    ready.refuses(
        4,
        "wrong-file",
        "judge",
        "s.safetensors",
        "copy.toy",
        *HOW,
        "--calibration",
        "s.safetensors",
        facts=("deepjudge calibrate SUITE CONTROL",),
    )
    ready.refuses(
        4, "wrong-inputs", "suite", "victim.toy", "--inputs", "s.safetensors", *OUT, facts=("s.safetensors", "own")
    )
    ready.refuses(4, "damaged-file", "report", "other.npz", "--html", "r.html", facts=("deepjudge audit",))
    ready.refuses(2, "wrong-usage", "verify", "in.npz", facts=("in.npz", "deepjudge judge -o DIR"))


def test_answers_to_another_suite(ready: Cli) -> None:
    assert ready("observe", "s.safetensors", "copy.toy", *OUT)[0] == 0
    assert ready("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0
    made = ("suite", "victim.toy", "--inputs", "in.npz", "-n", "10", "-g", "shove", "-o", "other.safetensors")
    assert ready(*made)[0] == 0
    ready.refuses(
        4,
        "wrong-file",
        "judge",
        "other.safetensors",
        "copy.toy",
        *HOW,
        "--calibration",
        "c.safetensors",
        facts=("c.safetensors", "deepjudge calibrate SUITE CONTROL"),
    )
    # Of another number of cases, too.
    status, out, err = ready("judge", "other.safetensors", "o.safetensors", "--stored", *HOW)
    assert (status, err) == (4, "")
    assert "o.safetensors: failed: " in out
    assert "ask the model again" in out


def test_what_lacks_is_shown_in_the_command_that_was_typed(cli: Cli) -> None:
    cli.refuses(
        2, "missing-value", "suite", "victim.toy", facts=("deepjudge suite victim.toy", "--inputs DATA -o SUITE")
    )
    Path("my report.json").write_bytes(b"")
    cli.refuses(
        2, "missing-value", "report", "my report.json", facts=("deepjudge report 'my report.json' --html report.html",)
    )


def test_too_few_controls_name_the_commands_that_make_more(ready: Cli) -> None:
    zoo = "deepjudge zoo victim.toy --data TRAIN.npz --controls-only --split 1 -o zoo"
    ready.refuses(2, "missing-value", "calibrate", "s.safetensors", *OUT, facts=(zoo,))
    status, out, _ = ready("calibrate", "s.safetensors", "honest.toy", "-o", "c.safetensors")
    lines = [line.strip() for line in out.splitlines()]
    assert status == 0
    assert zoo in lines
    assert "deepjudge calibrate s.safetensors honest.toy zoo/controls -o calibration.safetensors" in lines
    _, out, _ = ready("judge", "s.safetensors", "copy.toy", *HOW, "--calibration", "c.safetensors")
    asked = [line.strip() for line in out.splitlines() if line.strip().startswith("deepjudge judge ")]
    # In the place of the calibration that has too few.
    assert [line.count("--calibration") for line in asked] == [1]
    assert [line.endswith("--calibration calibration.safetensors") for line in asked] == [True]


def test_a_place_that_cannot_be_written_is_said_first(ready: Cli) -> None:
    Path("folder").mkdir()
    Path("bad.toy").write_bytes(b"")
    for command in (("suite", "bad.toy", "--inputs", "in.npz"), ("observe", "bad.toy", "bad.toy")):
        ready.refuses(4, "cannot-write", *command, "-o", "folder", facts=("folder/",))
        ready.refuses(4, "cannot-write", *command, "-o", "in.npz/x", facts=("in.npz/x",))

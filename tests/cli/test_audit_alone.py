"""``deepjudge audit`` by itself: without controls, interrupted and repeated, with mistakes in what was typed."""

import json
import os
import shutil
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toys
from commands import HOW, MADE, WHOLE, Cli, write

from deepjudge_core.auditing import keys
from deepjudge_core.auditing.keys import UnknownError, fingerprint, own_code

AUDIT = ("audit", "victim.toy", "copy.toy", "honest.toy", "--inputs", "in.npz", *MADE, *HOW)
CONTROLS = ("--controls", "controls")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are opened, in turn."""
    names: list[str] = []
    opening = toys._open

    def count(source: Path, **options: Any) -> Any:
        names.append(Path(source).name)
        return opening(source, **options)

    monkeypatch.setattr(toys, "_open", count)
    return names


def stored() -> list[bool]:
    return [json.loads(line)["stored"] for line in Path("audit/queries.jsonl").read_text().splitlines()]


def test_without_controls_the_victim_is_recognised_and_the_way_to_controls_is_told(cli: Cli) -> None:
    shutil.copy("victim.toy", "same.toy")
    status, out, err = cli("audit", "victim.toy", "same.toy", "honest.toy", "--inputs", "in.npz", *MADE, *HOW)
    assert (status, err) == (1, "")
    decisions = [suspect["decision"] for suspect in json.loads(Path("audit/report.json").read_text())["suspects"]]
    assert decisions == ["copy", "inconclusive"]
    lines = [line.strip() for line in out.splitlines()]
    assert any(line.startswith("deepjudge zoo victim.toy --data ") and "audit-work/zoo" in line for line in lines)
    again = next(line for line in lines if line.startswith("deepjudge audit victim.toy same.toy honest.toy "))
    assert again.endswith("--controls audit-work/zoo/controls")
    assert lines[-1] == "page: audit/report.html"
    assert Path("audit/report.html").is_file()
    assert cli("verify", "audit")[0] == 0
    # A suspect that is known to be the victim leaves nothing open.
    _, out, _ = cli("audit", "victim.toy", "same.toy", "--inputs", "in.npz", *MADE, *HOW)
    assert "deepjudge zoo" not in out


def test_a_judgement_without_a_calibration_tells_the_way_to_one(cli: Cli) -> None:
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
    status, out, _ = cli("judge", "s.safetensors", "honest.toy", *HOW)
    assert status == 3
    assert "deepjudge calibrate s.safetensors " in out
    assert "--calibration calibration.safetensors" in out


def test_what_was_made_and_answered_is_not_made_or_asked_again(cli: Cli, opened: list[str]) -> None:
    whole = ["victim.toy", "c1.toy", "c2.toy", "c3.toy", "c4.toy", "copy.toy", "honest.toy"]
    status, out, _ = cli(*AUDIT, *CONTROLS)
    assert (status, opened) == (1, whole)
    assert "reused" not in out
    report = Path("audit/suite.safetensors").read_bytes()
    opened.clear()
    status, out, _ = cli(*AUDIT, *CONTROLS)
    assert (status, opened, stored()) == (1, [], [True] * 7)
    assert ("suite: reused" in out, "answers: 6 of 6" in out) == (True, True)
    assert Path("audit/suite.safetensors").read_bytes() == report
    assert cli("verify", "audit")[0] == 0
    # Another suspect; another setting of the suite; nothing of before.
    toys.save_model(Path("copy.toy"), noise=0.06)
    cli(*AUDIT, *CONTROLS)
    assert (opened, stored()) == (["copy.toy"], [True] * 5 + [False, True])
    opened.clear()
    cli(*AUDIT, *CONTROLS, "--seed", "1")
    assert opened == whole
    opened.clear()
    cli(*AUDIT, *CONTROLS, "--seed", "1", "--fresh")
    assert opened == whole
    opened.clear()
    # By a file, from the same folder.
    write(WHOLE, ('output = "out"', 'output = "audit"'), ("seeds = 20", "seeds = 20\nseed = 1"))
    assert cli("audit", "audit.toml")[0] == 1
    assert opened == []
    assert cli("audit", "audit.toml", "--fresh")[0] == 1
    assert opened == whole


def test_an_interrupted_audit_goes_on(cli: Cli, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    counting = toys._open

    def stop(source: Path, **options: Any) -> Any:
        if Path(source).name == "c3.toy":
            raise KeyboardInterrupt
        return counting(source, **options)

    monkeypatch.setattr(toys, "_open", stop)
    status, _, err = cli(*AUDIT, *CONTROLS)
    assert (status, "audit-work" in err) == (130, True)
    monkeypatch.setattr(toys, "_open", counting)
    opened.clear()
    assert cli(*AUDIT, *CONTROLS)[0] == 1
    assert opened == ["c3.toy", "c4.toy", "copy.toy", "honest.toy"]


def test_what_is_kept_and_damaged_or_foreign_is_made_again_with_a_word(cli: Cli, opened: list[str]) -> None:
    cli(*AUDIT)
    kept = sorted(Path("audit-work/kept").iterdir())
    first, second, third = (path.read_bytes() for path in kept)
    kept[0].write_bytes(first[:-1])
    kept[1].write_bytes(third)
    opened.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _, _, err = cli(*AUDIT)
    assert len(opened) == 2
    assert all(path.name in err for path in kept[:2])
    assert [path.read_bytes() for path in kept] == [first, second, third]
    # What is of no use is removed.
    for path in kept:
        os.utime(path, (0, 0))
    cli(*AUDIT, "--seed", "1")
    assert not set(kept) & set(Path("audit-work/kept").iterdir())


def test_a_commitment_takes_no_answers_of_before(cli: Cli, opened: list[str]) -> None:
    pytest.importorskip("cryptography")
    cli(*AUDIT, *CONTROLS)
    terms = ("audit/suite.safetensors", "audit/calibration.safetensors")
    assert cli("commit", *terms, *HOW, "-o", "commitment.json")[0] == 0
    opened.clear()
    assert cli(*AUDIT, *CONTROLS, "--commitment", "commitment.json")[0] == 1
    assert opened[-2:] == ["copy.toy", "honest.toy"]


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setenv("OMP_NUM_THREADS", "7"),
        lambda patch: patch.setattr(keys, "_installed", lambda: ("toys 2.0",)),
        lambda patch: patch.setattr(keys, "_code", lambda packages: "other code"),
        lambda patch: patch.setattr(keys, "VERSION", "9"),
        lambda patch: toys.save_model(Path("victim.toy"), seed=0, noise=0.001),
    ],
    ids=["threads", "version of a plugin", "code of a plugin", "version", "victim"],
)
def test_whatever_changes_answers_changes_the_key(
    cli: Cli, opened: list[str], monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], object]
) -> None:
    cli(*AUDIT)
    opened.clear()
    change(monkeypatch)
    cli(*AUDIT)
    assert opened[0] == "victim.toy"


def test_fingerprints_tell_all_apart(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("a")
    before = fingerprint(file)
    values = [1, 1.0, True, "1", None, (1,), [(1,)], {"a": 1}, {"a": 2}, b"1", (1, "a"), ("1a",)]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    file.write_text("b")
    assert fingerprint(file) != before
    with pytest.raises(UnknownError):
        fingerprint(object())


def test_own_code_is_all_that_lies_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("nets.py", "helper.py"):
        Path(name).write_text("a = 1")
    before = fingerprint(own_code("nets.py:make"))
    assert before == fingerprint(own_code("nets:make"))
    Path("helper.py").write_text("a = 2")
    assert fingerprint(own_code("nets:make")) != before
    assert own_code(None) == ()


def test_all_mistakes_are_said_before_a_model_is_opened(cli: Cli, opened: list[str]) -> None:
    Path("nets.py").write_text("def make(): ...")
    Path("notes.txt").write_text("x")
    words = ("audit", "none.toy", "gone.toy", "notes.txt", "--inputs", "none.npz", "--arch", "nets.py:mke")
    status, out, err = cli(*words, "--html", "nowhere/r.html", "--metric", "nonsense")
    assert (status, out, opened) == (2, "", [])
    lines = err.splitlines()
    for fact in ("none.toy", "gone.toy", "notes.txt", "none.npz", "make", "nowhere", "nonsense"):
        assert sum(fact in line for line in lines) >= 1, fact
    assert all(line.startswith("deepjudge: ") and line.endswith(")") for line in lines)


def test_a_missing_framework_is_said_before_a_model_is_opened(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m.onnx").write_bytes(b"\x08\x07")
    monkeypatch.setattr("deepjudge_core.models.adapters.Extra.missing", property(lambda self: True))
    cli.refuses(2, "missing-extra", "audit", "m.onnx", "copy.toy", "--inputs", "in.npz", facts=("m.onnx", "[onnx]"))


def test_by_default_no_folder_of_somebody_else_is_written_to(cli: Cli) -> None:
    Path("audit").mkdir()
    assert cli(*AUDIT)[0] == 3  # an empty one is nobody's
    shutil.copy("victim.toy", "another.toy")
    other = ("audit", "another.toy", "copy.toy", "--inputs", "in.npz", *MADE, *HOW)
    cli.refuses(2, "would-overwrite", *other, facts=("audit", "victim.toy", "-o"))
    shutil.rmtree("audit")
    Path("audit").mkdir()
    Path("audit/thesis.tex").write_text("x")
    cli.refuses(2, "would-overwrite", *AUDIT, facts=("audit", "-o"))
    assert cli(*AUDIT, "-o", "audit2")[0] == 3


def test_options_go_to_the_files_whose_format_takes_them(cli: Cli) -> None:
    torch, onnx = pytest.importorskip("torch"), pytest.importorskip("onnx")
    x, y = toys.draw((12,), 4, 200, 0)
    Path("nets.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Sequential("
        "torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))\n"
    )
    nets = types.ModuleType("nets_here")
    exec(Path("nets.py").read_text(), nets.__dict__)
    torch.manual_seed(0)
    model = nets.make()
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(y)).backward()
        optimiser.step()
    model.eval()
    torch.save(model.state_dict(), "victim.pth")
    weights = [parameter.detach().numpy() for parameter in model.parameters()]
    gemms = [
        onnx.helper.make_node("Gemm", [i, f"w{n}", f"b{n}"], [o], transB=1)
        for n, i, o in ((0, "x", "h"), (1, "r", "y"))
    ]
    graph = onnx.helper.make_graph(
        [gemms[0], onnx.helper.make_node("Relu", ["h"], ["r"]), gemms[1]],
        "same",
        [onnx.helper.make_tensor_value_info("x", 1, ["n", 12])],
        [onnx.helper.make_tensor_value_info("y", 1, ["n", 4])],
        [onnx.numpy_helper.from_array(one, name) for one, name in zip(weights, ("w0", "b0", "w1", "b1"), strict=True)],
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), "same.onnx"
    )
    toys.np.savez("rows.npz", x=x, y=y)
    words = ("audit", "victim.pth", "same.onnx", "--inputs", "rows.npz", "-n", "30", "-g", "pgd")
    cli.refuses(2, "missing-value", *words, facts=("victim.pth", "--arch"))
    assert cli(*words, "--arch", "nets.py:make")[0] == 1
    [suspect] = json.loads(Path("audit/report.json").read_text())["suspects"]
    assert suspect["decision"] == "copy"
    cli.refuses(2, "conflict", "audit", "same.onnx", *words[2:], "--arch", "nets:make", "-o", "o", facts=("same.onnx",))
    assert "nets" not in sys.modules


def test_controls_are_made_of_training_data_if_the_user_agrees(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = toys.draw((12,), 4, 200, 5)
    toys.np.savez("train.npz", x=x, y=y)
    words = (*AUDIT, "--data", "train.npz")
    asked: list[str] = []
    status, out, _ = cli(*words)
    assert (status, "--make-controls" in out) == (3, True)
    assert not Path("audit-work/zoo/controls").exists()
    monkeypatch.setattr("deepjudge_core.cli.controls._has_terminal", lambda: True)
    monkeypatch.setattr("click.confirm", lambda text, **_: bool(asked.append(text)))
    assert cli(*words)[0] == 3
    assert len(asked) == 1
    cli(*words, "--make-controls")
    report = json.loads(Path("audit/report.json").read_text())
    assert len(report["calibration"]["controls"]) >= 3
    cli(*words)  # what was made is taken without a question
    assert json.loads(Path("audit/report.json").read_text())["calibration"] == report["calibration"]
    assert len(asked) == 1


def test_nothing_is_written_among_the_inputs_or_the_models(cli: Cli) -> None:
    Path("photos/cat").mkdir(parents=True)
    what = ("audit", "victim.toy", "honest.toy", "--inputs", "photos", *MADE, *HOW)
    for folder in ("photos", "photos/audit", "controls/../photos"):
        cli.refuses(2, "would-overwrite", *what, "-o", folder, facts=(f"{folder}: ", "outside of the inputs"))
    data = ("audit", "victim.toy", "honest.toy", "--inputs", "in.npz", "--data", "photos", *MADE, *HOW)
    cli.refuses(2, "would-overwrite", *data, "-o", "photos", facts=("photos: ", "outside of the inputs"))
    cli.refuses(2, "would-overwrite", *AUDIT, "-o", ".", facts=("holds no model", ".toy"))
    assert list(Path("photos").iterdir()) == [Path("photos/cat")]

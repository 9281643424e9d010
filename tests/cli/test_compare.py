"""``deepjudge compare``: what it says of weights, of files that have none, and how it ends."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy_transformers import llama, noisy, permuted, rotated
from safetensors.numpy import save_file

import deepjudge_core as dj
from deepjudge_core.cli.main import main
from deepjudge_core.report.audit_json import schema
from deepjudge_core.sandbox import confine
from deepjudge_core.testing.weights import ArrayWeights

VICTIM = llama(1)
SAME = "copy, or same initialisation"  # what the order alone tells


def save(path: str, weights: ArrayWeights) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in weights.arrays.items()}, path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A victim, a copy of it, one whose neurons are in another order, and an independent model."""
    monkeypatch.chdir(tmp_path)
    save("victim.safetensors", VICTIM)
    save("suspects/copy.safetensors", noisy(VICTIM, 0.1))
    save("suspects/moved.safetensors", rotated(permuted(VICTIM)))
    save("suspects/other.safetensors", llama(2))
    return tmp_path


@pytest.fixture
def compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in this process; gives its status, and what it wrote."""

    def run(*words: object, victim: str = "victim.safetensors") -> tuple[int, str, str]:
        status = main(["compare", victim, *map(str, words), "--no-sandbox"])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def expect_said(text: str, *facts: str) -> None:
    assert [fact for fact in facts if fact not in text] == [], text


def reported(path: str = "r.json") -> dict[str, dict[str, Any]]:
    """The suspects of a report that keeps the schema, by the stems of their names."""
    report = json.loads(Path(path).read_text())
    jsonschema.validate(report, schema())
    return {Path(one["path"]).stem: one for one in report["suspects"]}


def test_a_copy_is_found_and_nobody_is_acquitted(compare: Any) -> None:
    status, out, _ = compare("suspects", "--json", "r.json", "--html", "r.html")
    assert status == 1
    found = reported()
    assert {name: one["decision"] for name, one in found.items()} == {
        "copy": "copy",
        "moved": "inconclusive",
        "other": "inconclusive",
    }
    # As many neurons as the layers that are compared have; all at their places: chance gives that once in their orders.
    copy = found["copy"]["settings"]["weights"]
    assert found["copy"]["points_to"] == "descent"
    assert found["copy"]["metrics"]["order"]["value"] == 0
    assert copy["log10_p"] < -400
    assert found["moved"]["metrics"]["order"]["value"] > 0.9
    assert (
        found["moved"]["metrics"]["neuron-sketch"]["value"] < 0.1 < found["other"]["metrics"]["neuron-sketch"]["value"]
    )
    expect_said(out, "copy.safetensors", "agreeing", "e-", "1 copy", "--ancestor", "--controls")
    expect_said(out, "number of suspects, 3,", "1 of 1")  # what one p of many is worth
    assert "<html" in Path("r.html").read_text()


def test_by_controls_scrambled_weights_are_found(compare: Any) -> None:
    for seed in range(10, 16):
        save(f"controls/{seed}.safetensors", llama(seed))
    status, out, _ = compare("suspects", "--controls", "controls", "--json", "r.json")
    found = reported()
    assert status == 1
    assert found["moved"]["decision"] == "copy"
    assert found["other"]["decision"] != "copy"
    assert "--controls CONTROLS" not in out


def test_what_an_ancestor_explains_accuses_nobody(compare: Any) -> None:
    base = llama(5)
    save("base.safetensors", base)
    save("victim.safetensors", noisy(base, 0.05, seed=1))
    save("sibling.safetensors", noisy(base, 0.05, seed=2))
    assert compare("sibling.safetensors", "--json", "r.json")[0] == 1
    assert reported()["sibling"]["points_to"] == "descent"
    status, out, _ = compare("sibling.safetensors", "--ancestor", "base.safetensors", "--json", "r.json")
    assert status == 3
    expect_said(reported()["sibling"]["reason"], "base.safetensors")
    assert "--ancestor BASE" not in out
    # What the victim added to it can still be found: by others that were made from it.
    assert "--stratum common-ancestor=" in out


@pytest.mark.parametrize(("ancestor", "status"), [("itself", 2), ("narrower", 2), ("unlike", 1)])
def test_what_cannot_be_the_ancestor_takes_no_accusation_away(compare: Any, ancestor: str, status: int) -> None:
    shutil.copy("victim.safetensors", "itself.safetensors")
    save("narrower.safetensors", llama(5, residual=24, hidden=48))
    save("unlike.safetensors", llama(77))
    found, out, err = compare("suspects/copy.safetensors", "--ancestor", f"{ancestor}.safetensors")
    assert found == status
    expect_said(out + err, f"{ancestor}.safetensors")


def test_a_shared_initialisation_is_never_called_a_copy_alone(compare: Any) -> None:
    _, out, _ = compare("suspects/copy.safetensors", "--html", "r.html")
    alone = [line for line in out.splitlines() if "1 suspect" in line]
    assert len(alone) == 1
    assert "initialisation" in alone[0]
    page = Path("r.html").read_text()
    assert "Yes, it" not in page
    assert SAME in page


def test_no_file_of_a_model_s_folder_is_written_over(compare: Any) -> None:
    for name in ("mine", "theirs"):
        Path(name).mkdir()
        shutil.copy("victim.safetensors", f"{name}/model.safetensors")
        Path(name, "config.json").write_text('{"model_type": "llama"}')
    before = Path("mine/model.safetensors").read_bytes()
    for option in ("--html", "--json"):
        for folder, more in (("mine", ()), ("theirs", ()), ("base", ("--ancestor", "base"))):
            if more:
                shutil.copytree("mine", "base", dirs_exist_ok=True)
            written = f"{folder}/model.safetensors"
            status, _, err = compare("theirs", *more, option, written, victim="mine")
            assert (status, "would-overwrite" in err) == (2, True)
            assert Path(written).read_bytes() == before


def test_no_part_of_a_model_in_several_files_is_written_over(compare: Any) -> None:
    victim = "mine/model.safetensors.index.json"
    Path("mine").mkdir()
    shutil.copy("victim.safetensors", "mine/part.safetensors")
    Path(victim).write_text(json.dumps({"weight_map": dict.fromkeys(VICTIM.arrays, "part.safetensors")}))
    for name in ("config.json", "other.json"):
        Path("mine", name).write_text('{"model_type": "llama"}')
    for name, status in {"part.safetensors": 2, "config.json": 2, "other.json": 1}.items():
        before = Path("mine", name).read_bytes()
        found, _, err = compare("suspects/copy.safetensors", "--html", f"mine/{name}", victim=victim)
        assert (found, "would-overwrite" in err) == (status, status == 2)
        assert (Path("mine", name).read_bytes() == before) is (status == 2)


def test_the_victim_itself_is_called_a_copy(compare: Any) -> None:
    compare("victim.safetensors", "--html", "r.html")
    page = Path("r.html").read_text()
    assert "Yes, it" in page
    assert SAME not in page


def test_how_it_ends(compare: Any) -> None:
    assert compare("suspects/other.safetensors")[0] == 3
    assert compare("suspects/copy.safetensors")[0] == 1
    Path("text.safetensors").write_text("no weights")
    assert compare("text.safetensors")[0] == 4
    assert compare("text.safetensors", "suspects/copy.safetensors")[0] == 1
    assert compare("text.safetensors", "suspects/copy.safetensors", "--strict")[0] == 4
    assert compare()[0] == 2


def test_the_victim_s_own_file(compare: Any) -> None:
    shutil.copy("victim.safetensors", "same.safetensors")
    status, _, _ = compare("victim.safetensors", "same.safetensors", "--json", "r.json")
    assert status == 1
    for one in reported().values():
        assert (one["decision"], one["points_to"]) == ("copy", "weights")


@pytest.mark.parametrize(
    ("victim", "suspect", "status", "facts"),
    [
        ("none.safetensors", "suspects/copy.safetensors", 2, ("none.safetensors", "cannot-read")),
        ("text.safetensors", "suspects/copy.safetensors", 4, ("text.safetensors",)),
        ("notes.txt", "suspects/copy.safetensors", 2, ("notes.txt",)),
        ("victim.safetensors", "empty", 4, ("empty", "expected a model")),
        ("bias.safetensors", "suspects/copy.safetensors", 4, ("bias.safetensors",)),
    ],
)
def test_what_cannot_be_compared_at_all(
    compare: Any, victim: str, suspect: str, status: int, facts: tuple[str, ...]
) -> None:
    Path("text.safetensors").write_text("no weights")
    Path("notes.txt").write_text("no weights")
    Path("empty").mkdir()
    save_file({"bias": np.zeros(3, np.float32)}, "bias.safetensors")
    found, out, err = compare(suspect, victim=victim)
    assert found == status
    expect_said(err, *facts)
    assert not out
    assert len(err.splitlines()) == 1


def test_a_suspect_that_cannot_be_read_is_a_line_and_the_others_are_compared(compare: Any) -> None:
    Path("suspects/text.safetensors").write_text("no weights")
    save("suspects/wide.safetensors", llama(3, residual=48, hidden=128))
    Path("suspects/notes.md").write_text("")
    status, out, _ = compare("suspects", "--json", "r.json")
    assert status == 1
    found = reported()
    assert found["text"]["decision"] == "failed"
    assert found["wide"]["decision"] == "inconclusive"
    assert found["wide"]["metrics"]["order"]["value"] is None
    assert found["copy"]["decision"] == "copy"
    assert [line for line in out.splitlines() if line.startswith("suspects/text.safetensors: failed: ")]
    expect_said(out, "skipped", "notes.md")


def test_of_many_neurons_some_are_compared(compare: Any) -> None:
    wide = llama(1, blocks=1, residual=16, hidden=600)
    save("victim.safetensors", wide)
    save("wide.safetensors", noisy(wide, 0.1))
    assert compare("wide.safetensors", "--json", "r.json")[0] == 1
    assert reported()["wide"]["metrics"]["order"]["value"] == 0


def test_json_on_standard_output_is_nothing_else(compare: Any) -> None:
    status, out, err = compare("suspects/copy.safetensors", "--json", "-")
    assert status == 1
    jsonschema.validate(json.loads(out), schema())
    assert "copy.safetensors" in err


def test_the_seed_chooses_neurons_and_the_same_one_says_the_same(compare: Any) -> None:
    digests = []
    for seed in (0, 0, 1):
        compare("suspects/copy.safetensors", "--json", "r.json", "--seed", seed)
        digests.append(json.loads(Path("r.json").read_text())["suite"]["digest"])
    assert digests[0] == digests[1] != digests[2]


def save_lora(folder: str, seed: int = 0) -> None:
    """A change of the victim."""
    random, arrays = np.random.default_rng(seed), {}
    for name, weights in VICTIM.arrays.items():
        if "gate_proj" in name:
            start = f"base_model.model.{name.removesuffix('.weight')}"
            for part, shape in {"A": (2, weights.shape[1]), "B": (weights.shape[0], 2)}.items():
                arrays[f"{start}.lora_{part}.weight"] = random.normal(0, 0.05, shape).astype(np.float32)
    Path(folder).mkdir()
    save_file(arrays, f"{folder}/adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["gate_proj"]}
    Path(f"{folder}/adapter_config.json").write_text(json.dumps(config))


def test_a_lora_is_compared_with_its_base(compare: Any) -> None:
    save_lora("lora")
    status, out, _ = compare("lora")
    assert status == 4
    expect_said(out, "lora: failed: ", "--base")
    assert compare("lora", "--base", "victim.safetensors", "--json", "r.json")[0] == 1
    assert 0 < reported()["lora"]["metrics"]["neuron-sketch"]["value"] < 0.2


def test_one_lora_on_two_bases_is_two_models(folder: Path) -> None:
    save_lora("lora")
    bases = {"victim": "victim.safetensors", "same": "victim.safetensors", "other": "suspects/other.safetensors"}
    for name, base in bases.items():
        Path(name).mkdir()
        shutil.copytree("lora", f"{name}/lora")
        config = json.loads(Path("lora/adapter_config.json").read_text())
        Path(f"{name}/lora/adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "base"}))
        Path(f"{name}/base").mkdir()
        shutil.copy(base, f"{name}/base/model.safetensors")
        Path(f"{name}/base/config.json").write_text('{"model_type": "llama"}')
    for _ in range(2):  # the second time by what was kept
        main(
            [
                "compare",
                "victim/lora",
                "same/lora",
                "other/lora",
                "--resume",
                "kept",
                "--no-sandbox",
                "--json",
                "r.json",
            ]
        )
        found = {suspect["path"]: suspect["decision"] for suspect in json.loads(Path("r.json").read_text())["suspects"]}
        assert found == {"same/lora": "copy", "other/lora": "inconclusive"}
    shutil.copy("victim.safetensors", "other/base/model.safetensors")
    assert main(["compare", "victim/lora", "other/lora", "--resume", "kept", "--no-sandbox"]) == 1


def test_every_command_knows_the_base_of_a_lora(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_lora("lora")
    save_lora("first", seed=1)
    base = ("--base", "victim.safetensors", "--no-sandbox")
    copy, other = "suspects/copy.safetensors", "suspects/other.safetensors"
    assert main(["suite", "lora", "--weights", "-o", "s.safetensors", *base]) == 0
    assert main(["suite", copy, "--ancestor", "lora", "-o", "a.safetensors", "--weights", *base]) == 0
    assert main(["observe", "s.safetensors", "lora", "--weights", "-o", "o.safetensors", *base]) == 0
    assert main(["judge", "s.safetensors", "lora", other, "--json", "r.json", *base]) == 1
    assert reported()["lora"]["metrics"]["order"]["value"] == 0
    assert main(["calibrate", "a.safetensors", "lora", other, "-o", "c.safetensors", *base]) == 0
    assert main(["audit", copy, "lora", other, "--weights", "-o", "out", *base]) == 1
    text = '[victim]\npath = "lora"\nbase = "victim.safetensors"\n[suite]\nweights = true\nancestor = "first"\n'
    text += 'ancestor_base = "suspects/other.safetensors"\n[[suspects]]\npath = "lora"\nbase = "victim.safetensors"\n'
    Path("audit.toml").write_text(f"{text}[sandbox]\nuse = false\n")
    capsys.readouterr()
    assert main(["audit", "audit.toml", "-o", "other"]) == 1
    # An ancestor with another base than the victim's is no ancestor of it, which is said.
    assert "as an independent model has" in capsys.readouterr().out
    for words in (["suite", copy, "--weights", "-o", "t.safetensors"], ["judge", "s.safetensors", other]):
        assert main([*words, *base]) == 2
        expect_said(capsys.readouterr().err, "--base", "conflict")


def test_a_base_that_no_file_needs(compare: Any) -> None:
    status, _, err = compare("suspects/copy.safetensors", "--base", "victim.safetensors")
    assert status == 2
    expect_said(err, "--base", "conflict")


def test_a_suspect_that_is_named_twice_counts_once(compare: Any) -> None:
    compare("suspects/other.safetensors", "suspects", "suspects/../suspects/copy.safetensors", "--json", "r.json")
    report = json.loads(Path("r.json").read_text())
    names = [f"suspects/{name}.safetensors" for name in ("other", "copy", "moved")]
    assert [one["path"] for one in report["suspects"]] == names


def test_a_program_gets_the_same(folder: Path) -> None:
    outcome = dj.compare(folder / "victim.safetensors", folder / "suspects", session=dj.Session(sandbox=None))
    decisions = {Path(one.path).stem: str(one.decision) for one in outcome.suspects}
    assert decisions == {"copy": "copy", "moved": "inconclusive", "other": "inconclusive"}


@pytest.mark.skipif(not confine.is_full(), reason="this system has no Landlock or no seccomp")
def test_in_the_sandbox_without_a_framework(folder: Path) -> None:
    program = (
        "import sys\n"
        "from deepjudge_core.cli.main import main\n"
        "status = main(['compare', 'victim.safetensors', 'suspects', '--json', 'r.json'])\n"
        "frameworks = {'torch', 'tensorflow', 'keras', 'onnx', 'onnxruntime', 'openvino', 'transformers'}\n"
        "print(sorted(frameworks & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr == "[]\n"
    assert {one["isolation"] for one in reported().values()} == {"landlock+seccomp"}

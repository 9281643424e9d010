"""The power of an audit of weights, whose models are never run."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy_transformers import llama, noisy, permuted, rotated
from safetensors.numpy import save_file

from deepjudge_core.cli.main import main
from deepjudge_core.files.digests import of_file
from deepjudge_core.testing.weights import ArrayWeights
from deepjudge_core.zoo.manifest import Zoo, ZooModel, ZooVictim, save_zoo

VICTIM = llama(1)
STOLEN = {"tune": noisy(VICTIM, 0.1), "scramble": rotated(permuted(VICTIM))}


def save(path: str, weights: ArrayWeights) -> None:
    save_file({name: np.ascontiguousarray(array) for name, array in weights.arrays.items()}, path)


def model(file: str, attack: str | None) -> ZooModel:
    kind, stratum = ("stolen", None) if attack else ("control", "other-data")
    digest = of_file(Path("zoo", file)).digest
    return ZooModel(file, kind, stratum, attack, {}, 0, 0.9, False, digest, digest, 1.0)


def test_power_of_a_suite_of_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zoo").mkdir()
    save("victim.safetensors", VICTIM)
    models = []
    for seed in range(2, 7):
        save(f"zoo/control-{seed}.safetensors", llama(seed))
        models.append(model(f"control-{seed}.safetensors", None))
    for attack, weights in STOLEN.items():
        save(f"zoo/{attack}.safetensors", weights)
        models.append(model(f"{attack}.safetensors", attack))
    victim = ZooVictim("victim.safetensors", "torch", of_file(Path("victim.safetensors")).digest, 2, 0.9)
    save_zoo(Zoo(Path("zoo"), victim, {}, tuple(models)))
    assert main(["suite", "victim.safetensors", "--weights", "-o", "s.safetensors", "--no-sandbox"]) == 0
    forms = ("--html", "p.html", "--markdown", "p.md")
    assert main(["power", "s.safetensors", "zoo", "-o", "out", "--no-sandbox", *forms]) == 0
    report = json.loads(Path("out/power.json").read_text())
    found = {one["attack"]: one for one in report["attacks"]}
    assert {name: one["copies"]["count"] for name, one in found.items()} == {"tune": 1, "scramble": 1}
    assert {name: one["auc"]["neuron-sketch"] for name, one in found.items()} == {"tune": 1.0, "scramble": 1.0}
    # An order that was scrambled tells nothing; the distance, judged by the controls, tells that one.
    assert found["scramble"]["auc"]["order"] < 1 == found["tune"]["auc"]["order"]
    assert report["controls"]["held_out_accused"]["count"] == 0
    # Nothing is said of what was not judged.
    for said in (capsys.readouterr().out, Path("p.md").read_text()):
        assert "weights" in said
        assert [word for word in ("black-box", "by behaviour", "by layers") if word in said] == []

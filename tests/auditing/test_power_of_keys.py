"""The power of keys: each mark against each attack, in the table, in the report and on the page."""

import json
from pathlib import Path

import marked
import numpy as np
import toys
from commands import HOW, MADE, Cli

from deepjudge_core.files.documents import parse
from deepjudge_core.report.documents import PowerReport
from deepjudge_core.report.pages.keys import keys_of_zoo

FEW = ("--control-count", "3", "--repeat", "1", "--epochs", "5", "--rate", "0.02")


def test_a_key_stands_beside_the_other_settings(cli: Cli) -> None:
    marked.write_networks(cli.folder)
    x, y = toys.draw(toys.SHAPE, toys.CLASSES, 800, 1)
    np.savez("train.npz", x=x, y=y)
    key = ("--key", "adi.key.safetensors")
    assert cli("zoo", "victim.toy", "--data", "train.npz", "--attacks", "tune", *FEW, "-o", "zoo")[0] == 0
    status, out, _ = cli("suite", "victim.toy", "--inputs", "train.npz", *MADE, *key, "-o", "suite.safetensors")
    assert (status, "adi: 24 trials" in out) == (0, True)
    words = ("power", "suite.safetensors", "zoo", "--far", *HOW, "-o", "power", "--html", "p.html")
    status, out, _ = cli(*words)
    assert status == 0
    report = json.loads(Path("power/power.json").read_text())
    [attack] = report["attacks"]
    assert (attack["groups"]["marks"]["count"], attack["auc"]["adi"]) == (1, 1.0)
    [stolen] = [model for model in report["models"] if model["kind"] == "stolen"]
    assert stolen["metrics"]["adi"]["found"] >= 20
    assert f"{stolen['metrics']['adi']['found']} of 24" in out
    assert f"{stolen['metrics']['adi']['found']} of 24" in Path("p.html").read_text()
    assert "Secret keys" in Path("p.html").read_text()
    del stolen["metrics"]["adi"]["found"]
    stolen["metrics"]["adi"]["reason"] = "it was made with it"
    [section] = keys_of_zoo(parse(PowerReport, report))
    assert "1 model: it was made with it" in str(section.blocks[-1])
    status, out, _ = cli("show", "power/power.json")
    assert (status, "secret keys" in out) == (0, True)

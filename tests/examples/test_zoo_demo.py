"""The demo of the zoo, in a file of its own: it takes a minute, and files are shared out to workers."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from deepjudge_core import load_registry

pytestmark = pytest.mark.slow
DEMO = ROOT / "examples" / "zoo_demo.py"


def test_the_demo_prints_the_power_of_an_audit(tmp_path: Path) -> None:
    for module in ("onnx2fx", "sklearn", "torch"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the demo needs {module}, which is not installed: pip install 'deepjudge[all,dev]'")
    found = subprocess.run([sys.executable, DEMO], cwd=tmp_path, capture_output=True, text=True, check=False)
    printed = found.stdout + found.stderr
    assert found.returncode == 0, printed
    assert not re.search("warning|failed|left out", printed, re.IGNORECASE)
    report = json.loads((tmp_path / "zoo-demo" / "power" / "power.json").read_text())
    attacks = {attack["attack"]: attack for attack in report["attacks"]}
    assert list(attacks) == list(load_registry().attacks)
    assert report["controls"]["count"] == 6
    assert report["controls"]["held_out_accused"]["count"] == 0
    rows = re.findall(r"^ *(\S+) +(\d of \d|undecided|not measured) ", printed, re.MULTILINE)
    table = {name: cell for name, cell in rows if name in attacks}
    assert list(table) == list(attacks)
    for name, cell in table.items():
        copies = attacks[name]["copies"]
        told = f"{copies['count']} of {copies['of']}"
        undecided = "undecided" if copies["of"] else "not measured"
        assert cell == (undecided if copies["of"] == attacks[name]["inconclusive"] else told), name
    # What is done to the weights is noticed; so is what is nearly nothing.
    for name in ("ft-ll", "ft-al", "rt-al", "p-20", "p-60", "quantize-int8", "float16", "permute-rescale"):
        assert attacks[name]["copies"]["count"] == 1, name
    assert attacks["jba"]["groups"]["white-box"]["count"] == 0

"""Skeletons of plugins: what is written is green at once, and nothing is written over."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from commands import Cli
from places import ROOT

from deepjudge_core.cli.skeleton.making import NewPlugin, PluginKind
from deepjudge_core.plugin import load_registry

KINDS = get_args(PluginKind)


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS], ids=",".join)
def test_a_skeleton_is_a_plugin(cli: Cli, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = cli("new-plugin", "brand-new", "--kind", ",".join(kinds), "-o", "made")
    assert (status, err) == (0, "")
    assert "pip install -e ./made" in out
    monkeypatch.syspath_prepend(str(Path("made").resolve()))
    module = __import__("deepjudge_brand_new")
    try:
        [plugin] = [one for one in load_registry({"brand-new": module}).plugins if one.name == "brand-new"]
    finally:
        del sys.modules["deepjudge_brand_new"]
    assert plugin.failure is None
    names = {type(component).__name__.lower(): component.name for component in plugin.components}
    usual = {kind: "brand-new" if len(kinds) == 1 else f"brand-new-{kind}" for kind in kinds}
    assert names == usual


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("metric",), KINDS], ids=",".join)
def test_a_skeleton_passes_its_own_tests(cli: Cli, kinds: tuple[str, ...]) -> None:
    # By a name that Python has for something else.
    assert cli("new-plugin", "lambda", "--kind", ",".join(kinds), "-o", "made")[0] == 0
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "made"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert " passed" in found.stdout


def test_the_example_is_a_skeleton() -> None:
    example = ROOT / "examples" / "deepjudge-top1"
    for name, content in NewPlugin("top1", {"metric": "top1", "rule": "unanimous"}).files().items():
        assert content == (example / name).read_text("utf-8"), name


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("My_Metric",), "wrong-value"),
        (("../up",), "wrong-value"),
        (("a--b",), "wrong-value"),
        (("x" * 41,), "wrong-value"),
        (("deepjudge-1",), "wrong-value"),
        (("ok", "--kind", "metrics"), "wrong-value"),
        (("core",), "conflict"),  # the module deepjudge_core
        (("pgd", "--kind", "generator"), "conflict"),
        (("all",), "conflict"),  # which stands for every metric
        (("ok", "-o", "full"), "would-overwrite"),
        (("ok", "-o", "full/file"), "would-overwrite"),
    ],
)
def test_what_cannot_be_made_is_one_line(cli: Cli, words: tuple[str, ...], code: str) -> None:
    Path("full").mkdir()
    Path("full/file").write_text("mine")
    cli.refuses(2, code, "new-plugin", *words, facts=words[-1:])

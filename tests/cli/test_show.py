"""What ``deepjudge show`` says of documents and folders, in lines that fit a terminal."""

import json
import shutil
from pathlib import Path

import pytest
from commands import WHOLE, Cli
from commands import cli as cli  # noqa: PLC0414 - a fixture
from places import ROOT

from deepjudge_core.bundles.commitment import load_commitment

GOLDEN = ROOT / "tests" / "golden"


@pytest.mark.parametrize(
    ("file", "facts"),
    [
        ("report-separate.json", ("audit of", "victim", "surety")),
        ("report-no-controls.json", ("audit of", "0")),
        ("power.json", ("power of an audit", "attack", "of")),
        ("zoo.json", ("zoo", "controls", "attack")),
    ],
)
def test_documents_are_tables_and_json_is_as_it_is(cli: Cli, file: str, facts: tuple[str, ...]) -> None:
    status, out, err = cli("show", GOLDEN / file)
    assert (status, err) == (0, "")
    assert all(fact in out for fact in facts), out
    assert "{" not in out.splitlines()[0]
    assert max(map(len, out.splitlines())) < 100
    assert json.loads(cli("show", GOLDEN / file, "--json")[1]) == json.loads((GOLDEN / file).read_text())


def test_folders_are_what_lies_in_them(cli: Cli) -> None:
    Path("zoo").mkdir()
    shutil.copy(GOLDEN / "zoo.json", "zoo/zoo.json")
    assert cli("show", "zoo")[1] == cli("show", "zoo/zoo.json")[1]
    Path("bundle").mkdir()
    shutil.copy(GOLDEN / "manifest.json", "bundle/manifest.json")
    status, out, _ = cli("show", "bundle")
    assert status == 0
    assert "deepjudge verify bundle" in out
    assert "suite.safetensors" in out
    Path("bundle/manifest.json").write_text("{")
    cli.refuses(4, "damaged-file", "show", "bundle", facts=("bundle/manifest.json",))
    Path("empty").mkdir()
    cli.refuses(2, "wrong-value", "show", "empty", facts=("empty", "model"))


def test_a_commitment_says_what_was_committed_to(cli: Cli) -> None:
    committed = load_commitment(GOLDEN / "commitment.json")
    status, out, err = cli("show", GOLDEN / "commitment.json")
    assert (status, err) == (0, "")
    shown = " ".join(out.split())
    assert all(fact in shown for fact in (committed.terms.suite, *committed.terms.judging.metrics, "nobody"))
    Path("changed.json").write_bytes(committed.data.replace(b"a", b"b", 1))
    cli.refuses(4, "damaged-file", "show", "changed.json", facts=("changed.json",))


def test_a_plan_is_read_as_an_audit_reads_it(cli: Cli) -> None:
    Path("a.toml").write_text(WHOLE)
    status, out, err = cli("show", "a.toml")
    assert (status, err) == (0, "")
    assert "victim.toy" in out
    Path("a.toml").write_text("[victim]\npath = 7\n")
    assert cli("show", "a.toml")[0] == 2

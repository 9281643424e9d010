"""Many suspects on the command line: which are shown, in which order, and how the command ends."""

import csv
import itertools
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
import toys
from commands import HOW, MADE, WHOLE, Cli, write

from deepjudge_core.cli.many import ManySettings
from deepjudge_core.cli.tables import PAPER, without_common
from deepjudge_core.report.audit_json import schema

JUDGE = ("judge", "s.safetensors", "--calibration", "c.safetensors", *HOW)


@pytest.fixture
def ready(cli: Cli) -> Cli:
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
    assert cli("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0
    Path("up/more").mkdir(parents=True)
    for seed in range(9, 19):
        toys.save_model(Path(f"up/u{seed:02}.toy"), seed=9, noise=seed / 1000)
    shutil.copy("copy.toy", "up/u15.toy")
    shutil.copy("victim.toy", "up/more/same.toy")
    return cli


def rows(out: str) -> list[str]:
    """The lines of the table, the head first."""
    lines = out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("suspect "))
    return [lines[start], *itertools.takewhile(lambda line: re.match(r"\S+\.toy ", line), lines[start + 2 :])]


def table(out: str) -> list[str]:
    """The names in the table."""
    return [line.split()[0] for line in rows(out)[1:]]


def test_junk_in_a_folder_is_told_and_decides_what_it_should(ready: Cli) -> None:
    def status(*more: str) -> int:
        return ready(*JUDGE, "up", "--json", "r.json", *more)[0]

    Path("up/u15.toy").unlink()
    shutil.rmtree("up/more")
    Path("up/notes.txt").write_text("x")
    assert status() == 0
    assert status("--strict") == 4
    Path("up/model.pkl").write_bytes(pickle.dumps(1))
    assert status() == 3  # which may be a copy
    Path("up/bad.toy").write_text("{")
    assert status() == 4
    shutil.copy("copy.toy", "up/z.toy")
    assert status() == 1
    assert status("--strict") == 4
    report = json.loads(Path("r.json").read_text())
    jsonschema.validate(report, schema())
    assert [(one["name"], one["code"], one["unjudged"]) for one in report["skipped"]] == [
        ("up/model.pkl", "pickle", True),
        ("up/notes.txt", "unknown-format", False),
    ]
    out = ready(*JUDGE, "up", "--html", "r.html")[1]
    assert "11 suspects: 1 copy, 9 no sign of copying, 1 failed, 2 files skipped" in out.splitlines()
    assert "up/model.pkl" in out
    assert "model.pkl" in Path("r.html").read_text()


def test_a_folder_of_junk_alone_says_what_is_in_it(ready: Cli) -> None:
    Path("junk").mkdir()
    Path("junk/a.pkl").write_bytes(b"")
    ready.refuses(4, "unusable-model", *JUDGE, "junk", facts=("junk: ", "pickles", "1"))


def test_the_order_and_the_rows(ready: Cli) -> None:
    def names(*more: str) -> list[str]:
        return table(ready(*JUDGE, "up", *more)[1])

    given = [f"u{seed:02}.toy" for seed in range(9, 19)]
    assert names("--sort", "name") == names("--sort", "given") == given
    assert names()[0] == "u15.toy"
    assert sorted(names()) == given
    ready(*JUDGE, "up", "--csv", "r.csv")
    with Path("r.csv").open(newline="") as file:
        assert [Path(row["name"]).name for row in csv.DictReader(file)][:10] == names()
    assert table(ready(*JUDGE, "honest.toy", "copy.toy", "--sort", "given")[1]) == ["honest.toy", "copy.toy"]
    assert names("--only", "copy") == names("--only", "copy,failed") == ["up/u15.toy"]  # one has no common folder
    _, out, _ = ready(*JUDGE, "up", "--only", "copy", "--json", "r.json")
    assert len(json.loads(Path("r.json").read_text())["suspects"]) == 10
    assert "10 suspects: 1 copy, 9 no sign of copying" in out
    assert "9 " in out.splitlines()[-1].partition("(")[2]
    ready.refuses(2, "wrong-value", *JUDGE, "up", "--only", "copies", facts=("copy, inconclusive", "copies"))


def test_sub_folders_are_looked_into_if_that_is_said(ready: Cli) -> None:
    status, out, _ = ready(*JUDGE, "up", "--recursive")
    assert status == 1
    assert table(out)[0] == "more/same.toy"
    assert "skipped" not in out
    assert "up/more" in ready(*JUDGE, "up")[1]
    write(
        WHOLE,
        ('path = "copy.toy"', 'path = "up"'),
        ('output = "out"', 'output = "out"\nrecursive = true\nstrict = true'),
    )
    Path("up/notes").write_text("x")
    assert ready("audit", "audit.toml")[0] == 4
    report = json.loads(Path("out/report.json").read_text())
    assert report["suspects"][0]["path"] == "up/more/same.toy"
    assert [one["code"] for one in report["skipped"]] == ["unknown-format"]
    assert ready("verify", "out")[0] == 0
    Path("controls/old").mkdir()
    shutil.copy("up/u18.toy", "controls/old")
    assert "controls    5" in ready("calibrate", "s.safetensors", "controls", "--recursive", "-o", "d.safetensors")[1]
    assert "controls/old" in ready("calibrate", "s.safetensors", "controls", "-o", "d.safetensors")[1]


@pytest.mark.parametrize("columns", [45, 80, 100, 200])
def test_no_line_of_the_table_is_wider_than_the_terminal(ready: Cli, columns: int) -> None:
    ready.monkeypatch.setenv("COLUMNS", str(columns))
    ready.monkeypatch.setenv("FORCE_COLOR", "1")
    ready.monkeypatch.setenv("NO_COLOR", "1")
    ready.monkeypatch.setenv("TERM", "xterm")
    out = re.sub(r"\x1b\[\d*m", "", ready(*JUDGE, "up")[1])
    head, *lines = rows(out)
    assert len(lines) == 10
    assert max(map(len, out.splitlines())) <= columns
    assert ("surety" in head, "black-box" in head) == (columns > 60, False)


def test_without_a_terminal_the_table_fits_on_paper(ready: Cli) -> None:
    assert max(map(len, rows(ready(*JUDGE, "up")[1]))) <= PAPER


def test_a_log_has_a_line_for_each_of_many_suspects(ready: Cli) -> None:
    assert ready(*JUDGE, "up")[2] == ""  # few
    toys.save_model(Path("up/u19.toy"), seed=9)
    lines = ready(*JUDGE, "up")[2].splitlines()
    assert [f"{place} of 11: up/u{place + 8:02}.toy: " in line for place, line in enumerate(lines, 1)] == [True] * 11
    assert "copy" in lines[6]


def test_names_without_the_folder_that_all_share() -> None:
    assert without_common(["a/b/c", "a/b/d/e"]) == ("a/b/", ["c", "d/e"])
    assert without_common(["a/b", "c/d"]) == ("", ["a/b", "c/d"])
    assert without_common(["/a/b", "/a/bc"]) == ("/a/", ["b", "bc"])
    assert without_common(["/b", "/a/bc"]) == ("", ["/b", "/a/bc"])
    assert without_common(["a//b", "a//c"]) == ("a//", ["b", "c"])
    assert without_common(["a/b"]) == ("", ["a/b"])
    assert without_common(["b", "a/b"]) == ("", ["b", "a/b"])


def test_what_is_not_a_file_is_not_waited_for(ready: Cli) -> None:
    os.mkfifo("up/pipe")
    assert ready(*JUDGE, "up")[0] == 1
    assert ManySettings().sort == "similarity"

"""Messages call a setting what their reader gives it: a flag on the command line, a keyword in Python."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deepjudge_core import load_inputs
from deepjudge_core.cli.flags import FILE, dump_flags, flags
from deepjudge_core.cli.main import main
from deepjudge_core.errors import InputError, UsageError
from deepjudge_core.naming import flagged, option

ROOT = Path(__file__).parents[1]
FLAGS = flags()
# Settings declare flags, only the command line takes folders, a report shows the command lines that
# make it again and a page the one that checks it, codes are documented for both, and so are what makes a file and the
# keys of one.
TELLING = re.compile(
    r"/cli/|settings\.py|policy\.py|models/training\.py|reproducing\.py|errors\.py|naming\.py"
    r"|auditing/folders\.py|files/storage\.py|pages/any\.py|http/description\.py"
)


@pytest.fixture(scope="module")
def code() -> dict[str, ast.Module]:
    files = (path for folder in ("deepjudge_core", "adapters", "plugins") for path in (ROOT / folder).rglob("*.py"))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in files}


def named(code: dict[str, ast.Module]) -> Iterator[tuple[str, str]]:
    for path, tree in code.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "option":
                for name in (n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)):
                    yield name, f"{path}:{node.lineno}"


def test_every_setting_that_a_message_names_has_one_flag(code: dict[str, ast.Module]) -> None:
    names = list(named(code))
    assert len(names) > 30
    assert [f"{where}: {name}" for name, where in names if name not in FLAGS] == []


def test_the_flags_are_those_of_the_commands() -> None:
    assert FILE.read_text("utf-8") == dump_flags(), "run: make docs"


def test_no_text_behind_the_command_line_names_a_flag(code: dict[str, ast.Module]) -> None:
    flags, found = {flag for flag in FLAGS.values() if flag.startswith("--")}, []
    for path, tree in code.items():
        if TELLING.search(path):
            continue
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                found += [f"{path}:{node.lineno}: {f}" for f in re.findall(r"--[a-z-]+", node.value) if f in flags]
    assert found == []


@pytest.mark.parametrize(
    ("name", "value", "flag", "keyword"),
    [
        ("bounds", None, "--bounds", "bounds="),
        ("order", "balanced", "--order balanced", "order='balanced'"),
        ("force", True, "--force", "force=True"),
        ("metrics", ["jsd", "nod"], "--metric jsd,nod", "metrics=['jsd', 'nod']"),
        ("QuerySettings.layers", None, "--layer-map", "QuerySettings(layers=...)"),
        ("output", None, "--output", "output="),
        ("preprocessing", "imagenet", "--victim-input imagenet", "preprocessing='imagenet'"),
    ],
)
def test_a_setting_is_a_flag_there_and_a_keyword_here(name: str, value: object, flag: str, keyword: str) -> None:
    assert option(name, value) == keyword
    with flagged(FLAGS):
        assert option(name, value) == flag
    assert option(name, value) == keyword


def test_an_error_names_what_its_reader_can_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "inputs.npz"
    np.savez(file, x=np.full((4, 3), 3.0), y=np.zeros(4, int))
    with pytest.raises(InputError) as raised:
        load_inputs(file, bounds=(0, 1))
    assert "bounds=" in str(raised.value)
    assert "--" not in str(raised.value)
    with pytest.raises(UsageError, match="labels='victim'"):
        load_inputs(file, y="y", labels="victim")
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x")
    main(["suite", str(model), "--inputs", str(file), "--bounds", "0,1", "-o", str(tmp_path / "suite")])
    assert "--bounds" in capsys.readouterr().err

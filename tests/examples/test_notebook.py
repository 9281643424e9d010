"""The notebook runs, and stores what running it gives; without Jupyter, which shows the last expression of a cell."""

import ast
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "audit.ipynb"
_SAID = ("copy of the behaviour", "no sign of copying")


def cells() -> list[Any]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def shown(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; what its last expression is."""
    *before, last = ast.parse(source).body
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return None


def test_the_notebook_runs_and_stores_what_it_gives() -> None:
    pytest.importorskip("sklearn")
    names: dict[str, Any] = {}
    with warnings.catch_warnings():  # which the notebook turns off for its reader
        for cell in cells():
            value = shown("".join(cell["source"]), names)
            stored = "".join(text for output in cell["outputs"] for text in output["data"].get("text/html", ""))
            if hasattr(value, "_repr_html_"):
                assert stored.count("<table>") == value._repr_html_().count("<table>")
            for said in _SAID:
                assert (said in stored) == (said in repr(value)), said
    outcome = names["outcome"]
    assert [result.decision for result in outcome.suspects] == ["copy", "independent"]
    assert names["report"].read_text(encoding="utf-8").startswith("<!")


def test_the_notebook_tells_nothing_of_where_it_was_run() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not [word for word in ("/home", "/tmp", "/root", "/work", "file:") if word in text]
    assert all(cell["outputs"] or ast.parse("".join(cell["source"])) for cell in cells())

"""Errors: every one has a code that stands in the list, and shows it once."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

import deepjudge_core
from deepjudge_core import errors
from deepjudge_core.errors import CODES, DeepJudgeError, ModelError, UsageError, with_code

SHELVES = ("deepjudge_core", "adapters", "plugins")


def codes_in(path: Path) -> Iterator[str]:
    """What stands behind ``code=`` in calls of errors, and what classes of errors have for theirs."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error"):
            yield from (k.value.value for k in node.keywords if k.arg == "code" and isinstance(k.value, ast.Constant))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
            yield from (
                part.value.value
                for part in node.body
                if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "code"
                if isinstance(part.value, ast.Constant)
            )


@pytest.mark.parametrize("path", [p for shelf in SHELVES for p in sorted((ROOT / shelf).rglob("*.py"))], ids=str)
def test_codes_are_those_of_the_list(path: Path) -> None:
    assert set(codes_in(path)) <= set(CODES)


def test_each_class_of_errors_has_a_code() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, DeepJudgeError)]
    assert len(classes) > 5
    assert {c.code for c in classes} <= set(CODES)
    assert deepjudge_core.DeepJudgeError is DeepJudgeError


def test_a_code_is_shown_once() -> None:
    assert with_code("x: no", UsageError("x: no", code="conflict")) == "x: no (conflict)"
    error = ModelError("x: no", code="crashed")
    assert with_code(str(error), error) == str(error) == "x: no (crashed)"

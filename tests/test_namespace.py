"""The public namespace: complete, documented, and with examples that run."""

import ast
import doctest
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import deepjudge_core as dj
from deepjudge_core import steps

STEPS = ("make_suite", "observe", "measure", "calibrate", "judge", "audit")


def test_all_names_everything_public_and_nothing_twice() -> None:
    assert len(set(dj.__all__)) == len(dj.__all__)
    assert all(hasattr(dj, name) for name in dj.__all__)
    stub = ast.parse(Path(dj.__file__).with_suffix(".pyi").read_text("utf-8"))
    imported = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    [listed] = [ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign)]
    assert set(listed) == set(dj.__all__) == imported | {"__version__"}


def test_a_name_is_imported_when_it_is_first_used() -> None:
    code = (
        "import sys, deepjudge_core as dj; print('jinja2' in sys.modules, dj.Suite.__name__, 'jinja2' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "Suite", "False"]


@pytest.mark.parametrize("name", [name for name in dj.__all__ if name != "__version__"])
def test_every_public_name_says_what_it_is(name: str) -> None:
    value = getattr(dj, name)
    assert inspect.getdoc(value) or name == "hookimpl"


def test_what_a_call_gives_is_public() -> None:
    given = {name: getattr(dj, name).__annotations__.get("return") for name in STEPS}
    assert {value.__name__ for value in given.values() if isinstance(value, type)} <= set(dj.__all__)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    return run("deepjudge_core", dj.__doc__ or "", {})


def run(name: str, text: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run the example of a docstring; the names that it leaves."""
    test = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    assert test.examples
    said: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(test, out=said.append, clear_globs=False)
    assert runner.failures == 0, "".join(said)
    return test.globs


@pytest.mark.parametrize("step", STEPS)
def test_the_example_of_a_step_runs(step: str, names: dict[str, Any]) -> None:
    run(step, inspect.getdoc(getattr(steps, step)) or "", dict(names))

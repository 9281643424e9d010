"""What values look like: in a few lines, and as a table in a notebook; nothing of a stranger's gets through."""

from typing import Any

import numpy as np
import pytest
import toys

import deepjudge_core as dj
from deepjudge_core.sheets import MOST_ROWS, WIDTH, Sheet
from deepjudge_core.testing import NumpyModel

HOSTILE = "<script>alert(1)</script>\x1b[31m\n\u202eevil"


def values() -> dict[str, Any]:
    suite, calibration = toys.suite(), toys.calibration()
    measured = dj.measure(suite, toys.seen(42), ["answers"], registry=toys.registry())
    model = toys.make_model()
    x, y = toys.make_inputs(model)
    return {
        "model": model,
        "inputs": dj.Inputs(x, y),
        "seeds": dj.select_seeds(model, x, y, n=5),
        "suite": suite,
        "observation": toys.seen(42),
        "calibration": calibration,
        "measurements": measured,
        "verdict": dj.judge(measured, calibration, dj.JudgeSettings(rule="nearest"), registry=toys.registry()),
    }


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    return values()


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("model", "numpy"),
        ("inputs", "60 inputs"),
        ("seeds", "5 seeds"),
        ("suite", "clean"),
        ("observation", "toy-42"),
        ("calibration", "4 controls"),
        ("measurements", "answers"),
        ("verdict", "answers"),
    ],
)
def test_a_value_prints_in_a_few_lines_and_shows_as_a_table(shown: dict[str, Any], name: str, fact: str) -> None:
    lines = repr(shown[name]).splitlines()
    assert fact in repr(shown[name])
    assert len(lines) <= 40
    assert max(map(len, lines)) <= WIDTH
    assert str(shown[name]) == repr(shown[name])
    html = shown[name]._repr_html_()
    assert "<table>" in html
    assert fact.split(maxsplit=1)[0] in html


def test_pages(shown: dict[str, Any]) -> None:
    page = shown["verdict"].to_html()
    assert page.startswith("<!doctype html>")
    assert "answers" in page
    outcome = toys.outcome(
        toys.suite(),
        toys.calibration(),
        [toys.seen(42)],
        dj.JudgeSettings(rule="nearest", metrics=["answers"]),
        registry=toys.registry(),
    )
    report = outcome.to_html()
    assert report.startswith("<!")
    assert "toy-42" in report
    assert "toy-42" in repr(outcome)


def test_what_strangers_wrote_is_cleaned_and_escaped() -> None:
    sheet = Sheet(HOSTILE, {HOSTILE: HOSTILE}, (HOSTILE,), [(HOSTILE,)])
    for text in (sheet.text(), *sheet.html().splitlines(), sheet.page()):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script" not in sheet.html() + sheet.page()
    model = NumpyModel([(np.ones((2, 3)), np.zeros(3))], (2,), name=HOSTILE)
    assert "<script" not in model._repr_html_()
    assert all(line.isprintable() for line in repr(model).splitlines())


def test_tables_end_and_lines_are_bounded() -> None:
    sheet = Sheet("many", {"long": "word " * 500}, ("a", "b"), [("x" * 300, 1.5)] * 50)
    assert max(map(len, sheet.text().splitlines())) <= WIDTH
    assert sheet.text().count("1.5") == 50
    assert sheet.text(MOST_ROWS).splitlines()[-1].strip() == f"... and {50 - MOST_ROWS} more"
    assert Sheet("none", {"nothing": None, "zero": 0}).text() == "none\n  zero  0"

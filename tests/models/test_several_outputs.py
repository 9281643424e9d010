"""Which outputs a model has, which one holds its scores, and what a process may say of them."""

from typing import Any

import numpy as np
import pytest
from refusals import expect_facts, refused

from deepjudge_core.errors import ModelError
from deepjudge_core.models.outputs import Output, Outputs, is_softmax, listed, name_of_path
from deepjudge_core.models.scores import softmax

FEATURES, LABEL = Output("features", "(n, 32)", 32), Output("label", "(n) of int64", None)
LOGITS, SCORES = Output("", "(n, 10)", 10), Output("scores", "(n, 10)", 10, softmax=True)
LAST = Output("3", "(n, 4)", 4)


@pytest.mark.parametrize(
    ("outputs", "choice", "place"),
    [
        ([FEATURES, LABEL, LOGITS], None, 0),
        ([LABEL, LOGITS, SCORES], None, 2),
        ([LABEL, FEATURES, SCORES], "features", 1),
        ([LABEL, FEATURES, SCORES], "3", 2),
        ([LABEL, FEATURES, SCORES], 2, 1),
        ([LAST, FEATURES, SCORES], "3", 0),  # a name comes before a number
        ([LAST, FEATURES, SCORES], 3, 2),
        ([SCORES], 1, 0),
    ],
)
def test_the_output_of_a_softmax_or_the_one_that_is_named(outputs: list[Output], choice: Any, place: int) -> None:
    chosen = Outputs.of(outputs, choice)
    assert (chosen.place, chosen.named, chosen.several) == (place, choice is not None, len(outputs) > 1)


@pytest.mark.parametrize(
    ("outputs", "choice", "facts"),
    [
        ([LABEL], None, ("label (n) of int64",)),
        ([], None, ("none",)),
        ([LABEL, SCORES], "logits", ("'logits'", "label", "scores (n, 10)")),
        ([LABEL, SCORES], "0", ("'0'",)),
        ([LABEL, SCORES], 3, ("3",)),
        ([LABEL, SCORES], "label", ("output 1 of 2 ('label')", "(n) of int64")),
    ],
)
def test_outputs_that_are_no_scores(outputs: list[Output], choice: Any, facts: tuple[str, ...]) -> None:
    with refused(ModelError, *facts):
        Outputs.of(outputs, choice)


def test_what_is_said_of_them() -> None:
    assert str(Outputs((FEATURES, SCORES, LOGITS), 1)) == "output 2 of 3 ('scores')"
    assert str(Outputs((FEATURES, SCORES, LOGITS), 2)) == "output 3 of 3"
    expect_facts(listed([Output("a\x1b[2J\u202eb" * 50, "(n, 3)", 3)] * 40), "28 more")
    assert name_of_path((1,)) == name_of_path((0, 1)) == ""
    assert name_of_path(("heads", 0, "digits")) == "heads.1.digits"


def test_a_softmax_is_told_by_its_values() -> None:
    logits = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    p = softmax(logits)
    coarse = np.round(p * 255) / 255  # as int8 has it
    for values in (p, np.log(p), coarse):
        assert is_softmax(values.astype(np.float32))
    one_hot, one = np.eye(5, dtype=np.float32), np.ones((8, 1), np.float32)
    for values in (logits, one_hot, one, np.abs(logits), p[:, :3], np.full_like(p, np.nan)):
        assert not is_softmax(values)


def test_a_process_may_say_anything_of_its_outputs() -> None:
    said = Outputs((FEATURES, LABEL, SCORES), 2, named=True)
    assert Outputs.from_json(said.to_json(), 100) == said
    rows = [["a", "(n, 3)", 3, False, True]]
    hostile: list[Any] = [
        None,
        [],
        "text",
        {},
        {"all": rows, "place": 1, "named": False},
        {"all": rows, "place": -1, "named": False},
        {"all": rows, "place": "0", "named": False},
        {"all": rows * 200, "place": 0, "named": False},
        {"all": [["a", "(n, 3)", 10**9, False, True]], "place": 0, "named": False},
        {"all": [["a", "(n, 3)", "3", False, True]], "place": 0, "named": False},
        {"all": [["a", "(n, 3)", 2.5, False, True]], "place": 0, "named": False},
        {"all": [["a", "(n, 3)", None, False, True]], "place": 0, "named": False},
        {"all": [["a", "(n, 3)", 3]], "place": 0, "named": False},
    ]
    for value in hostile:
        with pytest.raises(ValueError, match="outputs"):
            Outputs.from_json(value, 100)
    shown = Outputs.from_json({"all": [["a\x1b[2J\nb", "(n, 3)", 3, False, True]], "place": 0, "named": False}, 100)
    assert shown.all[0].name.isprintable()

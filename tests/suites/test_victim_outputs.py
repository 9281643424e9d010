"""Which of a victim's outputs gets the inputs right."""

import numpy as np
import pytest
import toys
from heads import Heads
from refusals import expect_facts

from deepjudge_core import Inputs, Session, SuiteSettings
from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.models.outputs import Output, Outputs
from deepjudge_core.suites.outputs import GOOD, Trial, best_output, output_by_labels

OUTPUTS = Outputs(tuple(Output(name, "(n, 4)", 4, softmax=name == "b") for name in "abc"), 0)
LABELS = np.arange(40) % 4


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        ({0: Trial(0.2, 0.2, True), 1: Trial(1.0, 0.9, True)}, 1),
        ({0: Trial(0.2, 0.2, True), 1: Trial(0.7, 0.6, True)}, None),  # nobody's: three quarters of the way is 0.8125
        ({0: Trial(1.0, 0.9, True), 1: Trial(0.95, 0.9, True)}, 0),
        # Of two heads of one task, an auxiliary one branches off early.
        ({0: Trial(1.0, 1.0, True, depth=2), 1: Trial(0.99, 0.9, True, depth=5)}, 1),
        ({0: Trial(1.0, 0.9, True, depth=5), 1: Trial(1.0, 1.0, True, depth=2)}, 0),
        ({0: Trial(1.0, 0.9, True, depth=2), 1: Trial(0.9, 0.9, True, depth=5)}, 0),
        # The class itself, as 0 and 1, is none; logits and their softmax are one.
        ({0: Trial(1.0, 1.0, False), 1: Trial(1.0, 0.9, True)}, 1),
        ({0: Trial(1.0, 0.9, True), 1: Trial(1.0, 0.9 + 1e-9, True), 2: Trial(1.0, 0.9, True)}, 1),
        # What is nearer by far to the victim is its function, but not what is a little nearer.
        ({0: Trial(1.0, 1.0, True, 3, 0.2), 1: Trial(0.97, 0.9, True, 1, 0.001)}, 1),
        ({0: Trial(1.0, 1.0, True, 3, 0.2), 1: Trial(0.97, 0.9, True, 1, 0.1)}, 0),
        ({}, None),
    ],
)
def test_the_best_of_several_outputs(trials: dict[int, Trial], best: int | None) -> None:
    assert best_output(OUTPUTS, trials, LABELS, GOOD) == best


def test_a_victim_answers_the_task_of_its_inputs() -> None:
    right, other = toys.make_model(0), toys.make_model(3, knows=False)
    wide = toys.make_model(5, classes=9)
    x, y = toys.make_inputs(right)
    inputs, settings = Inputs(x, y), SuiteSettings(n=20, generators=("shove", "poke"))
    heads = {"features": wide, "other": other, "scores": right, "boxes": toys.make_model(6, classes=3)}
    for model, facts in (
        (Heads(heads, softmax=["other"]), ("output 3 of 4 ('scores')", "90.0%", "'other'")),
        (Heads(heads, "scores"), ("output 3 of 4 ('scores')", "as requested")),
    ):
        suite = make_suite(model, inputs, settings, session=Session(toys.registry()))
        assert (suite.victim.model.classes, suite.accuracy) == (4, pytest.approx(0.9))
        expect_facts(suite.notes[0], *facts)


def test_what_no_output_answers_is_that_of_a_softmax() -> None:
    heads = {name: toys.make_model(seed, knows=False) for name, seed in (("a", 1), ("b", 2))}
    x, y = toys.make_inputs(toys.make_model(0))
    model, note = output_by_labels(Heads(heads, softmax=["b"]), x, y)
    assert model.outputs is not None
    assert model.outputs.place == 1
    expect_facts(str(note), "output 2 of 2 ('b')", "softmax", "output=")


def test_nothing_is_said_of_one_output_and_of_labels_that_are_none() -> None:
    model = toys.make_model(0)
    x, y = toys.make_inputs(model)
    assert output_by_labels(model, x, y) == (model, None)
    several = Heads({"a": model, "b": model})
    for labels in (y[:-1], y - 9, y + 0.5):
        assert output_by_labels(several, x, labels) == (several, None)

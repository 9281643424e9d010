"""Which of a suspect's outputs answers the victim's classes."""

import numpy as np
import pytest
import toys
from heads import Heads
from refusals import expect_facts, refused

from deepjudge_core import Preprocessing, QuerySettings, observe
from deepjudge_core.errors import ModelError
from deepjudge_core.models.model import Model
from deepjudge_core.observing.observe import labeller
from deepjudge_core.testing.numpy_model import NumpyModel

VICTIM, OTHER = toys.make_model(0), toys.make_model(3, knows=False)
FEATURES, BOXES = toys.make_model(5, classes=9), toys.make_model(6, classes=3)


def asked(model: Model, asking: QuerySettings | None = None) -> tuple[float, str]:
    """How far its answers are from the victim's, and what is said first of how it was asked."""
    observation = observe(model, toys.suite(), asking)
    assert observation.probabilities is not None
    distance = float(np.abs(observation.probabilities - toys.suite().victim.probabilities).max())
    return distance, observation.notes[0]


@pytest.mark.parametrize(
    ("heads", "softmax", "facts"),
    [
        ({"features": FEATURES, "scores": VICTIM}, (), ("output 2 of 2 ('scores')", "the only output")),
        ({"other": OTHER, "boxes": BOXES, "scores": VICTIM}, ("other",), ("output 3 of 3 ('scores')", "100.0%")),
        ({"scores": VICTIM, "other": OTHER}, ("other",), ("output 1 of 2 ('scores')", "'other'")),
    ],
)
def test_the_output_that_gets_the_seeds_right(
    heads: dict[str, Model], softmax: tuple[str, ...], facts: tuple[str, ...]
) -> None:
    distance, note = asked(Heads(heads, softmax=softmax))
    assert distance < 1e-6
    expect_facts(note, *facts)


def test_each_output_is_asked_a_few_seeds_alone() -> None:
    model = Heads({"other": OTHER, "scores": VICTIM})
    asked(model)
    assert model.asked["other"] <= 20


def test_with_the_preprocessing_that_it_turns_out_to_expect() -> None:
    (matrix, bias), *others = VICTIM.weights
    # It takes -1..1: half of its inputs and one.
    shifted = NumpyModel([(matrix / 2, bias + matrix.sum(axis=0) / 2), *others], toys.SHAPE)
    asking = QuerySettings(preprocessing=Preprocessing(scale=2, mean=(1.0,)))
    for one in (QuerySettings(), asking):
        distance, note = asked(Heads({"other": OTHER, "scores": shifted}, softmax=["other"]), one)
        expect_facts(note, "output 2 of 2 ('scores')")
        assert distance < 1e-5 or one is not asking


def test_the_one_behind_a_softmax_where_none_does() -> None:
    strangers = {"a": toys.make_model(8, knows=False), "b": toys.make_model(9, knows=False)}
    _, note = asked(Heads(strangers, softmax=["b"]), QuerySettings(infer=False))
    expect_facts(note, "output 2 of 2 ('b')", "softmax", "output=")


def test_the_one_that_the_user_says() -> None:
    distance, note = asked(Heads({"other": OTHER, "scores": VICTIM}, "other"))
    assert distance > 0.1
    expect_facts(note, "output 1 of 2 ('other')", "as requested")
    observation = observe(Heads({"scores": VICTIM, "features": FEATURES}, 2), toys.suite())
    expect_facts(str(observation.unmapped), "output 2 of 2 ('features')", "9", "scores (n, 4)", "output=")
    assert "classes=" not in str(observation.unmapped)


def test_its_classes_are_of_that_output() -> None:
    wide = toys.make_model(5, classes=6)
    asking = QuerySettings(classes=(5, 4, 3, 2))
    observation = observe(Heads({"boxes": BOXES, "wide": wide}), toys.suite(), asking)
    assert (observation.model.classes, observation.classes) == (6, (5, 4, 3, 2))


def test_case_by_case_nothing_is_tried() -> None:
    for heads, row in (({"features": FEATURES, "scores": VICTIM}, 0), ({"scores": VICTIM, "boxes": BOXES}, 1)):
        label = labeller(Heads(heads), toys.suite(), QuerySettings())
        assert label(row) == toys.suite().victim.probabilities[row].argmax()
    several = Heads({"other": OTHER, "boxes": BOXES, "scores": VICTIM})
    with refused(ModelError, "other (n, 4), scores (n, 4)", "output="):
        labeller(several, toys.suite(), QuerySettings())
    named = Heads({"other": OTHER, "boxes": BOXES, "scores": VICTIM}, "scores")
    assert labeller(named, toys.suite(), QuerySettings())(2) == toys.suite().victim.probabilities[2].argmax()


def test_an_honest_output_beside_those_of_a_copy_acquits_nobody() -> None:
    suspect = Heads({"scores": toys.make_model(noise=0.05), "other": toys.make_model(3)})
    observation = observe(suspect, toys.suite())
    expect_facts(str(observation.unsteady), "scores", "other", "output=")
    assert observe(Heads({"scores": VICTIM, "other": OTHER}), toys.suite()).unsteady is None


def test_more_outputs_than_are_tried_have_to_be_named() -> None:
    with refused(ModelError, "17", "16", "output="):
        observe(Heads({f"o{place}": VICTIM for place in range(17)}), toys.suite())

"""Suspects that take pictures of another size or other channels: which way is found, and what is refused.

A suspect is made by linear algebra so that it is the victim behind one known way of resizing, and behind no other.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from refusals import expect_facts, refused

from deepjudge_core import InputSpec, Preprocessing, QuerySettings, Suite, build_suite, observe, select_seeds
from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.models import asking
from deepjudge_core.models.geometry import Geometry
from deepjudge_core.models.prepared import Prepared
from deepjudge_core.observing.arranging import Arranging
from deepjudge_core.observing.observe import labeller
from deepjudge_core.suites.suite import load_suite, save_suite
from deepjudge_core.testing import NumpyModel

SIDE = 8


@pytest.fixture(scope="module")
def victim() -> NumpyModel:
    return toys.make_model(shape=(SIDE, SIDE), classes=4)


@pytest.fixture(scope="module")
def suite(victim: NumpyModel) -> Suite:
    x, y = toys.make_inputs(victim, n=300)
    seeds = select_seeds(victim, x, y, n=100)
    return build_suite(victim, seeds, ["shove"], registry=toys.registry(), force=True)


def behind(model: NumpyModel, geometry: Geometry, *, stretched: tuple[float, float] = (1.0, 0.0)) -> NumpyModel:
    """The model for pictures that a geometry makes of its own, then times a factor and moved by an offset."""
    unit = np.eye(SIDE * SIDE).reshape(-1, SIDE, SIDE)
    made = geometry(unit, None)
    matrix = made.reshape(len(unit), -1)  # row i: what becomes of pixel i
    (weights, bias), *others = model.weights
    factor, offset = stretched
    first = np.linalg.pinv(matrix) @ weights / factor
    return NumpyModel([(first, bias - offset * first.sum(axis=0)), *others], made.shape[1:])


@pytest.mark.parametrize(
    ("geometry", "found"),
    [
        (Geometry((16, 16)), "resize=16x16,scale=1"),
        (Geometry((16, 12)), "resize=16x12,scale=1"),
        (Geometry(None, (12, 12)), "crop=12x12,scale=1"),
        (Geometry(color="rgb"), "color=rgb,scale=1"),
        (Geometry((16, 16), None, "rgb"), "resize=16x16,color=rgb,scale=1"),
        (Geometry((18, 18), (16, 16)), "resize=18x18,crop=16x16,scale=1"),
    ],
    ids=str,
)
def test_the_way_of_a_copy_is_found(victim: NumpyModel, suite: Suite, geometry: Geometry, found: str) -> None:
    copy = behind(victim, geometry)
    observation = observe(copy, suite)
    assert str(observation.preprocessing) == found
    assert observation.inferred == ("preprocessing",)
    assert observation.probabilities is not None
    assert suite.victim.probabilities is not None
    labels = suite.victim.probabilities.argmax(axis=1)
    if geometry.resize != (18, 18):  # which loses the edge
        np.testing.assert_allclose(observation.probabilities, suite.victim.probabilities, atol=1e-3)
    assert (observation.probabilities.argmax(axis=1) == labels).mean() > 0.7
    expect_facts(observation.notes[0], copy.input, found)


def test_a_way_and_a_range_are_found_together(victim: NumpyModel, suite: Suite) -> None:
    copy = behind(victim, Geometry((16, 16)), stretched=(2.0, -1.0))
    assert copy.input == InputSpec((16, 16))
    assert str(observe(copy, suite).preprocessing) == "resize=16x16,scale=2,mean=1"


def test_what_was_said_is_done(victim: NumpyModel, suite: Suite) -> None:
    said = Preprocessing.parse("resize=16x16")
    observation = observe(behind(victim, Geometry((16, 16))), suite, QuerySettings(preprocessing=said))
    assert (observation.preprocessing, observation.inferred, observation.tried) == (said, (), ())
    # A size is said, and what else differs is added: here the colour.
    colour = observe(behind(victim, Geometry((16, 16), None, "rgb")), suite, QuerySettings(preprocessing=said))
    assert colour.preprocessing == Preprocessing.parse("resize=16,color=rgb")
    with refused(ModelError, "16x16", "10x10", code="other-inputs"):
        observe(
            behind(victim, Geometry((16, 16))),
            suite,
            QuerySettings(preprocessing=Preprocessing.parse("resize=10x10")),
        )


def test_who_answers_nothing_sensible_is_refused(suite: Suite) -> None:
    stranger = toys.make_model(5, shape=(16, 16), classes=4, knows=False)
    with refused(ModelError, "16x16", "8x8", "resize=16x16", code="other-inputs"):
        observe(stranger, suite)
    with refused(ModelError, "8x8", "QuerySettings", code="other-inputs"):  # whose classes cannot be told either
        observe(toys.make_model(5, shape=(16, 16), classes=6), suite)


def test_a_suspect_cannot_have_pictures_made_large_without_end(victim: NumpyModel, suite: Suite) -> None:
    endless = behind(victim, Geometry((16, 16)))
    endless.input = InputSpec((2**14, 2**14))
    with refused(ModelError, endless.input, "4194304"):
        observe(endless, suite)
    endless.input = InputSpec((4, 2**14))
    ways = Arranging.of(endless, suite, QuerySettings()).ways
    assert Geometry((4, 2**14)) in ways
    assert Geometry((2**14, 2**14), (4, 2**14)) not in ways  # the shorter side resized and the centre cut out


def test_few_large_pictures_are_in_memory_at_once(
    victim: NumpyModel, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, most = behind(victim, Geometry((16, 16))), 5
    usual = observe(copy, suite)
    monkeypatch.setattr(asking, "_MOST_PREPARED", most * 16 * 16 * 4)
    rows = list[int]()
    respond = copy.predict

    def counted(x: np.ndarray) -> np.ndarray:
        rows.append(len(x))
        return respond(x)

    monkeypatch.setattr(copy, "predict", counted)
    few = observe(copy, suite)
    assert max(rows) <= most
    assert few.probabilities is not None
    assert usual.probabilities is not None
    np.testing.assert_allclose(few.probabilities, usual.probabilities, atol=1e-6)


def test_shapes_that_are_no_pictures_are_refused(suite: Suite) -> None:
    for shape in ((12,), (16, 16, 5), (2, 2)):
        with refused(ModelError, "8x8", code="other-inputs"):
            observe(toys.make_model(5, shape=shape, classes=4), suite)


def test_one_label_at_a_time_needs_a_way_that_is_said(victim: NumpyModel, suite: Suite) -> None:
    copy = behind(victim, Geometry((16, 16)))
    with refused(ModelError, "16x16", "resize=16x16"):
        labeller(copy, suite, QuerySettings())
    ask = labeller(copy, suite, QuerySettings(preprocessing=Preprocessing.parse("resize=16x16")))
    assert suite.victim.probabilities is not None
    assert ask(0) == suite.victim.probabilities[0].argmax()


def test_typed_and_stored() -> None:
    text = "resize=40x30,crop=32x32,color=grey,scale=255,mean=1,order=rgb"
    one = Preprocessing.parse(text)
    assert one.geometry == Geometry((40, 30), (32, 32), "grey")
    assert Preprocessing.of_header(one.header()) == one
    assert Preprocessing.parse(one.header().typed()) == one
    assert not one.same_as(Preprocessing(255, (1,)))
    for wrong in ("resize=0", "resize=axb", "crop=99999999", "color=pink", "resize=3x4x5"):
        with refused(UsageError, code="wrong-value"):
            Preprocessing.parse(wrong)


def test_a_victim_is_not_asked_through_it(victim: NumpyModel) -> None:
    with refused(UsageError, "resize=4x4", code="conflict"):
        Prepared.of(victim, Preprocessing.parse("resize=4x4"), (4, 4), (0, 1))


def test_the_rule_of_a_suite_is_kept(suite: Suite, tmp_path: Path) -> None:
    path = tmp_path / "suite.safetensors"
    save_suite(path, replace(suite, fitting="stretch"))
    assert load_suite(path).fitting == "stretch"
    assert load_suite(path).digest != suite.digest
    assert suite.fitting is None

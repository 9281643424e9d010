"""A victim behind its preprocessing: it answers inputs as they come, and suites are kept so."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from refusals import expect_facts, refused

import deepjudge_core as dj
from deepjudge_core import Inputs, Prepared, Preprocessing, QuerySettings, Subject, make_suite, observe
from deepjudge_core.errors import ErringVictimError
from deepjudge_core.models.preprocessing import PRESETS
from deepjudge_core.observing.observe import labeller
from deepjudge_core.suites.settings import SuiteSettings

SHAPE = (3, 2, 2)
NAMES = ("imagenet", "caffe", "-1..1", "0..255,invert=true")


def plain() -> toys.NumpyModel:
    return toys.make_model(20, shape=SHAPE, name="victim", knows=False)


def expecting(preprocessing: Preprocessing) -> toys.NumpyModel:
    """The same function of inputs in 0..1, behind a preprocessing."""
    (matrix, bias), *others = plain().weights
    slope, offset = (
        np.broadcast_to(np.reshape(np.broadcast_to(v, 3), (3, 1, 1)), SHAPE).ravel() for v in preprocessing.line((0, 1))
    )
    weights, bias = matrix / slope[:, None], bias - (offset / slope) @ matrix
    if preprocessing.order == "bgr":
        weights = weights.reshape(*SHAPE, -1)[::-1].reshape(weights.shape)
    return toys.NumpyModel([(weights, bias), *others], SHAPE, name="victim")


def offered() -> Inputs:
    x = np.random.default_rng(0).random((600, *SHAPE), dtype=np.float32)
    y = plain().predict(x).argmax(axis=1)
    y[::10] = (y[::10] + 1) % 4
    return Inputs(x, y)


def suite_of(victim: toys.NumpyModel, inputs: Inputs | None = None, **more) -> dj.Suite:
    settings = SuiteSettings(n=80, order="balanced", generators=["shove"])
    session = dj.Session(toys.registry(), None)
    return make_suite(victim, inputs or offered(), settings, session=session, **more)


@pytest.mark.parametrize("name", NAMES)
def test_answers_layers_and_gradients_are_those_of_the_function(name: str) -> None:
    x, _ = toys.make_inputs(plain(), 20)
    model = expecting(Preprocessing.parse(name))
    prepared = Prepared.of(model, Preprocessing.parse(name), SHAPE, (0, 1))
    np.testing.assert_allclose(prepared.predict(x), plain().predict(x), atol=1e-4)
    ours, theirs = (one.activations(x, ["dense2"])["dense2"] for one in (prepared, plain()))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    for layer in (None, "dense1"):
        ours, theirs = (
            one.gradient(x, lambda scores, rows: np.ones_like(scores), layer=layer) for one in (prepared, plain())
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert (prepared.digest, prepared.name, prepared.layers) == (model.digest, model.name, model.layers)
    assert isinstance(prepared, dj.Model)


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_is_in_plain_inputs(name: str, tmp_path: Path) -> None:
    preprocessing, reference = Preprocessing.parse(name), suite_of(plain())
    for suite in (
        suite_of(expecting(preprocessing), preprocessing=preprocessing),
        suite_of(Subject.of(expecting(preprocessing), query=QuerySettings(preprocessing=preprocessing))),
    ):
        dj.save_suite(tmp_path / "s", suite)
        assert dj.load_suite(tmp_path / "s").victim.preprocessing == preprocessing
        assert suite.bounds == (0, 1)
        assert 0 <= suite.cases.inputs.min() < suite.cases.inputs.max() <= 1
        np.testing.assert_array_equal(suite.seed_indices, reference.seed_indices)
        clean = suite.rows("clean")
        np.testing.assert_allclose(suite.victim.probabilities[clean], reference.victim.probabilities[clean], atol=1e-4)


def test_models_are_asked_as_the_victim_unless_they_expect_something_else() -> None:
    imagenet = PRESETS["imagenet"].preprocessing
    suite = suite_of(expecting(imagenet), preprocessing=imagenet)
    same = observe(expecting(imagenet), suite)
    np.testing.assert_array_equal(same.probabilities, suite.victim.probabilities)
    assert (same.preprocessing, same.inferred, same.notes, same.tried) == (imagenet, (), (), ())
    # A copy that normalises inside takes plain inputs: of those the suite is made.
    inside = observe(plain(), suite)
    np.testing.assert_allclose(inside.probabilities, suite.victim.probabilities, atol=1e-4)
    assert (inside.preprocessing, inside.inferred) == (PRESETS["0..1"].preprocessing, ("preprocessing",))
    other = observe(expecting(PRESETS["caffe"].preprocessing), suite)
    assert (other.preprocessing, other.inferred) == (PRESETS["caffe"].preprocessing, ("preprocessing",))
    told = observe(plain(), suite, QuerySettings(preprocessing=Preprocessing()))
    np.testing.assert_array_equal(told.probabilities, inside.probabilities)


def test_case_by_case_too() -> None:
    imagenet = PRESETS["imagenet"].preprocessing
    suite = suite_of(expecting(imagenet), preprocessing=imagenet)
    label = labeller(expecting(imagenet), suite, QuerySettings())
    expected = suite.victim.probabilities.argmax(axis=1)
    assert [label(row) for row in range(len(expected))] == expected.tolist()


# Inputs that were standardised before.


def standardised(preprocessing: Preprocessing, levels: int | None = None) -> Inputs:
    inputs = offered()
    u = inputs.x if levels is None else np.round(inputs.x * levels) / levels
    for channel in range(3):  # black and white are there
        u[channel, channel], u[channel + 3, channel] = 0, 1
    x = preprocessing.preparing("", SHAPE, (0, 1), None)(u.astype(np.float32))
    y = plain().predict(u.astype(np.float32)).argmax(axis=1)
    return Inputs(x, y, (float(x.min()), float(x.max())), training=x[:100])


@pytest.mark.parametrize("levels", [None, 255])
@pytest.mark.parametrize("name", ["imagenet", "cifar10", "clip"])
def test_standard_images_are_brought_back(name: str, levels: int | None) -> None:
    preprocessing = PRESETS[name].preprocessing
    suite = suite_of(expecting(preprocessing), standardised(preprocessing, levels))
    assert (suite.victim.preprocessing, suite.bounds) == (preprocessing, (0, 1))
    expect_facts(suite.notes[0], name, "0..1")
    clean = suite.rows("clean")
    inputs = suite.cases.inputs[clean]
    np.testing.assert_allclose(suite.victim.probabilities[clean], plain().predict(inputs), atol=1e-4)
    if levels:
        np.testing.assert_allclose(inputs * 255, np.round(inputs * 255), atol=1e-4)
    assert observe(plain(), suite).inferred == ("preprocessing",)


def test_others_are_brought_back_where_all_bytes_occur() -> None:
    own = Preprocessing(1.0, (0.1, 0.2, 0.3), (0.5, 0.4, 0.3))
    suite = suite_of(expecting(own), standardised(own, 255))
    np.testing.assert_allclose(suite.victim.preprocessing.mean, own.mean, atol=1e-4)
    np.testing.assert_allclose(suite.victim.preprocessing.std, own.std, atol=1e-4)
    unknown = suite_of(expecting(own), standardised(own))
    assert unknown.victim.preprocessing is None
    expect_facts(unknown.notes[0], "preprocessing=")


def test_what_the_user_says_is_not_undone() -> None:
    own = Preprocessing(1.0, (0.5,))
    inputs = standardised(PRESETS["imagenet"].preprocessing)
    y = plain().predict((inputs.x - inputs.bounds[0]) / np.ptp(inputs.bounds) - 0.5).argmax(axis=1)
    suite = suite_of(plain(), replace(inputs, y=y), preprocessing=own)
    assert (suite.bounds, suite.victim.preprocessing) == (inputs.bounds, own)


def test_the_report_says_it() -> None:
    imagenet = PRESETS["imagenet"].preprocessing
    suite = suite_of(expecting(imagenet), preprocessing=imagenet)
    calibration = dj.calibrate(
        suite, [observe(toys.make_model(k, shape=SHAPE), suite) for k in range(3)], registry=toys.registry()
    )
    outcome = toys.outcome(suite, calibration, [plain()], dj.JudgeSettings(rule="nearest"), registry=toys.registry())
    from deepjudge_core.report.audit_json import audit_report, dump_report
    from deepjudge_core.report.pages.reproducing import commands

    report = json.loads(dump_report(outcome))
    assert report["victim"]["preprocessing"]["mean"] == list(imagenet.mean)
    lines = commands(audit_report(outcome))
    assert any(f"--victim-input {imagenet.header().typed()}" in line for line in lines)


# Which preprocessing would make a victim right.


def test_the_error_says_which_one_would_do() -> None:
    for name in ("0..255", "-1..1", "caffe"):
        with refused(ErringVictimError, f"preprocessing='{name}' it classifies", code="no-verdict"):
            suite_of(expecting(Preprocessing.parse(name)))
    inputs = offered()
    with refused(ErringVictimError, "force=True", code="no-verdict") as caught:
        suite_of(plain(), replace(inputs, y=np.roll(inputs.y, 7)))
    assert "with preprocessing=" not in str(caught.value)


def test_a_victim_that_is_no_perfect_model_is_told_too() -> None:
    inputs = offered()
    y = inputs.y.copy()
    y[::2] = np.random.default_rng(1).integers(4, size=len(y[::2]))
    with refused(ErringVictimError, "preprocessing='-1..1' it classifies", code="no-verdict"):
        suite_of(expecting(Preprocessing.parse("-1..1")), replace(inputs, y=y))


def test_the_error_says_which_order_of_the_classes_would_do() -> None:
    inputs = offered()
    renumbered = np.array([2, 0, 3, 1])[inputs.y]
    with refused(ErringVictimError, "label 2, label 0, label 3, label 1", code="no-verdict"):
        suite_of(plain(), replace(inputs, y=renumbered))
    with refused(ErringVictimError, "cat, ant, dog, bee", code="no-verdict"):
        suite_of(plain(), replace(inputs, y=renumbered, classes=("ant", "bee", "cat", "dog")))


def test_a_victim_that_gives_one_answer_is_told_too() -> None:
    class Deaf(toys.NumpyModel):
        def _outputs(self, x):
            return super()._outputs(np.where(x < 1.5, 0, x))

    deaf = Deaf(expecting(PRESETS["0..255"].preprocessing).weights, SHAPE, name="deaf")
    with refused(ErringVictimError, "deaf", "preprocessing='0..255'", code="no-verdict"):
        suite_of(deaf)

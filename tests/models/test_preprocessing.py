"""What is done to inputs before a model sees them: as given, or as found from its answers to the seeds."""

import functools
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import toys
from refusals import refused

from deepjudge_core import (
    JudgeSettings,
    Preprocessing,
    QuerySettings,
    Suite,
    build_suite,
    calibrate,
    load_observation,
    observe,
    save_observation,
    select_seeds,
)
from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.files.documents import parse, plain
from deepjudge_core.models.asking import SameAnswerError
from deepjudge_core.models.model import InputSpec
from deepjudge_core.models.preprocessing import STANDARD, PreprocessingHeader, candidates
from deepjudge_core.report.audit_json import dump_report, schema

BYTES, SYMMETRIC, UNIT, IMAGENET = STANDARD.values()
SHAPE = (3, 2, 2)
SEED = 43  # of a victim that gives all classes to as many inputs, and that other ranges of inputs confuse
MEAN, STD = (np.array(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))


@functools.cache
def suite(low: float = 0.0, high: float = 1.0) -> Suite:
    """Of a victim that takes inputs in these bounds; all classes occur."""
    model = expecting(Preprocessing(high - low, (-low,)))
    x, y = toys.make_inputs(toys.make_model(SEED, shape=SHAPE), 1000)
    seeds = select_seeds(model, x * (high - low) + low, y, n=80, order="balanced", bounds=(low, high))
    return build_suite(model, seeds, ["shove"], registry=toys.registry())


def expecting(
    preprocessing: Preprocessing,
    seed: int = SEED,
    noise: float = 0.0,
    order: tuple[int, ...] = (0, 1, 2, 3),
    *,
    knows: bool = True,
) -> toys.NumpyModel:
    """A model of inputs in 0..1, changed to take what the preprocessing makes of them; classes in another order."""
    (matrix, bias), *hidden, (last, end) = toys.make_model(seed, noise=noise, shape=SHAPE, knows=knows).weights
    mean, std = (
        np.broadcast_to(np.reshape(v, (-1, 1, 1)), SHAPE).ravel() for v in (preprocessing.mean, preprocessing.std)
    )
    first = (matrix * std[:, None] / preprocessing.scale, bias + (mean / preprocessing.scale) @ matrix)
    places = np.argsort(order)
    return toys.NumpyModel([first, *hidden, (last[:, places], end[places])], SHAPE, name=str(preprocessing))


ALL = [BYTES, SYMMETRIC, UNIT, IMAGENET, Preprocessing(255, (127.5,), (127.5,)), Preprocessing(3, (1, 2, 3), (4,))]


# As given.


@pytest.mark.parametrize("preprocessing", ALL, ids=str)
def test_it_is_read_as_it_is_written(preprocessing: Preprocessing) -> None:
    assert Preprocessing.parse(str(preprocessing)) == preprocessing
    assert (
        Preprocessing.of_header(parse(PreprocessingHeader, json.loads(json.dumps(plain(preprocessing.header())))))
        == preprocessing
    )


def test_what_is_left_out() -> None:
    assert Preprocessing.parse("mean=0.5") == Preprocessing(1, (0.5,), (1,))
    assert Preprocessing.parse("std=1:2:3,scale=255") == Preprocessing(255, (0,), (1, 2, 3))
    assert str(Preprocessing()) == "scale=1"


@pytest.mark.parametrize(
    "text",
    [
        *("", "255", "scale", "scale=", "scale=x", "scale=1:2", "size=3", "scale=1,scale=2", "mean=1:", "scale=0"),
        *("std=0", "std=1:0", "mean=nan", "scale=inf", "mean=1:2,std=1:2:3"),
    ],
)
def test_what_is_none(text: str) -> None:
    with refused(UsageError, code="wrong-value"):
        Preprocessing.parse(text)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255), (2, 7)])
def test_inputs_are_brought_to_0_and_1_before(low: float, high: float) -> None:
    u = np.random.default_rng(0).random((5, *SHAPE))
    x = (u * (high - low) + low).astype(np.float32)
    for preprocessing, expected in [
        (BYTES, u * 255),
        (SYMMETRIC, u * 2 - 1),
        (UNIT, u),
        (IMAGENET, (u - MEAN) / STD),
        (Preprocessing(255, (127.5,), (127.5,)), u * 2 - 1),
        (Preprocessing(2, (1, 2, 3), (4,)), (u * 2 - np.reshape([1, 2, 3], (3, 1, 1))) / 4),
    ]:
        prepared = preprocessing.preparing("m", SHAPE, (low, high), None)(x)
        assert prepared.dtype == np.float32
        np.testing.assert_allclose(prepared, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "layout", "axis"),
    [
        ((3, 4, 5), None, 0),
        ((4, 5, 3), None, 2),
        ((4, 3), None, 1),
        ((3,), None, 0),
        ((3, 4, 3), "channels_first", 0),
        ((3, 4, 3), "channels_last", 2),
        ((4, 5, 3), "channels_first", 2),
    ],
)
def test_where_the_channels_are(shape: tuple[int, ...], layout, axis: int) -> None:
    x = np.ones((2, *shape), np.float32)
    prepared = Preprocessing(mean=(0, 1, 2)).preparing("m", shape, (0, 1), layout)(x)
    np.testing.assert_array_equal(np.moveaxis(prepared, axis + 1, -1)[0].reshape(-1, 3)[0], [1, 0, -1])


def test_channels_that_are_not_there() -> None:
    preprocessing = Preprocessing(mean=(0, 1, 2))
    with refused(ModelError, "m: ", "3 channels", "scale=1,mean=0:1:2", "4x5"):
        preprocessing.preparing("m", (4, 5), (0, 1), None)
    with refused(ModelError, "m: ", "3x4x3", "--input-layout"):
        preprocessing.preparing("m", (3, 4, 3), (0, 1), None)


@pytest.mark.parametrize("bounds", [(0, 1), (0, 255), (-1, 1)])
@pytest.mark.parametrize("preprocessing", ALL, ids=str)
def test_the_victim_with_other_inputs_is_the_victim(
    preprocessing: Preprocessing, bounds: tuple[float, float], tmp_path: Path
) -> None:
    observation = observe(expecting(preprocessing), suite(*bounds), QuerySettings(preprocessing=preprocessing))
    np.testing.assert_allclose(observation.probabilities, suite(*bounds).victim.probabilities, atol=1e-4)
    np.testing.assert_allclose(
        observation.activations["dense2"], suite(*bounds).victim.activations["dense2"], atol=1e-3
    )
    assert (observation.preprocessing, observation.inferred) == (preprocessing, ())
    assert observation.notes == (f"its inputs are prepared by {preprocessing}, as was asked for",)
    save_observation(tmp_path / "o", observation)
    assert load_observation(tmp_path / "o").preprocessing == preprocessing


# As found.


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
@pytest.mark.parametrize(
    ("bounds", "preprocessing", "name"),
    [
        ((0, 1), BYTES, "0..255"),
        ((-1, 1), BYTES, "0..255"),
        ((0, 255), SYMMETRIC, "-1..1"),
        ((0, 255), UNIT, "0..1"),
        ((0, 255), IMAGENET, "ImageNet's mean and deviation"),
    ],
)
def test_a_standard_one_is_found(
    bounds: tuple[float, float], preprocessing: Preprocessing, name: str, order: tuple[int, ...]
) -> None:
    model = expecting(preprocessing, order=order)
    observation = observe(model, suite(*bounds))
    assert (observation.preprocessing, observation.classes) == (preprocessing, None if order == (0, 1, 2, 3) else order)
    assert observation.inferred == ("preprocessing", *(("classes",) if observation.classes else ()))
    assert observation.notes[0].startswith(
        f"its inputs are prepared to {name} ({preprocessing}), inferred from the seeds"
    )
    assert "100.0% so, " in observation.notes[0]
    np.testing.assert_allclose(observation.probabilities, suite(*bounds).victim.probabilities, atol=1e-4)
    np.testing.assert_allclose(
        observation.activations["dense2"], suite(*bounds).victim.activations["dense2"], atol=1e-3
    )


def test_it_can_be_turned_off() -> None:
    observation = observe(expecting(BYTES), suite(), QuerySettings(infer=False))
    assert (observation.preprocessing, observation.inferred) == (None, ())
    note, *_ = observation.notes
    assert "near chance: if it expects other inputs" in note


def test_what_is_given_is_not_doubted() -> None:
    observation = observe(expecting(BYTES), suite(), QuerySettings(preprocessing=SYMMETRIC))
    assert (observation.preprocessing, observation.inferred) == (SYMMETRIC, ())


class Counting(toys.NumpyModel):
    """Counts the rows that it is run on."""

    rows = 0

    def forward(self, x, layers):
        self.rows += len(x)
        return super().forward(x, layers)


def test_it_is_not_looked_for_where_the_inputs_as_they_are_will_do() -> None:
    # Also where another preprocessing would do better: a copy that was changed, and expects -1..1.
    for model in (expecting(UNIT, noise=0.05), expecting(Preprocessing(1.3, (0.1,)))):
        counting = Counting(model.weights, SHAPE)
        observation = observe(counting, suite())
        assert (observation.preprocessing, observation.inferred, observation.notes) == (None, (), ())
        # One row is run again, to see that its outputs are probabilities, and four of each of two sets three times.
        assert counting.rows == len(suite().cases.inputs) + 1 + 3 * 2 * 4


def test_a_model_that_nothing_mends_is_asked_as_it_is() -> None:
    observation = observe(expecting(UNIT, seed=19, knows=False), suite())
    assert (observation.preprocessing, observation.inferred) == (None, ())
    assert "near chance" in observation.notes[0]


def whole_numbers(model: toys.NumpyModel) -> toys.NumpyModel:
    model.input = InputSpec(SHAPE, "uint8")
    return model


def test_a_model_of_whole_numbers_is_found_to_be_one() -> None:
    # In 0..1 it sees hardly anything.
    observation = observe(whole_numbers(expecting(BYTES)), suite())
    assert observation.preprocessing == BYTES
    np.testing.assert_allclose(observation.probabilities, suite().victim.probabilities, atol=0.05)


def test_a_model_that_gives_one_answer_to_inputs_as_they_are() -> None:
    def deaf() -> toys.NumpyModel:
        class Deaf(toys.NumpyModel):
            def _outputs(self, x):
                return super()._outputs(np.where(x < 1.5, 0, x))

        return Deaf(expecting(BYTES).weights, SHAPE, name="deaf")

    observation = observe(deaf(), suite())
    assert (observation.preprocessing, observation.inferred) == (BYTES, ("preprocessing",))
    assert "which all get the same answer as they are" in observation.notes[0]
    with refused(SameAnswerError, "deaf: ", code="bad-answer"):
        observe(deaf(), suite(), QuerySettings(infer=False))


def test_what_is_tried() -> None:
    spec = InputSpec((8,))
    assert list(candidates(spec, (8,), (0, 1), None)) == ["0..255", "-1..1"]
    assert list(candidates(spec, (8,), (0, 255), None)) == ["-1..1", "0..1"]
    assert list(candidates(spec, (8,), (-1, 1), None)) == ["0..255", "0..1"]
    assert list(candidates(spec, (3, 8, 8), (0, 1), None)) == ["0..255", "-1..1", "ImageNet's mean and deviation"]
    assert list(candidates(InputSpec((8,), "uint8"), (8,), (0, 1), None)) == ["0..255"]


def test_controls_are_treated_alike_and_all_is_reported() -> None:
    expected = {44: UNIT, 47: BYTES, 51: UNIT, 55: BYTES}
    controls = [observe(expecting(p, seed), suite()) for seed, p in expected.items()]
    same = observe(expecting(UNIT, noise=0.05), suite()), observe(expecting(BYTES, noise=0.05), suite())
    calibration = calibrate(suite(), same, registry=toys.registry())
    assert len(calibration.controls) == len(calibration.notes) == 1
    calibration = calibrate(suite(), controls, registry=toys.registry())
    suspects = [expecting(BYTES, noise=0.02), expecting(BYTES, noise=0.02)]
    report = toys.outcome(suite(), calibration, suspects, JudgeSettings(rule="nearest"), registry=toys.registry())
    values = json.loads(dump_report(report))
    jsonschema.validate(values, schema())
    for suspect in values["suspects"]:
        assert suspect["preprocessing"] == {"scale": 255, "mean": [0], "std": [1]}
        assert suspect["inferred"] == ["preprocessing"]
        assert suspect["decision"] == "copy"
    assert all("preprocessing" in control for control in values["calibration"]["controls"])

"""What is done to inputs before a model sees them: as given, or as found from its answers to the seeds."""

import functools
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import toys
from refusals import expect_facts, refused

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
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.preprocessing import PRESETS, PreprocessingHeader, preset_of
from deepjudge_core.observing.expectation import candidates
from deepjudge_core.report.audit_json import dump_report, schema
from deepjudge_core.suites.moments import Moments
from deepjudge_core.suites.observation import Trial

UNIT, BYTES, SYMMETRIC, IMAGENET, CAFFE = (
    PRESETS[name].preprocessing for name in ("0..1", "0..255", "-1..1", "imagenet", "caffe")
)
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
    if preprocessing.invert:  # of 1 - u in place of u
        bias, matrix = bias + matrix.sum(axis=0), -matrix
    weights, bias = matrix * std[:, None] / preprocessing.scale, bias + (mean / preprocessing.scale) @ matrix
    if preprocessing.order == "bgr":
        weights = weights.reshape(*SHAPE, -1)[::-1].reshape(weights.shape)
    first = (weights, bias)
    places = np.argsort(order)
    return toys.NumpyModel([first, *hidden, (last[:, places], end[places])], SHAPE, name=str(preprocessing))


OTHERS = [
    Preprocessing(255, (127.5,), (127.5,)),
    Preprocessing(3, (1, 2, 3), (4,)),
    Preprocessing(2, (1, 0.5, 0), order="bgr", invert=True),
]
ALL = [*(preset.preprocessing for preset in PRESETS.values()), *OTHERS]


# As given.


@pytest.mark.parametrize("preprocessing", ALL, ids=str)
def test_it_is_read_as_it_is_written(preprocessing: Preprocessing) -> None:
    assert Preprocessing.parse(preprocessing.header().typed()) == preprocessing
    if max(map(len, map(str, preprocessing.mean))) < 7:
        assert Preprocessing.parse(str(preprocessing)) == preprocessing
    assert (
        Preprocessing.of_header(parse(PreprocessingHeader, json.loads(json.dumps(plain(preprocessing.header())))))
        == preprocessing
    )


def test_what_is_left_out() -> None:
    assert Preprocessing.parse("mean=0.5") == Preprocessing(1, (0.5,), (1,))
    assert Preprocessing.parse("std=1:2:3,scale=255") == Preprocessing(255, (0,), (1, 2, 3))
    assert str(Preprocessing()) == "scale=1"
    assert plain(BYTES.header()) == {"scale": 255, "mean": (0,), "std": (1,)}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_read_by_its_name(name: str) -> None:
    preprocessing = PRESETS[name].preprocessing
    assert Preprocessing.parse(name) == preprocessing
    assert preset_of(preprocessing) == name
    assert Preprocessing.parse(f"{name},invert=true") == replace(preprocessing, invert=True)


def test_a_preset_is_changed() -> None:
    assert Preprocessing.parse("imagenet,order=bgr") == replace(IMAGENET, order="bgr")
    assert Preprocessing.parse("caffe,order=rgb") == replace(CAFFE, order="rgb")
    assert Preprocessing.parse("invert=false,order=rgb") == UNIT


@pytest.mark.parametrize(
    "text",
    [
        *("", "255", "scale", "scale=", "scale=x", "scale=1:2", "size=3", "scale=1,scale=2", "mean=1:", "scale=0"),
        *("std=0", "std=1:0", "mean=nan", "scale=inf", "mean=1:2,std=1:2:3"),
        *("imagenet,imagenet", "scale=1,imagenet", "order=gbr", "order=bgr,mean=1:2", "invert=yes", "invert", "vgg"),
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
        (Preprocessing(2, (1, 2, 3), (4,), invert=True), ((1 - u) * 2 - np.reshape([1, 2, 3], (3, 1, 1))) / 4),
        (CAFFE, (u * 255 - np.reshape([123.68, 116.779, 103.939], (3, 1, 1)))[:, ::-1]),
    ]:
        prepared = preprocessing.preparing("m", SHAPE, (low, high), None)(x)
        assert prepared.dtype == np.float32
        np.testing.assert_allclose(prepared, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preprocessing", ALL, ids=str)
def test_the_gradient_goes_back_through_it(preprocessing: Preprocessing) -> None:
    # It is linear but for a shift: what goes back is the transposed of what goes forward.
    rng = np.random.default_rng(0)
    preparation = preprocessing.preparing("m", SHAPE, (-1, 3), None)
    x, y, cotangent = (rng.standard_normal((4, *SHAPE)).astype(np.float32) for _ in range(3))
    forward = np.vdot(preparation(x) - preparation(y), cotangent)
    np.testing.assert_allclose(forward, np.vdot(x - y, preparation.back(cotangent)), rtol=1e-3)
    assert preparation(x).flags.c_contiguous


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
    with refused(ModelError, "m: ", "3x4x3", "layout="):
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
    assert observation.notes == (f"its inputs are prepared by {preprocessing}, as requested",)
    save_observation(tmp_path / "o", observation)
    assert load_observation(tmp_path / "o").preprocessing == preprocessing


# As found.


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
@pytest.mark.parametrize(
    ("bounds", "name"),
    [
        ((0, 1), "0..255"),
        ((-1, 1), "0..255"),
        ((0, 255), "-1..1"),
        ((0, 255), "0..1"),
        ((0, 255), "imagenet"),
        ((0, 1), "caffe"),
        ((0, 1), "0..1,invert=true"),
    ],
)
def test_a_standard_one_is_found(bounds: tuple[float, float], name: str, order: tuple[int, ...]) -> None:
    preprocessing = Preprocessing.parse(name)
    model = expecting(preprocessing, order=order)
    observation = observe(model, suite(*bounds))
    assert (observation.preprocessing, observation.classes) == (preprocessing, None if order == (0, 1, 2, 3) else order)
    assert observation.inferred == ("preprocessing", *(("classes",) if observation.classes else ()))
    expect_facts(observation.notes[0], name, preprocessing, f"{len(observation.tried)} preprocessings")
    assert Trial(name, observation.accuracy) in observation.tried
    assert observation.accuracy == pytest.approx(suite(*bounds).accuracy, abs=0.05)
    np.testing.assert_allclose(observation.probabilities, suite(*bounds).victim.probabilities, atol=1e-4)
    np.testing.assert_allclose(
        observation.activations["dense2"], suite(*bounds).victim.activations["dense2"], atol=1e-3
    )


def test_it_can_be_turned_off() -> None:
    observation = observe(expecting(BYTES), suite(), QuerySettings(infer=False))
    assert (observation.preprocessing, observation.inferred, observation.tried) == (None, (), ())
    note, *_ = observation.notes
    assert "near chance; if it expects other inputs" in note


def test_what_is_given_is_not_doubted() -> None:
    observation = observe(expecting(BYTES), suite(), QuerySettings(preprocessing=SYMMETRIC))
    assert (observation.preprocessing, observation.inferred, observation.tried) == (SYMMETRIC, (), ())


class Counting(toys.NumpyModel):
    """Counts the rows that it is run on."""

    rows = 0

    def forward(self, x, layers):
        self.rows += len(x)
        return super().forward(x, layers)


def test_it_is_not_looked_for_where_nothing_could_be_significantly_better() -> None:
    for model in (expecting(UNIT), expecting(UNIT, noise=0.002)):
        counting = Counting(model.weights, SHAPE)
        observation = observe(counting, suite())
        assert (observation.preprocessing, observation.inferred, observation.notes) == (None, (), ())
        assert observation.tried == ()
        # Some rows are run again for what its own output gives and for whether its layer counts, and four of each of
        # two sets three times.
        again = 2 * toys.asked_of_output(suite()) + 3 * 2 * 4
        assert counting.rows == len(suite().cases.inputs) + len(suite().probes.labels) + again


def test_a_model_that_nothing_mends_is_asked_as_it_is() -> None:
    observation = observe(expecting(UNIT, seed=19, knows=False), suite())
    assert (observation.preprocessing, observation.inferred) == (None, ())
    tried = len(observation.tried)
    assert tried > 20
    best = max(trial.accuracy for trial in observation.tried)
    expect_facts(observation.notes[0], f"{tried} preprocessings", f"{best:.1%}", f"{observation.accuracy:.1%}")
    assert "near chance" in observation.notes[1]


def test_what_was_tried_is_kept(tmp_path: Path) -> None:
    observation = observe(expecting(BYTES), suite())
    save_observation(tmp_path / "o", observation)
    loaded = load_observation(tmp_path / "o")
    assert loaded.tried == observation.tried != ()
    assert loaded.accuracy == observation.accuracy


def test_a_suite_without_probes_is_tried_on_its_seeds() -> None:
    older = replace(suite(), probes=None, moments=None)
    observation = observe(expecting(BYTES), older)
    assert (observation.preprocessing, observation.accuracy) == (BYTES, None)
    expect_facts(observation.notes[0], "100.0%", "80 inputs")


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
    assert "all get the same answer if unprepared" in observation.notes[0]
    with refused(SameAnswerError, "deaf: ", code="bad-answer"):
        observe(deaf(), suite(), QuerySettings(infer=False))


def test_what_is_tried() -> None:
    def names(shape: tuple[int, ...], bounds: tuple[float, float], dtype: str = "float32", **more) -> list[str]:
        return list(candidates(InputSpec(shape, dtype), shape, bounds, None, **more))

    plain = {"0..255", "-1..1", "-0.5..0.5"}
    assert set(names((8,), (0, 1))) == plain | {f"{name},invert=true" for name in ("0..1", *plain)}
    flat = {*plain, "mnist", "fashion-mnist"}  # which may be an image
    assert set(names((784,), (0, 1))) == flat | {f"{name},invert=true" for name in ("0..1", *flat)}
    assert "0..1" not in names((8,), (0, 1))
    assert "0..1" in names((8,), (0, 255))
    assert "0..255" not in names((8,), (0, 255))
    assert names((8,), (0, 1), "uint8") == ["0..255", "0..255,invert=true"]
    grey, coloured = names((28, 28, 1), (0, 1)), names((3, 8, 8), (0, 1))
    assert "mnist" in grey
    assert not any("bgr" in name or name == "imagenet" for name in grey)
    assert {"imagenet", "caffe", "imagenet,order=bgr", "0..1,order=bgr", "0..255,invert=true"} < set(coloured)
    assert not any("mnist" in name for name in coloured)
    # No two names for one preprocessing.
    values = candidates(InputSpec((3, 8, 8)), (3, 8, 8), (0, 1), None).values()
    assert len(set(values)) == len(values) == len(coloured)
    data = candidates(InputSpec((2,)), (2,), (0, 1), None, Moments((0.2, 0.4), (0.1, 0.3)))
    assert data["mean and std of each channel"] == Preprocessing(1, (0.2, 0.4), (0.1, 0.3))
    assert data["mean and std of the training inputs"].mean == (0.3,)


def test_controls_are_treated_alike_and_all_is_reported() -> None:
    expected = {44: UNIT, 47: BYTES, 51: UNIT, 55: BYTES}
    controls = [observe(expecting(p, seed), suite()) for seed, p in expected.items()]
    same = observe(expecting(UNIT, noise=0.05), suite()), observe(expecting(BYTES, noise=0.05), suite())
    calibration = calibrate(suite(), same, registry=toys.registry())
    assert len(calibration.controls) == 1
    # That it was given twice, and that it is like the victim.
    assert (len(calibration.notes), calibration.doubtful) == (2, (0,))
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

"""Neurons in another order and on another scale: a copy stays a copy, and nothing else becomes one."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from refusals import refused

from deepjudge_core import (
    Decision,
    build_suite,
    calibrate,
    judge,
    load_calibration,
    measure,
    observe,
    save_calibration,
    select_seeds,
)
from deepjudge_core.errors import CalibrationError, FileFormatError
from deepjudge_core.judging import neurons
from deepjudge_core.judging.neurons import Match, Matching, match_neurons, match_observation, matchings
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.report.audit_json import report_to_json
from deepjudge_core.testing import NumpyModel
from deepjudge_core.testing.numpy_model import Activation
from deepjudge_core.types import Array

MATCHES: tuple[Match, ...] = get_args(Match)


def disguised(model: NumpyModel, seed: int = 0) -> NumpyModel:
    """The same function: hidden neurons permuted; those of a ReLU rescaled, those of tanh negated."""
    rng = np.random.default_rng(seed)
    weights = [(matrix.copy(), bias.copy()) for matrix, bias in model.weights]
    for i in range(len(weights) - 1):
        (matrix, bias), (following, others) = weights[i : i + 2]
        order = rng.permutation(len(bias))
        scale = rng.uniform(0.2, 5, len(bias)) if model.activation == "relu" else rng.choice([-1, 1], len(bias))
        weights[i] = (matrix[:, order] * scale, bias[order] * scale)
        weights[i + 1] = (following[order] / scale[:, None], others)
    return NumpyModel(weights, toys.SHAPE, activation=model.activation, name="disguised")


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_disguised_copy_is_no_copy_by_place_and_one_when_matched(activation: Activation) -> None:
    victim = toys.make_model()
    victim.activation = activation
    seeds = select_seeds(victim, *toys.make_inputs(victim), n=20)
    suite = build_suite(victim, seeds, ["poke"], registry=toys.registry())
    observation = observe(disguised(victim), suite)
    np.testing.assert_allclose(observation.probabilities, suite.victim.probabilities, atol=1e-5)
    values = {
        match: measure(suite, observation, match=match, registry=toys.registry())["outputs"].value for match in MATCHES
    }
    assert values["none"] is not None
    assert values["none"] > 0.1
    assert values["neurons"] == pytest.approx(0, abs=1e-5)


# Outputs of ReLUs, and of functions of both signs.
@pytest.mark.parametrize("least", [0, -8])
@given(data=st.data())
def test_the_assignment_is_the_best_of_all(data: st.DataObject, least: int) -> None:
    elements = st.floats(least, 8, width=16)
    outputs, others = (data.draw(arrays.arrays(np.float32, (9, 4), elements=elements)) for _ in range(2))
    matching = match_neurons(outputs, others)
    assert sorted(matching.order) == [0, 1, 2, 3]

    def likeness(a: np.ndarray, b: np.ndarray) -> float:
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            return 0.0
        correlation = float(np.corrcoef(a.astype(np.float64), b.astype(np.float64))[0, 1])
        return abs(correlation) if outputs.min() < 0 and others.min() < 0 else correlation

    def total(order: tuple[int, ...]) -> float:
        return sum(likeness(outputs[:, i], others[:, j]) for i, j in enumerate(order))

    assert total(tuple(matching.order)) == pytest.approx(max(map(total, itertools.permutations(range(4)))), abs=1e-5)
    # The root mean square is the victim's, but of a neuron that is silent in one of them.
    own, other = (np.sqrt(np.mean(a.astype(np.float64) ** 2, axis=0)) for a in (outputs, matching.apply(others)))
    alive = (own > 0) & (other > 0)
    np.testing.assert_allclose(other[alive], own[alive], rtol=1e-4)
    assert least < 0 or (matching.scale > 0).all()


@given(seed=st.integers(0, 2**16), rows=st.integers(4, 40))
def test_order_scale_and_sign_are_found_again(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    outputs = rng.exponential(size=(rows, 6))
    signs = np.ones(6)
    if rows % 2:  # no ReLU: neurons of both signs, and some of one
        outputs[:, :3] -= np.median(outputs[:, :3], axis=0)
        signs = np.where(np.arange(6) < 5, rng.choice([-1, 1], 6), -1)
    changed = (outputs * signs)[:, rng.permutation(6)] * rng.uniform(0.1, 10, 6)
    np.testing.assert_allclose(match_neurons(outputs, changed).apply(changed), outputs, rtol=1e-4, atol=1e-6)
    same = match_neurons(outputs, outputs)
    assert same.moved == 0
    np.testing.assert_allclose(same.scale, 1)


def test_silent_neurons_are_left_as_they_are() -> None:
    outputs = np.array([[0, 1.0], [0, 2], [0, 4]])
    matching = match_neurons(outputs, outputs[:, ::-1] * 2)
    assert (matching.order.tolist(), matching.scale.tolist(), matching.moved) == ([1, 0], [1, 0.5], 2)


def test_the_logits_are_not_matched() -> None:
    victim = toys.make_model()
    seeds = select_seeds(victim, *toys.make_inputs(victim), n=20)
    suite = build_suite(victim, seeds, ["poke"], layers=["dense2", "logits"], registry=toys.registry())
    observation = observe(disguised(toys.make_model(9)), suite)
    beside = match_observation(suite, observation, "neurons")
    assert not np.array_equal(beside.activations["dense2"], observation.activations["dense2"])
    assert beside.activations["logits"] is observation.activations["logits"]
    assert match_observation(suite, observation, "none") is observation


def test_neurons_are_matched_once_to_measure_and_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    suite, matched = toys.suite(), list[int]()
    observation = observe(toys.make_model(9), suite)

    def count(ours: Array, theirs: Array) -> Matching:
        matched.append(ours.shape[1])
        return match_neurons(ours, theirs)

    monkeypatch.setattr(neurons, "match_neurons", count)
    match_observation(suite, observation, "neurons")
    once = list(matched)
    assert (matchings(suite, observation), matched) == (matchings(suite, observation), once)
    matchings(replace(suite), observation)  # of another suite nothing is known
    assert len(matched) == 2 * len(once) > 0


def test_few_answers_of_many_neurons_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = toys.suite()
    assert match_observation(suite, observe(toys.make_model(9), suite), "neurons").activations
    observation = observe(toys.make_model(9), suite)
    monkeypatch.setattr(neurons, "MOST_MATCHED", 2)
    monkeypatch.setattr(neurons, "match_neurons", None)
    beside = match_observation(suite, observation, "neurons")
    assert (dict(beside.activations), matchings(suite, observation)) == ({}, {})
    assert beside.unmatched is not None
    measured = measure(suite, observation, ["outputs"], registry=toys.registry())["outputs"]
    assert (measured.value, measured.reason) == (None, beside.unmatched)
    assert match_observation(suite, observation, "none").activations


def test_controls_and_suspects_are_matched_alike(tmp_path: Path) -> None:
    suite = toys.suite()
    controls = [toys.seen(seed) for seed in range(1, 9)]
    published = calibrate(suite, controls, match="none", registry=toys.registry())
    nulls = calibrate(suite, controls, match="neurons", registry=toys.registry())
    assert (published.match, nulls.match) == ("none", "neurons")
    assert nulls.values("outputs").mean() < published.values("outputs").mean()
    np.testing.assert_array_equal(nulls.values("answers"), published.values("answers"))

    save_calibration(tmp_path / "c.safetensors", nulls)
    loaded = load_calibration(tmp_path / "c.safetensors", suite, registry=toys.registry())
    assert loaded.match == "neurons"
    np.testing.assert_array_equal(loaded.values("outputs"), nulls.values("outputs"))

    suspects = [disguised(toys.make_model()), toys.make_model(9)]
    decisions = {}
    for calibration in (published, nulls):
        report = toys.outcome(suite, calibration, suspects, JudgeSettings(rule="nearest"), registry=toys.registry())
        decisions[calibration.match] = [s.verdict.settings["white-box"].decision for s in report.suspects if s.verdict]
        report_values = json.loads(json.dumps(report_to_json(report)))
        assert report_values["calibration"]["match"] == calibration.match
        first = report_values["suspects"][0]
        assert first["layer_map"] == {"dense2": "dense2"}
        # The disguise changes scales, which CKA sees; another network is less alike all the same.
        assert 1 > first["layer_cka"]["dense2"] > report_values["suspects"][1]["layer_cka"]["dense2"] > 0
        assert first["neurons_moved"] == ({"dense2": 8} if calibration is nulls else {})
    assert decisions == {
        "none": [Decision.INDEPENDENT, Decision.INDEPENDENT],
        "neurons": [Decision.COPY, Decision.INDEPENDENT],
    }


def test_what_was_matched_otherwise_is_not_judged() -> None:
    suite = toys.suite()
    nulls = calibrate(suite, [toys.seen(s) for s in (1, 2, 3)], match="neurons", registry=toys.registry())
    values = measure(suite, toys.seen(9), match="none", registry=toys.registry())
    with refused(CalibrationError, "answers", "'neurons'", "'none'"):
        judge(values, nulls, JudgeSettings(rule="nearest"), registry=toys.registry())


def test_an_unknown_way_in_a_file(tmp_path: Path) -> None:
    suite = toys.suite()
    nulls = calibrate(suite, [toys.seen(1)], match="sorted", registry=toys.registry())  # type: ignore[arg-type]
    save_calibration(tmp_path / "c.safetensors", nulls)
    with refused(FileFormatError, "c.safetensors: ", "match: ", '"none"', '"sorted"', code="damaged-file"):
        load_calibration(tmp_path / "c.safetensors", suite)

"""What any scheme must keep, and what is particular to this one."""

from dataclasses import replace

import numpy as np
import pytest
from deepjudge_midway import deepjudge_schemes, make, verify

from deepjudge_core.plugin import InputError, KeyAnswers, KeyTask
from deepjudge_core.testing import Check, NumpyModel, parametrize_with_checks, scheme_checks

VICTIM = NumpyModel.random((8,), (24,), 4, 0)
INPUTS = np.random.default_rng(1).uniform(-1, 1, (400, 8)).astype(np.float32)
TASK = KeyTask(VICTIM, INPUTS, None, (-1.0, 1.0), bytes(32))


def found(model: NumpyModel, depth: float) -> int:
    key = make(TASK, depth=depth)
    (reading,) = verify(key, KeyAnswers(model.predict(key.inputs)))
    return reading.found


@parametrize_with_checks((scheme.name, scheme_checks(scheme)) for scheme in deepjudge_schemes())
def test_contract_of_schemes(check: Check) -> None:
    check()


def test_the_victim_matches_all_points_and_they_are_within_the_bounds() -> None:
    key = make(TASK)
    assert found(VICTIM, 0.1) == key.trials == 100
    assert key.inputs.min() >= -1
    assert key.inputs.max() <= 1


def test_a_copy_matches_more_points_than_another_model() -> None:
    assert found(VICTIM.perturbed(0.02, 1), 0.3) > found(NumpyModel.random((8,), (24,), 4, 9), 0.3) + 20


def test_fewer_copies_match_points_that_are_nearer_to_the_boundary() -> None:
    copy = VICTIM.perturbed(0.1, 1)
    assert found(copy, 0.01) < found(copy, 0.5)


def test_inputs_of_one_class_are_refused() -> None:
    with pytest.raises(InputError):
        make(replace(TASK, inputs=INPUTS[:1]))

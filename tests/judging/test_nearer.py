"""Copies of a control: no copies of the victim, however near they are to it."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import toys
from refusals import expect_facts
from scipy.spatial.distance import jensenshannon

from deepjudge_core import Access, Decision, JudgeSettings, Observation, calibrate
from deepjudge_core.judging.nearer import nearer_model
from deepjudge_core.report.audit_json import report_to_json

# By which every suspect is called a copy.
ALL_COPIES = JudgeSettings(rule="nearest", rule_options={"share": 1000})


def by_hand(suspect: Observation, controls: list[Observation]) -> str | None:
    """The control that is less than half as far as the victim, and as any other is from that."""

    def distance(one: Any, other: Any) -> float:
        pairs = zip(one.probabilities, other.probabilities, strict=True)
        return float(np.mean([jensenshannon(p.astype(float), q.astype(float)) ** 2 for p, q in pairs]))

    nearest = min(controls, key=lambda control: distance(suspect, control))
    others = [distance(nearest, other) for other in controls if other is not nearest]
    limit = min(distance(suspect, toys.suite().victim), *others) / 2
    return nearest.model.name if distance(suspect, nearest) < limit else None


@pytest.mark.parametrize("of", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize("noise", [0.01, 0.03, 0.05, 0.1, 0.3])
def test_which_control_is_nearer(of: int, noise: float) -> None:
    calibration, suspect = toys.calibration(), toys.seen(of, noise)
    expected = by_hand(suspect, list(calibration.controls))
    assert nearer_model(toys.suite(), suspect, calibration) == expected
    assert expected in (None, f"toy-{of}")
    if noise == 0.01:
        assert expected == (f"toy-{of}" if 1 <= of <= 4 else None)


def test_of_labels_alone_by_the_labels() -> None:
    labels = [toys.seen(seed, access=Access.LABELS) for seed in (1, 2, 3, 4)]
    for seed in (0, 1, 2, 3, 4, 9):
        suspect = toys.seen(seed, 0.01, Access.LABELS)
        assert suspect.probabilities is not None
        given = suspect.probabilities.argmax(axis=1)

        def differ(other: Any, given: Any = given) -> float:
            return float(np.mean(other.probabilities.argmax(axis=1) != given))

        nearest = min(labels, key=differ)
        theirs = nearest.probabilities.argmax(axis=1)  # type: ignore[union-attr]
        limit = min(differ(toys.suite().victim), *(differ(one, theirs) for one in labels if one is not nearest)) / 2
        expected = nearest.model.name if differ(nearest) < limit else None
        found = nearer_model(toys.suite(), suspect, dataclasses.replace(toys.calibration(), controls=tuple(labels)))
        assert found == expected
        assert (expected is not None) == (1 <= seed <= 4)


def test_one_control_is_no_other_model() -> None:
    assert nearer_model(toys.suite(), toys.seen(1, 0.01), toys.calibration(1)) is None
    assert nearer_model(toys.suite(), toys.seen(1, 0.01), toys.calibration(2)) == "toy-1"


@pytest.mark.parametrize("access", [Access.FULL, Access.BLACK_BOX, Access.LABELS], ids=["layers", "answers", "labels"])
@pytest.mark.parametrize("groups", ["separate", "joint"])
def test_a_copy_of_a_control_is_no_copy_of_the_victim(access: Access, groups: Any) -> None:
    suspects = [toys.seen(0, 0.02, access), toys.seen(2, 0.02, access), toys.seen(9, access=access)]
    by = dataclasses.replace(ALL_COPIES, groups=groups, metrics=["answers"])
    # Of labels and answers alone no architecture is known: the controls are of several.
    controls, strata = toys.calibration().controls, ("other-architecture",) * 4
    calibration = calibrate(toys.suite(), controls, strata=strata, registry=toys.registry())
    # They are said to be farther than they are, for all suspects to be nearer by their labels.
    farther = tuple(
        {"answers": dataclasses.replace(m["answers"], value=1.5 + place / 10)}
        for place, m in enumerate(calibration.measurements)
    )
    calibration = dataclasses.replace(calibration, measurements=farther)
    outcome = toys.outcome(toys.suite(), calibration, suspects, by, registry=toys.registry())
    copy, of_a_control, honest = outcome.suspects
    # The rule calls all of them copies; of one there is a nearer explanation.
    assert [one.decision for one in (copy, honest)] == [Decision.COPY] * 2
    assert of_a_control.verdict
    assert (of_a_control.decision, of_a_control.verdict.points_to) == (Decision.INCONCLUSIVE, None)
    expect_facts(str(of_a_control.verdict.reason), "toy-2", "control")
    written = report_to_json(outcome)["suspects"][1]
    assert (written["decision"], written["reason"]) == ("inconclusive", of_a_control.verdict.reason)


def test_who_is_no_copy_needs_no_explanation() -> None:
    [one] = toys.outcome(
        toys.suite(),
        toys.calibration(),
        [toys.seen(2, 0.02)],
        JudgeSettings(rule="nearest", metrics=["answers"]),
        registry=toys.registry(),
    ).suspects
    assert one.verdict
    assert (one.decision, one.verdict.reason) == (Decision.INDEPENDENT, None)

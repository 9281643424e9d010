"""Keys beside what else may be asked for: one vote over all metrics, a false discovery rate, and cases one by one."""

from pathlib import Path

import marked
import pytest

import deepjudge_core as dj
from deepjudge_core.components.schemes import Matches
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.marks import _log10_prediction


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> dj.Suite:
    return marked.suite_with(tmp_path_factory.mktemp("keys"), marked.key())


COPY = marked.model(7, marked.key(), name="copy")
HONEST = marked.model(8, name="honest")
NAMED = {"metrics": ["robd", "jsd"]}


def test_keys_have_no_part_in_a_joint_vote(suite: dj.Suite) -> None:
    found = marked.audited(suite, [COPY, HONEST], range(20, 26), groups="joint", **NAMED)
    copy, honest = (result.verdict for result in found.suspects)
    assert copy.settings["marks"].decision is Decision.COPY
    assert copy.settings["joint"].decision is not Decision.COPY
    assert copy.decision is Decision.COPY
    assert honest.settings["joint"].p_copy == 0
    assert honest.settings["marks"].decision is None


def test_a_false_discovery_rate_counts_their_p(suite: dj.Suite) -> None:
    found = marked.audited(suite, [COPY, HONEST], range(20, 26), rule="prediction-bound", fdr=0.05, **NAMED)
    copy, honest = found.suspects
    assert (copy.decision, honest.decision) == (Decision.COPY, Decision.INDEPENDENT)
    assert copy.verdict.points_to == "key"
    settings = [one for one in copy.verdict.settings.values() if one.p_value is not None]
    assert copy.tested.p_value == pytest.approx(len(settings) * copy.verdict.settings["marks"].p_value)
    assert honest.tested.p_value > 0.05


def test_one_by_one_leaves_them_unasked(suite: dj.Suite) -> None:
    found = marked.audited(suite, [COPY], range(20, 26), rule="prediction-bound", sequential=True)
    [result] = found.suspects
    assert result.verdict is not None
    marks = result.verdict.settings["marks"]
    assert (marks.decision, bool(marks.reason)) == (None, True)
    assert result.decision is not Decision.COPY
    assert "adi" not in result.metrics


def test_no_spread_of_controls_is_known_below_one_in_a_million() -> None:
    controls = [Matches("direct", found, 100, None, "why") for found in (2, 3, 2, 3) * 10]
    assert _log10_prediction(0.0, controls) == -6
    assert _log10_prediction(39.0, controls) > -2


def test_controls_that_do_not_know_the_task_accuse_nobody_by_a_key(tmp_path: Path) -> None:
    suite = marked.suite_with(tmp_path, marked.key("echo"))
    judge = dj.Judge.of(dj.JudgeSettings(**NAMED), marked.registry(), Offer.of(suite))
    copy = dj.observe(marked.opened(marked.model(0, marked.key("echo"))), suite)
    for like, accused in ((0.5, True), (5.0, None)):  # of the latter none knows more than every second seed
        seeds = (20, 22, 24, 25, 28, 29, 32, 34)
        controls = [dj.observe(marked.opened(marked.model(seed, like=like)), suite) for seed in seeds]
        calibration = judge.calibrate(suite, controls, far=True)
        verdict = judge.judge(judge.measure(suite, copy, calibration.match), calibration)
        assert verdict.metrics["echo"].vote.vote is accused
        assert verdict.metrics["echo"].vote.p_value <= 0.01

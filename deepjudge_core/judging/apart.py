"""What the cases that nobody could choose say by themselves, and what is left of a verdict that they do not uphold."""

from dataclasses import replace

from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import Calibration, calibrate_by
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.verdict import SAID, Verdict
from deepjudge_core.suites.drawing import drawn_rows, drawn_suite, of_rows
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite

_BY_CASES = ("black-box", "white-box", "joint")


class DrawnJudge:
    """Judges suspects by the drawn cases of a suite alone: as all are judged by all cases, with the same controls.

    Raises:
        DeepJudgeError: When the controls cannot be measured on the drawn cases.
    """

    def __init__(self, suite: Suite, calibration: Calibration, judge: Judge) -> None:
        self._rows, self._suite = drawn_rows(suite), drawn_suite(suite)
        metrics = tuple(metric for metric in judge.metrics if not metric.of_weights and metric.on != "keys")
        self._judge = replace(judge, metrics=metrics)
        self._calibration = calibrate_by(
            metrics,
            self._suite,
            [self._drawn(control) for control in calibration.controls],
            match=calibration.match,
            strata=calibration.strata,
            far=True,
        )

    def judge(self, observation: Observation) -> Verdict:
        """The verdict on what a suspect answered.

        Raises:
            DeepJudgeError: When it cannot be measured.
        """
        measurements = self._judge.measure(self._suite, self._drawn(observation), self._calibration.match)
        return self._judge.judge(measurements, self._calibration)

    def _drawn(self, observation: Observation) -> Observation:
        return of_rows(observation, self._rows, self._suite.digest)


def upheld(verdict: Verdict, apart: Verdict) -> Verdict:
    """A verdict on all cases after those that nobody could choose were heard.

    A copy by cases is one only if the drawn cases say so, too, and so is an independent model. What weights, keys or
    the files themselves show does not depend on cases.

    Args:
        verdict: The verdict by all cases.
        apart: That by the drawn ones alone.
    """
    by_cases = {name for name, setting in verdict.settings.items() if setting.decision is Decision.COPY}
    if verdict.decision is Decision.COPY and (verdict.reason or by_cases - set(_BY_CASES)):
        return verdict
    contrary = apart.decision is Decision.COPY
    if verdict.decision is Decision.INCONCLUSIVE or (verdict.decision is Decision.COPY) == contrary:
        return verdict
    why = f": {apart.reason}" if apart.reason else ""
    reason = (
        f"{SAID[verdict.decision]} by all cases, but {SAID[apart.decision]} by the drawn ones alone, which nobody "
        f"could choose{why}"
    )
    return replace(verdict, decision=Decision.INCONCLUSIVE, points_to=None, reason=reason)

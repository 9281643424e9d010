"""What comes of an audit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deepjudge_core.auditing.subject import Subject
from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.fdr import FdrResult, Fleet
from deepjudge_core.judging.judge import GroupMode, Verdict
from deepjudge_core.judging.measure import Measurements
from deepjudge_core.judging.sequential import SequentialResult
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite


@dataclass(frozen=True)
class SuspectResult:
    """What came of one suspect.

    Attributes:
        path: What the user called it.
        model: What it is; None where it could not be opened.
        accuracy: Share of the seeds that it classifies correctly (the victim: all); None where its classes are others.
        seen: How it answered; None where it could not be asked.
        measurements: Its values; None where it failed.
        verdict: None where it failed.
        failure: Why it failed: one line.
        errors: What failed beside it: one line for each metric.
        tested: What was found of it among all suspects, by a false discovery rate; None where it was not tested so.
        questioning: What it was asked case by case; None where it was not, or nothing was asked.
    """

    path: str
    model: ModelInfo | None = None
    accuracy: float | None = None
    seen: Observation | None = None
    measurements: Measurements | None = None
    verdict: Verdict | None = None
    failure: str | None = None
    errors: tuple[str, ...] = ()
    tested: FdrResult | None = None
    questioning: SequentialResult | None = None

    @property
    def decision(self) -> Decision:
        """Copy, independent, inconclusive, or failed."""
        return self.verdict.decision if self.verdict else Decision.FAILED


@dataclass(frozen=True, eq=False)
class QueryEvent:
    """That a control or a suspect was asked.

    Attributes:
        role: Which of the two.
        subject: Who was asked.
        seen: What it answered; None where it could not be asked.
        failure: Why not.
    """

    role: Literal["control", "suspect"]
    subject: Subject
    seen: Observation | None
    failure: str | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """The outcome of an audit.

    Attributes:
        suite: The suite.
        calibration: The controls.
        rule: Name of the rule.
        rule_options: All of its options, but for its level where a false discovery rate makes that.
        groups: "joint" where one vote was taken over all metrics.
        suspects: What came of each, in the order given.
        doubts: What speaks against a control: a line for each.
        metrics: What was measured, in the order of the columns.
        fdr: The false discovery rate over all suspects; None where each was judged by itself.
    """

    suite: Suite
    calibration: Calibration
    rule: str
    rule_options: Mapping[str, Any]
    groups: GroupMode
    suspects: tuple[SuspectResult, ...]
    doubts: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    fdr: float | None = None

    @property
    def fleet(self) -> Fleet | None:
        """All suspects together, where they were judged by a false discovery rate."""
        return None if self.fdr is None else Fleet(self.fdr, tuple(result.tested for result in self.suspects))

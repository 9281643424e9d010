"""What comes of an audit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deepjudge_core.auditing.folders import Skipped
from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.strata import limits
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.fdr import FdrResult, Fleet
from deepjudge_core.judging.judge import GroupMode, Judge, MetricResult, PointsTo, Verdict
from deepjudge_core.judging.measure import Measurements
from deepjudge_core.judging.sequential import SequentialResult
from deepjudge_core.judging.verdict import in_words
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.sheets import Sheet, Shown, page_of, remark
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite

CLAIMED = (
    "not asked: the answers were read from a stored observation; they, and the digest, format and isolation, are "
    "claims of the person who stored them"
)
"""What is said of a suspect whose answers were stored."""


@dataclass(frozen=True)
class SuspectResult:
    """What came of one suspect.

    Attributes:
        path: What the user called it.
        model: What it is; None where it could not be opened.
        accuracy: Share of the seeds that it classifies correctly (the victim: all); None where its classes are others.
        observation: How it answered, without the arrays if these can be read again; None where it could not be asked.
        measurements: Its values; None where it failed.
        verdict: None where it failed.
        failure: Why it failed: one line.
        errors: What failed beside it: one line for each metric.
        tested: What was found of it among all suspects, by a false discovery rate; None where it was not tested so.
        sequential: What it was asked case by case; None where it was not, or nothing was asked.
        drawn: The verdict by the cases alone that a challenge drew; None where there are none, or it failed.
        published: Since when the model has been public, as somebody says; None where nobody does.
        stored: Whether it was not asked, and its answers, digest and isolation are what somebody stored.
        again: What reads its answers again; None where they are here.
    """

    path: str
    model: ModelInfo | None = None
    accuracy: float | None = None
    observation: Observation | None = None
    measurements: Measurements | None = None
    verdict: Verdict | None = None
    failure: str | None = None
    errors: tuple[str, ...] = ()
    tested: FdrResult | None = None
    sequential: SequentialResult | None = None
    drawn: Verdict | None = None
    published: str | None = None
    stored: bool = False
    again: Callable[[], Observation] | None = field(default=None, compare=False, repr=False)

    def answers(self) -> Observation | None:
        """How it answered, with all arrays; None where it could not be asked.

        Raises:
            FileFormatError: When they cannot be read again.
        """
        return self.again() if self.again else self.observation

    @property
    def decision(self) -> Decision:
        """Copy, independent, inconclusive, or failed."""
        return self.verdict.decision if self.verdict else Decision.FAILED

    @property
    def points_to(self) -> PointsTo | None:
        """What a copy points to; None for no copy."""
        return self.verdict.points_to if self.verdict else None

    @property
    def metrics(self) -> Mapping[str, MetricResult]:
        """Metric name to its result; none where it failed."""
        return self.verdict.metrics if self.verdict else {}


@dataclass(frozen=True, eq=False, repr=False)
class AuditOutcome(Shown):
    """The outcome of an audit.

    Attributes:
        suite: The suite.
        calibration: The controls.
        judge: By what was judged.
        suspects: What came of each, in the order given.
        doubts: What speaks against a control: a line for each.
        skipped: Files in the folders of the suspects that were not taken as models.
    """

    suite: Suite
    calibration: Calibration
    judge: Judge
    suspects: tuple[SuspectResult, ...]
    doubts: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def sheet(self) -> Sheet:
        """See :class:`~deepjudge_core.sheets.Shown`."""
        names = [metric.name for metric in self.metrics]
        rows = []
        for result in self.suspects:
            values = [result.metrics[name].shown if name in result.metrics else None for name in names]
            points_to = result.verdict.points_to if result.verdict else None
            rows.append((result.path, in_words(result.decision, points_to), *values))
        facts = {
            "victim": self.suite.victim.model.name,
            "controls": str(len(self.calibration.controls)),
            "count as": str(self.calibration.fewer or ""),
            "rule": self.rule,
            "remark": [
                remark(one.path, one.failure or (one.verdict.reason if one.verdict else None)) for one in self.suspects
            ],
            "doubt": self.doubts,
        }
        return Sheet(f"audit of {len(self.suspects)} suspects", facts, ("suspect", "verdict", *names), rows)

    def to_html(self) -> str:
        """The report, as ``deepjudge audit`` writes it."""
        return page_of(self)

    @property
    def rule(self) -> str:
        """Name of the rule."""
        return self.judge.rule.name

    @property
    def rule_options(self) -> Mapping[str, Any]:
        """All options of the rule, but for its level where a false discovery rate makes that."""
        return self.judge.fixed_options

    @property
    def groups(self) -> GroupMode:
        """Whether one vote was taken over all metrics: "joint"."""
        return self.judge.settings.groups

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What was measured, in the order of the columns; nothing where suspects were asked case by case."""
        return () if self.judge.settings.sequential else self.judge.metrics

    @property
    def limits(self) -> tuple[str, ...]:
        """What cannot be concluded from these controls, and of weights if the victim's ancestor is not known."""
        weights = self.suite.ancestor is None and any(metric.of_weights for metric in self.metrics)
        return limits(self.calibration.kinds, weights=weights)

    @property
    def fdr(self) -> float | None:
        """The false discovery rate over all suspects; None where each was judged by itself."""
        return self.judge.settings.fdr

    @property
    def fleet(self) -> Fleet | None:
        """All suspects together, where they were judged by a false discovery rate."""
        return None if self.fdr is None else Fleet(self.fdr, tuple(result.tested for result in self.suspects))

"""Judge a model by a rule, from its measurements and the controls'; pure numpy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deepjudge_core import options as component_options
from deepjudge_core.calibration import LEAST_CONTROLS, Calibration
from deepjudge_core.components import Decision, Evidence, Group, Judgement, Rule, Vote
from deepjudge_core.errors import DeepJudgeError, PluginError, UsageError
from deepjudge_core.measure import Measurement, Measurements
from deepjudge_core.plugins import Registry, load_registry

Grouping = Literal["separate", "joint"]
PointsTo = Literal["weights", "behaviour", "weights-changed-behaviour"]
GROUPS: tuple[Group, ...] = ("black-box", "white-box")


@dataclass(frozen=True)
class Setting:
    """What was found in one of the two settings.

    Attributes:
        decision: None where nothing of the setting was asked for or the access did not allow it.
        p_copy: The rule's confidence, 0..1.
        reason: Why there is no decision, or none but inconclusive.
    """

    decision: Decision | None
    p_copy: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class MetricResult:
    """One metric of the suspect: its value and what the rule made of it."""

    group: Group
    value: float | None
    vote: Vote

    @property
    def reason(self) -> str | None:
        """Why it was not measured, or casts no vote."""
        return self.vote.reason


@dataclass(frozen=True)
class Verdict:
    """What is said of one suspect.

    Attributes:
        decision: Copy, independent or inconclusive.
        points_to: What a copy points to: the weights were taken; the behaviour was copied; the weights were taken and
            the behaviour changed since. None for no copy, or when one vote is taken over all metrics.
        settings: The decision in each of the two settings, and in "joint" where one vote is taken over all metrics.
        metrics: Metric name to its result.
        reason: Why it is inconclusive.
    """

    decision: Decision
    points_to: PointsTo | None
    settings: Mapping[str, Setting]
    metrics: Mapping[str, MetricResult]
    reason: str | None = None


def judge(
    measurements: Measurements,
    calibration: Calibration,
    rule: str = "voting",
    *,
    options: Mapping[str, Any] | None = None,
    groups: Grouping = "separate",
    registry: Registry | None = None,
) -> Verdict:
    """Judge a suspect.

    The rule is applied to black-box and to white-box metrics by themselves, as in the paper's tables: a model extracted
    through queries has other weights, so that one vote over all metrics misses it.

    Args:
        measurements: The suspect's.
        calibration: The controls.
        rule: Name of a rule.
        options: Of the rule.
        groups: "joint" for one vote over all metrics.
        registry: Where the rules are; by default every installed one.

    Raises:
        UsageError: For an unknown rule or option.
        PluginError: When the rule fails.
    """
    chosen = (registry or load_registry()).rules[rule]
    resolved = component_options.resolve(chosen.name, chosen.judge, options or {})
    _check_metric_options(chosen, resolved, measurements)
    parts = {"joint": measurements} if groups == "joint" else {g: _of_group(measurements, g) for g in GROUPS}
    judged = {name: _judge(part, calibration, chosen, resolved) for name, part in parts.items()}
    results = {
        name: MetricResult(m.metric.group, m.value, vote)
        for _, votes in judged.values()
        for name, vote in votes.items()
        for m in (measurements[name],)
    }
    found = {name: setting for name, (setting, _) in judged.items()}
    alone = Setting(None, reason="one vote is taken over all metrics")
    settings = dict.fromkeys(GROUPS, alone) | found
    decision, reason = _overall(list(found.values()))
    points_to = _points_to(settings) if decision is Decision.COPY and groups == "separate" else None
    ordered = {name: results[name] for name in measurements}
    return Verdict(decision, points_to, settings, ordered, reason)


def _check_metric_options(rule: Rule, options: Mapping[str, Any], measurements: Measurements) -> None:
    # A rule sees one group at a time, so that only here it is known which metrics there are.
    for option, value in options.items():
        unknown = set(value) - set(measurements) if isinstance(value, Mapping) else set()
        if unknown:
            raise UsageError(
                f"{rule.name}.{option}: expected metrics among {', '.join(measurements)}, "
                f"found {', '.join(sorted(unknown))}"
            )


def _of_group(measurements: Measurements, group: Group) -> Measurements:
    return {name: m for name, m in measurements.items() if m.metric.group == group}


def _judge(
    measurements: Measurements, calibration: Calibration, rule: Rule, options: Mapping[str, Any]
) -> tuple[Setting, Mapping[str, Vote]]:
    votes = {name: _unmeasured(m, calibration) for name, m in measurements.items()}
    evidence = {
        name: Evidence(m.value, calibration.values(name), m.metric.alpha)
        for name, m in measurements.items()
        if votes[name] is None and m.value is not None
    }
    settled = {name: vote for name, vote in votes.items() if vote is not None}
    if not measurements:
        return Setting(None, reason="no metric of this setting was chosen"), settled
    if not any(m.allowed for m in measurements.values()):
        return Setting(None, reason=next(m.reason for m in measurements.values())), settled
    if not evidence:
        reasons = dict.fromkeys(vote.reason for vote in settled.values())
        return Setting(Decision.INCONCLUSIVE, reason="; ".join(filter(None, reasons))), settled
    judgement = _apply(rule, evidence, options)
    settled |= judgement.votes
    cast = sum(vote.vote is not None for vote in settled.values())
    if 2 * cast < len(settled):
        reason = f"only {cast} of {len(settled)} metrics could be measured"
        return Setting(Decision.INCONCLUSIVE, judgement.p_copy, reason), settled
    return Setting(judgement.decision, judgement.p_copy, judgement.reason), settled


def _unmeasured(measurement: Measurement, calibration: Calibration) -> Vote | None:
    if measurement.value is None:
        return Vote(None, reason=measurement.reason)
    if len(calibration.values(measurement.metric.name)) < LEAST_CONTROLS:
        return Vote(None, reason=calibration.shortage(measurement.metric.name))
    return None


def _apply(rule: Rule, evidence: Mapping[str, Evidence], options: Mapping[str, Any]) -> Judgement:
    try:
        judgement = rule.judge(evidence, **options)
    except DeepJudgeError:
        raise
    except Exception as error:
        raise PluginError(f"the rule {rule.name!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(judgement, Judgement) or set(judgement.votes) != set(evidence):
        raise PluginError(f"the rule {rule.name!r} returned no Judgement with one vote for each metric")
    return judgement


def _overall(settings: list[Setting]) -> tuple[Decision, str | None]:
    decisions = [setting.decision for setting in settings]
    if Decision.COPY in decisions:
        return Decision.COPY, None
    unclear = [s for s in settings if s.decision is Decision.INCONCLUSIVE]
    if unclear:
        return Decision.INCONCLUSIVE, "; ".join(dict.fromkeys(filter(None, (s.reason for s in unclear))))
    if Decision.INDEPENDENT in decisions:
        return Decision.INDEPENDENT, None
    return Decision.INCONCLUSIVE, "; ".join(dict.fromkeys(filter(None, (s.reason for s in settings))))


def _points_to(settings: Mapping[str, Setting]) -> PointsTo:
    behaves = settings["black-box"].decision is Decision.COPY
    made = settings["white-box"].decision is Decision.COPY
    if behaves:
        return "weights" if made else "behaviour"
    return "weights-changed-behaviour"

"""Judge a model by a rule, from its measurements and the controls'; pure numpy."""

import contextlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from deepjudge_core.components import options as component_options
from deepjudge_core.components.kinds import Metric, Rule
from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.components.values import Decision, Evidence, Group, Judgement, Vote
from deepjudge_core.errors import CalibrationError, DeepJudgeError, PluginError, UsageError
from deepjudge_core.judging.calibration import LEAST_CONTROLS, Calibration
from deepjudge_core.judging.measure import Measurement, Measurements
from deepjudge_core.text import LONGEST_LINE, clean

GroupMode = Literal["separate", "joint"]
PointsTo = Literal["weights", "behaviour", "weights-changed-behaviour"]
POINTS_TO: Mapping[str, str] = {
    "weights": "the weights were taken",
    "behaviour": "the behaviour was copied",
    "weights-changed-behaviour": "the weights were taken, the behaviour changed since",
}
"""What each of them means, in words."""
GROUPS: tuple[Group, ...] = ("black-box", "white-box")


@dataclass(frozen=True)
class Setting:
    """What was found in one of the two settings.

    Attributes:
        decision: None where nothing of the setting was asked for or the access did not allow it.
        p_copy: The rule's confidence, 0..1.
        reason: Why there is no decision, or none but inconclusive.
        p_value: Probability, at most, that an honest model comes as near to the victim, 0..1; None for rules that give
            none.
        least_p_value: The smallest p-value that this number of controls could have given.
        statement: What the rule found, on one line, for a reader who is no statistician.
    """

    decision: Decision | None
    p_copy: float | None = None
    reason: str | None = None
    p_value: float | None = None
    least_p_value: float | None = None
    statement: str | None = None


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
    groups: GroupMode = "separate",
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
        CalibrationError: When the suspect's neurons were not matched as those of the controls.
        UsageError: For an unknown rule or option, or other groups.
        PluginError: When the rule fails.
    """
    registry = registry or load_registry()
    if groups not in get_args(GroupMode):
        raise UsageError(f"expected groups as one of {', '.join(get_args(GroupMode))}, found {groups!r}")
    for name, measured in measurements.items():
        if measured.match != calibration.match:
            raise CalibrationError(
                f"{name}: expected neurons matched as the controls', {calibration.match!r}, found {measured.match!r}"
            )
    resolved = _resolve(rule, options or {}, list(measurements), registry)
    chosen = registry.rules[rule]
    parts = {"joint": measurements} if groups == "joint" else {g: _of_group(measurements, g) for g in GROUPS}
    judged = {name: _judge(part, calibration, chosen, resolved) for name, part in parts.items()}
    found = {name: setting for name, (setting, _) in judged.items()}
    votes = {name: vote for _, cast in judged.values() for name, vote in cast.items()}
    results = {name: MetricResult(m.metric.group, m.value, votes[name]) for name, m in measurements.items()}
    alone = Setting(None, reason="one vote is taken over all metrics")
    settings = dict.fromkeys(GROUPS, alone) | found
    decision, reason = _overall(list(found.values()))
    points_to = _points_to(settings) if decision is Decision.COPY and groups == "separate" else None
    return Verdict(decision, points_to, settings, results, reason)


def doubtful_controls(
    calibration: Calibration,
    rule: str = "voting",
    *,
    options: Mapping[str, Any] | None = None,
    groups: GroupMode = "separate",
    registry: Registry | None = None,
) -> tuple[str, ...]:
    """Controls that the rule would call copies if it had the others alone to go by.

    One that is a copy, though not an exact one, spoils the thresholds: copies are then taken for independent. An honest
    control is among these about as often as the rule accuses an honest suspect.

    Args:
        calibration: The controls.
        rule: Name of a rule.
        options: Of the rule.
        groups: "joint" for one vote over all metrics.
        registry: Where the rules are; by default every installed one.

    Returns:
        A line for each.

    Raises:
        UsageError: For an unknown rule or option.
    """
    found = []
    for place, (control, measured) in enumerate(zip(calibration.controls, calibration.measurements, strict=True)):
        others = calibration.without(place)
        if len(others.controls) < LEAST_CONTROLS:
            break
        with contextlib.suppress(PluginError):  # which is said of the suspects
            verdict = judge(measured, others, rule, options=options, groups=groups, registry=registry)
            if verdict.decision is Decision.COPY:
                found.append(
                    f"the control {control.model.name} would be judged a copy by the other controls: is it independent "
                    "of the victim? One that is not hides copies"
                )
    return tuple(found)


def check_rule(rule: str, options: Mapping[str, Any], metrics: Collection[str], registry: Registry) -> dict[str, Any]:
    """All options of a rule, checked before anything is measured.

    Options that are mappings are by metric; a rule is given those of the metrics that it judges.

    Raises:
        UsageError: For a rule, an option, or a metric in an option, that does not exist, and for an impossible value.
    """
    resolved = _resolve(rule, options, metrics, registry)
    # What values are possible the rule alone knows.
    with contextlib.suppress(PluginError):
        apply_rule(registry.rules[rule], _made_up(metrics), resolved)
    return resolved


def expect_p_values(rule: str, options: Mapping[str, Any], why: str, registry: Registry) -> None:
    """Refuse a rule that does not call copies by p-values and a level.

    Args:
        rule: Name of the rule.
        options: All of its options.
        why: What it is needed for.
        registry: Where the rules are.

    Raises:
        UsageError: Where that is known from its options, or from what it says of controls that nobody has.
    """
    given = "level" in options
    with contextlib.suppress(PluginError):
        given = given and apply_rule(registry.rules[rule], _made_up(["any"]), options).p_value is not None
    if not given:
        raise UsageError(f"{rule}: expected a rule that gives p-values, {why}")


def _made_up(metrics: Collection[str]) -> dict[str, Evidence]:
    # Controls that nobody has, to ask a rule about.
    return {name: Evidence(1.0, np.linspace(1, 2, 12), 1.0) for name in metrics}


def _resolve(rule: str, options: Mapping[str, Any], metrics: Collection[str], registry: Registry) -> dict[str, Any]:
    resolved = component_options.resolve(rule, registry.rules[rule].judge, options)
    # A rule sees one group at a time, so that only here it is known which metrics there are.
    for option, value in resolved.items():
        unknown = sorted(set(value) - set(metrics)) if isinstance(value, Mapping) else []
        if unknown:
            raise UsageError(
                f"{rule}.{option}: expected metrics among {', '.join(metrics)}, found {', '.join(unknown)}"
            )
    return resolved


def _of_group(measurements: Measurements, group: Group) -> Measurements:
    return {name: m for name, m in measurements.items() if m.metric.group == group}


def _judge(
    measurements: Measurements, calibration: Calibration, rule: Rule, options: Mapping[str, Any]
) -> tuple[Setting, Mapping[str, Vote]]:
    votes = {name: _unmeasured(m, calibration) for name, m in measurements.items()}
    evidence = {
        name: _evidence(m.value, m.metric, calibration)
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
    judgement = apply_rule(rule, evidence, options)
    settled |= judgement.votes
    found = Setting(
        judgement.decision,
        judgement.p_copy,
        judgement.reason,
        judgement.p_value,
        judgement.least_p_value,
        judgement.statement,
    )
    # What the rule says of its decision is not said of another one.
    unclear = replace(found, decision=Decision.INCONCLUSIVE, statement=None)
    cast = sum(vote.vote is not None for vote in settled.values())
    if 2 * cast < len(settled) and judgement.decision is not Decision.INCONCLUSIVE:
        groups = {m.metric.group for m in measurements.values()}
        which = f"{groups.pop()} metrics" if len(groups) == 1 else "metrics"
        return replace(unclear, reason=f"only {cast} of {len(settled)} {which} could vote"), settled
    unsteady = next((m.unsteady for m in measurements.values() if m.unsteady), None)
    if unsteady and judgement.decision is Decision.INDEPENDENT:
        # Whatever the rule: answers that change by themselves are far from the victim's, be it a copy or not.
        return replace(unclear, reason=unsteady), settled
    return found, settled


def _evidence(value: float, metric: Metric, calibration: Calibration) -> Evidence:
    places = calibration.places(metric.name)
    strata = tuple(calibration.strata[place] for place in places) if calibration.strata else ()
    return Evidence(value, calibration.values(metric.name), metric.alpha, strata, places)


def _unmeasured(measurement: Measurement, calibration: Calibration) -> Vote | None:
    if measurement.value is None:
        return Vote(None, reason=measurement.reason)
    if len(calibration.values(measurement.metric.name)) < LEAST_CONTROLS:
        return Vote(None, reason=calibration.shortage(measurement.metric.name))
    return None


def apply_rule(rule: Rule, evidence: Mapping[str, Evidence], options: Mapping[str, Any]) -> Judgement:
    """What a rule says of evidence, checked; it is given those entries of its options that are of these metrics.

    Raises:
        UsageError: For an impossible value of an option.
        PluginError: When the rule fails, or its judgement is none.
    """
    own = {
        option: {name: v for name, v in value.items() if name in evidence} if isinstance(value, Mapping) else value
        for option, value in options.items()
    }
    try:
        return _plain(rule.judge(evidence, **own), evidence)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        found = str(error) if isinstance(error, DeepJudgeError) else f"{type(error).__name__}: {error}"
        raise PluginError(f"the rule {rule.name!r} failed: {' '.join(found.split())}") from error


def _plain(judgement: object, evidence: Collection[str]) -> Judgement:
    # Of a rule's numpy numbers and flags, what can stand in a report.
    if not isinstance(judgement, Judgement):
        raise PluginError(f"expected a Judgement, found {type(judgement).__name__}")
    if set(judgement.votes) != set(evidence):
        raise PluginError(f"expected votes for {', '.join(evidence)}, found {', '.join(judgement.votes) or 'none'}")
    decision, p_copy = Decision(judgement.decision), _share("p_copy", judgement.p_copy)
    if decision is Decision.FAILED or (decision is Decision.INCONCLUSIVE and not judgement.reason):
        raise PluginError(f"expected a decision, or inconclusive with a reason, found {decision}")
    votes = {}
    for name, vote in judgement.votes.items():
        if vote.vote is None and not vote.reason:
            raise PluginError(f"expected a reason why {name!r} casts no vote, found none")
        flag = None if vote.vote is None else bool(vote.vote)
        p_value, rate = _share("p_value", vote.p_value), _share("false_positive_rate", vote.false_positive_rate)
        votes[name] = Vote(flag, _number(vote.lower_bound), _number(vote.threshold), vote.reason, p_value, rate)
    p_value, least = _share("p_value", judgement.p_value), _share("least_p_value", judgement.least_p_value)
    if p_value is not None and least is not None and least > p_value:
        raise PluginError(f"expected least_p_value <= p_value, found {least} and {p_value}")
    statement = judgement.statement
    if statement is not None and (not statement.strip() or clean(statement, LONGEST_LINE) != statement):
        raise PluginError(f"expected a statement of one clean line, found {statement!r}")
    return Judgement(decision, p_copy, votes, judgement.reason, p_value, least, statement)


def _share(what: str, value: float | None) -> float | None:
    number = _number(value)
    if number is not None and not 0 <= number <= 1:
        raise PluginError(f"expected {what} within 0..1, found {number}")
    return number


def _number(value: float | None) -> float | None:
    number = None if value is None else float(value)
    if number is not None and not math.isfinite(number):
        raise PluginError(f"expected finite numbers, found {number}")
    return number


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
    behaves, made = (settings[group].decision for group in GROUPS)
    if made is not Decision.COPY:
        return "behaviour"
    # That the behaviour changed is said only where it was looked at.
    return "weights-changed-behaviour" if behaves is Decision.INDEPENDENT else "weights"

"""Measure and judge models: metrics, rule and options, resolved once; pure numpy."""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from deepjudge_core.components.kinds import Metric, Rule
from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.components.strata import SHARING, Stratum, parts_of
from deepjudge_core.components.values import Decision, Evidence, Group, Judgement, Vote
from deepjudge_core.errors import CalibrationError, PluginError, UsageError
from deepjudge_core.judging.calibration import (
    LEAST_CONTROLS,
    SPREAD_UNKNOWN,
    Calibration,
    calibrate_by,
    has_spread,
    read_calibration,
)
from deepjudge_core.judging.disguises import unknown_on_data
from deepjudge_core.judging.exact import LOG10_LEVEL, exact
from deepjudge_core.judging.fdr import Fleet, check_fdr, judge_fleet
from deepjudge_core.judging.fitting import Offer, fitting_metrics
from deepjudge_core.judging.guards import beside_background, guarded, guarded_by_weights
from deepjudge_core.judging.keys import Mark, providers_of
from deepjudge_core.judging.marks import LEVEL, judge_marks
from deepjudge_core.judging.measure import Measured, Measurement, Measurements, measure_by
from deepjudge_core.judging.neurons import DEFAULT_MATCH, Match
from deepjudge_core.judging.rules import apply_rule, resolve_options, try_rule
from deepjudge_core.judging.sequential import SequentialResult, check_sequential, judge_sequentially
from deepjudge_core.judging.settings import GroupMode, JudgeSettings
from deepjudge_core.judging.verdict import (
    ALL_GROUPS,
    GROUPS,
    POINTS_TO,
    Counted,
    MetricResult,
    PointsTo,
    Setting,
    Verdict,
)
from deepjudge_core.judging.view import View
from deepjudge_core.models.model import Access
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite

__all__ = [
    "ALL_GROUPS",
    "GROUPS",
    "POINTS_TO",
    "GroupMode",
    "Judge",
    "MetricResult",
    "PointsTo",
    "Setting",
    "Verdict",
    "judge",
]


EITHER = "the weights descend from the victim's, or both from one initialisation (a public base model, one seed)"
"""The honest explanation is named wherever weights accuse by themselves."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Measures and judges: settings whose names and options were looked up and checked, once.

    Attributes:
        settings: What was asked for.
        metrics: What is measured, in the order of the columns.
        rule: What turns measurements into a decision.
        options: All options of the rule.
        providers: ``metric NAME`` and ``rule NAME`` to the distribution that brought it, as ``name version``.
        note: What a reader should know where other metrics than the usual ones are measured; None otherwise.
        usual: What is measured where nobody chooses, if the suite allows it; empty where no registry was asked.
    """

    settings: JudgeSettings
    metrics: tuple[Metric, ...]
    rule: Rule
    options: Mapping[str, Any]
    providers: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    usual: tuple[Metric, ...] = ()

    @classmethod
    def of(cls, settings: JudgeSettings, registry: Registry, offer: Offer | None = None) -> "Judge":
        """Look up what the settings name, and refuse what cannot be, before any model is run.

        Args:
            settings: How suspects are measured and judged.
            registry: Where the metrics and rules are.
            offer: What the suite has to be measured on; None where that is not known.

        Raises:
            UsageError: For a metric, rule or option that does not exist, an impossible value, settings that exclude one
                another, and metrics of which the suite offers none.
            PluginError: For a name that two distributions claim.
        """
        metrics: Sequence[Metric] = registry.metrics.select(settings.metrics)
        note = None
        if offer is not None and not settings.sequential:  # which goes by cases and not by metrics
            metrics, note = fitting_metrics(registry.metrics, settings.metrics, offer)
        resolved = cls._of(settings, metrics, registry.rules[settings.rule])
        resolved._check()
        own = [metric for metric in metrics if metric.on != "keys"]
        providers = {f"metric {metric.name}": registry.metrics.owner(metric).distribution for metric in own}
        providers |= providers_of(metrics)
        providers[f"rule {settings.rule}"] = registry.rules.provider(settings.rule)
        usual = tuple(registry.metrics.usual(("weights", "ancestry")))
        return replace(resolved, providers=providers, note=note, usual=usual)

    @classmethod
    def _of(cls, settings: JudgeSettings, metrics: Sequence[Metric], rule: Rule) -> "Judge":
        if settings.groups not in get_args(GroupMode):
            raise UsageError(
                f"expected groups as one of {', '.join(get_args(GroupMode))}, found {settings.groups!r}",
                code="wrong-value",
            )
        options = resolve_options(rule, settings.rule_options or {}, _judged(metrics))
        return cls(settings, tuple(metrics), rule, options)

    def _check(self) -> None:
        settings = self.settings
        try_rule(self.rule, self.options, _judged(self.metrics))
        if settings.sequential:
            others = settings.metrics is not None or settings.groups != "separate" or settings.fdr is not None
            others = others or settings.require_layers
            check_sequential(self.rule, self.options, settings.budget, others=others)
        elif settings.budget is not None:
            raise UsageError(
                "a budget needs sequential judging, which asks the cases one by one, or a suspect behind an API",
                code="conflict",
            )
        if settings.require_layers and not any(metric.group == "white-box" for metric in self.metrics):
            raise UsageError("expected a white-box metric, because layers are required; found none", code="conflict")
        if settings.fdr is not None:
            check_fdr(settings.fdr, self.rule, self.options, settings.rule_options or {})

    def fitted(self, registry: Registry, offer: Offer) -> "Judge":
        """The same for a suite that has been made, which may have weights that nobody was sure of before.

        Args:
            registry: Where the metrics are.
            offer: What the suite has to be measured on.
        """
        settled = self.settings.metrics is not None or not self.providers
        if self.settings.sequential or (settled and not offer.keys):
            return self
        return replace(Judge.of(self.settings, registry, offer), note=self.note)

    def provider(self, metric: Metric) -> str | None:
        """The distribution that brought a metric, as ``name version``; None where no registry was asked."""
        return self.providers.get(f"metric {metric.name}")

    @property
    def fixed_options(self) -> Mapping[str, Any]:
        """All options of the rule, but for its level where a false discovery rate makes that."""
        without = set() if self.settings.fdr is None else {"level"}
        return {name: value for name, value in self.options.items() if name not in without}

    @property
    def usual_options(self) -> Mapping[str, Any]:
        """The options of the rule where nobody chooses, but for its level where a false discovery rate makes that."""
        usual = resolve_options(self.rule, {}, _judged(self.metrics))
        return {name: value for name, value in usual.items() if name in self.fixed_options}

    def measure(
        self,
        suite: Suite,
        observation: Observation,
        match: Match = DEFAULT_MATCH,
        siblings: Sequence[Observation] = (),
    ) -> Measurements:
        """Measure a model against the victim.

        Args:
            suite: The suite, with the victim's own answers.
            observation: The model's answers to it.
            match: How the model's neurons are put beside the victim's; suspects and controls alike.
            siblings: Controls that come from the victim's ancestor, of a model that is none of them.

        Raises:
            FileFormatError: When the answers are to another suite.
        """
        return measure_by(self.metrics, suite, observation, match, siblings)

    def calibrate(
        self,
        suite: Suite,
        controls: Sequence[Observation],
        *,
        match: Match = DEFAULT_MATCH,
        strata: Sequence[Stratum | None] = (),
        far: bool = False,
    ) -> Calibration:
        """Measure the controls; see :func:`~deepjudge_core.judging.calibration.calibrate`."""
        return calibrate_by(self.metrics, suite, controls, match=match, strata=strata, far=far)

    def load_calibration(self, path: Path, suite: Suite) -> Calibration:
        """Read the controls' answers and measure them.

        Raises:
            FileFormatError, CalibrationError: As :func:`~deepjudge_core.judging.calibration.load_calibration`.
        """
        return read_calibration(self.metrics, path, suite)

    def judge(self, measurements: Measurements, calibration: Calibration, *, level: float | None = None) -> Verdict:
        """Judge a suspect.

        The rule is applied to black-box and to white-box metrics by themselves, as in the paper's tables: a model
        extracted through queries has other weights, so that one vote over all metrics misses it.

        Args:
            measurements: The suspect's.
            calibration: The controls.
            level: Of the rule, in place of the one among its options, 0..1.

        Raises:
            CalibrationError: When the suspect's neurons were not matched as those of the controls.
            UsageError: For an impossible value of an option.
            PluginError: When the rule fails.
        """
        for name, measurement in measurements.items():
            if measurement.match != calibration.match:
                raise CalibrationError(
                    f"{name}: expected neurons matched in the same way as the controls', "
                    f"{calibration.match!r}, found {measurement.match!r}"
                )
        calibration = seen_alike(measurements, calibration)
        options = self.options if level is None else {**self.options, "level": level}
        joint = self.settings.groups == "joint"
        marks = {name: m for name, m in measurements.items() if m.metric.on == "keys"}
        others = {name: m for name, m in measurements.items() if name not in marks}
        by_controls = {name: m for name, m in others.items() if m.metric.p_value is None}
        exactly = {name: m for name, m in others.items() if m.metric.p_value is not None}
        parts: dict[str, Measurements] = {group: _of_group(by_controls, group) for group in ALL_GROUPS}
        if joint:
            parts = {"joint": by_controls}
        parts.pop("marks", None)
        if not joint and not parts["weights"]:
            del parts["weights"]
        demanded = self.settings.require_layers
        # In a setting of both kinds either may accuse: together they get the level that was left to a suspect.
        shared = {group for group in ALL_GROUPS if parts.get(group) and _of_group(exactly, group)}
        halved = {**options, "level": level / 2} if level is not None else options
        results = {
            name: _judge_group(
                part, calibration, self.rule, halved if name in shared else options, demanded and name != "weights"
            )
            for name, part in parts.items()
        }
        settings = {name: setting for name, (setting, _) in results.items()}
        votes = {name: vote for _, cast in results.values() for name, vote in cast.items()}
        unseen = not any(
            m.value is not None and m.metric.group == "white-box" and m.metric.reads == "activations"
            for m in measurements.values()
        )
        for name, setting in settings.items():
            if name == "weights":
                settings[name] = guarded_by_weights(setting, parts[name], votes, calibration)
            else:
                settings[name] = guarded(
                    setting, parts[name], votes, calibration, by_errors=name != "white-box", alone=unseen
                )
        # What needs no controls is judged beside the rest, also where one vote is taken over that.
        for group in dict.fromkeys(m.metric.group for m in exactly.values()):
            left = level / 2 if level is not None and group in shared else level
            setting, by_chance = self._judge_exactly(_of_group(exactly, group), calibration, left)
            if group in shared:
                shown = any(len(calibration.values(name)) for name in parts[group])
                setting = _beside(settings[group], setting, shown=shown)
            settings[group] = setting
            votes |= by_chance
        settings |= _beside_background(settings, others, votes)
        found: Mapping[str, Counted] = {}
        if marks:
            settings["marks"], by_keys, found = judge_marks(marks, calibration, self._level_of_marks(level))
            votes |= by_keys
        if demanded and not joint and settings["white-box"].decision is None:
            settings["white-box"] = replace(settings["white-box"], decision=Decision.INCONCLUSIVE)
        decision, reason = _overall(settings, measurements)
        alone = Setting(None, reason="the metrics were judged by one joint vote")
        unlike = next((m.reason for m in measurements.values() if m.incomparable and not m.metric.of_weights), None)
        if unlike and decision is Decision.INDEPENDENT:
            reason = f"the behaviour is independent; the layers could not be compared: {unlike}"
            untold = unknown_on_data(measurements)
            reason += f"; {untold}" if untold else ""
        settings = dict.fromkeys(GROUPS, alone) | settings
        return Verdict(
            decision,
            _points_to(settings, measurements, votes) if decision is Decision.COPY else None,
            settings,
            {
                name: MetricResult(m.metric.group, m.value, votes[name], found.get(name))
                for name, m in measurements.items()
            },
            reason,
        )

    def _level_of_marks(self, level: float | None) -> float:
        chosen = self.options.get("level") if self.rule.needs_controls else None
        return level or (chosen if isinstance(chosen, float) else LEVEL)

    def _judge_exactly(
        self, measurements: Measurements, calibration: Calibration, level: float | None
    ) -> tuple[Setting, dict[str, Vote]]:
        # By the rule that was chosen, if it needs no controls; otherwise by the one that the core has.
        rule, options = (self.rule, self.options) if not self.rule.needs_controls else (Rule("exact", exact), {})
        options = options if level is None else {"level": level}
        votes = {name: _unaccusing(m, calibration) for name, m in measurements.items()}
        evidence = {
            name: replace(_evidence(m.value, m.metric, calibration), chance=m.chance)
            for name, m in measurements.items()
            if votes[name] is None and m.value is not None
        }
        settled = {name: vote for name, vote in votes.items() if vote is not None}
        if not evidence:
            reasons = dict.fromkeys(vote.reason for vote in settled.values())
            return Setting(None, reason="; ".join(filter(None, reasons))), settled
        judgement = apply_rule(rule, evidence, options)
        setting = _setting_of(judgement)
        if setting.decision is Decision.INCONCLUSIVE:
            setting = replace(setting, decision=None)
        if setting.statement:
            setting = replace(setting, statement=f"{setting.statement}: {EITHER}")
        return setting, settled | dict(judgement.votes)

    def judge_fleet(
        self, fleet: Iterable[Measurements | None], calibration: Calibration, fdr: float
    ) -> tuple[tuple[Verdict | None, ...], Fleet]:
        """Judge suspects together, each at the level that the others leave it.

        Args:
            fleet: The measurements of each; None of those that have none.
            calibration: The controls.
            fdr: The false discovery rate over all of them, 0..1.

        Returns:
            The verdicts, and what they rest on.

        Raises:
            PluginError: As :func:`~deepjudge_core.judging.fdr.judge_fleet`.
        """

        def at(measurements: Measurements, level: float) -> Verdict:
            return self.judge(measurements, calibration, level=level)

        return judge_fleet([None if one is None else partial(at, one) for one in fleet], fdr)

    def judge_sequentially(
        self, suite: Suite, calibration: Calibration, label: Callable[[int], int], view: View | None = None
    ) -> tuple[Verdict, SequentialResult | None]:
        """Judge a suspect case by case; see :func:`~deepjudge_core.judging.sequential.judge_sequentially`."""
        budget = self.settings.budget
        return judge_sequentially(suite, calibration, label, self.rule, self.options, budget=budget, view=view)

    def doubts(self, calibration: Calibration) -> tuple[str, ...]:
        """Controls that the rule would call copies if it had the others alone to go by: a line for each.

        One that is a copy, though not an exact one, spoils the thresholds: copies are then taken for independent. An
        honest control is among these about as often as the rule accuses an honest suspect.
        """
        lines = []
        for place in calibration.differing:
            if place in calibration.doubtful:  # which its notes say
                continue
            control, measurements = calibration.controls[place], calibration.measurements[place]
            others = calibration.without(place)
            if others.effective < LEAST_CONTROLS:
                break
            with contextlib.suppress(PluginError):  # which is said of the suspects
                verdict = self.judge(measurements, others)
                declared = verdict.points_to == "descent" and SHARING & parts_of(calibration.strata[place])
                if verdict.decision is Decision.COPY and not declared:
                    lines.append(
                        f"the other controls would judge the control {control.model.name} a copy. Is it "
                        "independent of the victim? A control that is not hides copies"
                    )
        return tuple(lines)


def seen_alike(measurements: Measurements, calibration: Calibration) -> Calibration:
    """The controls, of whose answers no more is compared than of a suspect's.

    Args:
        measurements: The suspect's, as they were taken.
        calibration: The controls.
    """
    view = next((measurement.view for measurement in measurements.values()), None)
    if view is None or not calibration.controls:
        return calibration
    if not isinstance(measurements, Measured):
        raise CalibrationError("expected the measurements of a suspect as they were taken, found some of them")
    return calibration.through(view, measurements.suite)


def judge(
    measurements: Measurements,
    calibration: Calibration,
    settings: JudgeSettings | None = None,
    *,
    registry: Registry | None = None,
) -> Verdict:
    """Judge a suspect.

    Args:
        measurements: The suspect's.
        calibration: The controls.
        settings: The rule, its options, and whether one vote is taken over all metrics; what was measured is judged.
        registry: Where the rules are; by default every installed one.

    Raises:
        CalibrationError: When the suspect's neurons were not matched as those of the controls.
        UsageError: For an unknown rule or option, or an impossible value.
        PluginError: When the rule fails.
    """
    settings = settings or JudgeSettings()
    rule = (registry or load_registry()).rules[settings.rule]
    metrics = [measurement.metric for measurement in measurements.values()]
    return Judge._of(settings, metrics, rule).judge(measurements, calibration)


def _judged(metrics: Sequence[Metric]) -> list[str]:
    # By the rule, which keys are not.
    return [metric.name for metric in metrics if metric.on != "keys"]


def _of_group(measurements: Measurements, group: Group) -> Measurements:
    return {name: m for name, m in measurements.items() if m.metric.group == group}


def _judge_group(
    measurements: Measurements, calibration: Calibration, rule: Rule, options: Mapping[str, Any], demanded: bool
) -> tuple[Setting, Mapping[str, Vote]]:
    votes = {name: _unmeasured(m, calibration, rule) for name, m in measurements.items()}
    evidence = {
        name: _evidence(m.value, m.metric, calibration)
        for name, m in measurements.items()
        if votes[name] is None and m.value is not None
    }
    settled = {name: vote for name, vote in votes.items() if vote is not None}
    if not measurements:
        return Setting(None, reason="no metric of this setting was chosen"), settled
    if not any(m.allowed and not m.incomparable for m in measurements.values()):
        return Setting(None, reason=next(m.reason for m in measurements.values())), settled
    if not evidence:
        reasons = dict.fromkeys(vote.reason for vote in settled.values())
        return Setting(Decision.INCONCLUSIVE, reason="; ".join(filter(None, reasons))), settled
    judgement = apply_rule(rule, evidence, options)
    settled |= judgement.votes
    setting = _setting_of(judgement)
    # What the rule says of its decision is not said of another one.
    unclear = replace(setting, decision=Decision.INCONCLUSIVE, statement=None)
    cast = sum(vote.vote is not None for vote in settled.values())
    # Layers that cannot be compared keep a model from being accused by few metrics. They keep it from being independent
    # only where they are demanded.
    independent = judgement.decision is Decision.INDEPENDENT
    unlike = [name for name, m in measurements.items() if m.incomparable and (independent or m.metric.of_weights)]
    unseen = [measurements[name] for name in unlike if not measurements[name].metric.of_weights]
    if unseen and demanded:
        return replace(unclear, reason=unseen[0].reason), settled
    # What the suite could ask of nobody hides nothing about a suspect, but neither does the rest accuse by itself.
    unasked = [
        name for name, m in measurements.items() if independent and not m.allowed and not len(calibration.values(name))
    ]
    asked = len(settled) - len({*unlike, *unasked})
    if 2 * cast < asked and judgement.decision is not Decision.INCONCLUSIVE:
        groups = {m.metric.group for m in measurements.values()}
        which = f"{groups.pop()} metrics" if len(groups) == 1 else "metrics"
        return replace(unclear, reason=f"only {cast} of {asked} {which} could vote"), settled
    unsteady = next((m.unsteady for m in measurements.values() if m.unsteady), None)
    if unsteady and judgement.decision is Decision.INDEPENDENT:
        # Whatever the rule: answers that change by themselves are far from the victim's, be it a copy or not.
        return replace(unclear, reason=unsteady), settled
    partly = next((m.unseen for m in measurements.values() if m.unseen), None)
    if partly and independent:
        return replace(unclear, reason=partly), settled
    return setting, settled


def _evidence(value: float, metric: Metric, calibration: Calibration) -> Evidence:
    places = calibration.places(metric.name)
    strata = tuple(calibration.divided[place] for place in places) if calibration.divided else ()
    return Evidence(value, calibration.values(metric.name), metric.alpha, strata, places)


def _setting_of(judgement: Judgement) -> Setting:
    return Setting(
        judgement.decision,
        judgement.p_copy,
        judgement.reason,
        judgement.p_value,
        judgement.least_p_value,
        judgement.statement,
        judgement.log10_p,
    )


def _unaccusing(measurement: Measurement, calibration: Calibration) -> Vote | None:
    # Why a metric that needs no controls accuses nobody, whatever its chance.
    if measurement.value is None:
        return Vote(None, reason=measurement.reason)
    if measurement.explained:
        return Vote(None, reason=measurement.explained)
    for control, measured in zip(calibration.controls, calibration.measurements, strict=True):
        other = measured.get(measurement.metric.name)
        if other and other.chance and other.chance.log10_p <= LOG10_LEVEL:
            reason = (
                f"the control {control.model.name} agrees as well: it shares the victim's initialisation, "
                "and so may the suspect"
            )
            return Vote(None, reason=reason)
    return None


def _beside(by_controls: Setting, exactly: Setting, *, shown: bool) -> Setting:
    # What distances and metrics that need no controls say in one setting: either may accuse.
    both = _with_p(exactly if exactly.decision is Decision.COPY else by_controls, by_controls, exactly)
    if exactly.decision is Decision.COPY:
        return replace(both, p_copy=by_controls.p_copy)
    if by_controls.decision in (Decision.COPY, Decision.INDEPENDENT):
        return both
    reasons = dict.fromkeys(said for one in (exactly, by_controls) for said in (one.reason or "").split("; "))
    # Without controls that show their weights, distances say as little as an order that is not the victim's.
    return replace(both, decision=by_controls.decision if shown else None, reason="; ".join(filter(None, reasons)))


def _with_p(setting: Setting, one: Setting, other: Setting) -> Setting:
    # The smaller of two p-values, by Bonferroni's correction; the only one where there is one.
    found = [each for each in (one, other) if each.p_value is not None]
    if not found:
        return setting
    nearest = min(found, key=lambda each: (each.p_value or 0.0, each.log10_p or 0.0))
    factor, log10_p = len(found), nearest.log10_p
    return replace(
        setting,
        p_value=min(1.0, factor * (nearest.p_value or 0.0)),
        least_p_value=min(1.0, factor * min(each.least_p_value or 0.0 for each in found)),
        log10_p=None if log10_p is None else min(0.0, log10_p + math.log10(factor)),
    )


def _unmeasured(measurement: Measurement, calibration: Calibration, rule: Rule) -> Vote | None:
    if measurement.value is None:
        return Vote(None, reason=measurement.reason)
    if measurement.explained:
        return Vote(None, reason=measurement.explained)
    if not rule.needs_controls:
        return None
    values = calibration.values(measurement.metric.name)
    if len(values) < LEAST_CONTROLS:
        return Vote(None, reason=calibration.shortage(measurement.metric.name))
    if not has_spread(values):
        return Vote(None, reason=f"all controls are at the distance {values[0]:.4g}, so {SPREAD_UNKNOWN}")
    return None


def _beside_background(
    settings: Mapping[str, Setting], measurements: Measurements, votes: Mapping[str, Vote]
) -> dict[str, Setting]:
    # Settings that accuse nobody, with what is seen in values on which no control casts a vote.
    remarked = dict[str, Setting]()
    for name, measurement in measurements.items():
        setting, remark = settings.get(measurement.metric.group), beside_background(measurement)
        if setting and remark and setting.decision is not Decision.COPY and votes[name].vote is None:
            reason = "; ".join(filter(None, (setting.reason, remark)))
            remarked[measurement.metric.group] = replace(setting, reason=reason)
    return remarked


def _overall(settings: Mapping[str, Setting], measurements: Measurements) -> tuple[Decision, str | None]:
    decisions = [setting.decision for setting in settings.values()]
    if Decision.COPY in decisions:
        return Decision.COPY, None
    unclear = [s for s in settings.values() if s.decision is Decision.INCONCLUSIVE]
    if not unclear and Decision.INDEPENDENT in decisions:
        return Decision.INDEPENDENT, None
    # Of weights alone, that nothing else was chosen explains nothing.
    of_weights = bool(measurements) and all(m.metric.of_weights for m in measurements.values())
    rest = [s for name, s in settings.items() if not of_weights or name not in GROUPS]
    # What is true of several settings, such as that there are no controls, is said once.
    reasons = dict.fromkeys(clause for s in unclear or rest if s.reason for clause in s.reason.split("; "))
    return Decision.INCONCLUSIVE, "; ".join(reasons)


def _points_to(
    settings: Mapping[str, Setting], measurements: Measurements, votes: Mapping[str, Vote]
) -> PointsTo | None:
    decided = {name: setting.decision for name, setting in settings.items()}
    if decided.get("joint") is Decision.COPY:
        return None
    # That the behaviour changed is said only where it was looked at.
    changed: PointsTo = "weights-changed-behaviour" if decided["black-box"] is Decision.INDEPENDENT else "weights"
    if decided["white-box"] is Decision.COPY:
        return changed
    if decided.get("weights") is Decision.COPY:
        through_victim = any(votes[name].vote for name, m in measurements.items() if m.metric.on == "ancestry")
        return changed if through_victim else "descent"
    if decided["black-box"] is Decision.COPY:
        return "behaviour"
    # Keys alone: they say no more than where each of them is read.
    found = [m.metric for name, m in measurements.items() if isinstance(m.metric, Mark) and votes[name].vote]
    if any(mark.needs & (Access.WEIGHTS | Access.LAYERS) for mark in found):
        return changed
    return "data" if all(mark.of_data for mark in found) else "key"

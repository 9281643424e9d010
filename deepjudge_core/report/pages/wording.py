"""What a report says of a model that was judged, in a sentence with how often such a sentence is wrong."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deepjudge_core.judging.judge import GROUPS, POINTS_TO
from deepjudge_core.judging.verdict import open_layers
from deepjudge_core.report.documents import AuditReport, SettingEntry, SuspectEntry

DECISIONS = ("copy", "independent", "inconclusive", "failed")
_LEAST = 1e-6  # no distribution is known so well that less could be said
_FURTHER = {
    "weights": " (fine-tuned, pruned or converted)",
    "behaviour": " (extraction or distillation)",
    "weights-changed-behaviour": "",
}


def percent(share: float) -> str:
    """A share, without zeros at its end."""
    return f"{100 * share:.3g} %"


def probability(p_value: float | None) -> str:
    """A p-value as it stands in tables and sentences."""
    if p_value is None:
        return "-"
    if p_value < _LEAST:
        return f"< {_LEAST:.6f}"
    return np.format_float_positional(p_value, precision=3, unique=False, fractional=False, trim="-")


def level_of(report: AuditReport) -> float | None:
    """The level that the rule was given, 0..1; None for rules without one."""
    return _share(report, "level")


def _share(report: AuditReport, name: str) -> float | None:
    # An option of the rule, which may be anybody's.
    value: Any = report.rule_options.get(name)
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_one and 0 < value < 1 else None


def fewest_controls(report: AuditReport) -> int:
    """How many controls there were of the metric and the stratum that have the fewest; 0 without controls."""
    counts = Counter(
        (name, control.stratum)
        for control in report.calibration.controls
        for name, value in control.metrics.items()
        if value is not None
    )
    return min(counts.values(), default=0)


def verdict(suspect: SuspectEntry, report: AuditReport) -> str:
    """A sentence about one model, without its name."""
    decision, reason = suspect.decision, suspect.reason
    if decision == "failed":
        return f"Could not be judged: {reason}."
    if decision == "inconclusive":
        return f"Nothing can be said: {reason}."
    if decision == "copy" and reason:
        return f"A copy: {POINTS_TO.get(suspect.points_to or '', 'it is the victim')}; {reason}."
    if decision == "copy":
        evidence = POINTS_TO.get(suspect.points_to or "", "it is nearer to the victim than honest models")
        values = [metric.value for metric in suspect.metrics.values() if metric.group == "white-box"]
        why = open_layers(suspect.settings.white_box.decision, values)
        if suspect.points_to == "behaviour" and why:  # it may well be a copy of the weights
            evidence += f" (whether the weights were taken, too, is open: {why})"
        else:
            evidence += _FURTHER.get(suspect.points_to or "", "")
        start = f"Judged a copy: {evidence}"
    else:
        start = "Not told from honest models like the controls, which is no acquittal"
    doubts = [text for text in (reason, suspect.unsteady) if text]
    return f"{'; '.join([start, *_rests_on(suspect, report), *dict.fromkeys(doubts)])}."


def _rests_on(suspect: SuspectEntry, report: AuditReport) -> Iterator[str]:
    # What was found, and how often such a finding is wrong.
    decided = {name: s for name, s in suspect.settings.named().items() if s.decision in ("copy", "independent")}
    level, p_values = level_of(report), _p_values(decided)
    if p_values:
        yield ", ".join(f"{_equals(p_value)} {name}" for name, p_value in p_values.items())
    for name in decided:
        if name not in p_values:
            cast = [m for m in suspect.metrics.values() if m.vote is not None and name in (m.group, "joint")]
            kind = "metrics" if name == "joint" else f"{name} metrics"
            yield (
                f"{sum(bool(m.vote) for m in cast)} of {len(cast)} {kind} say copy" if cast else f"no {kind} could vote"
            )
    if p_values:
        tested, sequential, fleet = suspect.tested, suspect.sequential, report.fleet
        if sequential:
            yield f"asked {sequential.queries} of {sequential.budget} cases, for labels alone"
        if tested and fleet:
            yield (
                f"{_equals(tested.q_value, 'q')} among the {fleet.tested} suspects tested, where "
                f"{percent(fleet.fdr)} decides"
            )
        else:
            yield "the rule names no level" if level is None else _level(level, report, whole=bool(sequential))
        rates = [*p_values.values(), level]
        yield from _assumed(min(rate for rate in rates if rate is not None), report)
        return
    if level is not None:
        confidence = _share(report, "confidence")
        sure = f", with {percent(confidence)} confidence in the controls" if confidence is not None else ""
        yield f"{_level(level, report)}{sure}"
        yield from _assumed(level, report)
        return
    bounds = [m.false_positive_rate for m in suspect.metrics.values() if m.vote is not None]
    stated = [rate for rate in bounds if rate is not None]
    if stated:
        yield (
            "the vote as a whole has no known error rate, each metric's bound alone would be passed by at most "
            f"{percent(max(stated))} of honest models like the controls"
        )
    else:
        yield f"the rule {report.rule} gives no error rate"


def _p_values(settings: Mapping[str, SettingEntry]) -> dict[str, float]:
    return {name: s.p_value for name, s in settings.items() if s.p_value is not None}


def _assumed(rate: float, report: AuditReport) -> Iterator[str]:
    # Of n controls none can be nearer, which happens once in n + 1 times: without a distribution no more can be said.
    fewest = fewest_controls(report)
    if fewest and rate < 1 / (fewest + 1):
        yield f"what is rarer than 1 in {fewest + 1} rests on how distances are distributed, not on the controls alone"


def _level(level: float, report: AuditReport, *, whole: bool = False) -> str:
    where = " in each setting" if report.groups == "separate" and not whole else ""
    return f"of honest models like the controls at most {percent(level)} would be judged copies{where}"


def _equals(value: float, name: str = "p") -> str:
    shown = probability(value)
    return f"{name} {shown}" if shown.startswith("<") else f"{name} = {shown}"


def of_the_whole(report: AuditReport) -> str:
    """How the error rates of settings and suspects add up."""
    fleet = report.fleet
    if fleet and not fleet.tested:
        return f"No suspect could be tested for a false discovery rate of {percent(fleet.fdr)}."
    if fleet:
        return (
            f"{_suspects(fleet.tested)} tested together by the procedure of Benjamini and Hochberg: of the models "
            f"called copies a share of at most {percent(fleet.fdr)} is expected to be honest, as far as their "
            "p-values are right, and independent or positively dependent on one another. It is a rate over these "
            "suspects, and no error rate of one accusation."
        )
    each = "Error rates are those of one suspect: many suspects, many chances."
    one_by_one = any(suspect.sequential for suspect in report.suspects)
    if report.groups != "separate" or one_by_one:
        return each
    level = level_of(report)
    rate = f": at most {percent(min(1, 2 * level))} in all" if level is not None else ""
    confidence = _share(report, "confidence")
    if rate and confidence is not None and confidence > 0.5:
        rate += f", with {percent(2 * confidence - 1)} confidence"
    return (
        f"{' and '.join(GROUPS).capitalize()} metrics are judged apart, and either can accuse, so that the whole "
        f"errs up to twice as often as one setting{rate}. {each}"
    )


def _suspects(count: int) -> str:
    return "1 suspect was" if count == 1 else f"{count} suspects were"


def of_rates(report: AuditReport) -> str:
    """What the error rates are rates of."""
    if any(_p_values(suspect.settings.named()) for suspect in report.suspects):
        return (
            "A p-value is the probability, at most, that an honest model like the controls comes as near to the victim "
            "as the suspect did. It is not the probability that the suspect is honest."
        )
    if level_of(report) is not None:
        return (
            "An error rate is a share of honest models like the controls. It is not the probability that a suspect is "
            "honest."
        )
    return (
        "Rates of a bound hold as far as what the rule assumes of distances, such as that they are normal, and for "
        "models like the controls; a threshold that is a share of the bound is passed less often."
    )

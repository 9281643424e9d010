"""What a person sees of weights that were compared: a table, and a sentence for each suspect."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

from rich.console import Console
from rich.text import Text

from deepjudge_core.auditing.outcome import AuditOutcome, SuspectResult
from deepjudge_core.cli import display, tables, terminal
from deepjudge_core.cli.many import ManySettings
from deepjudge_core.components.values import Chance, Decision
from deepjudge_core.judging.exact import LEVEL, LOG10_LEVEL, power_of_ten
from deepjudge_core.judging.guards import beside_background
from deepjudge_core.judging.measure import Measurement
from deepjudge_core.judging.verdict import SAID
from deepjudge_core.text import clean

_FEW = 10  # suspects of which everything is said


def show(out: Console, report: AuditOutcome, many: ManySettings) -> None:
    """The suspects' neurons that agree, how likely that is by chance, and the verdicts; then why.

    Args:
        out: Where to.
        report: What came of them.
        many: Which are shown, and in which order.
    """
    say = partial(terminal.tell, out)
    plan, shown = report.suite.weights, tables.in_order(report.suspects, many)
    if plan is not None:
        compared = f"{sum(map(len, plan.neurons)):,} neurons of {len(plan.layers)} layers are compared"
        say(f"victim      {report.suite.victim.model.name}: {compared}")
    for note in report.suite.notes:
        say(f"note        {note}")
    if shown:
        _table(out, shown, say)
    for line in _corrected(report):
        say(line)
    everybody = len(report.suspects)
    few = everybody <= _FEW
    for line in (
        *report.doubts,
        *display.failures(shown),
        *display.gathered(_said(shown, few=few), everybody, "suspects"),
    ):
        say(line)
    for line in display.unconfined(report):
        say(line)
    display.show_skipped(out, report.skipped)
    say(tables.counts(report, many))


def _table(out: Console, results: Sequence[SuspectResult], say: partial[None]) -> None:
    chances = [_chance(result) for result in results]
    counted = [chance if chance and chance.compared is not None else None for chance in chances]
    formats = tables.Part("format", [Text(clean(r.model.framework) if r.model else "-") for r in results], right=False)
    agreeing = tables.Part(
        "agreeing", [Text(f"{one.agreeing:,} of {one.compared:,}" if one else "-") for one in counted]
    )
    p_values = tables.Part("p", [Text(power_of_ten(one.log10_p) if one else "-") for one in chances])
    found = dict.fromkeys(name for r in results for name, one in r.metrics.items() if one.value is not None)
    distances = [tables.metric(name, results) for name in found if name not in _exact(results)]
    last = tables.verdicts(results)
    layouts = [
        [formats, agreeing, p_values, *distances, last],
        [agreeing, p_values, *distances, last],
        [agreeing, p_values, last],
        [p_values, last],
    ]
    shown = tables.show(out, "suspect", [result.path for result in results], layouts, say)
    for line in tables.marks(results, [part.head for part in distances if part in shown]):
        say(line)


def _corrected(report: AuditOutcome) -> Iterator[str]:
    # Of many honest suspects one may have a small p-value by chance: who looks for any copy corrects for that.
    tested = [chance.log10_p for chance in map(_chance, report.suspects) if chance]
    accused = [log10_p for log10_p in tested if log10_p <= LOG10_LEVEL]
    if len(tested) > 1 and accused:
        left = sum(log10_p + math.log10(len(tested)) <= LOG10_LEVEL for log10_p in accused)
        yield (
            f"p is that of each suspect alone; multiplied by the number of suspects, {len(tested)}, it is "
            f"still at most {LEVEL:g} for {left} of {len(accused)} (Bonferroni's correction)"
        )


def _exact(results: Sequence[SuspectResult]) -> set[str]:
    return {name for r in results for name, m in (r.measurements or {}).items() if m.metric.p_value is not None}


def _tested(result: SuspectResult) -> Iterator[tuple[str, Measurement]]:
    for name, measurement in (result.measurements or {}).items():
        if measurement.metric.p_value is not None:
            yield name, measurement


def _chance(result: SuspectResult) -> Chance | None:
    chances = [measurement.chance for _, measurement in _tested(result) if measurement.chance]
    return min(chances, key=lambda chance: chance.log10_p, default=None)


def _said(results: Sequence[SuspectResult], *, few: bool) -> Iterator[tuple[str, str]]:
    for result in results:
        verdict = result.verdict
        if verdict is None:
            continue
        if result.decision is Decision.COPY:
            statements = [setting.statement for setting in verdict.settings.values() if setting.statement]
            yield from ((result.path, said) for said in ([verdict.reason] if verdict.reason else statements))
        elif reason := _open(result):
            yield result.path, f"{SAID[result.decision]}: {reason}"
        if few and result.observation:
            yield from ((result.path, note) for note in result.observation.notes)


def _open(result: SuspectResult) -> str | None:
    # Why it is no copy by what needs no controls, if there are none that say more.
    if result.verdict is None:
        return None
    alone = all(one.vote.vote is None for one in result.metrics.values())
    reasons = [result.metrics[name].reason for name, _ in _tested(result) if alone]
    for name, measurement in (result.measurements or {}).items():
        reason = result.metrics[name].reason
        if alone and reason and measurement.metric.on == "ancestry" and measurement.value is not None:
            reasons.append(f"{name}: {reason}")
        reasons.append(beside_background(measurement) if alone else None)
    return "; ".join(dict.fromkeys(filter(None, reasons))) or result.verdict.reason

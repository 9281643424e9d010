"""``deepjudge power``."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from deepjudge_core.auditing.power import CONFIDENCE, PowerEstimate, Share, ZooModelResult, compare_rules
from deepjudge_core.cli import exports, tables, terminal
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.sources import begun, folder_to_write, judge_of
from deepjudge_core.cli.status import FAILED, NO_COPY
from deepjudge_core.cli.tables import Part
from deepjudge_core.components.values import Decision
from deepjudge_core.errors import UsageError
from deepjudge_core.files import storage
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.settings import CalibrationSettings, JudgeSettings
from deepjudge_core.report.audit_json import dump
from deepjudge_core.report.power_json import power_report
from deepjudge_core.report.settings import CaseSettings, ReportSettings
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import Distinct, argument, part, setting
from deepjudge_core.suites.suite import load_suite
from deepjudge_core.text import clean, recognised
from deepjudge_core.zoo.manifest import load_zoo

_AREAS = 6  # columns of a table of AUC alone


@dataclass(frozen=True, kw_only=True)
class PowerCommand(Command):
    """Say how many of a zoo's stolen models an audit would notice."""

    suite: Path = argument("SUITE", "the suite, from 'deepjudge suite'", reads=True)
    zoo: Path = argument("ZOO", "the zoo, a folder from 'deepjudge zoo'", reads=True)
    calibration: CalibrationSettings = part(CalibrationSettings)
    rules: Annotated[Sequence[str], MinLen(1), Distinct()] = setting(
        "rules that turn distances into a verdict, to compare them; with several rules, write "
        "--rule-option RULE.NAME=VALUE",
        "--rule",
        default=(JudgeSettings.rule,),
        group="judging",
        metavar="NAME,...",
        components="rules",
    )
    judging: JudgeSettings = part(JudgeSettings)
    confinement: Confinement = part(Confinement)
    kept: CaseSettings = part(CaseSettings)
    forms: ReportSettings = part(ReportSettings)
    output: Path = setting(
        "folder for the results", "-o", "--out", group="output", metavar="DIR", writes=True, formerly=("--output",)
    )

    def run(self) -> int:
        """Judge the zoo, show what an audit sees of it and write that."""
        session, folder = begun(self.confinement), folder_to_write(self.output)
        files = exports.checked(self.forms)
        suite = load_suite(self.suite)
        power, *others = compare_rules(
            suite,
            load_zoo(self.zoo),
            [judge_of(settings, session, Offer.of(suite)) for settings in self._by_rule()],
            match=self.calibration.match,
            far=self.calibration.far,
            observations=folder / "observations",
            session=session,
        )
        out, failures = terminal.console(), [line for one in (power, *others) for line in one.failures]
        if others:
            _show_rules(out, [power, *others])
        else:
            _show_power(out, power)
        for note in dict.fromkeys((*power.calibration.notes, *failures)):
            terminal.say(out, note)
        report, path = power_report(power, self.kept.made(), others), folder / "power.json"
        storage.write_bytes(path, dump(report).encode())
        terminal.say(out, f"report: {path}")
        exports.write(files, report, out)
        return FAILED if failures else NO_COPY

    def _by_rule(self) -> Iterator[JudgeSettings]:
        options: dict[str, dict[str, Any]] = {rule: {} for rule in self.rules}
        for name, value in (self.judging.rule_options or {}).items():
            rule, dot, rest = name.partition(".")
            if len(self.rules) == 1:
                options[self.rules[0]][name] = value
            elif dot and rule in options:
                options[rule][rest] = value
            else:
                raise UsageError(
                    f"--rule-option {name}: expected RULE.NAME=VALUE, because there are several rules, such "
                    f"as {self.rules[0]}.{name}={value}",
                    code="wrong-value",
                )
        return (replace(self.judging, rule=rule, rule_options=said) for rule, said in options.items())


def _show_power(out: Console, power: PowerEstimate) -> None:
    metrics = list(power.attacks[0].auc) if power.attacks else []
    terminal.say(out, "stolen models judged copies, and AUC of each metric against the controls")
    attacks, said = power.attacks, partial(terminal.say, out)
    names = [one.attack for one in attacks]
    shares = [Part("copies", [_recognised(one.copies, one.inconclusive) for one in attacks])]
    weights_alone = {metric.group for metric in power.judge.metrics} == {"weights"}  # then nothing else was judged
    shares += [
        Part(group, [_recognised(one.groups[group], one.undecided[group]) for one in attacks])
        for group in (attacks[0].groups if attacks else ())
        if group == "weights" or not weights_alone
    ]
    areas = [Part(name, [_area(one.auc[name]) for one in attacks]) for name in metrics]
    shown = tables.show(out, "attack", names, [[*shares, *areas], shares], said)
    if len(shown) < len(shares) + len(areas):
        for start in range(0, len(areas), _AREAS):
            tables.show(out, "attack", names, [areas[start : start + _AREAS]], said)
    _show_keys(out, power)
    _say_undecided(out, power)
    if power.accused.of:
        low, high = power.accused.interval
        terminal.say(
            out,
            f"controls    {_of(power.accused)} held out are judged a copy by the others ({low:.1%} to "
            f"{high:.1%} of such models, with {CONFIDENCE:.0%} confidence)",
        )
    alone = len(power.calibration.controls) - power.accused.of
    if alone:
        terminal.say(out, f"not judged  {alone} of the controls: the others alone cannot decide")
    _say_left_out(out, power)


def _show_keys(out: Console, power: PowerEstimate) -> None:
    # Trials of each key that models match, by their attacks.
    keys = [metric.name for metric in power.judge.metrics if metric.group == "marks"]
    if not keys:
        return
    kinds: dict[str, list[ZooModelResult]] = {}
    for result in power.results:
        if result.counts and result.verdict:
            kinds.setdefault(result.model.attack or "(controls)", []).append(result)
    kinds["(controls)"] = kinds.pop("(controls)", [])
    terminal.say(out, "trials of each key that models match")
    parts = [Part(name, [Text(_matched(name, some)) for some in kinds.values()]) for name in keys]
    tables.show(out, "attack", list(kinds), [parts], partial(terminal.say, out))


def _matched(key: str, results: Sequence[ZooModelResult]) -> str:
    counted = [result.verdict.metrics[key].counted for result in results if result.verdict]
    found = [one.reading for one in counted if one is not None]
    if not found:
        return "-"
    least, most = (pick(one.found for one in found) for pick in (min, max))
    return f"{least if least == most else f'{least} to {most}'} of {max(one.of for one in found)}"


def _recognised(share: Share, undecided: int) -> Text:
    return Text(recognised(share.count, share.of, undecided))


def _area(area: float | None) -> Text:
    return Text("-" if area is None else f"{area:.2f}")


def _show_rules(out: Console, powers: Sequence[PowerEstimate]) -> None:
    rules = [power.judge.rule.name for power in powers]
    terminal.say(out, "stolen models judged copies, and held-out controls accused, by rule")
    columns = (Column(name, justify="right") for name in rules)
    table = Table(Column("attack", no_wrap=True), *columns, box=SIMPLE, padding=(0, 1, 0, 0))
    for of_attack in zip(*(power.attacks for power in powers), strict=True):
        cells = (_found(one.copies.count, one.copies.of, one.inconclusive) for one in of_attack)
        table.add_row(Text(clean(of_attack[0].attack)), *cells)
    table.add_section()
    table.add_row("controls accused", *map(_accused, powers))
    out.print(table)
    for power in powers:
        _say_undecided(out, power, f"{power.judge.rule.name}: ")
    _say_left_out(out, powers[0])


def _accused(power: PowerEstimate) -> str:
    return _found(power.accused.count, power.accused.of + power.undecided_controls, power.undecided_controls)


def _found(count: int, of: int, undecided: int) -> str:
    return recognised(count, of, undecided) if of else "-"  # the rule failed, or no model counts


def _say_undecided(out: Console, power: PowerEstimate, rule: str = "") -> None:
    stolen = [result for result in power.results if result.counts and result.model.kind == "stolen"]
    reasons = [
        str(result.verdict.reason) for result in stolen if result.verdict and _decision(result) == "inconclusive"
    ]
    for reason, count in Counter(reasons).items():
        terminal.say(out, f"undecided   {rule}{count} of {len(stolen)} stolen models: {reason}")


def _say_left_out(out: Console, power: PowerEstimate) -> None:
    left = [f"{result.model.label} ({_decision(result)})" for result in power.results if not result.counts]
    if left:
        terminal.say(out, f"not counted {', '.join(left)}: far from the victim's accuracy (--far counts them)")


def _decision(result: ZooModelResult) -> str:
    return str(result.verdict.decision if result.verdict else Decision.FAILED)


def _of(share: Share) -> str:
    return f"{share.count} of {share.of}"

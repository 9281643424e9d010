"""``deepjudge power``."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from deepjudge_core.auditing.power import CONFIDENCE, PowerEstimate, Share, ZooModelResult, estimate_power
from deepjudge_core.cli import display, exports
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.sources import begun, folder_to_write, judge_of
from deepjudge_core.cli.status import FAILED, NO_COPY
from deepjudge_core.components.values import Decision
from deepjudge_core.files import storage
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import GROUPS
from deepjudge_core.judging.settings import CalibrationSettings, JudgeSettings
from deepjudge_core.report.audit_json import dump
from deepjudge_core.report.power_json import power_report
from deepjudge_core.report.settings import CaseSettings, ReportSettings
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.suites.suite import load_suite
from deepjudge_core.text import clean
from deepjudge_core.zoo.manifest import load_zoo


@dataclass(frozen=True, kw_only=True)
class PowerCommand(Command):
    """Say how many of a zoo's stolen models an audit would notice."""

    suite: Path = argument("SUITE", "from 'deepjudge suite'", reads=True)
    zoo: Path = argument("ZOO", "a folder that 'deepjudge zoo' made")
    calibration: CalibrationSettings = part(CalibrationSettings)
    judging: JudgeSettings = part(JudgeSettings)
    confinement: Confinement = part(Confinement)
    kept: CaseSettings = part(CaseSettings)
    forms: ReportSettings = part(ReportSettings)
    output: Path = setting(
        "where the files go", "-o", "--out", group="output", metavar="DIR", writes=True, formerly=("--output",)
    )

    def run(self) -> int:
        """Judge the zoo, show what an audit sees of it and write that."""
        session, folder = begun(self.confinement), folder_to_write(self.output)
        files = exports.checked(self.forms)
        suite = load_suite(self.suite)
        power = estimate_power(
            suite,
            load_zoo(self.zoo),
            judge_of(self.judging, session, Offer.of(suite)),
            match=self.calibration.match,
            far=self.calibration.far,
            observations=folder / "observations",
            session=session,
        )
        out = display.console()
        _show_power(out, power)
        report, path = power_report(power, self.kept.made()), folder / "power.json"
        storage.write_bytes(path, dump(report).encode())
        display.say(out, f"report: {path}")
        exports.write(files, report, out)
        return FAILED if power.failures else NO_COPY


def _show_power(out: Console, power: PowerEstimate) -> None:
    metrics = list(power.attacks[0].auc) if power.attacks else []
    display.say(out, "stolen models that are judged copies, and AUC of each metric against the controls")
    table = Table(
        Column("attack", no_wrap=True),
        *(Column(name, justify="right") for name in ("copies", *GROUPS, *metrics)),
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for attack in power.attacks:
        shares = (attack.copies, *(attack.groups[group] for group in GROUPS))
        areas = ("-" if area is None else f"{area:.2f}" for area in (attack.auc[name] for name in metrics))
        table.add_row(Text(clean(attack.attack)), *map(_of, shares), *areas)
    out.print(table)
    stolen = [result for result in power.results if result.counts and result.model.kind == "stolen"]
    undecided = [
        str(result.verdict.reason) for result in stolen if result.verdict and _decision(result) == "inconclusive"
    ]
    for reason, count in Counter(undecided).items():
        display.say(out, f"undecided   {count} of {len(stolen)} stolen models: {reason}")
    if power.accused.of:
        low, high = power.accused.interval
        display.say(
            out,
            f"controls    {_of(power.accused)} held out are judged a copy by the others "
            f"(of such models, {low:.1%} to {high:.1%} with {CONFIDENCE:.0%} confidence)",
        )
    alone = len(power.calibration.controls) - power.accused.of
    if alone:
        display.say(out, f"not judged  {alone} of the controls: by the others alone nothing can be said of them")
    left = [f"{result.model.label} ({_decision(result)})" for result in power.results if not result.counts]
    if left:
        display.say(out, f"not counted {', '.join(left)}: far from the victim's accuracy (--far counts them)")
    for note in (*power.calibration.notes, *power.failures):
        display.say(out, note)


def _decision(result: ZooModelResult) -> str:
    return str(result.verdict.decision if result.verdict else Decision.FAILED)


def _of(share: Share) -> str:
    return f"{share.count} of {share.of}"

"""``deepjudge compare``."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from deepjudge_core.auditing.audit import audit
from deepjudge_core.auditing.settings import AuditSettings
from deepjudge_core.auditing.subject import ModelFile, Subject
from deepjudge_core.cli import comparison, display, exports, terminal
from deepjudge_core.cli.applying import check_base, options_of_each, with_base
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.commands.calibrate import STRATUM
from deepjudge_core.cli.ending import status_of, warn_of
from deepjudge_core.cli.many import FolderSettings, ManySettings, ResumeSettings
from deepjudge_core.cli.nextsteps import after_compare
from deepjudge_core.cli.sources import MODELS, StratumControls, begun, controls_of, expand, folder_to_write
from deepjudge_core.cli.sparing import spare
from deepjudge_core.cli.status import STATUSES
from deepjudge_core.files import storage
from deepjudge_core.observing.settings import base_setting
from deepjudge_core.report.audit_json import audit_report, dump
from deepjudge_core.report.settings import CaseSettings, ReportSettings, json_setting
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import Names, argument, part, setting
from deepjudge_core.suites.settings import SuiteSettings


@dataclass(frozen=True, kw_only=True)
class CompareCommand(Command):
    """Compare the weights of suspects with the victim's; nothing is run, and neither data nor controls are needed."""

    statuses = STATUSES

    victim: Path = argument("VICTIM", "your model, the victim", reads=True)
    suspects: tuple[str, ...] = argument("SUSPECT", f"models to compare with it: {MODELS}", reads=True)
    controls: Annotated[tuple[str, ...], Names()] = setting(
        f"models independent of the victim, at least 3, by which distances are judged, too: {MODELS}",
        "--controls",
        default=(),
        group="input",
        metavar="CONTROL,...",
        reads=True,
    )
    strata: tuple[StratumControls, ...] = setting(
        STRATUM, "--stratum", default=(), group="input", metavar="STRATUM=CONTROL,...", reads=True
    )
    ancestor: Path | None = setting(
        "model that yours was made from, such as a public base model or the first weights: what every model made from "
        "it has in common then accuses nobody",
        "--ancestor",
        default=None,
        group="input",
        metavar="MODEL",
        reads=True,
    )
    base: str | None = base_setting()
    seed: Annotated[int, Ge(0)] = setting(
        "seed of the choice of neurons and of all other random choices", "--seed", default=0, group="suite"
    )
    folders: FolderSettings = part(FolderSettings)
    resume: ResumeSettings = part(ResumeSettings)
    confinement: Confinement = part(Confinement)
    json: Path | None = json_setting()
    kept: CaseSettings = part(CaseSettings)
    forms: ReportSettings = part(ReportSettings)
    many: ManySettings = part(ManySettings)

    def run(self) -> int:
        """Compare, show the report and write it."""
        session, forms = begun(self.confinement), exports.checked(self.forms, None, self.json)
        if not (forms or self.json):
            self.kept.refuse()
        adapters, folder = session.registry.adapters, self.resume.resume
        options = {"base": self.base} if self.base else {}
        found = expand(self.suspects, adapters, self.folders)
        groups, beside_controls = controls_of(self.controls, self.strata, adapters, self.folders)
        files = [str(self.victim), *(file for file, _ in groups), *found.models]
        suite = with_base(SuiteSettings(weights=True, ancestor=self.ancestor, seed=self.seed), options)
        spare([*files, self.ancestor, self.base], [self.json, *forms.values()], models=session.registry.adapters)
        check_base([*files, self.ancestor], self.base)
        taken = dict(zip(files, options_of_each(files, options, adapters, self.ancestor), strict=True))
        outcome = audit(
            ModelFile(self.victim, taken[str(self.victim)]),
            [Subject.of(file, options=taken[file]) for file in found.models],
            None,
            controls=[Subject.of(file, options=taken[file], stratum=stratum) for file, stratum in groups],
            settings=AuditSettings(suite=suite),
            session=replace(session, kept=folder_to_write(folder) if folder else None),
        )
        outcome = replace(outcome, skipped=found.skipped)
        to_stdout = str(self.json) == "-"
        out = terminal.console(stderr=to_stdout)
        warn_of(outcome.calibration)
        display.show_skipped(out, beside_controls)
        comparison.show(out, outcome, self.many)
        for line in after_compare(self.words, outcome):
            terminal.tell(out, line)
        report = audit_report(outcome, self.kept.made()) if self.json or forms else None
        if report and to_stdout:
            sys.stdout.write(dump(report))
        elif report and self.json:
            storage.write_bytes(self.json, dump(report).encode())
        if report:
            exports.write(forms, report, out)
        return status_of(outcome, strict=self.many.strict)

    def way_on(self) -> str:
        """See the base class."""
        if self.resume.resume:
            return f"the same command goes on; {self.resume.resume} has what was read so far"
        return ""

"""``deepjudge report``."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace

from deepjudge_core.cli import exports, terminal
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.errors import UsageError
from deepjudge_core.report.documents import read_report, schema_of
from deepjudge_core.report.settings import CaseSettings, ReportSettings
from deepjudge_core.settings import argument, part


@dataclass(frozen=True, kw_only=True)
class ReportCommand(Command):
    """Write a stored report in a form for people."""

    report: Path = argument("REPORT.json", "a report from 'judge --json', 'audit' or 'power'", reads=True)
    kept: CaseSettings = part(CaseSettings)
    forms: ReportSettings = part(ReportSettings)

    def run(self) -> int:
        """Write the report in the forms that are asked for."""
        files = exports.checked(self.forms)
        if not files:
            options = ", ".join(map(exports.option, exports.EXPORTS))
            raise UsageError(
                f"expected at least one of {options}, found none; type: "
                f"deepjudge report {shlex.quote(str(self.report))} {exports.option('html')} report.html",
                code="missing-value",
            )
        report = read_report(self.report)
        report = replace(report, made=self.kept.of(report.made or None) or UNSET)
        for name in files:
            kinds = exports.EXPORTS[name].of
            if schema_of(report) not in kinds:
                raise UsageError(
                    f"{exports.option(name)}: expected a report {kinds[0]}, found {schema_of(report)}", code="conflict"
                )
        exports.write(files, report, terminal.console())
        return NO_COPY

"""In which forms a report is written beside its JSON."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from deepjudge_core.errors import UsageError
from deepjudge_core.naming import option
from deepjudge_core.report.documents import MadeEntry
from deepjudge_core.settings import setting

_OF_AUDITS = ("judge", "audit", "compare", "report")


def json_setting() -> Any:
    """The setting of commands that write their report as JSON to a file or to standard output."""
    return setting(
        "write the report as JSON; - means standard output, and the table then goes to standard error",
        "--json",
        default=None,
        group="report",
        metavar="FILE",
        writes=True,
    )


@dataclass(frozen=True)
class CaseSettings:
    """Under what a report is kept.

    Attributes:
        case: What the case is called.
        by: Who makes the report.
    """

    case: str | None = setting(
        "name of the case, shown in the report",
        "--case",
        default=None,
        group="report",
        metavar="NAME",
        key="case",
        tables=("report",),
        sample="2026-117",
    )
    by: str | None = setting(
        "name of the person who makes the report, shown in it",
        "--by",
        default=None,
        group="report",
        metavar="NAME",
        key="by",
        tables=("report",),
        sample="Jane Doe",
    )

    def refuse(self) -> None:
        """Say that there is no report to show them, if there are any.

        Raises:
            UsageError: Naming one.
        """
        for name, value in (("case", self.case), ("by", self.by)):
            if value:
                text = f"{option(name)}: expected a report to show it, such as --html report.html, found none"
                raise UsageError(text, code="conflict")

    def made(self) -> MadeEntry:
        """What a report says that is made now; ``SOURCE_DATE_EPOCH`` in the environment says another time."""
        return MadeEntry(date=_now().strftime("%Y-%m-%dT%H:%M:%SZ"), case=self.case or UNSET, by=self.by or UNSET)

    def of(self, made: MadeEntry | None) -> MadeEntry | None:
        """What a report says that was made before: its own date, and what is said now for what was said then."""
        said = {name: value for name, value in (("case", self.case), ("by", self.by)) if value}
        return replace(made or MadeEntry(), **said) if said else made


def _now() -> datetime:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)


@dataclass(frozen=True)
class ReportSettings:
    """Which forms of a report are written, and where.

    Attributes:
        html: A page for a browser.
        markdown: Text with Markdown.
        pdf: The page on paper.
        sarif: SARIF 2.1.0, of an audit's report.
        model_card: A section of a model card, of an audit's report.
        csv: A table with a row for each suspect, of an audit's report.
    """

    html: Path | None = setting(
        "write the report as a page for a browser: one file without scripts",
        "--html",
        default=None,
        group="report",
        metavar="FILE",
        key="html",
        tables=("report",),
        sample="report.html",
        writes=True,
    )
    markdown: Path | None = setting(
        "write the report as Markdown text, for instance for an issue",
        "--markdown",
        default=None,
        group="report",
        metavar="FILE",
        key="markdown",
        tables=("report",),
        sample="report.md",
        writes=True,
    )
    pdf: Path | None = setting(
        "write the report as PDF, on A4; needs the extra pdf and the library Pango",
        "--pdf",
        default=None,
        group="report",
        metavar="FILE",
        key="pdf",
        tables=("report",),
        sample="report.pdf",
        writes=True,
    )
    sarif: Path | None = setting(
        "write the report as SARIF 2.1.0, for code scanning",
        "--sarif",
        default=None,
        group="report",
        metavar="FILE",
        key="sarif",
        tables=("report",),
        sample="report.sarif",
        writes=True,
        commands=_OF_AUDITS,
    )
    model_card: Path | None = setting(
        "write the report as a section of a model card",
        "--model-card",
        default=None,
        group="report",
        metavar="FILE",
        key="model_card",
        tables=("report",),
        sample="model-card.md",
        writes=True,
        commands=_OF_AUDITS,
    )
    csv: Path | None = setting(
        "write a table for spreadsheets, with a row for each suspect",
        "--csv",
        default=None,
        group="report",
        metavar="FILE",
        key="csv",
        tables=("report",),
        sample="report.csv",
        writes=True,
        commands=_OF_AUDITS,
    )

    @property
    def files(self) -> dict[str, Path]:
        """The forms that are asked for, with the file of each."""
        return {name: path for name, path in vars(self).items() if path is not None}

"""In which forms a report is written beside its JSON."""

from dataclasses import dataclass
from pathlib import Path

from deepjudge_core.settings import setting

_OF_AUDITS = ("judge", "audit", "report")


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
        "write the report as a page for a browser: one file, without scripts",
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
        "write the report as text with Markdown, as for an issue",
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

"""What reports are written as beside JSON: each is a function of the report alone."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deepjudge_core.bundles.bundle import belongs_to
from deepjudge_core.cli import terminal
from deepjudge_core.errors import UsageError
from deepjudge_core.files import storage
from deepjudge_core.report import model_card, sarif, spreadsheet
from deepjudge_core.report.documents import AUDIT, POWER, AnyReport
from deepjudge_core.report.html import render_html
from deepjudge_core.report.markdown import render_markdown
from deepjudge_core.report.pages.any import Seal
from deepjudge_core.report.pdf import check_pdf, render_pdf
from deepjudge_core.report.settings import ReportSettings


@dataclass(frozen=True)
class Export:
    """A form that a report can be written in.

    Attributes:
        render: The report as a file's bytes.
        page: Whether it is the page, which also names the bundle that it belongs to.
        of: Schemas of the reports that can be written so.
        check: Raises :class:`~deepjudge_core.errors.DeepJudgeError` where it cannot be made here at all.
    """

    render: Callable[..., bytes]
    page: bool = False
    of: tuple[str, ...] = (AUDIT, POWER)
    check: Callable[[], object] = lambda: None


EXPORTS: Mapping[str, Export] = {
    "html": Export(render_html, page=True),
    "markdown": Export(render_markdown, page=True),
    "pdf": Export(render_pdf, page=True, check=check_pdf),
    "sarif": Export(sarif.render, of=(AUDIT,)),
    "model_card": Export(model_card.render, of=(AUDIT,)),
    "csv": Export(spreadsheet.render, of=(AUDIT,)),
}
"""By the key in an ``AUDIT.toml``."""
_ENDINGS: Mapping[str, str] = {".html": "html", ".pdf": "pdf", ".sarif": "sarif", ".csv": "csv"}
"""What only one of them is called."""


def option(name: str) -> str:
    """The option of an export."""
    return f"--{name.replace('_', '-')}"


def checked(forms: ReportSettings, bundle: Path | None = None, json: Path | None = None) -> dict[str, Path]:
    """Which forms are asked for, and where they go; checked before anything is run.

    Args:
        forms: What is asked for.
        bundle: A folder whose files others check: nothing may be added to it.
        json: Where the JSON goes.

    Raises:
        UsageError: When a file cannot go where it was asked for, or two go to one place.
        MissingExtraError: When a library is missing.
    """
    if json and str(json) != "-":
        _expect_file(json)
    files: dict[str, Path] = {}
    for name, path in forms.files.items():
        files[name] = check(name, path, bundle, [*files.values(), *([json] if json else [])])
    return files


def check(name: str, path: Path, bundle: Path | None, others: Iterable[Path]) -> Path:
    """The file that an export is going to be written to.

    Args:
        name: Of the export.
        path: The file.
        bundle: As of :func:`checked`.
        others: Files that are going to be written, too.

    Raises:
        UsageError, MissingExtraError: As :func:`checked`.
    """
    _expect_file(path)
    if not path.parent.is_dir():
        text = f"{path}: expected an existing folder {path.parent} for the report, found none"
        raise UsageError(text, code="cannot-write")
    if bundle and belongs_to(path, bundle):
        raise UsageError(
            f"{path}: expected a file outside {bundle}, which is sealed with the audit's own files; "
            "choose another folder",
            code="would-overwrite",
        )
    if path.resolve() in {other.resolve() for other in others}:
        raise UsageError(
            f"{path}: expected a different file for each format of the report, found it twice", code="would-overwrite"
        )
    meant = _ENDINGS.get(path.suffix.lower(), name)
    if meant != name:  # a reader of files would take it for what it is not
        raise UsageError(
            f"{path}: expected another ending for {option(name)}, found {path.suffix}; {option(meant)} writes such "
            "a file",
            code="conflict",
        )
    EXPORTS[name].check()
    return path


def _expect_file(path: Path) -> None:
    try:
        kind = "a folder" if path.is_dir() else "a device or a pipe" if storage.is_special(path) else None
    except OSError as error:
        raise UsageError(
            f"{path}: expected a file to write the report to: {error.strerror}", code="cannot-write"
        ) from None
    if kind:
        raise UsageError(f"{path}: expected a file to write the report to, found {kind}", code="cannot-write")


def write(files: Mapping[str, Path], report: AnyReport, out: Console, seal: Seal | None = None) -> None:
    """Write a report in the forms that were asked for, and say where.

    Args:
        files: The form to its file.
        report: The report.
        out: Where it is said.
        seal: The bundle that holds the report; None if there is none.

    Raises:
        DeepJudgeError: When one cannot be made or written.
    """
    for name, path in files.items():
        export = EXPORTS[name]
        storage.write_bytes(path, export.render(report, seal) if export.page else export.render(report))
        terminal.say(out, f"{name.replace('_', ' ')}: {path}")

"""What reports are written as beside JSON: each is a function of the report alone."""

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deepjudge_core.bundles.bundle import belongs_to
from deepjudge_core.cli import display
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.errors import UsageError
from deepjudge_core.files import storage
from deepjudge_core.report import model_card, sarif
from deepjudge_core.report.documents import AUDIT, POWER, AnyReport, read_report, schema_of
from deepjudge_core.report.html import render_html
from deepjudge_core.report.markdown import render_markdown
from deepjudge_core.report.pdf import check_pdf, render_pdf


@dataclass(frozen=True)
class Export:
    """A form that a report can be written in.

    Attributes:
        text: What the option does, for the help.
        render: The report as a file's bytes.
        of: Schemas of the reports that can be written so.
        check: Raises :class:`~deepjudge_core.errors.DeepJudgeError` where it cannot be made here at all.
    """

    text: str
    render: Callable[..., bytes]
    of: tuple[str, ...] = (AUDIT, POWER)
    check: Callable[[], object] = lambda: None


EXPORTS: Mapping[str, Export] = {
    "html": Export("write the report as a page for a browser: one file", render_html),
    "markdown": Export("write the report as text with Markdown", render_markdown),
    "pdf": Export("write the report as PDF", render_pdf, check=check_pdf),
    "sarif": Export("write the report as SARIF 2.1.0, for code scanning", sarif.render, of=(AUDIT,)),
    "model_card": Export("write the report as a section of a model card", model_card.render, of=(AUDIT,)),
}
"""By the key in an ``AUDIT.toml``."""


def option(name: str) -> str:
    """The option of an export."""
    return f"--{name.replace('_', '-')}"


def add_options(command: argparse.ArgumentParser, schema: str | None = None) -> None:
    """The options of a command that makes reports of one schema, or reads any."""
    for name, export in EXPORTS.items():
        if schema is None or schema in export.of:
            command.add_argument(option(name), type=Path, metavar="FILE", help=export.text)


def wanted(arguments: argparse.Namespace, bundle: Path | None = None) -> dict[str, Path]:
    """Which forms were asked for, and where they go; checked before anything is run.

    Args:
        arguments: What was typed.
        bundle: A folder whose files others check: nothing may be added to it.

    Raises:
        UsageError: When a file cannot go where it was asked for, or two go to one place.
        MissingExtraError: When a library is missing.
    """
    given = {name: getattr(arguments, name, None) for name in EXPORTS}
    json = getattr(arguments, "json", None)
    if isinstance(json, Path) and str(json) != "-":
        _expect_file(json)
    found: dict[str, Path] = {}
    for name, path in given.items():
        if path is not None:
            found[name] = check(name, path, bundle, [*found.values(), *([json] if json else [])])
    return found


def check(name: str, path: Path, bundle: Path | None, others: Iterable[Path]) -> Path:
    """The file that an export is going to be written to.

    Args:
        name: Of the export.
        path: The file.
        bundle: As of :func:`wanted`.
        others: Files that are going to be written, too.

    Raises:
        UsageError, MissingExtraError: As :func:`wanted`.
    """
    _expect_file(path)
    if not path.parent.is_dir():
        raise UsageError(f"{path}: expected a folder that there is to write the report to, found no {path.parent}")
    if bundle and belongs_to(path, bundle):
        raise UsageError(
            f"{path}: expected a file outside {bundle}, which is sealed with what the audit puts into it: take another "
            "folder"
        )
    if path.resolve() in {other.resolve() for other in others}:
        raise UsageError(f"{path}: expected a file for each form of the report, found one for two")
    EXPORTS[name].check()
    return path


def _expect_file(path: Path) -> None:
    try:
        found = "a folder" if path.is_dir() else "a device or a pipe" if storage.is_special(path) else None
    except OSError as error:
        raise UsageError(f"{path}: expected a file to write the report to: {error.strerror}") from None
    if found:
        raise UsageError(f"{path}: expected a file to write the report to, found {found}")


def write(files: Mapping[str, Path], report: AnyReport, out: Console) -> None:
    """Write a report in the forms that were asked for, and say where.

    Raises:
        DeepJudgeError: When one cannot be made or written.
    """
    for name, path in files.items():
        storage.write_bytes(path, EXPORTS[name].render(report))
        display.say(out, f"{name.replace('_', ' ')}: {path}")


def run_report(arguments: argparse.Namespace) -> int:
    """Write a stored report in other forms."""
    files = wanted(arguments)
    if not files:
        raise UsageError(f"expected at least one of {', '.join(map(option, EXPORTS))}, found none")
    report = read_report(arguments.report)
    for name in files:
        if schema_of(report) not in EXPORTS[name].of:
            raise UsageError(f"{option(name)}: expected a report {EXPORTS[name].of[0]}, found {schema_of(report)}")
    write(files, report, display.console())
    return NO_COPY

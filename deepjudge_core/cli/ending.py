"""How commands that judge end: what is written of a report, and the exit status."""

from pathlib import Path

from rich.console import Console

from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.bundles.bundle import withheld_folder
from deepjudge_core.bundles.manifest import PAGE, REPORT
from deepjudge_core.cli import display, terminal
from deepjudge_core.cli.sealing import BundleSession
from deepjudge_core.cli.status import COPY, FAILED, INCONCLUSIVE, NO_COPY
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import LEAST_CONTROLS, Calibration
from deepjudge_core.report.documents import AuditReport
from deepjudge_core.report.pages.any import Seal


def seal(session: BundleSession, report: AuditReport, folder: Path, out: Console) -> Seal:
    """Seal a bundle with its report, and say where it is; what pages say of it."""
    sealed = session.finish(report)
    if not session.settings.observations:
        terminal.say(out, f"withheld: {withheld_folder(folder)}: test cases and answers, for you to keep")
    terminal.say(out, f"report: {folder / REPORT}")
    return sealed


def show_page(folder: Path, out: Console) -> None:
    """Say where the page for people is: the last line of a command."""
    terminal.say(out, f"page: {folder / PAGE}")


def warn_of(calibration: Calibration) -> None:
    """Say what is doubtful of the controls."""
    for note in calibration.notes:
        terminal.warn(note)
    if 0 < calibration.effective < LEAST_CONTROLS:
        terminal.warn(f"{display.count_of(calibration)} controls; a verdict needs at least {LEAST_CONTROLS}")


def status_of(report: AuditOutcome, *, strict: bool = False) -> int:
    """The exit status of a report.

    A copy that was found is not hidden by another suspect that failed.

    Args:
        report: What came of the suspects.
        strict: Whether anything that failed or was skipped decides.
    """
    decisions = {result.decision for result in report.suspects}
    failed = Decision.FAILED in decisions or any(r.errors for r in report.suspects) or has_failed(report.calibration)
    # What fits another suite is no matter of this one.
    missed = (one for one in report.skipped if one.code != "other-inputs" or one.unjudged)
    skipped = any(one.code != "part-of-model" for one in missed)
    if strict and (failed or skipped):
        return FAILED
    if Decision.COPY in decisions:
        return COPY
    if failed:
        return FAILED
    unjudged = any(one.unjudged for one in report.skipped)
    return INCONCLUSIVE if unjudged or Decision.INCONCLUSIVE in decisions else NO_COPY


def has_failed(calibration: Calibration) -> bool:
    """Whether a metric failed on a control."""
    return any(measurement.failed for values in calibration.measurements for measurement in values.values())

"""A whole audit as a value, as the command line or a file says it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepjudge_core.auditing.folders import Skipped
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.bundles.settings import BundleSettings
from deepjudge_core.cli.many import ManySettings
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import CalibrationSettings
from deepjudge_core.models.device import CPU
from deepjudge_core.report.settings import CaseSettings
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.suites.settings import InputSettings, SuiteSettings

OUTPUT = Path("audit")
"""Where what comes of an audit goes, if nobody says it."""


def work_folder(output: Path) -> Path:
    """What an audit keeps for the next run, for its owner alone: a folder beside the one that others check."""
    folder = output if output.name.strip(".") else output.resolve()  # "." and ".." have no name of their own
    return folder.with_name(f"{folder.name}-work")


@dataclass(frozen=True)
class Plan:
    """What is audited, how, and where the outcome goes.

    Attributes:
        victim: The owner's model.
        suspects: What is judged.
        controls: Models known to be independent of the victim.
        inputs: What seeds are selected from.
        suite: How the suite is made.
        calibration: How controls are measured.
        judge: By what suspects are judged.
        sandbox: How models' files are confined; None to open them in the audit's own process.
        device: What models' files run on.
        output: Folder for what is written, from where the user is.
        bundle: How that is made fit to be checked by others.
        exports: Which forms of the report are written beside JSON, and where, from where the user is.
        kept: Under what the report is kept.
        folder: Where all other relative paths, and code of networks, are found from.
        file: What says all this, from the root; None for a command line.
        chosen: Whether the user named the folder for what is written.
        words: What was typed after ``deepjudge``.
        fresh: Whether nothing of an earlier run is used.
        data: Training data of the victim, from which controls may be made if there are none.
        many: What is shown of the suspects, and what the exit status says.
        skipped: Files in the suspects' folders that are not taken as models.
        beside_controls: The same of the controls' folders.
    """

    victim: Subject
    suspects: Sequence[Subject]
    controls: Sequence[Subject]
    inputs: InputSettings
    suite: SuiteSettings
    calibration: CalibrationSettings
    judge: Judge
    sandbox: Sandbox | None
    output: Path
    bundle: BundleSettings = field(default_factory=BundleSettings)
    exports: Mapping[str, Path] = field(default_factory=dict)
    kept: CaseSettings = field(default_factory=CaseSettings)
    folder: Path = Path()
    file: Path | None = None
    chosen: bool = True
    words: Sequence[str] = ()
    fresh: bool = False
    data: Path | None = None
    many: ManySettings = field(default_factory=ManySettings)
    device: str = CPU
    skipped: Sequence[Skipped] = ()
    beside_controls: Sequence[Skipped] = ()

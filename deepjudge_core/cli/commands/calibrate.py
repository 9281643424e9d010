"""``deepjudge calibrate``."""

from dataclasses import dataclass
from pathlib import Path

from deepjudge_core.auditing.audit import ask_controls
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.cli import display, terminal
from deepjudge_core.cli.applying import check_base, options_of_each
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.ending import has_failed, warn_of
from deepjudge_core.cli.many import FolderSettings
from deepjudge_core.cli.nextsteps import after_calibrate, making_controls
from deepjudge_core.cli.sources import MODELS, StratumControls, begun, controls_of, file_to_write
from deepjudge_core.cli.sparing import spare
from deepjudge_core.cli.status import FAILED, NO_COPY
from deepjudge_core.components.strata import WORDS
from deepjudge_core.errors import UsageError
from deepjudge_core.judging.calibration import LEAST_CONTROLS, save_calibration
from deepjudge_core.judging.settings import CalibrationSettings
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.suites.suite import load_suite

STRATUM = f"more controls, with what they share with the victim: {WORDS}"


@dataclass(frozen=True, kw_only=True)
class CalibrateCommand(Command):
    """Record the controls' answers to a suite, which set the thresholds."""

    suite: Path = argument("SUITE", "the suite, from 'deepjudge suite'", reads=True)
    controls: tuple[str, ...] = argument(
        "CONTROL", f"models independent of the victim: {MODELS}", default=(), reads=True
    )
    strata: tuple[StratumControls, ...] = setting(
        STRATUM, "--stratum", default=(), group="input", metavar="STRATUM=CONTROL,...", reads=True
    )
    folders: FolderSettings = part(FolderSettings)
    calibration: CalibrationSettings = part(CalibrationSettings)
    query: QuerySettings = part(QuerySettings)
    opening: OpeningSettings = part(OpeningSettings)
    confinement: Confinement = part(Confinement)
    output: Path = setting(
        "file for the calibration",
        "-o",
        "--out",
        group="output",
        metavar="CALIBRATION.safetensors",
        writes=True,
        formerly=("--output",),
    )

    def run(self) -> int:
        """Ask the controls, store their answers and show their distances."""
        session = begun(self.confinement)
        file_to_write(self.output)
        suite = load_suite(self.suite)
        files, skipped = controls_of(self.controls, self.strata, session.registry.adapters, self.folders)
        if not files:
            # Of weights alone, nothing is known to train others on.
            way = f"; this makes some in zoo/controls: {making_controls(suite)}" if suite.has_cases else ""
            raise UsageError(f"expected at least one CONTROL, found none{way}", code="missing-value")
        spare([*(file for file, _ in files), self.opening.base], [self.output], models=session.registry.adapters)
        check_base([file for file, _ in files], self.opening.base)
        options = options_of_each([file for file, _ in files], self.opening.options, session.registry.adapters)
        controls = [
            Subject.of(file, query=self.query, options=one, stratum=stratum)
            for (file, stratum), one in zip(files, options, strict=True)
        ]
        for control in controls:
            control.check(suite)
        calibration = ask_controls(suite, controls, self.calibration, session=session)
        save_calibration(self.output, calibration)
        warn_of(calibration)
        out = terminal.console()
        display.show_calibration(out, calibration)
        display.show_control_notes(out, calibration)
        display.show_skipped(out, skipped)
        if calibration.effective < LEAST_CONTROLS:
            for line in after_calibrate(self.controls, self.suite, suite):
                terminal.say(out, line)
        return FAILED if has_failed(calibration) else NO_COPY

"""``deepjudge judge``."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.auditing.session import Listener, QueryEvent, Session
from deepjudge_core.auditing.subject import Subject, check_device
from deepjudge_core.bundles.bundle import belongs_to
from deepjudge_core.bundles.commitment import Terms, check_terms
from deepjudge_core.bundles.register import register_beside
from deepjudge_core.bundles.settings import BundleSettings
from deepjudge_core.cli import display, exports, terminal
from deepjudge_core.cli.applying import check_base, options_of_each, takes
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.ending import seal, show_page, status_of
from deepjudge_core.cli.many import FolderSettings, ManySettings, ResumeSettings
from deepjudge_core.cli.nextsteps import after_judge, needs_controls
from deepjudge_core.cli.sealing import BundleSession, committed, register
from deepjudge_core.cli.sources import MODELS, begun, expand, folder_to_write, judge_of
from deepjudge_core.cli.sparing import spare
from deepjudge_core.cli.status import STATUSES
from deepjudge_core.errors import UsageError
from deepjudge_core.files import storage
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings
from deepjudge_core.report.audit_json import audit_report, dump
from deepjudge_core.report.settings import CaseSettings, ReportSettings, json_setting
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.suites.suite import Suite, load_suite

MATCHED = "neurons of suspects are matched like those of the controls, by 'deepjudge calibrate --match'"


class _Heard(Listener):
    # How many suspects had answered before; what is heard goes on to another one.

    def __init__(self, to: Listener) -> None:
        self._to, self.stored = to, 0

    def on_answer(self, event: QueryEvent) -> None:
        self.stored += event.stored
        self._to.on_answer(event)


@dataclass(frozen=True, kw_only=True)
class JudgeCommand(Command):
    """Judge whether suspects are copies of the victim."""

    hints = {"--match": MATCHED}  # noqa: RUF012 - the base class says that it is one of the class
    statuses = STATUSES

    suite: Path = argument("SUITE", "the suite, from 'deepjudge suite'", reads=True)
    suspects: tuple[str, ...] = argument("SUSPECT", f"{MODELS}; with --stored, stored observations too", reads=True)
    calibration: Path | None = setting(
        "the calibration, from 'deepjudge calibrate'; without it, the report has values but no "
        "thresholds, and verdicts are inconclusive",
        "--calibration",
        default=None,
        group="input",
        metavar="CALIBRATION",
        reads=True,
    )
    folders: FolderSettings = part(FolderSettings)
    resume: ResumeSettings = part(ResumeSettings)
    judging: JudgeSettings = part(JudgeSettings)
    query: QuerySettings = part(QuerySettings)
    opening: OpeningSettings = part(OpeningSettings)
    confinement: Confinement = part(Confinement)
    bundle: BundleSettings = part(BundleSettings)
    json: Path | None = json_setting()
    kept: CaseSettings = part(CaseSettings)
    forms: ReportSettings = part(ReportSettings)
    many: ManySettings = part(ManySettings)
    output: Path | None = setting(
        "folder for a bundle that others can verify",
        "-o",
        "--out",
        default=None,
        group="output",
        metavar="DIR",
        writes=True,
        formerly=("--output",),
    )

    def run(self) -> int:
        """Judge the suspects, show the report and write it."""
        session, forms = begun(self.confinement), exports.checked(self.forms, self.output, self.json)
        if not (forms or self.json or self.output):
            self.kept.refuse()
        kept, suite = self._kept(), load_suite(self.suite)
        found = expand(self.suspects, session.registry.adapters, self.folders)
        files = found.models
        judging, opening = self._budgeted(files, session)
        judge = judge_of(judging, session, Offer.of(suite))
        stored = self.calibration
        calibration = judge.load_calibration(stored, suite) if stored else judge.calibrate(suite, [])
        spare([*files, self.opening.base], [self.json, *forms.values()], models=session.registry.adapters)
        check_base(files, self.opening.base)
        options = options_of_each(files, opening, session.registry.adapters)
        suspects = [Subject.of(file, query=self.query, options=one) for file, one in zip(files, options, strict=True)]
        check_device(suspects, session)  # before anything is written
        bundle = self._bundle(suite, calibration, judge, session)
        heard = _Heard(bundle or session.listener)
        session = replace(session, listener=heard, kept=kept)
        outcome = judge_suspects(suite, calibration, suspects, judge, session=session)
        outcome = replace(outcome, skipped=found.skipped)
        runs = register(suite, calibration, judge, outcome, register_beside(self.suite))
        if bundle:
            bundle.register = runs
        # Neurons are matched once more for it: only where somebody reads it.
        report = audit_report(outcome, self.kept.made()) if self.json or bundle or forms else None
        report = bundle.dated(report) if report and bundle else report
        to_stdout = str(self.json) == "-"
        out = terminal.console(stderr=to_stdout)
        reused = heard.stored - sum(subject.stored for subject in suspects)
        if reused:
            terminal.say(out, f"answers: {reused} of {len(suspects)} reused from {kept}")
        display.show_report(out, outcome, self.many)
        if needs_controls(outcome) and not self.judging.sequential:
            for line in after_judge(self.words, self.suite, suite):
                terminal.say(out, line)
        if report and to_stdout:
            sys.stdout.write(dump(report))
        elif report and self.json:
            storage.write_bytes(self.json, dump(report).encode())
        sealed = seal(bundle, report, self.output, out) if report and bundle and self.output else None
        if report:
            exports.write(forms, report, out, sealed)
        if bundle and self.output:
            show_page(self.output, out)
        return status_of(outcome, strict=self.many.strict)

    def _budgeted(self, files: Sequence[str], session: Session) -> tuple[JudgeSettings, Mapping[str, Any]]:
        # All at once, a budget is one of those suspects that are asked through an API.
        judging, opening = self.judging, self.opening.options
        if judging.sequential or judging.budget is None:
            return judging, opening
        if not any(takes(file, "budget", session.registry.adapters) for file in files):
            return judging, opening  # which is refused
        return replace(judging, budget=None), {**opening, "budget": judging.budget}

    def way_on(self) -> str:
        """See the base class."""
        if self.judging.sequential:
            return ""
        if self.resume.resume:
            return f"the same command goes on; {self.resume.resume} has the answers so far"
        return "with --resume DIR, answers are stored, and the same command goes on after an interruption"

    def _kept(self) -> Path | None:
        # Where answers are kept; not in a folder whose files others check.
        folder = self.resume.resume
        if folder is None:
            return None
        if self.judging.sequential:
            raise UsageError(
                "--resume does not work with --sequential, which asks each case as it decides", code="conflict"
            )
        if self.output and belongs_to(folder / "answers", self.output):
            raise UsageError(
                f"--resume {folder}: expected a folder outside {self.output}, which will be sealed",
                code="would-overwrite",
            )
        return folder_to_write(folder)

    def _bundle(self, suite: Suite, calibration: Calibration, judge: Judge, session: Session) -> BundleSession | None:
        # What keeps to what was committed to, and writes the bundle; None where there is none to write.
        if self.output is None:
            if self.bundle.key or self.bundle.victim_commitment or not self.bundle.observations:
                purpose = "--key signs a bundle" if self.bundle.key else "--without-observations concerns a bundle"
                if self.bundle.victim_commitment:
                    purpose = "--victim-commitment becomes part of a bundle"
                raise UsageError(f"{purpose}, so it needs -o DIR", code="conflict")
            commitment, _ = committed(self.bundle)
            if commitment:
                check_terms(commitment.terms, Terms.of(suite.digest, calibration, judge))
            return None
        if self.judging.sequential:
            raise UsageError(
                "--sequential does not work with -o, because a bundle holds the answers to all cases", code="conflict"
            )
        folder = folder_to_write(self.output)
        self._spare(folder)
        bundle = BundleSession(self.bundle, judge, folder, session)
        bundle.keep_suite(suite, stored=True)
        bundle.keep_calibration(calibration, stored=True)
        return bundle

    def _spare(self, folder: Path) -> None:
        read = [self.suite, self.calibration, self.bundle.commitment, self.bundle.tsa_response, self.bundle.key]
        read += [self.bundle.victim_commitment, self.bundle.victim_tsa_response]
        for path in [*filter(None, read), *map(Path, self.suspects)]:
            if belongs_to(path, folder):
                raise UsageError(
                    f"{path}: expected a file outside {folder}, which will be replaced; choose another folder",
                    code="would-overwrite",
                )
        if self.json and belongs_to(self.json, folder):
            raise UsageError(
                f"{self.json}: expected a file outside {folder}, which has its own report.json",
                code="would-overwrite",
            )

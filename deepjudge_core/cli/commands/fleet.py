"""``deepjudge fleet``."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from deepjudge_core import progress
from deepjudge_core.auditing.folders import Skipped
from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import check_device
from deepjudge_core.cli import display, terminal
from deepjudge_core.cli.applying import check_base
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.commands.audit import AuditCommand
from deepjudge_core.cli.ending import status_of, warn_of
from deepjudge_core.cli.fleeting import (
    BEFORE,
    Preview,
    Tally,
    by_suite,
    calibrations_beside,
    calibrations_in,
    suite_files,
)
from deepjudge_core.cli.many import FolderSettings, TopSettings
from deepjudge_core.cli.sources import MODELS, begun, folder_to_write, judge_of
from deepjudge_core.cli.status import COPY, FAILED, INCONCLUSIVE, NO_COPY, STATUSES
from deepjudge_core.cli.suspects import LIST, subjects_of
from deepjudge_core.errors import UsageError
from deepjudge_core.files import storage
from deepjudge_core.fleets.asking import ask
from deepjudge_core.fleets.judging import fits_no_suite, judge_stored
from deepjudge_core.fleets.local import cores
from deepjudge_core.fleets.planning import Fleet
from deepjudge_core.fleets.settings import EngineSettings
from deepjudge_core.fleets.store import DATABASE, Member, Store, Suited, is_store
from deepjudge_core.fleets.work import ONE_THREAD, Result, Task
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings
from deepjudge_core.report.audit_json import audit_report, dump
from deepjudge_core.report.html import html_of, render_html
from deepjudge_core.report.pages.fleet import Ranked, fleet_page
from deepjudge_core.report.settings import CaseSettings
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.suites.suite import load_suite

PAGE = "ranking.html"
"""The page of all victims, in the folder of results."""


@dataclass(frozen=True, kw_only=True)
class FleetCommand(Command):
    """Judge many suspects against many suites, on all cores, and keep what each answered."""

    usage = (
        "SUITES SUSPECT... -o RESULTS [--calibrations DIR] [options]",
        "RESULTS [--calibrations DIR] [options]",
    )
    statuses = STATUSES

    suites: str = argument(
        "SUITES",
        f"a suite; a folder or a quoted glob means all suites in it; or RESULTS, whose answers ({DATABASE}) are judged "
        "again, and no model is run",
        reads=True,
    )
    suspects: tuple[str, ...] = argument(
        "SUSPECT",
        f"{MODELS}; a list ending in {LIST} has a path on each line, and behind it options as in AUDIT.toml: "
        "{output = 'logits'}; further suites are taken as suites",
        default=(),
        reads=True,
    )
    calibrations: Path | None = setting(
        "calibration, or folder of calibrations, from 'deepjudge calibrate'; each names its suite",
        "--calibrations",
        default=None,
        group="input",
        metavar="DIR",
        usual="those next to the suites",
        reads=True,
    )
    jobs: Annotated[int, Ge(1)] = setting(
        "number of suspects that are asked at the same time, each in processes with one thread",
        "--jobs",
        factory=cores,
        group="suspect",
        metavar="N",
        usual="number of cores",
    )
    where: EngineSettings = part(EngineSettings)
    retry: bool = setting("ask suspects again that failed before", "--retry", default=False, group="suspect")
    folders: FolderSettings = part(FolderSettings)
    judging: JudgeSettings = part(JudgeSettings)
    query: QuerySettings = part(QuerySettings)
    opening: OpeningSettings = part(OpeningSettings)
    confinement: Confinement = part(Confinement)
    kept: CaseSettings = part(CaseSettings)
    many: TopSettings = part(TopSettings)
    output: Path | None = setting(
        "folder for the results; suspects whose answers it has are not asked again",
        "-o",
        "--out",
        default=None,
        group="output",
        metavar="RESULTS",
        writes=True,
    )

    def run(self) -> int:
        """Ask the suspects that were not asked yet, and judge all."""
        # Before anything is computed: answers depend on it, and must not on the number of jobs.
        for name in ONE_THREAD:
            os.environ.setdefault(name, "1")
        session = begun(self.confinement)
        if self._is_anew():
            return self._judge_anew(session)
        return self._ask_and_judge(session)

    def way_on(self) -> str:
        """See the base class."""
        return f"the same command goes on; {self.output} has what was answered so far" if self.output else ""

    def _is_anew(self) -> bool:
        # The results of an earlier run, and nobody to ask.
        if not is_store(Path(self.suites)):
            return False
        if self.suspects or self.output:
            found = f"SUSPECT {self.suspects[0]}" if self.suspects else "-o"
            raise UsageError(
                f"{self.suites} has the results of a fleet, which are judged again: expected no {found}",
                code="conflict",
            )
        return True

    def _judge_anew(self, session: Session) -> int:
        with Store(Path(self.suites), make=False) as store:
            suites = store.suites()
            if self.calibrations:
                found = self._belonging({one.digest for one in suites}, calibrations_in(self.calibrations))
                self._keep_calibrations(store, found)
            members = {one.digest: store.members(one.digest) for one in suites}
            return self._judge(store, suites, members, (), session)

    def _ask_and_judge(self, session: Session) -> int:
        if self.output is None:
            raise UsageError("expected -o RESULTS, a folder for the results, found none", code="missing-value")
        folder = folder_to_write(self.output)
        files, names = suite_files(self.suites, self.suspects)
        if not names:
            raise UsageError(f"expected SUSPECT after {self.suites}, found none", code="missing-value")
        adapters = session.registry.adapters
        subjects, skipped = subjects_of(names, self.query, self.opening.options, adapters, self.folders, AuditCommand)
        check_base([subject.name for subject in subjects], self.opening.base)
        place = self.calibrations
        calibrations = calibrations_in(place) if place else calibrations_beside(files)
        # All that can be wrong is looked at before anything is written, and before anybody is asked.
        check_device(subjects, session)
        paths = self._suites(files, session)
        belonging = self._belonging(paths, calibrations)
        with Store(folder) as store:
            suites = [store.keep_suite(load_suite(path), path) for path in paths.values()]
            self._keep_calibrations(store, belonging)
            fleet = Fleet(subjects, session)
            members = self._ask(fleet, suites, store, session)
            return self._judge(store, suites, members, skipped, session)

    def _suites(self, files: Sequence[Path], session: Session) -> dict[str, Path]:
        # Digest to file of each; one at a time is in memory.
        found: dict[str, Path] = {}
        for path in files:
            suite = load_suite(path)
            judge_of(self.judging, session, Offer.of(suite))
            found.setdefault(suite.digest, path)
        return found

    def _belonging(self, suites: Collection[str], calibrations: Sequence[Path]) -> dict[str, Path]:
        found = by_suite(calibrations, suites)
        if self.calibrations and not found:
            raise UsageError(
                f"{self.calibrations}: expected a calibration of one of the suites, found those of others",
                code="missing-value",
            )
        return found

    @staticmethod
    def _keep_calibrations(store: Store, belonging: Mapping[str, Path]) -> None:
        for digest, path in belonging.items():
            storage.write_bytes(store.calibration_path(digest), path.read_bytes())

    def _ask(self, fleet: Fleet, suites: Sequence[Suited], store: Store, session: Session) -> dict[str, list[Member]]:
        # Ask all that were not asked yet; gives whom each suite was put to.
        members: dict[str, list[Member]] = {suite.digest: [] for suite in suites}
        total = len(fleet.suspects) * len(suites)
        preview = Preview(store, self.judging, session)
        tally = Tally(total)
        with progress.task(f"asking {len(fleet.suspects)} suspects, {len(suites)} suites", total) as advance:

            def tasks() -> Iterator[Task]:
                for suite in suites:
                    for member, task in fleet.tasks(suite.digest, store):
                        members[suite.digest].append(member)
                        if task is None:
                            advance(1, tally.add("failed"))
                        else:
                            yield task

            def heard(task: Task, result: Result | None) -> None:
                for line in result.warnings if result else ():
                    terminal.warn(f"{task.name}: {line}")
                advance(1, tally.add(preview.word(task, result)))

            paths = {suite.digest: store.suite_path(suite.digest) for suite in suites}
            ask(tasks(), paths, store, self.where.engine_of(self.jobs), heard, retry=self.retry)
        if before := tally.counts[BEFORE]:
            out = terminal.console()
            terminal.say(out, f"answers: {before} of {total} were there already, in {store.folder}")
        return members

    def _judge(
        self,
        store: Store,
        suites: Sequence[Suited],
        members: Mapping[str, Sequence[Member]],
        skipped: Sequence[Skipped],
        session: Session,
    ) -> int:
        out, statuses, ranked = terminal.console(), set[int](), list[Ranked]()
        unfit = fits_no_suite([one for some in members.values() for one in some], store)
        for one in suites:
            suite = load_suite(store.suite_path(one.digest))
            judge = judge_of(self.judging, session, Offer.of(suite))
            stored = store.calibration_path(one.digest)
            calibration = judge.load_calibration(stored, suite) if stored.is_file() else judge.calibrate(suite, [])
            warn_of(calibration)
            outcome = judge_stored(
                *(suite, calibration, members[one.digest], judge, store),
                session=session,
                unfit=unfit,
                skipped=skipped,
            )
            terminal.say(out, f"victim      {one.victim} ({one.name})")
            display.show_report(out, outcome, self.many)
            statuses.add(status_of(outcome, strict=self.many.strict))
            ranked.append(self._write(store, one, suites, outcome))
        made = self.kept.made()
        storage.write_bytes(store.folder / PAGE, html_of(fleet_page(ranked, made)).encode())
        terminal.say(out, f"page: {store.folder / PAGE}")
        order = (FAILED, COPY) if self.many.strict else (COPY, FAILED)
        return next((status for status in (*order, INCONCLUSIVE) if status in statuses), NO_COPY)

    def _write(self, store: Store, one: Suited, suites: Sequence[Suited], outcome: AuditOutcome) -> Ranked:
        name = Path(one.name).stem
        if sum(Path(other.name).stem == name for other in suites) > 1:
            name = f"{name}-{one.digest[:8]}"
        report = audit_report(outcome, self.kept.made())
        path = store.folder / "reports" / f"{name}.json"
        storage.write_bytes(path, dump(report).encode())
        storage.write_bytes(path.with_suffix(".html"), render_html(report))
        terminal.say(terminal.console(), f"report: {path}")
        return Ranked(report, f"reports/{name}.html")

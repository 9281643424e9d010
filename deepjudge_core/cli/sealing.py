"""What commitments and bundles are to ``judge`` and ``audit``."""

from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.auditing.session import Listener, QueryEvent, Session
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.bundles.bundle import BundleWriter
from deepjudge_core.bundles.commitment import Commitment, CommitmentError, Terms, check_terms, load_commitment
from deepjudge_core.bundles.manifest import MANIFEST, RUNS
from deepjudge_core.bundles.register import add_run, read_register, run_of
from deepjudge_core.bundles.settings import BundleSettings
from deepjudge_core.bundles.signing import load_signer
from deepjudge_core.bundles.timestamp import load_response
from deepjudge_core.bundles.victim import VictimCommitment, load_victim
from deepjudge_core.cli import terminal
from deepjudge_core.errors import FileFormatError, UsageError
from deepjudge_core.files.documents import plain
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.judge import Judge
from deepjudge_core.report.documents import AuditReport
from deepjudge_core.report.pages.any import Seal
from deepjudge_core.suites.suite import Suite

_MADE_ANEW = (
    "an audit makes a new suite and calibration, which can differ on other machines, with "
    "other versions or other file names; to judge by those committed to, run: deepjudge "
    "judge SUITE SUSPECT... --calibration CALIBRATION -o DIR"
)


def committed(settings: BundleSettings) -> tuple[Commitment | None, bytes | None]:
    """What was committed to, and the response that stamps it.

    Raises:
        DeepJudgeError: When they cannot be read, or do not belong together.
    """
    if settings.commitment is None:
        if settings.tsa_response is not None:
            text = f"{settings.tsa_response}: expected also the commitment that it time-stamps, found none"
            raise UsageError(text, code="missing-value")
        return None, None
    commitment = load_commitment(settings.commitment)
    return commitment, load_response(settings.tsa_response, commitment.data) if settings.tsa_response else None


def committed_victim(settings: BundleSettings) -> tuple[VictimCommitment | None, bytes | None]:
    """The commitment to the victim, and the response that stamps it.

    Raises:
        DeepJudgeError: When they cannot be read, or do not belong together.
    """
    response = settings.victim_tsa_response
    if settings.victim_commitment is None:
        if response is not None:
            text = f"{response}: expected also the commitment to the victim that it time-stamps, found none"
            raise UsageError(text, code="missing-value")
        return None, None
    victim = load_victim(settings.victim_commitment)
    return victim, load_response(response, victim.data) if response else None


def register(suite: Suite, calibration: Calibration | None, judge: Judge, outcome: AuditOutcome, path: Path) -> bytes:
    """Add a run to the register of its suite; where that cannot be written, one of this run alone.

    Args:
        suite: The suite.
        calibration: The controls.
        judge: By what was judged.
        outcome: What came of the suspects.
        path: Where the register is.

    Raises:
        FileFormatError: When the register is damaged.
    """
    settings = plain(Terms.of(suite.digest, calibration, judge))
    decided = [(one.model.digest if one.model else None, str(one.decision), one.points_to) for one in outcome.suspects]
    try:
        if (path.parent / MANIFEST).is_file():  # to a bundle nothing is added
            return run_of(suite.digest, decided, settings, read_register(path.parent / RUNS))
        return add_run(path, suite.digest, decided, settings)
    except FileFormatError as error:
        if error.code != "cannot-write":
            raise
        terminal.warn(f"this run was not registered: {error}")
        return run_of(suite.digest, decided, settings, b"")


class BundleSession(Listener):
    """Writes what comes of an audit as a bundle, and keeps it to what was committed to.

    Commitment and key are read at once, so that no model is run for nothing.

    Raises:
        CommitmentError: Here and later, with a line for each difference, before anything is written.
        DeepJudgeError: When the commitment or the key cannot be read.
    """

    def __init__(self, settings: BundleSettings, judge: Judge, folder: Path, session: Session) -> None:
        self.settings = settings
        self._plugins, self._reused = session.registry.plugins, False
        commitment, stamp = committed(settings)
        signer = load_signer(settings.key) if settings.key else None
        self._victim, victim_stamp = committed_victim(settings)
        self._committed = commitment.terms if commitment else None
        self._suspects = commitment.suspects if commitment else None
        self.register: bytes | None = None
        self._terms = Terms.of("", None, judge)
        if self._committed:
            # What is not made yet is taken to be what was promised.
            promised = replace(self._terms, suite=self._committed.suite, calibration=self._committed.calibration)
            if judge.settings.metrics is None:  # which depend on the suite
                judging = replace(promised.judging, metrics=self._committed.judging.metrics)
                promised = replace(promised, judging=judging, components=self._committed.components)
            check_terms(self._committed, promised)
            self._terms = promised
        self._writer = BundleWriter(
            folder,
            withhold=not settings.observations,
            commitment=commitment,
            stamp=stamp,
            victim=self._victim,
            victim_stamp=victim_stamp,
            signer=signer,
        )

    def spare(self, subjects: Iterable[Subject]) -> None:
        """Refuse what would be removed as an earlier audit's before it is asked.

        Raises:
            UsageError: Naming it.
        """
        for subject in subjects:
            if self._writer.replaces(Path(subject.name)):
                raise UsageError(
                    f"{subject.name}: expected a file outside the audit's output folder, found one of an "
                    "earlier audit in it, which would be removed; copy it to another folder",
                    code="would-overwrite",
                )

    def on_suite(self, suite: Suite) -> None:
        """Keep the suite, and log whether the victim was asked now."""
        self.keep_suite(suite, stored=self._reused)

    def on_suite_reused(self, suite: Suite) -> None:
        """Remember that the victim was asked before."""
        self._reused = True

    def on_judge(self, judge: Judge) -> None:
        """Keep by what is judged."""
        terms = Terms.of("", None, judge)
        self._terms = replace(self._terms, judging=terms.judging, components=terms.components)

    def on_answer(self, event: QueryEvent) -> None:
        """Keep what was answered."""
        answered = event.observation.model.digest if event.observation else None
        if event.role == "suspect" and self._suspects is not None and answered not in (None, *self._suspects):
            expected = f"{len(self._suspects)} suspects"
            raise CommitmentError((f"suspects: committed to {expected}, found another, {event.name} ({answered})",))
        self._writer.add_answer(event)

    def on_calibration(self, calibration: Calibration) -> None:
        """Keep the controls that have answered."""
        self.keep_calibration(calibration)

    def keep_suite(self, suite: Suite, *, stored: bool = False) -> None:
        """Keep the suite."""
        self._found(stored, suite=suite.digest)
        mistakes = tuple(self._victim.terms.mistakes(suite)) if self._victim else ()
        if suite.challenge and (self._victim is None or self._victim.digest != suite.challenge.commitment):
            wanted = suite.challenge.commitment
            mistakes += (f"victim: expected the commitment {wanted} of the suite's challenge, found another",)
        if mistakes:
            raise CommitmentError(mistakes)
        self._writer.add_suite(suite, stored=stored)

    def keep_calibration(self, calibration: Calibration, *, stored: bool = False) -> None:
        """Keep the calibration."""
        self._found(stored, calibration=calibration.digest if calibration.controls else None)
        self._writer.add_calibration(calibration, stored=stored)

    def dated(self, report: AuditReport) -> AuditReport:
        """A report that says since when its keys have been fixed, where a time-stamp tells."""
        return self._writer.dated(report)

    def finish(self, report: AuditReport) -> Seal:
        """Keep the report, and seal the bundle; what pages say of it."""
        return self._writer.finish(report, self._terms, self._plugins, self.register)

    def _found(self, stored: bool, **digests: str | None) -> None:
        self._terms = replace(self._terms, **digests)
        different = self._committed.differences(self._terms) if self._committed else ()
        if different:
            raise CommitmentError(different if stored else (*different, _MADE_ANEW))

"""The commands ``commit`` and ``verify``, and what commitments and bundles are to ``judge`` and ``audit``."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from deepjudge_core.auditing.session import Listener, QueryEvent, Session
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.bundles.bundle import BundleWriter, belongs_to
from deepjudge_core.bundles.commitment import (
    Commitment,
    CommitmentError,
    Terms,
    check_terms,
    dump_commitment,
    load_commitment,
)
from deepjudge_core.bundles.signing import load_public_key, load_signer
from deepjudge_core.bundles.timestamp import load_certificates, load_response, make_request
from deepjudge_core.bundles.verify import verify_bundle
from deepjudge_core.cli import arguments as typed
from deepjudge_core.cli import display
from deepjudge_core.cli.plan import BundleSettings
from deepjudge_core.cli.status import FAILED, NO_COPY
from deepjudge_core.errors import UsageError
from deepjudge_core.files import storage
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.judge import Judge
from deepjudge_core.report.documents import AuditReport
from deepjudge_core.suites.suite import Suite, load_suite

_MADE_ANEW = (
    "an audit makes suite and calibration anew, which come out otherwise on other machines, with other versions or "
    "names of files; by those committed to judges: deepjudge judge SUITE SUSPECT... --calibration CALIBRATION -o DIR"
)
_MOST_FINDINGS = 50  # that are told


def run_commit(arguments: argparse.Namespace) -> int:
    """Write down by what suspects are going to be judged."""
    session = Session(typed.registry())
    if arguments.request and arguments.request.absolute() == arguments.output.absolute():
        raise UsageError(f"{arguments.output}: expected a file for the commitment and one for the request, found one")
    signer = load_signer(arguments.key) if arguments.key else None
    suite, judge = load_suite(arguments.suite), typed.judge(arguments, session)
    calibration = judge.load_calibration(arguments.calibration, suite) if arguments.calibration else None
    terms = Terms.of(suite.digest, calibration, judge)
    data = dump_commitment(terms, arguments.suite, arguments.calibration, signer)
    request = make_request(data, arguments.output) if arguments.request else None
    storage.write_bytes(arguments.output, data)
    if request:
        storage.write_bytes(arguments.request, request)
    out = display.console()
    display.say(out, f"suite       {terms.suite}")
    display.say(out, f"calibration {terms.calibration or 'none'}")
    display.say(out, f"rule        {judge.rule.name} ({terms.components[f'rule {judge.rule.name}']})")
    display.say(out, f"metrics     {', '.join(terms.judging.metrics)}")
    display.say(out, f"signed by   {signer.public if signer else 'nobody'}")
    display.say(out, f"commitment: {arguments.output}")
    if request:
        display.say(out, f"request of a time-stamp: {arguments.request}")
    return NO_COPY


def run_verify(arguments: argparse.Namespace) -> int:
    """Verify a bundle."""
    if not arguments.bundle.is_dir():
        raise UsageError(f"{arguments.bundle}: expected the folder of a bundle, found none")
    public_key = load_public_key(arguments.public_key) if arguments.public_key else None
    certificates = load_certificates(arguments.tsa_certificate) if arguments.tsa_certificate else None
    found = verify_bundle(arguments.bundle, public_key, certificates, session=Session(typed.registry()))
    out = display.console()
    if found.digest:
        display.say(out, f"manifest    {found.digest}")
    if found.signed_by:
        display.say(out, f"signed by   {found.signed_by}")
    if found.stamp:
        checked = "" if found.stamp.verified else ", not verified"
        display.say(out, f"committed   {found.stamp.time:%Y-%m-%dT%H:%M:%SZ} or before{checked}")
    for line in found.notes:
        display.say(out, f"note        {line}")
    for line in found.findings[:_MOST_FINDINGS]:
        display.say(out, f"wrong       {line}")
    if len(found.findings) > _MOST_FINDINGS:
        display.say(out, f"wrong       and {len(found.findings) - _MOST_FINDINGS} more")
    if not found.verified:
        outcome = "NOT verified"
    elif found.recomputed:
        outcome = f"verified, {found.recomputed} verdict{'s' * (found.recomputed != 1)} recomputed"
    else:
        outcome = "unchanged, no verdict recomputed"
    display.say(out, f"{arguments.bundle}: {outcome}")
    return NO_COPY if found.verified else FAILED


def seal_judged(
    arguments: argparse.Namespace, judge: Judge, suite: Suite, calibration: Calibration, session: Session
) -> "BundleSession | None":
    """What keeps ``judge`` to what was committed to, and writes its bundle; None where it is to write none.

    Raises:
        CommitmentError: With a line for each difference.
        DeepJudgeError: When the commitment, its time-stamp or the key cannot be read.
        UsageError: For options that a bundle cannot be written by.
    """
    sealing = BundleSettings(arguments.commitment, arguments.key, arguments.without_observations, arguments.tsa)
    if arguments.output is None:
        if sealing.key or sealing.withhold:
            option = "--key" if sealing.key else "--without-observations"
            raise UsageError(f"{option}: expected the folder of the bundle that it is said of (-o DIR), found none")
        commitment, _ = _committed(sealing)
        if commitment:
            check_terms(commitment.terms, Terms.of(suite.digest, calibration, judge))
        return None
    if judge.settings.sequential:
        raise UsageError("--sequential: expected no -o: a bundle holds the answers to all cases")
    folder = typed.folder(arguments.output)
    read = [arguments.suite, arguments.calibration, sealing.commitment, sealing.stamp, sealing.key]
    for path in [*filter(None, read), *map(Path, arguments.suspects)]:
        if belongs_to(path, folder):
            raise UsageError(f"{path}: expected a file outside {folder}, which is written anew; take another folder")
    if arguments.json and belongs_to(arguments.json, folder):
        raise UsageError(f"{arguments.json}: expected a file outside {folder}, which gets a report.json of its own")
    sealed = BundleSession(sealing, judge, folder, session)
    sealed.keep_suite(suite, stored=True)
    sealed.keep_calibration(calibration, stored=True)
    return sealed


def _committed(sealing: BundleSettings) -> tuple[Commitment | None, bytes | None]:
    # What was committed to, and the response that stamps it.
    if sealing.commitment is None:
        if sealing.stamp is not None:
            raise UsageError(f"{sealing.stamp}: expected the commitment that it is the time-stamp of, found none")
        return None, None
    commitment = load_commitment(sealing.commitment)
    return commitment, load_response(sealing.stamp, commitment.data) if sealing.stamp else None


class BundleSession(Listener):
    """Writes what comes of an audit as a bundle, and keeps it to what was committed to.

    Commitment and key are read at once, so that no model is run for nothing.

    Raises:
        CommitmentError: Here and later, with a line for each difference, before anything is written.
        DeepJudgeError: When the commitment or the key cannot be read.
    """

    def __init__(self, sealing: BundleSettings, judge: Judge, folder: Path, session: Session) -> None:
        self._plugins = session.registry.plugins
        commitment, stamp = _committed(sealing)
        signer = load_signer(sealing.key) if sealing.key else None
        self._committed = commitment.terms if commitment else None
        self._terms = Terms.of("", None, judge)
        if self._committed:
            # What is not made yet is taken to be what was promised.
            promised = replace(self._terms, suite=self._committed.suite, calibration=self._committed.calibration)
            check_terms(self._committed, promised)
            self._terms = promised
        self._writer = BundleWriter(
            folder, withhold=sealing.withhold, commitment=commitment, stamp=stamp, signer=signer
        )

    def spare(self, subjects: Iterable[Subject]) -> None:
        """Refuse what would be removed as an earlier audit's before it is asked.

        Raises:
            UsageError: Naming it.
        """
        for subject in subjects:
            if self._writer.replaces(Path(subject.name)):
                raise UsageError(
                    f"{subject.name}: expected a file outside the folder that the audit writes to, found one of an "
                    "earlier audit there, which is removed: copy it to another folder"
                )

    def on_suite(self, suite: Suite) -> None:
        """Keep the suite that was made."""
        self.keep_suite(suite)

    def on_answer(self, event: QueryEvent) -> None:
        """Keep what was answered."""
        self._writer.add_answer(event)

    def on_calibration(self, calibration: Calibration) -> None:
        """Keep the controls that have answered."""
        self.keep_calibration(calibration)

    def keep_suite(self, suite: Suite, *, stored: bool = False) -> None:
        """Keep the suite."""
        self._found(stored, suite=suite.digest)
        self._writer.add_suite(suite, stored=stored)

    def keep_calibration(self, calibration: Calibration, *, stored: bool = False) -> None:
        """Keep the calibration."""
        self._found(stored, calibration=calibration.digest if calibration.controls else None)
        self._writer.add_calibration(calibration, stored=stored)

    def finish(self, report: AuditReport) -> None:
        """Keep the report, and seal the bundle."""
        self._writer.finish(report, self._terms, self._plugins)

    def _found(self, stored: bool, **made: str | None) -> None:
        self._terms = replace(self._terms, **made)
        different = self._committed.differences(self._terms) if self._committed else ()
        if different:
            raise CommitmentError(different if stored else (*different, _MADE_ANEW))

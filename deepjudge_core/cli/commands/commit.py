"""``deepjudge commit``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deepjudge_core.auditing.session import Session
from deepjudge_core.bundles.commitment import Terms, dump_commitment
from deepjudge_core.bundles.register import head_of, read_register, register_beside
from deepjudge_core.bundles.signing import Signer, load_signer
from deepjudge_core.bundles.timestamp import make_request
from deepjudge_core.bundles.victim import dump_victim
from deepjudge_core.cli import terminal
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.sources import MODELS, begun, expand, judge_of
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.components.opening import digested
from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.files.digests import FileDigests
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.settings import Names, argument, part, setting
from deepjudge_core.suites.choice import GeneratorChoice
from deepjudge_core.suites.keys import names_of
from deepjudge_core.suites.observation import load_observation
from deepjudge_core.suites.profile import choices_of, chosen_otherwise
from deepjudge_core.suites.settings import ArraySettings, InputSettings, SuiteSettings
from deepjudge_core.suites.suite import load_suite


@dataclass(frozen=True, kw_only=True)
class CommitCommand(Command):
    """Record what is fixed before a dispute or an audit: the victim, or how suspects will be judged."""

    usage = (
        "SUITE [CALIBRATION] [--suspects SUSPECT,...] [options] -o COMMITMENT.json",
        "--model VICTIM [--inputs DATA] [options] -o COMMITMENT.json",
    )

    suite: Path | None = argument(
        "SUITE", "the suite, from 'deepjudge suite'", default=None, reads=True, unless=("--model", "")
    )
    calibration: Path | None = argument(
        "CALIBRATION", "the calibration, from 'deepjudge calibrate'", default=None, reads=True
    )
    model: Path | None = setting(
        "commit to your model alone, the victim, so that a time-stamp shows since when it has existed",
        "--model",
        default=None,
        group="input",
        metavar="VICTIM",
        reads=True,
    )
    inputs: Path | None = setting(
        "with --model: commit also to the inputs, and to how the suite will be made, before you ask for a challenge",
        "--inputs",
        default=None,
        group="input",
        metavar="DATA",
        reads=True,
    )
    suspects: Annotated[tuple[str, ...], Names()] = setting(
        f"commit also to which suspects will be judged, by their SHA-256: {MODELS}",
        "--suspects",
        default=(),
        group="input",
        metavar="SUSPECT,...",
        reads=True,
    )
    reading: ArraySettings = part(ArraySettings)
    making: SuiteSettings = part(SuiteSettings)
    judging: JudgeSettings = part(JudgeSettings)
    key: Path | None = setting(
        "sign the commitment with this Ed25519 private key in PEM",
        "--key",
        default=None,
        group="bundle",
        metavar="PEM",
        reads=True,
    )
    tsa_request: Path | None = setting(
        "also write a time-stamp request (RFC 3161), which you send to a time-stamping authority "
        "to prove when the commitment existed",
        "--tsa-request",
        default=None,
        group="bundle",
        metavar="REQUEST.tsq",
        formerly=("--tsa",),
        writes=True,
    )
    output: Path = setting(
        "file for the commitment",
        "-o",
        "--out",
        group="output",
        metavar="COMMITMENT.json",
        writes=True,
        formerly=("--output",),
    )

    def run(self) -> int:
        """Write the commitment."""
        session = begun()
        if self.tsa_request and self.tsa_request.absolute() == self.output.absolute():
            raise UsageError(
                f"{self.output}: expected two different files for the commitment and the request, found one",
                code="would-overwrite",
            )
        self._check()
        signer = load_signer(self.key) if self.key else None
        if self.model is not None:
            data, lines = self._of_victim(self.model, session, signer)
        else:
            data, lines = self._of_terms(session, signer)
        request = make_request(data, self.output) if self.tsa_request else None
        storage.write_bytes(self.output, data)
        if request and self.tsa_request:
            storage.write_bytes(self.tsa_request, request)
        out = terminal.console()
        for line in lines:
            terminal.say(out, line)
        terminal.say(out, f"signed by   {signer.public if signer else 'nobody'}")
        terminal.say(out, f"commitment: {self.output}")
        if request:
            terminal.say(out, f"time-stamp request: {self.tsa_request}")
        return NO_COPY

    def _check(self) -> None:
        # What belongs to the one kind of commitment says nothing in the other.
        if self.suite is not None and self.model is not None:
            raise UsageError("expected SUITE, or --model VICTIM, found both; leave one out", code="conflict")
        chosen = bool(chosen_otherwise(choices_of(self.making)))
        if self.model is None and (self.inputs or chosen):
            text = "--inputs and options of the suite go with --model; a suite that was made has its own"
            raise UsageError(text, code="conflict")
        if self.model is not None and (self.suspects or self.calibration):
            raise UsageError("--suspects and CALIBRATION go with SUITE, found --model", code="conflict")
        if self.model is not None and self.inputs is None and chosen:
            raise UsageError("options of the suite go with --inputs, found none", code="missing-value")

    def _of_terms(self, session: Session, signer: Signer | None) -> tuple[bytes, list[str]]:
        assert self.suite is not None  # noqa: S101 - refused otherwise
        suite = load_suite(self.suite)
        judge = judge_of(self.judging, session, Offer.of(suite))
        calibration = judge.load_calibration(self.calibration, suite) if self.calibration else None
        terms = Terms.of(suite.digest, calibration, judge)
        suspects = [self._digest(name, session) for name in expand(self.suspects, session.registry.adapters).models]
        runs = head_of(read_register(register_beside(self.suite)))
        data = dump_commitment(
            terms, self.suite, self.calibration, signer, suspects=suspects, runs=runs if runs.count else None
        )
        rule = judge.rule.name
        return data, [
            f"suite       {terms.suite}",
            f"calibration {terms.calibration or 'none'}",
            f"rule        {rule} ({terms.components[f'rule {rule}']})",
            f"metrics     {', '.join(terms.judging.metrics)}",
            *([f"keys        {', '.join(names_of(suite.keys))}"] if suite.keys else []),
            *([f"suspects    {len(set(suspects))}"] if suspects else []),
            *([f"runs        {runs.count} before, with the head {runs.head}"] if runs.count else []),
        ]

    def _of_victim(self, model: Path, session: Session, signer: Signer | None) -> tuple[bytes, list[str]]:
        digests, origin, choices = self._digests(model, session), None, None
        if self.inputs is not None:
            reading = InputSettings(**vars(self.reading), path=self.inputs)
            generators = GeneratorChoice.of(self.making, session.registry.generators)
            origin, choices = reading.load().origin, choices_of(self.making, generators)
        data = dump_victim(model, digests, inputs=origin, suite=choices, signer=signer)
        otherwise = {} if choices is None else chosen_otherwise(choices)
        return data, [
            f"victim      {digests.digest}",
            *([f"inputs      {origin.digest}"] if origin else []),
            *([f"options     {', '.join(otherwise) or 'standard'}"] if choices else []),
        ]

    def _digest(self, name: str, session: Session) -> str:
        if storage.is_own(Path(name)):
            return load_observation(name).model.digest
        return self._digests(Path(name), session).digest

    def _digests(self, path: Path, session: Session) -> FileDigests:
        try:
            return digested(path, session.registry.adapters.of_file(path, str(path)))
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}", code="cannot-open") from None

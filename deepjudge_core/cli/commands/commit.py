"""``deepjudge commit``."""

from dataclasses import dataclass
from pathlib import Path

from deepjudge_core.bundles.commitment import Terms, dump_commitment
from deepjudge_core.bundles.signing import load_signer
from deepjudge_core.bundles.timestamp import make_request
from deepjudge_core.cli import display
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.sources import begun, judge_of
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.errors import UsageError
from deepjudge_core.files import storage
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.suites.suite import load_suite


@dataclass(frozen=True, kw_only=True)
class CommitCommand(Command):
    """Record, before any suspect is queried, how suspects will be judged."""

    suite: Path = argument("SUITE", "the suite, from 'deepjudge suite'", reads=True)
    calibration: Path | None = argument(
        "CALIBRATION", "the calibration, from 'deepjudge calibrate'", default=None, reads=True
    )
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
        signer = load_signer(self.key) if self.key else None
        suite = load_suite(self.suite)
        judge = judge_of(self.judging, session, Offer.of(suite))
        calibration = judge.load_calibration(self.calibration, suite) if self.calibration else None
        terms = Terms.of(suite.digest, calibration, judge)
        data = dump_commitment(terms, self.suite, self.calibration, signer)
        request = make_request(data, self.output) if self.tsa_request else None
        storage.write_bytes(self.output, data)
        if request and self.tsa_request:
            storage.write_bytes(self.tsa_request, request)
        out = display.console()
        rule = judge.rule.name
        display.say(out, f"suite       {terms.suite}")
        display.say(out, f"calibration {terms.calibration or 'none'}")
        display.say(out, f"rule        {rule} ({terms.components[f'rule {rule}']})")
        display.say(out, f"metrics     {', '.join(terms.judging.metrics)}")
        display.say(out, f"signed by   {signer.public if signer else 'nobody'}")
        display.say(out, f"commitment: {self.output}")
        if request:
            display.say(out, f"time-stamp request: {self.tsa_request}")
        return NO_COPY

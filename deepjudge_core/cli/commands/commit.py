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
    """Write down by what suspects are going to be judged, before they are asked."""

    suite: Path = argument("SUITE", "from 'deepjudge suite'", reads=True)
    calibration: Path | None = argument("CALIBRATION", "from 'deepjudge calibrate'", default=None, reads=True)
    judging: JudgeSettings = part(JudgeSettings)
    key: Path | None = setting(
        "sign what is written with this Ed25519 private key in PEM",
        "--key",
        default=None,
        group="bundle",
        metavar="PEM",
        reads=True,
    )
    tsa_request: Path | None = setting(
        "write what asks a time-stamping authority (RFC 3161) to say since when the commitment is there; you send it",
        "--tsa-request",
        default=None,
        group="bundle",
        metavar="REQUEST.tsq",
        formerly=("--tsa",),
        writes=True,
    )
    output: Path = setting(
        "where the commitment goes",
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
                f"{self.output}: expected a file for the commitment and one for the request, found one",
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
            display.say(out, f"request of a time-stamp: {self.tsa_request}")
        return NO_COPY

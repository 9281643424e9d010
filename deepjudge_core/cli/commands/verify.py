"""``deepjudge verify``."""

from dataclasses import dataclass
from pathlib import Path

from deepjudge_core.bundles.manifest import MANIFEST
from deepjudge_core.bundles.settings import VerifySettings
from deepjudge_core.bundles.signing import load_public_key
from deepjudge_core.bundles.timestamp import load_certificates
from deepjudge_core.bundles.verify import Verification, verify_bundle
from deepjudge_core.cli import display
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.sources import begun
from deepjudge_core.cli.status import FAILED, INCONCLUSIVE, NO_COPY, VERIFIED
from deepjudge_core.errors import UsageError
from deepjudge_core.settings import argument, part
from deepjudge_core.text import counted

_MOST_FINDINGS = 50  # that are told


@dataclass(frozen=True, kw_only=True)
class VerifyCommand(Command):
    """Check the bundle of an audit without any model."""

    statuses = VERIFIED

    bundle: Path = argument("DIR", "the folder that 'deepjudge audit' wrote")
    origin: VerifySettings = part(VerifySettings)

    def run(self) -> int:
        """Verify the bundle, and say what is wrong with it."""
        if not self.bundle.is_dir():
            raise UsageError(
                f"{self.bundle}: expected the folder of a bundle, found none; 'deepjudge audit' and "
                "'deepjudge judge -o DIR' write one"
            )
        key, certificate = self.origin.public_key, self.origin.tsa_certificate
        public_key = load_public_key(key) if key else None
        certificates = load_certificates(certificate) if certificate else None
        page = self.origin.page
        verification = verify_bundle(self.bundle, public_key, certificates, page=page, session=begun())
        self._show(verification)
        if verification.findings:
            return FAILED
        return INCONCLUSIVE if verification.unchecked else NO_COPY

    def _show(self, verification: Verification) -> None:
        out = display.console()
        if verification.digest:
            display.say(out, f"manifest    {verification.digest}")
        if verification.signed_by:
            display.say(out, f"signed by   {verification.signed_by}")
        if verification.stamp:
            checked = "" if verification.stamp.verified else ", not verified"
            display.say(out, f"committed   {verification.stamp.time:%Y-%m-%dT%H:%M:%SZ} or before{checked}")
        for kind, lines in (
            ("claim", verification.claims),
            ("note", verification.notes),
            ("unchecked", verification.unchecked),
        ):
            for line in lines:
                display.say(out, f"{kind:<11} {line}")
        if not (self.bundle / MANIFEST).is_file():
            display.say(out, "note        expected a folder that 'deepjudge audit' or 'deepjudge judge -o DIR' wrote")
        for line in verification.findings[:_MOST_FINDINGS]:
            display.say(out, f"wrong       {line}")
        if len(verification.findings) > _MOST_FINDINGS:
            display.say(out, f"wrong       and {len(verification.findings) - _MOST_FINDINGS} more")
        verdicts = counted(verification.recomputed, "verdict") if verification.recomputed else "no verdict"
        if verification.findings:
            outcome = "NOT verified"
        elif verification.unchecked:
            outcome = f"nothing wrong, but not everything could be checked, {verdicts} recomputed"
        else:
            outcome = f"verified, {verdicts} recomputed"
        display.say(out, f"{self.bundle}: {outcome}")

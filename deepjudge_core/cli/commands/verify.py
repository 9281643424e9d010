"""``deepjudge verify``."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.bundles.manifest import MANIFEST, SUITE
from deepjudge_core.bundles.remake import differences, remade
from deepjudge_core.bundles.settings import VerifySettings
from deepjudge_core.bundles.signing import load_public_key
from deepjudge_core.bundles.timestamp import load_certificates
from deepjudge_core.bundles.verify import Verification, verify_bundle
from deepjudge_core.cli import terminal
from deepjudge_core.cli.applying import options_of_each
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.sources import begun
from deepjudge_core.cli.status import FAILED, INCONCLUSIVE, NO_COPY, VERIFIED
from deepjudge_core.errors import DeepJudgeError, UsageError
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings, layout_setting, victim_input_setting
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.suites.inputs import Offered
from deepjudge_core.suites.settings import ArraySettings, InputSettings
from deepjudge_core.suites.suite import Suite, load_suite
from deepjudge_core.text import counted
from deepjudge_core.types import Layout

_MOST_FINDINGS = 50  # that are told


@dataclass(frozen=True, kw_only=True)
class VerifyCommand(Command):
    """Check the bundle of an audit: without any model, or by making its suite again."""

    statuses = VERIFIED

    bundle: Path = argument("DIR", "the folder that 'deepjudge audit' wrote", reads=True)
    origin: VerifySettings = part(VerifySettings)
    remake: Path | None = setting(
        "make the suite again from this model, the victim, and compare; needs --inputs, and how models and inputs are "
        "read if their files do not tell",
        "--remake",
        default=None,
        group="input",
        metavar="VICTIM",
        reads=True,
    )
    inputs: Path | None = setting(
        "inputs that the suite was made from, with --remake",
        "--inputs",
        default=None,
        group="input",
        metavar="DATA",
        reads=True,
    )
    reading: ArraySettings = part(ArraySettings)
    opening: OpeningSettings = part(OpeningSettings)
    layout: Layout | None = layout_setting()
    preprocessing: Preprocessing | None = victim_input_setting()
    confinement: Confinement = part(Confinement)

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
        if (self.remake is None) != (self.inputs is None):
            missing = "--inputs" if self.inputs is None else "--remake"
            raise UsageError(f"expected --remake and --inputs together, found no {missing}", code="missing-value")
        page, session = self.origin.page, begun(self.confinement)
        verification = verify_bundle(self.bundle, public_key, certificates, page=page, session=session)
        if self.remake and self.inputs and not verification.findings:
            verification = self._remade(verification, self.remake, self.inputs, session)
        self._show(verification)
        if verification.findings:
            return FAILED
        return INCONCLUSIVE if verification.unchecked else NO_COPY

    def _remade(self, verification: Verification, model: Path, path: Path, session: Session) -> Verification:
        # With the answers of the victim itself: what nothing in the bundle could show.
        if not (self.bundle / SUITE).is_file():
            line = f"{SUITE} was withheld, so it could not be made again"
            return replace(verification, unchecked=(*verification.unchecked, line))
        suite = load_suite(self.bundle / SUITE)
        [options] = options_of_each([str(model)], self.opening.options, session.registry.adapters)
        query = QuerySettings(layout=self.layout, preprocessing=self.preprocessing)
        try:
            again = remade(suite, ModelFile(model, options, query=query), self._offered(suite, path), session)
            findings, note = differences(suite, again)
        except UsageError:
            raise
        except DeepJudgeError as error:
            findings, note = (str(error),), ""
        if not findings:
            return replace(verification, notes=(*verification.notes, f"{SUITE}: {note}"))
        lines = tuple(f"{SUITE}: made again: {line}" for line in findings)
        return replace(verification, findings=(*verification.findings, *lines))

    def _offered(self, suite: Suite, path: Path) -> Offered:
        # Read as the suite says, unless somebody says it here.
        known = dict(suite.origin.options) if suite.origin else {}
        reading: dict[str, Any] = {name: known[name] for name in ("x", "y", "scale", "resize") if name in known}
        reading |= {name: value for name, value in vars(self.reading).items() if value is not None}
        training = known.get("training-inputs")
        return InputSettings(
            **reading,
            path=path,
            labels="victim" if suite.label_origin == "victim" else "file",
            training=str(path.parent / str(training)) if training else None,
            layout=self.layout or known.get("layout"),
        ).load()

    def _show(self, verification: Verification) -> None:
        out = terminal.console()
        if verification.digest:
            terminal.say(out, f"manifest    {verification.digest}")
        if verification.signed_by:
            terminal.say(out, f"signed by   {verification.signed_by}")
        if verification.stamp:
            checked = "" if verification.stamp.verified else ", not verified"
            terminal.say(out, f"committed   {verification.stamp.time:%Y-%m-%dT%H:%M:%SZ} or before{checked}")
        for kind, lines in (
            ("claim", verification.claims),
            ("note", verification.notes),
            ("unchecked", verification.unchecked),
        ):
            for line in lines:
                terminal.say(out, f"{kind:<11} {line}")
        if not (self.bundle / MANIFEST).is_file():
            terminal.say(out, "note        expected a folder that 'deepjudge audit' or 'deepjudge judge -o DIR' wrote")
        for line in verification.findings[:_MOST_FINDINGS]:
            terminal.say(out, f"wrong       {line}")
        if len(verification.findings) > _MOST_FINDINGS:
            terminal.say(out, f"wrong       and {len(verification.findings) - _MOST_FINDINGS} more")
        verdicts = counted(verification.recomputed, "verdict") if verification.recomputed else "no verdict"
        if verification.findings:
            outcome = "NOT verified"
        elif verification.unchecked:
            outcome = f"nothing wrong, but not everything could be checked, {verdicts} recomputed"
        else:
            outcome = f"verified, {verdicts} recomputed"
        terminal.say(out, f"{self.bundle}: {outcome}")

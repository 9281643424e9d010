"""``deepjudge key``."""

from dataclasses import dataclass, replace
from pathlib import Path

from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.cli import terminal
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.retyping import command_line, shared_options
from deepjudge_core.cli.sources import begun, file_to_write, load
from deepjudge_core.cli.sparing import spare
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.components.registry import Configured
from deepjudge_core.components.schemes import Key, Scheme
from deepjudge_core.errors import FileFormatError, UsageError
from deepjudge_core.marking.making import key_of
from deepjudge_core.marking.settings import KeySettings
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings, layout_setting, victim_input_setting
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.suites.keys import load_key, save_key, sheet_of_key
from deepjudge_core.suites.settings import InputSettings
from deepjudge_core.types import Layout
from deepjudge_core.zoo.manifest import load_zoo

_SUITE = "suite.safetensors"
_TRAINING = "TRAIN"  # what stands for training data that are not known here


@dataclass(frozen=True, kw_only=True)
class KeyCommand(Command):
    """Make the secret key of a watermark or fingerprint of your model."""

    scheme: str = argument("SCHEME", "the scheme, such as adi; 'deepjudge plugins' lists all", components="schemes")
    victim: Path = argument("VICTIM", "your model, before it is marked", reads=True)
    inputs: InputSettings = part(InputSettings)
    key: KeySettings = part(KeySettings)
    opening: OpeningSettings = part(OpeningSettings)
    layout: Layout | None = layout_setting()
    preprocessing: Preprocessing | None = victim_input_setting()
    confinement: Confinement = part(Confinement)
    output: Path = setting(
        "file for the key, which only you may read",
        "-o",
        "--out",
        group="output",
        metavar="KEY.safetensors",
        writes=True,
    )

    def run(self) -> int:
        """Make the key, and say what it is and what comes next."""
        session, out = begun(self.confinement), terminal.console()
        [scheme] = session.registry.schemes.configure([self.scheme], {self.scheme: self.key.options})
        file_to_write(self.output)
        nonce = None if self.key.nonce is None else bytes.fromhex(self.key.nonce)
        _spare_key(self.output, nonce)
        spare([self.victim], [self.output], models=session.registry.adapters)
        inputs = load(replace(self.inputs, layout=self.layout))
        if inputs is None:
            raise UsageError("expected inputs, found none", code="missing-value")
        auxiliary = None if self.key.auxiliary is None else self.inputs.auxiliary(self.key.auxiliary, self.layout)
        key = key_of(
            ModelFile(
                self.victim,
                self.opening.options,
                query=QuerySettings(layout=self.layout, preprocessing=self.preprocessing),
            ),
            scheme,
            inputs,
            auxiliary=auxiliary,
            zoo=None if self.key.zoo is None else load_zoo(self.key.zoo),
            nonce=nonce,
            session=session,
        )
        save_key(self.output, key)
        for line in sheet_of_key(key, scheme.component).text().splitlines():
            terminal.tell(out, line)
        terminal.say(out, f"next        {self._next(key, scheme)}")
        return NO_COPY

    def _next(self, key: Key, scheme: Configured[Scheme]) -> str:
        # A watermark is embedded first; of a fingerprint, the victim already answers as the key says.
        if scheme.component.embed is not None:
            marked = self.victim.with_name("marked" if self.victim.stem != "marked" else "marked-again")
            options = shared_options(self, "embed")
            return command_line("embed", self.victim, self.output, "--data", _TRAINING, *options, "-o", marked)
        options = shared_options(self, "suite")
        return command_line("suite", self.victim, *options, "--key", self.output, "-o", _SUITE)


def _spare_key(path: Path, nonce: bytes | None) -> None:
    # A key that is lost is lost for good: nothing but its nonce makes it again.
    if not path.is_file():
        return
    try:
        found = load_key(path)
    except FileFormatError:
        return
    if found.nonce != nonce:
        raise UsageError(
            f"{path}: expected a new file, found another key, which cannot be made again without its nonce; choose "
            "another name, or remove the key",
            code="would-overwrite",
        )

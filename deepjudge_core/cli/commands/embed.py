"""``deepjudge embed``."""

from dataclasses import dataclass
from pathlib import Path

from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.cli import terminal
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.retyping import command_line, shared_options
from deepjudge_core.cli.sources import begun, file_to_write, warn_of_bytes
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.components.schemes import Matches, Reading
from deepjudge_core.judging.exact import power_of_ten
from deepjudge_core.marking.settings import EmbedSettings
from deepjudge_core.marking.writing import MarkedModel, embed
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings, layout_setting, victim_input_setting
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.suites.inputs import Inputs
from deepjudge_core.suites.keys import load_keys
from deepjudge_core.suites.settings import ArraySettings
from deepjudge_core.types import Layout
from deepjudge_core.zoo.settings import DataSettings

_SUITE = "suite.safetensors"
_INPUTS = "INPUTS"  # what stands for inputs that are not known here


@dataclass(frozen=True, kw_only=True)
class EmbedCommand(Command):
    """Train your model until it carries the keys of watermarks, and write it as another model."""

    victim: Path = argument("VICTIM", "your model", reads=True)
    keys: tuple[Path, ...] = argument("KEY", "keys that 'deepjudge key' made; all are embedded at once", reads=True)
    data: DataSettings = part(DataSettings)
    arrays: ArraySettings = part(ArraySettings)
    embedding: EmbedSettings = part(EmbedSettings)
    opening: OpeningSettings = part(OpeningSettings)
    layout: Layout | None = layout_setting()
    preprocessing: Preprocessing | None = victim_input_setting()
    confinement: Confinement = part(Confinement)
    output: Path = setting(
        "file for the marked model; without an ending, it gets that of its format",
        "-o",
        "--out",
        group="output",
        metavar="MARKED",
        writes=True,
    )

    def run(self) -> int:
        """Embed the keys, and say what they cost and how much of them was learnt."""
        session, out = begun(self.confinement), terminal.console()
        file_to_write(self.output)
        keys = load_keys(self.keys)
        training = self.data.training(self.arrays, self.layout)
        if isinstance(training, Inputs):
            warn_of_bytes(training, self.data.data, self.arrays)
        marked = embed(
            ModelFile(
                self.victim,
                self.opening.options,
                query=QuerySettings(layout=self.layout, preprocessing=self.preprocessing),
            ),
            keys,
            training,
            self.output,
            test=self.data.tests(self.arrays, self.layout),
            settings=self.embedding,
            session=session,
        )
        for note in marked.notes:
            terminal.warn(note)
        terminal.say(out, f"accuracy    {marked.before:.2%} before, {marked.after:.2%} after")
        for name, reading in marked.readings.items():
            terminal.say(out, f"key         {name}: {_counted(reading)}")
        terminal.say(out, f"written     {marked.path}")
        terminal.say(out, f"next        {self._next(marked)}")
        return NO_COPY

    def _next(self, marked: MarkedModel) -> str:
        tests = self.data.test or (self.data.data if self.data.has_tests(self.arrays) else _INPUTS)
        keys = [word for key in self.keys for word in ("--key", key)]
        options = shared_options(self, "suite")
        return command_line("suite", marked.path, "--inputs", tests, *options, *keys, "-o", _SUITE)


def _counted(reading: Reading) -> str:
    chance = "" if reading.log10_p is None else f", p = {power_of_ten(reading.log10_p)}"
    if isinstance(reading, Matches):
        return f"{reading.found} of {reading.of} trials{chance}"
    return f"{reading.of} rows are answered better than expected, {reading.found} of them were trained on{chance}"

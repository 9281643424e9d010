"""The commands, one in each file: its settings, what it does, and how it ends.

Which there are, and what each does, is known without importing any: help on all of them is there at once.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from deepjudge_core.cli.command import Command


class Commands(Sequence["type[Command]"]):
    """The classes of commands, each imported when it is taken.

    Attributes:
        summaries: Name to what the command does, which is how its class's docstring begins.
    """

    def __init__(self, summaries: Mapping[str, str]) -> None:
        """Take the names and summaries, in the order of ``--help``."""
        self.summaries = MappingProxyType(dict(summaries))

    def called(self, name: str) -> "type[Command]":
        """The command of a name: ``new-plugin`` is ``NewPluginCommand`` in ``new_plugin.py``."""
        module = import_module(f"{__name__}.{name.replace('-', '_')}")
        command: type[Command] = getattr(module, f"{name.title().replace('-', '')}Command")
        return command

    @overload
    def __getitem__(self, place: int) -> "type[Command]": ...

    @overload
    def __getitem__(self, place: slice) -> "Sequence[type[Command]]": ...

    def __getitem__(self, place: int | slice) -> "type[Command] | Sequence[type[Command]]":
        """The command, or commands, of a place in the order."""
        names = list(self.summaries)[place]
        return self.called(names) if isinstance(names, str) else [self.called(name) for name in names]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.summaries)


COMMANDS = Commands(
    {
        "compare": "Compare the weights of suspects with the victim's; nothing is run, "
        "and neither data nor controls are needed.",
        "key": "Make the secret key of a watermark or fingerprint of your model.",
        "embed": "Train your model until it carries the keys of watermarks, and write it as another model.",
        "suite": "Make a suite from the victim: test cases, and sketches of its weights.",
        "observe": "Record a model's answers to a suite where the model is, to judge them elsewhere.",
        "calibrate": "Record the controls' answers to a suite, which set the thresholds.",
        "judge": "Judge whether suspects are copies of the victim.",
        "fleet": "Judge many suspects against many suites, on all cores, and keep what each answered.",
        "audit": "Make a suite, calibrate and judge suspects, all in one command.",
        "commit": "Record what is fixed before a dispute or an audit: the victim, or how suspects will be judged.",
        "verify": "Check the bundle of an audit: without any model, or by making its suite again.",
        "zoo": "Make controls and stolen models of the victim.",
        "power": "Say how many of a zoo's stolen models an audit would notice.",
        "report": "Write a stored report in a form for people.",
        "init": "Write an example AUDIT.toml file for you to fill in.",
        "plugins": "List the installed plugins, and any that fail.",
        "new-plugin": "Write the skeleton of a plugin, with its tests.",
        "show": "Describe a file or folder: what deepjudge wrote, inputs, or a model.",
    }
)
"""In the order of ``--help``."""

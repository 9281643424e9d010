"""``deepjudge new-plugin``."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from annotated_types import MinLen

from deepjudge_core.cli import terminal
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.retyping import shell_line
from deepjudge_core.cli.skeleton.making import NewPlugin, PluginKind
from deepjudge_core.cli.sources import begun
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.components.kinds import ALL_METRICS
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import UsageError
from deepjudge_core.files import storage
from deepjudge_core.settings import argument, setting


@dataclass(frozen=True, kw_only=True)
class NewPluginCommand(Command):
    """Write the skeleton of a plugin, with its tests."""

    name: str = argument("NAME", "name of the plugin, such as my-metric")
    kinds: Annotated[Sequence[PluginKind], MinLen(1)] | None = setting(
        "kinds of components that the plugin adds; all for one of each kind",
        "--kind",
        default=("metric",),
        word="all",
        group="general",
        metavar="KIND,...",
    )
    output: Path | None = setting(
        "folder for the plugin",
        "-o",
        "--out",
        default=None,
        group="output",
        metavar="DIR",
        usual="NAME",
        writes=True,
    )

    @classmethod
    def called(cls) -> str:
        """Its name."""
        return "new-plugin"

    def run(self) -> int:
        """Write the files, and say what to type next."""
        plugin = NewPlugin.of(self.name, self.kinds or get_args(PluginKind))
        folder = self.output or Path(self.name)
        _check_free(plugin, folder, begun().registry)
        for name, content in plugin.files().items():
            storage.write_bytes(folder / name, content.encode())
        out = terminal.console()
        terminal.say(out, f"written     {folder}: {plugin.gives('')}")
        terminal.say(out, f"next        {shell_line('pip', 'install', '-e', _as_path(folder))}")
        terminal.say(out, f"next        {shell_line('pytest', folder)}")
        terminal.say(out, "next        deepjudge plugins")
        return NO_COPY


def _check_free(plugin: NewPlugin, folder: Path, registry: Registry) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(f"{folder}: expected a new or empty folder, found one with files", code="would-overwrite")
    if importlib.util.find_spec(plugin.module) is not None:
        raise UsageError(
            f"{plugin.name}: expected an unused name, found an installed module {plugin.module}; choose another name",
            code="conflict",
        )
    taken: dict[PluginKind, set[str]] = {
        "metric": {*registry.metrics, ALL_METRICS},
        "rule": {*registry.rules},
        "generator": {*registry.generators},
        "attack": {*registry.attacks},
        "scheme": {*registry.schemes},
        "adapter": {adapter.name for adapter in registry.adapters.claimed()},
    }
    for kind, name in plugin.components.items():
        if name in taken[kind]:
            raise UsageError(
                f"{plugin.name}: expected an unused name, found a {kind} {name}; choose another name",
                code="conflict",
            )


def _as_path(folder: Path) -> str:
    # A name alone would be looked for on a package index.
    return f".{'/' if not folder.is_absolute() else ''}{folder}" if len(folder.parts) == 1 else str(folder)

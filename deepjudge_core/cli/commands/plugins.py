"""``deepjudge plugins``."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from deepjudge_core.cli import terminal
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.status import FAILED, NO_COPY
from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.options import Option, options_of
from deepjudge_core.components.registry import Component, Plugin, load_registry
from deepjudge_core.files import storage
from deepjudge_core.settings import setting
from deepjudge_core.text import LONGEST_LINE, clean

_GIVES_WIDTH = 72  # of what a plugin gives, which may be much


@dataclass(frozen=True, kw_only=True)
class PluginsCommand(Command):
    """List the installed plugins, and any that fail."""

    options: bool = setting(
        "also list the options of generators, rules and attacks", "--options", default=False, group="output"
    )
    json: Path | None = setting(
        "write the list as JSON; -, or no FILE, means standard output",
        "--json",
        default=None,
        group="output",
        metavar="FILE",
        bare="-",
        writes=True,
    )

    def run(self) -> int:
        """List the plugins."""
        registry = load_registry()
        if self.json:
            text = (
                json.dumps({"plugins": list(_plugins(registry.plugins)), "failures": registry.failures()}, indent=2)
                + "\n"
            )
            if str(self.json) == "-":
                sys.stdout.write(text)
            else:
                storage.write_bytes(self.json, text.encode())
        elif self.options:
            _show_options(terminal.console(), registry.plugins, registry.failures())
        else:
            show_plugins(terminal.console(), registry.plugins, registry.failures())
        return FAILED if registry.failures() else NO_COPY


def show_plugins(out: Console, plugins: Iterable[Plugin], failures: Iterable[str]) -> None:
    """What is installed, a row each, and what fails."""
    table = Table("plugin", "from", Column("gives", max_width=_GIVES_WIDTH))
    for plugin in plugins:
        gives = Text("failed", "bold red") if plugin.failure else Text(clean("; ".join(_by_kind(plugin)), LONGEST_LINE))
        table.add_row(Text(clean(plugin.name)), Text(clean(plugin.distribution)), gives)
    out.print(table)
    for line in failures:
        terminal.say(out, line)


def _show_options(out: Console, plugins: Iterable[Plugin], failures: Iterable[str]) -> None:
    # The options of all components that have any, a row each, and what fails.
    table = Table("kind", "component", "option", "type", "default", Column("meaning", max_width=_GIVES_WIDTH))
    for plugin in plugins:
        for component in plugin.components:
            for option in options_of(component):
                default = "" if option.required else str(option.default)
                cells = (_kind(component), component.name, option.name, option.words, default, option.help)
                table.add_row(*(Text(clean(cell, LONGEST_LINE)) for cell in cells))
    out.print(table)
    for line in failures:
        terminal.say(out, line)


def _by_kind(plugin: Plugin) -> Iterator[str]:
    named: dict[str, list[str]] = {}
    for component in plugin.components:
        optional = isinstance(component, Metric) and not plugin.offers(component)
        named.setdefault(("optional " if optional else "") + _kind(component), []).append(component.name)
    for word, names in named.items():
        yield f"{word} {', '.join(names)}"


def _kind(component: Component) -> str:
    return type(component).__name__.lower()


def _plugins(plugins: Iterable[Plugin]) -> Iterator[dict[str, Any]]:
    for plugin in plugins:
        yield {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "components": [_component(plugin, component) for component in plugin.components],
            "failure": plugin.failure,
        }


def _component(plugin: Plugin, component: Component) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": _kind(component), "name": component.name}
    if isinstance(component, Metric):
        values["default"] = plugin.offers(component)
    options = [_option(one) for one in options_of(component)]
    return values | ({"options": options} if options else {})


def _option(option: Option) -> dict[str, Any]:
    default = {} if option.required else {"default": option.default}
    return {"name": option.name, "type": option.words, **default, "help": option.help}

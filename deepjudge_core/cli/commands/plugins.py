"""``deepjudge plugins``."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepjudge_core.cli import display
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.status import FAILED, NO_COPY
from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.options import Option, options_of
from deepjudge_core.components.registry import Component, Plugin, load_registry
from deepjudge_core.files import storage
from deepjudge_core.settings import setting


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
            display.show_options(display.console(), registry.plugins, registry.failures())
        else:
            display.show_plugins(display.console(), registry.plugins, registry.failures())
        return FAILED if registry.failures() else NO_COPY


def _plugins(plugins: Iterable[Plugin]) -> Iterator[dict[str, Any]]:
    for plugin in plugins:
        yield {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "components": [_component(plugin, component) for component in plugin.components],
            "failure": plugin.failure,
        }


def _component(plugin: Plugin, component: Component) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": display.kind(component), "name": component.name}
    if isinstance(component, Metric):
        values["default"] = plugin.offers(component)
    options = [_option(one) for one in options_of(component)]
    return values | ({"options": options} if options else {})


def _option(option: Option) -> dict[str, Any]:
    default = {} if option.required else {"default": option.default}
    return {"name": option.name, "type": option.words, **default, "help": option.help}

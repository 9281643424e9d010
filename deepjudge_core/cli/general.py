"""What the command line as a whole and each command have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from deepjudge_core.cli.status import INTERRUPTED

if TYPE_CHECKING:
    from deepjudge_core.cli.command import Command

PROGRAM = "deepjudge"
GENERAL = (
    ("--debug", "show where an error comes from; works before and after the command"),
    ("-h, --help", "show this help"),
)
"""The options of all commands, and what each does."""
DEBUG = "debug"
"""Where the context keeps whether errors are shown with where they come from."""


@dataclass(frozen=True)
class Line:
    """A command line that was understood.

    Attributes:
        command: What it asks for; None where it was for a help text, which is written already.
        debug: Whether errors are to be shown with where they come from.
        remarks: What may be a mistake in it: a line for each.
    """

    command: "Command | None"
    debug: bool = False
    remarks: tuple[str, ...] = ()


def debug_option() -> click.Option:
    """The option that shows where an error comes from, before and behind the command alike."""
    return click.Option(
        [f"--{DEBUG}"], is_flag=True, help="Show where an error comes from.", expose_value=False, callback=_debug
    )


def _debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().meta[DEBUG] = True


def format_statuses(formatter: click.HelpFormatter, statuses: Mapping[int, str]) -> None:
    """Write what the exit status says."""
    with formatter.section("exit status"):
        formatter.write_dl([(str(status), text) for status, text in statuses.items() if status != INTERRUPTED])

"""Commands as a person would type them, of commands that were typed before."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from deepjudge_core.cli.command import Command
from deepjudge_core.cli.commands import COMMANDS
from deepjudge_core.models.preprocessing import Preprocessing

PROGRAM = "deepjudge"


def command_line(*words: object) -> str:
    """A line for a shell, such as ``deepjudge power suite.safetensors zoo -o power``."""
    return shell_line(PROGRAM, *words)


def shell_line(*words: object) -> str:
    """The same of any program."""
    return shlex.join(map(str, words))


def shared_options(command: Command, other: str) -> list[str]:
    """The options of a command that another one takes, too, with the values that are not the usual ones.

    Args:
        command: The one that was typed.
        other: Name of the one that is going to be.
    """
    theirs = [one.declared for one in COMMANDS.called(other).settings()]
    words = list[str]()
    for setting in command.settings():
        value = command.value_of(setting)
        if setting.declared.flags and setting.declared in theirs and value and value != setting.default:
            for text in _texts(value):
                words += [max(setting.declared.flags, key=len), text]
    return words


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from (f"{name}={_text(one)}" for name, one in value.items())
    else:
        yield _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Preprocessing):
        return value.header().typed()
    if isinstance(value, tuple):
        return ",".join(":".join(map(_text, one)) if isinstance(one, tuple) else _text(one) for one in value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)

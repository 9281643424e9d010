"""What commands call their settings, as ``flags.json`` beside this file says it: no command is imported for a message.

After a change of a setting, ``make docs`` writes the file.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("flags.json")


@cache
def flags() -> Mapping[str, str]:
    """What :func:`~deepjudge_core.cli.command.flags_of` says of all commands."""
    stored: Mapping[str, str] = json.loads(FILE.read_text(encoding="utf-8"))
    return stored


def dump_flags() -> str:
    """The file's text, by the settings that all commands declare."""
    from deepjudge_core.cli.command import flags_of
    from deepjudge_core.cli.commands import COMMANDS

    return json.dumps(flags_of(COMMANDS), indent=2, sort_keys=True) + "\n"


def write_flags() -> None:
    """Write the file."""
    FILE.write_text(dump_flags(), encoding="utf-8")

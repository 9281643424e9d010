"""``deepjudge init``."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from deepjudge_core.cli import terminal
from deepjudge_core.cli.auditfile.example import example, write_example
from deepjudge_core.cli.auditfile.keys import document
from deepjudge_core.cli.auditfile.schema import schema
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.commands.audit import AuditCommand
from deepjudge_core.cli.sources import begun
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.files import storage
from deepjudge_core.settings import argument, setting


@dataclass(frozen=True, kw_only=True)
class InitCommand(Command):
    """Write an example AUDIT.toml file for you to fill in."""

    file: Path = argument("FILE.toml", "file to write", default=Path("audit.toml"), writes=True)
    schema: Path | None = setting(
        "also write a JSON Schema of such files, with which editors complete and check them; the example refers to it",
        "--schema",
        default=None,
        group="output",
        metavar="FILE.json",
        writes=True,
    )

    def run(self) -> int:
        """Write the example, and the schema if it is asked for."""
        session, table = begun(), document(AuditCommand)
        named = Path(os.path.relpath(self.schema, self.file.parent)) if self.schema else None
        write_example(self.file, example(table, session, named))
        out = terminal.console()
        if self.schema:
            text = json.dumps(schema(table, session), indent=2) + "\n"
            storage.write_bytes(self.schema, text.encode())
            terminal.say(out, f"schema: {self.schema}")
        terminal.say(out, f"{self.file}: name your files in it, then run: deepjudge audit {self.file}")
        return NO_COPY

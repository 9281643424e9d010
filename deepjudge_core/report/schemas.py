"""The JSON Schemas of the reports, as they are published beside this file.

After a change of the types: ``python -m deepjudge_core.report.schemas``.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from deepjudge_core.report.documents import AUDIT, POWER, schema

FILES: Mapping[str, str] = {AUDIT: "schema.json", POWER: "power-schema.json"}
"""By the name of the schema."""


def dump_schema(name: str) -> str:
    """A schema as text."""
    return json.dumps(schema(name), indent=2) + "\n"


def main() -> None:
    """Write the files."""
    for name, file in FILES.items():
        Path(__file__).with_name(file).write_text(dump_schema(name), encoding="utf-8")


if __name__ == "__main__":
    main()

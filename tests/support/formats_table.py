"""Writes the table in docs/formats.md from what the tests hold of every format."""

import re

from networks.matrix import table
from places import ROOT

PAGE = ROOT / "docs" / "formats.md"
_TABLE = re.compile(
    r"(?<=<!-- The table: python tests/support/formats_table.py -->\n\n).*(?=\n<!-- End of the table -->)", re.DOTALL
)


def written(page: str) -> str:
    """A page with the table as it should be."""
    return _TABLE.sub(lambda _: table(), page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")

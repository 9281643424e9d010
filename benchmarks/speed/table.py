"""The table of the rows, and its place in the page of the benchmarks."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from timing import Cost

_PAGE = Path(__file__).resolve().parents[1] / "README.md"
_START, _END = "<!-- speed -->", "<!-- end of speed -->"
_HEADS = ("what", "processor time", "wall time", "goal", "met", "detail")
_LINE = re.compile(r"^\| (?P<what>.+?) \| .*\|$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: What is compared; rows are told apart by it.
        found: Ratios, or seconds.
        goal: What it should be at most, or at least.
        most: Whether the goal is the most that it should be.
        unit: ``s`` where it is no ratio.
        by_wall: Whether the goal is one of wall time, of what several processes do at once.
        detail: What a reader needs to repeat or doubt it.
    """

    what: str
    found: Cost
    goal: float
    most: bool = True
    unit: str = ""
    by_wall: bool = False
    detail: str = ""

    def line(self) -> str:
        """As a line of the table."""
        value = self.found.wall if self.by_wall else self.found.processor
        met = value <= self.goal if self.most else value >= self.goal
        cells = [
            self.what,
            self._text(self.found.processor),
            self._text(self.found.wall),
            f"{'<=' if self.most else '>='} {self._text(self.goal)}{' wall' if self.by_wall else ''}",
            "yes" if met else "no",
            self.detail,
        ]
        return f"| {' | '.join(cells)} |"

    def _text(self, value: float) -> str:
        return f"{value:.2f}{self.unit and f' {self.unit}'}"


HEAD = f"| {' | '.join(_HEADS)} |\n|{' --- |' * len(_HEADS)}"


def write(rows: Iterable[Row]) -> None:
    """Put rows into the table of the page, in the place of those that say the same of an earlier run."""
    page = _PAGE.read_text("utf-8")
    if _START not in page or _END not in page:
        raise SystemExit(f"{_PAGE}: expected the marks {_START} and {_END}, found none")
    _, _, rest = page.partition(_START)
    lines = {found["what"]: found[0] for found in _LINE.finditer(rest.partition(_END)[0])}
    for head in (_HEADS[0], "---"):
        lines.pop(head, None)
    lines |= {row.what: row.line() for row in rows}
    table = "\n".join((HEAD, *lines.values()))
    changed = re.sub(f"{_START}.*{_END}", lambda _: f"{_START}\n{table}\n{_END}", page, flags=re.DOTALL)
    _PAGE.write_text(changed, "utf-8")

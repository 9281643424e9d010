"""What a person sees of a value: a title, facts and a table, as text and as HTML.

A class says once what is to be seen of it, :meth:`Shown.sheet`, and prints, shows in notebooks and stands in
``deepjudge show`` so. Texts may be a stranger's: they are cleaned here, and escaped in HTML.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from deepjudge_core.text import clean, number

WIDTH = 98
"""Characters of a line of text."""
_WIDEST = 44  # characters of a cell
MOST_ROWS = 20
"""Rows of a table that is printed in passing."""
_LONGEST = 2000  # characters of a fact

Cell = str | float | None
"""A cell; None for what is not known or not measured."""


@dataclass(frozen=True)
class Sheet:
    """What is to be seen of a value.

    Attributes:
        title: What it is, in a few words.
        facts: What is known of it, in order: a cell, or several texts of which each has its line. What is empty or None
            is left out.
        head: The heads of a table's columns; empty without one.
        rows: The table's rows.
    """

    title: str
    facts: Mapping[str, Cell | Sequence[str | None]]
    head: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()

    def lines(self) -> Iterable[tuple[str, str | float]]:
        """The facts that are known, one by one."""
        for name, value in self.facts.items():
            for one in (value,) if isinstance(value, str | float | int | None) else value:
                if one is not None and one != "":
                    yield name, one

    def text(self, rows: int | None = None) -> str:
        """Lines of at most :data:`WIDTH` characters.

        Args:
            rows: How many rows of the table at most; None for all.
        """
        facts = [(clean(name), _cell(value, _LONGEST)) for name, value in self.lines()]
        wide = max((len(name) for name, _ in facts), default=0) + 2
        lines = [clean(self.title, WIDTH)]
        for name, value in facts:
            lines += textwrap.wrap(
                value,
                WIDTH,
                initial_indent=f"  {name:<{wide}}",
                subsequent_indent=" " * (wide + 2),
                break_on_hyphens=False,
            )
        if self.rows:
            lines += ["", *self._table(self.rows[:rows])]
            more = len(self.rows) - len(self.rows[:rows])
            lines += [f"  ... and {more} more"] if more else []
        return "\n".join(lines)

    def _table(self, rows: Sequence[Sequence[Cell]]) -> Iterable[str]:
        cells = [list(map(clean, self.head)), *([_cell(value, _WIDEST) for value in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            yield clean(f"  {line}", WIDTH)

    def html(self) -> str:
        """A table for a page, without a style of its own."""
        left = "style='text-align:left'"
        facts = "".join(
            f"<tr><th {left}>{_escaped(name)}</th><td {left}>{_escaped(value)}</td></tr>"
            for name, value in self.lines()
        )
        head = "".join(f"<th {left}>{_escaped(name)}</th>" for name in self.head)
        rows = "".join(
            "<tr>" + "".join(f"<td {left}>{_escaped(value)}</td>" for value in row) + "</tr>" for row in self.rows
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
        return f"<div><strong>{_escaped(self.title)}</strong><table><tbody>{facts}</tbody></table>{table}</div>"

    def page(self) -> str:
        """A whole page."""
        return (
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
            "<meta name='viewport' content='width=device-width'>"
            f"<title>{_escaped(self.title)}</title><style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem}}"
            "td,th{padding:.2rem .8rem .2rem 0;vertical-align:top}</style></head>"
            f"<body>{self.html()}</body></html>\n"
        )


class Shown:
    """A value that prints, and shows in notebooks, by its sheet."""

    def sheet(self) -> Sheet:
        """What is to be seen of it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.sheet().text(MOST_ROWS)

    def _repr_html_(self) -> str:
        # What notebooks ask for.
        return self.sheet().html()


_pages: dict[str, Callable[[Any], str]] = {}


def draw_pages(kind: str, page: Callable[[Any], str]) -> None:
    """Say how values of a class, by its full name, become pages: what writes reports stands above what is reported."""
    _pages[kind] = page


def page_of(value: Shown) -> str:
    """The page of a value: its report, or its sheet where there is none."""
    page = _pages.get(f"{type(value).__module__}.{type(value).__qualname__}")
    return value.sheet().page() if page is None else page(value)


def sizes(shape: Sequence[int | None]) -> str:
    """A shape, as a person reads it."""
    return " x ".join("?" if size is None else str(size) for size in shape) or "one number"


def remark(name: str, text: str | None) -> str | None:
    """What is to be said of one of several, behind its name; errors begin with it already."""
    return text if text is None or text.startswith(f"{clean(name)}: ") else f"{name}: {text}"


def listed(items: Iterable[object], most: int = 8) -> str:
    """The first few items on one line, and how many follow."""
    texts = [clean(str(item)) for item in items]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def _cell(value: Cell, longest: int) -> str:
    return clean(value, longest) if isinstance(value, str) else number(value) if value != 0 else "0"


def _escaped(value: Cell) -> str:
    return escape(_cell(value, _LONGEST))

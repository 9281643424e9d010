"""A report for people, before it is HTML, Markdown or PDF: sections of paragraphs, lists, tables, figures, commands.

What is said stands here once. How it looks, and that nothing in it becomes markup, is the business of who renders it:
all texts may be strangers'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "prose", "number", "name", "digest", "copy", "independent", "inconclusive", "failed"]
"""What a cell holds: a word or two; sentences; a number; somebody's name for something; a SHA-256; or a decision."""


@dataclass(frozen=True)
class Name:
    """What somebody called something, within a line: a path, an option, a digest."""

    text: str


Line = str | Name | tuple[str | Name, ...]
"""A line of prose, with names in it."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        line: What stands in it.
        kind: What that is.
        target: The anchor within the page that it leads to.
    """

    line: Line
    kind: Kind = "text"
    target: str | None = None


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    line: Line


@dataclass(frozen=True)
class Bullets:
    """A list."""

    lines: Sequence[Line]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: What it shows.
        head: Names of the columns.
        rows: As many cells each; the first one names the row.
        tall: Whether it may be longer than a reader wants to scroll past.
        dense: Whether its rows, of one line each, are printed as small as can be read.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    tall: bool = False
    dense: bool = False


@dataclass(frozen=True)
class Figure:
    """A chart, whose numbers stand in a table beside it.

    Attributes:
        svg: The element, well-formed and without anything that a stranger wrote but as text.
        caption: What it shows.
    """

    svg: str
    caption: Line


@dataclass(frozen=True)
class Gallery:
    """Small figures side by side."""

    figures: Sequence[Figure]


@dataclass(frozen=True)
class Commands:
    """Lines for a shell, words quoted; a line that begins with ``#`` is a comment."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Beside:
    """A table, and a figure beside it."""

    table: Table
    figure: Figure


Block = Paragraph | Bullets | Table | Figure | Gallery | Beside | Commands


@dataclass(frozen=True)
class Section:
    """A part with a heading.

    Attributes:
        title: The heading.
        anchor: What links within the page lead to; of letters, digits and hyphens.
        blocks: What stands in it.
        parts: Sections within it.
        columns: Whether the parts stand side by side where there is room.
        folded: Whether its contents are shown only when a reader asks for them, and not printed; None for a section
            that cannot be folded.
    """

    title: Line
    anchor: str
    blocks: Sequence[Block]
    parts: Sequence["Section"] = ()
    columns: bool = False
    folded: bool | None = None


@dataclass(frozen=True)
class Page:
    """The whole.

    Attributes:
        title: The question that it answers.
        lead: The answer, in a sentence or two.
        facts: What a file is kept under, such as a case and a date: each with its name.
        notice: What a reader has to know before the rest.
        sections: In the order in which they are read.
        foot: What made it.
    """

    title: Line
    lead: Line
    sections: Sequence[Section]
    foot: Sequence[Line]
    facts: Sequence[tuple[str, Line]] = ()
    notice: Line = ()

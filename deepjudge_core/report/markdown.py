"""A report as Markdown, for an issue or a repository: no HTML, and nothing of a stranger's that becomes markup."""

import re
from collections.abc import Iterator

from deepjudge_core.report.documents import AnyReport
from deepjudge_core.report.pages.any import Seal, page_of
from deepjudge_core.report.pages.document import (
    Beside,
    Block,
    Bullets,
    Commands,
    Figure,
    Gallery,
    Line,
    Name,
    Page,
    Paragraph,
    Section,
)
from deepjudge_core.text import LONGEST_LINE, clean

# Words that no Markdown does anything with, wherever they stand. Others, such as those with a link, a mention or an
# emphasis in them, are shown as code.
_HARMLESS = re.compile(r"(?!.*www\.)(?:[^\W_]|[.,;:%()/'\"=?+-](?!//))*", re.IGNORECASE)
_MARKER = re.compile(r"(?:\d+[.)]|[-+=]+)")  # that begin a list, or underline a heading, at the start of a line


def render_markdown(report: AnyReport, seal: Seal | None = None) -> bytes:
    """A report as a text; see :func:`~deepjudge_core.report.html.render_html`."""
    return markdown_of(page_of(report, seal)).encode()


def markdown_of(page: Page) -> str:
    """The text; of figures, what the tables say stands there alone."""
    parts = [f"# {_line(page.title)}", *([_line(page.notice)] if page.notice else []), _line(page.lead)]
    for section in page.sections:
        parts += _section(section, 2)
    parts += ["---", *map(_line, page.foot)]
    return "\n\n".join(parts) + "\n"


def markdown_of_section(section: Section) -> str:
    """The text of one section, to stand in another file."""
    return "\n\n".join(_section(section, 2)) + "\n"


def _section(section: Section, level: int) -> Iterator[str]:
    yield f"{'#' * level} {_line(section.title)}"
    for block in section.blocks:
        yield from _block(block)
    for part in section.parts:
        yield from _section(part, level + 1)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield _line(block.line)
    elif isinstance(block, Bullets):
        yield "\n".join(f"- {_line(line)}" for line in block.lines)
    elif isinstance(block, Commands):
        lines = [clean(line, LONGEST_LINE) for line in block.lines]
        fence = "`" * max(3, 1 + max(map(_backticks, lines), default=0))
        yield "\n".join([f"{fence}sh", *lines, fence])
    elif isinstance(block, Beside):
        yield from _block(block.table)
    elif not isinstance(block, Figure | Gallery):
        yield f"**{escape(block.caption)}**"
        rows = [list(map(escape, block.head)), ["---"] * len(block.head)]
        rows += [[_line(cell.line) for cell in row] for row in block.rows]
        yield "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def _line(line: Line) -> str:
    parts = line if isinstance(line, tuple) else (line,)
    return "".join(code(part.text) if isinstance(part, Name) else escape(part) for part in parts)


def escape(text: str) -> str:
    """Prose, with every word that Markdown could make something of as code."""
    words = clean(text, LONGEST_LINE).split(" ")
    return " ".join(_word(word, first=not place) for place, word in enumerate(words))


def code(text: str) -> str:
    """A text as a code span, in which nothing is markup."""
    shown = clean(text, LONGEST_LINE)
    fence = "`" * (1 + _backticks(shown))
    # Of blanks around it one is taken away; without them it could not begin with a backtick.
    pad = " " if not shown.strip() or shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{pad}{shown}{pad}{fence}" if shown else "` `"


def _word(word: str, *, first: bool) -> str:
    if word in ("<", "<="):  # with a blank behind it, no tag
        return word
    if _HARMLESS.fullmatch(word) and not (first and _MARKER.fullmatch(word)):
        return word
    return code(word)


def _backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)

"""Names and messages from files and libraries, fit to be shown: one line, nothing invisible, of bounded length.

And numbers, as they stand in tables.
"""

import json
import re

LONGEST_LINE = 4000
"""Characters of a whole line, which may hold paths; a name alone has fewer."""

_REPLACED = "\ufffd"
# Printable to Python, and not to be seen: what Unicode calls default ignorable, and a Braille letter without dots.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | frozenset(
    chr(code) for codes in (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0)) for code in codes
)


def clean(text: str, longest: int = 200) -> str:
    """A text on one line, without anything that controls a terminal, hides, or turns what stands beside it.

    White space of every kind becomes blanks. Control and format characters (escapes, bidirectional marks, zero width),
    surrogates, private and unassigned ones become U+FFFD. What is longer than ``longest`` ends in an ellipsis.

    Texts are cleaned where they are shown, and in every :class:`~deepjudge_core.errors.DeepJudgeError`, not where they
    are read: names of layers tell arrays apart and are part of a suite's digest, which a changed name would break. JSON
    that is written escapes all of it.
    """
    cut = text[: longest - 1] + "…" if len(text) > longest else text
    if cut.isascii() and cut.isprintable():  # nearly always, and a hundred times as fast
        return cut
    return "".join(_shown(character) for character in cut)


def is_url(source: object) -> bool:
    """Whether something is a text that begins as the address of an API does."""
    return isinstance(source, str) and re.match(r"https?://", source, re.IGNORECASE) is not None


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8, which the name of a file of other bytes cannot: it holds surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shortened(text: str, longest: int = 240) -> str:
    """What a library or a file says on one line of a message, with an ellipsis where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 4]} ..."


def found(value: object, longest: int = 60) -> str:
    """A value as a message shows what was found: as JSON has it, which TOML and a command line resemble."""
    shown = json.dumps(value, default=str, ensure_ascii=False)
    return shown if len(shown) <= longest else shown[:longest] + "..."


def number(value: float | None) -> str:
    """A value as it stands in tables."""
    return "-" if value is None else f"{value:.4g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


def compact(value: float | None) -> str:
    """A value in few characters, for tables with many columns."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 0.01:
        return f"{value:.3g}"
    return re.sub(r"e([+-])0+(?=\d)", r"e\1", f"{value:.1e}")


def ending(text: str, longest: int) -> str:
    """The end of a text, such as a path, with an ellipsis where it was longer."""
    return text if len(text) <= longest else f"…{text[len(text) - longest + 1 :]}"


def duration(seconds: float) -> str:
    """A time as a person says it: ``8 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    hours = f"{minutes // 60} h " if minutes >= 60 else ""
    return f"{hours}{minutes % 60} min"


def counted(count: int, noun: str, plural: str = "") -> str:
    """So many of something."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def recognised(count: int, of: int, undecided: int) -> str:
    """So many of so many; what is undecided is not taken for a no.

    Args:
        count: Those that were recognised.
        of: All that were judged, the undecided ones too.
        undecided: Those of which nothing could be said.
    """
    if not of:
        return "not measured"
    if undecided and undecided == of:
        return "undecided"
    return f"{count} of {of}" + (f", {undecided} undecided" if undecided else "")


def _shown(character: str) -> str:
    if character.isspace():
        return " "
    return character if character.isprintable() and character not in _INVISIBLE else _REPLACED


def capital(text: str) -> str:
    """A text with a capital letter in front; what is no letter stays."""
    return text[:1].upper() + text[1:]

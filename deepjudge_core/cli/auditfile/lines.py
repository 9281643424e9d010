"""On which line of a TOML document a key stands, which the parser of the standard library does not tell."""

import tomllib
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

Keys = tuple[str | int, ...]
"""Where something is in a document: the keys of tables, and places in arrays."""

_MOST_PARSED = 2**20  # characters: some seconds


def line_of(text: str, keys: Keys) -> int | None:
    """The line, counted from 1, on which the statement begins that first brings these keys; None where none does.

    The statement is the one after which the keys are there, and were not before: of a table its header, of an array of
    tables the header of its first one.

    Args:
        text: A valid document.
        keys: What is looked for.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    statements = _statements(text)
    place = bisect_left(statements, True, key=lambda s: _holds(tomllib.loads("\n".join(lines[: s[1]])), keys))
    return statements[place][0] + 1 if keys and place < len(statements) else None


@lru_cache(maxsize=1)
def _statements(text: str) -> tuple[tuple[int, int], ...]:
    return tuple(_split(text.replace("\r\n", "\n").split("\n")))


def _split(lines: list[str]) -> Iterator[tuple[int, int]]:
    # First line and the one behind the last, of each key with its value, header, comment and blank line: the least
    # that can be parsed by itself. Arrays of thousands of lines would take hours: what comes then is not told apart.
    start = parsed = 0
    for end in range(1, len(lines) + 1):
        parsed += sum(map(len, lines[start:end]))
        if parsed > _MOST_PARSED:
            yield start, len(lines)
            return
        try:
            tomllib.loads("\n".join(lines[start:end]))
        except tomllib.TOMLDecodeError:
            continue
        yield start, end
        start = end


def _holds(document: Any, keys: Keys) -> bool:
    value = document
    for key in keys:
        try:
            value = value[key]
        except (LookupError, TypeError):
            return False
    return True

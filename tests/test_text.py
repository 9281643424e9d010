"""Texts from elsewhere, fit to be shown."""

import unicodedata

import pytest

from deepjudge_core.errors import FileFormatError, first_line, one_line
from deepjudge_core.text import LONGEST_LINE, clean, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv 1/relu:ü漢😀", "conv 1/relu:ü漢😀"),
        ("a\nb\r\nc\td\u2028e\u00a0f", "a b  c d e f"),
        ("\x1b[31mred\x1b]0;title\x07", "\ufffd[31mred\ufffd]0;title\ufffd"),
        ("\x00\x7f\x9b", "\ufffd" * 3),
        ("\u202exe.lp\u2066\u061c\u200f", "\ufffdxe.lp\ufffd\ufffd\ufffd"),
        ("a\u200bb\u200dc\ufeffd\u00ade\u2060", "a\ufffdb\ufffdc\ufffdd\ufffde\ufffd"),
        ("\ud800\udfff\udcff", "\ufffd" * 3),
        ("\ue000\U000f0000\U0010fffd", "\ufffd" * 3),
        ("\U000e0041\ufe0f\u3164\u115f\u2800", "\ufffd" * 5),
        ("", ""),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_no_character_of_any_kind_that_is_not_to_be_seen() -> None:
    for code in range(0x110000):
        [shown] = clean(chr(code))
        assert shown == " " or unicodedata.category(shown)[0] not in "CZ", hex(code)


def test_what_is_long_is_cut() -> None:
    assert clean("a" * 200) == "a" * 200
    assert clean("a" * 201) == "a" * 199 + "…"
    assert clean("abc", 2) == "a…"


def test_what_libraries_say_is_shortened() -> None:
    assert shortened("first\n  second\tthird") == "first second third"
    assert shortened("a" * 240) == "a" * 240
    assert shortened("a" * 241) == "a" * 236 + " ..."


def test_errors_are_one_clean_line() -> None:
    error = FileFormatError(f"x\n\x1b[2J{'y' * 10**6}")
    assert str(error).startswith("x \ufffd[2Jyy")
    assert len(str(error)) == LONGEST_LINE
    library = ValueError(f"first \x1b[2J\nsecond{'y' * 10**6}")
    assert first_line(library) == "first \ufffd[2J"
    assert one_line(library).startswith("ValueError: first \ufffd[2J secondyyy")
    assert len(one_line(library)) == 500

"""Names that a reader takes for others: by letters that look alike, by case, or by what is not seen."""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from deepjudge_core.text import clean

# What is drawn like a Latin letter in most fonts, small or capital: the usual part of Unicode's list of confusables.
_CYRILLIC = dict(zip("авеіјкмнорсѕтухԁһԛԝӏ", "abeijkmhopcstyxdhqwl", strict=True))
_GREEK = dict(zip("αβεζηικμνορτυχγ", "abezhikmvoptuxy", strict=True))
_OTHERS = {"|": "l", "1": "l", "i": "l", "0": "o"}
_WORD = re.compile(r"[^\W\d_]+")
_ALIKE = str.maketrans({letter: _OTHERS.get(latin, latin) for letter, latin in (_CYRILLIC | _GREEK).items()} | _OTHERS)


def look_alikes(names: Iterable[str]) -> Iterator[str]:
    """A line for each two different names that a reader can take for one another, and for each word of two alphabets.

    That none is reported does not say that names are what they seem: the SHA-256 of a model is what tells.
    """
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        alike.setdefault(_skeleton(name), []).append(name)
    for group in alike.values():
        if len(group) > 1:
            yield f"names look alike: {' and '.join(map(_spelt, group))}"
    for name in (one for group in alike.values() for one in group):
        alphabets = sorted(max((_alphabets(word) for word in _WORD.findall(name)), key=len, default=()))
        if len(alphabets) > 1 or _hides(name):
            what = f"letters of several alphabets ({', '.join(alphabets)})" if len(alphabets) > 1 else "hidden letters"
            yield f"a name has {what}: {_spelt(name)}"


def _skeleton(name: str) -> str:
    # What is left for the eye: marks, hidden characters and case are not.
    folded = unicodedata.normalize("NFKD", name).casefold()
    seen = "".join(one for one in folded if not unicodedata.combining(one) and not _is_hidden(one))
    return seen.translate(_ALIKE)


def _alphabets(name: str) -> set[str]:
    return {unicodedata.name(one, "UNKNOWN").partition(" ")[0] for one in name if one.isalpha()}


def _hides(name: str) -> bool:
    return any(map(_is_hidden, name))


def _is_hidden(character: str) -> bool:
    return character != " " and (clean(character) != character or unicodedata.category(character) == "Cf")


def _spelt(name: str) -> str:
    # Every letter that is not of ASCII by its number, since nothing else tells it apart.
    return "".join(one if one.isascii() and one.isprintable() else f"\\u{ord(one):04x}" for one in name)

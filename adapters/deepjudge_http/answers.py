"""Answers of strangers: JSON of any kind, of which nothing is believed, read as scores or labels of known classes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.types import Array

_BAD = "bad-answer"
_DEEPEST = 8  # lists within one another that hold numbers


@dataclass(frozen=True, eq=False)
class Shown:
    """What is shown of one input's answer.

    Attributes:
        scores: ``(classes,)`` float64, NaN for those that are not given; None of a label alone.
        label: The class, where only that is given.
    """

    scores: Array | None
    label: int | None = None


class BadAnswerError(ModelError):
    """An answer that no classifier of these classes gives; the text is without the model's name."""

    def __init__(self, text: str) -> None:
        super().__init__(text, code=_BAD)


@dataclass(frozen=True)
class Reader:
    """Reads answers in the classes of a description.

    Attributes:
        names: The model's names of the classes, in order; None where it has numbers from 0.
        classes: How many there are; None where the first answer tells.
        name: In objects with a name and a score the key of the name.
        score: Likewise of the score.
    """

    names: tuple[str, ...] | None = None
    classes: int | None = None
    name: str = "label"
    score: str = "score"

    def label(self, value: Any) -> Shown:
        """The class that a name or a number is, also one alone in a list."""
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        return Shown(None, self._place(value))

    def scores(self, value: Any) -> Shown:
        """Scores in a list, in objects with a name and a score, or in an object of names and scores."""
        if isinstance(value, Mapping):
            return self._named(list(value.items()))
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            missing = next((key for key in (self.name, self.score) for one in value if key not in one), None)
            if missing is not None:
                raise BadAnswerError(f"expected objects with the keys {self.name!r} and {self.score!r}, found others")
            return self._named([(one[self.name], one[self.score]) for one in value])
        numbers = flat(value)
        expected = self.classes
        if expected is not None and len(numbers) != expected and not (expected == 2 and len(numbers) == 1):
            raise BadAnswerError(f"expected {expected} scores for each input, found {len(numbers)}")
        return Shown(numbers)

    def _named(self, pairs: Sequence[tuple[Any, Any]]) -> Shown:
        if self.classes is None:
            raise BadAnswerError("expected scores in the order of the classes, found names; name them with classes")
        scores = np.full(self.classes, np.nan)
        for name, value in pairs:
            place = self._place(name)
            if not math.isnan(scores[place]):
                raise BadAnswerError("expected each class once, found one twice")
            scores[place] = number(value)
        if not pairs:
            raise BadAnswerError("expected at least one score, found none")
        return Shown(scores)

    def _place(self, name: Any) -> int:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise BadAnswerError(f"expected the name or number of a class, found {kind_of(name)}")
        if self.names is not None:
            text = str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)
            if text in self.names:
                return self.names.index(text)
            raise BadAnswerError(
                "expected one of the classes that the description names, found another; name all of the model's "
                "classes that it may answer"
            )
        if isinstance(name, str):
            if not name.isascii() or not name.isdecimal() or len(name) > 9:
                raise BadAnswerError("expected the number of a class, found a name; name the classes with classes")
            name = int(name)
        if not float(name).is_integer() or self.classes is None or not 0 <= name < self.classes:
            raise BadAnswerError(
                f"expected the number of a class in 0..{(self.classes or 0) - 1}, found another number"
            )
        return int(name)


def kind_of(value: Any) -> str:
    """What a value of JSON is, without what stands in it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return f"a list of {len(value)}"
    return "an object"


def number(value: Any) -> float:
    """A finite number.

    Raises:
        BadAnswerError: When it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadAnswerError(f"expected a number, found {kind_of(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise BadAnswerError("expected finite numbers, found NaN or infinity")
    return found


def flat(value: Any) -> Array:
    """The numbers in a list, or in lists within one another, one behind the other: float64.

    Raises:
        BadAnswerError: When there is anything else.
    """
    level = [value]
    for _ in range(_DEEPEST):
        if not any(isinstance(one, list) for one in level):
            break
        level = [part for one in level for part in (one if isinstance(one, list) else [one])]
    if not level:
        raise BadAnswerError("expected numbers, found none")
    return np.array([number(one) for one in level], np.float64)


def pointed(value: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) leads to.

    Raises:
        BadAnswerError: When it leads nowhere.
    """
    found = value
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isascii() and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise BadAnswerError(f"expected a value at {pointer}, found none, but {kind_of(found)} on the way")
    return found


def listed(value: Any, count: int) -> list[Any]:
    """A list with one item for each input.

    Raises:
        BadAnswerError: When it is none.
    """
    if not isinstance(value, list) or len(value) != count:
        raise BadAnswerError(f"expected a list with one answer for each of {count} inputs, found {kind_of(value)}")
    return value

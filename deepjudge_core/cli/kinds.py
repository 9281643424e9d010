"""Kinds of values: how each is read from the words of a command line and from a TOML document, and what a schema says.

The kind of a setting, or of a component's option, follows from its annotation; see :func:`kind_of`.
"""

import contextlib
import dataclasses
import functools
import math
import os
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from deepjudge_core.components.options import parse_assignments
from deepjudge_core.errors import UsageError
from deepjudge_core.settings import (
    Matches,
    Names,
    OneOrEach,
    OneOrMore,
    OrNumber,
    Setting,
    Size,
    as_schema,
    in_words,
    keeps,
    unannotated,
)
from deepjudge_core.text import found

Json = dict[str, Any]

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"(\d{1,15}(?:\.\d{1,9})?) ?([KMGTkmgt])?(?:[iI]?[bB])?"


def expected(what: str, value: object) -> UsageError:
    """The error that says what should be in place of a value."""
    return UsageError(f"expected {what}, found {found(value)}", code="wrong-value")


def size(text: str) -> int:
    """Bytes, from a text as ``8GiB``, ``512M`` or ``1000000``.

    Raises:
        UsageError: For another text.
    """
    parts = re.fullmatch(_SIZE, text.strip())
    if not parts:
        raise expected("a size such as 8GiB or 512MiB", text)
    return int(float(parts[1]) * _UNITS[(parts[2] or "").upper()])


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
        constraints: What the values keep.
    """

    constraints: tuple[Any, ...] = ()

    @property
    def repeats(self) -> bool:
        """Whether an option may be given several times, and each adds to the value."""
        return False

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that there are for it, where these are few."""
        return ()

    @property
    def words(self) -> str:
        """What is expected, for a person."""
        raise NotImplementedError

    def of_words(self, words: Sequence[str]) -> Any:
        """The value of what stands on a command line: a word for each time that the option is given.

        Raises:
            UsageError: For none.
        """
        return self.checked(self.of_word(words[-1]), words[-1])

    def of_word(self, word: str) -> Any:
        """The value of one word, constraints not looked at."""
        return self.of_toml(word)

    def of_value(self, value: Any) -> Any:
        """The value of what stands in a TOML document.

        Raises:
            UsageError: For none.
        """
        return self.checked(self.of_toml(value), value)

    def of_toml(self, value: Any) -> Any:
        """The same, constraints not looked at."""
        raise NotImplementedError

    def checked(self, value: Any, source: object) -> Any:
        """The value, if it keeps the constraints."""
        if not keeps(value, self.constraints):
            raise expected(self.words, source)
        return value

    def schema(self) -> Json:
        """What a JSON Schema says of it."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Text(Kind):
    """A text that is not empty."""

    @property
    def words(self) -> str:
        """See the base class."""
        usual = "a text, or a whole number from 1" if self._numbered else "a text"
        return next((one.words for one in self.constraints if isinstance(one, Matches)), usual)

    @property
    def _numbered(self) -> bool:
        return any(isinstance(one, OrNumber) for one in self.constraints)

    def of_toml(self, value: Any) -> Any:
        """See the base class."""
        if self._numbered and type(value) is int and value > 0:
            return str(value)
        # No file has a name with a null character.
        if not isinstance(value, str) or not value or "\0" in value:
            raise expected(self.words if self._numbered else "a text", value)
        forms = [one.pattern for one in self.constraints if isinstance(one, Matches)]
        if not all(re.fullmatch(form, value) for form in forms):
            raise expected(self.words, value)
        return value

    def schema(self) -> Json:
        """See the base class."""
        schema = {"type": "string", "minLength": 1} | as_schema(self.constraints)
        return {"anyOf": [schema, {"type": "integer", "minimum": 1}]} if self._numbered else schema


@dataclasses.dataclass(frozen=True)
class File(Text):
    """The path of a file or folder."""

    def of_toml(self, value: Any) -> Any:
        """See the base class."""
        return Path(super().of_toml(value))


@dataclasses.dataclass(frozen=True)
class Number(Kind):
    """A finite number."""

    @property
    def words(self) -> str:
        """See the base class."""
        return f"a number {in_words(self.constraints)}".strip()

    def of_word(self, word: str) -> Any:
        """See the base class."""
        with contextlib.suppress(ValueError):
            return self.of_toml(float(word))
        raise expected(self.words, word)

    def of_toml(self, value: Any) -> Any:
        """See the base class."""
        with contextlib.suppress(OverflowError):  # of a whole number that is no float
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                return float(value)
        raise expected(self.words, value)

    def schema(self) -> Json:
        """See the base class."""
        return {"type": "number"} | as_schema(self.constraints)


@dataclasses.dataclass(frozen=True)
class Whole(Kind):
    """A whole number."""

    @property
    def words(self) -> str:
        """See the base class."""
        said = in_words(self.constraints)
        return f"a whole number{' of ' if said.startswith('at ') else ' ' if said else ''}{said}"

    def of_word(self, word: str) -> Any:
        """See the base class."""
        with contextlib.suppress(ValueError):
            return int(word)
        raise expected(self.words, word)

    def of_toml(self, value: Any) -> Any:
        """See the base class."""
        if type(value) is not int:
            raise expected(self.words, value)
        return value

    def schema(self) -> Json:
        """See the base class."""
        return {"type": "integer"} | as_schema(self.constraints)


@dataclasses.dataclass(frozen=True)
class Bytes(Kind):
    """A number of bytes, written as a text."""

    @property
    def words(self) -> str:
        """See the base class."""
        return "a size such as 8GiB, at least 1MiB"

    def of_toml(self, value: Any) -> Any:
        """See the base class."""
        if not isinstance(value, str):
            raise expected(self.words, value)
        return size(value)

    def schema(self) -> Json:
        """See the base class."""
        return {"type": "string", "pattern": f"^{_SIZE}$"}


@dataclasses.dataclass(frozen=True)
class Truth(Kind):
    """True or false: on the command line an option without a value, which says the opposite of the default."""

    @property
    def words(self) -> str:
        """See the base class."""
        return "true or false"

    def of_toml(self, value: Any) -> Any:
        """See the base class."""
        if not isinstance(value, bool):
            raise expected(self.words, value)
        return value

    def schema(self) -> Json:
        """See the base class."""
        return {"type": "boolean"}


@dataclasses.dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    names: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[str, ...]:
        """See the base class."""
        return self.names

    @property
    def words(self) -> str:
        """See the base class."""
        return " or ".join(f'"{name}"' for name in self.names)

    def of_toml(self, value: Any) -> Any:
        """See the base class."""
        if value not in self.names:
            raise expected(self.words, value)
        return value

    def schema(self) -> Json:
        """See the base class."""
        return {"enum": list(self.names)}


@dataclasses.dataclass(frozen=True)
class Items(Kind):
    """A list, which a command line has with commas between its values, or by repeating the option."""

    item: Kind = dataclasses.field(default_factory=Text)
    length: int | None = None

    @property
    def repeats(self) -> bool:
        """See the base class."""
        return self.length is None

    @property
    def words(self) -> str:
        """See the base class."""
        named = {
            Whole: "two whole numbers such as [224, 224]" if self.length == 2 else "whole numbers such as [2, 0, 1]",
            Number: "numbers such as [0.0, 1.0]",
            OneOrEachNumber: "numbers such as [0.0, 1.0], or two lists of equal length",
        }
        said = in_words(self.constraints)
        texts = f"a list of {self.item.words}" if self.item.choices else "a list of texts"
        words = named.get(type(self.item), texts) + (f", {said}" if said else "")
        return f"a number, or {words}" if self._one else words

    @property
    def _one(self) -> bool:
        return any(isinstance(one, OneOrMore) for one in self.constraints)

    def of_words(self, words: Sequence[str]) -> Any:
        """See the base class."""
        parts = [part for word in (words if self.repeats else words[-1:]) for part in self._parts(word)]
        try:
            return self.checked(self._all(parts, self.item.of_words, words, [[part] for part in parts]), words)
        except UsageError:
            if isinstance(self.item, Parsed):
                raise
            raise expected(self._typed, ",".join(words)) from None

    @property
    def _typed(self) -> str:
        # What is expected on a command line.
        kinds = {
            Whole: "whole numbers such as 2,0,1",
            Number: "numbers such as 0.0,1.0",
            OneOrEachNumber: "numbers such as 0.0,1.0 or 0:-1,1:2.5",
        }
        said = in_words(self.constraints)
        names = f"some of {', '.join(self.item.choices)}" if self.item.choices else "names"
        return kinds.get(type(self.item), f"{names} separated by commas") + (f", {said}" if said else "")

    def _parts(self, word: str) -> list[str]:
        named = any(isinstance(one, Names) for one in self.constraints)
        if isinstance(self.item, Parsed) or (named and os.path.exists(word)):  # noqa: PTH110 - of any text
            return [word]
        return [part.strip() for part in word.split(",")]

    def of_toml(self, value: Any) -> Any:
        """See the base class."""
        if self._one and not isinstance(value, list):
            value = [value]
        if not isinstance(value, list):
            raise expected(self.words, value)
        return self._all(value, self.item.of_value, value, value)

    def _all(self, parts: Sequence[Any], read: Any, source: object, values: Iterable[Any]) -> Any:
        if self.length not in (None, len(parts)):
            raise expected(self.words, source)
        try:
            return tuple(read(value) for value in values)
        except UsageError:
            if isinstance(self.item, Parsed):  # which says it better
                raise
            raise expected(self.words, source) from None

    def schema(self) -> Json:
        """See the base class."""
        schema = {"type": "array", "items": self.item.schema()} | as_schema(self.constraints)
        if self.length is not None:
            schema |= {"minItems": self.length, "maxItems": self.length}
        return {"anyOf": [self.item.schema(), schema]} if self._one else schema


@dataclasses.dataclass(frozen=True)
class OneOrEachNumber(Kind):
    """A number, or one for each of several: a list, which a command line has with colons between its values."""

    item: Kind = dataclasses.field(default_factory=Number)

    @property
    def words(self) -> str:
        """See the base class."""
        return "a number, or a list of numbers"

    def of_word(self, word: str) -> Any:
        """See the base class."""
        values = tuple(self.item.of_words([part.strip()]) for part in word.split(":"))
        return values if len(values) > 1 else values[0]

    def of_toml(self, value: Any) -> Any:
        """See the base class."""
        if isinstance(value, list) and value:
            return tuple(map(self.item.of_value, value))
        return self.item.of_value(value)

    def schema(self) -> Json:
        """See the base class."""
        return {"anyOf": [self.item.schema(), {"type": "array", "items": self.item.schema(), "minItems": 1}]}


@dataclasses.dataclass(frozen=True)
class Assignments(Kind):
    """Names with a value each: a table, or ``NAME=VALUE`` once for each."""

    item: Kind | None = None
    nested: bool = False

    @property
    def repeats(self) -> bool:
        """See the base class."""
        return True

    @property
    def words(self) -> str:
        """See the base class."""
        return "a table such as { NAME = 1 }" if isinstance(self.item, Number) else 'a table such as { NAME = "VALUE" }'

    def of_words(self, words: Sequence[str]) -> Any:
        """See the base class."""
        values = parse_assignments(words)
        if self.item is not None:
            return {name: self.item.of_words([value]) for name, value in values.items()}
        if not self.nested:
            return values
        options: dict[str, dict[str, str]] = {}
        for full, value in values.items():
            component, dot, name = full.partition(".")
            if not dot:
                raise expected("an option written COMPONENT.NAME=VALUE", f"{full}={value}")
            options.setdefault(component, {})[name] = value
        return options

    def of_toml(self, value: Any) -> Any:
        """See the base class."""
        if not isinstance(value, dict):
            raise expected(self.words if self.item else "a table", value)
        if self.item is None:
            return value
        try:
            return {name: self.item.of_value(one) for name, one in value.items()}
        except UsageError:
            raise expected(self.words, value) from None

    def schema(self) -> Json:
        """See the base class."""
        return {"type": "object"} | ({"additionalProperties": self.item.schema()} if self.item else {})


@dataclasses.dataclass(frozen=True)
class Parsed(Kind):
    """A value of a class that reads itself from a text; a table in a document."""

    owner: Any = None

    @property
    def words(self) -> str:
        """See the base class."""
        return "a table"

    def of_word(self, word: str) -> Any:
        """See the base class."""
        return self.owner.parse(word)


@dataclasses.dataclass(frozen=True)
class Maybe(Kind):
    """A value, or a word for none."""

    item: Kind = dataclasses.field(default_factory=Text)
    word: str = "none"

    @property
    def repeats(self) -> bool:
        """See the base class."""
        return self.item.repeats

    @property
    def choices(self) -> tuple[str, ...]:
        """See the base class."""
        return (*self.item.choices, self.word)

    @property
    def words(self) -> str:
        """See the base class."""
        return f'"{self.word}" or {self.item.words}'

    def of_words(self, words: Sequence[str]) -> Any:
        """See the base class."""
        return None if list(words) == [self.word] else self.item.of_words(words)

    def of_value(self, value: Any) -> Any:
        """See the base class."""
        if value == self.word:
            return None
        try:
            return self.item.of_value(value)
        except UsageError:
            raise expected(self.words, value) from None

    def schema(self) -> Json:
        """See the base class."""
        return {"anyOf": [{"const": self.word}, self.item.schema()]}


def kind_of_setting(setting: Setting) -> Kind:
    """The kind of a setting's values."""
    kind = kind_of(setting.annotation)
    return Maybe(item=kind, word=setting.declared.word) if setting.declared.word else kind


@functools.cache
def kind_of(annotation: Any) -> Kind:
    """The kind of values of a type; that of None is left out, which no file and no command line can say."""
    kinds = list(_kinds(annotation, ()))
    if len(kinds) != 1:
        raise TypeError(f"expected a type that a setting may have, found {annotation}")
    return kinds[0]


def _kinds(annotation: Any, outer: tuple[Any, ...]) -> Iterator[Kind]:
    inner, constraints = unannotated(annotation)
    constraints = (*constraints, *outer)
    origin, arguments = get_origin(inner), get_args(inner)
    if inner == OneOrEach:
        yield OneOrEachNumber(constraints)
    elif origin in (Union, types.UnionType):
        for member in arguments:
            if member is not type(None):
                yield from _kinds(member, constraints)
    elif origin is Literal:
        yield Choice(constraints, arguments)
    elif origin is not None and issubclass(origin, Mapping):
        yield _mapping(constraints, arguments[1])
    elif origin is tuple and arguments[-1] is not ...:
        yield Items(constraints, kind_of(arguments[0]), len(arguments))
    elif origin is not None and issubclass(origin, Sequence):
        yield Items(constraints, kind_of(arguments[0]))
    elif inner is int and any(isinstance(one, Size) for one in constraints):
        yield Bytes(constraints)
    elif inner in _PLAIN:
        yield _PLAIN[inner](constraints)
    elif hasattr(inner, "parse"):
        yield Parsed(constraints, inner)


def _mapping(constraints: tuple[Any, ...], values: Any) -> Kind:
    if values is Any:
        return Assignments(constraints)
    if get_origin(values) is not None and issubclass(get_origin(values), Mapping):
        return Assignments(constraints, nested=True)
    return Assignments(constraints, kind_of(values))


_PLAIN: Mapping[Any, type[Kind]] = {str: Text, Path: File, int: Whole, float: Number, bool: Truth}

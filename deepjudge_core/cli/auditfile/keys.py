"""What may stand in the file of an audit: its keys, and what each may be."""

import contextlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from deepjudge_core.cli.exports import EXPORTS
from deepjudge_core.cli.plan import size
from deepjudge_core.components.strata import Stratum
from deepjudge_core.errors import UsageError
from deepjudge_core.judging.judge import GroupMode
from deepjudge_core.judging.neurons import Match
from deepjudge_core.suites.seeds import Order
from deepjudge_core.types import Layout

_LONGEST = 60  # characters of a value in a message


@dataclass(frozen=True)
class Key:
    """A key with a value.

    Attributes:
        check: Gives what is made of the value; raises :class:`UsageError`.
        required: Whether it has to be there.
    """

    check: Callable[[Any], Any]
    required: bool = False


@dataclass(frozen=True)
class Table:
    """A table, or an array of tables."""

    keys: Mapping[str, "Key | Table"]
    required: bool = False
    many: bool = False


def expected(what: str, value: object) -> UsageError:
    """The error that says what should be in place of a value."""
    shown = json.dumps(value, default=str, ensure_ascii=False)
    return UsageError(f"expected {what}, found {shown if len(shown) <= _LONGEST else shown[:_LONGEST] + '...'}")


def _text(value: Any) -> str:
    # No file has a name with a null character.
    if not isinstance(value, str) or not value or "\0" in value:
        raise expected("a text", value)
    return value


def existing_file(value: Any) -> Path:
    """A file or folder that there is."""
    if not Path(_text(value)).exists():
        raise UsageError(f"{value}: no such file")
    return Path(value)


def _file_with_key(value: Any) -> str:
    file, colon, _ = _text(value).rpartition(":")
    if not Path(value).exists():
        existing_file(file if colon else value)
    return str(value)


def _code(value: Any) -> str:
    if not re.fullmatch(r"[\w.]+:[\w.]+", _text(value)):
        raise expected('a function as "module:function"', value)
    return str(value)


def _number(value: Any) -> float:
    with contextlib.suppress(OverflowError):  # of a whole number that is no float
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    raise expected("a number", value)


def _divisor(value: Any) -> float:
    if _number(value) == 0:
        raise expected("a number other than 0", value)
    return _number(value)


def _numbers(value: Any) -> tuple[float, ...]:
    with contextlib.suppress(UsageError):
        return tuple(map(_number, value)) if isinstance(value, list) and value else (_number(value),)
    raise expected("a number, or a list of one for each channel", value)


def _bounds(value: Any) -> tuple[float, float]:
    with contextlib.suppress(UsageError, TypeError, ValueError):
        low, high = map(_number, value)
        if low < high:
            return low, high
    raise expected("the least and the greatest value as [0.0, 1.0]", value)


def _at_least(least: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or value < least:
            raise expected(f"a whole number of at least {least}", value)
        return value

    return check


def _share(value: Any) -> float:
    if not 0 < _number(value) < 1:
        raise expected("a share between 0 and 1", value)
    return _number(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise expected("true or false", value)
    return value


def _one_of(kind: Any) -> Callable[[Any], Any]:
    choices = get_args(kind)

    def check(value: Any) -> Any:
        if value not in choices:
            raise expected(" or ".join(f'"{choice}"' for choice in choices), value)
        return value

    return check


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(part, str) and part for part in value):
        raise expected("a list of texts", value)
    return tuple(value)


def _taps(value: Any) -> tuple[str, ...] | None:
    if value == "auto":
        return None
    with contextlib.suppress(UsageError):
        return _texts(value)
    raise expected('"auto" or a list of names', value)


def _layer_map(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(tap, str) for tap in value.values()):
        raise expected('a table of taps, as { relu_1 = "relu1" }', value)
    return value


def _classes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or any(type(place) is not int or place < 0 for place in value):
        raise expected("whole numbers as [2, 0, 1]", value)
    if len(set(value)) < len(value):
        raise expected("different outputs, counted from 0", value)
    return tuple(value)


def a_table(value: Any) -> Mapping[str, Any]:
    """A table with whatever keys."""
    if not isinstance(value, dict):
        raise expected("a table", value)
    return value


_OPENED: Mapping[str, Key | Table] = {
    "arch": Key(_code),
    "output_name": Key(_text),
    "input_layout": Key(_one_of(Layout)),
}
_ASKED: Mapping[str, Key | Table] = {
    "path": Key(_text, required=True),
    **_OPENED,
    "input": Table({"scale": Key(_divisor), "mean": Key(_numbers), "std": Key(_numbers)}),
    "infer_input": Key(_flag),
    "classes": Key(_classes),
    "layers": Key(_layer_map),
}
SCHEMA = Table(
    {
        "output": Key(_text),
        "match": Key(_one_of(Match)),
        "metrics": Key(_texts),
        "victim": Table({"path": Key(existing_file, required=True), **_OPENED}, required=True),
        "inputs": Table(
            {
                "path": Key(existing_file, required=True),
                "x": Key(_text),
                "y": Key(_text),
                "scale": Key(_divisor),
                "bounds": Key(_bounds),
                "training": Key(_file_with_key),
                "layout": Key(_one_of(Layout)),
            },
            required=True,
        ),
        "suite": Table(
            {
                "seeds": Key(_at_least(1)),
                "order": Key(_one_of(Order)),
                "layers": Key(_taps),
                "seed": Key(_at_least(0)),
            }
        ),
        "generators": Key(a_table),
        "rule": Table(
            {"name": Key(_text), "groups": Key(_one_of(GroupMode)), "fdr": Key(_share), "options": Key(a_table)}
        ),
        "sandbox": Table(
            {
                "use": Key(_flag),
                "required": Key(_flag),
                "memory": Key(lambda value: size(_text(value))),
                "timeout": Key(_number),
            }
        ),
        "bundle": Table(
            {
                "commitment": Key(existing_file),
                "tsa": Key(existing_file),
                "key": Key(existing_file),
                "observations": Key(_flag),
            },
        ),
        "report": Table({name: Key(_text) for name in EXPORTS}),
        "controls": Table({**_ASKED, "stratum": Key(_one_of(Stratum))}, many=True),
        "suspects": Table(_ASKED, required=True, many=True),
    }
)
"""All keys of the file."""

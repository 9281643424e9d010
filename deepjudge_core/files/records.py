"""Dataclasses from JSON values."""

import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")


def from_json(kind: type[_T], value: Any) -> _T:
    """A dataclass whose fields are JSON values, from the object that ``asdict`` made of it.

    Raises:
        TypeError: When a field is missing, unknown, or not of its type.
    """
    if not isinstance(value, dict):
        raise TypeError(f"expected an object for a {kind.__name__}, found {type(value).__name__}")
    made = kind(**value)
    for name, hint in get_type_hints(kind).items():
        if not _fits(getattr(made, name), hint):
            raise TypeError(f"{name!r} of a {kind.__name__} is {type(getattr(made, name)).__name__}")
    return made


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return type(value) is str and value in get_args(hint)
    if get_origin(hint) is Mapping:
        return isinstance(value, dict)
    return type(value) in ((int, float) if hint is float else (hint,))

"""JSON as typed frozen values: one declaration says what is read, checked and written, and makes the JSON Schema.

The library is msgspec. Of a mapping it does not say at which key a value is wrong; :func:`parse` does.
"""

import json
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, UnsetType, inspect, structs

from deepjudge_core.text import LONGEST_LINE, clean

Json = Mapping[str, Any]
"""An object of JSON, whatever is in it."""
# The length too: $ also matches in front of a last line feed.
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
"""In hex."""
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Lines = tuple[str, ...]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_LONGEST = 60  # characters of a value in a message
_WHOLE = "the document"
# What msgspec raises, also of a lone surrogate, and of an integer that no float is as great as.
_REFUSED = (msgspec.ValidationError, ValueError, OverflowError)
_T = TypeVar("_T")


class Part(msgspec.Struct, frozen=True):
    """An object of JSON; keys that it does not declare, which a later version may write, are passed over."""


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object of JSON with no other keys than it declares."""


def parse(kind: type[_T], value: Any) -> _T:
    """The typed value that JSON values are.

    Raises:
        ValueError: Saying on one clean line where they are none, what was expected and what was found:
            ``suspects[3].metrics.outputs.value: expected a number or null, found "near"``.
    """
    try:
        return msgspec.convert(value, kind)
    except _REFUSED as error:
        raise ValueError(clean(_mistake(kind, value, "", str(error)), LONGEST_LINE)) from None


def plain(value: Any) -> Any:
    """The JSON values of a typed value, in the order in which it is declared, without what is unset."""
    return msgspec.to_builtins(value)


def json_schema(kind: type[Document], title: str) -> dict[str, Any]:
    """The JSON Schema of a document with a tag, which identifies it."""
    _, parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    whole = parts.pop(kind.__name__)
    return {"$schema": _DIALECT, "$id": kind.__struct_config__.tag, **whole, "title": title, "$defs": parts}


def _mistake(kind: Any, value: Any, where: str, why: str) -> str:
    # Of the first part that is wrong, as deep as there is one.
    fields = _fields(kind) if isinstance(value, Mapping) else {}
    for name, field in fields.items():
        if field.required and name not in value:
            return f"{where or _WHOLE}: expected {name!r}, found none"
    for step, inner, part in _parts(kind, value):
        if inner is None:
            return f"{where or _WHOLE}: expected no {step!r}; another version of deepjudge may have written it"
        try:
            msgspec.convert(part, inner)
        except _REFUSED as error:
            return _mistake(inner, part, f"{where}{step}" if where else step.removeprefix("."), str(error))
    if fields:  # what a class expects of its fields together begins with the name of one of them
        return f"{where}.{why}" if where else why
    return f"{where or _WHOLE}: expected {_described(inspect.type_info(kind))}, found {_shown(value)}"


def _parts(kind: Any, value: Any) -> Iterator[tuple[str, Any, Any]]:
    # Of each part the step that leads to it, its type and its value; without a type what is not declared.
    bare = _bare(kind)
    if isinstance(value, Mapping) and get_origin(bare) is Mapping:
        yield from ((f".{name}", get_args(bare)[1], part) for name, part in value.items())
    elif isinstance(value, Mapping) and (fields := _fields(kind)):
        for name, part in value.items():
            if name in fields:
                yield f".{name}", fields[name].type, part
            elif issubclass(bare, Document) and name != bare.__struct_config__.tag_field:
                yield name, None, part
    elif isinstance(value, list | tuple) and get_origin(bare) is tuple:
        inner, *others = get_args(bare)
        kinds = [inner] * len(value) if others == [...] else [inner, *others]
        if len(kinds) == len(value):
            yield from ((f"[{place}]", one, part) for place, (one, part) in enumerate(zip(kinds, value, strict=True)))


def _fields(kind: Any) -> dict[str, structs.FieldInfo]:
    bare = _bare(kind)
    is_struct = isinstance(bare, type) and issubclass(bare, msgspec.Struct)
    return {field.encode_name: field for field in structs.fields(bare)} if is_struct else {}


def _bare(kind: Any) -> Any:
    # The type without what is said of it, and without null.
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one not in (NoneType, UnsetType)]
        return _bare(kinds[0]) if len(kinds) == 1 else kind
    return kind


def _described(kind: inspect.Type) -> str:
    match kind:
        case inspect.UnionType(types=kinds):
            return " or ".join(map(_described, kinds))
        case inspect.Metadata(type=inner):
            return _described(inner)
        case inspect.LiteralType(values=values):
            return " or ".join(map(json.dumps, values))
        case inspect.EnumType(cls=cls):
            return " or ".join(json.dumps(member.value) for member in cls)
        case inspect.IntType() | inspect.FloatType():
            bounds = {"above": kind.gt, "of at least": kind.ge, "below": kind.lt, "of at most": kind.le}
            stated = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
            return f"{'an integer' if isinstance(kind, inspect.IntType) else 'a number'} {stated}".rstrip()
        case inspect.StrType(pattern=pattern):
            return f"a string that matches {pattern}" if pattern else "a string"
        case inspect.TupleType(item_types=kinds):
            return f"an array of {len(kinds)} items"
        case inspect.VarTupleType(min_length=least):
            return f"an array of at least {least} items" if least else "an array"
        case inspect.DictType() | inspect.StructType():
            return "an object"
        case inspect.BoolType():
            return "a boolean"
    return "null"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

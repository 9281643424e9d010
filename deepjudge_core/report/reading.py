"""Reports as JSON, which may be anybody's: read and checked by their schemas before anything is made of them."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

from deepjudge_core.errors import FileFormatError
from deepjudge_core.files.reading import read_json
from deepjudge_core.report.audit_json import SCHEMA
from deepjudge_core.report.power_json import SCHEMA as POWER

Json = dict[str, Any]
_FILES = {SCHEMA: "schema.json", POWER: "power-schema.json"}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_MOST_METRICS = 200  # tables have a column for each, so that a few bytes could make any number of cells
_LONGEST = 60  # characters of a value in a message


def read_report(path: Path) -> Json:
    """Read a report of an audit, or one of an audit's power.

    Raises:
        FileFormatError: When it is no such file, or says something that no report says: where, and what was expected.
    """
    return check_report(read_json(path, "a deepjudge report"), str(path))


def check_report(value: Any, source: str) -> Json:
    """The report that JSON values are.

    Args:
        value: The values.
        source: What messages call them.

    Raises:
        FileFormatError: When they are none.
    """
    kind = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _FILES:
        raise FileFormatError(f"{source}: expected one of {', '.join(_FILES)}, found other JSON")
    for where, mistake in _mistakes(value, schema_of(kind), kind, ""):
        raise FileFormatError(f"{source}: {where or 'the whole'}: {mistake}")
    if len(value["metrics"]) > _MOST_METRICS:
        raise FileFormatError(f"{source}: metrics: expected at most {_MOST_METRICS}, found {len(value['metrics'])}")
    return dict(value)


@cache
def schema_of(kind: str) -> Json:
    """The JSON Schema of a kind of report."""
    loaded: Json = json.loads((files("deepjudge_core.report") / _FILES[kind]).read_text("utf-8"))
    return loaded


@cache
def _referred(kind: str, reference: str) -> tuple[str, Json]:
    other, path = urldefrag(urljoin(kind, reference))
    found = schema_of(other)
    for step in path.split("/")[1:]:
        found = found[step]
    return other, found


def _mistakes(value: Any, schema: Json, kind: str, where: str) -> Iterator[tuple[str, str]]:
    # The part of JSON Schema that these schemas use; a test compares it with a whole implementation.
    if "$ref" in schema:
        other, found = _referred(kind, schema["$ref"])
        yield from _mistakes(value, found, other, where)
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(_is(value, name) for name in types):
        yield where, f"expected {' or '.join(map(_article, types))}, found {_shown(value)}"
        return
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None and not any(type(value) is type(choice) and value == choice for choice in choices):
        yield where, f"expected {' or '.join(map(json.dumps, choices))}, found {_shown(value)}"
    if "anyOf" in schema and all(any(_mistakes(value, part, kind, where)) for part in schema["anyOf"]):
        yield next(_mistakes(value, schema["anyOf"][0], kind, where))
    if "if" in schema and not any(_mistakes(value, schema["if"], kind, where)):
        yield from _mistakes(value, schema["then"], kind, where)
    if isinstance(value, dict):
        yield from _of_object(value, schema, kind, where)
    elif isinstance(value, list):
        yield from _of_array(value, schema, kind, where)
    elif isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield where, f"expected a text as {schema['pattern']}, found {_shown(value)}"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            yield where, f"expected a number {_range(schema)}, found {_shown(value)}"
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            yield where, f"expected a number above {schema['exclusiveMinimum']}, found {_shown(value)}"


def _of_object(value: Json, schema: Json, kind: str, where: str) -> Iterator[tuple[str, str]]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", []):
        if name not in value:
            yield where, f"expected {name!r}, found none"
    for name, part in value.items():
        here = f"{where}.{name}" if where else name
        if name in known or isinstance(others, dict):
            yield from _mistakes(part, known.get(name, others), kind, here)
        elif not others:
            yield where, f"expected no {name!r}: another version of deepjudge may have written it"


def _of_array(value: list[Any], schema: Json, kind: str, where: str) -> Iterator[tuple[str, str]]:
    least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if not least <= len(value) <= most:
        yield (
            where,
            f"expected {least}{f' to {most}' if 'maxItems' in schema else ' or more'} items, found {len(value)}",
        )
    if "items" in schema:
        for place, part in enumerate(value):
            yield from _mistakes(part, schema["items"], kind, f"{where}[{place}]")


def _is(value: Any, name: str) -> bool:
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _article(name: str) -> str:
    return name if name == "null" else f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _range(schema: Json) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    return f"of at least {low}" if high is None else f"of at most {high}" if low is None else f"within {low}..{high}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

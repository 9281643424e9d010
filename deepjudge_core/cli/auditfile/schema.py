"""A JSON Schema of the file of an audit, by which editors complete and check it."""

from collections.abc import Iterable
from typing import Any

from deepjudge_core.auditing.session import Session
from deepjudge_core.cli.auditfile.keys import TITLES, Key, Table
from deepjudge_core.cli.kinds import kind_of
from deepjudge_core.components.options import Option, options_of
from deepjudge_core.components.registry import Catalogue
from deepjudge_core.settings import Setting

Json = dict[str, Any]


def schema(table: Table, session: Session) -> Json:
    """The schema, with the components that are installed.

    Args:
        table: The tables and keys of the file.
        session: Where the components are.
    """
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "AUDIT.toml"} | _table(table, session)


def _table(table: Table, session: Session) -> Json:
    content: Json = {
        "type": "object",
        "properties": {name: _entry(entry, session) for name, entry in table.keys.items()},
        "additionalProperties": False,
    }
    required = [name for name, entry in table.keys.items() if entry.required]
    if required:
        content["required"] = required
    if table.name == "rule":
        content |= _rules(table, session)
    said = table.setting.declared.help if table.setting else TITLES.get(table.name, "")
    described = {"description": said} if said else {}
    if table.many:
        return described | {"type": "array", "items": content} | ({"minItems": 1} if table.required else {})
    if table.setting:  # of a value that reads itself from a text, too
        return described | {"anyOf": [{"type": "string", "minLength": 1}, content]}
    return described | content


def _entry(entry: Key | Table, session: Session) -> Json:
    if isinstance(entry, Table):
        return _table(entry, session)
    declared = entry.setting
    components = declared.declared.components
    if components == "generators":
        content: Json = _chosen(session.registry.generators)
    elif components == "metrics":
        content = {"type": "array", "minItems": 1, "items": {"enum": ["all", *session.registry.metrics]}}
    elif components == "rules" and declared.declared.key == "name":
        content = {"enum": list(session.registry.rules)}
    else:
        content = entry.kind.schema()
    return _described(declared) | content


def _described(declared: Setting) -> Json:
    default = declared.default
    plain = isinstance(default, bool | int | float | str) and not declared.declared.usual
    return {"description": declared.declared.help} | ({"default": default} if plain else {})


def _chosen(catalogue: "Catalogue[Any]") -> Json:
    return {
        "type": "object",
        "properties": {name: _options(options_of(catalogue[name])) for name in _usable(catalogue)},
        "additionalProperties": False,
    }


def _rules(table: Table, session: Session) -> Json:
    # Which options there are depends on the rule that is named, or else is the usual one.
    usual = table.keys["name"].setting.default if table.keys["name"].setting else None
    cases = []
    for name in _usable(session.registry.rules):
        named: Json = {"properties": {"name": {"const": name}}}
        if name != usual:
            named["required"] = ["name"]
        options = _options(options_of(session.registry.rules[name]))
        cases.append({"if": named, "then": {"properties": {"options": options}}})
    return {"allOf": cases}


def _usable(catalogue: "Catalogue[Any]") -> list[str]:
    return [component.name for component in catalogue.select()]


def _options(options: Iterable[Option]) -> Json:
    properties, required = {}, []
    for option in options:
        described: Json = {"description": option.help} if option.help else {}
        if not option.required and isinstance(option.default, bool | int | float | str):
            described["default"] = option.default
        values = kind_of(option.annotation).schema() if option.annotation is not Any else {}
        properties[option.name] = described | ({"anyOf": [values, {"const": "none"}]} if option.optional else values)
        required += [option.name] if option.required else []
    content: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    return content | ({"required": required} if required else {})

"""Tables of what may be typed and written into files, from the declarations of settings, options, statuses, codes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any, cast

import msgspec

from deepjudge_core import load_registry
from deepjudge_core.cli.auditfile.example import toml
from deepjudge_core.cli.auditfile.keys import Key, Table, document
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.commands import COMMANDS
from deepjudge_core.cli.commands.audit import AuditCommand
from deepjudge_core.cli.parser import default, explained, grouped, option
from deepjudge_core.cli.status import STATUSES
from deepjudge_core.components.options import options_of
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import CODES
from deepjudge_core.models.preprocessing import PRESETS
from deepjudge_core.settings import Setting

_LITERAL = re.compile(
    r"(?<![\w`-])(--[a-z][a-z-]+|'deepjudge [^']+'|[A-Z]{3,}(?:-withheld)?\.toml|\w+\.json)(?![\w`-])"
)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown, with an empty line before it; printing adds the one behind it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n" + "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def marked(text: str) -> str:
    """Help as Markdown: what is typed is code."""
    return _LITERAL.sub(lambda found: f"`{found[0].strip(chr(39))}`", text)


def commands() -> str:
    """The commands, and what each does."""
    rows = ((f"[`{one.called()}`](commands/{one.called()}.md)", marked(_sentence(one.summary()))) for one in COMMANDS)
    return table(("command", "does"), rows)


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:].removesuffix(".")


def presets() -> str:
    """The presets of preprocessings, with their numbers."""
    rows = ((f"`{name}`", f"`{one.preprocessing}`", one.words) for name, one in PRESETS.items())
    return table(("name", "numbers", "what it is"), rows)


def api_keys(part: str = "") -> str:
    """The keys of a description of a model behind an API, or of one of its tables."""
    from deepjudge_http import description

    structs = {"": description.Description, "request": description.Request, "answer": description.Answer}
    kind = msgspec.inspect.type_info(structs[part])
    rows = []
    for field in cast(Any, kind).fields:
        inner = field.type
        said = getattr(inner, "extra_json_schema", None) or _described(inner)
        rows.append((f"`{field.encode_name}`", (said or {}).get("description", "").replace("\n", " ")))
    return table(("key", "meaning"), ((key, meaning) for key, meaning in rows if meaning))


def _described(kind: Any) -> dict[str, str] | None:
    # Of a type that may be unset, what is said of the rest.
    for inner in getattr(kind, "types", ()):
        if said := getattr(inner, "extra_json_schema", None):
            return cast(dict[str, str], said)
    return None


def command(name: str) -> type[Command]:
    """The command of this name."""
    return next(one for one in COMMANDS if one.called() == name)


def options(name: str | type[Command]) -> str:
    """The options of a command, in the order of its help."""
    owner = command(name) if isinstance(name, str) else name
    return _options((one for _, members in grouped(owner.settings()) for one in members), owner)


def options_of_group(name: str, group: str) -> str:
    """Those of one group."""
    owner = command(name)
    return _options(dict(grouped(owner.settings()))[group], owner)


def _options(settings: Iterable[Setting], owner: type[Command]) -> str:
    among = owner.settings()
    rows = ((", ".join(f"`{form}`" for form in option(one)), marked(explained(one, among))) for one in settings)
    return table(("option", "meaning"), rows)


def keys(owner: type[Command] = AuditCommand) -> str:
    """The keys of the file of an audit, but for those of each control and suspect."""
    root = document(owner)
    tables = [entry for entry in root.keys.values() if isinstance(entry, Table) and not entry.many]
    return table(_KEY_HEADS, [row for one in (root, *tables) for row in _keys(one, f"{one.name}.".lstrip("."))])


def keys_of_models(owner: type[Command] = AuditCommand) -> str:
    """The keys of each control and suspect."""
    root, rows = document(owner), {}
    for name in ("controls", "suspects"):
        part = root.keys[name]
        rows |= {row[0]: row for row in _keys(part, "")} if isinstance(part, Table) else {}
    return table(_KEY_HEADS, rows.values())


_KEY_HEADS = ("key", "value", "default", "meaning")


def _keys(part: Table, at: str) -> Iterable[Sequence[str]]:
    for name, entry in sorted(part.keys.items(), key=lambda one: not one[1].required):
        if isinstance(entry, Table) and entry.setting is None:
            continue
        if isinstance(entry, Table):
            yield from _keys(entry, f"{at}{name}.")
        else:
            yield f"`{at}{name}`", _values(entry), _default(entry), marked(_meaning(entry.setting))


def _values(key: Key) -> str:
    if key.setting.declared.components and key.setting.declared.key in ("generators", "options"):
        return "a table of options" + (" for each" if key.setting.declared.key == "generators" else "")
    if key.setting.declared.reads:
        return "a file"
    words = key.kind.words
    return words if "{" in words else words.replace('"', "`")


def _default(key: Key) -> str:
    declared = key.setting
    if declared.declared.unless:
        return f"required without `{declared.declared.unless[1]}`"
    if declared.required:
        return "required" if key.required else "required, here or with `-o`"
    if declared.declared.usual or declared.default is None or isinstance(declared.default, Mapping):
        return marked(default(declared))
    return f"`{toml(declared.default)}`"


def _meaning(declared: Setting) -> str:
    flags = f", as {max(declared.declared.flags, key=len)}" if declared.declared.flags else ""
    said = {True: "false: ", False: "true: "}[declared.default] if isinstance(declared.default, bool) else ""
    return f"{said}{declared.declared.help}{flags}"


def components(kind: str, registry: Registry | None = None) -> str:
    """The options of this distribution's generators, rules, attacks or schemes."""
    from deepjudge_core import __version__

    registry = registry or load_registry()
    catalogue = getattr(registry, kind)
    own = [name for name in catalogue if catalogue.provider(name) == f"deepjudge {__version__}"]
    rows = [
        (f"`{name}`", f"`{one.name}`", one.words, _plain(one.default), marked(one.help))
        for name in own
        for one in options_of(catalogue[name])
    ]
    return table((kind.removesuffix("s"), "option", "value", "default", "meaning"), rows)


def _plain(value: Any) -> str:
    if value is MISSING:
        return "required"
    return "none" if value in ({}, None) else str(value).lower() if isinstance(value, bool) else str(value)


def statuses() -> str:
    """The exit statuses."""
    return table(("status", "meaning"), ((str(status), marked(text)) for status, text in STATUSES.items()))


def codes() -> str:
    """The codes of errors."""
    return table(("code", "meaning"), ((f"`{code}`", marked(text)) for code, text in CODES.items()))

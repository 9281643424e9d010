"""An example of the file of an audit, with all keys, made of what the settings declare."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.session import Session
from deepjudge_core.cli.auditfile.keys import TITLES, Key, Table
from deepjudge_core.components.kinds import Generator, Rule
from deepjudge_core.components.options import Option, options_of
from deepjudge_core.components.registry import Catalogue, Component
from deepjudge_core.errors import FileFormatError, UsageError
from deepjudge_core.settings import Setting
from deepjudge_core.suites.settings import DEFAULT_GENERATORS

_WIDTH = 120
_HEAD = (
    "# What to audit, and how: deepjudge audit {file}\n#\n# Paths are relative to this "
    "file's folder. The keys below have their default values, except for the paths, which "
    "are\n# yours. A line that starts with # and no space is an example: remove the # to use "
    "it.\n"
)


def example(table: Table, session: Session, schema: Path | None = None) -> str:
    """A file with all keys, those that have to be there with names to be filled in.

    Args:
        table: Its tables and keys.
        session: Where the components are whose options it shows.
        schema: The file of its schema, to be named in it.
    """
    lines = [f"#:schema {schema}"] if schema else []
    lines += _HEAD.format(file="audit.toml").splitlines()
    rules = session.registry.rules
    lines += ["", *_keys(table, rules)]
    for name in [*TITLES, *(name for name, entry in _tables(table) if entry.name not in TITLES)]:
        lines += ["", "", *_comment(TITLES.get(name, ""))]
        if name == "generators":
            lines += _generators(session.registry.generators)
            continue
        part = table.keys[name.removesuffix("[]")]
        if isinstance(part, Table):
            lines += [f"[[{part.name.removesuffix('[]')}]]" if part.many else f"[{part.name}]"]
            lines += _keys(part, rules, _later(table, part))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _tables(table: Table) -> Iterator[tuple[str, Table]]:
    yield from ((name, entry) for name, entry in table.keys.items() if isinstance(entry, Table))


def _later(table: Table, part: Table) -> set[str]:
    # Of an array, the keys that a later array shows, too.
    arrays = [entry for _, entry in _tables(table) if entry.many and not entry.setting]
    after = arrays[arrays.index(part) + 1 :] if part in arrays else []
    return {name for entry in after for name in entry.keys} - {"path"}


def _keys(table: Table, rules: Catalogue[Rule], elsewhere: set[str] | None = None) -> Iterator[str]:
    subtables: list[str] = []
    for name, entry in sorted(table.keys.items(), key=lambda one: not _is_required(one[1])):
        declared = entry.setting
        if declared is None or name in (elsewhere or ()) or name == "generators":
            continue
        if name == "options" and isinstance(entry, Key):
            subtables += ["", f"[{table.name}.options]", *_of_rule(rules, str(table.keys["name"].setting.default))]  # type: ignore[union-attr]
            continue
        yield from _comment(_explained(declared))
        yield _line(name, *_shown(declared))
    yield from subtables


def _is_required(entry: Key | Table) -> bool:
    return entry.setting is not None and entry.setting.required


def _explained(declared: Setting) -> str:
    text = declared.declared.help
    if not declared.declared.positional and declared.declared.flags and declared.default is True:
        text = f"false: {text}"
    elif declared.default is False:
        text = f"true: {text}"
    if declared.declared.usual:
        text += f"; if left out, {declared.declared.usual}"
    # What TOML has in small letters stays so.
    return f"{text}." if isinstance(declared.default, bool) else f"{text[:1].upper()}{text[1:]}."


def _shown(declared: Setting) -> tuple[Any, bool]:
    # A value, and whether it stands as it is: the default, or a path to be filled in.
    said = declared.declared
    if said.sample is not None:
        return said.sample, declared.required
    if declared.default is None and said.word:
        return said.word, True
    return declared.default, True


def _generators(generators: Catalogue[Generator]) -> Iterator[str]:
    for place, name in enumerate(DEFAULT_GENERATORS):
        if name in generators:
            yield from ["", f"[generators.{name}]"] if place else [f"[generators.{name}]"]
            yield from _options(generators[name])


def _of_rule(rules: Catalogue[Rule], name: str) -> Iterator[str]:
    if name in rules:
        yield from _options(rules[name])


def _options(component: Component) -> Iterator[str]:
    for option in options_of(component):
        yield from _comment(_sentence(option))
        yield _line(option.name, {} if option.required else _default(option), not option.required)


def _default(option: Option) -> Any:
    return "none" if option.default is None else option.default  # for which TOML has no value


def _sentence(option: Option) -> str:
    return f"{option.help}.".replace("`", "") if option.help else ""


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False)]


def _line(name: str, value: Any, as_it_is: bool) -> str:
    return f"{'' if as_it_is else '#'}{name} = {toml(value)}"


def toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, Mapping):
        parts = ", ".join(f"{name} = {toml(one)}" for name, one in value.items())
        return f"{{ {parts} }}" if parts else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def write_example(path: Path, text: str) -> None:
    """Write the example to a new file.

    Raises:
        FileFormatError: When it cannot be written.
        UsageError: When there is such a file already, or its name is not that of such a file.
    """
    if path.suffix.lower() != ".toml":
        raise UsageError(
            f"{path}: expected a name that ends in .toml, so that 'deepjudge audit' recognises it", code="wrong-value"
        )
    if path.exists():
        raise UsageError(f"{path}: expected a new file, found an existing one", code="would-overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be written: {error.strerror}", code="cannot-write") from None

"""The suspects of a fleet: files, folders, globs, and lists of them with options of their own."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.folders import Skipped
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.cli.applying import options_of_each
from deepjudge_core.cli.auditfile.keys import Key, Table, document, options
from deepjudge_core.cli.auditfile.reading import AuditFileError
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.kinds import Parsed, kind_of_setting
from deepjudge_core.cli.many import FolderSettings
from deepjudge_core.cli.sources import expand
from deepjudge_core.components.registry import Adapters
from deepjudge_core.errors import DeepJudgeError, FileFormatError, UsageError
from deepjudge_core.files.reading import open_regular
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings
from deepjudge_core.settings import build

LIST = ".txt"
"""How the names of lists end."""
_LARGEST = 2**26  # bytes: some hundred thousand lines
_LONGEST = 2**12  # characters of a line
_MOST_MISTAKES = 20  # that are told at once
_TABLE = "suspects[]"


def subjects_of(
    names: Sequence[str],
    query: QuerySettings,
    opening: Mapping[str, Any],
    adapters: Adapters,
    folders: FolderSettings,
    command: type[Command],
) -> tuple[list[Subject], tuple[Skipped, ...]]:
    """The suspects that names stand for, and what else was in their folders.

    Args:
        names: Files, folders, globs, and lists.
        query: How suspects are asked of which a list says nothing else.
        opening: The options by which they are opened, likewise.
        adapters: What reads models.
        folders: How folders are taken.
        command: The command of whose files lists have the keys: ``audit``.

    Raises:
        UsageError: For what is wrong with lists, with a line for each mistake.
        ModelError: When there is no model at all.
    """
    lists = [name for name in names if _is_list(name)]
    direct = [name for name in names if name not in lists]
    subjects, skipped = list[Subject](), list[Skipped]()
    if direct:
        found = expand(direct, adapters, folders)
        each = options_of_each(found.models, opening, adapters)
        subjects += (Subject.of(one, query=query, options=its) for one, its in zip(found.models, each, strict=True))
        skipped += found.skipped
    for name in lists:
        more, beside = _of_list(Path(name), query, opening, adapters, folders, command)
        subjects += more
        skipped += beside
    return subjects, tuple(skipped)


def _is_list(name: str) -> bool:
    return name.lower().endswith(LIST) and Path(name).is_file()


def _of_list(
    path: Path,
    query: QuerySettings,
    opening: Mapping[str, Any],
    adapters: Adapters,
    folders: FolderSettings,
    command: type[Command],
) -> tuple[list[Subject], list[Skipped]]:
    table = document(command).keys["suspects"]
    assert isinstance(table, Table)  # noqa: S101 - AUDIT.toml has tables of suspects
    subjects, skipped, mistakes = list[Subject](), list[Skipped](), list[str]()
    for number, source, said in _lines(path, mistakes):
        try:
            values = _checked(table, said)
            found = expand([source], adapters, folders)
            asking = build(QuerySettings, options(QuerySettings, values, _TABLE)) if said else query
            stated = build(OpeningSettings, options(OpeningSettings, values, _TABLE)).options if said else opening
            each = options_of_each(found.models, stated, adapters)
        except DeepJudgeError as error:
            mistakes.append(f"{path}:{number}: {error}")
            continue
        subjects += (Subject.of(one, query=asking, options=its) for one, its in zip(found.models, each, strict=True))
        skipped += found.skipped
    if mistakes:
        raise AuditFileError(mistakes[:_MOST_MISTAKES])
    return subjects, skipped


def _lines(path: Path, mistakes: list[str]) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    # Number, path and options of each; empty lines and those that begin with # say nothing.
    for number, line in enumerate(_text(path).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        source, brace, rest = text.partition(" {")
        if not (brace and text.endswith("}")):
            source, rest = text, ""
        if len(text) > _LONGEST or rest.count("{") + rest.count("[") > 32:
            mistakes.append(f"{path}:{number}: expected a path and options in at most {_LONGEST} characters")
            continue
        try:
            said = tomllib.loads(f"it = {{{rest}")["it"] if rest else {}
        except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
            mistakes.append(f"{path}:{number}: expected options as in {{output = 'logits'}}, found {rest!r}: {error}")
            continue
        yield number, source.strip(), said


def _text(path: Path) -> str:
    with open_regular(path, "a list of suspects", _LARGEST) as file:
        try:
            return file.read().decode("utf-8-sig")
        except OSError as error:
            raise FileFormatError(f"{path}: cannot be read: {error.strerror}", code="cannot-read") from None
        except UnicodeDecodeError:
            raise AuditFileError([f"{path}: expected text in UTF-8, found other bytes"]) from None


def _checked(table: Table, said: Mapping[str, Any]) -> dict[str, Any]:
    # What is made of the options of a line; the keys are those of a table of suspects.
    return {name: _value(table, name, value) for name, value in said.items()}


def _value(table: Table, name: str, value: Any) -> Any:
    entry = table.keys.get(name) if name != "path" else None
    if entry is None:
        names = [key for key in table.keys if key != "path"]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"{name}: no such key; expected one of {', '.join(names)}{hint}", code="unknown-option")
    try:
        if isinstance(entry, Key):
            return entry.check(value)
        return _table_value(entry, value)
    except UsageError as error:
        raise UsageError(f"{name}: {error}", code=error.code) from None


def _table_value(entry: Table, value: Any) -> Any:
    kind = kind_of_setting(entry.setting) if entry.setting else None
    if isinstance(kind, Parsed) and isinstance(value, str):
        return kind.of_word(value)
    if not isinstance(kind, Parsed) or not isinstance(value, dict):
        raise UsageError(f"expected a table with some of {', '.join(entry.keys)}, or a text", code="wrong-value")
    return build(kind.owner, options(kind.owner, _checked(entry, value), ""))

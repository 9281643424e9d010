"""The file of an audit, ``AUDIT.toml``, read into a plan.

Everything in it is checked before any model is opened, and each mistake is reported with its line.
"""

import contextlib
import difflib
import io
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from deepjudge_core.auditing.folders import Found, Skipped
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile, Subject
from deepjudge_core.bundles.settings import BundleSettings
from deepjudge_core.cli import exports, terminal
from deepjudge_core.cli.applying import options_of_each
from deepjudge_core.cli.auditfile.keys import Key, Table, existing_file, options
from deepjudge_core.cli.auditfile.keys import document as document_of
from deepjudge_core.cli.auditfile.lines import Keys, line_of
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.kinds import Assignments, Parsed, expected, kind_of_setting
from deepjudge_core.cli.many import FolderSettings, ManySettings
from deepjudge_core.cli.plan import OUTPUT, Plan
from deepjudge_core.cli.sources import expand
from deepjudge_core.components import options as component_options
from deepjudge_core.components.registry import Adapters
from deepjudge_core.errors import FileFormatError, MistakesError, ModelError, PluginError, UsageError
from deepjudge_core.files.reading import is_shallow, open_regular
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.rules import check_options
from deepjudge_core.judging.settings import CalibrationSettings, JudgeSettings
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings
from deepjudge_core.report.settings import CaseSettings, ReportSettings
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import build, part_like, settings_of
from deepjudge_core.suites.settings import DEFAULT_GENERATORS, InputSettings, SuiteSettings
from deepjudge_core.text import counted, found, is_url

T = TypeVar("T")

_LARGEST = 2**17  # bytes: the parser, and the search for lines, take long for more
_MOST_MISTAKES = 20  # that are told at once
# The parser's time grows with the square of a dotted key's length.
_ENDLESS = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){32}""")


class AuditFileError(MistakesError):
    """What is wrong with the file of an audit: a line for each mistake, of the first ones."""

    code = "audit-file"


def read_plan(path: Path, output: Path | None, session: Session, command: type[Command]) -> Plan:
    """Read the file of an audit.

    Args:
        path: The file; paths in it, and code of networks, are found from its folder.
        output: Where the outcome goes, if not where the file says.
        session: Where the components are that it names.
        command: The command whose settings it says.

    Raises:
        AuditFileError: With a line for each mistake in it.
        FileFormatError: When it cannot be read.
    """
    # With the mark that Windows puts in front, or without.
    with open_regular(path, "an AUDIT.toml file", _LARGEST) as opened, io.TextIOWrapper(opened, "utf-8-sig") as file:
        try:
            text = file.read()
        except OSError as error:
            raise FileFormatError(f"{path}: cannot be read: {error.strerror}", code="cannot-read") from None
        except UnicodeDecodeError:
            raise AuditFileError([f"{path}: expected text in UTF-8, found other bytes"]) from None
    reading = _Reading(_parse(path, text), session, command)
    sealed = output and output.absolute()
    with contextlib.chdir(path.parent):
        values = reading.table(reading.root, reading.document, ())
        plan = reading.plan(values, path.parent, output, sealed)
    if plan is None:
        raise AuditFileError(_lines(path, text, reading.mistakes[:_MOST_MISTAKES]))
    if not plan.chosen:
        _warn_of_outputs(path, text, reading.document)
    return replace(plan, file=path.absolute())


def _warn_of_outputs(path: Path, text: str, document: Mapping[str, Any]) -> None:
    # The only key that means one thing at the top of the file, and another in the tables of models.
    models: list[tuple[Keys, Mapping[str, Any]]] = [(("victim",), document["victim"])]
    models += [((name, i), one) for name in ("controls", "suspects") for i, one in enumerate(document.get(name, []))]
    for at, model in models:
        if "output" in model:
            keys = (*at, "output")
            terminal.warn(
                f"{path}:{_nearest_line(text, keys)}: {_dotted(keys)}: this names the model's output that holds the "
                f"scores; if you mean the folder of the report, write it above the first table of the file"
            )


def _parse(path: Path, text: str) -> Mapping[str, Any]:
    endless = AuditFileError([f"{path}: expected an AUDIT.toml file, found arrays nested without end"])
    if _ENDLESS.search(text):
        raise endless
    try:
        document = tomllib.loads(text)
        json.dumps(document, default=str)  # as messages show it: there are numbers that are read and cannot be written
    except tomllib.TOMLDecodeError as error:
        said, _, place = str(error).removesuffix(")").rpartition(" (at ")
        at = re.match(r"line (\d+)", place)
        # Otherwise at the end of the document.
        line = int(at[1]) if at else text.rstrip("\n").count("\n") + 1
        hint = _toml_hint(said, [*text.splitlines(), ""][line - 1])
        raise AuditFileError([f"{path}:{line}: not valid TOML: {said}{hint}"]) from None
    except RecursionError:
        raise endless from None
    except ValueError:
        raise AuditFileError([f"{path}: expected ordinary numbers, found one with thousands of digits"]) from None
    if not is_shallow(document):
        raise endless
    return document


_LINES = (
    (r"""[^'#]*"[^"']*\\""", "between double quotes, \\ has a meaning of its own: use / in paths, or single quotes"),
    (r"\s*[\w.-]+\s*=\s*(?i:true|false)\b", "write true or false in lower case"),
    (r"\s*[\w.-]+\s*=\s*[A-Za-z./~]", "put texts in quotes"),
    (r"\s*[\w.-]+\s*:", "write = between a key and its value"),
    (r"\s*[{}]", 'expected lines such as path = "victim.onnx"'),
)
"""How lines look that are not TOML, and what their writer may do."""


def _toml_hint(said: str, line: str) -> str:
    # What the parser says does not always tell what to do.
    if said.startswith(("Cannot overwrite", "Cannot declare", "Cannot mutate")):
        return "; it is there twice: leave one out"
    return next((f"; {hint}" for pattern, hint in _LINES if re.match(pattern, line)), "")


def _meant(check: Callable[[Any], object], value: Any) -> str:
    # What would be right in place of a value, if only its form is wrong.
    for other in _other_forms(value):
        with contextlib.suppress(UsageError):
            check(other)
            return f"; write {json.dumps(other)}"
    return ""


def _other_forms(value: Any) -> Iterator[Any]:
    if isinstance(value, list) and len(value) == 1:
        yield value[0]
    if not isinstance(value, str):
        return
    parts = [part.strip() for part in value.split(",")]
    for one in (value, value.lower(), f"[{','.join(parts)}]"):
        with contextlib.suppress(ValueError, RecursionError):
            yield json.loads(one)
    yield from ([value], parts)


def _lines(path: Path, text: str, mistakes: Iterable[tuple[Keys, str]]) -> Iterator[str]:
    placed = [(_nearest_line(text, keys), f"{_dotted(keys)}: {message}") for keys, message in mistakes]
    for line, message in sorted(placed, key=lambda mistake: mistake[0]):
        yield f"{path}:{line}: {message}"


def _nearest_line(text: str, keys: Keys) -> int:
    # Of what is missing, the line of the table in which it is; of a table, the first of the file.
    lines = (line_of(text, keys[:depth]) for depth in range(len(keys), 0, -1))
    return next(filter(None, lines), 1)


def _in_words(name: str, entry: Key | Table) -> str:
    if isinstance(entry, Key):
        sample = entry.setting.declared.sample
        return "a value" if sample is None else f"{name} = {json.dumps(sample)}"
    return f"tables [[{name}]]" if entry.many else f"a table [{name}]"


def _under(table: Table, header: str, value: Any) -> str:
    # How a table is written whose value is another one.
    key = next((key for key in ("path", "name") if key in table.keys), None)
    if isinstance(value, str) and key:
        return f"; write {header}, and {key} = {json.dumps(value, ensure_ascii=False)} below it"
    if isinstance(value, list) and not table.many:
        return f"; write {header}, with one bracket on each side"
    return f"; write {header}, with two brackets" if isinstance(value, dict) else ""


def _dotted(keys: Keys) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


_Check = Callable[[Mapping[str, Any]], object]


class _Reading:
    # Reads a document, and collects what is wrong with it.

    def __init__(self, document: Mapping[str, Any], session: Session, command: type[Command]) -> None:
        self.document, self.registry, self.command = document, session.registry, command
        self.root = document_of(command)
        self.mistakes: list[tuple[Keys, str]] = []

    def table(self, table: Table, value: Any, at: Keys) -> dict[str, Any]:
        """What was made of the values of a table, those that are wrong left out."""
        if not isinstance(value, dict):
            many = isinstance(at[-1], int)
            header = f"[[{_dotted(at[:-1])}]]" if many else f"[{_dotted(at)}]"
            self._add(at, f"{expected(f'a table {header}', value)}{_under(table, header, value)}")
            return {}
        for name in value:
            if name not in table.keys:
                self._add((*at, name), _unknown(table, name, self.root))
        read = {}
        for name, entry in table.keys.items():
            here = (*at, name)
            if name not in value:
                if entry.required:
                    self._add(here, f"expected {_in_words(name, entry)}, found none")
            elif isinstance(entry, Key):
                try:
                    read[name] = entry.check(value[name])
                except UsageError as error:
                    self._add(here, f"{error}{_meant(entry.check, value[name])}")
            elif not entry.many:
                read[name] = self._part(entry, value[name], here)
            elif not isinstance(value[name], list) or (entry.required and not value[name]):
                self._add(
                    here, f"{expected(_in_words(name, entry), value[name])}{_under(entry, f'[[{name}]]', value[name])}"
                )
            else:
                read[name] = [self.table(entry, one, (*here, i)) for i, one in enumerate(value[name])]
        return read

    def _part(self, table: Table, value: Any, at: Keys) -> Any:
        # A table of settings; or of one value, which its class makes of it.
        before = len(self.mistakes)
        kind = kind_of_setting(table.setting) if table.setting else None
        if isinstance(kind, Parsed) and isinstance(value, str):
            return self.attempt(at, kind.of_word, value)
        if isinstance(kind, Parsed) and not isinstance(value, dict):
            self._add(at, str(expected(f"a table with some of {', '.join(table.keys)}, or a text", value)))
            return None
        values = self.table(table, value, at)
        if kind is None:
            return values
        if len(self.mistakes) > before or not isinstance(kind, Parsed):
            return None
        return self.attempt(at, build, kind.owner, options(kind.owner, values, ""))

    def attempt(self, at: Keys, check: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What a function gives; None where it refuses, which is then a mistake in this place."""
        try:
            return check(*arguments, **options)
        except (UsageError, ModelError) as error:
            self._add(at, str(error))
            return None

    def plan(self, values: Mapping[str, Any], folder: Path, output: Path | None, sealed: Path | None) -> Plan | None:
        """The plan that the values of the whole document make; None where there is any mistake."""
        suite = self._suite(values)
        inputs = self.document.get("inputs")
        if not suite.weights and inputs is None:
            self._add(("inputs",), "expected a table [inputs], found none")
        elif not suite.weights and isinstance(inputs, dict) and "path" not in inputs:
            self._add(("inputs", "path"), "expected a value, found none")
        judge = self._judge(values, suite)
        confinement = self.attempt(("sandbox",), self._settings, Confinement, values)
        folders = self._settings(FolderSettings, values)
        (controls, beside), (suspects, skipped) = (
            self._models(f"{name}[]", values.get(name, []), folders) for name in ("controls", "suspects")
        )
        if sealed is None:
            sealed = Path(values.get("output", OUTPUT))
        forms = self._settings(ReportSettings, values).files
        reports: dict[str, Path] = {}
        for name, path in forms.items():
            written = list(filter(None, reports.values()))
            reports[name] = self.attempt(("report", name), exports.check, name, path, sealed, written)
        if self.mistakes or judge is None:
            return None
        victim = values["victim"]
        asking = build(QuerySettings, options(QuerySettings, victim, "victim"))
        return Plan(
            victim=ModelFile(str(victim["path"]), _opening(victim, "victim"), query=asking),
            suspects=suspects,
            controls=controls,
            inputs=self._settings(InputSettings, values),
            suite=suite,
            calibration=self._settings(CalibrationSettings, values),
            judge=judge,
            sandbox=confinement.policy,
            device=confinement.device,
            output=output or folder / values.get("output", OUTPUT),
            chosen=output is not None or "output" in values,
            data=Path(values["inputs"]["data"]) if values.get("inputs", {}).get("data") else None,
            bundle=self._settings(BundleSettings, values),
            exports={name: folder / path for name, path in reports.items()},
            kept=self._settings(CaseSettings, values),
            folder=folder,
            many=self._settings(ManySettings, values),
            skipped=skipped,
            beside_controls=beside,
        )

    def _settings(self, owner: type[T], values: Mapping[str, Any], **more: Any) -> T:
        # Settings of a class, of the document and of the tables that have its keys.
        owner = part_like(self.command, owner)
        tables = {table for one in settings_of(owner) for table in one.declared.tables if not table.endswith("[]")}
        chosen: dict[tuple[str, ...], Any] = {}
        for table in tables:
            chosen |= options(owner, values.get(table, {}) if table else values, table)
        return build(owner, chosen | {(name,): value for name, value in more.items()})

    def _suite(self, values: Mapping[str, Any]) -> SuiteSettings:
        generators = values.get("generators", {})
        for name, chosen in generators.items():
            at = ("generators", name)
            generator = self.attempt(at, self.registry.generators.__getitem__, name)
            if self.attempt(at, Assignments().of_value, chosen) is not None and generator:
                check = partial(component_options.resolve, name, generator.generate)
                self._check_options(at, name, chosen, check)
        # No table of a generator, and the usual ones as the example has them, are as nothing said of generators.
        usual = tuple(generators) == DEFAULT_GENERATORS and self._are_defaults(generators)
        more = {"generators": tuple(generators), "options": generators} if generators and not usual else {}
        others = {name: value for name, value in values.items() if name != "generators"}
        return self._settings(SuiteSettings, others, **more)

    def _are_defaults(self, generators: Mapping[str, Mapping[str, Any]]) -> bool:
        try:
            plain = self.registry.generators.configure(generators, {})
            said = self.registry.generators.configure(generators, generators)
        except (UsageError, PluginError):  # which is said elsewhere
            return False
        return [one.options for one in plain] == [one.options for one in said]

    def _judge(self, values: Mapping[str, Any], suite: SuiteSettings) -> Judge | None:
        settings = self._settings(JudgeSettings, values)
        metrics = self.attempt(("metrics",), self.registry.metrics.select, settings.metrics)
        rule = self.attempt(("rule", "name"), self.registry.rules.__getitem__, settings.rule)
        if rule is None or metrics is None:
            return None
        check = partial(check_options, rule, metrics=[metric.name for metric in metrics])
        before = len(self.mistakes)
        self._check_options(("rule", "options"), settings.rule, settings.rule_options or {}, check)
        if len(self.mistakes) > before:
            return None
        named = [self.registry.generators[name] for name in suite.generators or () if name in self.registry.generators]
        cases, ancestor = "inputs" in values, suite.ancestor is not None
        makes = {generator.makes for generator in named}
        offer = Offer(makes, cases, suite.weights or ancestor, ancestor, cases) if named or not cases else None
        judge: Judge | None = self.attempt(("rule", "fdr"), Judge.of, settings, self.registry, offer)
        return judge

    def _check_options(self, at: Keys, owner: str, chosen: Mapping[str, Any], check: _Check) -> None:
        # One by one, so that each mistake has the line of its option; then for what only all of them show.
        usual = _refused(check, {})
        alone = {name: _refused(check, {name: value}) or _typed(check, name, value) for name, value in chosen.items()}
        wrong = {name: text for name, text in alone.items() if text and text != usual}
        for name, text in wrong.items():
            self._add((*at, name), text.removeprefix(f"{owner}.{name}: "))
        whole = _refused(check, chosen)
        if whole and not wrong:
            self._add(at, whole)

    def _models(
        self, table: str, entries: Iterable[Mapping[str, Any]], folders: FolderSettings
    ) -> tuple[list[Subject], list[Skipped]]:
        subjects, skipped = list[Subject](), list[Skipped]()
        seen: dict[tuple[str, str], int] = {}  # the place of each file, and of how it is opened and asked
        for place, values in enumerate(entries):
            at = (table.removesuffix("[]"), place)
            asking = build(QuerySettings, options(QuerySettings, values, table))
            opening, stratum = _opening(values, table), values.get("stratum")
            if values.get("path"):
                found = self.attempt((*at, "path"), _expand, values["path"], self.registry.adapters, folders) or Found()
                skipped += found.skipped
                each = options_of_each(found.models, opening, self.registry.adapters)
                places = {
                    source: seen.setdefault((os.path.abspath(source), repr((one, asking))), place)  # noqa: PTH100
                    for source, one in zip(found.models, each, strict=True)
                }
                again = [(source, first) for source, first in places.items() if first != place]
                if again:
                    source, first = again[0]
                    others = f" and {counted(len(again) - 1, 'other')}" if again[1:] else ""
                    self._add((*at, "path"), f"{source}{others}: already in {at[0]}[{first}]; name each model once")
                subjects += [
                    Subject.of(source, query=asking, options=one, stratum=stratum)
                    for source, one in zip(found.models, each, strict=True)
                ]
        return subjects, skipped

    def _add(self, at: Keys, message: str) -> None:
        self.mistakes.append((at, message))


def _unknown(table: Table, name: str, root: Table) -> str:
    entries = {key: entry.setting for key, entry in table.keys.items() if entry.setting is not None}
    here = f"{table.name}.{name}".removeprefix(".")
    for key, declared in entries.items():
        if here in declared.declared.formerly:
            return f"no such key; it is now called {key!r}"
    if table is not root and name in root.keys:
        return f"no such key of this table; write it above the first table of the file, as {name} = ..."
    near = difflib.get_close_matches(name, table.keys, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no such key; expected one of {', '.join(table.keys)}{hint}"


def _refused(check: _Check, chosen: Mapping[str, Any]) -> str | None:
    try:
        check(chosen)
    except UsageError as error:
        return str(error)
    return None


def _typed(check: _Check, name: str, value: Any) -> str | None:
    # Texts are numbers on a command line; a file has numbers of its own.
    with contextlib.suppress(UsageError):
        taken = check({name: value})
        return _untyped(value, taken.get(name) if isinstance(taken, Mapping) else value)
    return None


def _untyped(value: Any, taken: Any) -> str | None:
    if isinstance(value, Mapping) and isinstance(taken, Mapping):
        return next(filter(None, (_untyped(one, taken.get(key, one)) for key, one in value.items())), None)
    if isinstance(value, str) and taken is not None and not isinstance(taken, str):
        return f"expected a value without quotes, found {found(value)}; write {found(taken)}"
    return None


def _expand(path: str, adapters: Adapters, folders: FolderSettings) -> Found:
    found = expand([path], adapters, folders)
    for file in found.models:
        if not is_url(file):
            existing_file(file)
    return found


def _opening(values: Mapping[str, Any], table: str) -> dict[str, Any]:
    return build(OpeningSettings, options(OpeningSettings, values, table)).options

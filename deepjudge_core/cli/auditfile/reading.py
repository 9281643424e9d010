"""The file of an audit, ``AUDIT.toml``, read into a plan; and an example to begin with.

Everything in it is checked before any model is opened, and each mistake is reported with its line.
"""

import contextlib
import difflib
import io
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile, Subject
from deepjudge_core.cli import exports
from deepjudge_core.cli.auditfile.keys import SCHEMA, Key, Table, a_table, existing_file, expected
from deepjudge_core.cli.auditfile.lines import Keys, line_of
from deepjudge_core.cli.plan import BundleSettings, InputsFile, Plan, opening, sandbox
from deepjudge_core.cli.sources import expand
from deepjudge_core.components import options as component_options
from deepjudge_core.components.registry import Adapters
from deepjudge_core.errors import FileFormatError, ModelError, UsageError
from deepjudge_core.files.reading import is_shallow, open_regular
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.neurons import DEFAULT_MATCH
from deepjudge_core.judging.rules import check_options
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.observing.observe import QuerySettings
from deepjudge_core.suites.generation import SuiteSettings

_LARGEST = 2**17  # bytes: the parser, and the search for lines, take long for more
_MOST_MISTAKES = 20  # that are told at once
# The parser's time grows with the square of a dotted key's length.
_ENDLESS = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){32}""")


class AuditFileError(UsageError):
    """What is wrong with the file of an audit: a line for each mistake, of the first ones."""

    code = "audit-file"

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("; ".join(self.lines))


def read_plan(path: Path, output: Path | None, session: Session) -> Plan:
    """Read the file of an audit.

    Args:
        path: The file; paths in it, and code of networks, are found from its folder.
        output: Where the outcome goes, if not where the file says.
        session: Where the components are that it names.

    Raises:
        AuditFileError: With a line for each mistake in it.
        FileFormatError: When it cannot be read.
    """
    # With the mark that Windows puts in front, or without.
    with open_regular(path, "the file of an audit", _LARGEST) as opened, io.TextIOWrapper(opened, "utf-8-sig") as file:
        try:
            text = file.read()
        except OSError as error:
            raise FileFormatError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise AuditFileError([f"{path}: expected a text in UTF-8, found other bytes"]) from None
    reading = _Reading(_parse(path, text))
    sealed = output and output.absolute()
    with contextlib.chdir(path.parent):
        values = reading.table(SCHEMA, reading.document, ())
        plan = reading.plan(values, path.parent, output, sealed, session)
    if plan is None:
        raise AuditFileError(_lines(path, text, reading.mistakes[:_MOST_MISTAKES]))
    return plan


def _parse(path: Path, text: str) -> Mapping[str, Any]:
    endless = AuditFileError([f"{path}: expected an audit, found arrays within arrays without end"])
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
        raise AuditFileError([f"{path}:{line}: not valid TOML: {said}"]) from None
    except RecursionError:
        raise endless from None
    except ValueError:
        raise AuditFileError([f"{path}: expected numbers, found one of thousands of digits"]) from None
    if not is_shallow(document):
        raise endless
    return document


def _lines(path: Path, text: str, mistakes: Iterable[tuple[Keys, str]]) -> Iterator[str]:
    found = [(_nearest_line(text, keys), f"{_dotted(keys)}: {message}") for keys, message in mistakes]
    for line, message in sorted(found, key=lambda mistake: mistake[0]):
        yield f"{path}:{line}: {message}"


def _nearest_line(text: str, keys: Keys) -> int:
    # Of what is missing, the line of the table in which it is; of a table, the first of the file.
    lines = (line_of(text, keys[:depth]) for depth in range(len(keys), 0, -1))
    return next(filter(None, lines), 1)


def _kind(name: str, entry: Key | Table) -> str:
    if isinstance(entry, Key):
        return "a value"
    return f"tables [[{name}]]" if entry.many else f"a table [{name}]"


def _dotted(keys: Keys) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


_Check = Callable[[Mapping[str, Any]], object]


class _Reading:
    # Reads a document, and collects what is wrong with it.

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.mistakes: list[tuple[Keys, str]] = []

    def table(self, table: Table, value: Any, at: Keys) -> dict[str, Any]:
        """What was made of the values of a table, those that are wrong left out."""
        if not isinstance(value, dict):
            self._add(at, str(expected("a table", value)))
            return {}
        for name in value:
            if name not in table.keys:
                near = difflib.get_close_matches(name, table.keys, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                self._add((*at, name), f"no such key; expected one of {', '.join(table.keys)}{hint}")
        read = {}
        for name, entry in table.keys.items():
            here = (*at, name)
            if name not in value:
                if entry.required:
                    self._add(here, f"expected {_kind(name, entry)}, found none")
            elif isinstance(entry, Key):
                try:
                    read[name] = entry.check(value[name])
                except UsageError as error:
                    self._add(here, str(error))
            elif not entry.many:
                read[name] = self.table(entry, value[name], here)
            elif not isinstance(value[name], list) or (entry.required and not value[name]):
                self._add(here, str(expected(_kind(name, entry), value[name])))
            else:
                read[name] = [self.table(entry, part, (*here, i)) for i, part in enumerate(value[name])]
        return read

    def attempt(self, at: Keys, check: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What a function gives; None where it refuses, which is then a mistake in this place."""
        try:
            return check(*arguments, **options)
        except (UsageError, ModelError) as error:
            self._add(at, str(error))
            return None

    def plan(
        self, values: Mapping[str, Any], folder: Path, output: Path | None, sealed: Path | None, session: Session
    ) -> Plan | None:
        """The plan that the values of the whole document make; None where there is any mistake."""
        making, judge = self._making(values, session), self._judge(values, session)
        confined = self.attempt(("sandbox",), sandbox, **values.get("sandbox", {}))
        controls, suspects = (self._models(name, values.get(name, []), session) for name in ("controls", "suspects"))
        if output is None and "output" not in self.document:
            self._add(("output",), "expected the folder to write to, here or with -o, found none")
        if sealed is None and "output" in values:
            sealed = Path(values["output"])
        reports: dict[str, Path] = {}
        for name, path in values.get("report", {}).items():
            at = ("report", name)
            reports[name] = self.attempt(
                at, exports.check, name, Path(path), sealed, list(filter(None, reports.values()))
            )
        if self.mistakes or judge is None:
            return None
        victim, inputs = values["victim"], values["inputs"]
        return Plan(
            victim=ModelFile(
                str(victim["path"]), _opening(victim), query=QuerySettings(layout=victim.get("input_layout"))
            ),
            suspects=suspects,
            controls=controls,
            inputs=InputsFile(**inputs),
            making=making,
            match=values.get("match", DEFAULT_MATCH),
            judge=judge,
            sandbox=confined,
            output=output or folder / values["output"],
            sealing=_sealing(values.get("bundle", {})),
            exports={name: folder / path for name, path in reports.items()},
            folder=folder,
        )

    def _making(self, values: Mapping[str, Any], session: Session) -> SuiteSettings:
        suite = dict(values.get("suite", {}))
        if "seeds" in suite:
            suite["n"] = suite.pop("seeds")
        generators = values.get("generators", {})
        for name, options in generators.items():
            at = ("generators", name)
            generator = self.attempt(at, session.registry.generators.__getitem__, name)
            if self.attempt(at, a_table, options) is not None and generator:
                check = partial(component_options.resolve, name, generator.generate)
                self._check_options(at, name, options, check)
        # No table of a generator is as none at all: the usual ones.
        return SuiteSettings(
            **suite, **({"generators": tuple(generators), "options": generators} if generators else {})
        )

    def _judge(self, values: Mapping[str, Any], session: Session) -> Judge | None:
        metrics, rule = values.get("metrics"), values.get("rule", {})
        given = {"rule": rule.get("name"), "rule_options": rule.get("options")}
        given |= {name: rule.get(name) for name in ("groups", "fdr")}
        settings = JudgeSettings(metrics, **{name: value for name, value in given.items() if value is not None})
        chosen = self.attempt(("metrics",), session.registry.metrics.select, metrics)
        known = self.attempt(("rule", "name"), session.registry.rules.__getitem__, settings.rule)
        if known is None or chosen is None:
            return None
        check = partial(check_options, known, metrics=[metric.name for metric in chosen])
        before = len(self.mistakes)
        self._check_options(("rule", "options"), settings.rule, settings.rule_options or {}, check)
        if len(self.mistakes) > before:
            return None
        judge: Judge | None = self.attempt(("rule", "fdr"), Judge.of, settings, session.registry)
        return judge

    def _check_options(self, at: Keys, owner: str, options: Mapping[str, Any], check: _Check) -> None:
        # One by one, so that each mistake has the line of its option; then for what only all of them show.
        usual = _refused(check, {})
        alone = {name: _refused(check, {name: value}) for name, value in options.items()}
        found = {name: said for name, said in alone.items() if said and said != usual}
        for name, said in found.items():
            self._add((*at, name), said.removeprefix(f"{owner}.{name}: "))
        whole = _refused(check, options)
        if whole and not found:
            self._add(at, whole)

    def _models(self, name: str, tables: Iterable[Mapping[str, Any]], session: Session) -> list[Subject]:
        subjects = []
        for place, values in enumerate(tables):
            at = (name, place)
            given = values.get("input")
            asking = QuerySettings(
                layers=values.get("layers") or {},
                preprocessing=None if given is None else self.attempt((*at, "input"), Preprocessing, **given),
                infer=values.get("infer_input", True),
                classes=values.get("classes"),
                layout=values.get("input_layout"),
            )
            adapters, stratum = session.registry.adapters, values.get("stratum")
            found = self.attempt((*at, "path"), _expand, values["path"], adapters) if values.get("path") else None
            subjects += [
                Subject.of(source, query=asking, options=_opening(values), stratum=stratum) for source in found or ()
            ]
        return subjects

    def _add(self, at: Keys, message: str) -> None:
        self.mistakes.append((at, message))


def _refused(check: _Check, options: Mapping[str, Any]) -> str | None:
    try:
        check(options)
    except UsageError as error:
        return str(error)
    return None


def _expand(path: str, adapters: Adapters) -> list[str]:
    found = expand([path], adapters)
    for file in found:
        existing_file(file)
    return found


def _opening(values: Mapping[str, Any]) -> dict[str, Any]:
    return opening(values.get("output_name"), values.get("arch"))


def _sealing(values: Mapping[str, Any]) -> BundleSettings:
    return BundleSettings(
        values.get("commitment"), values.get("key"), not values.get("observations", True), values.get("tsa")
    )


# An example of it.


def example() -> str:
    """A file with all keys, those that have to be there with names to be filled in."""
    return (files("deepjudge_core.cli.auditfile") / "audit.toml").read_text("utf-8")


def write_example(path: Path) -> None:
    """Write the example to a new file.

    Raises:
        FileFormatError: When it cannot be written.
        UsageError: When there is such a file already, or its name is not that of such a file.
    """
    if path.suffix.lower() != ".toml":
        raise UsageError(f"{path}: expected a name that ends in .toml, by which 'deepjudge audit' knows it")
    if path.exists():
        raise UsageError(f"{path}: expected a new file, found one that is there already")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(example())
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be written: {error.strerror}") from None

"""The file of an audit, ``AUDIT.toml``: what it may hold, read into a plan, and an example to begin with.

Everything in it is checked before any model is opened, and each mistake is reported with its line.
"""

import contextlib
import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from deepjudge_core import options as component_options
from deepjudge_core.audit import Judging, Making
from deepjudge_core.cli.lines import Keys, line_of
from deepjudge_core.cli.plan import InputsFile, Plan
from deepjudge_core.cli.sources import expand
from deepjudge_core.errors import FileFormatError, ModelError, UsageError
from deepjudge_core.judge import Grouping, check_rule
from deepjudge_core.matching import DEFAULT_MATCH, Match
from deepjudge_core.model import Layout
from deepjudge_core.observe import Asking
from deepjudge_core.plugins import Registry
from deepjudge_core.preprocessing import Preprocessing
from deepjudge_core.seeds import Order
from deepjudge_core.subject import Subject

_LONGEST = 60  # characters of a value in a message


class AuditFileError(UsageError):
    """What is wrong with the file of an audit: a line for each mistake."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("; ".join(self.lines))


# What may stand in it.


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


def _expected(what: str, value: object) -> UsageError:
    shown = json.dumps(value, default=str, ensure_ascii=False)
    return UsageError(f"expected {what}, found {shown if len(shown) <= _LONGEST else shown[:_LONGEST] + '...'}")


def _text(value: Any) -> str:
    # No file has a name with a null character.
    if not isinstance(value, str) or not value or "\0" in value:
        raise _expected("a text", value)
    return value


def _file(value: Any) -> Path:
    if not Path(_text(value)).exists():
        raise UsageError(f"{value}: no such file")
    return Path(value)


def _file_with_key(value: Any) -> str:
    file, colon, _ = _text(value).rpartition(":")
    if not Path(value).exists():
        _file(file if colon else value)
    return str(value)


def _code(value: Any) -> str:
    if not re.fullmatch(r"[\w.]+:[\w.]+", _text(value)):
        raise _expected('a function as "module:function"', value)
    return str(value)


def _number(value: Any) -> float:
    with contextlib.suppress(OverflowError):  # of a whole number that is no float
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    raise _expected("a number", value)


def _divisor(value: Any) -> float:
    if _number(value) == 0:
        raise _expected("a number other than 0", value)
    return _number(value)


def _numbers(value: Any) -> tuple[float, ...]:
    with contextlib.suppress(UsageError):
        return tuple(map(_number, value)) if isinstance(value, list) and value else (_number(value),)
    raise _expected("a number, or a list of one for each channel", value)


def _bounds(value: Any) -> tuple[float, float]:
    with contextlib.suppress(UsageError, TypeError, ValueError):
        low, high = map(_number, value)
        if low < high:
            return low, high
    raise _expected("the least and the greatest value as [0.0, 1.0]", value)


def _at_least(least: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or value < least:
            raise _expected(f"a whole number of at least {least}", value)
        return value

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _expected("true or false", value)
    return value


def _one_of(kind: Any) -> Callable[[Any], Any]:
    choices = get_args(kind)

    def check(value: Any) -> Any:
        if value not in choices:
            raise _expected(" or ".join(f'"{choice}"' for choice in choices), value)
        return value

    return check


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(part, str) and part for part in value):
        raise _expected("a list of texts", value)
    return tuple(value)


def _taps(value: Any) -> tuple[str, ...] | None:
    if value == "auto":
        return None
    with contextlib.suppress(UsageError):
        return _texts(value)
    raise _expected('"auto" or a list of names', value)


def _layer_map(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(tap, str) for tap in value.values()):
        raise _expected('a table of taps, as { relu_1 = "relu1" }', value)
    return value


def _classes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or any(type(place) is not int or place < 0 for place in value):
        raise _expected("whole numbers as [2, 0, 1]", value)
    if len(set(value)) < len(value):
        raise _expected("different outputs, counted from 0", value)
    return tuple(value)


def _options(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _expected("a table", value)
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
        "victim": Table({"path": Key(_file, required=True), **_OPENED}, required=True),
        "inputs": Table(
            {
                "path": Key(_file, required=True),
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
        "generators": Key(_options),
        "rule": Table({"name": Key(_text), "groups": Key(_one_of(Grouping)), "options": Key(_options)}),
        "controls": Table(_ASKED, many=True),
        "suspects": Table(_ASKED, required=True, many=True),
    }
)
"""All keys of the file."""


# How it is read.


def read_plan(path: Path, output: Path | None, registry: Registry) -> Plan:
    """Read the file of an audit.

    Args:
        path: The file; paths in it, and code of networks, are found from its folder.
        output: Where the outcome goes, if not where the file says.
        registry: Where the components are that it names.

    Raises:
        AuditFileError: With a line for each mistake in it.
        FileFormatError: When it cannot be read.
    """
    try:
        text = path.read_text("utf-8-sig")  # with the mark that Windows puts in front, or without
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise FileFormatError(f"{path}: {reason}") from None
    except UnicodeDecodeError:
        raise AuditFileError([f"{path}: expected a text in UTF-8, found other bytes"]) from None
    reading = _Reading(_parse(path, text))
    with contextlib.chdir(path.parent):
        values = reading.table(SCHEMA, reading.document, ())
        plan = reading.plan(values, path.parent, output, registry)
    if plan is None:
        raise AuditFileError(_lines(path, text, reading.mistakes))
    return plan


def _parse(path: Path, text: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said, _, place = str(error).removesuffix(")").rpartition(" (at ")
        at = re.match(r"line (\d+)", place)
        # Otherwise at the end of the document.
        line = int(at[1]) if at else text.rstrip("\n").count("\n") + 1
        raise AuditFileError([f"{path}:{line}: not valid TOML: {said}"]) from None
    except RecursionError:
        raise AuditFileError([f"{path}: expected an audit, found arrays within arrays without end"]) from None


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
            self._add(at, str(_expected("a table", value)))
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
                self._add(here, str(_expected(_kind(name, entry), value[name])))
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

    def plan(self, values: Mapping[str, Any], folder: Path, output: Path | None, registry: Registry) -> Plan | None:
        """The plan that the values of the whole document make; None where there is any mistake."""
        making, judging = self._making(values, registry), self._judging(values, registry)
        controls, suspects = (self._models(name, values.get(name, []), registry) for name in ("controls", "suspects"))
        if output is None and "output" not in self.document:
            self._add(("output",), "expected the folder to write to, here or with -o, found none")
        if self.mistakes:
            return None
        victim, inputs = values["victim"], values["inputs"]
        return Plan(
            victim=Subject(str(victim["path"]), Asking(layout=victim.get("input_layout")), _opening(victim)),
            suspects=suspects,
            controls=controls,
            inputs=InputsFile(**inputs),
            making=making,
            match=values.get("match", DEFAULT_MATCH),
            judging=judging,
            output=output or folder / values["output"],
            folder=folder,
        )

    def _making(self, values: Mapping[str, Any], registry: Registry) -> Making:
        suite = dict(values.get("suite", {}))
        if "seeds" in suite:
            suite["n"] = suite.pop("seeds")
        generators = values.get("generators", {})
        for name, options in generators.items():
            at = ("generators", name)
            generator = self.attempt(at, registry.generators.__getitem__, name)
            if self.attempt(at, _options, options) is not None and generator:
                check = partial(component_options.resolve, name, generator.generate)
                self._check_options(at, name, options, check)
        # No table of a generator is as none at all: the usual ones.
        return Making(**suite, **({"generators": tuple(generators), "options": generators} if generators else {}))

    def _judging(self, values: Mapping[str, Any], registry: Registry) -> Judging:
        metrics, rule = values.get("metrics"), values.get("rule", {})
        given = {"rule": rule.get("name"), "rule_options": rule.get("options"), "groups": rule.get("groups")}
        judging = Judging(metrics, **{name: value for name, value in given.items() if value is not None})
        chosen = self.attempt(("metrics",), registry.metrics.select, metrics)
        known = self.attempt(("rule", "name"), registry.rules.__getitem__, judging.rule)
        if known and chosen is not None:
            names = [metric.name for metric in chosen]
            check = partial(check_rule, judging.rule, metrics=names, registry=registry)
            self._check_options(("rule", "options"), judging.rule, judging.rule_options or {}, check)
        return judging

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

    def _models(self, name: str, tables: Iterable[Mapping[str, Any]], registry: Registry) -> list[Subject]:
        subjects = []
        for place, values in enumerate(tables):
            at = (name, place)
            given = values.get("input")
            asking = Asking(
                layers=values.get("layers") or {},
                preprocessing=None if given is None else self.attempt((*at, "input"), Preprocessing, **given),
                infer=values.get("infer_input", True),
                classes=values.get("classes"),
                layout=values.get("input_layout"),
            )
            found = self.attempt((*at, "path"), _expand, values["path"], registry) if values.get("path") else None
            subjects += [Subject(source, asking, _opening(values)) for source in found or ()]
        return subjects

    def _add(self, at: Keys, message: str) -> None:
        self.mistakes.append((at, message))


def _refused(check: _Check, options: Mapping[str, Any]) -> str | None:
    try:
        check(options)
    except UsageError as error:
        return str(error)
    return None


def _expand(path: str, registry: Registry) -> list[str]:
    found = expand([path], registry)
    for file in found:
        _file(file)
    return found


def _opening(values: Mapping[str, Any]) -> dict[str, Any]:
    given = {"output": values.get("output_name"), "arch": values.get("arch")}
    return {option: value for option, value in given.items() if value is not None}


# An example of it.


def example() -> str:
    """A file with all keys, those that have to be there with names to be filled in."""
    return (files("deepjudge_core.cli") / "audit.toml").read_text("utf-8")


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

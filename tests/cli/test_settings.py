"""One declaration is enough: a setting that is made up here appears wherever settings do."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
import settings_tables as tables
from annotated_types import Ge, Gt, Lt
from commands import WHOLE, Cli, write

from deepjudge_core.auditing.session import Session
from deepjudge_core.cli.auditfile.example import example
from deepjudge_core.cli.auditfile.keys import document
from deepjudge_core.cli.auditfile.reading import AuditFileError, read_plan
from deepjudge_core.cli.auditfile.schema import schema
from deepjudge_core.cli.commands import COMMANDS, Commands
from deepjudge_core.cli.commands.audit import AuditCommand
from deepjudge_core.cli.parser import metavar
from deepjudge_core.cli.program import parse
from deepjudge_core.components.options import options_of
from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.errors import UsageError
from deepjudge_core.settings import GROUPS, part, setting, settings_of
from deepjudge_core.suites.settings import SuiteSettings


@dataclasses.dataclass(frozen=True, eq=False)
class SuiteSettingsWithMore(SuiteSettings):
    """The one place in which the made-up setting is declared."""

    patience: Annotated[float, Gt(0), Lt(9)] = setting(
        "how long to look for cases", "--patience", default=2.5, group="suite", key="patience", tables=("suite",)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithMoreCommand(AuditCommand):
    """Audit, with a setting that is made up."""

    suite: SuiteSettingsWithMore = part(SuiteSettingsWithMore)

    @classmethod
    def called(cls) -> str:
        """As the command that it stands for."""
        return "audit"


TYPED = ("audit", "v.toy", "s.toy", "--inputs", "in.npz", "-o", "out")


class OneCommand(Commands):
    """The made-up command alone."""

    def called(self, name: str) -> Any:
        return WithMoreCommand


ONE = OneCommand({"audit": WithMoreCommand.summary()})


def test_the_parser_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    for words, value in (((), 2.5), (("--patience", "3"), 3.0)):
        command: Any = parse([*TYPED, *words], ONE).command
        assert command.suite.patience == value
    for wrong in ("0", "9", "nan", "long"):
        with pytest.raises(UsageError) as caught:
            parse([*TYPED, "--patience", wrong], ONE)
        assert caught.value.code == "wrong-value"
        assert "--patience" in str(caught.value)
    parse(["audit", "--help"], ONE)
    out = capsys.readouterr().out
    assert "--patience PATIENCE" in out
    assert "how long to look for cases (default: 2.5)" in " ".join(out.split())


def test_the_reader_has_it(cli: Cli, registry: Registry) -> None:
    for value, expected in (("", 2.5), ("patience = 4", 4.0)):
        write(WHOLE, ("seeds = 20", f"seeds = 20\n{value}"))
        plan: Any = read_plan(Path("audit.toml"), None, Session(), WithMoreCommand)
        assert plan.suite.patience == expected
    write(WHOLE, ("seeds = 20", "seeds = 20\npatience = 9.5"))
    with pytest.raises(AuditFileError) as caught:
        read_plan(Path("audit.toml"), None, Session(), WithMoreCommand)
    [line] = caught.value.lines
    assert line.startswith("audit.toml:12: suite.patience: ")
    assert "9.5" in line


def test_example_schema_and_tables_have_it(registry: Registry) -> None:
    text = example(document(WithMoreCommand), Session(registry))
    assert "\n# How long to look for cases.\npatience = 2.5\n" in text
    described = schema(document(WithMoreCommand), Session(registry))["properties"]["suite"]["properties"]["patience"]
    assert described == {
        "description": "how long to look for cases",
        "default": 2.5,
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 9,
    }
    assert "| `--patience PATIENCE` | how long to look for cases (default: 2.5) |" in tables.options(WithMoreCommand)
    assert "| `suite.patience` | a number above 0, below 9 | `2.5` | " in tables.keys(WithMoreCommand)


# The schema.


def test_the_schema_takes_the_example_and_refuses_mistakes(registry: Registry) -> None:
    table = document(AuditCommand)
    described = schema(table, Session(registry))
    jsonschema.Draft202012Validator.check_schema(described)
    check = jsonschema.Draft202012Validator(described)
    text = example(table, Session(registry))
    whole = "\n".join(
        line[1:] if line[:1] == "#" and line[1:2] not in ("", " ", ":") else line for line in text.split("\n")
    )
    for document_text in (text, whole):
        assert not list(check.iter_errors(tomllib.loads(document_text)))
    values = tomllib.loads(text)
    for change in (
        {"suit": {}},
        {"match": "some"},
        {"suite": {"seeds": 0}},
        {"suite": {"layers": "dense1"}},
        {"inputs": {"path": "in.npz", "scale": 0}},
        {"inputs": {"path": "in.npz", "bounds": [0]}},
        {"victim": {}},
        {"victim": {"path": "v.onnx", "arch": "networks.py"}},
        {"rule": {"name": "vote"}},
        {"rule": {"options": {"confidence": 1}}},
        {"rule": {"name": "conformal", "options": {"confidence": 0.5}}},
        {"generators": {"pgd": {"eps": 0}}},
        {"generators": {"pgd": {"epsilon": 0.1}}},
        {"sandbox": {"memory": "much"}},
        {"bundle": {"tsa": "commitment.tsr"}},
        {"suspects": []},
        {"suspects": [{"path": "s.onnx", "classes": [0, 0]}]},
        {"suspects": [{"path": "s.onnx", "stratum": "same-data"}]},
    ):
        assert list(check.iter_errors(values | change)), change
    assert not list(check.iter_errors(values | {"rule": {"name": "conformal", "options": {"level": 0.5}}}))


def test_init_writes_the_schema_and_names_it(cli: Cli) -> None:
    Path("work").mkdir()
    assert cli("init", "work/audit.toml", "--schema", "schemas.json")[0] == 0
    described = json.loads(Path("schemas.json").read_text())
    text = Path("work/audit.toml").read_text()
    assert text.startswith("#:schema ../schemas.json\n")
    jsonschema.Draft202012Validator(described).validate(tomllib.loads(text))
    assert "poke" in described["properties"]["generators"]["properties"]


# All declarations.


def test_each_name_means_one_thing() -> None:
    meanings: dict[str, set[str]] = {}
    for command in COMMANDS:
        for one in command.settings():
            for flag in one.declared.flags:
                meanings.setdefault(flag, set()).add(metavar(one))
            assert one.declared.group in GROUPS
    # What the place is called that they write to.
    several = {flag: words for flag, words in meanings.items() if len(words) > 1 and flag not in ("-o", "--out")}
    assert several.pop("--option") == {"GENERATOR.NAME=VALUE", "ATTACK.NAME=VALUE", "NAME=VALUE"}
    assert several.pop("--key") == {"KEY", "PEM"}  # of suites that carry keys; elsewhere it signs
    assert several.pop("--json") == {"FILE", "[FILE]", ""}  # show prints it
    assert several.pop("--epochs") == {"EPOCHS", "auto|EPOCHS"}  # a zoo finds out how many
    assert several.pop("--rule") == {"NAME", "NAME,..."}  # which are compared
    assert not several


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.called())
def test_no_group_of_options_is_longer_than_a_screen(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    parse([command.called(), "--help"], COMMANDS)
    groups = capsys.readouterr().out.split("\n\n")
    assert all(len(group.splitlines()) <= 24 for group in groups)
    assert len([group for group in groups if "options:\n" in group]) >= 1


def test_each_setting_is_a_field_with_one_sentence() -> None:
    for command in COMMANDS:
        for one in settings_of(command):
            assert not one.declared.help.endswith("."), one.path
            assert not one.declared.help[0].isupper() or one.declared.help.startswith(("Adam", "Ed25519")), one.path


# Options of components.


def test_options_are_read_from_signature_and_docstring(registry: Registry) -> None:
    [eps, step, steps, project] = options_of(registry.generators["pgd"])
    assert (eps.name, eps.default, eps.words) == ("eps", None, "number above 0 or none")
    assert steps.words == "whole number of at least 1"
    assert project.words == "true or false"
    assert step.help == "Size of a step, as a share of the input range; none uses a fifth of `eps`"
    assert options_of(registry.metrics["jsd"]) == ()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("suite", "victim.toy", "--inputs", "in.npz", "-g", "pgd", "--option", "pgd.eps=0", "-o", "s"), "pgd.eps"),
        (("zoo", "victim.toy", "--data", "in.npz", "--option", "ft-al.epochs=0", "-o", "z"), "ft-al.epochs"),
        (
            ("audit", "victim.toy", "copy.toy", "--inputs", "in.npz", "--rule-option", "confidence=2", "-o", "o"),
            "voting",
        ),
    ],
)
def test_impossible_values_are_refused_before_a_model_is_opened(cli: Cli, words: tuple[str, ...], name: str) -> None:
    Path("victim.toy").write_text("")
    cli.refuses(2, "wrong-value", *words, facts=(name,))


def test_functions_that_say_nothing_of_their_options_work(registry: Registry) -> None:
    from deepjudge_core import Access, Cases, Generator
    from deepjudge_core.components.options import resolve

    def mute(task, *, size=1, more: Annotated[int, Ge(2)] = 3):  # type: ignore[no-untyped-def]
        return Cases.of_seeds(task.seeds.inputs)

    generator = Generator("mute", makes="adversarial", needs=Access.LABELS, generate=mute)
    assert [(one.name, one.words, one.help) for one in options_of(generator)] == [
        ("size", "any value", ""),
        ("more", "whole number of at least 2", ""),
    ]
    assert resolve("mute", mute, {"size": "big"}) == {"size": "big", "more": 3}
    assert schema(document(AuditCommand), Session(load_registry()))

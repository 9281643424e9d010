"""The documentation says what the code says: hooks, fields, options, messages, links; and its Python runs."""

import dataclasses
import inspect
import json
import re
import shlex
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tables
import toys
from cogapp.cogapp import CogCheckFailed
from commands import HOW, MADE, Cli
from places import ROOT

import deepjudge_core as dj
from deepjudge_core import model as old
from deepjudge_core import plugin, testing
from deepjudge_core.cli import terminal
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.commands import COMMANDS
from deepjudge_core.cli.commands.plugins import show_plugins
from deepjudge_core.cli.program import parse
from deepjudge_core.components import attack
from deepjudge_core.components import hooks as hookspecs
from deepjudge_core.components import kinds as components
from deepjudge_core.components.options import options_of
from deepjudge_core.components.registry import Plugin, Registry
from deepjudge_core.models.network import Architecture, Network, Trainer
from deepjudge_core.models.training import Schedule, train
from deepjudge_core.report.audit_json import schema
from deepjudge_core.zoo.making import make_zoo
from deepjudge_core.zoo.material import Material, Rows
from deepjudge_core.zoo.plans import ZooRecipe
from deepjudge_core.zoo.settings import ZooSettings

PAGES = sorted(path for pattern in ("*.md", "[a-z]*/**/*.md") for path in ROOT.glob(pattern))
TUTORIAL = (ROOT / "docs" / "howto" / "write-a-plugin.md").read_text("utf-8")
PLUGINS = (ROOT / "docs" / "reference" / "plugins.md").read_text("utf-8")
REFERENCE = ROOT / "docs" / "reference"
COMMAND_PAGES = {page.stem: page.read_text("utf-8") for page in (REFERENCE / "commands").glob("*.md")}
ATTACKS = (ROOT / "docs" / "why" / "attacks.md").read_text("utf-8")
TOP1 = ROOT / "examples" / "deepjudge-top1"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(text: str, title: str) -> str:
    """From a heading to the next one of its level."""
    level, _, rest = re.search(rf"^(#+) ({re.escape(title)})\n(.*)", text, re.MULTILINE | re.DOTALL).groups()
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


# Plugins.

HOOKS = [name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")]
DATACLASSES = [
    value
    for module in (components, attack)
    for value in vars(module).values()
    if dataclasses.is_dataclass(value) and value.__module__ == module.__name__
]


def test_there_is_something_to_compare() -> None:
    assert len(HOOKS) == 6
    assert {"Adapter", "Generator", "Metric", "Rule", "Attack", "Loot"} <= {c.__name__ for c in DATACLASSES}


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_is_documented(hook: str) -> None:
    gives = inspect.signature(getattr(hookspecs, hook)).return_annotation.__args__[0].__name__
    assert f"`{hook}() -> Iterable[{gives}]`" in section(PLUGINS, "The hooks")


@pytest.mark.parametrize("component", [*DATACLASSES, Network], ids=lambda c: c.__name__)
def test_each_field_is_documented(component: type) -> None:
    [table] = re.findall(rf"^\| field of `{component.__name__}` \|.*?\n\n", PLUGINS, re.MULTILINE | re.DOTALL)
    cells = [row.split(" | ")[0] for row in table.strip().splitlines()[2:]]
    assert re.findall(r"`(\w+)`", "".join(cells)) == [field.name for field in dataclasses.fields(component)]


@pytest.mark.parametrize("networks", [Architecture, Trainer, Network], ids=lambda c: c.__name__)
def test_all_of_a_network_is_documented(networks: type) -> None:
    tables = re.findall(rf"^\| (?:field )?of `{networks.__name__}` \|.*?\n\n", PLUGINS, re.MULTILINE | re.DOTALL)
    cells = [row.split(" | ")[0] for table in tables for row in table.strip().splitlines()[2:]]
    public = {name for name in (*vars(networks), *networks.__annotations__) if not name.startswith("_")}
    assert {name for cell in cells for name in re.findall(r"`(?:Network\.)?(\w+)", cell)} == public
    for name, member in vars(networks).items():
        if inspect.isfunction(member) and name in public:
            told = next(cell for cell in cells if f"`{name}(" in cell).split("(", 1)[1]
            given = list(inspect.signature(member).parameters)[1:]
            assert re.findall(r"(\w+)(?:=[\w{}]+)?[,)]", told) == given


def test_each_contract_is_documented() -> None:
    for name in testing.__all__:
        assert f"`{name}" in section(PLUGINS, "The contracts")


def test_the_tutorial_is_the_example() -> None:
    files = [(TOP1 / name).read_text("utf-8") for name in ("deepjudge_top1.py", "test_deepjudge_top1.py")]
    assert blocks(TUTORIAL, "toml") == [(TOP1 / "pyproject.toml").read_text("utf-8")]
    parts = blocks(TUTORIAL, "python")
    for part in parts:
        assert any(part.strip() in file for file in files), part
    module = "\n".join(part.strip() for part in parts if part.strip() in files[0])
    assert re.sub(r"\s", "", module) == re.sub(r"\s", "", files[0])


def test_the_listing_in_the_tutorial_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    mine = dj.load_registry({"top1": module("")}).plugins[-1]
    plugins = [Plugin(p.name, "deepjudge 0.1.0", p.components) for p in own_plugins()]
    plugins.append(dataclasses.replace(mine, distribution="deepjudge-top1 0.1.0"))
    registry = Registry(tuple(sorted(plugins, key=lambda p: p.name)))
    show_plugins(terminal.console(), registry.plugins, registry.failures())
    assert f"$ deepjudge plugins\n{capsys.readouterr().out}```" in TUTORIAL


@pytest.mark.parametrize("source", blocks(PLUGINS, "python"))
def test_the_examples_keep_the_contracts(source: str) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec(source, names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


PRELUDE = """
import numpy as np
from deepjudge_core.plugin import *
def gap(victim, suspect): return float(np.abs(victim.probabilities - suspect.probabilities).mean())
def zoo(evidence): return None
GAP = Metric("gap", needs=Access.LABELS, on="clean", distance=gap, alpha=0.9)
"""
AT_DISCOVERY = {
    "the module has no hook": "",
    "`@hookimpl` is missing": "def deepjudge_metrics(): return [GAP]",
    "a hook's name is misspelt": "@hookimpl\ndef deepjudge_metric(): return [GAP]",
    "a hook returns one component and no list": "@hookimpl\ndef deepjudge_metrics(): return GAP",
    "a hook forgets to return": "@hookimpl\ndef deepjudge_metrics(): [GAP]",
    "a hook returns another kind": "@hookimpl\ndef deepjudge_metrics(): return [Rule('zoo', zoo)]",
    "a name that is not allowed": "@hookimpl\ndef deepjudge_rules(): return [Rule('My rule', zoo)]",
    "an unknown set of cases": "@hookimpl\n"
    "def deepjudge_metrics(): return [Metric('gap', needs=Access.LABELS, on='seeds', distance=gap, alpha=0.9)]",
    "suffixes as a text": "@hookimpl\ndef deepjudge_adapters(): return [Adapter('zoo', '.zoo', callable, zoo)]",
    "a thief that takes something else": "@hookimpl\n"
    "def deepjudge_attacks(): return [Attack('burgle', source='practice', takes='gradients', steal=zoo)]",
    "needs as a text": "@hookimpl\n"
    "def deepjudge_attacks(): return [Attack('burgle', source='practice', takes='weights', steal=zoo, needs='suite')]",
    "two distributions with one name": "@hookimpl\n"
    "def deepjudge_metrics(): return [Metric('jsd', needs=Access.LABELS, on='clean', distance=gap, alpha=0.9)]",
}
AT_USE = {
    "a metric gives no distance": "def gap(victim, suspect): return float('nan')",
    "a rule returns something else": "def zoo(evidence): return True",
    "a rule leaves out a vote": "def zoo(evidence): return Judgement(Decision.COPY, 1.0, {})",
    "no vote without a reason": "def zoo(evidence):\n"
    "    return Judgement(Decision.COPY, 1.0, {n: Vote(None) for n in evidence})",
    "inconclusive without a reason": "def zoo(evidence):\n"
    "    return Judgement(Decision.INCONCLUSIVE, None, {n: Vote(True) for n in evidence})",
    "a generator leaves the bounds": "def make(task): return Cases.of_seeds(task.seeds.inputs + 1)",
    "a generator makes float64": "def make(task):\n"
    "    return Cases(task.seeds.inputs.astype(float), *3 * [np.arange(len(task.seeds.inputs))])",
    "an option that is not keyword-only": "def make(task, eps=0.1): return Cases.of_seeds(task.seeds.inputs)",
}


AT_THEFT = {
    "an attack returns something else": "return None",
    "an attack looks for weights in answers": "return victim.weights",
    "an attack makes NaN": "return Network(loot.architecture,"
    " {name: w * np.nan for name, w in loot.architecture.initial(rng).items()})",
}


def module(source: str) -> types.ModuleType:
    found = types.ModuleType("mine")
    exec(PRELUDE + source, vars(found))
    return found


def line_at_discovery(source: str) -> str:
    registry = dj.load_registry({"mine": module(source)})
    [line] = registry.failures()
    return line.removeprefix("plugin 'mine' of this program: ")


def line_at_use(source: str) -> str:
    hooks = """
@hookimpl
def deepjudge_metrics(): return [Metric("gap", needs=Access.LABELS, on="clean", distance=gap, alpha=0.9)]
@hookimpl
def deepjudge_rules(): return [Rule("zoo", zoo)]
@hookimpl
def deepjudge_generators(): return [Generator("make", makes="adversarial", needs=Access.LABELS, generate=make)]
"""
    make = "" if "def make" in source else "\ndef make(task): return Cases.of_seeds(1 - task.seeds.inputs)\n"
    registry = dj.load_registry({"mine": module(source + make + hooks)})
    models = [toys.make_model(seed, shape=(6,), widths=(8,), classes=3) for seed in range(5)]
    seeds = dj.select_seeds(models[0], *toys.make_inputs(models[0], 40))
    options = {"make": {"eps": 0.2}} if "eps" in source else {}
    try:
        suite = dj.build_suite(models[0], seeds, ["make"], layers=["dense1"], options=options, registry=registry)
        seen = [dj.observe(model, suite) for model in models]
        values = dj.measure(suite, seen[1], ["gap"], registry=registry)
        if values["gap"].reason:
            return values["gap"].reason
        dj.judge(
            values,
            dj.calibrate(suite, seen[2:], ["gap"], registry=registry),
            dj.JudgeSettings(rule="zoo"),
            registry=registry,
        )
    except dj.DeepJudgeError as error:
        return str(error)
    raise AssertionError("expected an error, found none")


def line_at_theft(source: str, folder: Path) -> str:
    hook = "return [Attack('burgle', source='practice', takes='answers', steal=burgle)]"
    source = f"def burgle(victim, loot, rng): {source}\n@hookimpl\ndef deepjudge_attacks(): {hook}"
    victim = Network.fresh(testing.NumpyArchitecture((6,), (8,), 3), np.random.default_rng(0))
    x = np.random.default_rng(0).random((30, 6), dtype=np.float32)
    rows = Rows(x, victim.predict(x).argmax(axis=1))
    zoo = make_zoo(
        victim,
        Material(rows, rows, rows, (0.0, 1.0)),
        folder,
        ZooRecipe.of(
            ZooSettings(controls=0, attacks=["burgle"], repeat=1), dj.load_registry({"mine": module(source)}).attacks
        ),
        name="victim",
        digest="",
    )
    [missing] = zoo.missing
    return missing.reason


@pytest.mark.parametrize("mistake", [*AT_DISCOVERY, *AT_USE, *AT_THEFT])
def test_the_lines_of_common_mistakes(mistake: str, tmp_path: Path) -> None:
    if mistake in AT_DISCOVERY:
        line = line_at_discovery(AT_DISCOVERY[mistake])
    else:
        line = line_at_use(AT_USE[mistake]) if mistake in AT_USE else line_at_theft(AT_THEFT[mistake], tmp_path)
    line = line.replace("this program", "my-plugin 1.0").replace(f"deepjudge {dj.__version__}", "deepjudge 0.1.0")
    assert f"| {mistake} | {line} |" in section(PLUGINS, "Common mistakes")


# The command line.


def options(command: type[Command]) -> set[str]:
    flags = {flag for setting in command.settings() for flag in setting.declared.flags}
    return flags | {"-h", "--help", "--debug"}


NAMES = {command.called(): command for command in COMMANDS}


def test_all_commands_have_a_page() -> None:
    assert sorted(COMMAND_PAGES) == sorted(NAMES)
    for name, page in COMMAND_PAGES.items():
        assert f"    deepjudge {name} " in page


def test_what_is_typed_in_the_docs_can_be_parsed() -> None:
    """Whole commands in the documentation: known command, known options."""
    lines = [
        re.split(r" (?:2?>|\|) ", line.removeprefix("$ "))[0].strip()
        for page in PAGES
        for line in page.read_text("utf-8").replace("\\\n", " ").splitlines()
        if re.match(r"(\$ |    )deepjudge ", line)
    ]
    assert len(lines) > 10
    for line in lines:
        name = re.sub(r"\[.*?\]", "", line).split()[1]
        if name not in NAMES:
            assert name in ("COMMAND", "..."), line
        elif "[" in line or "..." in line:  # a form
            assert set(re.findall(r"(?<= )\[?(--?[a-z][a-z-]*)", line)) <= options(NAMES[name]), line
        else:
            assert parse(shlex.split(line)[1:], COMMANDS).command, line


def own_plugins() -> list[Plugin]:
    return [plugin for plugin in dj.load_registry().plugins if plugin.distribution == f"deepjudge {dj.__version__}"]


def own_components() -> list[Any]:
    return [component for plugin in own_plugins() for component in plugin.components]


def test_each_option_of_a_component_says_what_it_is() -> None:
    told = "".join(COMMAND_PAGES.values())
    for component in own_components():
        for option in options_of(component):
            assert option.help, (component.name, option.name)
            assert "any value" not in option.words, (component.name, option.name)
            assert f"| `{component.name}` | `{option.name}` | {option.words} |" in told


def test_each_key_of_the_report_is_documented() -> None:
    text = (REFERENCE / "report-json.md").read_text("utf-8")

    def keys(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from part.get("properties", {})
            for value in part.values():
                yield from keys(value)

    missing = {key for key in keys(schema()) if f"`{key}`" not in text}
    assert not missing


def test_each_key_of_a_zoo_and_of_its_power_is_documented(cli: Cli) -> None:
    x = np.random.default_rng(1).random((2000, 12), dtype=np.float32)
    y = np.argsort(np.argsort(x.sum(axis=1))) * 4 // len(x)
    fresh = Network.fresh(toys.ToyArchitecture((12,), (10, 8), 4), np.random.default_rng(0))
    train(fresh, x[:1000], y[:1000], np.random.default_rng(0), schedule=Schedule(10, 2e-2)).save(Path("victim.toy"))
    np.savez("train.npz", x=x, y=y)
    few = ("--control-count", "3", "--repeat", "1", "--epochs", "10", "--rate", "0.02")
    for words in (
        ("zoo", "victim.toy", "--data", "train.npz", "--attacks", "tune,listen", *few, "-o", "zoo"),
        ("suite", "victim.toy", "--inputs", "train.npz", *MADE, "--order", "low", "-o", "suite.safetensors"),
        ("power", "suite.safetensors", "zoo", "--far", *HOW, "-o", "power"),
    ):
        status, _, err = cli(*words)
        assert (status, err) == (0, "")
    for name, part in {"zoo/zoo.json": COMMAND_PAGES["zoo"], "power/power.json": COMMAND_PAGES["power"]}.items():
        written = json.loads(Path(name).read_text())
        assert f"`{written['schema']}`" in part
        for key in written:
            assert f"`{key}`" in part
        assert written["models"]
        for model in written["models"]:
            assert not {key for key in model if f"`{key}`" not in part}
    [missing] = json.loads(Path("zoo/zoo.json").read_text())["missing"]
    power = json.loads(Path("power/power.json").read_text())
    shares = power["attacks"][0]["copies"]
    assert all(f"`{key}`" in section(COMMAND_PAGES["zoo"], "zoo.json") for key in missing)
    assert all(f"`{key}`" in COMMAND_PAGES["power"] for key in (*power["controls"], *power["attacks"][0], *shares))


# The attacks.


def test_the_attacks_are_those_that_there_are() -> None:
    attacks = [component for component in own_components() if isinstance(component, dj.Attack)]
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (.*?) \|", ATTACKS, re.MULTILINE)
    needs = {"auxiliary": "auxiliary inputs", "suite": "the suite"}
    assert rows == [
        (attack.name, attack.source, ", ".join([attack.takes, *(needs[need] for need in attack.needs)]))
        for attack in attacks
    ]
    told = re.findall(r"\*\*`([\w-]+)`\*\*", ATTACKS)
    assert sorted(told) == sorted(attack.name for attack in attacks)


# All pages.


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_generated_tables_are_current(page: Path) -> None:
    """If this fails, `make docs` writes them anew."""
    tables.check(page)


def test_generated_tables_are_compared(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('<!-- [[[cog print(tables.fields("Rule")) ]]] -->\n<!-- [[[end]]] -->\n')
    with pytest.raises(CogCheckFailed):
        tables.check(page)
    tables.write(page)
    tables.check(page)
    assert "| `judge` |" in page.read_text()


@pytest.mark.parametrize(
    "text",
    [
        TUTORIAL,
        PLUGINS,
        *((TOP1 / name).read_text("utf-8") for name in ("deepjudge_top1.py", "test_deepjudge_top1.py")),
    ],
)
def test_plugins_import_from_one_namespace(text: str) -> None:
    imported = set(re.findall(r"^from (deepjudge_core[\w.]*) import", text, re.MULTILINE))
    assert imported <= {"deepjudge_core.plugin", "deepjudge_core.testing"}


def test_scripts_in_the_field_find_what_they_import() -> None:
    for name in old.__all__:
        assert getattr(old, name) is getattr(plugin, name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, heading = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, link


def test_the_tree_in_the_architecture_is_there() -> None:
    text = section((ROOT / "docs" / "why" / "architecture.md").read_text("utf-8"), "The tree")
    tree = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    named = set(re.findall(r"\b[\w]+\.py\b", tree))
    assert named <= {path.name for path in (ROOT / "deepjudge_core").rglob("*.py")}
    for package in re.findall(r"\bdeepjudge_\w+", tree):
        assert list(ROOT.glob(f"*/{package}")) or (ROOT / package).exists(), package

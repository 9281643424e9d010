"""Tables in the pages that a program can know: cog writes them into the pages, by `make docs`.

A page has a comment for each, such as::

    <!-- [[[cog print(tables.fields("Metric")) ]]] -->
    <!-- [[[end]]] -->

What stands in a table comes from docstrings and declarations: what a hook gives, what the attributes of a class are,
which checks a contract has. A test says when a page is not current.

`make docs` also writes what messages call the settings, `deepjudge_core/cli/flags.json`.
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from cogapp import Cog

from deepjudge_core.cli.flags import write_flags

_DOCS = Path(__file__).parent
_SUPPORT = _DOCS.parent / "tests" / "support"  # what the tests of formats declare
PAGES = [page for page in sorted(_DOCS.rglob("*.md")) if "[[[cog" in page.read_text("utf-8")]


def write(page: Path) -> None:
    """Write the tables of a page anew."""
    _cog("-r", page)


def check(page: Path) -> None:
    """Fail unless all tables of a page are current.

    Raises:
        cogapp.cogapp.CogCheckFailed: When one is not.
    """
    _cog("--check", "--diff", page)


def _cog(*arguments: str | Path) -> None:
    settings = ("-P", "-p", "import tables", "-I", _DOCS, "-I", _SUPPORT)
    Cog().callable_main(["cog", *map(str, settings), *map(str, arguments)])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown, with an empty line before it; printing adds the one behind it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def attributes(described: type) -> dict[str, str]:
    """What the docstring of a class says of each of its attributes, as Markdown in one line."""
    text = inspect.getdoc(described) or ""
    _, _, part = text.partition("\nAttributes:\n")
    part = re.split(r"\n(?=\S)", part, maxsplit=1)[0]
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n(?:        .*|\s*$))*)", part, re.MULTILINE)
    return {name: markdown(said) for names, said in entries for name in names.split(", ")}


def markdown(text: str) -> str:
    """A part of a docstring on one line, with code and references as Markdown has them."""
    line = " ".join(text.split())
    line = re.sub(r":\w+:`~?([\w.]+)`", lambda m: f"`{m[1].rpartition('.')[2]}`", line)
    return line.replace("``", "`")


def hooks() -> str:
    """The hooks, and what each gives."""
    from deepjudge_core.components import hooks as specifications

    rows = []
    for name, hook in vars(specifications).items():
        if hasattr(hook, f"{specifications.PROJECT}_spec"):
            [component] = inspect.signature(hook).return_annotation.__args__
            rows.append([f"`{name}() -> Iterable[{component.__name__}]`", markdown(inspect.getdoc(hook) or "")])
    return table(["hook", "gives"], rows)


def fields(name: str) -> str:
    """The fields of a dataclass in :mod:`deepjudge_core.plugin`, their defaults, and what they mean."""
    from deepjudge_core import plugin

    described = getattr(plugin, name)
    meanings = attributes(described)
    rows = [[f"`{field.name}`", _default(field), meanings[field.name]] for field in dataclasses.fields(described)]
    if not any(default for _, default, _ in rows):
        return table([f"field of `{name}`", "meaning"], [[field, meaning] for field, _, meaning in rows])
    return table([f"field of `{name}`", "default", "meaning"], rows)


def _default(field: "dataclasses.Field[object]") -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()}`"
    return "" if field.default is dataclasses.MISSING else f"`{field.default}`"


def contracts() -> str:
    """The contracts, and the names of their checks."""
    import numpy as np

    from deepjudge_core import plugin, testing
    from deepjudge_core.testing.attacks import small_victim

    victim, x = testing.NumpyModel.random((4,), (4,), 2, seed=0), np.zeros((8, 4))
    blind = testing.NumpyModel(victim.weights, (4,), access=plugin.Access.BLACK_BOX)
    nothing = cast(Any, None)
    seeds = plugin.Seeds(x, x, x, (0.0, 1.0))
    samples = {
        testing.metric_checks: [
            testing.metric_checks(
                plugin.Metric(
                    "m",
                    needs=plugin.Access.LABELS,
                    on="clean",
                    distance=nothing,
                    alpha=0.9,
                    p_value=lambda *_: plugin.Chance(0, 0, ""),
                )
            )
        ],
        testing.rule_checks: [testing.rule_checks(plugin.Rule("r", judge=nothing))],
        testing.generator_checks: [
            testing.generator_checks(
                plugin.Generator("g", makes="corners", needs=plugin.Access.LABELS, generate=nothing),
                plugin.Task(victim, seeds, (), x, np.random.default_rng(0)),
            )
        ],
        testing.attack_checks: [
            testing.attack_checks(plugin.Attack("a", source="practice", takes="answers", steal=nothing))
        ],
        testing.scheme_checks: [
            testing.scheme_checks(
                plugin.Scheme("s", "", plugin.Access.LABELS, make=nothing, verify=nothing, embed=lambda *_: nothing)
            )
        ],
        testing.model_checks: [testing.model_checks(model, x) for model in (victim, blind)],
        testing.weights_checks: [testing.weights_checks(nothing)],
        testing.network_checks: [testing.network_checks(small_victim(), x, x)],
    }
    rows = []
    for contract, all_checks in samples.items():
        names = dict.fromkeys(name for checks in all_checks for name, _ in checks)
        signature = inspect.signature(contract)
        parameters = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
        written = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
        rows.append([f"`{contract.__name__}{written}`", ", ".join(f"`{name}`" for name in names)])
    return table(["contract", "its checks"], rows)


def formats() -> str:
    """What every format of every network gives: what the tests of formats hold."""
    from networks.matrix import table as matrix

    return f"\n{matrix()}"


if __name__ == "__main__":
    sys.modules["tables"] = sys.modules["__main__"]
    for each in PAGES:
        write(each)
    write_flags()

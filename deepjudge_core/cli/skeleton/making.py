"""Write the skeleton of a plugin: templates, and what each kind of component imports."""

import builtins
import keyword
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from deepjudge_core.errors import UsageError

if TYPE_CHECKING:
    from jinja2 import Environment

PluginKind = Literal["metric", "rule", "generator", "adapter", "attack", "scheme"]
"""The kinds of components that a skeleton has."""

_NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
_LONGEST_NAME = 40
_PREFIX = "deepjudge-"
_WIDTH = 120

_Imports = Mapping[str, tuple[str, ...]]  # module to names; no names for the module itself
_MODULE: Mapping[PluginKind, _Imports] = {
    "metric": {
        "collections.abc": ("Iterable",),
        "numpy as np": (),
        "deepjudge_core.plugin": ("Access", "Answers", "Metric", "hookimpl"),
    },
    "rule": {
        "collections.abc": ("Iterable", "Mapping"),
        "deepjudge_core.plugin": ("Decision", "Evidence", "Judgement", "Rule", "Vote", "hookimpl"),
    },
    "generator": {
        "collections.abc": ("Iterable",),
        "numpy as np": (),
        "deepjudge_core.plugin": ("Access", "Cases", "Generator", "Task", "hookimpl"),
    },
    "adapter": {
        "hashlib": (),
        "io": (),
        "zipfile": (),
        "collections.abc": ("Iterable", "Sequence"),
        "pathlib": ("Path",),
        "numpy as np": (),
        "deepjudge_core.plugin": (
            *("Access", "Adapter", "Array", "BatchedModel", "Format", "InputSpec", "ModelError", "Scores", "hookimpl"),
        ),
    },
    "attack": {
        "collections.abc": ("Iterable",),
        "numpy as np": (),
        "deepjudge_core.plugin": ("Attack", "Loot", "Network", "Schedule", "hookimpl", "train"),
    },
    "scheme": {
        "collections.abc": ("Iterable", "Sequence"),
        "numpy as np": (),
        "deepjudge_core.plugin": (
            *("Access", "IncomparableError", "Key", "KeyAnswers", "KeyTask", "Lesson", "Matches", "Scheme", "Teaching"),
            "hookimpl",
        ),
    },
}
_TESTS: Mapping[PluginKind, _Imports] = {
    "metric": {
        "numpy as np": (),
        "deepjudge_core.plugin": ("Answers",),
        "deepjudge_core.testing": ("Check", "metric_checks", "parametrize_with_checks"),
    },
    "rule": {
        "numpy as np": (),
        "deepjudge_core.plugin": ("Decision", "Evidence"),
        "deepjudge_core.testing": ("Check", "parametrize_with_checks", "rule_checks"),
    },
    "generator": {
        "numpy as np": (),
        "deepjudge_core.plugin": ("Task", "select_seeds"),
        "deepjudge_core.testing": ("Check", "NumpyModel", "generator_checks", "parametrize_with_checks"),
    },
    "adapter": {
        "tempfile": (),
        "pathlib": ("Path",),
        "numpy as np": (),
        "pytest": (),
        "deepjudge_core.plugin": ("Adapter", "Model", "ModelError"),
        "deepjudge_core.testing": ("Check", "model_checks", "parametrize_with_checks"),
    },
    "attack": {"deepjudge_core.testing": ("Check", "attack_checks", "parametrize_with_checks")},
    "scheme": {"deepjudge_core.testing": ("Check", "parametrize_with_checks", "scheme_checks")},
}
# What a function of a component cannot be called in the templates.
_IMPORTED = [imports for kinds in (_MODULE, _TESTS) for imports in kinds.values()]
_TAKEN = {
    *keyword.kwlist,
    *keyword.softkwlist,
    *dir(builtins),
    *(name for imports in _IMPORTED for names in imports.values() for name in names),
    *(module.rpartition(" ")[2] for imports in _IMPORTED for module in imports),
    *("adapter", "check", "far", "judgement", "near", "opened", "path", "read", "seeds", "silent", "suspect", "task"),
    *("high", "key", "lesson", "low", "noise", "triggers", "victim"),
}
_STANDARD = ("hashlib", "io", "tempfile", "zipfile", "collections.abc", "pathlib")


@dataclass(frozen=True)
class NewPlugin:
    """What a plugin is called, and what it gives.

    Attributes:
        name: Of the plugin.
        components: The name of the component of each kind, in the order of their kinds.
    """

    name: str
    components: Mapping[PluginKind, str]

    @classmethod
    def of(cls, name: str, kinds: Sequence[PluginKind]) -> "NewPlugin":
        """A plugin whose components are called as it is, each with its kind if there are several.

        Args:
            name: As the user typed it; ``deepjudge-`` in front says no more.
            kinds: At least one.

        Raises:
            UsageError: When nothing can be called so.
        """
        if not re.fullmatch(_NAME, name) or len(name) > _LONGEST_NAME or name == _PREFIX.strip("-"):
            raise UsageError(
                f"{name}: expected lower-case letters and digits, with single hyphens between them and a letter first, "
                f"{_LONGEST_NAME} at most, such as my-metric",
                code="wrong-value",
            )
        short = name.removeprefix(_PREFIX)
        if not re.fullmatch(_NAME, short):
            raise UsageError(f"{name}: expected a letter after {_PREFIX}, found {short[:1]!r}", code="wrong-value")
        ordered = [kind for kind in get_args(PluginKind) if kind in kinds]
        return cls(short, {kind: short if len(ordered) == 1 else f"{short}-{kind}" for kind in ordered})

    @property
    def distribution(self) -> str:
        """What pip calls it."""
        return _PREFIX + self.name

    @property
    def module(self) -> str:
        """What Python imports."""
        return _identifier(self.distribution)

    def gives(self, quote: str) -> str:
        """Its components, on a line: ``the metric top1 and the rule unanimous``.

        Args:
            quote: What stands around each name.
        """
        return _listed([f"the {kind} {quote}{name}{quote}" for kind, name in self.components.items()])

    def files(self) -> dict[str, str]:
        """Name to content of each file."""
        # Not loaded by commands that write no plugin.
        from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

        environment = Environment(
            loader=PackageLoader("deepjudge_core.cli.skeleton", ""),
            autoescape=select_autoescape(),  # of no file that there is: they are no HTML
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return {
            "pyproject.toml": environment.get_template("pyproject.toml.jinja").render(plugin=self),
            "README.md": environment.get_template("README.md.jinja").render(
                plugin=self, **{kind: self.components.get(kind) for kind in get_args(PluginKind)}
            ),
            f"{self.module}.py": _source(self._module(environment)),
            f"test_{self.module}.py": _source(self._tests(environment)),
        }

    def _module(self, environment: "Environment") -> Iterator[str]:
        yield f'"""A deepjudge plugin: {self.gives("``")}."""'
        yield _imports([_MODULE[kind] for kind in self.components])
        yield from self._parts(environment, "")

    def _tests(self, environment: "Environment") -> Iterator[str]:
        kinds = list(self.components)
        about = _listed([f"any {kind}" for kind in kinds])
        yield f'"""What {about} must keep, and what is particular to {"these" if len(kinds) > 1 else "this one"}."""'
        functions = [(kind, _function(kind, self.components[kind])) for kind in kinds]
        tested = [function for kind, function in functions if kind in ("metric", "rule", "generator")]
        hooks = [f"deepjudge_{kind}s" for kind in kinds]
        yield _imports([*(_TESTS[kind] for kind in kinds), {self.module: (*hooks, *tested)}])
        for part in ("_helper", "_contract", "_test"):
            yield from self._parts(environment, part)

    def _parts(self, environment: "Environment", part: str) -> Iterator[str]:
        there = set(environment.list_templates())
        for kind, name in self.components.items():
            if f"{kind}{part}.py.jinja" in there:
                template = environment.get_template(f"{kind}{part}.py.jinja")
                yield template.render(name=name, function=_function(kind, name)).rstrip("\n")


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _source(parts: Iterable[str]) -> str:
    docstring, imports, *rest = parts
    return "\n\n\n".join([f"{docstring}\n\n{imports}", *rest]) + "\n"


def _imports(needed: Iterable[_Imports]) -> str:
    names: dict[str, set[str]] = {}
    for imports in needed:
        for module, those in imports.items():
            names.setdefault(module, set()).update(those)
    core = [module for module in names if module.startswith("deepjudge_core.")]
    others = [module for module in names if module not in (*core, *_STANDARD)]
    groups = ([module for module in names if module in _STANDARD], others, core)
    # As linters sort them: whole modules first.
    ordered = (sorted(group, key=lambda module: (bool(names[module]), module)) for group in groups)
    return "\n\n".join("\n".join(_import(module, names[module]) for module in group) for group in ordered if group)


def _import(module: str, names: Iterable[str]) -> str:
    listed = sorted(names, key=lambda name: (not name[0].isupper(), name))
    if not listed:
        return f"import {module}"
    line = f"from {module} import {', '.join(listed)}"
    return line if len(line) <= _WIDTH else f"from {module} import (\n    " + ",\n    ".join(listed) + ",\n)"


def _function(kind: PluginKind, name: str) -> str:
    function = _identifier(name)
    return f"{function}_{kind}" if function in _TAKEN else function


def _identifier(name: str) -> str:
    return name.replace("-", "_")

"""Which plugins are installed, what they give, and what is wrong with those that fail."""

import difflib
import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy

from deepjudge_core.components import hooks as hookspecs
from deepjudge_core.components import options as component_options
from deepjudge_core.components.attack import Attack
from deepjudge_core.components.kinds import ALL_METRICS, Adapter, Generator, Metric, Rule
from deepjudge_core.components.schemes import Scheme
from deepjudge_core.errors import DeepJudgeError, PluginError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.models.model import Classifier
from deepjudge_core.text import is_url

T = TypeVar("T", Adapter, Generator, Metric, Rule, Attack, Scheme)
Component = Adapter | Generator | Metric | Rule | Attack | Scheme

_KINDS: Mapping[str, type[Component]] = {
    "deepjudge_adapters": Adapter,
    "deepjudge_generators": Generator,
    "deepjudge_metrics": Metric,
    "deepjudge_rules": Rule,
    "deepjudge_attacks": Attack,
    "deepjudge_schemes": Scheme,
}
# From here on, two names are so alike that one is the other with a slip.
_MISSPELT = 0.8
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class Plugin:
    """One entry point of the group ``deepjudge``.

    Attributes:
        name: Of the entry point.
        distribution: The installed distribution that brought it, as ``name version``.
        components: What it gave.
        failure: One line that says why nothing of it can be used; None for a plugin that works.
        value: What the entry point names, as ``module`` or ``module:object``; None for a plugin of this program.
        foreign: Whether a distribution other than this one brought it, and not this program: its metrics are taken by
            name only.
    """

    name: str
    distribution: str
    components: tuple[Component, ...] = ()
    failure: str | None = None
    value: str | None = None
    foreign: bool = False

    def offers(self, metric: Metric) -> bool:
        """Whether a metric of it is taken where no metrics are named."""
        return metric.default and not self.foreign


@dataclass(frozen=True, eq=False)
class Configured(Generic[T]):
    """A component that was chosen, with all that it is going to be called with.

    Attributes:
        component: The component.
        options: All of its options.
        provider: The distribution that brought it, as ``name version``.
    """

    component: T
    options: Mapping[str, Any]
    provider: str

    @property
    def name(self) -> str:
        """The component's."""
        return self.component.name


class Catalogue(Generic[T]):
    """The components of one kind, chosen by name."""

    def __init__(self, kind: type[T], plugins: Sequence[Plugin]) -> None:
        self._label = kind.__name__.lower()
        self._claims: dict[str, list[tuple[Plugin, T]]] = {}
        for plugin in sorted(plugins, key=lambda plugin: plugin.foreign):  # so that others do not change the order
            for component in plugin.components:
                if isinstance(component, kind):
                    self._claims.setdefault(component.name, []).append((plugin, component))

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __getitem__(self, name: str) -> T:
        """The component of that name.

        Raises:
            UsageError: When there is none.
            PluginError: When two distributions claim the name.
        """
        claims = self._claims.get(name)
        if not claims:
            near = difflib.get_close_matches(name, self._claims, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            if not difflib.get_close_matches(name, self._claims, n=1, cutoff=_MISSPELT):
                hint += "; if a plugin of yours has it, install the plugin first"
            names = ", ".join(sorted(self._claims)) or "none"
            raise UsageError(f"no {self._label} is called {name!r}; installed: {names}{hint}", code="unknown-name")
        conflict = self._conflict(name)
        if conflict:
            raise PluginError(conflict)
        return claims[0][1]

    def provider(self, name: str) -> str:
        """The distribution that gave the component, as ``name version``."""
        return self.plugin(name).distribution

    def plugin(self, name: str) -> Plugin:
        """The plugin that gave the component."""
        return self.owner(self[name])

    def owner(self, component: T) -> Plugin:
        """The plugin that gave this very component."""
        return next(plugin for plugin, one in self._claims[component.name] if one is component)

    def claimed(self) -> list[T]:
        """Every component that was given, also those whose name is claimed twice."""
        return [component for claims in self._claims.values() for _, component in claims]

    def select(self, names: Iterable[str] | None = None) -> list[T]:
        """The named components, each once; for None all but those whose name is claimed twice.

        Raises:
            UsageError, PluginError: As ``self[name]`` for a name that was given; and for one text in place of names.
        """
        if names is None:
            return [claims[0][1] for claims in self._claims.values() if len(claims) == 1]
        if isinstance(names, str):
            raise UsageError(
                f"expected names of {self._label}s as a list, found the text {names!r}", code="wrong-value"
            )
        return [self[name] for name in dict.fromkeys(names)]

    def configure(
        self, names: Iterable[str] | None, options: Mapping[str, Mapping[str, Any]]
    ) -> tuple[Configured[T], ...]:
        """The named components, each with all its options.

        Args:
            names: As :meth:`select` has them.
            options: Component name to its options; what is left out has its default.

        Raises:
            UsageError: For a component or an option that does not exist, a value that cannot be, or options of a
                component that is not among these.
            PluginError: As :meth:`select`, and for a component whose options cannot be read.
        """
        components = self.select(names)
        others = sorted(set(options) - {component.name for component in components})
        if others:
            raise UsageError(
                f"found options for {', '.join(others)}, which are not among the {self._label}s in use: "
                f"{', '.join(component.name for component in components) or 'none'}",
                code="conflict",
            )
        return tuple(
            Configured(
                component,
                _all_options(component, options.get(component.name, {})),
                self.provider(component.name),
            )
            for component in components
        )

    def conflicts(self) -> list[str]:
        """One line for each name that is claimed more than once."""
        return [line for name in self._claims if (line := self._conflict(name))]

    def _conflict(self, name: str) -> str | None:
        claims = self._claims[name]
        if len(claims) == 1:
            return None
        owners = " and ".join(f"{plugin.distribution} (plugin {plugin.name!r})" for plugin, _ in claims)
        return f"the {self._label} name {name!r} is claimed by {owners}: uninstall one of them"


class Metrics(Catalogue[Metric]):
    """The metrics, of which some are taken by name only, and some only of suites that compare weights.

    Attributes:
        schemes: By which the keys of suites become metrics.
    """

    schemes: Catalogue[Scheme]

    def usual(self, of_weights: Collection[str]) -> list[Metric]:
        """Those taken without a name, of a suite that compares some kinds of weights beside its cases.

        Args:
            of_weights: What a suite has for metrics of weights: of ``weights`` and ``ancestry`` those that it has.
        """
        taken = [metric for metric in self.own() if self.owner(metric).offers(metric)]
        return [metric for metric in taken if not metric.of_weights or metric.on in of_weights]

    def select(self, names: Iterable[str] | None = None) -> list[Metric]:
        """The named metrics, each once; "all" stands for every one.

        For None they are those taken by default of a suite without weights: of this distribution, and of plugins that
        a program handed over.

        Raises:
            UsageError, PluginError: As ``self[name]`` for a name that was given.
        """
        if names is None:
            return self.usual(())
        if isinstance(names, str):
            return super().select(names)
        names = list(names)
        every = [metric.name for metric in super().select()] if ALL_METRICS in names else []
        return super().select([*(name for name in names if name != ALL_METRICS), *every])

    def own(self) -> list[Metric]:
        """Those of this distribution, and of plugins that a program handed over, also such as are taken by name only.

        What others installed adds no vote, and takes none away by claiming its name.
        """
        own = ([(p, m) for p, m in claims if not p.foreign] for claims in self._claims.values())
        return [metric for claims in own if len(claims) == 1 for _, metric in claims]


class Adapters(Catalogue[Adapter]):
    """The adapters, which are chosen by what is to be opened."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """File name endings that they read."""
        return tuple(sorted({suffix for adapter in self.claimed() for suffix in adapter.all_suffixes}))

    @property
    def trainable(self) -> tuple[str, ...]:
        """File name endings of what can be made anew and trained."""
        return tuple(sorted({suffix for one in self.claimed() if one.network for suffix in one.suffixes}))

    def reads(self, path: Path) -> bool:
        """Whether a path is one model: by its name, by what is in it or, for a folder, by files in it that say so.

        A file of this tool is none, though weights may have its suffix; nor is one that only says where a model is.
        """
        return any(
            _is_marked(path, adapter)
            or ((_is_named(path, adapter.suffixes) or _is_taken(path, adapter)) and not storage.is_own(path))
            for adapter in self.claimed()
            if not adapter.remote
        )

    def is_remote(self, source: str | Path) -> bool:
        """Whether this is a URL, or a file that only says where a model answers."""
        if is_url(source):
            return True
        return any(_is_named(Path(source), one.suffixes) for one in self.claimed() if one.remote)

    def of_url(self, url: str) -> Adapter:
        """The adapter that asks a model at an address.

        Raises:
            UsageError, PluginError: When there is none, or more than one.
        """
        return self._only(url, [adapter for adapter in self.claimed() if adapter.remote])

    def in_folder(self, folder: Path) -> list[Path]:
        """The models in a folder, sorted; not the files that one of them says hold its weights."""
        models = [path for path in sorted(folder.iterdir()) if self.reads(path)]
        parts = self.parts(models)
        return [path for path in models if path.name not in parts]

    def parts(self, models: Iterable[Path]) -> dict[str, Path]:
        """Names of the files that models of one folder say hold their weights, each with the first that says so."""
        owners: dict[str, Path] = {}
        for path in models:
            for adapter in self.claimed():
                for name in _beside(path, adapter):
                    owners.setdefault(name, path)
        return owners

    def of_file(self, path: Path, label: str) -> Adapter:
        """The adapter that reads a file or a folder; ``label`` is what messages call it.

        Raises:
            PluginError: When its name is claimed twice.
            UsageError: When there is none, or more than one.
        """
        # What is in a folder says more than its name.
        marked = [adapter for adapter in self.claimed() if _is_marked(path, adapter)]
        named = [adapter for adapter in self.claimed() if _is_named(path, adapter.suffixes)]
        sharing = [adapter for adapter in self.claimed() if _is_named(path, adapter.shared_suffixes)]
        taking = [adapter for adapter in sharing if _is_taken(path, adapter)]
        # What none takes, the only one that might says of what it is.
        return self._only(label, marked or named or taking or (sharing if len(sharing) == 1 else []), path)

    def of_object(self, model: object, label: str) -> Adapter | None:
        """The adapter that takes a live object, which messages call ``label``; None for a model, or if there is none.

        Raises:
            PluginError: When its name is claimed twice.
            UsageError: When there is more than one.
        """
        accepting = [adapter for adapter in self.claimed() if adapter.accepts(model)]
        special = [adapter for adapter in accepting if not adapter.general]
        if not special and isinstance(model, Classifier):
            return None
        return self._only(label, special or accepting) if accepting else None

    @property
    def own_suffixes(self) -> tuple[str, ...]:
        """The file name endings by which each adapter knows its models, one adapter after the other."""
        own = (suffix for one in self.claimed() if not one.remote for suffix in one.suffixes)
        return tuple(dict.fromkeys(own))

    def refuse(self, label: str, path: Path | None = None) -> UsageError:
        """What is said of something that no adapter opens.

        Args:
            label: What messages call it.
            path: Where it is; None for a live object.
        """
        if path is None:
            return UsageError(
                f"{label}: no installed adapter takes it; expected a path, a function from inputs to scores, "
                "or a model of an installed framework"
            )
        return UsageError(f"{label}: no installed adapter reads it; {self.way_out(path)}")

    def way_out(self, path: Path) -> str:
        """What to do about a file or folder that no adapter opens, as a part of a message."""
        kinds = ", ".join(self.own_suffixes)
        if path.is_dir():
            return f"name a model in it: a file that ends in {kinds}"
        ways = [way for way in (one.conversion(path) for one in self.claimed() if one.conversion) if way]
        if ways:
            return f"such files can run code and are never opened: {'; '.join(ways)}"
        return f"convert it to a format that is read: {kinds}"

    def _only(self, label: str, adapters: Sequence[Adapter], path: Path | None = None) -> Adapter:
        if not adapters:
            raise self.refuse(label, path)
        names = dict.fromkeys(adapter.name for adapter in adapters)
        if len(names) > 1:
            raise UsageError(
                f"{label}: the adapters {' and '.join(names)} both claim it; choose one with adapter= in Python, or "
                "uninstall one of them",
                code="conflict",
            )
        return self[adapters[0].name]


_CATALOGUES: Mapping[type[Component], type[Catalogue[Any]]] = {Adapter: Adapters, Metric: Metrics}


@dataclass(frozen=True)
class Registry:
    """Every installed component.

    Build one with :func:`load_registry`; there is no global one.
    """

    plugins: tuple[Plugin, ...]
    adapters: Adapters = field(init=False)
    generators: Catalogue[Generator] = field(init=False)
    metrics: Metrics = field(init=False)
    rules: Catalogue[Rule] = field(init=False)
    attacks: Catalogue[Attack] = field(init=False)
    schemes: Catalogue[Scheme] = field(init=False)

    def __post_init__(self) -> None:
        for hook, kind in _KINDS.items():
            catalogue: Any = _CATALOGUES.get(kind, Catalogue)
            object.__setattr__(self, hook.removeprefix(f"{hookspecs.PROJECT}_"), catalogue(kind, self.plugins))
        self.metrics.schemes = self.schemes

    def failures(self) -> list[str]:
        """One line for each plugin that failed and each name claimed twice."""
        lines = [f"plugin {p.name!r} of {p.distribution}: {p.failure}" for p in self.plugins if p.failure]
        for catalogue in (self.adapters, self.generators, self.metrics, self.rules, self.attacks, self.schemes):
            lines += catalogue.conflicts()
        return lines


def load_registry(extra: Mapping[str, object] | None = None) -> Registry:
    """Find the installed plugins and ask each for its components.

    A plugin that fails is kept, with its failure, and gives nothing; the others are not affected.

    Args:
        extra: More plugins by name: modules or objects with hook implementations that are not installed. Who hands them
            over has named them: their metrics are taken by default, as those of this distribution.
    """
    plugins: list[Plugin] = []
    distributions: dict[int, tuple[str, str]] = {}
    for point in sorted(entry_points(group=hookspecs.PROJECT), key=lambda e: (e.name, e.value)):
        name: str | None = None
        distribution = "an unknown distribution"
        if point.dist:
            # Its metadata are parsed anew each time that they are asked for, which takes most of the time here.
            if id(point.dist) not in distributions:
                metadata = point.dist.metadata
                distributions[id(point.dist)] = metadata["Name"], metadata["Version"]
            name, version = distributions[id(point.dist)]
            distribution = f"{name} {version}"
        plugins.append(replace(_load(point, distribution), foreign=name != hookspecs.PROJECT))
    for name, plugin in (extra or {}).items():
        plugins.append(_collect(name, "this program", plugin))
    return Registry(tuple(plugins))


def load_adapter(value: str, name: str) -> Adapter:
    """One adapter, without looking for other plugins.

    Args:
        value: The entry point of its plugin.
        name: Of the adapter.

    Raises:
        PluginError: When it is not there.
    """
    plugin = _load(EntryPoint(name, value, hookspecs.PROJECT), value)
    if plugin.failure:
        raise PluginError(f"plugin {value}: {plugin.failure}")
    return Catalogue(Adapter, [plugin])[name]


def _all_options(component: Component, chosen: Mapping[str, Any]) -> dict[str, Any]:
    function = component_options.function_of(component)
    return component_options.resolve(component.name, function, chosen) if function else {}


def _is_marked(path: Path, adapter: Adapter) -> bool:
    markers = ((names,) if isinstance(names, str) else names for names in adapter.folders)
    return any(all((path / name).is_file() for name in names) for names in markers)


def _is_named(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes)


def _beside(path: Path, adapter: Adapter) -> list[str]:
    if not _is_named(path, adapter.all_suffixes) or not path.is_file():
        return []
    try:
        return [name for name in adapter.beside(path) if name != path.name]
    except Exception:  # which is said when it is opened
        return []


def _is_taken(path: Path, adapter: Adapter) -> bool:
    # Of a pipe or a device, nothing is read.
    if adapter.examine is None or not _is_named(path, adapter.shared_suffixes) or not path.is_file():
        return False
    try:
        adapter.examine(path)
    except Exception:  # whatever a damaged file makes it stumble over
        return False
    return True


def _load(point: EntryPoint, distribution: str) -> Plugin:
    try:
        module = point.load()
    except (Exception, SystemExit) as error:
        return Plugin(point.name, distribution, failure=f"import failed: {_line(error)}", value=point.value)
    return replace(_collect(point.name, distribution, module), value=point.value)


def _collect(name: str, distribution: str, plugin: object) -> Plugin:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name)
        return Plugin(name, distribution, tuple(_components(manager, plugin)))
    except Exception as error:
        return Plugin(name, distribution, failure=_line(error))


def _components(manager: pluggy.PluginManager, plugin: object) -> Iterator[Component]:
    callers = manager.get_hookcallers(plugin) or []
    for name in dir(plugin):
        # What is called like a hook is meant as one; pluggy would pass it over in silence.
        if name.startswith(f"{hookspecs.PROJECT}_") and _is_unmarked(getattr(plugin, name)):
            raise PluginError(f"{name} is not marked with @hookimpl")
    if not callers:
        raise PluginError(f"implements none of the hooks {', '.join(_KINDS)}")
    for caller in callers:
        if not caller.has_spec():
            near = difflib.get_close_matches(caller.name, _KINDS, n=1, cutoff=0.8)  # all begin alike
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PluginError(f"there is no hook {caller.name}{hint}")
        for implementation in caller.get_hookimpls():
            yield from _call(caller.name, implementation.function)


def _is_unmarked(value: object) -> bool:
    return inspect.isroutine(value) and not hasattr(value, f"{hookspecs.PROJECT}_impl")


def _call(hook: str, function: Any) -> Iterator[Component]:
    kind = _KINDS[hook]
    try:
        iterable = function()
        components = None if iterable is None else list(iterable)
    except (Exception, SystemExit) as error:
        raise PluginError(f"{hook} failed: {_line(error)}") from error
    if not components:
        raise PluginError(f"{hook} returned nothing; expected an iterable of {kind.__name__}")
    for component in components:
        if not isinstance(component, kind):
            raise PluginError(f"{hook} returned a {type(component).__name__}; expected {kind.__name__}")
        if not isinstance(component.name, str) or not _NAME.fullmatch(component.name):
            raise PluginError(
                f"{hook} returned the name {component.name!r}; expected lower-case letters, digits, '.', '_', '-'"
            )
        yield component


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, DeepJudgeError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

"""The markers and the six hooks by which plugins hand over their components."""

from collections.abc import Iterable

import pluggy

from deepjudge_core.components.attack import Attack
from deepjudge_core.components.kinds import Adapter, Generator, Metric, Rule
from deepjudge_core.components.schemes import Scheme

PROJECT = "deepjudge"
"""Name of the pluggy project and of the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def deepjudge_adapters() -> Iterable[Adapter]:  # type: ignore[empty-body]
    """Adapters that open the models of a framework."""


@hookspec
def deepjudge_generators() -> Iterable[Generator]:  # type: ignore[empty-body]
    """Generators that make test cases from a victim."""


@hookspec
def deepjudge_metrics() -> Iterable[Metric]:  # type: ignore[empty-body]
    """Metrics that say how far apart two models are."""


@hookspec
def deepjudge_rules() -> Iterable[Rule]:  # type: ignore[empty-body]
    """Rules that turn metrics into a decision."""


@hookspec
def deepjudge_attacks() -> Iterable[Attack]:  # type: ignore[empty-body]
    """Attacks that make a stolen model from a victim."""


@hookspec
def deepjudge_schemes() -> Iterable[Scheme]:  # type: ignore[empty-body]
    """Schemes that prove ownership by a key: watermarks and fingerprints."""

"""Options of components, as texts from the command line and as values from Python."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import pytest
from refusals import refused

from deepjudge_core.components.options import parse_assignments, resolve
from deepjudge_core.errors import PluginError, UsageError

NO_ALPHA: Mapping[str, float] = MappingProxyType({})


def component(
    task: object,
    *,
    steps: int = 10,
    eps: float = 0.1,
    name: str = "a",
    project: bool = True,
    bound: Literal["prediction", "mean"] = "prediction",
    limit: float | None = None,
    alpha: Mapping[str, float] = NO_ALPHA,
    weights: dict[str, int] | None = None,
) -> None:
    pass


DEFAULTS = {
    "steps": 10,
    "eps": 0.1,
    "name": "a",
    "project": True,
    "bound": "prediction",
    "limit": None,
    "alpha": {},
    "weights": None,
}


def test_defaults_are_plain_values() -> None:
    resolved = resolve("c", component, {})
    assert resolved == DEFAULTS
    assert type(resolved["alpha"]) is dict


@pytest.mark.parametrize(
    ("option", "given", "found"),
    [
        ("steps", "7", 7),
        ("steps", 7, 7),
        ("steps", 7.0, 7),
        ("eps", "0.25", 0.25),
        ("eps", "1e-3", 1e-3),
        ("eps", 1, 1.0),
        ("name", "none", "none"),
        ("project", "false", False),
        ("project", "No", False),
        ("project", "0", False),
        ("project", "TRUE", True),
        ("project", "yes", True),
        ("project", "1", True),
        ("project", False, False),
        ("bound", "mean", "mean"),
        ("limit", "none", None),
        ("limit", None, None),
        ("limit", "0.5", 0.5),
        ("alpha", {"jsd": "0.8"}, {"jsd": 0.8}),
        ("weights", {"jsd": 2}, {"jsd": 2}),
        ("weights", "none", None),
    ],
)
def test_values_are_converted(option: str, given: Any, found: Any) -> None:
    resolved = resolve("c", component, {option: given})
    assert resolved == DEFAULTS | {option: found}
    assert type(resolved[option]) is type(found)


def test_entries_of_mappings() -> None:
    resolved = resolve("c", component, {"alpha.jsd": "0.8", "alpha.a.b": "0.5", "weights.jsd": "3"})
    assert resolved["alpha"] == {"jsd": 0.8, "a.b": 0.5}
    assert resolved["weights"] == {"jsd": 3}
    assert resolve("c", component, {})["alpha"] == {}


@pytest.mark.parametrize(
    ("option", "value", "code", "facts"),
    [
        ("steps", "7.5", "wrong-value", ("c.steps", '"7.5"')),
        ("steps", 7.5, "wrong-value", ("c.steps", "7.5")),
        ("steps", "", "wrong-value", ("c.steps", '""')),
        ("steps", float("inf"), "wrong-value", ("c.steps", "Infinity")),
        ("steps", None, "wrong-value", ("c.steps", "null")),
        ("steps", True, "wrong-value", ("c.steps", "true")),
        ("eps", "big", "wrong-value", ("c.eps", '"big"')),
        ("eps", True, "wrong-value", ("c.eps", "true")),
        ("eps", float("nan"), "wrong-value", ("c.eps", "NaN")),
        ("name", 5, "wrong-value", ("c.name", "5")),
        ("project", "maybe", "wrong-value", ("c.project", "true", "false", '"maybe"')),
        ("project", 2, "wrong-value", ("c.project", "2")),
        ("bound", "median", "wrong-value", ("c.bound", "prediction", "mean", '"median"')),
        ("limit", "x", "wrong-value", ("c.limit", '"x"')),
        ("alpha", "0.8", "wrong-value", ("c.alpha.NAME=VALUE", '"0.8"')),
        ("alpha.jsd", "x", "wrong-value", ("c.alpha.jsd", '"x"')),
        ("alpha", {"jsd": "x"}, "wrong-value", ("c.alpha.jsd", '"x"')),
        ("eps.jsd", "1", "wrong-value", ("eps=VALUE", '"eps.jsd"')),
        ("epss", "1", "unknown-option", ("weights", "'eps'?")),
        ("task", "1", "unknown-option", ("c ", "'task'")),
    ],
)
def test_what_cannot_be_is_refused(option: str, value: Any, code: str, facts: tuple[str, ...]) -> None:
    with refused(UsageError, *facts, code=code):
        resolve("c", component, {option: value})


def test_a_component_without_options() -> None:
    assert resolve("c", len, {}) == {}
    with refused(UsageError, "c ", "'x'", "none", code="unknown-option"):
        resolve("c", lambda task: None, {"x": "1"})


def test_an_option_without_default_must_be_given() -> None:
    def needy(task: object, *, eps: float) -> None:
        pass

    assert resolve("c", needy, {"eps": "1"}) == {"eps": 1.0}
    with refused(UsageError, "c: ", "'eps'", code="missing-value"):
        resolve("c", needy, {})


def test_annotations_that_are_texts() -> None:
    def late(task: object, *, eps: "float | None" = 1.0) -> None:
        pass

    def lost(task: object, *, eps: "NoSuchType" = 1.0) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    assert resolve("c", late, {"eps": "2"}) == {"eps": 2.0}
    with refused(PluginError, "c: ", "NameError: name 'NoSuchType'"):
        resolve("c", lost, {})


def test_assignments() -> None:
    assert parse_assignments(["pgd.eps=0.1", "a=", "b=c=d"]) == {"pgd.eps": "0.1", "a": "", "b": "c=d"}
    for given, code, facts in [
        (["eps"], "wrong-value", ("name=value", "'eps'")),
        (["=1"], "wrong-value", ("name=value", "'=1'")),
        (["eps=1", "eps=2"], "conflict", ("'eps'",)),
    ]:
        with refused(UsageError, *facts, code=code):
            parse_assignments(given)

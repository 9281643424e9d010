"""Contracts as checks with names, each of which is run by itself."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from deepjudge_core.testing.expect import expect

if TYPE_CHECKING:
    import pytest

Check = Callable[[], None]
"""Returns nothing, or raises an :class:`AssertionError` that says what was expected and what was found."""
Checks = Iterator[tuple[str, Check]]
"""Names such as ``range`` or ``repeatable``, each with its check. No check depends on another one being run before."""


def run(checks: Iterable[tuple[str, Check]]) -> None:
    """Run checks one after another, up to the first that fails.

    Raises:
        AssertionError: Of that one.
    """
    for _, check in checks:
        check()


def parametrize_with_checks(contracts: Iterable[tuple[str, Checks]]) -> "pytest.MarkDecorator":
    """Let pytest run a test once for each check of each component; the test has one argument, ``check``, and calls it.

    Args:
        contracts: What each component is called, and its checks. The test is called by both: ``[top1-range]``.
    """
    import pytest

    return pytest.mark.parametrize(
        "check",
        [pytest.param(check, id=f"{component}-{name}") for component, checks in contracts for name, check in checks],
    )


def expect_name(name: str) -> None:
    """Fail unless a component can be called so on the command line."""
    expect(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name), f"expected a name in lower case without spaces, found {name!r}")

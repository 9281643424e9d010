"""Errors, asserted by what stays when their words change: their type, their code, and the facts in their one line."""

import contextlib
from collections.abc import Iterator

import pytest

from deepjudge_core.errors import DeepJudgeError


@contextlib.contextmanager
def refused(kind: type[DeepJudgeError], *facts: object, code: str | None = None) -> Iterator[pytest.ExceptionInfo]:
    """Expect an error of this type from the block.

    Args:
        kind: The type.
        facts: Names and numbers that its line has to hold; not its wording.
        code: One of ``deepjudge_core.errors.CODES``; that of the type by default.
    """
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == (code or kind.code), caught.value
    expect_facts(str(caught.value), *facts)


def expect_facts(line: str, *facts: object) -> None:
    """Assert that a line is one, and holds these names and numbers."""
    assert line
    assert line.isprintable()
    missing = [fact for fact in facts if str(fact) not in line]
    assert not missing, f"{missing} in {line!r}"

"""Parts of a model that run one another: functions, subgraphs, blocks."""

from collections.abc import Hashable, Mapping, Set
from typing import TypeVar

from deepjudge_core.errors import ModelError

T = TypeVar("T", bound=Hashable)


def expect_an_end(calls: Mapping[T, Set[T]]) -> None:
    """Refuse parts that run one another without end, which would take the stack of whoever reads them.

    Args:
        calls: Of each part those that it runs.

    Raises:
        ModelError: When there are such, or one that is run is not there; without the model's name in front.
    """
    ending: set[T] = set()
    while len(ending) < len(calls):
        more = {part for part, called in calls.items() if part not in ending and called <= ending}
        if not more:
            raise ModelError("expected graphs that do not run themselves, found one that does, or a missing one")
        ending |= more

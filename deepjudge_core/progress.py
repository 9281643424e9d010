"""Progress of long steps, without knowing who watches.

Library code wraps a long loop in :func:`task`; nobody hears of it unless a :class:`Watcher` was set with
:func:`watched` (the command line sets one that draws bars).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol


class Advance(Protocol):
    """Says that so many more units of the task are done, and what a watcher should know of it now."""

    def __call__(self, units: int, note: str = "") -> None:
        """Add ``units``; ``note`` replaces the one before where it is given."""


class Watcher(Protocol):
    """Shows tasks to somebody."""

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Show one task of ``total`` units for as long as the context is open."""


_watcher: ContextVar[Watcher | None] = ContextVar("deepjudge_watcher", default=None)


def task(description: str, total: int) -> AbstractContextManager[Advance]:
    """Open a task of ``total`` units; call what it yields with the units done."""
    watcher = _watcher.get()
    return nullcontext(_ignore) if watcher is None else watcher.task(description, total)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Let ``watcher`` show all tasks inside the block."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def _ignore(units: int, note: str = "") -> None:
    pass

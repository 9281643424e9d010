"""Progress of long steps, without knowing who watches.

Library code wraps a long loop in :func:`task`; nobody hears of it unless a :class:`Watcher` was set with
:func:`watched` (the command line sets one that draws bars).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol


class Finished(str):
    """A note that one of several things is done, such as a suspect: worth a line of its own in a log."""


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


class _Part:
    # Tasks that do not show themselves: each moves a part of another one.

    def __init__(self, advance: Advance, units: int) -> None:
        self._advance, self._units = advance, units
        self._moved, self._depth = 0, 0

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        done, outermost = 0, self._depth == 0

        def advance(units: int, note: str = "") -> None:
            nonlocal done
            done += units
            if outermost:
                # A second task of the part begins where the first one has brought it.
                self._move_to(self._units * done // max(1, total), f"{description} {note}".strip())

        self._depth += 1
        try:
            yield advance
        finally:
            self._depth -= 1

    def _move_to(self, place: int, note: str = "") -> None:
        units = max(0, min(place, self._units) - self._moved)
        self._moved += units
        self._advance(units, note)

    def finish(self) -> None:
        self._move_to(self._units)


@contextmanager
def part(advance: Advance, units: int) -> Iterator[None]:
    """Let the tasks inside the block move another one by so many units altogether, in place of showing themselves.

    Args:
        advance: Of the other task.
        units: What the block is worth, however many tasks it has.
    """
    moving = _Part(advance, units)
    with nullcontext() if _watcher.get() is None else watched(moving):
        yield
    moving.finish()


def _ignore(units: int, note: str = "") -> None:
    pass

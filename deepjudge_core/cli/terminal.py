"""Lines, bars and consoles: how anything gets to a person who runs a command."""

import logging
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from deepjudge_core.progress import Advance, Finished
from deepjudge_core.text import LONGEST_LINE, clean, duration

_HANGING = "    "  # before the further lines of a remark
_FEW = 10  # steps, of which each is not told
_PIPE_WIDTH = 1000  # of tables that no terminal folds
_EVERY = 30  # seconds between two lines about progress
_EARLY = 10  # seconds, before which it is not known how long the rest takes
_REMEMBERED = 3600  # seconds of which the time left is estimated: a model may take minutes


def say(out: Console, text: str) -> None:
    """Print one clean line as it is: nothing in it is folded, coloured or taken for markup."""
    # Not by the console, which would write through bars that are shown.
    stream = sys.stderr if out.stderr else sys.stdout
    stream.write(f"{clean(text, LONGEST_LINE)}\n")
    stream.flush()


def tell(out: Console, text: str) -> None:
    """Print one clean line, which a terminal shows in several that break between words; a pipe gets it as it is."""
    if not out.is_terminal:
        say(out, text)
        return
    words = clean(text, LONGEST_LINE)
    for line in textwrap.wrap(words, out.width, subsequent_indent=_HANGING, break_on_hyphens=False) or [""]:
        say(out, line)


def warn(text: str) -> None:
    """Say one line on standard error that is no error."""
    tell(console(stderr=True), f"deepjudge: warning: {text}")


class _Lines(logging.Handler):
    # Each record as one line, whatever a library says.

    def emit(self, record: logging.LogRecord) -> None:
        say(console(stderr=True), f"deepjudge: {record.getMessage()}")


@contextmanager
def log_told() -> Iterator[None]:
    """Say what this package logs, such as what libraries say of a model, on standard error."""
    logger, lines = logging.getLogger("deepjudge_core"), _Lines()
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)


def console(*, stderr: bool = False) -> Console:
    """A console on standard output, or for what is no result, on standard error."""
    probe = Console(stderr=stderr)
    return probe if probe.is_terminal else Console(stderr=stderr, width=_PIPE_WIDTH)


class _Log:
    # The progress of a task, where there is no terminal.

    def __init__(self, description: str, total: int) -> None:
        self._description, self._total, self._done, self._note = description, total, 0, ""
        self._begun = self._said = time.monotonic()

    def __call__(self, units: int, note: str = "") -> None:
        self._done += units
        now = time.monotonic()
        left = duration((now - self._begun) * (self._total - self._done) / max(1, self._done))
        if isinstance(note, Finished) and self._total > _FEW:
            known = self._done < self._total and now - self._begun >= _EARLY
            line = f"{self._description}: {self._done} of {self._total}: {note}{f' (about {left} left)' * known}"
            say(console(stderr=True), f"deepjudge: {line}")
            return
        self._note = note or self._note
        if now - self._said >= _EVERY and 0 < self._done < self._total:
            share, noted = self._done / self._total, f" ({self._note})" if self._note else ""
            say(console(stderr=True), f"deepjudge: {self._description}: {share:.0%} done{noted}, about {left} left")
            self._said = now


class Bars:
    """Shows tasks as progress bars on a terminal; elsewhere a line every half minute for the outermost one."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._shown: Progress | None = None  # all bars together: what is printed meanwhile goes above them
        self._logged = False

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """See :class:`deepjudge_core.progress.Watcher`."""
        if not self._console.is_terminal:
            outermost, self._logged = not self._logged, True
            try:
                yield _Log(description, total) if outermost else lambda units, note="": None
            finally:
                self._logged = not outermost
            return
        bars = self._shown or self._begin()
        bar = bars.add_task(escape(clean(description)), total=total, note="")

        def advance(units: int, note: str = "") -> None:
            bars.advance(bar, units)
            if isinstance(note, Finished):
                note = f"{bars.tasks[bars.task_ids.index(bar)].completed:g} of {total}"
            if note:
                bars.update(bar, note=escape(clean(note)))

        try:
            yield advance
        finally:
            bars.remove_task(bar)
            if not bars.tasks:
                bars.stop()
                self._shown = None

    def _begin(self) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        # Results that go to a file or a pipe are not to be caught.
        caught = sys.stdout.isatty()
        self._shown = Progress(
            *columns,
            console=self._console,
            transient=True,
            redirect_stdout=caught,
            speed_estimate_period=_REMEMBERED,
        )
        self._shown.start()
        return self._shown

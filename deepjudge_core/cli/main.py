"""Run a command and turn what comes of it into an exit status."""

import contextlib
import errno
import gc
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence

from deepjudge_core.cli.commands import COMMANDS
from deepjudge_core.cli.flags import flags
from deepjudge_core.cli.general import Line
from deepjudge_core.cli.program import parse
from deepjudge_core.cli.status import FAILED, INTERRUPTED, NO_COPY, USAGE
from deepjudge_core.errors import DeepJudgeError, UsageError
from deepjudge_core.naming import flagged
from deepjudge_core.progress import watched
from deepjudge_core.text import LONGEST_LINE, clean

_UNFORESEEN = DeepJudgeError.code  # of what is no error that this package raises on purpose


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``deepjudge``; returns the exit status (see ``deepjudge --help``)."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # standard error is so already
        sys.stdout.reconfigure(errors="backslashreplace")  # of a terminal that does not know all characters of a name
    words = list(sys.argv[1:] if argv is None else argv)
    line = Line(None, debug="--debug" in words)
    try:
        with _uncollected() if argv is None else contextlib.nullcontext():
            line = parse(words, COMMANDS)
        with flagged(flags()):
            return _run(line)
    except DeepJudgeError as error:
        _trace(line)
        for text in error.each:
            _say(f"deepjudge: {text}")
        return USAGE if isinstance(error, UsageError) else FAILED
    except MemoryError as error:
        _trace(line)
        _say(f"deepjudge: not enough memory for this: {error} ({_UNFORESEEN})")
        return FAILED
    except KeyboardInterrupt:
        way_on = line.command.way_on() if line.command else ""
        _say(f"deepjudge: interrupted{way_on and f': {way_on}'}")
        return INTERRUPTED
    except (SystemExit, BrokenPipeError):
        # How it ends where nobody reads the output any more; the status of rich and click would be 1, too.
        _close_output()
        return FAILED
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # which no test for a file foresees
            return _unforeseen(line, error)
        _trace(line)
        _say(f"deepjudge: {clean(str(error.filename))}: no file has such a long name (cannot-read)")
        return USAGE
    except BaseException as error:
        # Python's own exit status would be 1, which says that a suspect is a copy.
        return _unforeseen(line, error)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    # What a command imports stays until the process ends, and Python's collector would look through it again and again.
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _unforeseen(line: Line, error: BaseException) -> int:
    _trace(line)
    _say(f"deepjudge: internal error (see --debug): {type(error).__name__}: {error} ({_UNFORESEEN})")
    return FAILED


def _close_output() -> None:
    # What is left in the buffer would fail once more when Python ends.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(line: Line) -> int:
    if line.command is None:
        return NO_COPY
    from deepjudge_core.cli import terminal  # which help on all commands does not need

    log = terminal.log_told() if line.debug else contextlib.nullcontext()
    with watched(terminal.Bars()), _warnings_in_lines(terminal.warn), log:
        for remark in line.remarks:
            terminal.warn(remark)
        line.command.expect_there()
        return line.command.run()


def _say(text: str) -> None:
    # Nothing in it is folded, coloured or taken for markup.
    sys.stderr.write(f"{clean(text, LONGEST_LINE)}\n")
    sys.stderr.flush()


def _trace(line: Line) -> None:
    # Line by line: what libraries say may be what a file says.
    if line.debug:
        for text in traceback.format_exc().splitlines():
            _say(text)


@contextlib.contextmanager
def _warnings_in_lines(warn: Callable[[str], None]) -> Iterator[None]:
    # Each warning that Python code gives, once; which are shown at all is up to Python's filters.
    shown: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        line = str(message).strip().partition("\n")[0]
        if line not in shown:
            shown.add(line)
            warn(line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield

"""Run a command and turn what comes of it into an exit status."""

import contextlib
import errno
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence

from rich.console import Console

from deepjudge_core.bundles.commitment import CommitmentError
from deepjudge_core.cli import display
from deepjudge_core.cli.auditfile.reading import AuditFileError
from deepjudge_core.cli.command import Command, flags_of
from deepjudge_core.cli.commands.audit import AuditCommand
from deepjudge_core.cli.commands.calibrate import CalibrateCommand
from deepjudge_core.cli.commands.commit import CommitCommand
from deepjudge_core.cli.commands.compare import CompareCommand
from deepjudge_core.cli.commands.embed import EmbedCommand
from deepjudge_core.cli.commands.fleet import FleetCommand
from deepjudge_core.cli.commands.init import InitCommand
from deepjudge_core.cli.commands.judge import JudgeCommand
from deepjudge_core.cli.commands.key import KeyCommand
from deepjudge_core.cli.commands.new_plugin import NewPluginCommand
from deepjudge_core.cli.commands.observe import ObserveCommand
from deepjudge_core.cli.commands.plugins import PluginsCommand
from deepjudge_core.cli.commands.power import PowerCommand
from deepjudge_core.cli.commands.report import ReportCommand
from deepjudge_core.cli.commands.show import ShowCommand
from deepjudge_core.cli.commands.suite import SuiteCommand
from deepjudge_core.cli.commands.verify import VerifyCommand
from deepjudge_core.cli.commands.zoo import ZooCommand
from deepjudge_core.cli.parser import Line, parse
from deepjudge_core.cli.status import FAILED, INTERRUPTED, NO_COPY, USAGE
from deepjudge_core.errors import DeepJudgeError, RefusedError, UsageError, with_code
from deepjudge_core.naming import flagged
from deepjudge_core.progress import watched
from deepjudge_core.text import clean

COMMANDS: tuple[type[Command], ...] = (
    CompareCommand,
    KeyCommand,
    EmbedCommand,
    SuiteCommand,
    ObserveCommand,
    CalibrateCommand,
    JudgeCommand,
    FleetCommand,
    AuditCommand,
    CommitCommand,
    VerifyCommand,
    ZooCommand,
    PowerCommand,
    ReportCommand,
    InitCommand,
    PluginsCommand,
    NewPluginCommand,
    ShowCommand,
)
"""In the order of ``--help``."""

_UNFORESEEN = DeepJudgeError.code  # of what is no error that this package raises on purpose


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``deepjudge``; returns the exit status (see ``deepjudge --help``)."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # standard error is so already
        sys.stdout.reconfigure(errors="backslashreplace")  # of a terminal that does not know all characters of a name
    words = list(sys.argv[1:] if argv is None else argv)
    line, errors = Line(None, debug="--debug" in words), display.console(stderr=True)
    try:
        line = parse(words, COMMANDS)
        with flagged(flags_of(COMMANDS)):
            return _run(line)
    except DeepJudgeError as error:
        _trace(line, errors)
        for one in error.errors if isinstance(error, RefusedError) else [error]:
            for text in one.lines if isinstance(one, AuditFileError | CommitmentError) else [str(one)]:
                display.say(errors, f"deepjudge: {with_code(text, one)}")
        return USAGE if isinstance(error, UsageError) else FAILED
    except MemoryError as error:
        _trace(line, errors)
        display.say(errors, f"deepjudge: not enough memory for this: {error} ({_UNFORESEEN})")
        return FAILED
    except KeyboardInterrupt:
        way_on = line.command.way_on() if line.command else ""
        display.say(errors, f"deepjudge: interrupted{way_on and f': {way_on}'}")
        return INTERRUPTED
    except (SystemExit, BrokenPipeError):
        # How it ends where nobody reads the output any more; the status of rich and click would be 1, too.
        _close_output()
        return FAILED
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # which no test for a file foresees
            return _unforeseen(line, errors, error)
        _trace(line, errors)
        display.say(errors, f"deepjudge: {clean(str(error.filename))}: no file has such a long name (cannot-read)")
        return USAGE
    except BaseException as error:
        # Python's own exit status would be 1, which says that a suspect is a copy.
        return _unforeseen(line, errors, error)


def _unforeseen(line: Line, errors: Console, error: BaseException) -> int:
    _trace(line, errors)
    display.say(errors, f"deepjudge: internal error (see --debug): {type(error).__name__}: {error} ({_UNFORESEEN})")
    return FAILED


def _close_output() -> None:
    # What is left in the buffer would fail once more when Python ends.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(line: Line) -> int:
    if line.command is None:
        return NO_COPY
    log = display.log_told() if line.debug else contextlib.nullcontext()
    with watched(display.Bars()), _warnings_in_lines(), log:
        for remark in line.remarks:
            display.warn(remark)
        return line.command.run()


def _trace(line: Line, errors: Console) -> None:
    # Line by line: what libraries say may be what a file says.
    if line.debug:
        for text in traceback.format_exc().splitlines():
            display.say(errors, text)


@contextlib.contextmanager
def _warnings_in_lines() -> Iterator[None]:
    # Each warning that Python code gives, once; which are shown at all is up to Python's filters.
    shown: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        line = str(message).strip().partition("\n")[0]
        if line not in shown:
            shown.add(line)
            display.warn(line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield

"""Where hostile files are laid out and judged by a command, and what is seen of all that they tried."""

import contextlib
import ctypes
import dataclasses
import functools
import io
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import toys

from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.cli.main import main
from deepjudge_core.sandbox import landlock, process, seccomp
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.sandbox.scratch import Scratch
from deepjudge_core.sandbox.starting import end_templates
from deepjudge_core.suites.inputs import Inputs
from deepjudge_core.suites.settings import SuiteSettings
from deepjudge_core.suites.suite import Suite, save_suite
from deepjudge_core.text import clean

needs_landlock = pytest.mark.skipif(
    not landlock.version() or not seccomp.supported(), reason="no Linux with Landlock and seccomp"
)
needs_seccomp = pytest.mark.skipif(not seccomp.supported(), reason="no Linux with seccomp on a known architecture")

FEATURES, CLASSES = 4, 3
INCONCLUSIVE, FAILED = 3, 4
SECRET = b"secret!!" * 6  # as long as the weights of a small model

_CONTROLS = re.compile(r"[^\n -~\u00a1-\uffff]|[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_OPENED = 0x20 | 0x1 | 0x2 | 0x40 | 0x80 | 0x200 | 0x400 | 0x800  # IN_OPEN, read, written, moved, removed
_PATIENCE = 4.0  # seconds, each of which keeps a processor busy
_NON_BLOCKING, _SUBREAPER = os.O_NONBLOCK, 36


@dataclass(frozen=True)
class Place:
    """Where one case works.

    Attributes:
        path: The model's file, which is to be made.
        marker: What succeeds leaves this file behind.
        canary: Nobody reads this.
    """

    path: Path
    marker: Path
    canary: Path


@dataclass(frozen=True)
class Case:
    """A file, and what is to be said of it.

    Attributes:
        file: Its name.
        make: Makes it.
        code: What stands in parentheses behind the reason; None for a model that is opened and answers;
            empty where the mistake is the user's.
        words: What the reason, or a line about a model that answers, has in it.
    """

    file: str
    make: Callable[[Place], object]
    code: str | None = None
    words: str = ""


@functools.cache
def _suite() -> Suite:
    victim = toys.make_model(3, shape=(FEATURES,), widths=(6, 5), classes=CLASSES, name="victim")
    x, y = toys.make_inputs(victim)
    options = {
        "pgd": {"eps": 0.4, "step": 0.1, "steps": 5},
        "neuron-corners": {"iterations": 20, "tries": 2, "per_neuron": 1},
    }
    return make_suite(victim, Inputs(x, y, training=x), SuiteSettings(n=8, order="balanced", options=options))


def _written(folder: Path) -> Path:
    path = folder / "suite.safetensors"
    save_suite(path, _suite())
    return path


class JudgedModel:
    """What came of one command over several files."""

    def __init__(
        self,
        folder: Path,
        cases: Mapping[str, Case],
        *options: str,
        with_landlock: bool = True,
        prepare: Callable[[Path], object] = lambda folder: None,
        endless: Collection[str] = (),
    ) -> None:
        """Lay them out and run it.

        Args:
            folder: Where; also the current directory.
            cases: The files, by names of the cases.
            options: Of the command.
            with_landlock: Whether the system has Landlock.
            prepare: What else the command needs.
            endless: Names of cases that nobody waits long for. They come last: once the framework is imported.
        """
        self.cases = cases
        prepare(folder)
        self.places = {name: _place(folder, name, case) for name, case in cases.items()}
        for name, case in cases.items():
            case.make(self.places[name])
        for place in self.places.values():
            if not place.canary.exists():
                place.canary.write_bytes(SECRET)
        suite, report = _written(folder), folder / "report.json"
        self.scratch = folder / "tmp"
        self.scratch.mkdir()
        before, self._theirs = _tree(folder), _children()
        known = landlock.version() if with_landlock else 0
        words = ["judge", str(suite), *(str(place.path) for place in self.places.values()), "--json", str(report)]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(tempfile, "tempdir", str(self.scratch)))
            stack.enter_context(mock.patch.object(landlock, "version", return_value=known))
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            self.opened = stack.enter_context(_watched([place.canary for place in self.places.values()]))
            stack.enter_context(_adopting())
            stack.enter_context(contextlib.chdir(folder))
            stack.enter_context(_impatient({str(self.places[name].path) for name in endless}))
            self.status = main([*words, *options])
            end_templates()
            self.strays = _children() - self._theirs
        self.out, self.err = out.getvalue(), err.getvalue()
        self.report = report.read_text() if report.exists() else ""
        report.unlink(missing_ok=True)
        self.new = {path for path, seen in _tree(folder).items() if before.get(path) != seen}
        self.gone = before.keys() - _tree(folder).keys()

    def lines(self, name: str) -> list[str]:
        """What was said of a file."""
        start = f"{clean(str(self.places[name].path), 4000)}: "
        return [line.removeprefix(start) for line in self.out.splitlines() if line.startswith(start)]

    def result(self, name: str) -> dict[str, Any]:
        """What stands in the report of a file."""
        place = list(self.cases).index(name)
        found: dict[str, Any] = json.loads(self.report)["suspects"][place]
        return found

    def check(self, name: str) -> None:
        """Of a case there is what it expects."""
        case, lines, result = self.cases[name], self.lines(name), self.result(name)
        if case.code is None:
            assert result["decision"] == "inconclusive", lines
            assert all(result["metrics"][metric]["value"] is not None for metric in ("robd", "jsd")), result
            assert not any(line.startswith("failed") for line in lines)
            assert case.words in "\n".join(lines), lines
        else:
            [line] = lines
            assert line.startswith("failed: "), line
            assert line.endswith(f" ({case.code})" if case.code else ""), line
            assert case.words in line, line
            assert result["decision"] == "failed"
            assert not _CONTROLS.search(str(result["reason"]))

    def check_rest(self) -> None:
        """Nothing else happened."""
        marked = [name for name, place in self.places.items() if os.path.lexists(place.marker)]
        assert marked == []
        assert not self.opened, self.opened
        assert self.strays == set()
        assert list(self.scratch.iterdir()) == []
        # The register of runs belongs to the suite, and the command writes it.
        assert ({path for path in self.new if Path(path).name != "suite.runs.jsonl"}, self.gone) == (set(), set())
        failing = any(case.code is not None for case in self.cases.values())
        expected = FAILED if failing else INCONCLUSIVE
        assert self.status == expected
        for text in (self.out, self.err, self.report):
            assert "Traceback" not in text
            assert not _CONTROLS.search(text), repr(_CONTROLS.search(text))
        told = (
            "deepjudge: warning: ",
            f"deepjudge: judging {len(self.cases)} suspects: ",
        )  # the latter is the progress of many
        other = [line for line in self.err.splitlines() if not line.startswith(told)]
        assert other == []


def ask(folder: Path, suspect: Path, *options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Judge one file by the command that a user types, with ``folder / "tmp"`` for temporary files."""
    # As the installed script does, which does not look for modules in the current directory.
    run = [sys.executable, "-P", "-c", "import sys; from deepjudge_core.cli.main import main; sys.exit(main())"]
    command = [*run, "judge", str(_written(folder)), str(suspect), *options]
    environment = os.environ | {"TMPDIR": str(folder / "tmp")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=1800)


def rename(case: Case, code: str | None) -> Case:
    """The same file, of which something else is expected."""
    return Case(case.file, case.make, code, "" if code else case.words)


def _place(folder: Path, name: str, case: Case) -> Place:
    plain = re.sub(r"\W+", "-", name)
    for kind in ("models", "markers", "secret"):
        (folder / kind).mkdir(exist_ok=True)
    own = folder / "models" / plain
    own.mkdir()
    path = Path(case.file) if case.file.startswith("/") else own / case.file
    return Place(path, folder / "markers" / plain, folder / "secret" / plain)


def _tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    # Of a folder no more than that there is one: its size and time change with what is in it.
    found = {}
    for root, folders, files in os.walk(folder):
        for path in (Path(root) / name for name in (*folders, *files)):
            seen = path.lstat()
            kind = stat.S_IFMT(seen.st_mode)
            found[str(path)] = (kind, 0, 0) if kind == stat.S_IFDIR else (kind, seen.st_size, seen.st_mtime_ns)
    return found


@contextlib.contextmanager
def _impatient(labels: Collection[str]) -> Iterator[None]:
    # Whatever the command allows the others: these compute until they are ended.
    start = process.Worker.__init__

    def starting(
        worker: process.Worker, label: str, model: Path, scratch: Scratch, sandbox: Sandbox, *rest: Any, **more: Any
    ) -> None:
        limits = dataclasses.replace(sandbox, timeout=_PATIENCE) if label in labels else sandbox
        start(worker, label, model, scratch, limits, *rest, **more)

    with mock.patch.object(process.Worker, "__init__", starting):
        yield


def _children() -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name stands in parentheses, and may hold what it likes; behind it the state and the parent.
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(path.parent.name))
    return found


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    # Whoever loses its parent becomes a child of this process, so that it is seen.
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        libc.prctl(_SUBREAPER, 0, 0, 0, 0)


@contextlib.contextmanager
def _watched(paths: list[Path]) -> Iterator[list[str]]:
    """Names of files that somebody opened, read or changed, by whatever name; known when the context ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(_NON_BLOCKING)
    assert descriptor >= 0
    names = {libc.inotify_add_watch(descriptor, bytes(path), _OPENED): path.name for path in paths}
    opened: list[str] = []
    try:
        yield opened
        with contextlib.suppress(BlockingIOError):
            while data := os.read(descriptor, 2**16):
                opened += [names[int.from_bytes(data[at : at + 4], sys.byteorder)] for at in range(0, len(data), 16)]
    finally:
        os.close(descriptor)

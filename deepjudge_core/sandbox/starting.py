"""Starts the process of a model: a copy of one that has imported its framework already, or one from scratch."""

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from deepjudge_core.sandbox import landlock, limits, macos

THREADS = "OPENBLAS_NUM_THREADS"
_PYTHON = [sys.executable, "-I", "-B", "-c"]
_WORKER = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[3]); from deepjudge_core.sandbox.worker import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]))"
)
_TEMPLATE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[3]); from deepjudge_core.sandbox.template import main; "
    "main(int(sys.argv[1]), sys.argv[2])"
)
# The number of threads, and the kernels that compute, change the last digits of answers: as in the audit's own process.
_KEPT = (
    *("OMP_NUM_THREADS", THREADS, "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "KERAS_BACKEND"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT"),
)
_HOMES = ("HOME", "TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "KERAS_HOME")
_NOWHERE = Path(os.devnull, "home")  # of the user, for a process that has no folder of its own
_LONGEST_ANSWER = 2**12
_PAUSE = 0.02  # seconds between two looks at a process
_GRACE = 30.0  # seconds for a template to answer once it is ready to


class Started(Protocol):
    """A process for a model, and the processes that it starts."""

    @property
    def pid(self) -> int:
        """Its number."""

    def threads(self) -> int:
        """How many threads it has; 0 where that is not known, or not yet."""

    def status(self, patience: float) -> int | None:
        """Its exit status, or the negative number of the signal that ended it; None while it is there.

        Args:
            patience: Seconds to wait for its end.
        """

    def end(self) -> None:
        """End it, and wait until it is gone."""


@dataclass(frozen=True)
class Descriptors:
    """What a worker is given: where it reads requests, writes answers, and logs."""

    reading: int
    writing: int
    log: int

    def close(self) -> None:
        """Close the audit's own."""
        for descriptor in (self.reading, self.writing, self.log):
            os.close(descriptor)


@dataclass(frozen=True)
class Kind:
    """Which workers are alike until they are told of a model.

    Attributes:
        plugin: The entry point of the plugin that gives the adapter.
        adapter: Its name.
        readable: What each may read beside its model.
        frameworks: Whether they import what the adapter needs to open models. To read weights, none is imported unless
            a file cannot be read without one.
        own_code: Whether each imports code of the user's own, which may lie anywhere, before it confines itself. What
            they are copies of is then not confined. It never sees that code, which may have changed by the next copy.
    """

    plugin: str
    adapter: str
    readable: tuple[Path, ...]
    frameworks: bool = True
    own_code: bool = False


def start_alone(work: Path, readable: Sequence[Path], descriptors: Descriptors, held: Sequence[int] = ()) -> Started:
    """Start a process from scratch.

    Args:
        work: Where it may write.
        readable: What it may read; held here on macOS only, elsewhere by the worker itself.
        descriptors: Its own.
        held: Open files that it has by the same numbers.
    """
    command = [*_PYTHON, _WORKER, str(descriptors.reading), str(descriptors.writing), _path()]
    if sys.platform == "darwin":
        command = ["/usr/bin/sandbox-exec", "-p", macos.profile(readable, work), *command]
    process = subprocess.Popen(  # noqa: S603 - this Python, with words of ours
        command,
        stdin=subprocess.DEVNULL,
        stdout=descriptors.log,
        stderr=descriptors.log,
        cwd=work,
        env=_environment(work),
        pass_fds=(descriptors.reading, descriptors.writing, *held),
        start_new_session=True,
    )
    return _Alone(process)


def start_copy(kind: Kind, work: Path, descriptors: Descriptors) -> Started | None:
    """Start a copy of the template of its kind, which is started with the first; None if this system has none.

    Args:
        kind: Of the worker.
        work: Where it may write.
        descriptors: Its own.
    """
    if sys.platform != "linux":
        return None
    try:
        return _Copy(_TEMPLATES.of(kind), work, descriptors)
    except OSError:  # it is gone, and this model does not have to wait for another one
        return None


@dataclass(frozen=True)
class _Alone:
    process: "subprocess.Popen[bytes]"

    @property
    def pid(self) -> int:
        return self.process.pid

    def threads(self) -> int:
        return limits.threads_of(self.pid)

    def status(self, patience: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        return self.process.returncode

    def end(self) -> None:
        _kill(self.process.pid)
        self.process.wait()


class _Copy:
    def __init__(self, template: "_Template", work: Path, descriptors: Descriptors) -> None:
        environment = dict.fromkeys(_HOMES, str(work))
        passed = (descriptors.reading, descriptors.writing, descriptors.log)
        self._request = template.ask({"work": str(work), "environment": environment}, passed)
        self._template = template
        template.hold()
        self._pid: int | None = None
        self._status: int | None = None

    @property
    def pid(self) -> int:
        if self._pid is None:
            self._pid = self._template.answer(self._request)
        if not self._pid:  # the number 0 would stand for the audit's own process
            raise ConnectionError("the template started no process")
        return self._pid

    def threads(self) -> int:
        try:  # who looks does not wait until the framework is imported
            return limits.threads_of(self.pid) if self._pid or self._template.has_answered() else 0
        except OSError:
            return 0

    def status(self, patience: float) -> int | None:
        deadline = time.monotonic() + patience
        while self._status is None:
            try:
                self._status = self._template.answer(self._template.ask({"pid": self.pid}))
            except OSError:  # the template is gone, and the kernel has ended its copies
                self._status = -signal.SIGKILL
            if self._status is None:
                if time.monotonic() > deadline:
                    return None
                time.sleep(_PAUSE)
            else:
                self._template.release()
        return self._status

    def end(self) -> None:
        if self._status is None:
            try:
                if self._template.has_answered():
                    _kill(self.pid)  # nobody else has this number before the template is asked what became of it
                else:  # who stops an audit does not wait until its framework is imported
                    self._template.close()
            except OSError:
                self._template.close()
            if self.status(_GRACE) is None:
                self._template.close()


class _Template:
    # The other side of `template.py`. Requests are answered in order; whoever waits keeps what is another's.

    def __init__(self, kind: Kind) -> None:
        self._lock = threading.Lock()
        self._answers: dict[int, int | None] = {}
        self._last = 0
        self._copies, self._wanted = 0, True
        self._answered = False
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests.settimeout(_GRACE)
        setup = {
            "plugin": kind.plugin,
            "adapter": kind.adapter,
            "readable": list(map(str, kind.readable)),
            "writable": tempfile.gettempdir(),
            "landlock": landlock.version() > 0,
            "frameworks": kind.frameworks,
            "confined": not kind.own_code,
        }
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this Python, with words of ours
                [*_PYTHON, _TEMPLATE, str(theirs.fileno()), json.dumps(setup), _path()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={**_environment(_NOWHERE), "TMPDIR": tempfile.gettempdir()},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._owner = os.getpid()

    @property
    def there(self) -> bool:
        """Whether it can be asked by this process."""
        return self._owner == os.getpid() and self._process.poll() is None

    def hold(self) -> None:
        """Count one more copy."""
        self._copies += 1

    def release(self) -> None:
        """Count one copy less."""
        self._copies -= 1
        self._close_unless_wanted()

    def retire(self) -> None:
        """Close it as soon as it has no copy."""
        self._wanted = False
        self._close_unless_wanted()

    def _close_unless_wanted(self) -> None:
        if not self._wanted and self._copies < 1:
            self.close()

    def ask(self, values: dict[str, Any], descriptors: Sequence[int] = ()) -> int:
        """Send a request; gives its number.

        Raises:
            OSError: When it is gone.
        """
        with self._lock:
            self._last += 1
            data = json.dumps({"request": self._last, **values}).encode()
            if descriptors:
                socket.send_fds(self._requests, [data], descriptors)
            else:
                self._requests.send(data)
            return self._last

    def answer(self, request: int) -> int | None:
        """The answer to a request.

        Raises:
            OSError: When it is gone, or takes too long.
        """
        with self._lock:
            while request not in self._answers:
                self._receive()
            return self._answers.pop(request)

    def has_answered(self) -> bool:
        """Whether it has answered anything yet; before, it still imports, and has no copy.

        Raises:
            OSError: When it is gone.
        """
        with self._lock:
            if self._requests.fileno() < 0:
                raise ConnectionResetError("the template was closed")
            ready = select.poll()
            ready.register(self._requests, select.POLLIN)
            if not self._answered and ready.poll(0):
                self._receive()
            return self._answered

    def _receive(self) -> None:
        data = self._requests.recv(_LONGEST_ANSWER)
        if not data:
            raise ConnectionResetError("the template is gone")
        message = json.loads(data)
        self._answers[message["request"]] = message["answer"]
        self._answered = True

    def close(self) -> None:
        """End it, and with it its copies."""
        if self._owner != os.getpid():  # a copy of the audit's process leaves it alone
            return
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._requests.close()


class _Templates:
    # One for each adapter, with and without its framework and the user's own code, and another one if what its workers
    # are given at their start has changed.

    def __init__(self) -> None:
        self._by_adapter: dict[tuple[str, str, bool, bool], tuple[object, _Template]] = {}
        self._lock = threading.Lock()

    def of(self, kind: Kind) -> _Template:
        place = (kind.plugin, kind.adapter, kind.frameworks, kind.own_code)
        environment = {name: os.environ.get(name) for name in _KEPT}
        alike = (kind, _path(), tempfile.gettempdir(), landlock.version(), environment)
        with self._lock:
            if place in self._by_adapter:
                known, template = self._by_adapter[place]
                if known == alike and template.there:
                    return template
                template.retire()
            template = _Template(kind)
            self._by_adapter[place] = alike, template
            return template

    def close(self) -> None:
        for _, template in self._by_adapter.values():
            template.close()
        self._by_adapter.clear()


_TEMPLATES = _Templates()


def end_templates() -> None:
    """End the processes that others are copies of: when this process ends, at the latest."""
    _TEMPLATES.close()


atexit.register(end_templates)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _path() -> str:
    return json.dumps([folder for folder in sys.path if folder])


def _environment(work: Path) -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        **dict.fromkeys(_HOMES, str(work)),
        "PATH": os.defpath,
        "LC_ALL": "C.UTF-8",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # What is read of a user is in a file that cannot be read.
        **dict.fromkeys(("USER", "LOGNAME"), "deepjudge"),
        # Each arena of the C library reserves up to 128 MiB, which counts as used: one a thread would be too many.
        "MALLOC_ARENA_MAX": "2",
        # No device is within reach.
        "CUDA_VISIBLE_DEVICES": "-1",
        # numpy's; a process with a second thread cannot confine itself. The worker restores it then.
        THREADS: "1",
    }

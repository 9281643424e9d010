"""Tasks on this machine: a few processes, each of which does one task after the other."""

import contextlib
import json
import os
import queue
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepjudge_core.errors import DeepJudgeError
from deepjudge_core.fleets.work import ONE_THREAD, Key, Result, Task, lost, pack, perform, unpack
from deepjudge_core.naming import current_flags
from deepjudge_core.suites.suite import Suite, load_suite

_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); from deepjudge_core.fleets.local import main; "
    "main(int(sys.argv[1]))"
)
_LENGTH = 8  # bytes in front of a message, which say how long it is
_AHEAD = 2  # tasks that a process has at once, so that it never waits for the next one
_ATTEMPTS = 2  # at a task that its process is lost with
_GRACE = 5.0  # seconds for a process to end
_SUITES = 4  # that a process holds
_READY = b"ready"


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Local:
    """Does tasks in processes of this machine.

    Attributes:
        jobs: How many.
    """

    jobs: int = field(default_factory=cores)

    def results(self, tasks: Iterable[Task], suites: Mapping[str, Path]) -> Iterator[Result]:
        """See :class:`~deepjudge_core.fleets.engine.Engine`."""
        with _Pool(self.jobs, suites) as pool:
            yield from pool.results(iter(tasks))


class _Pool:
    # The processes, and what each was given.

    def __init__(self, jobs: int, suites: Mapping[str, Path]) -> None:
        self._jobs, self._suites = jobs, {digest: str(path.absolute()) for digest, path in suites.items()}
        self._selector = selectors.DefaultSelector()
        self._processes: list[_Process] = []
        self._again: deque[Task] = deque()  # of processes that were lost
        self._attempts: dict[Key, int] = {}

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.close()
        self._selector.close()

    def results(self, tasks: Iterator[Task]) -> Iterator[Result]:
        self._fill(tasks)
        while self._processes:
            for key, _ in self._selector.select():
                process: _Process = key.data
                try:
                    result = process.receive()
                except (OSError, ValueError):
                    yield from self._bury(process)
                    continue
                if result is not None:
                    self._attempts.pop(result.task.key, None)
                    self._give(process, tasks)  # before the result is looked at, which may take a moment
                    yield result
            self._fill(tasks)

    def _fill(self, tasks: Iterator[Task]) -> None:
        # As many processes as there is work for.
        while len(self._processes) < self._jobs:
            task = self._next(tasks)
            if task is None:
                break
            process = _Process()
            self._processes.append(process)
            self._selector.register(process.socket, selectors.EVENT_READ, process)
            process.send(task, self._suites[task.suite])
        for process in list(self._processes):
            self._give(process, tasks)

    def _give(self, process: "_Process", tasks: Iterator[Task]) -> None:
        while len(process.tasks) < _AHEAD:
            task = self._next(tasks)
            if task is None:
                break
            process.send(task, self._suites[task.suite])
        if not process.tasks:
            self._remove(process)

    def _next(self, tasks: Iterator[Task]) -> Task | None:
        return self._again.popleft() if self._again else next(tasks, None)

    def _bury(self, process: "_Process") -> Iterator[Result]:
        # What it was doing may have been what ended it; the rest was not begun.
        tasks, how = list(process.tasks), _ending(self._remove(process))
        if not process.ready:
            raise DeepJudgeError(f"the processes that ask suspects cannot be started: one ended with {how}")
        for place, task in enumerate(tasks):
            attempts = self._attempts.get(task.key, 0) + (place == 0)
            if attempts < _ATTEMPTS:
                self._attempts[task.key] = attempts
                self._again.append(task)
            else:
                self._attempts.pop(task.key, None)
                yield lost(task, f"the process that asked it ended with {how}, {attempts} times")

    def _remove(self, process: "_Process") -> int:
        self._selector.unregister(process.socket)
        self._processes.remove(process)
        return process.close()


class _Process:
    # One process, from the outside.

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.tasks, self.ready = deque[Task](), False
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this Python, with words of ours
                [sys.executable, "-c", _CODE, str(theirs.fileno()), json.dumps(list(filter(None, sys.path)))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**dict.fromkeys(ONE_THREAD, "1"), **os.environ},
                pass_fds=(theirs.fileno(),),
            )
        flags = current_flags()
        self._tell(pack(dict(flags) if flags is not None else None))

    def send(self, task: Task, suite: str) -> None:
        self.tasks.append(task)
        self._tell(pack((task, suite)))

    def _tell(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it is gone, which is found when it is read from
            _send(self.socket, data)

    def receive(self) -> Result | None:
        if not self.ready:
            self.ready = _receive(self.socket) == _READY
            return None
        result = unpack(_receive(self.socket), Result)
        if result.task.key != self.tasks[0].key:
            raise ValueError("the result of another task")
        self.tasks.popleft()
        return result

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> int:
        """End it: it ends by itself when nobody listens; gives its exit status."""
        self.socket.close()
        try:
            return self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _ending(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"status {status}"


def _send(to: socket.socket, data: bytes) -> None:
    to.sendall(len(data).to_bytes(_LENGTH, "big") + data)


def _receive(of: socket.socket) -> bytes:
    return _exactly(of, int.from_bytes(_exactly(of, _LENGTH), "big"))


def _exactly(of: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = of.recv(min(size - len(data), 2**20))
        if not part:
            raise ConnectionResetError("the other process is gone")
        data += part
    return bytes(data)


# Inside such a process.


def main(descriptor: int) -> None:
    """Do tasks until the other side is gone: then at once, since nobody wants what is being done."""
    theirs = socket.socket(fileno=descriptor)
    flags = unpack(_receive(theirs), dict[str, str] | None)  # type: ignore[arg-type]
    tasks: queue.SimpleQueue[tuple[Task, str]] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                tasks.put(unpack(_receive(theirs), tuple[Task, str]))
        finally:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a terminal sends to all: the parent ends this one
    threading.Thread(target=listen, daemon=True).start()
    suites = Suites(load_suite)
    _send(theirs, _READY)
    while True:
        task, path = tasks.get()
        _send(theirs, pack(done(task, Path(path), suites, flags)))


def done(task: Task, place: Any, suites: "Suites", flags: Mapping[str, str] | None) -> Result:
    """Do a task on a worker that holds a few suites.

    Args:
        task: The task.
        place: What its suite is loaded from.
        suites: Those that the worker holds.
        flags: What messages call settings.
    """
    try:
        suite = suites.of(task.suite, place)
    except DeepJudgeError as error:
        return Result(task, "undone", str(error), error.code)
    return perform(task, suite, flags=flags)


class Suites:
    """The few suites that a worker was last asked for."""

    def __init__(self, load: Callable[[Any], Suite]) -> None:
        self._load, self._held = load, OrderedDict[str, Suite]()

    def of(self, digest: str, place: Any) -> Suite:
        """The suite of a digest.

        Args:
            digest: The digest.
            place: What it is loaded from, if it is not there.

        Raises:
            DeepJudgeError: When it cannot be loaded.
        """
        if digest not in self._held:
            while len(self._held) >= _SUITES:
                self._held.popitem(last=False)
            self._held[digest] = self._load(place)
        self._held.move_to_end(digest)
        return self._held[digest]

"""Tasks on the workers of a Dask cluster, through its own client."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from distributed import Client, KilledWorker, WorkerPlugin, as_completed, get_worker

from deepjudge_core.errors import DeepJudgeError, first_line
from deepjudge_core.fleets.remote import AHEAD, do
from deepjudge_core.fleets.work import Result, Task, lost, pack, unpack
from deepjudge_core.naming import current_flags

_PATIENCE = 30  # seconds for the scheduler, and for a first worker
_PLUGIN = "deepjudge-suites"
_SUITES = "deepjudge_suites"  # what a worker calls those that it holds


class SuitesOfWorker(WorkerPlugin):  # type: ignore[misc]  # the library has no types
    """The suites, as a plugin of each worker: the scheduler sends it once to each, also to those that join later."""

    name = _PLUGIN

    def __init__(self, suites: Mapping[str, bytes]) -> None:
        """Hold digest to file of each."""
        self._suites = suites

    def setup(self, worker: Any) -> None:
        """Called by a worker that it reaches."""
        setattr(worker, _SUITES, self._suites)


@dataclass(frozen=True)
class Dask:
    """Does tasks on the workers of a Dask scheduler; each needs deepjudge of this version, and the same plugins.

    Attributes:
        scheduler: Its address, such as ``tcp://scheduler:8786``.
    """

    scheduler: str

    def results(self, tasks: Iterable[Task], suites: Mapping[str, Path]) -> Iterator[Result]:
        """See :class:`~deepjudge_core.fleets.engine.Engine`."""
        flags = current_flags()
        with self._connected(suites) as client:
            yield from _Cluster(client, dict(flags) if flags is not None else None).results(iter(tasks))

    @contextlib.contextmanager
    def _connected(self, suites: Mapping[str, Path]) -> Iterator[Client]:
        try:
            client = Client(self.scheduler, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise DeepJudgeError(
                f"{self.scheduler}: expected the address of a Dask scheduler, found none there: {first_line(error)}"
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=_PATIENCE)
            except TimeoutError as error:
                raise DeepJudgeError(
                    f"{self.scheduler}: expected a worker within {_PATIENCE} s, found none; start one with "
                    f"'dask worker {self.scheduler} --nthreads 1'"
                ) from error
            try:
                client.register_plugin(SuitesOfWorker({digest: path.read_bytes() for digest, path in suites.items()}))
            except Exception as error:
                raise DeepJudgeError(
                    f"{self.scheduler}: its workers cannot take suites; install deepjudge[dask] on each, "
                    f"in this version: {first_line(error)}"
                ) from error
            yield client


class _Cluster:
    def __init__(self, client: Client, flags: Mapping[str, str] | None) -> None:
        self._client, self._flags = client, flags

    def results(self, tasks: Iterator[Task]) -> Iterator[Result]:
        pending: dict[str, Task] = {}
        completed = as_completed(loop=self._client.loop)
        for task in islice(tasks, self._most()):
            completed.add(self._submit(task, pending))
        for future in completed:
            task = pending.pop(future.key)
            for following in islice(tasks, max(0, self._most() - len(pending))):  # before the result is looked at
                completed.add(self._submit(following, pending))
            yield self._result(task, future)

    def _most(self) -> int:
        return AHEAD * max(1, int(sum(self._client.nthreads().values())))

    def _submit(self, task: Task, pending: dict[str, Task]) -> Any:
        # Under a key of its own: Dask would take two tasks of equal arguments for one.
        key = "-".join(("deepjudge", *task.key))
        pending[key] = task
        return self._client.submit(on_worker, pack(task), task.suite, self._flags, key=key, pure=False, retries=0)

    def _result(self, task: Task, future: Any) -> Result:
        error = future.exception() if future.status != "finished" else None
        if error is None and future.status == "finished":
            return unpack(future.result(), Result)
        if isinstance(error, KilledWorker):
            return lost(task, "each worker that asked it was lost")
        return Result(task, "undone", first_line(error) if error else future.status, "error")


def on_worker(task: bytes, suite: str, flags: Mapping[str, str] | None) -> bytes:
    """Called on a worker, by the scheduler.

    Args:
        task: The packed task.
        suite: Digest of its suite.
        flags: What messages call settings.
    """
    return do(task, getattr(get_worker(), _SUITES)[suite], flags)

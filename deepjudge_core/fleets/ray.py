"""Tasks on a Ray cluster, through its own client."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import ray

from deepjudge_core.errors import DeepJudgeError, first_line
from deepjudge_core.fleets.remote import AHEAD, RETRIES, do
from deepjudge_core.fleets.work import Result, Task, lost, pack, unpack
from deepjudge_core.naming import current_flags


@dataclass(frozen=True)
class Ray:
    """Does tasks on a Ray cluster; each node needs deepjudge of this version, and the same plugins.

    Attributes:
        address: Where it is, such as ``auto`` for the one that this machine belongs to, or ``ray://head:10001``.
    """

    address: str

    def results(self, tasks: Iterable[Task], suites: Mapping[str, Path]) -> Iterator[Result]:
        """See :class:`~deepjudge_core.fleets.engine.Engine`."""
        with self._connected():
            flags = current_flags()
            yield from _Cluster(suites, dict(flags) if flags is not None else None).results(iter(tasks))

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            ray.init(address=self.address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise DeepJudgeError(
                f"{self.address}: expected the address of a Ray cluster, found none there: {first_line(error)}"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


class _Cluster:
    def __init__(self, suites: Mapping[str, Path], flags: Mapping[str, str] | None) -> None:
        self._flags = flags
        # An object is sent to each node once, when the first task there needs it.
        self._suites = {digest: ray.put(path.read_bytes()) for digest, path in suites.items()}
        self._do = ray.remote(num_cpus=1, max_retries=RETRIES)(do)

    def results(self, tasks: Iterator[Task]) -> Iterator[Result]:
        pending: dict[Any, Task] = {}
        while True:
            for task in islice(tasks, max(0, self._most() - len(pending))):
                pending[self._do.remote(pack(task), self._suites[task.suite], self._flags)] = task
            if not pending:
                return
            done, _ = ray.wait(list(pending))
            for reference in done:
                yield self._result(pending.pop(reference), reference)

    def _most(self) -> int:
        return AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def _result(self, task: Task, reference: Any) -> Result:
        try:
            return unpack(ray.get(reference), Result)
        except ray.exceptions.WorkerCrashedError:
            return lost(task, "each worker that asked it was lost")
        except ray.exceptions.RayError as error:
            return Result(task, "undone", first_line(error), "error")

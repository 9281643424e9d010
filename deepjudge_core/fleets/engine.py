"""What lets tasks be done, here or elsewhere."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from deepjudge_core.fleets.work import Result, Task


class Engine(Protocol):
    """Does tasks, on processes of this machine or of others."""

    def results(self, tasks: Iterable[Task], suites: Mapping[str, Path]) -> Iterator[Result]:
        """Do tasks, and give what comes of each, in whatever order.

        It takes a few tasks more than there are workers, and the next one when it has given a result: neither tasks nor
        results gather, however many there are. A worker that is lost costs no task: another one does it, and what loses
        several is :func:`~deepjudge_core.fleets.work.lost`. Whoever closes the iterator ends the workers.

        Args:
            tasks: What to do.
            suites: Digest to the file of each suite; each worker gets it once.

        Raises:
            DeepJudgeError: When there are no workers.
        """

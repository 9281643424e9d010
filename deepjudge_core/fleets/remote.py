"""What a worker of a cluster does: it keeps the suites that it was sent, and does one task after the other."""

import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from deepjudge_core.fleets.local import Suites, done
from deepjudge_core.fleets.work import Task, pack, unpack
from deepjudge_core.suites.suite import Suite, load_suite

RETRIES = 2
"""How often a task is given to another worker when its worker is lost, until it is said that the suspect ends them."""
AHEAD = 2
"""Tasks for each thread of a cluster, so that none waits for the next one."""


def _unpacked(data: bytes) -> Suite:
    # Suites are read from files alone, which checks them.
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data)
        file.flush()
        return load_suite(Path(file.name))


_SUITES = Suites(_unpacked)
_TURN = threading.Lock()  # a worker may have several threads, of which one asks a suspect at a time


def do(task: bytes, suite: bytes, flags: Mapping[str, str] | None = None) -> bytes:
    """Do a task. What goes in and comes out are bytes that :func:`~deepjudge_core.fleets.work.unpack` checks.

    Args:
        task: The packed task.
        suite: The file of its suite.
        flags: What messages call settings.
    """
    with _TURN:
        return pack(done(unpack(task, Task), suite, _SUITES, flags))

"""The process that starts workers: it imports a framework once, and copies itself for each model.

Started by :mod:`deepjudge_core.sandbox.starting` as ``main(descriptor, setup)``. It never sees a model: requests come
from the audit's process alone, and each copy gives up its rights before it is told of one. It is confined itself, more
loosely: to the system's and Python's files, to the folder for temporary files, and to starting copies of itself. It is
not if its copies import code of the user's own, which may lie anywhere, before they confine themselves.
"""

import contextlib
import gc
import importlib
import json
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepjudge_core.components.registry import load_adapter
from deepjudge_core.sandbox import confine
from deepjudge_core.sandbox.worker import main as work

LONGEST_REQUEST = 2**16  # bytes
DESCRIPTORS = 3  # of a worker: what it reads, what it writes, its log


def main(descriptor: int, setup: str) -> None:
    """Serve until the other side is gone."""
    values, template = json.loads(setup), _Template(socket.socket(fileno=descriptor))
    adapter = load_adapter(values["plugin"], values["adapter"])
    if values["confined"]:
        readable = tuple(map(Path, values["readable"]))
        confine.enter_template(readable, Path(values["writable"]), landlock=values["landlock"])
    for module in adapter.imports if adapter.copyable and values["frameworks"] else ():
        # If a framework is missing, the adapter itself says so.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # so that the copies' collector leaves the shared memory as it is
    template.serve()


class _Template:
    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        requests.setblocking(True)

    def serve(self) -> None:
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._requests, LONGEST_REQUEST, DESCRIPTORS)
            if not data:
                return  # and the kernel ends the copies
            request = json.loads(data)
            answer = self._start(request, descriptors) if "work" in request else _status_of(request["pid"])
            self._requests.send(json.dumps({"request": request["request"], "answer": answer}).encode())

    def _start(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        if pid := os.fork():
            # Both processes do so: whoever comes second finds it done.
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
            for descriptor in descriptors:
                os.close(descriptor)
            return pid
        try:
            self._become_worker(request, descriptors)
        except BaseException:  # nothing of the template's may go on in its copy
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def _become_worker(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        self._requests.close()
        reading, writing, log = descriptors
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log, stream.fileno())
        os.close(log)
        os.chdir(request["work"])
        os.environ.update(request["environment"])
        tempfile.tempdir = None  # which was found by the template's own environment
        work(reading, writing)
        sys.stdout.flush()
        sys.stderr.flush()


def _status_of(pid: int) -> int | None:
    # Its exit status, or the negative number of the signal that ended it; None while it is there.
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None

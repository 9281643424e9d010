"""What a worker cannot do, by trying it: what is reported was observed, not asked for."""

import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from deepjudge_core.models.isolation import Isolation
from deepjudge_core.sandbox.kernel import call

_FORBIDDEN = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_NULL = Path("/dev/null")  # may be opened by every worker
_NOWHERE = _NULL / "nothing"
_NOBODY = 0x7FFFFFFF  # no process has this number
_AF_UNIX, _AF_INET, _SOCK_STREAM = 1, 2, 1
_PTRACE_ATTACH = 16
# The numbers of these calls are the same on every architecture.
_IO_URING_SETUP, _PIDFD_OPEN, _CLONE3 = 425, 434, 435


class Probe(NamedTuple):
    """What came of trying the forbidden.

    Attributes:
        level: How far this process is isolated.
        leaks: What it could do and should not: why the level is no higher.
    """

    level: Isolation
    leaks: tuple[str, ...]


_Acts = dict[str, Callable[[], object]]


def probe(forbidden: Path) -> Probe:
    """Try what a worker must not do. What succeeds nevertheless changes nothing, or is undone.

    Args:
        forbidden: A file that this user may read and write, in such a folder, outside of what the worker may touch.
    """
    if sys.platform != "linux":
        return Probe(Isolation.PROCESS, (f"no effective confinement is known on {sys.platform}",))
    if leaks := tuple(name for name, act in (_on_files(forbidden) | _on_others()).items() if not _is_denied(act)):
        return Probe(Isolation.PROCESS, leaks)
    return Probe(Isolation.NO_OPEN if _is_denied(lambda: _close(os.open(_NULL, os.O_RDONLY))) else Isolation.FULL, ())


def _is_denied(act: Callable[[], object]) -> bool:
    try:
        act()
    except OSError as error:
        return error.errno in _FORBIDDEN  # any other error comes from the act itself, which was let through
    return False


def _close(descriptor: int) -> None:
    os.close(descriptor)


def _on_files(forbidden: Path) -> _Acts:
    beside = forbidden.with_name(f"{forbidden.name}.{os.getpid()}")

    def make() -> None:
        _close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        beside.unlink()

    return {
        "read a file": lambda: _close(os.open(forbidden, os.O_RDONLY)),
        "write a file": lambda: _close(os.open(forbidden, os.O_WRONLY)),
        "list a folder": lambda: os.listdir(forbidden.parent),  # noqa: PTH208 - names are enough
        "make a file": make,
        "rename a file": lambda: forbidden.rename(forbidden),
        "change a file's rights": lambda: forbidden.chmod(stat.S_IMODE(forbidden.stat().st_mode)),
    }


def _on_others() -> _Acts:
    def fork() -> None:
        if child := os.fork():
            os.waitpid(child, 0)
        else:
            os._exit(0)

    return {
        "make a local socket": lambda: _close(call("socket", _AF_UNIX, _SOCK_STREAM, 0)),
        "make a network socket": lambda: _close(call("socket", _AF_INET, _SOCK_STREAM, 0)),
        "fork": fork,
        "clone": lambda: call("syscall", _CLONE3, None, 0),
        "spawn a process": lambda: os.posix_spawn(_NOWHERE, ["nothing"], {}),
        "run a program": lambda: os.execve(_NOWHERE, ["nothing"], {}),  # noqa: S606 - there is no such program
        "signal the parent": lambda: os.kill(os.getppid(), 0),
        "trace a process": lambda: call("ptrace", _PTRACE_ATTACH, _NOBODY, None, None),
        "read a process' memory": lambda: call("process_vm_readv", _NOBODY, None, 0, None, 0, 0),
        "hold a process": lambda: call("syscall", _PIDFD_OPEN, _NOBODY, 0),
        "enter a namespace": lambda: call("unshare", 0),
        "use io_uring": lambda: call("syscall", _IO_URING_SETUP, 0, None),
        "make a file in memory": lambda: _close(call("memfd_create", b"", 0)),
    }

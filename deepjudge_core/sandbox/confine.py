"""A worker's confinement: it takes away its own rights, once and for good, before it opens a stranger's model."""

import ctypes
import os
import struct
import sys
import sysconfig
from pathlib import Path

from deepjudge_core.sandbox import landlock as _landlock
from deepjudge_core.sandbox import limits, seccomp
from deepjudge_core.sandbox.kernel import call

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SIGKILL = 9
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION = 0x20080522
_NULL, _PROCESSES = Path("/dev/null"), Path("/proc")

# Of all users, and without secrets; a folder of users' models is none of these.
_SYSTEM = """
    /lib /lib32 /lib64 /usr/lib /usr/lib64 /usr/local/lib /usr/local/lib64
    /etc/ld.so.cache /etc/localtime /etc/mime.types /usr/share/zoneinfo
    /etc/ssl/openssl.cnf /etc/pki/tls/openssl.cnf /etc/crypto-policies/back-ends
    /dev/urandom /dev/random
    /proc/self /proc/cpuinfo /proc/meminfo /proc/sys/vm/overcommit_memory
    /sys/devices/system/cpu /sys/devices/system/node /sys/kernel/mm/transparent_hugepage
"""


def is_full() -> bool:
    """Whether this system has all that the full sandbox takes."""
    return sys.platform == "linux" and _landlock.version() > 0 and seccomp.supported()


def system_paths() -> tuple[Path, ...]:
    """What the frameworks read of the system, beside Python's own folders: libraries, and facts about the processor.

    Of ``/proc`` this process' own entries only: those of others hold their environment.
    """
    return tuple(path for path in map(Path, _SYSTEM.split()) if path.exists())


def python_paths() -> tuple[Path, ...]:
    """Python's own folders, and those that packages are installed in.

    What else is on the path may be somebody's folder of work, with models in it.
    """
    paths = [Path(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [Path(prefix, name) for prefix in (sys.base_prefix, sys.base_exec_prefix) for name in ("lib", "lib64")]
    paths += [path for path in map(Path, sys.path) if path.name in ("site-packages", "dist-packages")]
    return tuple(path for path in dict.fromkeys(paths) if path.exists())


def enter(readable: tuple[Path, ...], writable: Path, *, landlock: bool) -> None:
    """Give up what a model does not need: other files, the network, other processes. It cannot be undone.

    To be called before a framework is imported and before there is a second thread. Where the system has no such
    means, less is given up: ``probe`` tells what came of it.

    Args:
        readable: Files and folders that stay readable.
        writable: The one folder that stays writable.
        landlock: Whether to let Landlock hold this. Without it all files stay within reach until ``close_files``.

    Raises:
        OSError: When the kernel refuses.
        RuntimeError: When there are other threads already.
    """
    if os.name != "posix":
        return
    limits.limit_files()
    if sys.platform != "linux":
        return
    _drop_capabilities()
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    if landlock:
        _landlock.restrict(readable, (writable, *filter(Path.exists, [_NULL])))
    if seccomp.supported():
        seccomp.forbid_all_but_computing()


def enter_template(readable: tuple[Path, ...], writable: Path, *, landlock: bool) -> None:
    """Give up what a process that starts workers does not need: other files, the network, other programs.

    Less than :func:`enter` takes: each copy gives up the rest, and more, by itself. To be called before a framework is
    imported and before there is a second thread.

    Args:
        readable: Files and folders that stay readable. What is known of processes stays so, since each copy has
            another number.
        writable: The folder in which the copies' own folders are made.
        landlock: Whether to let Landlock hold this.

    Raises:
        OSError: When the kernel refuses.
        RuntimeError: When there are other threads already.
    """
    _drop_capabilities()
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    if landlock:
        _landlock.restrict((*readable, *filter(Path.exists, [_PROCESSES])), (writable, *filter(Path.exists, [_NULL])))
    if seccomp.supported():
        seccomp.forbid_all_but_starting()


def close_files() -> None:
    """Give up every file that is not open yet: for a machine without Landlock, before the model is opened."""
    if seccomp.supported():
        seccomp.forbid_files()


def _drop_capabilities() -> None:
    # Root's, of which only one is of use: to read a Python installation that belongs to somebody else.
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0))
    sets = ctypes.create_string_buffer(24)  # (effective, permitted, inheritable) of the capabilities 0-31, then 32-63
    call("capget", header, sets)
    rights = struct.unpack_from("=I", sets, 4)[0] & 1 << _CAP_DAC_READ_SEARCH
    call("capset", header, struct.pack("=6I", rights, rights, 0, 0, 0, 0))

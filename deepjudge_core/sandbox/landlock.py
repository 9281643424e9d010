"""Landlock: which files a process may read and write. The names and numbers are those of linux/landlock.h."""

import os
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from deepjudge_core.sandbox.kernel import call

# The numbers of these calls are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_TRUNCATE = 1 << 14

# What each version of the interface added: (rights on files, rights on TCP ports, scopes). All are taken away: what is
# not handled would be allowed. The scopes are abstract Unix sockets and signals.
_ADDED = (
    (0, 0, 0),
    ((1 << 13) - 1, 0, 0),  # all of the first version: execute ... make a symbolic link
    (1 << 13, 0, 0),  # link or rename into another folder
    (_TRUNCATE, 0, 0),
    (0, 0b11, 0),  # bind, connect
    (1 << 15, 0, 0),  # ioctl on devices
    (0, 0, 0b11),
)

_READ = _READ_FILE | _READ_DIR
# No symbolic links, sockets, pipes or devices: whatever the parent finds in the scratch folder is a file or a folder.
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _MAKE_REG | _MAKE_DIR | _REMOVE_FILE | _REMOVE_DIR
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE


def version() -> int:
    """The version of the kernel's Landlock, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    try:
        return call("syscall", _CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Take from this process every access to files but reading those, or in those folders, and writing these.

    It holds for the calling thread and what it starts, for good. A file that may be read may be mapped as a shared
    library; none may be executed.

    Raises:
        OSError: When the kernel has no Landlock, or a path does not exist.
        RuntimeError: When the process has other threads already, for which it would not hold.
    """
    if (threads := len(os.listdir("/proc/self/task"))) != 1:  # noqa: PTH208 - names are enough
        raise RuntimeError(f"Landlock applies to one thread, and this process has {threads}; confine it earlier")
    versions = _ADDED[: version() + 1]
    files, ports, scopes = (sum(column) for column in zip(*versions, strict=True))
    ruleset = call("syscall", _CREATE_RULESET, handled := struct.pack("=QQQ", files, ports, scopes), len(handled), 0)
    try:
        for paths, rights in ((readable, _READ), (writable, _WRITE)):
            for path in paths:
                _allow(ruleset, path, rights & files)
        call("syscall", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES  # the kernel refuses a folder's rights for a file
        call("syscall", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)

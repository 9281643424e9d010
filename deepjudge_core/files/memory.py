"""A bound on what a library may take while it unpacks a file that may be somebody else's."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def bounded(extra: int) -> Iterator[None]:
    """Let this process map so many bytes more than now, for as long as the context is open.

    For formats that say only while they are unpacked how large they become. What goes beyond is a ``MemoryError``, in
    any thread. Only Linux holds a process to it; elsewhere nothing is done.

    Args:
        extra: How many.
    """
    if sys.platform != "linux":
        yield
        return
    import resource  # not on Windows

    before = resource.getrlimit(resource.RLIMIT_AS)
    most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + extra
    for limit in before:
        most = most if limit == resource.RLIM_INFINITY else min(most, limit)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

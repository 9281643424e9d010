"""What the kernel counts for a process: its memory, files and their size."""

import os
import sys
from pathlib import Path

OPEN_FILES = 1024
FILE_SIZE = 1 << 30
# Frameworks start some for each processor, in several pools.
THREADS = 256 + 16 * (os.cpu_count() or 1)


def limit_files() -> None:
    """No core dumps, few open files, none of them huge. A process cannot raise these limits again."""
    import resource  # not on Windows

    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_FSIZE, FILE_SIZE),
    ):
        _lower(limit, most)


def limit_memory(extra: int) -> None:
    """Let this process map so many bytes more than it has mapped now; what goes beyond is a ``MemoryError``.

    To be called when the framework is imported, and before files are closed: libraries map many times what they use,
    each differently. What the threads that start later reserve counts, too: 8 MiB each for the stack, and up to 128 MiB
    for the C library's allocator. Only Linux holds a process to it; elsewhere nothing is done.
    """
    if sys.platform != "linux":
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + extra)


def threads_of(pid: int) -> int:
    """How many threads a process has; 0 where nobody says so, or it is gone.

    No limit of the kernel counts those of one process: ``RLIMIT_NPROC`` counts all of a user, and none of root's.
    """
    try:
        said = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return 0
    counts = (line.split()[1] for line in said.splitlines() if line.startswith("Threads:"))
    return int(next(counts, 0))


def _lower(limit: int, most: int) -> None:
    import resource

    hard = resource.getrlimit(limit)[1]
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (value, value))

"""What a stranger's model may take, and what its isolation turned out to be."""

import os
import sys
from dataclasses import dataclass, field

from deepjudge_core.errors import UsageError

_MOST_MEMORY = 8 * 2**30


def _default_memory() -> int:
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no POSIX
        return _MOST_MEMORY
    return min(_MOST_MEMORY, whole // 2)


@dataclass(frozen=True)
class Sandbox:
    """How a stranger's model is opened and run: in a process of its own, within limits.

    Attributes:
        memory: Bytes that it may take beside its framework, and that its files may have; by default 8 GiB, or half of
            the machine's memory if that is less.
        timeout: Seconds for opening it, and for each batch of answers.
        required: Whether a model is refused where the sandbox is not the full one.
    """

    memory: int = field(default_factory=_default_memory)
    timeout: float = 300.0
    required: bool = False

    def __post_init__(self) -> None:
        if not 2**20 <= self.memory <= sys.maxsize:
            raise UsageError(
                f"expected at least 1 MiB of memory for a model, found {self.memory} bytes", code="wrong-value"
            )
        if not 0 < self.timeout < float("inf"):
            raise UsageError(f"expected a timeout of more than 0 seconds, found {self.timeout:g}", code="wrong-value")


DEFAULT_SANDBOX = Sandbox()

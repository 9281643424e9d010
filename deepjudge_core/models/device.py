"""Where models run: on the processor, or on a GPU by CUDA."""

import re
from typing import Annotated

from deepjudge_core.errors import UsageError
from deepjudge_core.naming import option
from deepjudge_core.settings import Matches

CPU, AUTO = "cpu", "auto"
_FORM = r"auto|cpu|cuda(:\d{1,3})?"
_WORDS = "auto, cpu, cuda or cuda:N"
Device = Annotated[str, Matches(_FORM, _WORDS)]
"""``cpu``; ``cuda``, which is the first GPU, or ``cuda:N``; ``auto`` for the first GPU if the framework of a model can
use it, and the processor otherwise."""


def check_device(device: str) -> None:
    """Refuse what is no device.

    Raises:
        UsageError: Naming those that are.
    """
    if not isinstance(device, str) or not re.fullmatch(_FORM, device):
        raise UsageError(f"{option('device')}: expected {_WORDS}, found {device!r}", code="wrong-value")


def wants_gpu(device: str | None) -> bool:
    """Whether nothing but a GPU will do."""
    return device is not None and device not in (CPU, AUTO)


def number_of(device: str) -> int:
    """Which GPU is meant, from 0."""
    return int(device.partition(":")[2] or 0)

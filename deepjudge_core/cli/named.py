"""What a command line names, and is not there: all of it is said at once, before anything else is done."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepjudge_core.errors import UsageError
from deepjudge_core.files.absent import NO_SUCH, instead_of
from deepjudge_core.files.fetching import is_address
from deepjudge_core.text import is_url


def absent(value: Any) -> Iterator[UsageError]:
    """What is wrong with the value of a setting that names what is read.

    A link that leads nowhere is there: a shell writes it in the place of a pattern, and it keeps nobody from judging
    the others.

    Args:
        value: A path, an address or a pattern, or several of them.
    """
    if isinstance(value, str | Path):
        if not _is_there(str(value)):
            yield _refusal(str(value))
    elif isinstance(value, tuple | list):
        for one in value:
            yield from absent(one)
    elif hasattr(value, "names"):
        yield from absent(value.names)


def _is_there(name: str) -> bool:
    file, colon, _ = name.rpartition(":")  # FILE:KEY
    if is_url(name) or is_address(name) or os.path.lexists(name) or (colon and os.path.lexists(file)):
        return True
    return glob.has_magic(name) and bool(glob.glob(name))  # noqa: PTH207 - of any text


def _refusal(name: str) -> UsageError:
    if glob.has_magic(name):
        return UsageError(f"{name}: no file matches this pattern; {instead_of('')}", code="cannot-read")
    return UsageError(f"{name}: {NO_SUCH}; {instead_of(name)}", code="cannot-read")

"""Reading files that may be somebody else's: regular ones only, of bounded size, and JSON of bounded depth."""

import contextlib
import fcntl
import io
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepjudge_core.errors import DeepJudgeError, FileFormatError
from deepjudge_core.files.absent import NO_SUCH

LARGEST_ARRAYS = min(2**34, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
"""Bytes of a file of arrays, and of an array that is read from one: a quarter of the memory, at most 16 GiB."""
LARGEST_JSON = 2**24
"""Bytes of JSON: of a file, or of what stands before the arrays of one."""
NO_LIMIT = 2**63 - 1
"""Of a file that is not held in memory."""
_MOST_VALUES = 2**20  # of JSON: each takes some 100 bytes of memory, however short it is written
_DEEPEST = 32  # arrays and objects within one another
_LONGEST_NUMBER = 40  # digits: 128 bits have 39
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def open_regular(
    path: Path, what: str, largest: int, error: type[DeepJudgeError] = FileFormatError
) -> io.BufferedReader:
    """Open a file to read it, and nothing else: a pipe, a device or a folder is refused, and never waited for.

    Links are followed: what counts is what is read.

    Args:
        path: The file.
        what: What it should be, for messages.
        largest: Bytes that it may have.
        error: What is raised.

    Raises:
        DeepJudgeError: Of the given kind, when it is missing, no regular file, too large, or cannot be opened.
    """
    try:
        # Asked before it is opened, since opening alone does something to a device; and after, lest it was exchanged.
        _check(path, os.stat(path), what, largest, error)  # noqa: PTH116
        file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")  # noqa: PTH123, SIM115
        try:
            _check(path, os.fstat(file.fileno()), what, largest, error)
        except BaseException:
            file.close()
            raise
    except FileNotFoundError:
        raise error(f"{path}: {NO_SUCH}", code="cannot-read") from None
    except (OSError, ValueError) as failure:  # ValueError of a name with a null character
        why = getattr(failure, "strerror", None) or failure
        raise error(f"{path}: cannot be read: {why}", code="cannot-read") from None
    return file


def _check(path: Path, status: os.stat_result, what: str, largest: int, error: type[DeepJudgeError]) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a device")
        raise error(f"{path}: expected {what}, found {kind}", code="cannot-read")
    if status.st_size > largest:
        raise error(f"{path}: expected {what} of at most {largest} bytes, found {status.st_size}", code="too-large")


@contextlib.contextmanager
def abandoned(path: Path) -> Iterator[None]:
    """Hold the lock of a file whose maker, who held it, is gone.

    Raises:
        OSError: When there is no such file, or somebody holds the lock.
    """
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def read_json(path: Path, what: str) -> Any:
    """The values in a JSON file.

    Raises:
        FileFormatError: When it cannot be read, or is none that :func:`parse_json` takes.
    """
    with open_regular(path, what, LARGEST_JSON) as file:
        try:
            return parse_json(file.read(LARGEST_JSON + 1))
        except OSError as error:
            raise FileFormatError(f"{path}: cannot be read: {error.strerror}", code="cannot-read") from None
        except ValueError as error:
            raise FileFormatError(
                f"{path}: expected {what}, found no JSON that deepjudge accepts: {error}", code="damaged-file"
            ) from None


def parse_json(text: bytes | str, deepest: int = _DEEPEST) -> Any:
    """JSON values, as this tool writes them.

    Refused are texts too long, of too many values or too deep, numbers that are not finite or have more digits than any
    that is written, and objects with a key twice: of those, two readers may read two things. So memory stays below
    some 200 MB, whatever the text is.

    Args:
        text: The text.
        deepest: Arrays and objects that may stand within one another.

    Raises:
        ValueError: Saying why it was refused.
    """
    if len(text) > LARGEST_JSON:
        raise ValueError(f"more than {LARGEST_JSON} bytes")
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    # Each value but the first of its array or object stands behind a comma.
    if sum(map(text.count, ",[{")) > _MOST_VALUES:
        raise ValueError(f"more than {_MOST_VALUES} values")
    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError("arrays nested without end") from None
    if not is_shallow(value, deepest):
        raise ValueError(f"arrays and objects nested more than {deepest} deep")
    return value


def is_shallow(value: Any, deepest: int = _DEEPEST) -> bool:
    """Whether lists and dictionaries stand within one another no deeper than who walks through them may go."""
    level = [value]
    for _ in range(deepest + 1):
        level = [part for outer in level for part in _parts(outer)]
        if not level:
            return True
    return False


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose keys are all different; to be used as ``object_pairs_hook``.

    Raises:
        ValueError: When one is there twice.
    """
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("the same key twice in one object")
    return entries


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:_LONGEST_NUMBER]} is not a finite number")
    return value


def _whole(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)

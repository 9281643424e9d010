"""Files at addresses that fsspec reads, such as ``s3://`` and ``hf://``, brought to this machine as they are.

An address says which library is used and nothing more: what comes is as hostile as any other file. So names are checked
before anything is written, no more bytes are taken than were announced, and nothing is opened here.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from deepjudge_core.errors import DeepJudgeError, MissingExtraError, ModelError, UsageError, one_line
from deepjudge_core.text import clean, is_url

_MOST_FILES, _DEEPEST, _LONGEST = 10_000, 16, 255
_SPARE = 2**28  # bytes of the disk that are left free
_AT_ONCE = 2**22


def is_address(source: object) -> bool:
    """Whether something is a text such as ``s3://bucket/model.onnx``; the URL of an API is none."""
    if not isinstance(source, str) or is_url(source):
        return False
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def matches(address: str) -> tuple[str, ...]:
    """The addresses that a pattern stands for, sorted; an address without ``*``, ``?`` and ``[`` stands for itself.

    Raises:
        MissingExtraError, UsageError, ModelError: When nobody can read it.
    """
    if not re.search(r"[*?[]", address):
        return (address,)
    with _telling(address):
        system, path = _system(address)
        return tuple(sorted(map(system.unstrip_protocol, system.glob(path))))


def fetch(address: str, folder: Path) -> Path:
    """Bring a file, or a folder with all in it; what is there already, and has not changed since, stays.

    Args:
        address: Where it is.
        folder: Where what is fetched is kept.

    Returns:
        Its path here; it keeps its name.

    Raises:
        MissingExtraError: When fsspec, or its library for the address, is not installed.
        UsageError: When the address holds a password, or is of no kind that fsspec knows.
        ModelError: When it cannot be read, or is no more than this machine takes.
    """
    with _telling(address):
        system, path = _system(address)
        info = system.info(path)
        if info["type"] == "directory":
            sizes = {name: int(one["size"] or 0) for name, one in system.find(path, detail=True).items()}
            names = {name: _checked(address, _below(name, path)) for name in sizes}
        else:
            sizes, names = {path: int(info["size"] or 0)}, {path: PurePosixPath()}
        own = _checked(address, path.rstrip("/").rpartition("/")[2])
        state = sorted((str(names[name]), size, _state(system, name)) for name, size in sizes.items())
        place = folder / hashlib.sha256(repr((address, state)).encode()).hexdigest()[:32]
        if not place.exists():
            _bring(address, system, {name: (own / names[name], sizes[name]) for name in sizes}, place)
    return place / own


def _system(address: str) -> tuple[Any, str]:
    if "::" in address or "@" in address.partition("://")[2].partition("/")[0]:
        raise UsageError(
            f"{clean(address.partition('://')[0])}://…: expected an address without '::' and without a password; "
            "passwords belong where fsspec looks for them: in the environment, or in its configuration",
            code="wrong-value",
        )
    try:
        import fsspec
    except ModuleNotFoundError:
        raise MissingExtraError(address, "fsspec", "fsspec") from None
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise MissingExtraError(address, "a library", "fsspec", mend=one_line(error)) from None
    except ValueError as error:
        raise UsageError(f"{address}: {one_line(error)}", code="wrong-value") from None
    return system, str(path)


@contextmanager
def _telling(address: str) -> Iterator[None]:
    try:
        yield
    except DeepJudgeError:
        raise
    except FileNotFoundError:
        raise ModelError(f"{address}: there is no such file", code="not-a-file") from None
    except Exception as error:  # each library has its own, for a network that fails and for keys that are wrong
        raise ModelError(f"{address}: cannot be fetched: {one_line(error)}", code="cannot-read") from error


def _below(name: str, folder: str) -> str:
    below = name.lstrip("/").removeprefix(folder.lstrip("/").rstrip("/") + "/")
    return below if below != name.lstrip("/") else ""


def _checked(address: str, name: str) -> PurePosixPath:
    # Keys of object stores are any text, and may well climb out of a folder.
    parts = name.split("/")
    if len(parts) > _DEEPEST or not all(
        part not in ("", ".", "..") and len(part.encode()) <= _LONGEST and part.isprintable() and "\\" not in part
        for part in parts
    ):
        raise ModelError(f"{address}: expected names of files, found {clean(name)!r}", code="wrong-format")
    return PurePosixPath(*parts)


def _state(system: Any, path: str) -> str:
    # What changes when the file does: as a rule its ETag, or size and time.
    return str(system.ukey(path))


def _bring(address: str, system: Any, files: dict[str, tuple[PurePosixPath, int]], place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    needed, free = sum(size for _, size in files.values()), shutil.disk_usage(place.parent).free
    if len(files) > _MOST_FILES or needed > max(0, free - _SPARE):
        raise ModelError(
            f"{address}: expected at most {_MOST_FILES:,} files for which {place.parent} has room, found "
            f"{len(files):,} of {needed:,} bytes, and {free:,} bytes free",
            code="cannot-write",
        )
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetching-") as staged:
        for name, (below, size) in files.items():
            target = Path(staged) / "files" / below
            target.parent.mkdir(parents=True, exist_ok=True)
            with system.open(name, "rb") as source, target.open("xb") as file:
                left = size
                while block := source.read(min(_AT_ONCE, left + 1)):
                    left -= len(block)
                    if left < 0:
                        raise ModelError(f"{address}: is more than its {size:,} bytes", code="wrong-format")
                    file.write(block)
            if left:
                raise ModelError(f"{address}: ended {left:,} bytes before its end", code="cannot-read")
        try:
            os.rename(Path(staged) / "files", place)  # noqa: PTH104 - all of it at once
        except OSError:
            if not place.exists():  # another process was faster
                raise

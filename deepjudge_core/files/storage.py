"""The tool's own files: arrays and a JSON header in one checksummed safetensors file, written whole or not at all."""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from deepjudge_core.errors import FileFormatError
from deepjudge_core.files.documents import Json, Part, parse
from deepjudge_core.files.reading import LARGEST_ARRAYS, LARGEST_JSON, NO_LIMIT, abandoned, open_regular, parse_json
from deepjudge_core.naming import command
from deepjudge_core.types import Array

_KEY = "deepjudge"
_PREFIX = "deepjudge/"
_LENGTH = 8  # bytes before the header, which say how long it is
_MAKERS = {
    "suite": ("suite VICTIM --inputs DATA -o SUITE", "make_suite(victim, inputs)"),
    "observation": ("observe SUITE MODEL -o FILE", "observe(model, suite)"),
    "calibration": ("calibrate SUITE CONTROL... -o FILE", "calibrate(controls, suite)"),
    "key": ("key SCHEME VICTIM --inputs DATA -o FILE", "make_key(scheme, victim, inputs)"),
}
"""By kind of file, what makes one: on the command line, and in Python."""
_RANDOM = 4  # bytes, in temporary names


@dataclass(frozen=True, eq=False)
class Content:
    """What a file holds.

    Attributes:
        kind: "suite", "observation", "calibration" or "key".
        header: JSON values; in the file they stand under the key "manifest".
        arrays: By name.
        digest: SHA-256 of all of it, in hex; independent of how the file was laid out.
    """

    kind: str
    header: Mapping[str, Any]
    arrays: Mapping[str, Array]
    digest: str


_START = 2**16  # bytes, in which JSON of this tool's names it


def seal(kind: str, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Content:
    """Give a header and arrays their digest."""
    return Content(kind, header, arrays, _digest(kind, header, arrays))


def write(path: Path, content: Content, *, private: bool = False) -> None:
    """Write a file under a temporary name and rename it; equal contents give equal bytes.

    Args:
        path: Where.
        content: What.
        private: Whether nobody but its owner may read it.

    Raises:
        FileFormatError: When it cannot be written, or could not be read.
    """
    write_bytes(path, packed(content, str(path)), private=private)


def packed(content: Content, name: str) -> bytes:
    """The bytes of a file; equal contents give equal bytes.

    Args:
        content: What it holds.
        name: What messages call it.

    Raises:
        FileFormatError: When it could not be read.
    """
    whole = {"schema": f"{_PREFIX}{content.kind}/1", "sha256": content.digest, "manifest": content.header}
    arrays = {name: np.ascontiguousarray(array) for name, array in content.arrays.items()}
    text = _canonical(whole)
    data: bytes = save(arrays, metadata={_KEY: text})
    try:
        for part in (text, data[_LENGTH : _LENGTH + int.from_bytes(data[:_LENGTH], "little")]):
            parse_json(part)
    except ValueError as error:
        raise FileFormatError(
            f"{name}: not written, because it could not be read back: {error}", code="cannot-write"
        ) from None
    return data


def is_special(path: Path) -> bool:
    """Whether there is something that is neither a file nor a folder, such as a device or a pipe.

    Raises:
        OSError: When there can be nothing of this name.
    """
    return path.exists() and not path.is_file() and not path.is_dir()


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file under a temporary name in the same folder and rename it.

    What was left under such a name by somebody who was killed is removed. A device or a pipe is refused: whoever may
    write its folder would put a file in its place.

    Args:
        path: Where.
        data: What.
        private: Whether nobody but its owner may read it.

    Raises:
        FileFormatError: When it cannot be written.
    """
    try:
        if is_special(path):
            raise FileFormatError(
                f"{path}: cannot be written: expected a file, found a device or a pipe", code="cannot-write"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(_RANDOM)}"))
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                with contextlib.suppress(OSError):  # not every file system has locks
                    fcntl.flock(file, fcntl.LOCK_EX)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                Path(temporary).replace(path)  # before the lock goes
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be written: {error.strerror or error}", code="cannot-write") from error


def _remove_abandoned(path: Path) -> None:
    # Who still writes holds a lock.
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 2 * _RANDOM}"):
        with contextlib.suppress(OSError), abandoned(temporary):
            temporary.unlink()


def is_own(path: Path) -> bool:
    """Whether a file is one of this tool's, whole or damaged, by what its header says.

    A file of another tool, one that cannot be read, one that is not there and what is no file are none.
    """
    # Not by the library, which opens whole files only: of one that was cut, too, it is to be said whose it was.
    try:
        with open_regular(path, "a file", NO_LIMIT) as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
            text = file.read(length) if length <= LARGEST_JSON else b""
        # A file of weights is not to be parsed for this.
        return _KEY.encode() in text and _KEY in parse_json(text)["__metadata__"]
    except (FileFormatError, OSError, ValueError, LookupError, TypeError):
        return False


def kind_of(path: Path) -> str | None:
    """What kind of this tool's files a file says it is, such as "suite"; None for none, and where it cannot be read."""
    try:
        text = _text(path, "a deepjudge file")
        schema = parse_json(text)["schema"] if text else None
    except (FileFormatError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return schema.removeprefix(_PREFIX).partition("/")[0] if isinstance(schema, str) else None


def is_own_text(path: Path) -> bool:
    """Whether a file is a report, a manifest, a commitment or a log of this tool's: JSON that says so at its start."""
    try:
        with open_regular(path, "a file", NO_LIMIT) as file:
            start = file.read(_START).lstrip()
    except (FileFormatError, OSError):
        return False
    return start.startswith(b"{") and b"deepjudge" in start


def read(path: Path, kinds: Collection[str]) -> Content:
    """Read a file and check that nothing in it was changed.

    It may be anybody's. Arrays take no more memory than the file has bytes, which are at most a quarter of the memory;
    what stands before them takes some 400 MB at most.

    Args:
        path: The file.
        kinds: What it may be.

    Raises:
        FileFormatError: When it is missing, damaged, of another kind or of another schema version.
    """
    expected = f"a deepjudge {' or '.join(kinds)}"
    try:
        text = _text(path, expected)
        if text is None:
            raise FileFormatError(f"{path}: expected {expected}, found another safetensors file; {_makes(kinds)}")
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
        kind, header, digest = _header(path, text)
        actual = _digest(kind, header, arrays)
    except (SafetensorError, OSError, TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise FileFormatError(f"{path}: cannot be read: {error.strerror}", code="cannot-read") from None
        raise FileFormatError(
            f"{path}: expected {expected}, found a damaged file or one of another kind; {_makes(kinds)}",
            code="damaged-file",
        ) from error
    except MemoryError:
        raise FileFormatError(
            f"{path}: expected {expected}, found one that does not fit in memory", code="too-large"
        ) from None
    if actual != digest:
        raise FileFormatError(
            f"{path}: was changed after it was written (its SHA-256 does not match); copy it again, or make it again",
            code="damaged-file",
        )
    if kind not in kinds:
        raise FileFormatError(f"{path}: expected {expected}, found a deepjudge {kind}; {_makes(kinds)}")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FileFormatError(
                f"{path}: expected finite numbers in {name!r}, found NaN or infinity", code="damaged-file"
            )
    return Content(kind, header, arrays, digest)


def _makes(kinds: Collection[str]) -> str:
    # What writes such files.
    return f"{' or '.join(command(*_MAKERS[kind]) for kind in kinds)} makes one"


def _text(path: Path, expected: str) -> str | None:
    # Our header, after a look at all that the library is going to parse; None of a file without one.
    with open_regular(path, expected, LARGEST_ARRAYS) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_LENGTH), "little")
        if not length <= min(size - _LENGTH, LARGEST_JSON):
            raise ValueError("a header longer than the file, or longer than any that deepjudge writes")
        header = parse_json(file.read(length))
    text = header.get("__metadata__", {}).get(_KEY)
    if not isinstance(text, str | None):
        raise TypeError("a header that is not text")
    return text


class _Whole(Part, frozen=True):
    schema: str
    sha256: str
    manifest: Json


def _header(path: Path, text: str) -> tuple[str, Json, str]:
    try:
        whole = parse(_Whole, parse_json(text))
        kind, version = whole.schema.removeprefix(_PREFIX).split("/")
    except ValueError as error:
        raise FileFormatError(f"{path}: its header is damaged: {error}", code="damaged-file") from None
    if version != "1":
        raise FileFormatError(
            f"{path}: expected schema version 1, found {version}; another "
            "release wrote it: install the newest (pip install --upgrade deepjudge), or make the file again"
        )
    return kind, whole.manifest, whole.sha256


def _digest(kind: str, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    sums = {
        name: [str(array.dtype), list(array.shape), hashlib.sha256(_bytes(array)).hexdigest()]
        for name, array in arrays.items()
    }
    whole = _canonical({"kind": kind, "manifest": header, "arrays": sums})
    return hashlib.sha256(whole.encode()).hexdigest()


def _bytes(array: Array) -> memoryview:
    # Not the array's own buffer: types that other packages add to numpy, such as float8, have none.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

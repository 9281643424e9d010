"""The tool's own files: arrays and a JSON manifest in one checksummed safetensors file, written whole or not at all."""

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
from deepjudge_core.model import Array

_KEY = "deepjudge"
_PREFIX = "deepjudge/"


@dataclass(frozen=True, eq=False)
class Content:
    """What a file holds.

    Attributes:
        kind: "suite", "observation" or "calibration".
        manifest: JSON values.
        arrays: By name.
        digest: SHA-256 of all of it, in hex; independent of how the file was laid out.
    """

    kind: str
    manifest: Mapping[str, Any]
    arrays: Mapping[str, Array]
    digest: str


def seal(kind: str, manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Content:
    """Give a manifest and arrays their digest."""
    return Content(kind, manifest, arrays, _digest(kind, manifest, arrays))


def write(path: Path, content: Content) -> None:
    """Write a file under a temporary name and rename it; equal contents give equal bytes.

    Raises:
        FileFormatError: When it cannot be written.
    """
    header = {
        "schema": f"{_PREFIX}{content.kind}/1",
        "sha256": content.digest,
        "manifest": content.manifest,
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in content.arrays.items()}
    write_bytes(path, save(arrays, metadata={_KEY: _canonical(header)}))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name in the same folder and rename it.

    Raises:
        FileFormatError: When it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(4)}"))
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be written: {error.strerror or error}") from error


def read(path: Path, kinds: Collection[str]) -> Content:
    """Read a file and check that nothing in it was changed.

    Args:
        path: The file.
        kinds: What it may be.

    Raises:
        FileFormatError: When it is missing, damaged, of another kind or of another schema version.
    """
    expected = " or ".join(kinds)
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
            if text is None:
                raise FileFormatError(f"{path}: expected a deepjudge {expected}, found another safetensors file")
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file") from None
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise FileFormatError(f"{path}: cannot be read: {error.strerror}") from None
        raise FileFormatError(f"{path}: expected a deepjudge {expected}, found a damaged or other file") from error
    kind, manifest, digest = _header(path, text)
    if _digest(kind, manifest, arrays) != digest:
        raise FileFormatError(f"{path}: was changed after it was written (its SHA-256 does not agree)")
    if kind not in kinds:
        raise FileFormatError(f"{path}: expected a deepjudge {expected}, found a deepjudge {kind}")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FileFormatError(f"{path}: expected finite numbers in {name!r}, found NaN or infinity")
    return Content(kind, manifest, arrays, digest)


def _header(path: Path, text: str) -> tuple[str, Mapping[str, Any], str]:
    try:
        header = json.loads(text, parse_constant=_refuse)
        schema, manifest, digest = header["schema"], header["manifest"], header["sha256"]
        kind, version = schema.removeprefix(_PREFIX).split("/")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FileFormatError(f"{path}: its manifest is damaged") from None
    if version != "1":
        raise FileFormatError(f"{path}: expected schema version 1, found {version}: another release wrote it")
    return kind, manifest, digest


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _digest(kind: str, manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    sums = {
        name: [str(array.dtype), list(array.shape), hashlib.sha256(_bytes(array)).hexdigest()]
        for name, array in arrays.items()
    }
    whole = _canonical({"kind": kind, "manifest": manifest, "arrays": sums})
    return hashlib.sha256(whole.encode()).hexdigest()


def _bytes(array: Array) -> memoryview:
    # Not the array's own buffer: types that other packages add to numpy, such as float8, have none.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

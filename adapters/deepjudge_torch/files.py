"""Tells the kinds of files that torch writes from one another, by what is in them. Knows no torch."""

import enum
import hashlib
import io
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from deepjudge_core.components.kinds import Format
from deepjudge_core.errors import ModelError
from deepjudge_core.files import digests
from deepjudge_core.models.adapters import readable
from deepjudge_core.weights.reading.shards import is_index, read_index, read_shards
from deepjudge_torch.advice import way_out
from deepjudge_torch.folder import examine_folder


class Kind(enum.Enum):
    """What a file is, as an error says it."""

    PROGRAM = "a torch.export file"
    SCRIPT = "a TorchScript file"
    SAVED = "a torch.save file"
    OLD_SAVED = "an old torch.save file"
    TENSORS = "a safetensors file"
    INDEX = "an index of weights in several files"
    PACKAGE = "a torch.package file, which holds code"
    PICKLE = "a pickle, which can hold code"
    TAR = "a tar archive"
    COMPRESSED = "a compressed file"
    EMPTY = "an empty file"
    TRUNCATED = "a truncated one"
    ARCHIVE = "another zip archive"
    OTHER = "another format"


# How torch.save began a file up to 1.5, and still does where it is told so.
_OLD_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# How gzip, bzip2, xz, 7z and zstandard begin.
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c", b"\x28\xb5\x2f\xfd")
_TAR, _TAR_AT = b"ustar", 257
_HEAD = 512

# The header of safetensors, in bytes, as its own reader has it.
_LONGEST_HEADER = 100_000_000

# The end of a zip archive (APPNOTE.TXT, 4.3.14 to 4.3.16), which torch writes without a comment.
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_LONG_END = struct.Struct("<4sQ2H2L4Q")
# Far above what models have, and far below what exhausts the memory of who reads the list.
_LONGEST_LIST = 32 * 2**20
_MOST_ENTRIES = 100_000
# Bytes that an entry of the list may have beside its name: sizes above 4 GiB take 32.
_MOST_BESIDE = 1024
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
# Of the code in TorchScript, which alone torch compresses.
_MOST_CODE = 256 * 2**20

_WEIGHTS = {
    Kind.SAVED: "PyTorch state dict",
    Kind.OLD_SAVED: "PyTorch state dict",
    Kind.TENSORS: "safetensors",
}
_MODELS = {Kind.SCRIPT: "TorchScript", Kind.PROGRAM: "torch.export"}


def examine(path: Path) -> Format:
    """Say what a stranger's file or folder is, from its first bytes, its table of contents or its configuration.

    Raises:
        ModelError: When it is none of PyTorch's that are opened.
    """
    if path.is_dir():
        return examine_folder(path)
    if is_index(path):
        read_index(path, str(path))
        return _weights("safetensors" if ".safetensors." in path.name.lower() else "PyTorch state dict")
    kind, _ = _inspect(path, str(path), lambda file: "")
    return _weights(_WEIGHTS[kind]) if kind in _WEIGHTS else Format(_MODELS[kind], without=("arch", "base"))


def _weights(name: str) -> Format:
    return Format(name, runs_code=False, without=("base",), needs=("arch",))


def identify(path: Path, name: str) -> tuple[Kind, str]:
    """The kind of a file and its SHA-256.

    Args:
        name: What to call it.

    Raises:
        ModelError: When it cannot be read, or is none of PyTorch's that are opened.
    """
    if is_index(path):
        beside = [path.with_name(file) for file in read_shards(path, name)]
        with readable(name, "an index of weights, with its files next to it"):
            return Kind.INDEX, digests.of_file(path, beside).digest
    return _inspect(path, name, lambda file: hashlib.file_digest(file, "sha256").hexdigest())


def kind_at(path: Path, name: str) -> Kind:
    """The kind of a file, of which little is read.

    Args:
        name: What to call it.

    Raises:
        ModelError: As :func:`identify` does.
    """
    if is_index(path):
        read_shards(path, name)
        return Kind.INDEX
    return _inspect(path, name, lambda file: "")[0]


def _inspect(path: Path, name: str, digest: Callable[[io.BufferedReader], str]) -> tuple[Kind, str]:
    # Whoever calls a file safetensors promises that it holds no code.
    promised = path.suffix.lower() == ".safetensors"
    expected = "a safetensors file" if promised else "a state dict, TorchScript or a torch.export file"
    with readable(name, expected), path.open("rb") as file:
        try:
            kind = kind_of(file)
        except ModelError as error:
            raise ModelError(f"{name}: expected {expected}, found {error}") from error
        if kind is not Kind.TENSORS if promised else kind not in _WEIGHTS | _MODELS:
            broken = kind in (Kind.EMPTY, Kind.TRUNCATED)
            advice = "copy it again from where it was saved" if broken else way_out(name)
            raise ModelError(f"{name}: expected {expected}, found {kind.value}; {advice}")
        return kind, digest(file)


def kind_of(file: BinaryIO) -> Kind:
    """The kind of an open file, which is left at its start.

    Raises:
        ModelError: When it is an archive that torch does not write; what that is, without the file's name.
    """
    try:
        return _kind(file)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error):
        return Kind.TRUNCATED
    finally:
        file.seek(0)


def _kind(file: BinaryIO) -> Kind:
    start = file.read(_HEAD)
    if not start:
        return Kind.EMPTY
    if start.startswith(b"PK\x03\x04"):
        return _kind_of_archive([entry.filename for entry in _entries(file)])
    if start[_TAR_AT:].startswith(_TAR):
        return Kind.TAR
    if start.startswith(_OLD_START):
        return Kind.OLD_SAVED
    if start.startswith(_COMPRESSED):
        return Kind.COMPRESSED
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER:
        return Kind.TENSORS
    # Protocol 2 and later, and what the earlier ones begin a global or a container with.
    if (start[0] == 0x80 and 2 <= start[1] <= 5) or start.startswith((b"c__", b"(d", b"(l", b"(c", b"ccopy_reg\n")):
        return Kind.PICKLE
    return Kind.OTHER


def _kind_of_archive(paths: Sequence[str]) -> Kind:
    names = {name.rpartition("/")[2] for name in paths}
    # The second is how torch wrote them up to 2.7.
    if names & {"archive_format", "serialized_exported_program.json"}:
        return Kind.PROGRAM
    if "extern_modules" in names:
        return Kind.PACKAGE
    if "constants.pkl" in names and any("/code/" in name for name in paths):
        return Kind.SCRIPT
    return Kind.SAVED if "data.pkl" in names else Kind.ARCHIVE


def _entries(file: BinaryIO) -> list[zipfile.ZipInfo]:
    # Only archives of which every reader makes the same, and that grow no larger than they are.
    _check_end(file)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    names: set[str] = set()
    inflated = 0
    for entry in entries:
        name = entry.filename
        if entry.orig_filename != name or "\\" in name or name.startswith("/") or ".." in name.split("/"):
            raise ModelError(f"an archive with an entry outside it: {entry.orig_filename[:60]!r}")
        # Readers differ in whether capital letters are others.
        if name.lower() in names:
            raise ModelError(f"an archive with two entries named {name[:60]!r}")
        names.add(name.lower())
        if entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size:
            continue
        inflated += entry.file_size
        if "/code/" not in name or entry.compress_type != zipfile.ZIP_DEFLATED:
            raise ModelError(f"an archive with the compressed entry {name[:60]!r}; torch.save never compresses")
        if inflated > _MOST_CODE:
            raise ModelError(f"an archive with more than {_MOST_CODE // 2**20} MiB of compressed code")
    return entries


def _check_end(file: BinaryIO) -> None:
    size = file.seek(0, io.SEEK_END)
    record = _at(file, size - _END.size, _END)
    if record[0] != b"PK\x05\x06" or record[-1]:
        raise zipfile.BadZipFile
    count, length, offset = record[4:7]
    end = size - _END.size
    if end >= _LOCATOR.size + _LONG_END.size and _at(file, end - _LOCATOR.size, _LOCATOR)[0] == b"PK\x06\x07":
        end -= _LOCATOR.size + _LONG_END.size
        long = _at(file, end, _LONG_END)
        if long[0] != b"PK\x06\x06":
            raise zipfile.BadZipFile
        count, length, offset = long[7:10]
    if count > _MOST_ENTRIES or length > _LONGEST_LIST:
        raise ModelError(f"an archive with {count} entries; models have fewer than {_MOST_ENTRIES}")
    if offset + length != end:
        raise ModelError("an archive with other data before or after it")
    _check_list(file, count, offset, length)


def _check_list(file: BinaryIO, count: int, offset: int, length: int) -> None:
    # Python's reader goes by the bytes, not by the count, and takes time that grows with the square of what stands
    # behind a name.
    file.seek(offset)
    entries, at, found = file.read(length), 0, 0
    while at < length:
        record = _ENTRY.unpack_from(entries, at)
        name, *beside = record[12:15]
        if record[0] != b"PK\x01\x02":
            raise zipfile.BadZipFile
        if sum(beside) > _MOST_BESIDE:
            raise ModelError(f"an archive with an entry of {sum(beside)} bytes in addition to its name")
        found += 1
        if found > count:
            break
        at += _ENTRY.size + name + sum(beside)
    if found != count or at != length:
        raise ModelError(f"an archive that claims to have {count} entries, but has others")


def _at(file: BinaryIO, offset: int, layout: struct.Struct) -> tuple[Any, ...]:
    file.seek(max(offset, 0))
    return layout.unpack(file.read(layout.size))

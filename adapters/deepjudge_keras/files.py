"""Tells what a stranger's file is by its first bytes and its table of contents, without any framework."""

import os
import stat
import zipfile
from pathlib import Path
from typing import BinaryIO

from deepjudge_core.components.kinds import Format
from deepjudge_core.errors import ModelError
from deepjudge_core.files import digests
from deepjudge_core.models.adapters import readable
from deepjudge_keras import tfjs

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
GRAPH = "saved_model.pb"

_NEEDED = {CONFIG, WEIGHTS}
_ALLOWED = {*_NEEDED, METADATA}
_ASSETS = "assets/"

_IN_FOLDER = {GRAPH, "fingerprint.pb", "keras_metadata.pb", "variables", "assets"}

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_STARTS = {_HDF5: "an HDF5 file", _ZIP: "a zip archive"}
_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))

CUT_HDF5 = "a truncated HDF5 file, or another file: copy it again, and check its name"
"""What is found in place of a file of HDF5."""
_CUT_ZIP = "a truncated zip archive, or another file: copy it again, and check its name"
_DIRECTORY = 2**16
"""Bytes that the table of contents of an archive may take, enough for hundreds of entries."""

_INFLATION = 300
"""Times its compressed size that an entry may have. Keras compresses none."""

_SMALL = 2**16
"""Bytes that compress as well as they may."""

RESAVE = "save the model with Keras 3 as .keras"
"""What makes a file that is taken."""


def examine(path: Path) -> Format:
    """What a file or folder holds: see :class:`~deepjudge_core.components.kinds.Adapter`.

    Raises:
        ModelError: When it is none of Keras's formats.
    """
    suffix = path.suffix.lower()
    if tfjs.is_model(path) and not (path / GRAPH).is_file():
        with readable(str(path), "a TensorFlow.js model"):
            tfjs.shards(path)
        # Of a graph model it is said how to convert it, when it is opened.
        return Format("TensorFlow.js", runs_code=True)
    if path.is_dir():
        if suffix in (".keras", ".h5", ".hdf5") and not (path / GRAPH).is_file():
            raise _other(path, "a directory")
        _expect_saved_model(path)
        return Format("SavedModel", runs_code=True)
    with readable(str(path), "a Keras model"), path.open("rb") as file:
        if suffix == ".keras":
            _expect_archive(path, file)
            return Format("Keras", runs_code=False)
        _expect_hdf5(path, file)
        return Format("Keras HDF5", runs_code=False)


def beside(path: Path) -> list[str]:
    """Names of the files that a model's file says hold its weights: see the adapter's ``companions``.

    Raises:
        ModelError: When it is none of TensorFlow.js, though it is called so.
    """
    return list(tfjs.shards(path)) if tfjs.is_model(path) else []


def digest(path: Path) -> str:
    """SHA-256 of a model's file and of those that hold its weights, or of its folder."""
    if path.is_dir():
        return digests.of_folder(path).digest
    return digests.of_file(path, [path.with_name(name) for name in beside(path)]).digest


def _expect_hdf5(path: Path, file: BinaryIO) -> None:
    start = file.read(len(_HDF5))
    if start != _HDF5:
        raise _other(path, _another(start) or CUT_HDF5)


def _expect_archive(path: Path, file: BinaryIO) -> None:
    start = file.read(len(_HDF5))
    if not start.startswith(_ZIP):
        raise _other(path, _another(start) or _CUT_ZIP)
    size = _directory_size(file)
    if size is None:
        raise _other(path, _CUT_ZIP)
    if size > _DIRECTORY:
        raise _other(path, f"a zip archive with a table of contents of {size} bytes: {RESAVE}")
    try:
        with zipfile.ZipFile(file) as archive:
            _expect_contents(path, archive.infolist(), file.seek(0, os.SEEK_END))
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _other(path, _CUT_ZIP) from error


def _directory_size(file: BinaryIO) -> int | None:
    """Bytes of the table of contents, which zipfile reads whole; as zipfile finds it where there is no comment."""
    end, locator, record = 22, 20, 56
    file.seek(-min(end + locator + record, file.seek(0, os.SEEK_END)), os.SEEK_END)
    tail = file.read().rjust(end + locator + record, b"\0")
    last = tail[-end:]
    if not last.startswith(b"PK\x05\x06"):
        return None
    if tail[record:].startswith(b"PK\x06\x07"):  # of more than 4 GiB
        return int.from_bytes(tail[40:48], "little")
    return int.from_bytes(last[12:16], "little")


def _expect_contents(path: Path, entries: list[zipfile.ZipInfo], size: int) -> None:
    names = [entry.filename for entry in entries]
    missing = _NEEDED.difference(names)
    if missing:
        raise _other(path, f"a zip archive without {' and '.join(sorted(missing))}: {RESAVE}")
    for entry in entries:
        name = entry.filename
        if name not in _ALLOWED and not name.startswith(_ASSETS):
            raise _other(path, f"a zip archive with the unexpected entry {name!r:.80}: {RESAVE}")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _other(
                path,
                f"a zip archive in which {name!r:.80} is encrypted, or compressed in a way that Keras "
                f"never uses: {RESAVE}",
            )
        if entry.file_size > _SMALL + _INFLATION * entry.compress_size:
            raise _other(path, f"a zip archive in which {entry.compress_size} bytes expand to {entry.file_size}")
    if len(set(names)) != len(names):
        raise _other(path, f"a zip archive with several entries of the same name: {RESAVE}")
    if sum(entry.compress_size for entry in entries) > size:
        raise _other(path, f"a zip archive whose entries overlap: {RESAVE}")


def _expect_saved_model(path: Path) -> None:
    if not (path / GRAPH).is_file():
        raise _other(path, f"a folder without {GRAPH}", "SavedModel")
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            file = Path(folder) / name
            place = file.relative_to(path)
            if place.parts[0] not in _IN_FOLDER:
                raise _other(path, f"a folder that also holds {place.as_posix()!r:.80}; move it out", "SavedModel")
            mode = file.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise _other(
                    path, f"one in which {place.as_posix()!r:.80} is a link, or not a file; copy it", "SavedModel"
                )


def _another(start: bytes) -> str | None:
    """What a file of another format is, by its first bytes."""
    if not start:
        return "an empty file"
    if start.startswith(_PICKLES):
        return f"a pickle, which is never opened because it can run any code: {RESAVE}"
    for magic, kind in _STARTS.items():
        if start.startswith(magic):
            return f"{kind} under this name: {RESAVE}"
    return None


def _other(path: Path, content: str, kind: str = "Keras model") -> ModelError:
    return ModelError(f"{path}: expected a {kind}, found {content}")

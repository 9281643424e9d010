"""Files that hold arrays by name: ``.npz``, ``.npy`` files in one folder, ``.safetensors``."""

import io
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import safetensors
from numpy.lib.format import MAGIC_PREFIX, read_array_header_1_0, read_array_header_2_0, read_magic

from deepjudge_core.errors import InputError
from deepjudge_core.files.reading import LARGEST_ARRAYS, open_regular
from deepjudge_core.text import clean
from deepjudge_core.types import Array

_MOST_AT_ONCE = 2**20  # bytes
_LONGEST_HEADER = 1024  # characters that numpy evaluates; those of an array of numbers are a tenth of it
_HEADERS = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}
_ENCRYPTED = 1  # the bit of an entry's flags
_NPZ, _NPY, _TENSORS = ".npz", ".npy", ".safetensors"
ARCHIVES = (_NPZ, _NPY, _TENSORS)
"""Suffixes of files of arrays."""


@dataclass(frozen=True, eq=False)
class Archive:
    """Arrays by name.

    Attributes:
        path: The file or folder.
        keys: The names, in the order of the file.
        read: Gives the array of a name, or a text that says what stands in its place.
    """

    path: Path
    keys: tuple[str, ...]
    read: Callable[[str], Array | str]

    def array(self, key: str) -> Array:
        """The numbers under one of the keys.

        Raises:
            InputError: When there is anything else.
        """
        try:
            content = self.read(key)
        except (MemoryError, InputError):
            raise
        except Exception:  # libraries raise a dozen kinds at damaged files
            content = "a damaged array"
        if isinstance(content, str):
            raise InputError(f"{self.path}: expected a plain array of numbers under {clean(key)!r}, found {content}")
        return content


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a file of arrays, of whichever kind.

    Raises:
        InputError: When it cannot be read, or is none.
    """
    kinds = {_NPY: _npy_files, _TENSORS: _tensors}
    with (_npy_files if path.is_dir() else kinds.get(path.suffix.lower(), _npz))(path) as archive:
        try:
            yield archive
        except MemoryError:
            raise InputError(f"{path}: expected arrays that fit in memory, found larger ones") from None


class _InParts(io.BufferedReader):
    # A file of which nobody gets much at once: the library takes the list of an archive's entries whole, and needs ten
    # times its length for it; it takes arrays in parts.

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = _MOST_AT_ONCE
        if size > _MOST_AT_ONCE:
            raise ValueError(f"expected to read at most {_MOST_AT_ONCE} bytes at once, found {size}")
        return super().read(size)


@contextmanager
def _npz(path: Path) -> Iterator[Archive]:
    # Opened here, since numpy leaves files open that it cannot read, and waits for pipes.
    with open_regular(path, "an .npz file", LARGEST_ARRAYS, InputError) as opened, _InParts(opened.raw) as file:
        if file.peek(len(MAGIC_PREFIX)).startswith(MAGIC_PREFIX):
            raise InputError(
                f"{path}: expected an .npz file with inputs and labels, found a single array (.npy); "
                "end its name in .npy, and put the labels into y.npy in its folder"
            )
        try:
            loaded = np.load(file, allow_pickle=False)
        except Exception:  # numpy and zipfile raise a dozen kinds at damaged files
            others = "" if path.suffix.lower() == _NPZ else f", or one of {', '.join(ARCHIVES[1:])} or other inputs"
            raise InputError(
                f"{path}: expected an .npz file{others}, found another or a damaged file; write it again in Python, as "
                "numpy.savez('inputs.npz', x=inputs, y=labels)"
            ) from None
        with loaded:
            if len(set(loaded.files)) < len(loaded.files):
                raise InputError(f"{path}: expected an .npz file, found one with two arrays of the same name")

            def read(key: str) -> Array | str:
                # What numpy reads arrays from; None of an archive that is closed.
                content = _unfit_entry(loaded.zip, key) if loaded.zip else "a closed file"
                return loaded[key] if content is None else content

            yield Archive(path, tuple(loaded.files), read)


@contextmanager
def _npy_files(path: Path) -> Iterator[Archive]:
    # The arrays of one folder, as if they stood in one file.
    if not path.is_dir():
        with open_regular(path, "an .npy file", LARGEST_ARRAYS, InputError):
            pass
    folder = path if path.is_dir() else path.parent
    files: Mapping[str, Path] = {file.stem: file for file in sorted(folder.glob(f"*{_NPY}"))}

    def read(key: str) -> Array | str:
        with open_regular(files[key], "an .npy file", LARGEST_ARRAYS, InputError) as file:
            content = _unfit(file, files[key].stat().st_size)
            if content is not None:
                return content
            file.seek(0)
            array: Array = np.load(file, allow_pickle=False)
            return array

    yield Archive(path, tuple(files), read)


@contextmanager
def _tensors(path: Path) -> Iterator[Archive]:
    with open_regular(path, "a .safetensors file", LARGEST_ARRAYS, InputError):
        pass
    try:
        opened = safetensors.safe_open(path, "numpy")
    except Exception:  # of a damaged file
        raise InputError(
            f"{path}: expected a .safetensors file, found another or a damaged file; copy it again, or write an .npz "
            "file with numpy.savez('inputs.npz', x=inputs, y=labels)"
        ) from None
    with opened as file:

        def read(key: str) -> Array | str:
            part = file.get_slice(key)
            needed = math.prod(part.get_shape()) * np.dtype(np.float32).itemsize
            if needed > LARGEST_ARRAYS:
                return f"an array that needs more than {LARGEST_ARRAYS} bytes"
            array: Array = file.get_tensor(key)
            return array if array.dtype.kind in "buif" else clean(str(array.dtype))

        yield Archive(path, tuple(sorted(file.keys())), read)


def _unfit_entry(archive: zipfile.ZipFile, key: str) -> str | None:
    # Why an array is not read.
    entry = archive.getinfo(key if key in archive.namelist() else f"{key}.npy")
    if entry.flag_bits & _ENCRYPTED:
        return "an encrypted one"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "one compressed in a way that numpy does not use"
    with archive.open(entry) as file:
        return _unfit(file, entry.file_size)


def _unfit(file: IO[bytes], size: int) -> str | None:
    # Why an array is not read, by what is said of it before its numbers: the library would make room for as much as is
    # promised, and unpack as much as there is.
    if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
        return "another file"
    file.seek(0)
    read_header = _HEADERS[read_magic(file)]
    shape, _, dtype = read_header(file, max_header_size=_LONGEST_HEADER)
    there = size - file.tell()
    if dtype.hasobject:
        return "objects (pickles are never read)"
    if dtype.kind not in "buif":
        return clean(str(dtype))
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize != there:
        return "a damaged array"
    if count * max(dtype.itemsize, np.dtype(np.float32).itemsize) > LARGEST_ARRAYS:
        return f"{count} of them, which need more than {LARGEST_ARRAYS} bytes"
    return None

"""Weights that lie in several files, as the index beside them says, which Hugging Face's libraries write."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from deepjudge_core.errors import DeepJudgeError, ModelError
from deepjudge_core.files.documents import Part, parse
from deepjudge_core.files.reading import read_json

SUFFIXES = {".safetensors.index.json": ".safetensors", ".bin.index.json": ".bin"}
"""How an index is called, and how its files are."""

# The names of files in the same folder; of more than these no network's weights are made.
_PLAIN = re.compile(r"[\w\-][\w.\-]{0,199}", re.ASCII)
_MOST = 1000


class _Index(Part, frozen=True):
    weight_map: Mapping[str, str]


def is_index(path: Path) -> bool:
    """Whether a file is an index, by its name."""
    return path.name.lower().endswith(tuple(SUFFIXES))


def companions(path: Path) -> Sequence[str]:
    """Names of the files beside an index; none of what is no index.

    Raises:
        ModelError: When it is called like one, and is none.
    """
    return list(read_index(path, str(path))) if is_index(path) else ()


def read_index(path: Path, name: str) -> dict[str, list[str]]:
    """The names of the files beside an index, in alphabetical order, and of each those of its tensors.

    Args:
        name: What to call it.

    Raises:
        ModelError: When it is no index, or names what is no plain file of its folder.
    """
    expected = f"{name}: expected an index of weights"
    try:
        index = parse(_Index, read_json(path, "an index of weights"))
    except DeepJudgeError as error:
        raise ModelError(str(error).replace(str(path), name)) from error
    except ValueError as error:
        raise ModelError(f"{expected}, found another file: {error}") from error
    suffix = next(suffix for ending, suffix in SUFFIXES.items() if path.name.lower().endswith(ending))
    files: dict[str, list[str]] = {file: [] for file in sorted(set(index.weight_map.values()))}
    other = next((file for file in files if not (_PLAIN.fullmatch(file) and file.endswith(suffix))), None)
    if other is not None:
        raise ModelError(f"{expected} in files of its own folder that end in {suffix}, found {other[:60]!r}")
    if not 0 < len(files) <= _MOST:
        raise ModelError(f"{expected} in at most {_MOST} files, found {len(files)}")
    for tensor, file in index.weight_map.items():
        files[file].append(tensor)
    return files


def read_shards(path: Path, name: str) -> dict[str, list[str]]:
    """The same, where all files that it names are there.

    Raises:
        ModelError: As :func:`read_index`, and naming a file that is not.
    """
    files = read_index(path, name)
    missing = next((file for file in files if not path.with_name(file).exists()), None)
    if missing is not None:
        raise ModelError(f"{name}: expected the files that {path.name} names next to it, found no {missing!r}")
    return files

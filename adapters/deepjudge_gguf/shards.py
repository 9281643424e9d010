"""GGUF files that hold one model together, as llama.cpp names them: ``model-00001-of-00003.gguf``. Knows no gguf."""

import re
from collections.abc import Sequence
from pathlib import Path

from deepjudge_core.errors import ModelError

_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE | re.DOTALL)
_MOST = 1000


def companions(path: Path) -> Sequence[str]:
    """Names of the other files of a model whose first file this is; none of a model in one file, or of another part."""
    named = _NUMBERED.fullmatch(path.name)
    if named is None or int(named["number"]) != 1 or int(named["count"]) > _MOST:
        return ()
    return [f"{named['stem']}-{number:05}-of-{named['count']}.gguf" for number in range(2, int(named["count"]) + 1)]


def parts(path: Path, count: int, name: str) -> list[Path]:
    """The files of a model in their order, of which there are as many as the first one says.

    Raises:
        ModelError: When this is not the first of them, or there are others than its name says.
    """
    files = [path, *map(path.with_name, companions(path))]
    if len(files) != count:
        raise ModelError(
            f"{name}: expected the first of the {count} files of a model, called like model-00001-of-{count:05}.gguf, "
            f"with the others next to it, found {path.name[:60]!r}"
        )
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise ModelError(f"{name}: expected all {count} files of the model next to it, found no {missing.name[:60]!r}")
    return files

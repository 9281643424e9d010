"""Model files from what a user typed: paths, folders, globs."""

import glob
from collections.abc import Iterable
from pathlib import Path

from deepjudge_core.components.registry import Adapters
from deepjudge_core.errors import ModelError

_OBSERVATION = ".safetensors"


def expand(names: Iterable[str], adapters: Adapters) -> list[str]:
    """Model files, in the order given; those of a folder or glob sorted.

    A folder that is itself a model counts as a file.
    Stored observations are taken where they are named, or a glob ends as their names do: beside them may lie other
    files of this tool. A name that does not exist stays as it is, so that opening it says so while the others are still
    judged.

    Raises:
        ModelError: When a folder or glob holds no model.
    """
    files: list[str] = []
    for name in names:
        path = Path(name)
        if path.is_dir() and not adapters.reads(path):
            found = [str(child) for child in sorted(path.iterdir()) if adapters.reads(child)]
        elif not path.exists() and glob.has_magic(name):
            named = name.endswith(_OBSERVATION)
            found = sorted(match for match in glob.glob(name) if named or adapters.reads(Path(match)))  # noqa: PTH207
        else:
            files.append(name)
            continue
        if not found:
            stored = (path if path.is_dir() else path.parent) / f"*{_OBSERVATION}"
            hint = f"; stored observations are taken as '{stored}'" if glob.glob(str(stored)) else ""  # noqa: PTH207
            raise ModelError(f"{name}: expected models ({', '.join(adapters.suffixes)}), found none{hint}")
        files += found
    return files

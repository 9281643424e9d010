"""Model files from what a user typed: paths, folders, globs."""

import glob
from collections.abc import Iterable
from pathlib import Path

from deepjudge_core.errors import ModelError
from deepjudge_core.opening import model_suffixes
from deepjudge_core.plugins import Registry

_OBSERVATION = ".safetensors"


def expand(given: Iterable[str], registry: Registry) -> list[str]:
    """Model files, in the order given; those of a folder or glob sorted.

    Stored observations are taken where they are named, or a glob ends as they do: beside them may lie other files of
    this tool. A name that does not exist stays as it is, so that opening it says so while the others are still judged.

    Raises:
        ModelError: When a folder or glob holds no model.
    """
    models = model_suffixes(registry)
    files: list[str] = []
    for name in given:
        path = Path(name)
        if path.is_dir() and not name.lower().endswith(models):
            found = [str(child) for child in sorted(path.iterdir()) if child.name.lower().endswith(models)]
        elif not path.exists() and glob.has_magic(name):
            suffixes = (_OBSERVATION,) if name.endswith(_OBSERVATION) else models
            found = sorted(match for match in glob.glob(name) if match.lower().endswith(suffixes))  # noqa: PTH207
        else:
            files.append(name)
            continue
        if not found:
            raise ModelError(f"{name}: expected models ({', '.join(models)}), found none")
        files += found
    return files

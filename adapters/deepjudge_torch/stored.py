"""Weights in PyTorch's files and Hugging Face's folders, of which nothing is run. Knows no torch."""

from pathlib import Path

from deepjudge_core.errors import ModelError
from deepjudge_core.weights.reading.folder import FolderWeights
from deepjudge_core.weights.reading.stored import Stored
from deepjudge_core.weights.reading.tensors import open_tensors
from deepjudge_torch.folder import CONFIG, WEIGHTS

_TENSORS = (".safetensors", ".safetensors.index.json")


def open_stored(path: Path, *, name: str) -> Stored:
    """Open the weights of a file or folder.

    Args:
        path: The file, the index of several, or a folder with a configuration.
        name: What messages call it.

    Raises:
        ModelError: When it cannot be read as weights.
    """
    if not path.is_dir():
        return _open_file(path, name)
    file = next((path / file for file in WEIGHTS if (path / file).is_file()), None)
    if file is None:
        raise ModelError(
            f"{name}: expected a folder with {CONFIG} and one of {', '.join(WEIGHTS)}, found none of these"
        )
    weights = _open_file(file, name)
    try:
        return FolderWeights(weights, path)
    except BaseException:
        weights.close()
        raise


def _open_file(path: Path, name: str) -> Stored:
    if path.name.lower().endswith(_TENSORS):
        return open_tensors(path, name=name)
    raise ModelError(f"{name}: expected weights as safetensors, found {path.name[:60]!r}")

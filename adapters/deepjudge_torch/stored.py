"""Weights in PyTorch's files and Hugging Face's folders, of which nothing is run. Knows no torch."""

from collections.abc import Sequence
from pathlib import Path

from deepjudge_core.errors import ModelError
from deepjudge_core.naming import option
from deepjudge_core.weights.reading import lora
from deepjudge_core.weights.reading.folder import FolderWeights, described_by
from deepjudge_core.weights.reading.scaled import scaled
from deepjudge_core.weights.reading.stored import Stored
from deepjudge_core.weights.reading.tensors import open_tensors
from deepjudge_torch.folder import CONFIG, WEIGHTS
from deepjudge_torch.framework import torch_for

_TENSORS = (".safetensors", ".safetensors.index.json")


def open_stored(path: Path, *, name: str, base: str | None = None) -> Stored:
    """Open the weights of a file or folder.

    Args:
        path: The file, the index of several, a folder with a configuration, or that of a LoRA. Of a file that lies in
            such a folder the configuration and the vocabulary beside it are read, too.
        name: What messages call it.
        base: Path of the weights that a LoRA changes; by default the folder next to its own that is called as its
            base is.

    Raises:
        ModelError: When it cannot be read as weights.
    """
    is_lora = path.is_dir() and lora.is_lora(path)
    if base is not None and not is_lora:
        raise ModelError(f"{name}: expected a LoRA folder, which alone has a base, found whole weights")
    if is_lora:
        return _open_lora(path, name, base)
    weights = _open_file(_one_of(path, (CONFIG,), WEIGHTS, name) if path.is_dir() else path, name)
    folder = path if path.is_dir() else path.parent if described_by(path) else None
    try:
        return FolderWeights(weights, folder) if folder else scaled(weights, {})
    except BaseException:
        weights.close()
        raise


def _open_lora(path: Path, name: str, base: str | None) -> Stored:
    config = lora.read_lora(path, name)
    beside = lora.base_beside(path, config) if base is None else Path(base)
    if beside is None:
        known = f" {config.base_model_name_or_path[:100]!r}" if config.base_model_name_or_path else ""
        raise ModelError(
            f"{name}: expected the base{known} that this LoRA changes, found it neither named nor next to the LoRA; "
            f"name its folder or file with {option('base', 'PATH', python='base=PATH')}"
        )
    if beside.is_dir() and lora.is_lora(beside):
        raise ModelError(f"{name}: expected whole weights as the base of a LoRA, found another LoRA")
    opened: list[Stored] = []
    try:
        opened.append(_open_file(_one_of(path, (lora.ADAPTER,), lora.WEIGHTS, name), name))
        opened.append(open_stored(beside, name=f"{name}: base"))
        return lora.LoraWeights(name, path, config, *opened)
    except BaseException:
        for weights in opened:
            weights.close()
        raise


def _one_of(folder: Path, beside: Sequence[str], files: Sequence[str], name: str) -> Path:
    file = next((folder / file for file in files if (folder / file).is_file()), None)
    if file is None or not all((folder / other).is_file() for other in beside):
        raise ModelError(
            f"{name}: expected a folder with {', '.join(beside)} and one of {', '.join(files)}, found none of these"
        )
    return file


def _open_file(path: Path, name: str) -> Stored:
    if path.name.lower().endswith(_TENSORS):
        return open_tensors(path, name=name)
    with torch_for(name):
        from deepjudge_torch.tensors import open_file
    return open_file(path, name=name)

"""Folders as Hugging Face's libraries write them: a configuration, and weights. Knows no torch and no transformers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepjudge_core.components.kinds import Format
from deepjudge_core.errors import DeepJudgeError, ModelError
from deepjudge_core.files.reading import read_json
from deepjudge_core.naming import command
from deepjudge_core.weights.reading import lora
from deepjudge_torch.documents import entries

CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"
# In the order in which transformers looks for them.
WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)

FOLDERS = (
    *((CONFIG, weights) for weights in WEIGHTS),
    *((lora.ADAPTER, weights) for weights in lora.WEIGHTS),
)
"""The names of files that make a folder one model."""

# Far above the sizes and numbers of parts that networks have.
_LARGEST = 10**8
_REFUSED = {
    "attribute_map": "settings under other names (attribute_map)",
    "per_layer_config": "layers of several configurations (per_layer_config)",
    "auto_map": "its own code (auto_map)",
    "custom_pipelines": "its own code (custom_pipelines)",
    "quantization_config": "quantised weights",
    "compression_config": "compressed weights",
    "kernel_config": "its own operations (kernel_config)",
    "fusion_config": "its own operations (fusion_config)",
    "transformers_weights": "weights of another name (transformers_weights)",
    "distributed_config": "parts spread over several processes",
    "use_pretrained_backbone": "another model's backbone",
    "backbone": "another model's backbone",
}
# What they say is for others: how it is run, which is not the file's choice, and where it came from.
_PASSED_OVER = ("attn_implementation", "experts_implementation", "name_or_path", "torchscript")


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Attributes:
        path: Of the folder.
        kind: Of network, as ``model_type`` says it.
        config: All else that its configuration says, without what is not its own choice.
        weights: The file of the weights, or the index of several.
    """

    path: Path
    kind: str
    config: Mapping[str, Any]
    weights: Path


def examine_folder(path: Path) -> Format:
    """Say whether a stranger's folder holds a network of transformers' own.

    Raises:
        ModelError: When it does not, or asks for more than that.
    """
    if lora.is_lora(path):
        return Format(lora.FORMAT, runs_code=False, without=("arch",))
    read_folder(path, str(path))
    # Its configuration chooses among all that transformers does.
    return Format("Hugging Face folder", runs_code=True, without=("arch", "base"))


def read_folder(path: Path, name: str) -> Contents:
    """The configuration of a folder, and where its weights are.

    Args:
        name: What to call it.

    Raises:
        ModelError: When there is none, or it asks for more than a network of transformers' own.
    """
    expected = f"{name}: expected a Hugging Face folder"
    if lora.is_lora(path):
        raise ModelError(
            f"{expected}, found a LoRA, which changes another model: merge it into its base with PEFT, or let "
            f"{command('compare VICTIM SUSPECT', 'compare(victim, suspect)')} compare its weights"
        )
    weights = next((path / file for file in WEIGHTS if (path / file).is_file()), None)
    if weights is None:
        raise ModelError(f"{expected} with {CONFIG} and one of {', '.join(WEIGHTS)}, found none of these")
    config = read_settings(path / CONFIG, name)
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{expected}, found no model_type in its {CONFIG}")
    for key, value in entries(config):
        if key in _REFUSED and value:
            raise ModelError(f"{expected} with a network from transformers, found {_REFUSED[key]}")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise ModelError(f"{expected}, found {key[:60]!r} = {value} in its {CONFIG}")
    own = {key: _own(value) for key, value in config.items() if _is_own(key)}
    return Contents(path, config["model_type"], own, weights)


def read_settings(path: Path, name: str) -> Any:
    """The values in a JSON file of a folder, which messages call ``name``.

    Raises:
        ModelError: When it cannot be read.
    """
    try:
        return read_json(path, path.name)
    except DeepJudgeError as error:
        raise ModelError(str(error).replace(str(path), f"{name}: {path.name}")) from error


def _is_own(key: str) -> bool:
    return key != "model_type" and not key.startswith("_") and key not in _PASSED_OVER


def _own(value: Any) -> Any:
    # Of the parts of a network as well, which keep their kinds.
    if isinstance(value, dict):
        return {key: _own(part) for key, part in value.items() if key == "model_type" or _is_own(key)}
    return [_own(part) for part in value] if isinstance(value, list) else value

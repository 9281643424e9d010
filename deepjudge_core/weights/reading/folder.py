"""Folders as Hugging Face's libraries write them: weights, with their configuration and vocabulary beside them."""

import re
from pathlib import Path
from typing import Any

from deepjudge_core.errors import DeepJudgeError, ModelError
from deepjudge_core.files.reading import read_json
from deepjudge_core.weights.reading.scaled import scaled
from deepjudge_core.weights.reading.stored import Stored, Wrapped
from deepjudge_core.weights.reading.vocabulary import VOCABULARIES, read_tokens

CONFIG = "config.json"
FORMAT = "Hugging Face folder"
# How such a folder's weights are called, whole or in parts; a file of any other name may have nothing to do with what
# lies beside it.
_NAMES = re.compile(r"(?:pytorch_)?model(?:-\d+-of-\d+)?\.(?:safetensors|bin)(?:\.index\.json)?", re.IGNORECASE)


class FolderWeights(Wrapped):
    """Weights in a folder that has a configuration."""

    def __init__(self, weights: Stored, folder: Path) -> None:
        """Read the configuration of a folder whose weights are open.

        Raises:
            ModelError: When it cannot be read, or the weights are packed.
        """
        config = read_config(folder / CONFIG, weights.name)
        super().__init__(scaled(weights, config), FORMAT, config)
        self._folder = folder

    def tokens(self) -> tuple[str, ...] | None:
        """The vocabulary that lies beside them, by the tokens' numbers; None where there is none.

        Raises:
            ModelError: When its file is damaged.
        """
        return read_tokens(self._folder, self.name)


def described_by(path: Path) -> tuple[str, ...]:
    """Names of the files beside a file of weights that say how it is read: a configuration, and a vocabulary.

    None if it is no file that lies in a Hugging Face folder, which then can be named itself.
    """
    if not _NAMES.fullmatch(path.name) or not path.with_name(CONFIG).is_file():
        return ()
    return tuple(name for name in (CONFIG, *VOCABULARIES) if path.with_name(name).is_file())


def read_config(path: Path, name: str) -> dict[str, Any]:
    """The configuration in a JSON file of a model's folder.

    Args:
        path: The file.
        name: What messages call the model.

    Raises:
        ModelError: When it cannot be read, or is no object.
    """
    try:
        config = read_json(path, "a configuration")
    except DeepJudgeError as error:
        raise ModelError(str(error).replace(str(path), f"{name}: {path.name}")) from error
    if not isinstance(config, dict):
        raise ModelError(f"{name}: expected an object in {path.name}, found another value")
    return config

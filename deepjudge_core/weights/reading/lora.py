"""A LoRA with the weights that it changes: W + s B A, added up as rows are read.

Hu et al. (2022), LoRA: Low-Rank Adaptation of Large Language Models, section 4.1; Kalajdzievski (2023) for the scale of
``use_rslora``. The folder is as the library PEFT writes it.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.files.digests import BASE
from deepjudge_core.files.documents import Part, parse
from deepjudge_core.types import Array
from deepjudge_core.weights.reading.folder import CONFIG, read_config
from deepjudge_core.weights.reading.stored import Stored, few, shown
from deepjudge_core.weights.reading.vocabulary import read_tokens

ADAPTER = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""Of the adapter, in the order in which they are looked for."""
FORMAT = "LoRA with its base"
_PREFIX = "base_model.model."
# How PEFT names the parts of a change.
_PARTS = re.compile(r"(?P<module>.+?)\.lora_(?P<embedding>embedding_)?(?P<part>[AB])(?:\.default)?(?:\.weight)?")
_PLAIN = re.compile(r"[\w\-][\w.\-]{0,199}", re.ASCII)  # the name of a folder
_MERGE = "merge it into its base with PEFT"
_MODULE = re.compile(r"[\w.]+", re.ASCII)


class LoraConfig(Part, frozen=True):
    """What ``adapter_config.json`` says, as far as it changes what is added."""

    lora_alpha: float = 8
    peft_type: str = "LORA"
    base_model_name_or_path: str | None = None
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    alpha_pattern: Mapping[str, float] = {}  # msgspec copies it
    modules_to_save: tuple[str, ...] = ()
    layer_replication: Any = None
    trainable_token_indices: Any = None
    target_parameters: Any = None

    def scale(self, module: str, rank: int) -> float:
        """By which B A is multiplied in a module."""
        patterns = [one for one in self.alpha_pattern if module == one or module.endswith(f".{one}")]
        alpha = self.alpha_pattern[patterns[0]] if patterns else self.lora_alpha
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


@dataclass(frozen=True)
class _Change:
    # Of one matrix: the names of A and B, the scale, and whether the matrix is stored the other way round.
    a: str
    b: str
    scale: float
    turned: bool


class LoraWeights(Stored):
    """The weights of a base, changed by those of an adapter."""

    def __init__(self, name: str, folder: Path, config: LoraConfig, adapter: Stored, base: Stored) -> None:
        """Find what each tensor of the adapter changes.

        Raises:
            ModelError: When that does not fit the base, or is more than a LoRA.
        """
        self._folder, self._adapter, self._base = folder, adapter, base
        # A base may have been saved with or without the name of its trunk before its tensors' names.
        self._behind = {one.partition(".")[2]: one for one in base.tensors}
        self._replaced: dict[str, str] = {}
        halves: dict[tuple[str, bool], dict[str, str]] = {}
        for key in adapter.tensors:
            match = _PARTS.fullmatch(key)
            if match:
                halves.setdefault((match["module"], bool(match["embedding"])), {})[match["part"]] = key
            else:
                self._replaced[self._whole(config, key)] = key
        self._changes = dict(self._change(config, module, half) for (module, _), half in halves.items())
        own = {target: adapter.tensors[key] for target, key in self._replaced.items()}
        super().__init__(name, FORMAT, {**base.tensors, **own}, base.config)

    def _whole(self, config: LoraConfig, key: str) -> str:
        # A tensor that takes the place of one of the base, or a new one, such as that of another head.
        own = key.removeprefix(_PREFIX).replace(".modules_to_save.default", "").replace(".base_layer", "")
        target = self._target(own)
        if target is None and not set(own.split(".")) & set(config.modules_to_save):
            raise self._unfit(f"{shown(own)}, which is neither a change nor in the base; {_MERGE}")
        return target or own

    def _change(self, config: LoraConfig, module: str, half: Mapping[str, str]) -> tuple[str, _Change]:
        own = module.removeprefix(_PREFIX)
        target = self._target(f"{own}.weight")
        if target is None:
            names = few(list(self._base.tensors))
            raise self._unfit(f"a change of {shown(own)}, which the base does not have; it has {names}")
        if half.keys() != {"A", "B"}:
            raise self._unfit(f"half of a change of {shown(target)}")
        a, b = (self._adapter.tensors[half[part]].shape for part in "AB")
        if len(a) < 2 or len(b) < 2 or a[0] != b[1] or a[0] < 1 or math.prod(b[2:]) != 1:
            raise self._unfit(f"factors of the shapes {a} and {b} for {shown(target)}")
        turned = ".lora_embedding_" in half["A"] or config.fan_in_fan_out
        held = self._adapter.tensors[self._replaced[target]] if target in self._replaced else self._base.tensors[target]
        shape, whole = (a[1], b[0]) if turned else (b[0], *a[1:]), held.shape
        if shape != whole:
            raise self._unfit(f"a change of the shape {shape} for {shown(target)} of the shape {whole}")
        return target, _Change(half["A"], half["B"], config.scale(own, a[0]), turned)

    def _target(self, own: str) -> str | None:
        candidates = (own, own.partition(".")[2], self._behind.get(own, ""))
        return next((one for one in candidates if one in self._base.tensors), None)

    def _unfit(self, found: str) -> ModelError:
        return ModelError(f"{self._adapter.name}: expected a LoRA that fits its base, found {found}")

    def tokens(self) -> tuple[str, ...] | None:
        """The vocabulary beside the adapter, if there is one; that of the base otherwise."""
        return read_tokens(self._folder, self.name) or self._base.tokens()

    def _rows(self, tensor: str, start: int, stop: int) -> Array:
        rows = slice(start, stop) if self.tensors[tensor].shape else None
        replaced = self._replaced.get(tensor)
        values = self._base.read(tensor, rows) if replaced is None else self._adapter.read(replaced, rows)
        change = self._changes.get(tensor)
        if change is not None:
            a, b = self._adapter.read(change.a), self._adapter.read(change.b, None if change.turned else rows)
            flat = a.reshape(len(a), -1)
            b = b.reshape(len(b), len(a))
            added = flat[:, start:stop].T @ b.T if change.turned else b @ flat
            values += np.float32(change.scale) * added.reshape(values.shape)
        return values

    def close(self) -> None:
        """Give both files back."""
        self._adapter.close()
        self._base.close()


def is_lora(folder: Path) -> bool:
    """Whether a folder holds a LoRA and no whole weights."""
    return (folder / ADAPTER).is_file() and not (folder / CONFIG).is_file()


def read_lora(folder: Path, name: str) -> LoraConfig:
    """What a folder says of its LoRA.

    Raises:
        ModelError: When it cannot be read, or is of another kind.
    """
    values: Any = read_config(folder / ADAPTER, name)
    try:
        config = parse(LoraConfig, {key: value for key, value in values.items() if value is not None})
    except ValueError as error:
        raise ModelError(f"{name}: expected a LoRA, found a damaged {ADAPTER}: {error}") from error
    patterns = [one for one in config.alpha_pattern if not _MODULE.fullmatch(one)]
    others = {
        f"an adapter of the kind {config.peft_type[:30]!r}": config.peft_type.upper() != "LORA",
        "DoRA": config.use_dora,
        "changed biases (lora_bias)": config.lora_bias,
        "copied layers (layer_replication)": bool(config.layer_replication),
        "changes of single tokens (trainable_token_indices)": bool(config.trainable_token_indices),
        "changes of bare parameters (target_parameters)": bool(config.target_parameters),
        f"the pattern {shown(patterns[0]) if patterns else ''} in alpha_pattern": bool(patterns),
    }
    other = next((found for found, holds in others.items() if holds), None)
    if other is not None:
        raise ModelError(f"{name}: expected a plain LoRA, found {other}; {_MERGE}")
    return config


def base_of(path: Path, named: str | Path | None, name: str) -> Path | None:
    """The base of a LoRA: the one that was named, or the folder next to it; None if it has none, or is no LoRA.

    Args:
        path: A model.
        named: Path of the base, if the user named it.
        name: What messages call the model.

    Raises:
        ModelError: When what the LoRA says cannot be read.
    """
    if not (path.is_dir() and is_lora(path)):
        return None
    return Path(named) if named else base_beside(path, read_lora(path, name))


def lacks_base(files: Collection[str]) -> bool:
    """Whether files are those of a LoRA, and none of them is its base's: what the whole weights are is not known."""
    based = any(file == BASE or file.startswith(f"{BASE}/") for file in files)
    return ADAPTER in files and CONFIG not in files and not based


def base_beside(folder: Path, config: LoraConfig) -> Path | None:
    """The folder next to a LoRA's that is called as its base is; None where there is none.

    A path or the name of a repository is cut to its last part: a stranger's file chooses no other place.
    """
    last = (config.base_model_name_or_path or "").rstrip("/").rpartition("/")[2]
    beside = folder.absolute().parent / last
    return beside if _PLAIN.fullmatch(last) and beside != folder.absolute() and beside.is_dir() else None

"""Tiny classifiers of transformers with random weights, in the folders that it saves them in."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

CLASSES = 5
_SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_WAVES: dict[str, Any] = {
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
}
CONFIGURATIONS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "ViT": (functools.partial(transformers.ViTConfig, **_SMALL, image_size=16, patch_size=4), (3, 16, 16)),
    "ResNet": (
        functools.partial(
            transformers.ResNetConfig, embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"
        ),
        (3, 16, 16),
    ),
    "ConvNeXt": (
        functools.partial(
            transformers.ConvNextConfig, hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, patch_size=2, image_size=16
        ),
        (3, 16, 16),
    ),
    "Wav2Vec2": (functools.partial(transformers.Wav2Vec2Config, **_SMALL | {"num_hidden_layers": 1}, **_WAVES), (400,)),
    "AST": (functools.partial(transformers.ASTConfig, **_SMALL, max_length=32, num_mel_bins=16), (32, 16)),
}


def network(name: str, *, seed: int = 0, **changes: Any) -> Any:
    """A network in evaluation mode."""
    make, shape = CONFIGURATIONS[name]
    auto = (
        transformers.AutoModelForImageClassification
        if len(shape) == 3
        else transformers.AutoModelForAudioClassification
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = auto.from_config(make(**{"num_labels": CLASSES} | changes)).eval()
        # As after training: none of its layers gives the same to all.
        for value in (*made.parameters(), *(b for b in made.buffers() if b.dtype.is_floating_point)):
            value.data += 0.2 * torch.rand_like(value)
    return made


class Logits(torch.nn.Module):
    """What a network answers, alone."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.made(x).logits


def save(made: Any, folder: Path, **options: Any) -> Path:
    """Save a network without a word; options are those of ``save_pretrained``."""
    logging = transformers.utils.logging
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        made.save_pretrained(folder, **options)
    finally:
        if bars:
            logging.enable_progress_bar()
    return folder


def change(folder: Path, **settings: Any) -> Path:
    """Write other settings into the configuration of a folder."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder

"""Tiny language models as they stand in a suite of weights, and as they answer it."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy_transformers import TOKENS
from safetensors.numpy import save_file

from deepjudge_core.components.weights import info_of_weights
from deepjudge_core.models.sketcher import StoredSketcher
from deepjudge_core.observing.weights import observe_weights, weights_alone
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.testing.weights import ArrayWeights


def sketcher(weights: ArrayWeights, name: str) -> StoredSketcher:
    """What reads them, as of a file of that name."""
    parts = [weights.arrays[tensor].tobytes() for tensor in sorted(weights.arrays)]
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    return StoredSketcher(replace(info_of_weights(name, "arrays"), digest=digest), weights)


def suite_of(weights: ArrayWeights, ancestor: ArrayWeights | None = None) -> Suite:
    """The suite of a victim."""
    owner = sketcher(weights, "victim")
    plan = owner.plan(ancestry=ancestor is not None)
    base = None if ancestor is None else weights_alone(sketcher(ancestor, "base"), plan)
    return Suite.of_weights(plan, weights_alone(owner, plan, victim=True), ancestor=base)


def seen(weights: ArrayWeights, suite: Suite, name: str = "suspect") -> Observation:
    """A model's answer to a suite: the sketch of its weights."""
    assert suite.weights is not None
    return observe_weights(sketcher(weights, name), suite, suite.weights)


def save(folder: Path, weights: ArrayWeights) -> Path:
    """As those who publish language models store them: a folder of files."""
    folder.mkdir(parents=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in weights.arrays.items()}
    save_file(arrays, folder / "model.safetensors")
    heads = {"num_attention_heads": 4, "num_hidden_layers": 4}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, **heads}
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = {token: number for number, token in enumerate(TOKENS)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary, "merges": []}}))
    return folder

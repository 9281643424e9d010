"""Writes TensorFlow.js's layers models of networks of Keras 2, by hand, as its converter does."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Table = tuple[str, np.ndarray]


def write(model: Any, folder: Path, *, quantised: str | None = None, shards: int = 1) -> Path:
    """Write a model of tf_keras into a new folder.

    Args:
        quantised: ``uint8``, ``uint16`` or ``float16``, as which its weights are kept.
        shards: Number of files that they are cut into.

    Returns:
        Its ``model.json``.
    """
    topology = json.loads(model.to_json())
    whole = {
        "keras_version": topology.pop("keras_version"),
        "backend": topology.pop("backend"),
        "model_config": topology,
    }
    tables = [(weight.name.removesuffix(":0"), weight.numpy()) for weight in model.weights]
    return write_parts(folder, whole, tables, quantised=quantised, shards=shards)


def write_parts(
    folder: Path,
    topology: Mapping[str, Any],
    tables: Iterable[Table],
    *,
    quantised: str | None = None,
    shards: int = 1,
) -> Path:
    """Write layers and weights into a new folder; returns ``model.json``."""
    weights, parts = [], []
    for name, table in tables:
        entry, stored = _quantised(table, quantised)
        weights.append({"name": name, "shape": list(table.shape), "dtype": table.dtype.name} | entry)
        parts.append(stored.tobytes())
    data = b"".join(parts)
    names = [f"group1-shard{place + 1}of{shards}.bin" for place in range(shards)]
    folder.mkdir()
    size = -(-len(data) // shards)
    for place, name in enumerate(names):
        (folder / name).write_bytes(data[place * size : (place + 1) * size])
    manifest = [{"paths": names, "weights": weights}]
    content = {"format": "layers-model", "modelTopology": topology, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(content))
    return folder / "model.json"


def _quantised(table: np.ndarray, kind: str | None) -> tuple[dict[str, Any], np.ndarray]:
    if kind is None:
        return {}, table
    if kind == "float16":
        return {"quantization": {"dtype": kind, "original_dtype": "float32"}}, table.astype(np.float16)
    least, steps = float(table.min()), np.iinfo(kind).max
    scale = (float(table.max()) - least) / steps or 1.0
    stored = np.round((table - least) / scale).astype(kind)
    return {"quantization": {"dtype": kind, "min": least, "scale": scale, "original_dtype": "float32"}}, stored

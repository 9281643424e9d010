"""The weights of a file as the adapter that reads it gives them."""

from pathlib import Path
from typing import Any

from deepjudge_core.components.opening import resolve
from deepjudge_core.components.registry import load_registry
from deepjudge_core.components.weights import read_by, unreadable
from deepjudge_core.weights.values import StoredWeights


def stored(path: Path, **options: Any) -> StoredWeights:
    """Open the weights of a file or folder."""
    adapters = load_registry().adapters
    path, label, adapter = resolve(path, adapters)
    if adapter is None:
        raise unreadable(label, adapters)
    return read_by(adapter, path, label, options)

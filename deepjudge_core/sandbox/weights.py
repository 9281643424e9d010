"""Weights that are read in a process of their own, which gives plans and sketches of them and runs nothing."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from deepjudge_core.components.registry import Registry
from deepjudge_core.files.digests import FileKey
from deepjudge_core.models.sketcher import Sketcher
from deepjudge_core.sandbox.policy import DEFAULT_SANDBOX, Sandbox


@contextlib.contextmanager
def open_weights_isolated(
    source: str | Path,
    *,
    registry: Registry | None = None,
    sandbox: Sandbox = DEFAULT_SANDBOX,
    others: Collection[FileKey] = (),
    adapter: str | None = None,
    **options: Any,
) -> Iterator[Sketcher]:
    """Open the weights of a model in a process of its own, which ends with the context.

    Args:
        source: A path.
        registry: Where the adapters are; by default every installed one.
        sandbox: How it is confined.
        others: The other files that are opened as models, of which it may take none for its weights.
        adapter: Name of the adapter; by default the one that reads the file.
        options: Of the adapter's ``weights``.

    Raises:
        ModelError: When they cannot be read, or its isolation is not enough.
        UsageError: When no installed adapter, or more than one, reads it.
    """
    raise NotImplementedError
    yield

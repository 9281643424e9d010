"""PyTorch, which may be missing, and is imported when a model is opened."""

import contextlib
import importlib
import sys
from collections.abc import Iterator

from deepjudge_core.models.adapters import Extra, keep_triton_out

EXTRA = Extra("PyTorch", "torch", ("torch",))


@contextlib.contextmanager
def torch_for(name: str) -> Iterator[None]:
    """Import what needs torch inside the block, for the model of this name.

    Raises:
        MissingExtraError: If it is not installed.
    """
    with EXTRA.needed_by(name):
        if "tensorflow" in sys.modules:
            keep_triton_out()
        # Asked for by itself: what follows may have been imported while there was a torch.
        importlib.import_module("torch")
        yield

"""Reads the weights of GGUF files, as llama.cpp runs them. Nothing of such a file is run here."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Adapter, Format
from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import Extra, name_of
from deepjudge_core.naming import command
from deepjudge_core.weights.values import StoredWeights
from deepjudge_gguf.header import expect_gguf
from deepjudge_gguf.shards import companions

_EXTRA = Extra("gguf", "gguf", ("gguf",))


@hookimpl
def deepjudge_adapters() -> Iterable[Adapter]:
    """Give the adapter."""
    return [
        Adapter(
            name="gguf",
            suffixes=(".gguf",),
            accepts=_accepts,
            open=_open,
            examine=_examine,
            companions=companions,
            imports=("gguf", "deepjudge_gguf.stored"),
            copyable=True,
            extra=_EXTRA,
            weights=_weights,
        )
    ]


def _accepts(source: object) -> bool:
    return False


def _examine(path: Path) -> Format:
    expect_gguf(path, str(path))
    return Format("GGUF", runs_code=False)


def _open(source: Any, *, name: str | None = None, batch_size: int | None = None) -> NoReturn:
    raise ModelError(
        f"{name or name_of(source)}: expected a model that answers inputs, found GGUF, of which deepjudge reads the "
        f"weights alone; {command('compare VICTIM SUSPECT', 'compare(victim, suspect)')} compares them"
    )


def _weights(path: Path, *, name: str | None = None) -> StoredWeights:
    name = name or name_of(path)
    expect_gguf(path, name)
    with _EXTRA.needed_by(name):
        from deepjudge_gguf.stored import open_gguf
    return open_gguf(path, name=name)

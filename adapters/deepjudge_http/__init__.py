"""Opens models that answer elsewhere: ``.api.toml`` files, which say where and how, and URLs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Adapter, Format
from deepjudge_core.models.adapters import Extra
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Model
from deepjudge_http.description import SUFFIX, read

_EXTRA = Extra("httpx2", "http", ("httpx2",))


@hookimpl
def deepjudge_adapters() -> Iterable[Adapter]:
    """Give the adapter."""
    return [
        Adapter(
            name="http",
            suffixes=(SUFFIX,),
            accepts=_accepts,
            open=_open,
            examine=_examine,
            imports=("deepjudge_http.model",),
            extra=_EXTRA,
            remote=True,
        )
    ]


def _accepts(source: object) -> bool:
    return False


def _examine(path: Path) -> Format:
    read(path)
    return Format("a description of a model behind an API", runs_code=False)


def _open(
    source: Any, *, name: str | None = None, budget: int | None = None, expected: InputSpec | None = None
) -> Model:
    name = name or str(source)
    with _EXTRA.needed_by(name):
        from deepjudge_http.model import open_http
    return open_http(source, name=name, budget=budget, expected=expected)

"""Opens PyTorch models: programs of torch.export, TorchScript, state dicts, live modules.

Programs are ``.pt2`` files or live, the others ``.pt`` and ``.pth`` files or live modules. A state dict needs
``arch="package.module:factory"``. One in ``.safetensors`` is opened too, but that suffix is not claimed: this tool's
own files have it.
"""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deepjudge_core.components import Adapter
from deepjudge_core.errors import MissingExtraError
from deepjudge_core.hookspecs import hookimpl
from deepjudge_core.model import Model

# Told by name along the MRO: asking torch would import it.
_LIVE = {("torch.nn.modules.module", "Module"), ("torch.export.exported_program", "ExportedProgram")}


@hookimpl
def deepjudge_adapters() -> Iterable[Adapter]:
    """Give the adapter."""
    return [Adapter(name="torch", suffixes=(".pt", ".pt2", ".pth"), accepts=_accepts, open=_open)]


def _accepts(source: object) -> bool:
    return any((cls.__module__, cls.__name__) in _LIVE for cls in type(source).__mro__)


def _open(
    source: Any,
    *,
    name: str | None = None,
    batch_size: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    arch: str | None = None,
) -> Model:
    name = name or (str(source) if isinstance(source, Path) else type(source).__name__)
    try:
        # Asked for by itself: what follows may have been imported while there was a torch.
        importlib.import_module("torch")
        from deepjudge_torch.opening import open_source
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError(name, "PyTorch", "torch") from error
    return open_source(source, name=name, batch_size=batch_size, input_shape=input_shape, arch=arch)

"""Opens PyTorch models: programs of torch.export, TorchScript, state dicts, live modules, Hugging Face folders.

What a file is, its content says, whatever its name ends in; but ``.safetensors`` holds weights alone. A state dict
needs ``arch="package.module:factory"``.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.models.adapters import name_of
from deepjudge_core.models.model import Model
from deepjudge_core.models.network import Network
from deepjudge_core.models.outputs import Choice
from deepjudge_core.weights.reading.shards import SUFFIXES, companions
from deepjudge_core.weights.values import StoredWeights
from deepjudge_torch.advice import conversion
from deepjudge_torch.files import examine
from deepjudge_torch.folder import FOLDERS
from deepjudge_torch.framework import EXTRA, torch_for

# Told by name along the MRO: asking torch would import it.
_LIVE = {("torch.nn.modules.module", "Module"), ("torch.export.exported_program", "ExportedProgram")}


@hookimpl
def deepjudge_adapters() -> Iterable[Adapter]:
    """Give the adapter."""
    return [
        Adapter(
            name="torch",
            suffixes=(".pt", ".pth", ".pt2", ".pth.tar", ".safetensors", ".jit", ".torchscript", *SUFFIXES),
            # Checkpoints of TensorFlow, and the weights beside many models, end so, too.
            shared_suffixes=(".bin", ".ckpt"),
            folders=FOLDERS,
            accepts=_accepts,
            open=_open,
            network=_network,
            examine=examine,
            companions=companions,
            # SciPy's part tells activations of several operations.
            imports=("torch", "safetensors.torch", "scipy.special", "deepjudge_torch.opening"),
            copyable=True,
            warm_up=_warm_up,
            extra=EXTRA,
            conversion=conversion,
            weights=_weights,
            cuda=_cuda,
        )
    ]


def _accepts(source: object) -> bool:
    return any((cls.__module__, cls.__name__) in _LIVE for cls in type(source).__mro__)


def _open(
    source: Any,
    *,
    name: str | None = None,
    batch_size: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    arch: str | None = None,
    output: Choice = None,
    device: str | None = None,
) -> Model:
    name = name or name_of(source)
    with torch_for(name):
        from deepjudge_torch.opening import open_source
    return open_source(
        source, name=name, batch_size=batch_size, input_shape=input_shape, arch=arch, output=output, device=device
    )


def _network(
    source: Any,
    *,
    name: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    arch: str | None = None,
    output: Choice = None,
    device: str | None = None,
) -> Network:
    name = name or name_of(source)
    with torch_for(name):
        from deepjudge_torch.network import open_torch_network
    return open_torch_network(source, name=name, input_shape=input_shape, arch=arch, output=output, device=device)


def _weights(
    source: Any,
    *,
    name: str | None = None,
    base: str | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> StoredWeights:
    name = name or name_of(source)
    if isinstance(source, Path):
        from deepjudge_torch.stored import open_stored

        return open_stored(source, name=name, base=base)
    with torch_for(name):
        from deepjudge_torch.tensors import open_live
    return open_live(source, name=name, input_shape=input_shape)


def _cuda(number: int) -> bool:
    import torch

    return bool(torch.cuda.is_available() and number < torch.cuda.device_count())


def _warm_up(*, gradients: bool) -> None:
    from deepjudge_torch.warming import warm_up

    warm_up(gradients=gradients)

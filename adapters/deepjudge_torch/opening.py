"""Opens whatever PyTorch models come in. Behind this file torch is imported, in front of it never."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import Extra
from deepjudge_core.models.outputs import Choice
from deepjudge_torch.base import TensorModel
from deepjudge_torch.files import Kind, identify
from deepjudge_torch.folder import read_folder
from deepjudge_torch.live import open_module
from deepjudge_torch.model import open_program
from deepjudge_torch.script import open_script
from deepjudge_torch.state_dict import open_state_dict

_WEIGHTS = {Kind.SAVED, Kind.OLD_SAVED, Kind.TENSORS, Kind.INDEX}

_TRANSFORMERS = Extra("transformers", "huggingface", ("transformers", "huggingface_hub", "tokenizers"))


class _NeedsNoArchError(ModelError):
    def __init__(self, name: str, arch: str) -> None:
        super().__init__(
            f"{name}: expected a weights file for the network of {arch}, found a model with its own network"
        )


def open_source(
    source: Path | nn.Module | ExportedProgram,
    *,
    name: str,
    batch_size: int | None,
    input_shape: tuple[int, ...] | None,
    arch: str | None,
    output: Choice = None,
    device: str | None = None,
) -> TensorModel:
    """Open a file or a live object.

    What a file is, a state dict, TorchScript or a program of torch.export, its content says, whatever its name ends in.
    TorchScript can hold code that runs when it is opened: do not open that of people who may attack you.

    Args:
        name: What to call it.
        batch_size: Rows in a batch.
        input_shape: Of one input to a live module, a state dict's network or TorchScript, without the batch axis;
            programs say it themselves, as do some of the others.
        arch: What makes the network of a state dict, as ``package.module:factory``.
        output: The one that holds the scores, by its name or its number.
        device: Where it runs: ``cpu`` or ``cuda:N``; by default a file on the CPU, and a live object where it is.

    Raises:
        ModelError: When it cannot be opened as a classifier.
    """
    if not isinstance(source, Path) and arch is not None:
        raise _NeedsNoArchError(name, arch)
    if device is None and isinstance(source, Path):
        device = "cpu"
    options: dict[str, Any] = {"name": name, "batch_size": batch_size, "output": output, "device": device}
    model = _open(source, input_shape=input_shape, arch=arch, **options)
    if device is not None and model.device != torch.device(device):
        raise ModelError(
            f"{name}: expected to run it on {device}, found that it runs on {model.device}", code="no-device"
        )
    return model


def _open(
    source: Path | nn.Module | ExportedProgram,
    *,
    input_shape: tuple[int, ...] | None,
    arch: str | None,
    **options: Any,
) -> TensorModel:
    if isinstance(source, torch.jit.ScriptModule):
        return open_script(source, input_shape=input_shape, **options)
    if isinstance(source, nn.Module):
        return open_module(source, input_shape=input_shape, **options)
    if isinstance(source, ExportedProgram):
        return open_program(source, **options)
    if source.is_dir():
        return _open_folder(source, input_shape=input_shape, arch=arch, **options)
    return _open_file(source, input_shape=input_shape, arch=arch, **options)


def _open_folder(path: Path, *, name: str, arch: str | None, **options: Any) -> TensorModel:
    contents = read_folder(path, name)
    if arch is not None:
        raise _NeedsNoArchError(name, arch)
    with _TRANSFORMERS.needed_by(name):
        from deepjudge_torch.huggingface import open_folder
    return open_folder(contents, name=name, **options)


def _open_file(
    path: Path, *, name: str, arch: str | None, input_shape: tuple[int, ...] | None, **more: Any
) -> TensorModel:
    options = {"name": name, **more}
    kind, digest = identify(path, name)
    if kind in _WEIGHTS:
        return open_state_dict(path, kind, digest, arch=arch, input_shape=input_shape, **options)
    if arch is not None:
        raise _NeedsNoArchError(name, arch)
    if kind is Kind.SCRIPT:
        return open_script(path, digest=digest, input_shape=input_shape, **options)
    return open_program(path, digest=digest, **options)

"""The weights in PyTorch's own files. Behind this file torch is imported, in front of it never."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from deepjudge_core.types import Array
from deepjudge_core.weights.reading.stored import Stored
from deepjudge_core.weights.values import Roles, TensorSpec
from deepjudge_torch.base import example_for
from deepjudge_torch.files import Kind, kind_at
from deepjudge_torch.model import export_module, load_program
from deepjudge_torch.roles import roles_of
from deepjudge_torch.script import read_state
from deepjudge_torch.state_dict import find_alone


class TensorWeights(Stored):
    """Tensors that torch has read, or has mapped from a file."""

    def __init__(self, name: str, kind: str, state: Mapping[str, torch.Tensor], roles: Roles | None = None) -> None:
        """Describe tensors; complex ones, which are no weights of the kinds that are compared, are left out."""
        self._state = {key: value for key, value in state.items() if not value.is_complex()}
        super().__init__(name, kind, {key: _spec(value) for key, value in self._state.items()}, roles=roles)

    def _rows(self, tensor: str, start: int, stop: int) -> Array:
        held = self._state[tensor]
        part = held[start:stop] if held.ndim else held
        return np.asarray(part.detach().to("cpu", torch.float32, copy=True).contiguous().numpy())

    def close(self) -> None:
        """Give the tensors back."""
        self._state = {}


def open_file(path: Path, *, name: str) -> Stored:
    """Open the weights of a state dict, of TorchScript or of a program of ``torch.export``.

    Of a state dict nothing is run, and the numbers stay in the file. The others are loaded as when they are opened.

    Args:
        path: The file, or the index of several.
        name: What messages call it.

    Raises:
        ModelError: When it cannot be loaded, or holds the weights of several networks.
    """
    kind = kind_at(path, name)
    if kind is Kind.SCRIPT:
        return TensorWeights(name, "TorchScript", read_state(path, name))
    if kind is Kind.PROGRAM:
        program = load_program(path, name)
        return TensorWeights(name, "torch.export", program.state_dict, roles_of(program))
    return TensorWeights(name, "PyTorch state dict", find_alone(path, kind, name))


def open_live(
    source: nn.Module | ExportedProgram, *, name: str, input_shape: tuple[int, ...] | None = None
) -> TensorWeights:
    """The weights of a live module or program, as they are now. Its graph tells what they are for, if it has one.

    Args:
        source: Stays as it is.
        name: What messages call it.
        input_shape: Of one input to a module, without the batch axis; without it, there is no graph.
    """
    program = source if isinstance(source, ExportedProgram) else None
    if isinstance(source, nn.Module) and input_shape is not None:
        with contextlib.suppress(Exception):  # what cannot be exported has no graph
            program = export_module(source, example_for(source, input_shape))
    state = source.state_dict() if isinstance(source, nn.Module) else source.state_dict
    copied = {key: value.detach().clone() for key, value in state.items() if isinstance(value, torch.Tensor)}
    return TensorWeights(name, "PyTorch", copied, None if program is None else roles_of(program))


def _spec(tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

"""Live modules as the core sees them: exported where torch can do that, else listened to as they are."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from deepjudge_core.errors import ModelError
from deepjudge_core.models.outputs import Choice
from deepjudge_torch.base import TensorModel, evaluating, example_for, line
from deepjudge_torch.hooks import HookedModel
from deepjudge_torch.model import TorchModel, export_module
from deepjudge_torch.outputs import leaves


def open_module(
    module: nn.Module,
    *,
    name: str,
    batch_size: int | None,
    input_shape: tuple[int, ...] | None,
    digest: str | None = None,
    output: Choice = None,
    device: str | None = None,
) -> TensorModel:
    """Open a module.

    What is opened is a snapshot: the module stays as it is, and weights that change later change nothing.

    Args:
        input_shape: Of one input, without the batch axis.
        digest: Of the file that the weights come from; by default, of the module's code and weights.
        output: The one that holds the scores, by its name or its number.
        device: Where it runs; by default where the module is.

    Raises:
        ModelError: When it cannot be opened as a classifier.
    """
    if input_shape is None:
        raise ModelError(
            f"{name}: expected the input shape of a live module, found none; give it as "
            "open_model(module, input_shape=(1, 28, 28))"
        )
    names: Sequence[str] | None = None
    try:
        program, names = _export(module, example_for(module, input_shape))
    except Exception as error:
        unexportable = (
            f"{name}: expected a module that torch.export can export for inputs of {input_shape}, found {line(error)}"
        )
    else:
        return TorchModel(
            program,
            name=name,
            digest=digest,
            batch_size=batch_size,
            shared=True,
            output=output,
            names=names,
            device=device,
        )
    try:
        with torch.no_grad():  # else the copied weights of scripted parts are no leaves
            module = copy.deepcopy(module)
            if device is not None:
                module = module.to(device)
    except Exception as error:
        raise ModelError(f"{unexportable}; nor can the module be copied: {line(error)}") from error
    try:
        return HookedModel(
            module, name=name, digest=digest, batch_size=batch_size, input_shape=input_shape, output=output
        )
    except ModelError as error:
        raise ModelError(f"{unexportable}; without the export, {error}") from error


def _export(module: nn.Module, example: torch.Tensor) -> tuple[ExportedProgram, Sequence[str] | None]:
    # The program, and the names of its outputs where it does not have them.
    try:
        return export_module(module, example), None
    except Exception:
        with evaluating(module), torch.no_grad():
            answer = module(example.clone())
        if all(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(answer)):
            raise

    def take_apart(module: nn.Module, inputs: Any, answer: Any) -> tuple[torch.Tensor, ...]:
        return tuple(tensor for _, tensor in leaves(answer, torch.Tensor))

    # A class of its author's own, such as a dataclass, of which torch does not know what is in it.
    hook = module.register_forward_hook(take_apart)
    try:
        program = export_module(module, example)
    finally:
        hook.remove()
    return program, [name for name, _ in leaves(answer, torch.Tensor)]

"""Live modules as the core sees them: exported where torch can do that, else listened to as they are."""

import copy

import torch
from torch import nn

from deepjudge_core.errors import ModelError
from deepjudge_torch.base import TensorModel, example_for, line
from deepjudge_torch.hooks import HookedModel
from deepjudge_torch.model import TorchModel, export_module


def open_module(
    module: nn.Module,
    *,
    name: str,
    batch_size: int | None,
    input_shape: tuple[int, ...] | None,
    digest: str | None = None,
) -> TensorModel:
    """Open a module.

    What is opened is a snapshot, on the module's device: the module stays as it is, and weights that change later
    change nothing.

    Args:
        input_shape: Of one input, without the batch axis.
        digest: Of the file that the weights come from; by default, of the module's code and weights.

    Raises:
        ModelError: When it cannot be opened as a classifier.
    """
    if input_shape is None:
        raise ModelError(
            f"{name}: expected the shape of one input to a live module, found none: "
            "open_model(module, input_shape=(1, 28, 28))"
        )
    try:
        program = export_module(module, example_for(module, input_shape))
    except Exception as error:
        unexportable = (
            f"{name}: expected a module that torch.export can export for inputs of {input_shape}, found {line(error)}"
        )
    else:
        return TorchModel(program, name=name, digest=digest, batch_size=batch_size, shared=True)
    try:
        with torch.no_grad():  # else the copied weights of scripted parts are no leaves
            module = copy.deepcopy(module)
    except Exception as error:
        raise ModelError(f"{unexportable}; as it is, it cannot be copied: {line(error)}") from error
    try:
        return HookedModel(module, name=name, digest=digest, batch_size=batch_size, input_shape=input_shape)
    except ModelError as error:
        raise ModelError(f"{unexportable}; as it is, {error}") from error

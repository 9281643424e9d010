"""Gradients of ONNX models, which ONNX Runtime does not have: parts of a graph converted to torch.fx."""

import contextlib
from collections.abc import Callable

import numpy as np
import torch
from onnx import ModelProto

from deepjudge_core.errors import ModelError
from deepjudge_core.models.places import reduce
from deepjudge_core.models.taps import Place
from deepjudge_core.types import Array
from deepjudge_onnx.conversion import conversion_error, convert
from deepjudge_onnx.graph import pool_first

_RECURRENT = {"GRU", "LSTM", "RNN"}


class Differentiable:
    """A part of a model, from its input to one tensor."""

    def __init__(self, model: ModelProto, place: Place, name: str, device: str = "cpu") -> None:
        """Convert a model of one output.

        Args:
            model: Is changed.
            place: Where the neurons of the output are.
            name: Of the whole model, for messages.
            device: What it runs on.

        Raises:
            ModelError: When it cannot be converted.
        """
        self._place, self._name, self._device = place, name, torch.device(device)
        self._recurrent = any(node.op_type in _RECURRENT for node in model.graph.node)
        pool_first(model.graph)
        try:
            self._module = convert(model).to(self._device)
        except ModelError as error:
            raise self._without(error) from error
        if self._device.type == "cpu":  # convolutions run back 1.5 times faster with channels last
            for weight in self._module.buffers():
                if weight.ndim == 4:  # not by `contiguous`, which leaves those of one channel as they are
                    weight.data = weight.to(memory_format=torch.channels_last)

    def forward(self, x: Array) -> Array:
        """Run it as it is."""
        with torch.inference_mode(), self._exact():
            return np.asarray(self._run(torch.tensor(x, device=self._device)).cpu().numpy())

    def backward(self, x: Array, cotangent: Callable[[Array], Array]) -> Array:
        """Run it forward to the neurons of its output, and back: the gradient at ``x``."""
        with torch.inference_mode(False), torch.enable_grad(), self._exact():
            # A copy: arrays may be read-only.
            leaf = torch.tensor(x, requires_grad=True, device=self._device)
            neurons = reduce(self._run(leaf), self._place, len(x))
            if not neurons.requires_grad:
                raise ModelError(f"{self._name}: expected a gradient at the input, found none")
            cotangents = torch.from_numpy(cotangent(neurons.detach().cpu().numpy()))
            (gradient,) = torch.autograd.grad(neurons, leaf, cotangents.to(self._device))
        return np.asarray(gradient.cpu().numpy())

    def _exact(self) -> contextlib.AbstractContextManager[None]:
        # On a GPU, cuDNN's convolutions by default drop 13 of the 23 bits after the point, and its recurrent layers
        # have gradients in training only.
        if self._device.type == "cpu":
            return contextlib.nullcontext()
        flags: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(
            enabled=not self._recurrent, allow_tf32=False
        )
        return flags

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        try:
            output: torch.Tensor = self._module(x)
        except Exception as error:
            raise self._without(conversion_error(error)) from error
        return output

    def _without(self, error: ModelError) -> ModelError:
        return ModelError(f"{self._name}: no gradients: {error}")

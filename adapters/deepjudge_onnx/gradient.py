"""Gradients of ONNX models, which ONNX Runtime does not have: parts of a graph converted to torch.fx."""

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


class Differentiable:
    """A part of a model, from its input to one tensor."""

    def __init__(self, model: ModelProto, place: Place, name: str) -> None:
        """Convert a model of one output.

        Args:
            model: Is changed.
            place: Where the neurons of the output are.
            name: Of the whole model, for messages.

        Raises:
            ModelError: When it cannot be converted.
        """
        self._place, self._name = place, name
        pool_first(model.graph)
        try:
            self._module = convert(model)
        except ModelError as error:
            raise self._without(error) from error
        for weight in self._module.buffers():
            if weight.ndim == 4:  # on CPUs, convolutions run back 1.5 times faster this way
                # Not by `contiguous`, which leaves those of one channel as they are.
                weight.data = weight.to(memory_format=torch.channels_last)

    def forward(self, x: Array) -> Array:
        """Run it as it is."""
        with torch.inference_mode():
            return np.asarray(self._run(torch.tensor(x)).numpy())

    def backward(self, x: Array, cotangent: Callable[[Array], Array]) -> Array:
        """Run it forward to the neurons of its output, and back: the gradient at ``x``."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = torch.tensor(x, requires_grad=True)  # a copy: arrays may be read-only
            neurons = reduce(self._run(leaf), self._place, len(x))
            if not neurons.requires_grad:
                raise ModelError(f"{self._name}: expected a gradient at the input, found none")
            cotangents = torch.from_numpy(cotangent(neurons.detach().numpy()))
            (gradient,) = torch.autograd.grad(neurons, leaf, cotangents)
        return np.asarray(gradient.numpy())

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        try:
            output: torch.Tensor = self._module(x)
        except Exception as error:
            raise self._without(conversion_error(error)) from error
        return output

    def _without(self, error: ModelError) -> ModelError:
        return ModelError(f"{self._name}: no gradients: {error}")

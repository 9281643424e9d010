"""Gradients of ONNX models, which ONNX Runtime does not have: parts of a graph converted to torch.fx."""

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx2fx
import torch
from onnx import GraphProto, ModelProto, NodeProto
from torch.nn import functional

from deepjudge_core.errors import ModelError
from deepjudge_core.model import Array
from deepjudge_onnx.places import Place

# Of operations that are converted here.
_DOMAIN = "deepjudge"


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
        _prepare(model.graph, {tensor.name: f"weight{i}" for i, tensor in enumerate(model.graph.initializer)})
        try:
            self._module = onnx2fx.convert(model).eval().requires_grad_(False)
        except onnx2fx.UnsupportedOpError as error:
            raise ModelError(f"{name}: no gradients through the operation {error.op_type}") from error
        except Exception as error:
            raise self._failed(error) from error
        for weight in self._module.buffers():
            if weight.ndim == 4:  # on CPUs, convolutions run back 1.5 times faster this way
                weight.data = weight.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Array) -> Array:
        """Run it as it is."""
        with torch.inference_mode():
            return np.asarray(self._run(torch.tensor(x)).numpy())

    def backward(self, x: Array, cotangent: Callable[[Array], Array]) -> Array:
        """Run it forward to the neurons of its output, and back: the gradient at ``x``."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = torch.tensor(x, requires_grad=True)  # a copy: arrays may be read-only
            neurons = self._place.reduce(self._run(leaf), len(x))
            if not neurons.requires_grad:
                raise ModelError(f"{self._name}: expected a gradient at the input, found none")
            given = torch.from_numpy(cotangent(neurons.detach().numpy()))
            (gradient,) = torch.autograd.grad(neurons, leaf, given)
        return np.asarray(gradient.numpy())

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        try:
            output: torch.Tensor = self._module(x)
        except Exception as error:
            raise self._failed(error) from error
        return output

    def _failed(self, error: Exception) -> ModelError:
        text = textwrap.shorten(str(error), 240) or type(error).__name__
        return ModelError(f"{self._name}: no gradients: onnx2fx cannot convert it to PyTorch: {text}")


def _prepare(graph: GraphProto, names: Mapping[str, str]) -> None:
    # Weights get plain names: onnx2fx makes Python names of theirs, and then some are the same, or those of methods.
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        if node.op_type == "Gather":
            node.domain = _DOMAIN
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _prepare(attribute.g, names)


def _convert_gather(builder: Any, node: NodeProto) -> Any:
    # onnx2fx' own takes no negative indices, and the last step of a sequence has one.
    data, indices = map(builder.get_value, node.input)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return builder.call_function(_gather, args=(data, indices, axis))


def _gather(data: torch.Tensor, indices: torch.Tensor, axis: int) -> torch.Tensor:
    axis %= data.ndim
    taken = data.index_select(axis, indices.flatten() % data.shape[axis])
    return taken.reshape((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))


onnx2fx.register_op("Gather", _convert_gather, domain=_DOMAIN)


def _biased_gelu(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x + bias)


def _fast_gelu(x: torch.Tensor, bias: torch.Tensor | float = 0.0) -> torch.Tensor:
    return functional.gelu(x + bias, approximate="tanh")


def _quick_gelu(x: torch.Tensor, alpha: float = 1.702) -> torch.Tensor:
    return x * torch.sigmoid(alpha * x)


def _convert_gelu(builder: Any, node: NodeProto) -> Any:
    # ONNX Runtime's own, in files that it optimised.
    given = [builder.get_value(name) for name in node.input if name]
    given += [attribute.f for attribute in node.attribute]  # of QuickGelu alone: alpha
    return builder.call_function(_GELUS[node.op_type], args=tuple(given))


_GELUS = {"BiasGelu": _biased_gelu, "FastGelu": _fast_gelu, "Gelu": functional.gelu, "QuickGelu": _quick_gelu}
for _kind in _GELUS:
    onnx2fx.register_op(_kind, _convert_gelu, domain="com.microsoft")

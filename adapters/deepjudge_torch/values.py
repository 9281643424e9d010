"""What elementwise operations of an exported program make of numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from deepjudge_core.models.activations import numbers
from deepjudge_core.types import Array


def function_of(
    node: fx.Node, inputs: Sequence[str], constants: Mapping[str, torch.Tensor | None]
) -> Callable[..., Array] | None:
    """The function of an operation of one output; None where it needs what is no number.

    Args:
        inputs: Names of the nodes that are its arguments.
        constants: Values of the others.
    """
    known = {n.name: constants.get(n.name) for n in node.all_input_nodes if n.name not in inputs}
    if any(value is None for value in known.values()):
        return None

    def function(*values: Array) -> Array:
        # Copies, for operations in place.
        tensors = {**known, **{name: torch.tensor(value) for name, value in zip(inputs, values, strict=True)}}
        args, kwargs = fx.map_arg((node.args, {**node.kwargs}), lambda n: tensors[n.name])
        wide = {"dtype": _wide(kwargs["dtype"])} if kwargs.get("dtype") else {}
        here = {"device": "cpu"} if kwargs.get("device") else {}
        args = [_wide(value) if isinstance(value, torch.dtype) else value for value in args]
        answer: Array = node.target(*args, **{**kwargs, **wide, **here}).numpy()
        return answer

    return function


def constant(value: Any) -> torch.Tensor | None:
    """A weight or a number, as functions take it; None where it is more than a number for each channel."""
    tensor = torch.as_tensor(value).detach()
    if tensor.numel() > max(tensor.shape, default=1) and not bool((tensor == tensor.flatten()[0]).all()):
        return None
    few = numbers((tensor.float() if tensor.dtype.is_floating_point else tensor).cpu().numpy())
    return None if few is None else torch.from_numpy(few)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype.is_floating_point else dtype

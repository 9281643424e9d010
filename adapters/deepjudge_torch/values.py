"""What elementwise operations of an exported program make of numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from deepjudge_core.models.activations import numbers
from deepjudge_core.models.taps import Role
from deepjudge_core.types import Array
from deepjudge_torch.aten import COMPUTED, INTEGERS, ROLES, arguments, operation

# They spread a number over axes.
_SPREADING = {"broadcast_to", "expand", "expand_as", "reshape", "squeeze", "unsqueeze", "view"}


class Values:
    """The constants of a graph, and the functions that its elementwise operations are of numbers."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        """Look at nothing yet.

        Args:
            state: Weights by the names that the graph has for them.
        """
        self._state = state
        self._known: dict[fx.Node, torch.Tensor | None] = {}

    def function(self, node: fx.Node, inputs: Sequence[str]) -> Callable[..., Array]:
        """The function of an elementwise operation of one output.

        Args:
            inputs: Names of the nodes that are its arguments. The others are constants; where one is more than a
                number for each channel, the function raises an error.
        """
        if inputs and operation(node) in INTEGERS:  # the rounding is none of the function's
            return lambda value, *_: value

        def function(*values: Array) -> Array:
            # Copies, for operations in place.
            given = {name: torch.tensor(value) for name, value in zip(inputs, values, strict=True)}

            def tensor(operand: fx.Node) -> torch.Tensor | None:
                return given[operand.name] if operand.name in given else self._constant(operand)

            args, kwargs = fx.map_arg((node.args, {**node.kwargs}), tensor)
            if kwargs.get("dtype"):
                kwargs = {**kwargs, "dtype": _wide(kwargs["dtype"])}
            if kwargs.get("device"):
                kwargs = {**kwargs, "device": "cpu"}
            args = [_wide(value) if isinstance(value, torch.dtype) else value for value in args]
            args = ["cpu" if isinstance(value, torch.device) else value for value in args]
            answer: Array = node.target(*args, **kwargs).numpy()
            return answer

        return function

    def _constant(self, node: fx.Node) -> torch.Tensor | None:
        if node not in self._known:
            self._known[node] = self._find_constant(node)
        return self._known[node]

    def _find_constant(self, node: fx.Node) -> torch.Tensor | None:
        if node.op == "get_attr":
            return _few(self._state.get(node.target))
        name = operation(node)
        given = arguments(node) if name else {}
        fills = {"zeros": 0.0, "ones": 1.0, "full": given.get("fill_value"), "scalar_tensor": given.get("s")}
        fill = fills.get(name.removeprefix("new_").removesuffix("_like"))
        if fill is not None:
            return _few(fill)
        if name in _SPREADING or (ROLES.get(name) is Role.IDENTITY and name not in INTEGERS):
            return self._constant(node.args[0])
        if ROLES.get(name) in COMPUTED:
            return _few(torch.from_numpy(self.function(node, ())()))
        return None


def _few(value: Any) -> torch.Tensor | None:
    # A weight or a number, as functions take it; None where it is more than a number for each channel.
    if not isinstance(value, torch.Tensor | bool | int | float):
        return None
    tensor = torch.as_tensor(value).detach()
    if tensor.numel() > max(tensor.shape, default=1) and not bool((tensor == tensor.flatten()[0]).all()):
        return None
    few = numbers((tensor.float() if tensor.dtype.is_floating_point else tensor).cpu().numpy())
    return None if few is None else torch.from_numpy(few)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype.is_floating_point else dtype

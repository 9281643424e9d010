"""Graphs in PyTorch: ``onnx2fx``, and the operations that it lacks or has in a form that torch cannot export."""

import operator
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx2fx
import torch
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper
from torch import fx
from torch.nn import functional

from deepjudge_core.errors import ModelError
from deepjudge_onnx.graph import attribute
from deepjudge_onnx.sizes import DOMAIN

# Values of a tensor that may be sizes or axes.
_FEW = 64


def convert(model: ModelProto) -> fx.GraphModule:
    """Convert a model of one output; its weights are buffers.

    Args:
        model: Is changed.

    Raises:
        ModelError: When it cannot be converted; without the model's name in front.
    """
    _prepare(model.graph, {tensor.name: f"weight{i}" for i, tensor in enumerate(model.graph.initializer)})
    try:
        module = onnx2fx.convert(model).eval().requires_grad_(False)
    except onnx2fx.UnsupportedOpError as error:
        raise ModelError(f"onnx2fx does not support the operation {error.op_type}") from error
    except Exception as error:
        raise conversion_error(error) from error
    _fix_integers(module)
    return module


def conversion_error(error: Exception) -> ModelError:
    """What to say when a conversion, or what came of it, fails."""
    text = textwrap.shorten(str(error), 240) or type(error).__name__
    return ModelError(f"onnx2fx cannot convert it to PyTorch: {text}")


def _prepare(graph: GraphProto, names: Mapping[str, str]) -> None:
    # Weights get plain names: onnx2fx makes Python names of theirs, and then some are the same, or those of methods.
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        if _has_own(node):
            node.domain = DOMAIN
        for held in node.attribute:
            if held.HasField("g"):
                _prepare(held.g, names)


def _has_own(node: NodeProto) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _LAYERS:
        # Those that torch has: of all rows the same length, with the usual activations.
        supported = {"activations", "direction", "hidden_size", "input_forget", "layout", "linear_before_reset"}
        functions = [name.decode().lower() for name in attribute(node, "activations", [])]
        usual = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}[node.op_type]
        return (
            {held.name for held in node.attribute} <= supported
            and functions in ([], usual, 2 * usual)
            and not attribute(node, "input_forget", 0)
            and not any(node.input[4:5])
            and not any(node.input[7:])
            and (node.op_type != "GRU" or attribute(node, "linear_before_reset", 0) == 1)
        )
    return node.op_type in _OWN


def _fix_integers(module: fx.GraphModule) -> None:
    # Sizes and axes become part of the graph: of a buffer's values torch knows nothing while it exports.
    for node in list(module.graph.find_nodes(op="get_attr")):
        value = operator.attrgetter(node.target)(module)
        if isinstance(value, torch.Tensor) and not value.is_floating_point() and value.numel() <= _FEW:
            with module.graph.inserting_before(node):
                constant = module.graph.call_function(_integers, (value.tolist(), value.dtype))
            node.replace_all_uses_with(constant)
            module.graph.erase_node(node)
    module.recompile()


def _integers(values: Any, kind: torch.dtype) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=kind)
    # While torch exports, a tensor of more than one number does not know them.
    tensor.tolist = lambda: values
    return tensor


def _convert_gather(builder: Any, node: NodeProto) -> Any:
    # onnx2fx' own takes no negative indices, and the last step of a sequence has one.
    data, indices = map(builder.get_value, node.input)
    return builder.call_function(_gather, args=(data, indices, attribute(node, "axis", 0)))


def _gather(data: torch.Tensor, indices: torch.Tensor, axis: int) -> torch.Tensor:
    axis %= data.ndim
    if indices.ndim == 0 and indices.numel() == 1 and data.ndim > 1:
        return data.select(axis, int(indices))
    taken = data.index_select(axis, (indices.flatten() % data.shape[axis]).to(data.device))
    return taken.reshape((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))


def _convert_gemm(builder: Any, node: NodeProto) -> Any:
    # As torch has it, where it is no more than that: one operation, whose weight and bias are known as such.
    operands = [builder.get_value(name) for name in node.input if name]
    names = ("alpha", "beta", "transA", "transB")
    numbers = [attribute(node, name, default) for name, default in zip(names, (1.0, 1.0, 0, 0), strict=True)]
    return builder.call_function(_gemm, args=(*numbers, *operands))


def _gemm(
    alpha: float,
    beta: float,
    turn_a: int,
    turn_b: int,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor | None = None,
) -> torch.Tensor:
    a = a.t() if turn_a else a
    if alpha == 1 and (c is None or (beta == 1 and c.ndim == 1)):
        return functional.linear(a, b if turn_b else b.t(), c)
    product = alpha * (a @ (b.t() if turn_b else b))
    return product if c is None else product + beta * c


def _convert_reshape(builder: Any, node: NodeProto) -> Any:
    data, shape = map(builder.get_value, node.input)
    return builder.call_function(_reshape, args=(data, shape, attribute(node, "allowzero", 0)))


def _reshape(data: torch.Tensor, shape: Any, zeros: int) -> torch.Tensor:
    sizes = _list(shape)
    if not zeros:
        sizes = [data.shape[axis] if _is(size, 0) else size for axis, size in enumerate(sizes)]
    # Where only axes of one go away, saying so leaves it clear where the others are.
    if _squeezes(data.shape, sizes):
        return data.squeeze([axis for axis, size in enumerate(data.shape) if _is(size, 1)])
    return data.reshape(sizes)


def _squeezes(before: Sequence[Any], after: Sequence[Any]) -> bool:
    sizes = [size for size in before if not _is(size, 1)]
    if len(sizes) != len(after) or len(sizes) == len(before):
        return False
    pairs = [pair for pair in zip(sizes, after, strict=True) if all(isinstance(size, int) for size in pair)]
    pairs = [pair for pair in pairs if pair[1] != -1]
    return all(one == other for one, other in pairs) and len(pairs) >= len(sizes) - 1


def _convert_expand(builder: Any, node: NodeProto) -> Any:
    return builder.call_function(_expand, args=tuple(map(builder.get_value, node.input)))


def _expand(data: torch.Tensor, shape: Any) -> torch.Tensor:
    sizes = _list(shape)
    # Where it says 1, the axis stays.
    own = [1] * (len(sizes) - data.ndim) + list(data.shape)
    sizes = [1] * (len(own) - len(sizes)) + sizes
    return data.expand([own[axis] if _is(size, 1) else size for axis, size in enumerate(sizes)])


def _list(shape: Any) -> list[Any]:
    return shape.tolist() if isinstance(shape, torch.Tensor) else list(shape)


def _is(size: Any, number: int) -> bool:
    # Of a size that grows with the rows, nothing is asked.
    return isinstance(size, int) and size == number


def _convert_sizes(builder: Any, node: NodeProto) -> Any:
    data = builder.get_value(node.input[0])
    numbers = zip(attribute(node, "slope", []), attribute(node, "base", []), strict=True)
    return builder.call_function(_sizes, args=(data, list(map(tuple, numbers))))


def _sizes(x: torch.Tensor, numbers: list[tuple[int, int]]) -> list[Any]:
    return [slope * x.shape[0] + base if slope else base for slope, base in numbers]


def _convert_rows(builder: Any, node: NodeProto) -> Any:
    data = builder.get_value(node.input[0])
    value = torch.from_numpy(numpy_helper.to_array(attribute(node, "value", None)).copy())
    numbers = (value.dtype, list(value.shape), attribute(node, "axis", 0), attribute(node, "times", 1))
    if (value == value.flatten()[0]).all():  # zeros, mostly: states that a layer begins with
        return builder.call_function(_full_rows, args=(data, value.flatten()[0].item(), *numbers))
    return builder.call_function(_rows, args=(data, value.flatten().tolist(), *numbers))


def _full_rows(
    x: torch.Tensor, value: float, kind: torch.dtype, shape: list[int], axis: int, times: int
) -> torch.Tensor:
    sizes = [times * x.shape[0] if at == axis else size for at, size in enumerate(shape)]
    return torch.full(sizes, value, dtype=kind, device=x.device)


def _rows(
    x: torch.Tensor, values: list[float], kind: torch.dtype, shape: list[int], axis: int, times: int
) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=kind, device=x.device).reshape(shape)
    return tensor.expand([times * x.shape[0] if at == axis else size for at, size in enumerate(shape)])


# torch's gates among those of ONNX: input, forget, cell, output; reset, update, new.
_LAYERS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "LSTM": (torch.lstm, (0, 2, 3, 1)),
    "GRU": (torch.gru, (1, 0, 2)),
    "RNN": (torch.rnn_tanh, (0,)),
}


def _convert_recurrent(builder: Any, node: NodeProto) -> Any:
    # One operation for a layer, where onnx2fx has many for each step.
    inputs = [builder.get_value(name) if name else None for name in node.input]
    x, w, r, b, _, h, c = (*inputs, *[None] * 7)[:7]
    both = attribute(node, "direction", b"forward").decode()
    layout = attribute(node, "layout", 0)
    outputs = len(node.output)
    return builder.call_function(_recurrent, args=(node.op_type, both, layout, outputs, x, w, r, b, h, c))


def _recurrent(
    kind: str,
    direction: str,
    layout: int,
    outputs: int,
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None,
    h: torch.Tensor | None,
    c: torch.Tensor | None,
) -> Any:
    layer, gates = _LAYERS[kind]
    directions, hidden = r.shape[0], r.shape[2]
    x = x.transpose(0, 1) if layout else x
    x = x.flip(0) if direction == "reverse" else x
    begin = [
        x.new_zeros(directions, x.shape[1], hidden) if state is None else state.transpose(0, 1) if layout else state
        for state in (h, c)
    ]
    weights = []
    for at in range(directions):
        weights += [_in_order(tensor[at], gates) for tensor in (w, r)]
        if b is not None:
            weights += [_in_order(part, gates) for part in b[at].chunk(2)]
    states = begin if kind == "LSTM" else begin[0]
    steps, *last = layer(x, states, weights, b is not None, 1, 0.0, False, directions == 2, False)
    steps = steps.flip(0) if direction == "reverse" else steps
    # (time, rows, directions * hidden) to (time, directions, rows, hidden)
    y = steps.unsqueeze(1) if directions == 1 else steps.unflatten(2, (2, hidden)).transpose(1, 2)
    if layout:
        y, last = y.permute(2, 0, 1, 3), [state.transpose(0, 1) for state in last]
    return y if outputs == 1 else (y, *last)[:outputs]


def _in_order(tensor: torch.Tensor, gates: tuple[int, ...]) -> torch.Tensor:
    parts = tensor.chunk(len(gates))
    return torch.cat([parts[gate] for gate in gates]) if len(gates) > 1 else tensor


_OWN = {
    "Expand": _convert_expand,
    "Gather": _convert_gather,
    "Gemm": _convert_gemm,
    "Reshape": _convert_reshape,
    "Rows": _convert_rows,
    "Sizes": _convert_sizes,
    **dict.fromkeys(_LAYERS, _convert_recurrent),
}
for _kind, _converter in _OWN.items():
    onnx2fx.register_op(_kind, _converter, domain=DOMAIN)


def _biased_gelu(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x + bias)


def _fast_gelu(x: torch.Tensor, bias: torch.Tensor | float = 0.0) -> torch.Tensor:
    return functional.gelu(x + bias, approximate="tanh")


def _quick_gelu(x: torch.Tensor, alpha: float = 1.702) -> torch.Tensor:
    return x * torch.sigmoid(alpha * x)


def _convert_gelu(builder: Any, node: NodeProto) -> Any:
    # ONNX Runtime's own, in files that it optimised.
    operands = [builder.get_value(name) for name in node.input if name]
    operands += [held.f for held in node.attribute]  # of QuickGelu alone: alpha
    return builder.call_function(_GELUS[node.op_type], args=tuple(operands))


_GELUS = {"BiasGelu": _biased_gelu, "FastGelu": _fast_gelu, "Gelu": functional.gelu, "QuickGelu": _quick_gelu}
for _kind in _GELUS:
    onnx2fx.register_op(_kind, _convert_gelu, domain="com.microsoft")

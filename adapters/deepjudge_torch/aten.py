"""The operations of exported programs: what they do, as far as taps are concerned, and what they are given."""

import re
from typing import Any

import torch
from torch import fx

from deepjudge_core.models.taps import Role

INTEGERS = {
    f"{prefix}quantize_per_{kind}" for prefix in ("", "de") for kind in ("tensor", "channel", "channel_group", "token")
}
"""They make 8-bit integers of numbers, and the reverse."""

ROLES = {
    name: role
    for role, names in {
        Role.PROJECTION: """addmm baddbmm bmm embedding layer_norm linear matmul mm native_layer_norm rms_norm
            scaled_dot_product_attention""",
        Role.RECURRENT: "gru lstm rnn_relu rnn_tanh",
        Role.ACTIVATION: """celu clamp clamp_max clamp_min elu erf gelu glu gru_cell hardshrink hardsigmoid hardswish
            hardtanh leaky_relu log_sigmoid log_sigmoid_forward lstm_cell mish prelu relu relu6 rnn_relu_cell
            rnn_tanh_cell rrelu selu silu softplus softshrink tanh threshold""",
        Role.SIGMOID: "sigmoid",
        Role.SOFTMAX: "_safe_softmax _softmax softmax",
        Role.LOG_SOFTMAX: "_log_softmax log_softmax",
        Role.MULTIPLY: "index_put masked_fill where",
        Role.RESHAPE: "_unsafe_view flatten reshape reshape_as unflatten view view_as",
        Role.IDENTITY: f"""_to_copy alias alpha_dropout clone contiguous detach dropout fake_quant_per_channel
            fake_quantize_per_channel_affine fake_quantize_per_tensor_affine feature_dropout lift_fresh_copy to type_as
            {" ".join(INTEGERS)}""",
        Role.ELEMENTWISE: """abs add addcdiv addcmul div eq erfc exp exp2 expm1 ge gt heaviside le lerp log log1p
            logaddexp logical_and logical_not logical_or lt mul ne neg pow reciprocal rsqrt rsub sign sqrt square
            sub""",
    }.items()
    for name in names.split()
}
"""What operations do, by their names; some need more than these."""

_ALIASES = {
    "absolute": "abs",
    "clip": "clamp",
    "divide": "div",
    "fmax": "maximum",
    "fmin": "minimum",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "multiply": "mul",
    "negative": "neg",
    "special_erf": "erf",
    "special_expit": "sigmoid",
    "special_expm1": "expm1",
    "special_log1p": "log1p",
    "sgn": "sign",
    "subtract": "sub",
    "true_divide": "div",
}
CHANNELS = re.compile("conv|pool|(batch|group|instance)_norm|pixel_(un)?shuffle")
"""All that works on (rows, channels, ...)."""

MAX_POOLS = re.compile("(adaptive_)?max_pool[123]d")

MAXIMA = {"amax", "max"}
"""Of whole axes."""

CONSTANTS = re.compile("^new_|_like$|^choose_qparams")
"""Their values do not depend on those of their input, or are the scale of what is quantised as it runs."""

COMPUTED = {Role.CONVERSION, Role.ACTIVATION, Role.AFFINE, Role.ELEMENTWISE, Role.IDENTITY, Role.MULTIPLY, Role.SIGMOID}
"""They make each number of their output of one number of each input."""

# Beside torch's own operations, those that PT2E quantises with.
_NAMESPACES = ("aten", "quantized_decomposed")

MOVES = {"adjoint", "mH", "mT", "movedim", "moveaxis", "numpy_T", "permute", "swapaxes", "swapdims", "t", "transpose"}
TAKES = {"chunk", "index_select", "narrow", "select", "slice", "split", "split_with_sizes", "tensor_split", "unbind"}
"""Some places of an axis: where it is one, it is selected."""


def operation(node: fx.Node) -> str:
    """Name of an operation of torch, the plain one of several, and not in place; empty for other nodes."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace not in _NAMESPACES:
        return ""
    name: str = node.target.name().partition("::")[2].split(".")[0].removesuffix("_")
    return _ALIASES.get(name, name)


def quantised(node: fx.Node) -> fx.Node | None:
    """What an operation gives back that was quantised with the very numbers it takes; None for other operations."""
    before = node.args[0] if node.args else None
    if operation(node) not in INTEGERS or not isinstance(before, fx.Node) or operation(before) not in INTEGERS:
        return None
    pair = operation(node) == f"de{operation(before)}"
    same = pair and list(node.args[1:]) == list(before.args[1:])
    source = before.args[0]
    return source if same and isinstance(source, fx.Node) else None


def is_real(node: fx.Node) -> bool:
    """Whether a node makes real numbers of real numbers."""
    values = [one.meta.get("val") for one in (node, *node.all_input_nodes[:1])]
    return all(isinstance(value, torch.Tensor) and value.dtype.is_floating_point for value in values)


def arguments(node: fx.Node) -> dict[str, Any]:
    """What an operation of torch is given, by name, defaults included."""
    schema = node.target._schema.arguments
    values = {argument.name: argument.default_value for argument in schema}
    values.update(zip(values, node.args, strict=False))
    return {**values, **node.kwargs}

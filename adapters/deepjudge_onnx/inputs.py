"""What a graph takes: its one input, the constants in the place of others, and lengths of axes that it leaves free."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from deepjudge_core.errors import ModelError
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.layouts import shapes_of
from deepjudge_core.naming import option
from deepjudge_core.text import shortened
from deepjudge_core.types import Array

DTYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
}
"""Element types that a model may take, as numpy calls them."""

# Lengths of time, height and width that are tried where nobody says how long inputs are: the usual ones first.
_LENGTHS = (32, 224, 28, 8, 64, 16, 96, 128, 256, 299, 384, 512, 1, 1000, 4000, 16000, 48000, 160000)
_CHANNELS = (3, 1)
_MOST_VALUES = 2**20  # of an input that is tried

Shape = tuple[int | None, ...]
"""Lengths of axes; None where a graph takes any."""


def find_input(model: ModelProto) -> tuple[str, Shape, str]:
    """Name, shape and numpy type of the one input that is no weight.

    Raises:
        ModelError: When there is not one that can be; without the model's name in front.
    """
    inputs = _inputs(model)
    if len(inputs) != 1:
        several = f"; set each of the others to a number with {option('fix')}" if inputs else ""
        raise ModelError(f"expected a model with one input, found {len(inputs)}: {_listed(inputs)}{several}")
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in DTYPES:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise ModelError(f"expected an input of {', '.join(DTYPES.values())}, found {kind}")
    if len(tensor.shape.dim) < 2:
        raise ModelError(f"expected an input (n, ...), found one with {len(tensor.shape.dim)} axes")
    return inputs[0].name, _shape(inputs[0]), DTYPES[tensor.elem_type]


def with_constants(model: ModelProto, numbers: Mapping[str, float]) -> ModelProto:
    """The same model, with a number all over each of some inputs, which it then has no more.

    An axis of an input that may have any length is as long as that of the remaining one which has its name; where none
    has, as the axis at its place in an input of as many axes; else as there are rows.

    Args:
        model: The model.
        numbers: Input to number.

    Raises:
        ModelError: When there is no such input, or it cannot hold the number; without the model's name in front.
    """
    if not numbers:
        return model
    inputs = {value.name: value for value in _inputs(model)}
    unknown = [name for name in numbers if name not in inputs]
    if unknown:
        raise ModelError(f"there is no input {unknown[0]!r} to fix; its inputs are {_listed(inputs.values())}")
    rest = [value for name, value in inputs.items() if name not in numbers]
    if len(rest) != 1:
        raise ModelError(f"expected exactly one input without a fixed number, found {len(rest)}: {_listed(rest)}")
    changed = ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    del graph.input[:]
    graph.input.extend(value for value in model.graph.input if value.name not in numbers)
    nodes = list(graph.node)
    del graph.node[:]
    for name, number in numbers.items():
        _fill(graph, name, _element(inputs[name], number), _axes(inputs[name], rest[0]), rest[0].name)
    graph.node.extend(nodes)
    return changed


def shapes_to_try(taken: Shape, expected: InputSpec | None) -> Iterator[tuple[int, ...]]:
    """Shapes of one input to try a model with: at first what it will be given, then what models usually take.

    Args:
        taken: What the model says.
        expected: The inputs that it will be given, where that is known.
    """
    fixed = tuple(size for size in taken if size is not None)
    if len(fixed) == len(taken):
        yield fixed
        return
    usual = [_with_lengths(taken, length, channels) for length in _LENGTHS for channels in _channels(taken)]
    likely = shapes_of(expected) if expected else ()
    for shape in dict.fromkeys([*(shape for shape in likely if _fits(shape, taken)), *usual]):
        if shape in likely or math.prod(shape) <= _MOST_VALUES:
            yield shape


def other_lengths(shape: tuple[int, ...], axis: int) -> Iterator[tuple[int, ...]]:
    """Shapes that show whether a model takes other lengths of an axis, too: half and twice as many."""
    for length in (shape[axis] // 2, 2 * shape[axis]):
        if length:
            yield (*shape[:axis], length, *shape[axis + 1 :])


def sample(rows: int, shape: Sequence[int], dtype: str, rng: np.random.Generator) -> Array:
    """Random inputs: real numbers in 0..1, or whole ones that every vocabulary has."""
    values = rng.random((rows, *shape)) if np.dtype(dtype).kind == "f" else rng.integers(0, 2, (rows, *shape))
    return values.astype(dtype)


@dataclass(frozen=True)
class _Axis:
    # Its length, or without one the axis of the remaining input that it is as long as.
    length: int = 0
    like: int = 0


def _axes(value: ValueInfoProto, rest: ValueInfoProto) -> list[_Axis]:
    axes, others = value.type.tensor_type.shape.dim, rest.type.tensor_type.shape.dim
    names = {axis.dim_param: place for place, axis in enumerate(others) if axis.dim_param}
    free = {place for place, axis in enumerate(others) if not axis.dim_value and len(axes) == len(others)}
    return [
        _Axis(axis.dim_value, names.get(axis.dim_param, place if place in free else 0))
        for place, axis in enumerate(axes)
    ]


def _fill(graph: GraphProto, name: str, element: Array, axes: Sequence[_Axis], source: str) -> None:
    # Give a tensor of this name, an element all over it.
    if all(axis.length for axis in axes):
        graph.initializer.append(numpy_helper.from_array(np.full([axis.length for axis in axes], element), name))
        return
    lengths = [f"{name}/length/{place}" for place in range(len(axes))]
    graph.node.append(helper.make_node("Shape", [source], [f"{name}/like"]))
    for axis, length in zip(axes, lengths, strict=True):
        if axis.length:
            graph.initializer.append(numpy_helper.from_array(np.array([axis.length]), length))
        else:
            graph.initializer.append(numpy_helper.from_array(np.array([axis.like]), f"{length}/axis"))
            graph.node.append(helper.make_node("Gather", [f"{name}/like", f"{length}/axis"], [length]))
    graph.node.append(helper.make_node("Concat", lengths, [f"{name}/lengths"], axis=0))
    value = numpy_helper.from_array(element.reshape(1))
    graph.node.append(helper.make_node("ConstantOfShape", [f"{name}/lengths"], [name], value=value))


def _element(value: ValueInfoProto, number: float) -> Array:
    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    element = np.asarray(number).astype(kind)
    if element.dtype.kind not in "biuf" or not (element.dtype.kind == "f" or element == number):
        raise ModelError(f"expected a number for the input {value.name!r} of {kind}, found {number:g}")
    return np.asarray(element)


def _inputs(model: ModelProto) -> list[ValueInfoProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _shape(value: ValueInfoProto) -> Shape:
    return tuple(axis.dim_value if axis.dim_value > 0 else None for axis in value.type.tensor_type.shape.dim)


def _listed(inputs: Any) -> str:
    return shortened(", ".join(value.name for value in inputs)) or "none"


def _fits(shape: tuple[int, ...], taken: Shape) -> bool:
    return len(shape) == len(taken) and all(size in (None, own) for own, size in zip(shape, taken, strict=True))


def _channels(taken: Shape) -> list[tuple[int, int] | None]:
    # Of images all of whose axes are free: places and numbers of channels.
    if len(taken) < 3 or any(size is not None for size in taken):
        return [None]
    return [(place, count) for place in (0, len(taken) - 1) for count in _CHANNELS]


def _with_lengths(taken: Shape, length: int, channels: tuple[int, int] | None) -> tuple[int, ...]:
    place, count = channels or (-1, 0)
    return tuple(count if axis == place else size or length for axis, size in enumerate(taken))

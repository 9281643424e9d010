"""What can be asked of an ONNX graph without knowing what its operations mean, and parts of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

Shapes = Mapping[str, tuple[int | None, ...]]
"""Tensor name to its shape, None for axes of unknown length."""

SIZES = {"Shape", "Size"}
"""What their outputs are does not depend on the values of their input."""


ORDER = "deepjudge/order"
"""Name of the input that says in which order places are taken."""


def infer_shapes(model: ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Shapes of all tensors, as far as they are known without running the model."""
    return {v.name: tuple(d.dim_value or None for d in v.type.tensor_type.shape.dim) for v in infer_values(model)}


def infer_values(model: ModelProto) -> list[ValueInfoProto]:
    """What is said of the tensors whose number of axes is known without running the model."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return [value for value in values if value.type.tensor_type.HasField("shape")]


def dependents(model: ModelProto, source: str) -> list[NodeProto]:
    """Nodes whose outputs depend on the values of the tensor ``source``, not only on its shape."""
    names, nodes = {source}, []
    for node in model.graph.node:
        if node.op_type not in SIZES and names & reads(node):
            nodes.append(node)
            names.update(filter(None, node.output))
    return nodes


def quantised(model: ModelProto, source: str) -> list[str]:
    """Kinds of operations that compute with integers in place of real numbers."""
    kinds = {node.op_type for node in dependents(model, source)}
    return sorted(kind for kind in kinds if "QLinear" in kind or kind.endswith(("Integer", "QGemm", "QuantizeLinear")))


def external_files(model: ModelProto) -> list[str]:
    """Names of the files beside a model that hold its weights, in alphabetical order."""
    external = [tensor for tensor in tensors(model) if onnx.external_data_helper.uses_external_data(tensor)]
    return sorted({onnx.external_data_helper.ExternalDataInfo(tensor).location for tensor in external})


def is_half(model: ModelProto) -> bool:
    """Whether a model computes with numbers of 16 bits, whatever it takes and gives."""
    return any(tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) for tensor in model.graph.initializer)


def cut(model: ModelProto, outputs: Sequence[str]) -> ModelProto:
    """The part of a model that computes some of its tensors, and no more than that."""
    needed = set(outputs)
    nodes: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed |= reads(node)
    part = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = part.graph
    graph.name = model.graph.name
    graph.node.extend(reversed(nodes))
    weights = {tensor.name for tensor in model.graph.initializer}
    graph.input.extend(v for v in model.graph.input if v.name in needed - weights)
    graph.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    graph.sparse_initializer.extend(t for t in model.graph.sparse_initializer if t.values.name in needed)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    # Without the shapes, ONNX Runtime crashes over some models of float16.
    graph.value_info.extend(v for v in model.graph.value_info if v.name in needed.difference(outputs))
    return part


def reordered(model: ModelProto, name: str, axis: int) -> ModelProto:
    """A model that takes the places of one of its tensors in the order of a further input, :data:`ORDER`.

    Args:
        model: Is changed.
        name: Of the tensor.
        axis: Of the places.
    """
    graph, nodes = model.graph, list[NodeProto]()
    for node in graph.node:
        nodes.append(node)
        if name in node.output:
            own = f"{name}/{ORDER}"
            outputs = [own if output == name else output for output in node.output]
            del node.output[:]
            node.output.extend(outputs)
            nodes.append(onnx.helper.make_node("Gather", [own, ORDER], [name], axis=axis))
    copied = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copied)
    graph.input.append(onnx.helper.make_tensor_value_info(ORDER, TensorProto.INT64, [None]))
    return model


def pool_first(graph: GraphProto) -> None:
    """Put each ReLU that only max pooling uses behind the pool.

    There it gives the same numbers and the same gradients, of a quarter of the places: the greatest of several is cut
    off at 0 as each of them is.

    Args:
        graph: Is changed.
    """
    users = Counter(name for node in graph.node for name in reads(node)) + Counter(out.name for out in graph.output)
    makers = {name: node for node in graph.node for name in node.output}
    for pool in [node for node in graph.node if node.op_type == "MaxPool" and len(node.output) == 1]:
        relu = makers.get(pool.input[0])
        if relu is None or relu.op_type != "Relu" or users[relu.output[0]] > 1:
            continue
        pooled = f"{relu.output[0]} pooled"
        after = NodeProto(op_type="Relu", name=relu.name, input=[pooled], output=pool.output)
        pool.input[0], pool.output[0] = relu.input[0], pooled
        relu.CopyFrom(pool)
        pool.CopyFrom(after)


def reads(node: NodeProto) -> set[str]:
    """Names of the tensors that a node reads; the bodies of loops and branches read those of the graph around them."""
    names = set(filter(None, node.input))
    for body in bodies(node):
        own = {v.name for v in body.input} | {t.name for t in body.initializer}
        own = own.union(*(inner.output for inner in body.node))
        names |= set().union(*map(reads, body.node)) - own
    return names


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """An attribute of a node, as Python has it."""
    entry = next((a for a in node.attribute if a.name == name), None)
    return default if entry is None else onnx.helper.get_attribute_value(entry)


def constants(model: ModelProto) -> dict[str, TensorProto]:
    """Weights, and what nodes give that only hold numbers."""
    numbers = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            held = node.attribute[0]
            if held.name == "value":
                numbers[node.output[0]] = held.t
            elif held.name in ("value_float", "value_floats", "value_int", "value_ints"):
                numbers[node.output[0]] = numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(held)))
    return numbers


def bodies(node: NodeProto) -> list[GraphProto]:
    """What a loop or a branch runs."""
    return [body for a in node.attribute for body in ([a.g] if a.HasField("g") else list(a.graphs))]


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All tensors that a model holds, wherever they are; of sparse ones, their parts."""
    yield from _tensors(model.graph)
    for function in model.functions:
        yield from _tensors(function)


def _tensors(body: GraphProto | FunctionProto) -> Iterator[TensorProto]:
    sparse = []
    if isinstance(body, GraphProto):
        yield from body.initializer
        sparse += body.sparse_initializer
    for node in body.node:
        for held in node.attribute:
            yield from [held.t] if held.HasField("t") else held.tensors
            sparse += [held.sparse_tensor] if held.HasField("sparse_tensor") else held.sparse_tensors
        for inner in bodies(node):
            yield from _tensors(inner)
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)

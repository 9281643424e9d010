"""Graphs without branches that are always, or never, taken: what is inside one can neither be seen nor named.

Exporters write them where a model asks for the length of an axis, or for a switch of its own: ``torch.squeeze``, an
``if`` in TorchScript.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from deepjudge_core.types import Array
from deepjudge_onnx.graph import SIZES, attribute, bodies, dependents, infer_values, reads
from deepjudge_onnx.weights import Weights

_TRIALS = ((1, 0), (2, 1), (1009, 2))
"""Lengths for axes of unknown length, and what is between any two of them: all one, all different, all long."""


def without_branches(model: ModelProto, source: str, weights: Weights) -> ModelProto:
    """The same model, with what is run by each ``If`` whose condition never changes; the one given where none is there.

    Args:
        source: Name of the model's input.
        weights: The files that weights of it stay in.
    """
    settled: set[str] = set()
    while True:
        choice = next((n for n in model.graph.node if n.op_type == "If" and n.output[0] not in settled), None)
        if choice is None:
            return model
        taken = _condition(model, source, choice.input[0], weights)
        body = attribute(choice, "then_branch" if taken else "else_branch", None)
        if taken is None or body.sparse_initializer:
            settled.add(choice.output[0])
        else:
            model = _with_body(model, choice, body)


def undecided(model: ModelProto, source: str, kinds: set[str]) -> str | None:
    """Name of an ``If`` that depends on the input and has operations of some kinds inside; None where there is none."""

    def inside(node: NodeProto) -> Iterator[NodeProto]:
        for body in bodies(node):
            for inner in body.node:
                yield inner
                yield from inside(inner)

    choices = (node for node in dependents(model, source) if node.op_type == "If")
    found = (node.output[0] for node in choices if any(inner.op_type in kinds for inner in inside(node)))
    return next(found, None)


def _condition(model: ModelProto, source: str, name: str, weights: Weights) -> bool | None:
    """What a condition is for every input; None where it is not the same for all."""
    dynamic = {source}.union(*(node.output for node in dependents(model, source)))
    if name in dynamic:
        return None
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # what a file says of shapes need not be so
    axes = {value.name: value.type.tensor_type.shape.dim for value in infer_values(bare)}
    try:
        answers = {_evaluate(model, name, dynamic, _sizes(axes, *trial), weights) for trial in _TRIALS}
    except Exception:  # ONNX Runtime's, and of tensors of which nobody knows the shape
        return None
    return answers.pop() if len(answers) == 1 else None


def _sizes(axes: Mapping[str, Sequence[Any]], first: int, step: int) -> dict[str, Array]:
    """Shapes of tensors; lengths that are not known count on from the first, and those of one name are the same."""
    lengths, named = itertools.count(first, step), dict[str, int]()

    def length(axis: Any) -> int:
        if axis.dim_value:
            return int(axis.dim_value)
        return named.setdefault(axis.dim_param, next(lengths)) if axis.dim_param else next(lengths)

    return {name: np.array([length(axis) for axis in of_one], np.int64) for name, of_one in axes.items()}


def _evaluate(model: ModelProto, name: str, dynamic: set[str], sizes: Mapping[str, Array], weights: Weights) -> bool:
    """What a tensor is that depends on shapes and weights alone."""
    needed = {name}
    nodes: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            of_sizes = node.op_type in SIZES and node.input[0] in dynamic
            nodes.append(_constant(node, sizes[node.input[0]]) if of_sizes else node)
            needed |= reads(nodes[-1])
    constants = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    graph = helper.make_graph(nodes[::-1], "condition", [], [ValueInfoProto(name=name)], constants)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    (answer,) = weights.session(part, ["CPUExecutionProvider"]).run([name], {})
    return bool(np.reshape(answer, ()))


def _constant(node: NodeProto, shape: Array) -> NodeProto:
    """What a ``Shape`` or ``Size`` gives for a shape."""
    kept = slice(attribute(node, "start", None), attribute(node, "end", None))
    value = np.asarray(shape[kept] if node.op_type == "Shape" else shape.prod())
    return helper.make_node("Constant", [], node.output, value=numpy_helper.from_array(value))


def _with_body(model: ModelProto, choice: NodeProto, body: GraphProto) -> ModelProto:
    """The same model, with the operations of a body in the place of an ``If``; their tensors are named after it."""
    made = [name for node in body.node for name in node.output if name]
    given = [value.name for value in body.output]
    names = {name: f"{choice.output[0]}/{name}" for name in (*made, *(tensor.name for tensor in body.initializer))}
    direct = {name for name in given if name in made and given.count(name) == 1}
    names |= {inner: outer for inner, outer in zip(given, choice.output, strict=True) if inner in direct}
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in body.node]
    for node in nodes:
        _rename(node, names)
    nodes += [
        helper.make_node("Identity", [names.get(inner, inner)], [outer])
        for inner, outer in zip(given, choice.output, strict=True)
        if inner not in direct and outer
    ]
    changed = ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    place = list(model.graph.node).index(choice)
    rest = list(changed.graph.node)[place + 1 :]
    del graph.node[place:]
    graph.node.extend([*nodes, *rest])
    for kind in ("initializer", "value_info"):
        for held in getattr(body, kind):
            copy = getattr(graph, kind).add()
            copy.CopyFrom(held)
            copy.name = names.get(held.name, held.name)
    return changed


def _rename(node: NodeProto, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for body in bodies(node):  # which read what is around them
        for inner in body.node:
            _rename(inner, names)
        for value in body.output:
            value.name = names.get(value.name, value.name)

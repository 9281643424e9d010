"""What a loaded function computes, operation by operation, in a graph of our own.

The signatures of a SavedModel call functions that call functions; what is inside a call can neither be listened to nor
named. So the operations are created again, one by one, in the graph of whoever asks: those of a called function in the
place of its call, those of a branch that never changes in the place of the choice, and none that the results do not
need (a model may count its calls, or print). Variables are not frozen into constants: a copy costs no memory for
weights, and there is no limit of 2 GB to a graph. Loops stay calls: TensorFlow has gradients of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from deepjudge_core.errors import ModelError

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
"""Operations that call a function."""

CHOICES = ("If", "StatelessIf")
"""Operations that call one of two functions."""


def argument(function: Any) -> Any:
    """The placeholder of the one input of a concrete function."""
    captured = {inner.name for _, inner in function.graph.captures}
    (placeholder,) = (tensor for tensor in function.graph.inputs if tensor.name not in captured)
    return placeholder


def inline(function: Any, x: Any, result: Any) -> Any:
    """Compute a result of a function in the graph of ``x``.

    Args:
        function: A concrete function of one input.
        x: What takes the place of its input.
        result: The tensor in the function's own graph.

    Raises:
        ModelError: When the graph has a loop in itself, as TensorFlow 1 made them.
    """
    source = function.graph
    definition = source.as_graph_def()
    # Without nodes: only the functions, so that those that loops call are known in the graph.
    library = tf.compat.v1.GraphDef(library=definition.library, versions=definition.versions)
    with x.graph.as_default():
        tf.graph_util.import_graph_def(library, name="")
    available = {inner.name: x.graph.capture(outer) for outer, inner in source.captures} | {argument(function).name: x}
    functions = {body.signature.name: body for body in library.library.function}
    (copied,) = _copy(source, [result], available, functions, x.graph)
    return copied


def _copy(
    source: Any, results: Sequence[Any], available: Mapping[str, Any], functions: Mapping[str, Any], graph: Any
) -> list[Any]:
    """Copy what ``results`` need into ``graph``, where the tensors of ``source`` in ``known`` are there already."""
    copies = dict(available)
    needed = _dependencies(results, available)
    if "NextIteration" in {operation.type for operation in needed.values()}:
        raise ModelError(
            "expected loops that call functions, found one inlined in the graph, as in TensorFlow 1; export it to ONNX"
        )
    for operation in source.get_operations():
        if operation.name not in needed:
            continue
        inputs = [copies[tensor.name] for tensor in operation.inputs]
        outputs = _call(operation, inputs, functions, graph) or _create(operation, inputs, graph)
        copies |= {old.name: new for old, new in zip(operation.outputs, outputs, strict=True)}
    return [copies[result.name] for result in results]


def _call(operation: Any, inputs: Sequence[Any], functions: Mapping[str, Any], graph: Any) -> list[Any] | None:
    called = "f" if operation.type in CALLS else ""
    if operation.type in CHOICES:
        condition, *inputs = inputs
        taken = tf.get_static_value(condition)
        called = "" if taken is None else "then_branch" if taken else "else_branch"
    if not called:
        return None
    with graph.as_default():  # where the functions are that it calls in turn
        body = function_def_to_graph(functions[operation.get_attr(called).name])
    arguments = {tensor.name: value for tensor, value in zip(body.inputs, inputs, strict=True)}
    return _copy(body, body.outputs, arguments, functions, graph)


def _create(operation: Any, inputs: Sequence[Any], graph: Any) -> Sequence[Any]:
    attributes = dict(operation.node_def.attr)
    attributes.pop("_class", None)  # to stand on the device of another operation, by a name that it had
    if operation.type == "IdentityN":
        # A gradient of somebody's own for a part of the graph, which need not have been saved with it. The part is
        # in the graph too: its own gradient is that of what the model computes.
        attributes.pop("_gradient_op_type", None)
    outputs: Sequence[Any] = graph.create_op(
        operation.type,
        inputs,
        [output.dtype for output in operation.outputs],
        name=operation.name,
        attrs=attributes,
        op_def=operation.op_def,
    ).outputs
    return outputs


def _dependencies(results: Sequence[Any], available: Mapping[str, Any]) -> dict[str, Any]:
    """The operations, by name, that the results are computed by from what is known."""
    needed: dict[str, Any] = {}
    tensors = list(results)
    while tensors:
        tensor = tensors.pop()
        if tensor.name not in available and tensor.op.name not in needed:
            needed[tensor.op.name] = tensor.op
            tensors += tensor.op.inputs
    return needed

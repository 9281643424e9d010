"""Graphs without what exporters compute from the sizes of the input: constants, and functions of the number of rows."""

from collections.abc import Callable, Sequence

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, helper, numpy_helper

from deepjudge_core.errors import ModelError
from deepjudge_core.types import Array
from deepjudge_onnx.graph import dependents, reads

DOMAIN = "deepjudge"
"""Of operations that only the conversion to PyTorch knows."""

Evaluate = Callable[[Sequence[str], Array], Sequence[Array]]
"""Gives the values of tensors for an input."""


def with_free_rows(model: ModelProto) -> ModelProto:
    """The same model, which says of no axis of rows how long it is; it may take but one number of them all the same."""
    weights = {tensor.name for tensor in model.graph.initializer}
    changed = ModelProto()
    changed.CopyFrom(model)
    for value in changed.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if value.name not in weights and dimensions and dimensions[0].dim_value:
            dimensions[0].dim_param = "rows"
            # What was found for that number of rows.
            del changed.graph.value_info[:]
            for output in changed.graph.output:
                output.type.tensor_type.ClearField("shape")
    return changed


def without_sizes(
    model: ModelProto, source: str, samples: Sequence[Array], evaluate: Evaluate, name: str
) -> ModelProto:
    """The same model, with each tensor that does not depend on the input's values worked out.

    What is the same for any number of rows is a weight. Sizes that grow with the rows are ``Sizes``, and tensors that
    are the same for each row are ``Rows``, both of this tool's own domain, and both of the input.

    Args:
        source: Name of the input.
        samples: Inputs of two numbers of rows.
        evaluate: Runs the model.
        name: Of the model, for messages.

    Raises:
        ModelError: When a tensor depends on the rows in another way.
    """
    nodes = dependents(model, source)
    own = {name for node in nodes for name in node.output}
    needed = set().union(*map(reads, nodes)) - own
    names = [name for node in model.graph.node for name in node.output if name in needed]
    changed = ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    if names:
        rows = [len(x) for x in samples]
        values = [map(np.asarray, evaluate(names, x)) for x in samples]
        for tensor, first, second in zip(names, *values, strict=True):
            if first.shape == second.shape and np.array_equal(first, second):
                changed.graph.initializer.append(numpy_helper.from_array(first, tensor))
                continue
            node = _of_rows(tensor, source, (first, second), rows)
            if node is None:
                raise ModelError(
                    f"{name}: expected sizes that grow with the number of rows, found others in {tensor!r}"
                )
            changed.graph.node.append(node)
    changed.graph.node.extend(nodes)
    return changed


def _of_rows(name: str, source: str, values: tuple[Array, Array], rows: Sequence[int]) -> NodeProto | None:
    first, second = values
    if first.dtype.kind == "i" and first.shape == second.shape and first.ndim == 1:
        slope = (second - first) // (rows[1] - rows[0])
        return _node("Sizes", source, name, slope=slope.tolist(), base=(first - slope * rows[0]).tolist())
    axes = [axis for axis, sizes in enumerate(zip(first.shape, second.shape, strict=False)) if sizes[0] != sizes[1]]
    if first.ndim == second.ndim and len(axes) == 1:
        (axis,) = axes
        each = first.take([0], axis)
        if second.shape[axis] * rows[0] == first.shape[axis] * rows[1] and (first == each).all():
            value = numpy_helper.from_array(each)
            return _node("Rows", source, name, value=value, axis=axis, times=first.shape[axis] // rows[0])
    return None


def _node(kind: str, source: str, name: str, **attributes: object) -> NodeProto:
    node = helper.make_node(kind, [source], [name], domain=DOMAIN)
    for key, value in attributes.items():
        # An empty list says no type.
        kind_of = AttributeProto.INTS if isinstance(value, list) else None
        node.attribute.append(helper.make_attribute(key, value, attr_type=kind_of))
    return node

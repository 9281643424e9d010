"""GELUs that exporters spell out, as one operation: so that their output, not that of a factor of it, is a tap."""

import math

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from deepjudge_onnx.graph import constants

_RUNTIME = "com.microsoft"


def with_gelus(model: ModelProto) -> ModelProto:
    """The same model, with ``Gelu`` for ``x * (1 + erf(x / sqrt(2))) * 0.5``; the one given where there is none."""
    if not any(node.op_type == "Erf" for node in model.graph.node):
        return model
    changed = ModelProto()
    changed.CopyFrom(model)
    numbers = {
        name: float(numpy_helper.to_array(tensor).reshape(()))
        for name, tensor in constants(changed).items()
        if np.prod(tensor.dims) == 1
    }
    producers = {name: node for node in changed.graph.node for name in node.output}
    for node in changed.graph.node:
        source = _source(node, producers, numbers)
        if source is not None:
            node.op_type, node.domain = "Gelu", _RUNTIME
            node.input[:] = [source]
    return changed


def _source(node: NodeProto, producers: dict[str, NodeProto], numbers: dict[str, float]) -> str | None:
    # What the whole is a GELU of, where a node is the last of its operations.
    def split(name: str, kind: str, number: float) -> str | None:
        # The other operand of a number.
        producer = producers.get(name)
        if producer is None or producer.op_type != kind:
            return None
        at = next((at for at, operand in enumerate(producer.input) if _near(numbers.get(operand), number)), None)
        return None if at is None or (kind == "Div" and at == 0) else str(producer.input[1 - at])

    product = producers.get(split(node.output[0], "Mul", 0.5) or "")
    if product is None or product.op_type != "Mul":
        return None
    for source, factor in (product.input, product.input[::-1]):
        erf = producers.get(split(factor, "Add", 1.0) or "")
        if erf is not None and erf.op_type == "Erf":
            inner = split(erf.input[0], "Div", math.sqrt(2)) or split(erf.input[0], "Mul", math.sqrt(0.5))
            if inner == source:
                return inner
    return None


def _near(value: float | None, target: float) -> bool:
    return value is not None and math.isclose(value, target, rel_tol=1e-4)

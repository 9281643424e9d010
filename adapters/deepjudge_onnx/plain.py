"""A graph in ONNX's own operations, where ONNX Runtime fused them or an exporter wrote one that is none."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from deepjudge_onnx.graph import attribute

_FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
# The attributes that ONNX Runtime stores in a row for an activation inside a convolution.
_PARAMETERS = {"HardSigmoid": ("alpha", "beta"), "LeakyRelu": ("alpha",)}
_ONE = "deepjudge/one"
_OPSET = 13  # of ONNX's own operations, beside a graph that has none

QUANTISED_ENDS = {"QLinearSigmoid", "QLinearSoftmax"}
"""Operations of ``com.microsoft`` that may end a quantised classifier."""


def plain(model: ModelProto) -> ModelProto:
    """The same model, with each of these operations in its parts; the one given where it has none of them.

    - ``FusedConv`` and ``FusedGemm``, with their activation, in files that ONNX Runtime optimised;
    - ``Erfc``, which Keras' exporter writes for an exact GELU and ONNX does not have;
    - ``Scaler``, with which pipelines of scikit-learn begin, and ``ZipMap``, which makes a dictionary of each row of
      their probabilities.
    """
    kinds = {node.op_type for node in model.graph.node}
    if not kinds & {"Erfc", "Scaler", "ZipMap", *_FUSED}:
        return model
    changed = ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    del graph.node[:]
    for node in model.graph.node:
        graph.node.extend(_parts(node, graph))
    maps = {node.output[0] for node in model.graph.node if node.op_type == "ZipMap"}
    for output in graph.output:
        if output.name in maps:
            output.ClearField("type")
    if not {"", "ai.onnx"} & {opset.domain for opset in model.opset_import}:
        changed.opset_import.append(helper.make_opsetid("", _OPSET))
    if "Erfc" in kinds:
        kind = _element_type(model, next(node.output[0] for node in model.graph.node if node.op_type == "Erfc"))
        graph.initializer.append(numpy_helper.from_array(np.array(1, helper.tensor_dtype_to_np_dtype(kind)), _ONE))
    return changed


def with_real_scores(model: ModelProto) -> ModelProto:
    """The same model, with what goes into each quantised softmax and sigmoid as real numbers beside; nothing reads it.

    The operations themselves stay, since ONNX Runtime computes them by tables of its own.
    """
    if not QUANTISED_ENDS & {node.op_type for node in model.graph.node}:
        return model
    changed = ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    known: set[str] = set()
    for node in model.graph.node:
        if node.op_type in QUANTISED_ENDS and real_score(node) not in known:
            known.add(real_score(node))
            numbers = [name for name in node.input[:3] if name]  # scale, and zero point if there is one
            changed.graph.node.append(helper.make_node("DequantizeLinear", numbers, [real_score(node)]))
        changed.graph.node.append(node)
    return changed


def real_score(node: NodeProto) -> str:
    """Name of the real numbers that go into a quantised softmax or sigmoid."""
    return f"{node.input[0]}/real"


def _parts(node: NodeProto, graph: Any) -> Iterator[NodeProto]:
    if node.op_type == "ZipMap":
        yield helper.make_node("Identity", node.input, node.output)
        return
    if node.op_type == "Scaler":
        names = [f"{node.output[0]}/{part}" for part in ("offset", "scale", "real", "centred")]
        for name, key, usual in zip(names, ("offset", "scale"), (0.0, 1.0), strict=False):
            values = np.array(attribute(node, key, [usual]), np.float32)
            graph.initializer.append(numpy_helper.from_array(values, name))
        offset, scale, real, centred = names
        yield helper.make_node("Cast", node.input, [real], to=TensorProto.FLOAT)
        yield helper.make_node("Sub", [real, offset], [centred])
        yield helper.make_node("Mul", [centred, scale], node.output)
        return
    if node.op_type == "Erfc":
        inner = f"{node.output[0]}/erf"
        yield helper.make_node("Erf", node.input, [inner])
        yield helper.make_node("Sub", [_ONE, inner], node.output)
        return
    activation = attribute(node, "activation", b"").decode() if node.op_type in _FUSED else ""
    if not activation:
        yield node
        return
    before = f"{node.output[0]}/{_FUSED[node.op_type]}"
    first = NodeProto(op_type=_FUSED[node.op_type], input=node.input[:3], output=[before])
    first.attribute.extend(a for a in node.attribute if not a.name.startswith("activation"))
    yield first
    if len(node.input) > 3:  # what is added before the activation
        yield helper.make_node("Add", [before, node.input[3]], [f"{before}/sum"])
        before = f"{before}/sum"
    values = attribute(node, "activation_params", ())
    attributes = {a.name: a for a in node.attribute if a.name.startswith("activation_")}
    parameters = dict(zip(_PARAMETERS.get(activation, ()), values, strict=False))
    parameters |= {
        name.removeprefix("activation_"): helper.get_attribute_value(a)
        for name, a in attributes.items()
        if name != "activation_params"
    }
    inputs = [before]
    if activation == "Clip":  # its limits are inputs
        inputs += [f"{before}/low", f"{before}/high"]
        limits = zip(inputs[1:], values, strict=True)
        graph.initializer.extend(numpy_helper.from_array(np.array(value, np.float32), name) for name, value in limits)
    yield helper.make_node(activation, inputs, node.output, **parameters)


def _element_type(model: ModelProto, name: str) -> int:
    values = (*model.graph.value_info, *onnx.shape_inference.infer_shapes(model).graph.value_info)
    kinds = (value.type.tensor_type.elem_type for value in values if value.name == name)
    return int(next((kind for kind in kinds if kind), TensorProto.FLOAT))

"""A tiny model of the adapter's own, taken through all that is asked of models."""

import linecache
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from deepjudge_core.models.adapters import rehearse
from deepjudge_onnx.model import open_onnx

_SHAPE = (1, 4, 4)


def warm_up(*, gradients: bool) -> None:
    """Open a file and run it, with gradients only where they are wanted: PyTorch, which gives them, takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        path.write_bytes(_network().SerializeToString())
        rehearse(open_onnx(path, name=path.name, batch_size=None, output=None), gradients=gradients)
    # torch.fx reads the source of functions without a name, to write them down.
    for module in [module for name, module in sys.modules.items() if name.startswith("onnx2fx.")]:
        linecache.getlines(str(module.__file__))


def _network() -> ModelProto:
    # Of the layers that most networks are made of, and an activation of several operations; a picture's rows are the
    # steps of the recurrent layer.
    shapes = {"kernel": (2, 1, 3, 3), "input": (1, 12, 4), "state": (1, 12, 3), "matrix": (3, 2)}
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()]
    weights += [numpy_helper.from_array(np.array(value), name) for name, value in (("steps", [4, -1, 4]), ("last", -1))]
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Sigmoid", ["r"], ["g"]),
        helper.make_node("Mul", ["r", "g"], ["p"]),
        helper.make_node("ReduceMean", ["p"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Transpose", ["m"], ["s"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["s", "steps"], ["t"]),
        helper.make_node("LSTM", ["t", "input", "state"], ["h"], hidden_size=3),
        helper.make_node("Gather", ["h", "last"], ["l"], axis=0),
        helper.make_node("Squeeze", ["l"], ["q"], axes=[0]),
        helper.make_node("MatMul", ["q", "matrix"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"], axis=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *_SHAPE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "network", [x], [y], weights)
    return helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 12)])

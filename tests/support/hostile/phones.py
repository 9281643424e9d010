"""Hostile TFLite files, made by the classes of their schema."""

from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hostile.ground import CLASSES, FEATURES, Case, Place
from hostile.plain import ODD

_KINDS, _TYPES = schema.BuiltinOperator, schema.TensorType


class Network:
    """A dense network that grows by operations."""

    def __init__(self, *, name: str = "", classes: int = CLASSES) -> None:
        """Begin with two layers, whose scores are ``last``."""
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.operatorCodes, self.model.subgraphs = [], []
        self.model.buffers = [schema.BufferT()]
        self.graph = self.subgraph()
        rng = np.random.default_rng(0)
        self.source = self.last = self.tensor(f"{name}x", [1, FEATURES])
        self.graph.inputs = [self.source]
        for units, activation in ((5, schema.ActivationFunctionType.RELU), (classes, 0)):
            before = self.last
            width = self.graph.tensors[before].shape[-1]
            weights = self.tensor(f"{name}w{units}", [units, width], rng.normal(size=(units, width)))
            bias = self.tensor(f"{name}b{units}", [units], rng.normal(size=units))
            self.last = self.tensor(f"{name}y{units}", [1, units])
            options = schema.FullyConnectedOptionsT()
            options.fusedActivationFunction = activation
            self.operator(
                _KINDS.FULLY_CONNECTED,
                [before, weights, bias],
                [self.last],
                options,
                schema.BuiltinOptions.FullyConnectedOptions,
            )

    def subgraph(self) -> Any:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
        self.model.subgraphs.append(graph)
        return graph

    def tensor(
        self, name: str, shape: Sequence[int], values: Any = None, kind: int = _TYPES.FLOAT32, graph: Any = None
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), kind, 0
        if values is not None:
            buffer = schema.BufferT()
            dtype = {_TYPES.FLOAT32: np.float32, _TYPES.INT32: np.int32, _TYPES.BOOL: np.bool_}[kind]
            buffer.data = np.frombuffer(np.asarray(values, dtype).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        graph = graph or self.graph
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def operator(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        kind: int = 0,
        *,
        custom: str = "",
        version: int = 1,
        graph: Any = None,
    ) -> None:
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), version
        entry.customCode = custom.encode() or None
        self.model.operatorCodes.append(entry)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        operator.builtinOptions, operator.builtinOptionsType = options, kind
        (graph or self.graph).operators.append(operator)

    def data(self) -> bytes:
        self.graph.outputs = [self.last]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def write(change: Callable[[Network], object] = lambda network: None, **options: Any) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        network = Network(**options)
        change(network)
        place.path.write_bytes(network.data())

    return make


def patched(change: Callable[[bytes], bytes]) -> Callable[[Place], object]:
    return lambda place: place.path.write_bytes(change(Network().data()))


def custom(name: str) -> Callable[[Network], object]:
    def change(network: Network) -> None:
        after = network.tensor("after", [1, CLASSES])
        network.operator(_KINDS.CUSTOM, [network.last], [after], custom=name)
        network.last = after

    return change


def negated(network: Network) -> None:
    after = network.tensor("after", [1, CLASSES])
    network.operator(_KINDS.NEG, [network.last], [after])
    network.last = after


def nowhere(network: Network) -> None:
    network.graph.operators[-1].inputs = [10_000, 1, 2]


def vast_weights(network: Network) -> None:
    network.graph.tensors[1].shape = [2**20, 2**20]


def vast_activation(network: Network) -> None:
    size = network.tensor("size", [3], [2**20, 2**20, CLASSES], _TYPES.INT32)
    wide, axes = network.tensor("wide", [2**20, 2**20, CLASSES]), network.tensor("axes", [2], [0, 1], _TYPES.INT32)
    mean = network.tensor("mean", [CLASSES])
    network.operator(_KINDS.BROADCAST_TO, [network.last, size], [wide], version=2)
    network.operator(_KINDS.MEAN, [wide, axes], [mean])
    network.last = mean


def looping(body: int, *, goes_on: bool) -> Callable[[Network], object]:
    """A loop over the scores, whose body is a graph by its number, and which never ends, or at once."""

    def change(network: Network) -> None:
        condition, inner = network.subgraph(), network.subgraph()
        for graph in (condition, inner):
            graph.inputs = [network.tensor("s", [1, CLASSES], graph=graph)]
        condition.outputs = [network.tensor("go on", [], goes_on, _TYPES.BOOL, condition)]
        inner.outputs = [network.tensor("t", [1, CLASSES], graph=inner)]
        network.operator(_KINDS.NEG, inner.inputs, inner.outputs, graph=inner)
        options = schema.WhileOptionsT()
        options.condSubgraphIndex, options.bodySubgraphIndex = 1, body
        after = network.tensor("after", [1, CLASSES])
        network.operator(_KINDS.WHILE, [network.last], [after], options, schema.BuiltinOptions.WhileOptions)
        network.last = after

    return change


_OPEN, _FORMAT = "cannot-open", "wrong-format"

HOSTILE = {
    "custom operation": Case(
        "m.tflite", write(custom("Evil")), _OPEN, "found 'Evil', which needs its author's library"
    ),
    "operation of TensorFlow": Case("m.tflite", write(custom("FlexReadFile")), _OPEN, "found 'FlexReadFile'"),
    "escapes in an operation": Case("m.tflite", write(custom(ODD)), _OPEN, "which needs its author's library"),
    "cut": Case("m.tflite", patched(lambda data: data[:-40]), _OPEN, ""),
    "cut in the middle": Case("m.tflite", patched(lambda data: data[: len(data) // 2]), _OPEN, "within the file"),
    "begins behind its end": Case("m.tflite", patched(lambda data: b"\xff\xff\xff\x7f" + data[4:]), _OPEN, "within"),
    "nothing but the mark": Case("m.tflite", patched(lambda data: bytes(4) + data[4:8] + bytes(64)), _OPEN, ""),
    "another format": Case("m.tflite", patched(lambda data: b"PK\x03\x04" + bytes(64)), _FORMAT, "another format"),
    "a tensor that is not there": Case("m.tflite", write(nowhere), _OPEN, "tensors that exist"),
    "weights of nothing": Case("m.tflite", write(vast_weights), _OPEN, "expected data that matches the shape"),
    "a graph that runs itself": Case("m.tflite", write(looping(0, goes_on=False)), _OPEN, "do not run themselves"),
    "a graph that is not there": Case("m.tflite", write(looping(9, goes_on=False)), _OPEN, "do not run themselves"),
    "terabytes of an activation": Case("m.tflite", write(vast_activation), _OPEN, ""),
    "too many classes": Case("m.tflite", write(classes=70_000), "bad-answer", "no description of a classifier"),
}
HANGING = {"a loop without end": Case("m.tflite", write(looping(2, goes_on=True)), "timed-out", "")}
BENIGN = {
    "an honest one": Case("m.tflite", write()),
    "an operation more": Case("m.tflite", write(negated)),
    "escapes in names": Case("m.tflite", write(name=ODD)),
    "an honest one, last": Case("a b\u00e9.tflite", write()),
}

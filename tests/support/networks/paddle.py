"""Writes networks in PaddlePaddle's format, without PaddlePaddle, which is far larger than all of the tests.

After its framework.proto: a program is a block of variables and operations, and beside it lie the weights, in the order
of their names.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from networks.architectures import ARCHITECTURES

_FLOAT, _TENSOR, _FEED, _FETCH = 5, 7, 9, 10  # VarType.Type
_VERSION = 3_000_000  # as PaddlePaddle 3.0.0 writes it


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


class Program:
    """A program that grows by one operation after the other."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Begin with an input of this shape, for any number of rows."""
        self.weights: dict[str, np.ndarray] = {}
        self._variables = [_variable("feed", _FEED), _variable("fetch", _FETCH), _variable("x", _TENSOR, (-1, *shape))]
        self._operations = [_operation("feed", {"X": "feed"}, {"Out": "x"}, {"col": 0})]
        self.last, self._rank = "x", len(shape) + 1

    def add(
        self, kind: str, *, rank: int = 0, out: str = "Out", inputs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """Add an operation on what the last one gave.

        Args:
            kind: Of the operation.
            rank: Axes of what it gives; by default as before.
            out: What the operation calls it.
            inputs: What it calls its inputs: arrays are weights, None is what the last one gave.
            options: Its attributes.
        """
        self._rank = rank or self._rank
        name = f"{kind}_{len(self._operations)}"
        arguments = {}
        for slot, value in (inputs or {"X": None}).items():
            arguments[slot] = self.last if value is None else f"{name}.{slot}"
            if value is not None:
                self.weights[arguments[slot]] = value
                self._variables.append(_variable(arguments[slot], _TENSOR, value.shape, persistable=True))
        self._operations.append(_operation(kind, arguments, {out: name}, options))
        self._variables.append(_variable(name, _TENSOR, (-1,) * self._rank))
        self.last = name

    def write(self, path: Path) -> Path:
        """Write it with its weights, and give the path of the former."""
        self._operations.append(_operation("fetch", {"X": self.last}, {"Out": "fetch"}, {"col": 0}))
        block = [number(1, 0), number(2, -1)]
        block += [message(3, variable) for variable in self._variables]
        block += [message(4, operation) for operation in self._operations]
        file = path.with_suffix(".pdmodel")
        file.write_bytes(message(1, *block) + message(4, number(1, _VERSION)))
        path.with_suffix(".pdiparams").write_bytes(b"".join(parameter(self.weights[n]) for n in sorted(self.weights)))
        return file


def parameter(values: np.ndarray) -> bytes:
    """One weight as it stands in the file of weights."""
    description = number(1, _FLOAT) + b"".join(number(2, axis) for axis in values.shape)
    head = struct.pack("<IQIi", 0, 0, 0, len(description))
    return head + description + np.ascontiguousarray(values, np.float32).tobytes()


def write(name: str, seed: int, path: Path) -> Path:
    """A network of convolutions or dense layers."""
    architecture = ARCHITECTURES[name]
    state = architecture.weights(seed)
    program = Program(architecture.shape)
    if name == "conv1d":  # as PaddlePaddle's own Conv1D: with an axis more
        program.add("unsqueeze2", rank=4, axes=[2])
    if name in ("conv1d", "conv2d"):
        for layer in ("conv1", "conv2"):
            kernel = state[f"{layer}.weight"]
            flat = kernel[:, :, None] if kernel.ndim == 3 else kernel
            program.add("conv2d", out="Output", inputs={"Input": None, "Filter": flat}, **_CONVOLUTION)
            program.add(
                "elementwise_add", inputs={"X": None, "Y": state[f"{layer}.bias"].reshape(1, -1, 1, 1)}, axis=-1
            )
            program.add("relu")
            if layer == "conv1":
                size = [1, 2] if name == "conv1d" else [2, 2]
                program.add("pool2d", pooling_type="max", ksize=size, strides=size, **_POOLING)
        program.add("flatten_contiguous_range", rank=2, start_axis=1, stop_axis=3)
        dense = {"dense1": "tanh", "dense2": "softmax"}
    else:
        dense = {"dense1": "relu", "dense2": "relu", "dense3": "softmax"}
    for layer, activation in dense.items():
        program.add("matmul_v2", inputs={"X": None, "Y": state[f"{layer}.weight"].T}, trans_x=False, trans_y=False)
        program.add("elementwise_add", inputs={"X": None, "Y": state[f"{layer}.bias"]}, axis=-1)
        program.add(activation, **({"axis": -1} if activation == "softmax" else {}))
    return program.write(path)


_SAME: dict[str, Any] = {"data_format": "NCHW", "paddings": [0, 0], "padding_algorithm": "EXPLICIT"}
_CONVOLUTION: dict[str, Any] = {**_SAME, "strides": [1, 1], "dilations": [1, 1], "groups": 1}
_POOLING: dict[str, Any] = {
    **_SAME,
    **dict.fromkeys(("global_pooling", "adaptive", "ceil_mode"), False),
    "exclusive": True,
}


def _variable(name: str, kind: int, shape: tuple[int, ...] = (), *, persistable: bool = False) -> bytes:
    described = number(1, kind)
    if kind == _TENSOR:
        described += message(3, message(1, number(1, _FLOAT), *(number(2, axis) for axis in shape)), number(2, 0))
    return message(1, name.encode()) + message(2, described) + number(3, persistable)


def _operation(kind: str, inputs: Mapping[str, str], outputs: Mapping[str, str], options: Mapping[str, Any]) -> bytes:
    parts = [message(3, kind.encode())]
    for field, slots in ((1, inputs), (2, outputs)):
        parts += [message(field, message(1, slot.encode()), message(2, name.encode())) for slot, name in slots.items()]
    parts += [message(4, message(1, name.encode()), *_attribute(value)) for name, value in options.items()]
    return b"".join(parts)


def _attribute(value: Any) -> list[bytes]:
    # Its kind, and the value in a field of that kind.
    if isinstance(value, bool):
        return [number(2, 6), number(10, value)]
    if isinstance(value, str):
        return [number(2, 2), message(5, value.encode())]
    if isinstance(value, list):
        return [number(2, 3), *(number(6, one) for one in value)]
    return [number(2, 0), number(3, value)]

"""What a file may hold, asked before OpenVINO reads it. What is not refused here it may still not know."""

import re
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO
from xml.parsers import expat

from deepjudge_core.errors import ModelError
from deepjudge_core.text import shortened
from deepjudge_openvino.nesting import expect_an_end
from deepjudge_openvino.protobuf import fields, messages, numbers

# Operations of OpenVINO's own sets; those of others are libraries, which are code.
_OPSET = re.compile(r"opset\d{1,3}")
# Loops stand in loops, each some elements deeper.
_MOST_LAYERS, _DEEPEST = 100_000, 200
_BITS = {
    **dict.fromkeys(("i64", "u64", "f64"), 64),
    **dict.fromkeys(("i32", "u32", "f32"), 32),
    **dict.fromkeys(("i16", "u16", "f16", "bf16"), 16),
    **dict.fromkeys(("i8", "u8", "boolean", "f8e4m3", "f8e5m2", "f8e8m0"), 8),
    **dict.fromkeys(("i4", "u4", "nf4", "f4e2m1"), 4),
    **dict.fromkeys(("u6", "u3"), 8),  # at most
    "u2": 2,
    "u1": 1,
}

# Operations that read or write files, run Python or speak to others.
_OUTSIDE = re.compile(
    "File|Reader|Dataset|PyFunc|Summary|Snapshot|Rpc|Debug|Dump|LMDB|Print|"
    "^(_?(Host)?(Send|Recv)|ImmutableConst|RemoteCall|(Save|Restore)(Slices?|V2)?)$"
)
_PADDLE_OUTSIDE = re.compile("py_func|py_layer|^(load|save)(_combine)?$|print|read_file|^run_program$|send|recv|listen")

# GraphDef (graph.proto): its nodes and functions; of a function its name and nodes; of a node its operation, and the
# names of functions among its attributes.
_NODE, _FUNCTION, _FUNCTION_NAME, _FUNCTION_NODE, _OP, _CALLED = (
    1,
    (2, 1),
    (1, 1),
    3,
    2,
    ((5, 2, 10, 1), (5, 2, 1, 9, 1)),
)
# ProgramDesc (framework.proto): its blocks; of a block the operations; of these the kind, and numbers of blocks among
# the attributes. TensorDesc: axes.
_BLOCK, _PADDLE_OP, _TYPE, _INNER, _DIMS = 1, 4, 3, (4, 12), 2


def check_ir(path: Path, weights: int) -> None:
    """Look through the ``.xml`` of an OpenVINO IR.

    Args:
        path: The file.
        weights: Bytes of the file beside it.

    Raises:
        ModelError: When it is damaged, or holds what no converter writes; without the model's name in front.
    """
    parser = expat.ParserCreate()
    layers = _Layers(weights)
    parser.StartElementHandler, parser.EndElementHandler = layers.start, layers.end
    # Before they can be of any use: a file of a few lines may stand for gigabytes by them.
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise ModelError(
            f"expected an OpenVINO IR, found a damaged or truncated file: {error}; convert the model again"
        ) from error


def _refuse_doctype(*_: object) -> None:
    raise ModelError("expected the layers of an OpenVINO IR, found XML definitions; convert the model again")


class _Layers:
    def __init__(self, weights: int) -> None:
        self._weights = weights
        self._layers = self._depth = 0
        self._kind = ""

    def end(self, tag: str) -> None:
        self._depth -= 1

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ModelError(f"expected elements nested at most {_DEEPEST} deep, found more; convert the model again")
        if tag == "layer":
            self._layers += 1
            self._kind = attributes.get("type", "")
            version = attributes.get("version", "")
            if self._layers > _MOST_LAYERS:
                raise ModelError(f"expected at most {_MOST_LAYERS} operations, found more; export it to ONNX")
            if not _OPSET.fullmatch(version):
                raise ModelError(
                    f"expected OpenVINO operations, found {shortened(self._kind)!r} of "
                    f"{shortened(version)!r}, which needs its author's library; convert it with OpenVINO's "
                    "own operations"
                )
        elif tag == "data" and self._kind == "Const":
            self._expect_weights(attributes)

    def _expect_weights(self, attributes: Mapping[str, str]) -> None:
        kind = attributes.get("element_type", "")
        if kind == "string":
            raise ModelError("expected numeric weights, found strings; export the network without its text processing")
        try:
            offset, size = int(attributes["offset"]), int(attributes["size"])
            shape = [int(axis) for axis in attributes.get("shape", "").split(",") if axis.strip()]
        except (KeyError, ValueError) as error:
            raise ModelError("expected offset and shape of each weight, found none; convert the model again") from error
        needed = (prod(shape) * _BITS.get(kind, 1) + 7) // 8
        if min(offset, size, *shape, 0) < 0 or offset + size > self._weights or size < needed:
            raise ModelError(
                f"expected data that matches the shape of its weights, found {size} bytes at {offset} of "
                f"{self._weights} for {shape[:8]}; copy the .xml and the .bin again, or convert the model again"
            )


def check_frozen(data: bytes) -> None:
    """Look through a frozen graph of TensorFlow.

    Raises:
        ModelError: When it is none, is damaged, or does more than compute; without the model's name in front.
    """
    whole = memoryview(data)
    functions = [
        (next(map(_text, messages(body, *_FUNCTION_NAME)), ""), list(messages(body, _FUNCTION_NODE)))
        for body in messages(whole, *_FUNCTION)
    ]
    everywhere = [*messages(whole, _NODE), *(node for _, nodes in functions for node in nodes)]
    kinds = {_text(kind) for node in everywhere for kind in messages(node, _OP)}
    if not kinds:
        raise ModelError("expected a frozen TensorFlow graph, found one without operations; freeze it again")
    _expect_plain(kinds, _OUTSIDE)
    expect_an_end({name: {called for node in nodes for called in _called(node)} for name, nodes in functions})
    variables = sorted(kind for kind in kinds if kind in ("VarHandleOp", "VariableV2", "Variable"))
    if variables:
        raise ModelError(
            "expected a frozen graph, found one with variables, whose values are in other files; "
            "freeze it (convert_variables_to_constants_v2)"
        )


def check_paddle(data: bytes, weights: Path) -> None:
    """Look through a model of PaddlePaddle.

    Args:
        data: The ``.pdmodel``.
        weights: The file beside it.

    Raises:
        ModelError: When it is damaged, or does more than compute; without the model's name in front.
    """
    blocks = [list(messages(block, _PADDLE_OP)) for block in messages(memoryview(data), _BLOCK)]
    kinds = {_text(kind) for block in blocks for operation in block for kind in messages(operation, _TYPE)}
    if not kinds:
        raise ModelError("expected a PaddlePaddle model, found one without operations; export it again")
    _expect_plain(kinds, _PADDLE_OUTSIDE)
    inner = ({n for operation in block for n in numbers(operation, *_INNER)} for block in blocks)
    expect_an_end(dict(enumerate(inner)))
    with weights.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        while file.tell() < size:
            _pass_parameter(file, size)


def _pass_parameter(file: BinaryIO, size: int) -> None:
    # A version; lengths of sequences, of which weights have none; a version, the axes as a message, and the numbers.
    version, levels = _unpack("<IQ", file)
    if version or levels:
        raise ModelError(
            "expected PaddlePaddle weights, found others; the file next to the model is damaged: export both again"
        )
    _, length = _unpack("<Ii", file)
    description = file.read(max(length, 0)) if length <= size else b""
    if len(description) != length:
        raise ModelError(
            "expected PaddlePaddle weights, found others; the file next to the model is damaged: export both again"
        )
    values = list(fields(memoryview(description)))
    kind = next((value for number, value in values if number == 1), None)
    axes = [value for number, value in values if number == _DIMS and isinstance(value, int)]
    held = _PADDLE_SIZES.get(kind if isinstance(kind, int) else -1)
    if held is None or any(axis >= 2**63 for axis in axes) or file.tell() + held * prod(axes) > size:
        raise ModelError(
            f"expected data that matches the shape of its weights, found {size - file.tell()} bytes left for "
            f"{axes[:8]}; export model and weights again"
        )
    file.seek(held * prod(axes), 1)


# VarType.Type (framework.proto): bytes of a number.
_PADDLE_SIZES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2}


def _unpack(form: str, file: BinaryIO) -> tuple[Any, ...]:
    data = file.read(struct.calcsize(form))
    if len(data) < struct.calcsize(form):
        raise ModelError("expected PaddlePaddle weights, found a truncated file next to the model; export both again")
    return struct.unpack(form, data)


def _called(node: memoryview) -> set[str]:
    return {_text(name) for path in _CALLED for name in messages(node, *path)}


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")


def _expect_plain(kinds: set[str], outside: re.Pattern[str]) -> None:
    others = sorted(kind for kind in kinds if outside.search(kind))
    if others:
        raise ModelError(
            f"expected operations that only compute, found {shortened(others[0])!r}, which does more; export it to ONNX"
        )

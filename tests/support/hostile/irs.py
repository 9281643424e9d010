"""Hostile files of what OpenVINO reads: its own IR, PaddlePaddle's, and frozen graphs of TensorFlow."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from networks.paddle import Program, message, number, parameter

from hostile.ground import CLASSES, FEATURES, Case, Place
from hostile.plain import ODD

_RNG = np.random.default_rng(0)
HIDDEN, OUT = (_RNG.normal(size=(5, FEATURES)), _RNG.normal(size=(CLASSES, 5)))
WEIGHTS = b"".join(values.astype("<f4").tobytes() for values in (HIDDEN, OUT))


# ---- OpenVINO IR


def layer(
    number: int,
    kind: str,
    inputs: Sequence[Sequence[int]],
    gives: Sequence[int] | None,
    *,
    opset: str = "opset1",
    **data: object,
) -> str:
    """One layer, of a name that is its kind."""
    given = " ".join(f"{key}={quoteattr(str(value))}" for key, value in data.items())
    ports = "".join(f'<port id="{at}">{_dims(axes)}</port>' for at, axes in enumerate(inputs))
    said = f"<data {given}/>" if given else ""
    taken = f"<input>{ports}</input>" if inputs else ""
    out = "" if gives is None else f'<output><port id="{len(inputs)}" precision="FP32">{_dims(gives)}</port></output>'
    names = f'id="{number}" name={quoteattr(kind + str(number))} type={quoteattr(kind)} version={quoteattr(opset)}'
    return f"<layer {names}>{said}{taken}{out}</layer>"


def _dims(shape: Sequence[int]) -> str:
    return "".join(f"<dim>{axis}</dim>" for axis in shape)


def constant(number: int, shape: Sequence[int], offset: int, size: int, kind: str = "f32") -> str:
    listed = ", ".join(map(str, shape))
    return layer(number, "Const", [], shape, element_type=kind, shape=listed, offset=offset, size=size)


N = -1
FIRST = [
    layer(0, "Parameter", [], [N, FEATURES], shape=f"?,{FEATURES}", element_type="f32"),
    constant(1, HIDDEN.shape, 0, 4 * HIDDEN.size),
    layer(2, "MatMul", [[N, FEATURES], HIDDEN.shape], [N, 5], transpose_a="false", transpose_b="true"),
    layer(3, "ReLU", [[N, 5]], [N, 5]),
    constant(4, OUT.shape, 4 * HIDDEN.size, 4 * OUT.size),
    layer(5, "MatMul", [[N, 5], OUT.shape], [N, CLASSES], transpose_a="false", transpose_b="true"),
]
FLOWS = ["0:0 2:0", "1:0 2:1", "2:2 3:0", "3:1 5:0", "4:0 5:1"]


def ir(
    *more: str, flows: Sequence[str] = (), last: str = "5:2", layers: Sequence[str] = FIRST, before: str = ""
) -> str:
    """A network with more layers behind, of which one gives the scores."""
    result = layer(99, "Result", [[N, CLASSES]], None)
    edges = [*FLOWS, *flows, f"{last} 99:0"]
    lines = [
        '<edge from-layer="{}" from-port="{}" to-layer="{}" to-port="{}"/>'.format(*edge.replace(" ", ":").split(":"))
        for edge in edges
    ]
    whole = "".join([*layers, *more, result])
    return (
        f'<?xml version="1.0"?>{before}<net name="n" version="11">'
        f"<layers>{whole}</layers><edges>{''.join(lines)}</edges></net>"
    )


def write(text: str | bytes, weights: bytes = WEIGHTS) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        place.path.write_bytes(text.encode() if isinstance(text, str) else text)
        place.path.with_suffix(".bin").write_bytes(weights)

    return make


def alone(place: Place) -> None:
    place.path.write_text(ir())


def linked(place: Place) -> None:
    place.path.write_text(ir())
    place.canary.write_bytes(WEIGHTS)
    place.path.with_suffix(".bin").symlink_to(place.canary)


def pipe(place: Place) -> None:
    place.path.write_text(ir())
    os.mkfifo(place.path.with_suffix(".bin"))


def with_negative(kind: str = "Negative", opset: str = "opset1") -> str:
    return ir(layer(6, kind, [[N, CLASSES]], [N, CLASSES], opset=opset), flows=["5:2 6:0"], last="6:1")


LAUGHS = '<!DOCTYPE net [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
READING = '<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


def vast_constant() -> str:
    return ir(layers=[*FIRST[:4], constant(4, [2**20, 2**20], 0, 4 * OUT.size), FIRST[5]])


def outside() -> str:
    return ir(layers=[*FIRST[:4], constant(4, OUT.shape, 2**40, 4 * OUT.size), FIRST[5]])


def wide() -> tuple[str, bytes]:
    sizes = np.array([2**20, 2**20, CLASSES], "<i8").tobytes()
    axes = np.array([0, 1], "<i8").tobytes()
    place = len(WEIGHTS)
    text = ir(
        constant(6, [3], place, len(sizes), "i64"),
        layer(7, "Broadcast", [[N, CLASSES], [3]], sizes_of(sizes), opset="opset3", mode="numpy"),
        constant(8, [2], place + len(sizes), len(axes), "i64"),
        layer(9, "ReduceMean", [sizes_of(sizes), [2]], [CLASSES], keep_dims="false"),
        flows=["5:2 7:0", "6:0 7:1", "7:2 9:0", "8:0 9:1"],
        last="9:2",
    )
    return text, WEIGHTS + sizes + axes


def sizes_of(data: bytes) -> list[int]:
    return [int(size) for size in np.frombuffer(data, "<i8")]


_OPEN, _FORMAT, _MEMORY = "cannot-open", "wrong-format", "out-of-memory"
MEMORY = "needs more than 1024 MiB of memory; allow more with --memory"

IRS = {
    "IR: a library's operation": Case("m.xml", write(with_negative("Evil", "evil")), _OPEN, "'Evil' of 'evil', which"),
    "IR: an unknown operation": Case("m.xml", write(with_negative("Evil")), _OPEN, ""),
    "IR: a library of escapes": Case("m.xml", write(with_negative("Evil", ODD)), _OPEN, ""),
    "IR: deep": Case("m.xml", write(ir(before="<a>" * 10_000)), _OPEN, ""),
    "IR: a billion laughs": Case("m.xml", write(ir(before=LAUGHS)), _OPEN, "XML definitions"),
    "IR: another file in it": Case("m.xml", write(ir(before=READING)), _OPEN, "XML definitions"),
    "IR: weights of nothing": Case("m.xml", write(vast_constant()), _OPEN, "expected data that matches the shape"),
    "IR: weights behind their end": Case("m.xml", write(outside()), _OPEN, "expected data that matches the shape"),
    "IR: no weights": Case("m.xml", alone, _OPEN, "expected the weights next to it in 'm.bin'"),
    "IR: cut": Case("m.xml", write(ir()[:-60]), _OPEN, "damaged or truncated"),
    "IR: cut weights": Case("m.xml", write(ir(), WEIGHTS[:-8]), _OPEN, "expected data that matches the shape"),
    "IR: linked weights": Case("m.xml", linked, "not-a-file", "found a symbolic link"),
    "IR: a pipe for weights": Case("m.xml", pipe, "not-a-file", "found a pipe"),
    "IR: terabytes of an activation": Case("m.xml", write(*wide()), _MEMORY, MEMORY),
    "IR: another format": Case("m.xml", write("<html></html>"), _FORMAT, "another format"),
}


# ---- frozen graphs


def graph(*nodes: bytes, functions: Sequence[bytes] = ()) -> bytes:
    library = message(2, *(message(1, function) for function in functions)) if functions else b""
    return b"".join(message(1, node) for node in nodes) + library


def node(name: str, kind: str, *inputs: str, **attributes: bytes) -> bytes:
    parts = [message(1, name.encode()), message(2, kind.encode()), *(message(3, given.encode()) for given in inputs)]
    parts += [message(5, message(1, key.encode()), message(2, value)) for key, value in attributes.items()]
    return b"".join(parts)


FLOAT = number(6, 1)


def held(values: np.ndarray, shape: Sequence[int] | None = None) -> bytes:
    sizes = b"".join(message(2, number(1, axis)) for axis in (values.shape if shape is None else shape))
    return message(8, number(1, 1), message(2, sizes), message(4, values.astype("<f4").tobytes()))


def matrix(name: str, given: str, weights: str) -> bytes:
    return node(name, "MatMul", given, weights, T=FLOAT, transpose_a=number(5, 0), transpose_b=number(5, 0))


def frozen(*more: bytes, shape: Sequence[int] | None = None, functions: Sequence[bytes] = ()) -> bytes:
    sizes = message(7, *(message(2, number(1, axis)) for axis in (-1, FEATURES)))
    nodes = [
        node("x", "Placeholder", dtype=FLOAT, shape=sizes),
        node("w1", "Const", dtype=FLOAT, value=held(HIDDEN.T)),
        matrix("m1", "x", "w1"),
        node("r1", "Relu", "m1", T=FLOAT),
        node("w2", "Const", dtype=FLOAT, value=held(OUT.T, shape)),
        matrix("m2", "r1", "w2"),
    ]
    return graph(*nodes, *more, functions=functions)


def plainly(data: bytes) -> Callable[[Place], object]:
    return lambda place: place.path.write_bytes(data)


def itself() -> bytes:
    """A function that calls itself, and is called for the scores."""

    def argument(field: int, name: bytes) -> bytes:
        return message(field, message(1, name), number(3, 1))

    def call(name: str, given: str) -> bytes:
        kinds = message(1, message(6, b"\x01"))
        return node(name, "PartitionedCall", given, f=message(10, message(1, b"f")), Tin=kinds, Tout=kinds)

    signature = message(1, message(1, b"f"), argument(2, b"a"), argument(3, b"b"))
    returned = message(4, message(1, b"b"), message(2, b"inner:output:0"))
    return frozen(call("outer", "m2"), functions=[signature + message(3, call("inner", "a")) + returned])


FROZEN = {
    "graph: reads a file": Case("m.pb", plainly(frozen(node("e", "ReadFile", "m2"))), _OPEN, "found 'ReadFile', which"),
    "graph: runs Python": Case("m.pb", plainly(frozen(node("e", "EagerPyFunc", "m2"))), _OPEN, "'EagerPyFunc'"),
    "graph: in a function": Case(
        "m.pb", plainly(frozen(functions=[message(3, node("e", "WriteFile", "m2"))])), _OPEN, "'WriteFile'"
    ),
    "graph: an unknown operation": Case("m.pb", plainly(frozen(node("e", "Evil", "m2"))), _OPEN, ""),
    "graph: a function that calls itself": Case("m.pb", plainly(itself()), _OPEN, "do not run themselves"),
    "graph: variables": Case("m.pb", plainly(frozen(node("v", "VarHandleOp"))), _OPEN, "freeze it"),
    "graph: weights of nothing": Case("m.pb", plainly(frozen(shape=[2**20, 2**20])), _MEMORY, MEMORY),
    "graph: cut": Case("m.pb", plainly(frozen()[:-9]), _OPEN, "damaged or truncated"),
    "graph: a length without end": Case("m.pb", plainly(b"\x0a" + b"\xff" * 12), _OPEN, "damaged or truncated"),
    "graph: part of a SavedModel": Case("m.pb", plainly(b"\x08\x01\x12\x00"), _FORMAT, "name its folder"),
}


# ---- PaddlePaddle


def program() -> Program:
    made = Program((FEATURES,))
    made.add("matmul_v2", inputs={"X": None, "Y": HIDDEN.T}, trans_x=False, trans_y=False)
    made.add("relu")
    made.add("matmul_v2", inputs={"X": None, "Y": OUT.T}, trans_x=False, trans_y=False)
    return made


def paddle(change: Callable[[Program], object] = lambda made: None) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        made = program()
        change(made)
        made.write(place.path)

    return make


def cut(suffix: str, share: float) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        program().write(place.path)
        file = place.path.with_suffix(suffix)
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])

    return make


def without_weights(place: Place) -> None:
    # Then each weight would be looked for in a file of its name.
    made = program()
    made.weights = {f"../../secret/{place.canary.name}": HIDDEN}
    made.write(place.path)
    place.path.with_suffix(".pdiparams").unlink()


def vast_parameter(place: Place) -> None:
    program().write(place.path)
    whole = parameter(HIDDEN)
    description = number(1, 5) + number(2, 2**40) + number(2, 2**20)
    huge = whole[:16] + len(description).to_bytes(4, "little") + description + whole[-8:]
    place.path.with_suffix(".pdiparams").write_bytes(huge)


PADDLE = {
    "paddle: runs Python": Case("m.pdmodel", paddle(lambda p: p.add("py_func")), _OPEN, "found 'py_func', which does"),
    "paddle: writes a file": Case("m.pdmodel", paddle(lambda p: p.add("save_combine")), _OPEN, "'save_combine'"),
    "paddle: an unknown operation": Case("m.pdmodel", paddle(lambda p: p.add("evil")), _OPEN, ""),
    "paddle: weights of any name": Case("m.pdmodel", without_weights, _OPEN, "expected the weights next to it"),
    "paddle: weights of nothing": Case("m.pdmodel", vast_parameter, _OPEN, "expected data that matches the shape"),
    "paddle: cut": Case("m.pdmodel", cut(".pdmodel", 0.5), _OPEN, "damaged or truncated"),
    "paddle: cut weights": Case("m.pdmodel", cut(".pdiparams", 0.7), _OPEN, ""),
}

BENIGN = {
    "IR: an honest one": Case("m.xml", write(ir())),
    "IR: an operation more": Case("m.xml", write(with_negative())),
    "graph: an honest one": Case("m.pb", plainly(frozen())),
    "IR: an honest one of another name": Case("a b\u00e9.xml", write(ir())),
    "paddle: an honest one": Case("m.pdmodel", paddle()),
    "paddle: an operation more": Case("m.pdmodel", paddle(lambda made: made.add("tanh"))),
}
REFUSED: Mapping[str, Case] = {
    "CoreML": Case("m.mlmodel", plainly(b"\x08\x04\x12\x00"), _FORMAT, "onnxmltools.convert_coreml"),
    "CoreML, a package": Case("m.mlpackage", lambda place: _package(place.path), _FORMAT, "CoreML"),
}
CASES = IRS | FROZEN | PADDLE | BENIGN | REFUSED


def _package(path: Path) -> None:
    path.mkdir()
    (path / "Manifest.json").write_text("{}")

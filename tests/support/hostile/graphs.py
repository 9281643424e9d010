"""ONNX models by people who mean harm."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hostile.ground import CLASSES, FEATURES, SECRET, Case, Place
from hostile.plain import ODD

IMPORTS = [helper.make_opsetid(domain, version) for domain, version in (("", 17), ("own", 1))]


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def tensor(name: str, value: Any, kind: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.array(value, kind), name)


def model(*nodes: Any, weights: Any = (), functions: Any = (), last: str = "m", classes: int = CLASSES) -> Any:
    """A network of two layers, and nodes that make ``last`` of ``m``, which is one number for each input."""
    rng = np.random.default_rng(1)
    arrays = [
        tensor(name, rng.normal(size=shape))
        for name, shape in {"w": (FEATURES, 6), "b": (6,), "v": (6, classes), "c": (1, classes)}.items()
    ]
    base = [
        node("MatMul", "x w", "xw"),
        node("Add", "xw b", "dense"),
        node("Relu", "dense", "relu"),
        node("MatMul", "relu v", "z"),
        node("ReduceMean", "x", "m", axes=[1], keepdims=1),
    ]
    end = [node("Add", f"z {last}", "logits"), node("Softmax", "logits", "y", axis=1)]
    graph = helper.make_graph(
        [*base, *nodes, *end],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])],
        [*arrays, *weights],
    )
    return helper.make_model(graph, opset_imports=IMPORTS, ir_version=8, functions=list(functions))


def write(made: Any) -> Callable[[Place], object]:
    return lambda place: place.path.write_bytes(made.SerializeToString())


def with_nodes(*nodes: Any, **others: Any) -> Callable[[Place], object]:
    return write(model(*nodes, **others))


# ---- weights in other files


def external(location: Callable[[Place], str], **where: int) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        place.canary.write_bytes(SECRET)
        made = model(weights=[tensor("secret", np.zeros((1, 12)))])
        stored = made.graph.initializer[-1]
        onnx.external_data_helper.set_external_data(stored, location(place), **where)
        stored.ClearField("raw_data")
        place.path.write_bytes(made.SerializeToString())

    return make


def upwards(path: Path) -> str:
    """From wherever a model's copy lies."""
    return f"{'../' * 20}{path.relative_to('/')}"


def sibling(place: Place) -> str:
    place.path.with_name("other").hardlink_to(place.canary)
    return "other"


def linked(place: Place) -> str:
    place.path.with_name("weights.bin").symlink_to(place.canary)
    return "weights.bin"


def folder(place: Place) -> str:
    place.path.with_name("weights").mkdir()
    return "weights"


def vast(place: Place) -> str:
    with place.path.with_name("weights.bin").open("wb") as file:
        file.truncate(2**36)
    return "weights.bin"


def short(place: Place) -> str:
    place.path.with_name("weights.bin").write_bytes(bytes(40))
    return "weights.bin"


def named_freely(place: Place) -> str:
    place.path.with_name("Größe 1%.bin").write_bytes(bytes(48))
    return "Größe 1%.bin"


def symbolic(place: Place) -> str:
    place.path.with_name("m.onnx.data").symlink_to(place.canary)
    return "m.onnx.data"


def hard(place: Place) -> str:
    place.path.with_name("m.onnx.data").hardlink_to(place.canary)
    return "m.onnx.data"


def pipe(place: Place) -> str:
    os.mkfifo(place.path.with_name("m.onnx.data"))
    return "m.onnx.data"


def beside(place: Place) -> str:
    place.path.with_name("m.onnx.data").write_bytes(bytes(48))
    return "m.onnx.data"


# ---- without end


def loop(steps: int) -> Callable[[Place], object]:
    body = helper.make_graph(
        [node("Identity", "go", "going"), node("Sin", "before", "after")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["n", 1]),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["n", 1]),
        ],
    )
    weights = [tensor("steps", steps, np.int64), tensor("yes", True, np.bool_)]
    return with_nodes(node("Loop", "steps yes m", "end", body=body), weights=weights, last="end")


def doubling(times: int, kind: str = "Concat") -> Callable[[Place], object]:
    names = ["m", *(f"d{number}" for number in range(times))]
    nodes = [node(kind, f"{a} {a}", b, axis=1) for a, b in itertools.pairwise(names)]
    return with_nodes(*nodes, node("ReduceMean", names[-1], "mean", axes=[1], keepdims=1), last="mean")


def laughs(depth: int, width: int) -> Callable[[Place], object]:
    functions = [helper.make_function("own", "f0", ["a"], ["b"], [node("Sin", "a", "b")], IMPORTS)]
    for level in range(1, depth):
        names = ["a", *(f"t{number}" for number in range(1, width)), "b"]
        calls = [
            helper.make_node(f"f{level - 1}", [before], [after], domain="own")
            for before, after in itertools.pairwise(names)
        ]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["b"], calls, IMPORTS))
    return with_nodes(node(f"f{depth - 1}", "m", "end", domain="own"), functions=functions, last="end")


# ---- more than there is


def filled(*shape: int) -> Callable[[Place], object]:
    nodes = [
        node("ConstantOfShape", "shape", "vast"),
        node("ReduceMean", "vast", "mean", keepdims=0),
        node("Add", "m mean", "end"),
    ]
    return with_nodes(*nodes, weights=[tensor("shape", shape, np.int64)], last="end")


def expanded(size: int) -> Callable[[Place], object]:
    # A view, in some libraries; what is made of it is none.
    nodes = [
        node("Expand", "m size", "wide"),
        node("Sin", "wide", "sines"),
        node("ReduceMean", "sines", "mean", axes=[1], keepdims=1),
    ]
    return with_nodes(*nodes, weights=[tensor("size", [1, size], np.int64)], last="mean")


def vast_weights(place: Place) -> None:
    huge = TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[2**20, 2**20])
    place.path.write_bytes(model(weights=[huge]).SerializeToString())


def sparse(place: Place) -> None:
    made = model(node("Add", "m s", "end"), last="end")
    values, indices = tensor("s", [1.0]), tensor("i", [2**40], np.int64)
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1]))
    place.path.write_bytes(made.SerializeToString())


def many_layers(count: int, width: int) -> Callable[[Place], object]:
    """Layers that are wider than all that is known of a model."""
    nodes = [node("Expand", "m size", "l0")]
    nodes += [node("Relu", f"l{number}", f"l{number + 1}") for number in range(count)]
    nodes.append(node("ReduceMean", f"l{count}", "mean", axes=[1], keepdims=1))
    return with_nodes(*nodes, weights=[tensor("size", [1, width], np.int64)], last="mean")


# ---- what is said of it


def named(text: str) -> Callable[[Place], object]:
    """Names of nodes and of what they give."""
    made = model(node("Relu", "z", "zz"), node("ReduceMean", "zz", "end", axes=[1], keepdims=1), last="end")
    for number, part in enumerate(made.graph.node):
        part.name = f"{text}{number}"
        for names in (part.input, part.output):
            for place, name in enumerate(names):
                if name in ("relu", "dense", "xw"):
                    names[place] = f"{text}{name}"
    made.producer_name = made.doc_string = made.graph.doc_string = text
    return write(made)


def custom(domain: str, kind: str = "Evil") -> Callable[[Place], object]:
    made = model(node(kind, "m", "end", domain=domain), last="end")
    made.opset_import.append(helper.make_opsetid(domain, 1))
    return write(made)


def in_a_branch(place: Place) -> None:
    body = helper.make_graph(
        [helper.make_node("Evil", ["m"], ["r"], domain="evil")], "body", [], [onnx.ValueInfoProto(name="r")]
    )
    made = model(
        node("If", "yes", "end", then_branch=body, else_branch=body),
        weights=[tensor("yes", True, np.bool_)],
        last="end",
    )
    made.opset_import.append(helper.make_opsetid("evil", 1))
    place.path.write_bytes(made.SerializeToString())


def cut(share: float) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        data = model().SerializeToString()
        place.path.write_bytes(data[: int(len(data) * share)])

    return make


def beside_modules(place: Place) -> None:
    for name in ("json", "numpy", "onnx", "onnxruntime", "deepjudge_onnx", "sitecustomize", "encodings"):
        code = f"import os; os.mkdir({str(place.marker)!r})"
        place.path.with_name(f"{name}.py").write_text(code)
    place.path.write_bytes(model().SerializeToString())


BAD, OUT = "bad-answer", "out-of-memory"
MEMORY = "needs more than 1024 MiB of memory; allow more with --memory"

HOSTILE = {
    "traversal": Case("m.onnx", external(lambda p: upwards(p.canary)), "cannot-open", "not the name of a file"),
    "absolute": Case("m.onnx", external(lambda p: str(p.canary)), "cannot-open", "not the name of a file"),
    "through itself": Case(
        "m.onnx", external(lambda p: f"./{upwards(p.canary)}"), "cannot-open", "not the name of a file"
    ),
    "sibling": Case("m.onnx", external(sibling), "not-a-file", "found a hard link; give a copy"),
    "symbolic link of any name": Case("m.onnx", external(linked), "not-a-file", "found a symbolic link"),
    "folder for weights": Case("m.onnx", external(folder), "not-a-file", "found a folder"),
    "vast weights beside it": Case("m.onnx", external(vast), "too-large", "allow more with --memory"),
    "weights cut short": Case("m.onnx", external(short), "cannot-open", "'weights.bin' of 40 bytes, too short for 48"),
    "weights left out": Case(
        "m.onnx", external(lambda p: "absent.bin"), "cannot-open", "'absent.bin', which cannot be"
    ),
    "symbolic link": Case("m.onnx", external(symbolic), "not-a-file", "found a symbolic link"),
    "hard link": Case("m.onnx", external(hard), "not-a-file", "found a hard link; give a copy"),
    "pipe for weights": Case("m.onnx", external(pipe), "not-a-file", "found a pipe"),
    "weights behind their end": Case("m.onnx", external(beside, offset=2**62), "cannot-open", ""),
    "custom operation": Case("m.onnx", custom("evil.domain"), "cannot-open", "'Evil' of 'evil.domain', which needs"),
    "custom operation in a branch": Case("m.onnx", in_a_branch, "cannot-open", "'Evil' of 'evil'"),
    "escapes in an operation": Case("m.onnx", custom(ODD, ODD), "cannot-open", "which needs its author's library"),
    "a billion laughs": Case("m.onnx", laughs(10, 10), "cannot-open", "expected at most 100000 operations and calls"),
    "deep functions": Case("m.onnx", laughs(500, 1), "cannot-open", "64 deep"),
    "doubling": Case("m.onnx", doubling(50), OUT, MEMORY),
    "terabytes of a constant": Case("m.onnx", filled(2**20, 2**20), OUT, MEMORY),
    "more than can be counted": Case("m.onnx", filled(2**40, 2**40), "cannot-open", ""),
    "a wide view": Case("m.onnx", expanded(2**40), OUT, MEMORY),
    "weights of nothing": Case("m.onnx", vast_weights, "cannot-open", "expected data that matches the shape"),
    "sparse, out of range": Case("m.onnx", sparse, "cannot-open", ""),
    "many wide layers": Case("m.onnx", many_layers(40, 2**22), OUT, MEMORY),
    "cut": Case("m.onnx", cut(0.5), "wrong-format", "a truncated file"),
    "NaN": Case("m.onnx", with_nodes(node("Log", "n", "end"), weights=[tensor("n", [[-1.0]])], last="end"), BAD, "NaN"),
    "constant": Case("m.onnx", with_nodes(node("Neg", "z", "end"), last="end"), BAD, "the same answer to every input"),
    "too many classes": Case("m.onnx", write(model(classes=70_000)), BAD, "found no description of a classifier"),
}

HANGING = {
    "a loop without end": Case("m.onnx", loop(2**63 - 1), "timed-out", "expected an answer within"),
    "afterwards": Case("m.onnx", write(model())),
}

BENIGN = {
    "other values each time": Case(
        "m.onnx",
        with_nodes(node("RandomNormalLike", "z", "end"), last="end"),
        None,
        "gives different answers to the same input",
    ),
    "escapes in names": Case("m.onnx", named(ODD)),
    "a short loop": Case("m.onnx", loop(3)),
    "some doubling": Case("m.onnx", doubling(5)),
    "functions": Case("m.onnx", laughs(3, 3)),
    "weights beside it": Case("m.onnx", external(beside, offset=0, length=48)),
    "weights of any name": Case("m.onnx", external(named_freely, offset=0, length=48)),
    "modules beside it": Case("m.onnx", beside_modules),
    "an honest one": Case("m.onnx", write(model())),
    "an honest one, last": Case("a b\u00e9.onnx", write(model())),
}
CASES = HOSTILE | BENIGN

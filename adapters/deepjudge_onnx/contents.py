"""What a model may hold, asked before any of it is worked out."""

from collections import Counter
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from stat import S_ISREG

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from deepjudge_core.errors import ModelError
from deepjudge_onnx.files import is_beside
from deepjudge_onnx.graph import bodies, tensors
from deepjudge_onnx.weights import size_of

# Of the operations that ONNX Runtime brings; those of others are libraries, which are code.
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}

# Functions that call functions; exporters nest them as deep as modules are nested.
_DEEPEST = 64
# What a model may have once the functions stand where they are called: more operations than any network has, with the
# calls that there were, since each takes time; and the bytes that protobuf can hold.
_MOST_NODES, _MOST_BYTES = 100_000, 2**31 - 1

_TYPES = set(TensorProto.DataType.values())

# Values in a byte of the smallest element type.
_PER_BYTE = 8

_Key = tuple[str, str, str]


def check(model: ModelProto) -> None:
    """Refuse what no exporter writes and what would exhaust the machine.

    Raises:
        ModelError: Saying what was found, without the model's name in front.
    """
    _check_names(model)
    functions = {_key(function): function for function in model.functions}
    if len(functions) < len(model.functions):
        raise ModelError("expected functions with different names, found two of the same name")
    for node in (*_all(model.graph), *(node for function in functions.values() for node in _all(function))):
        if node.domain not in _DOMAINS and _callee(node) not in functions:
            raise ModelError(
                f"expected ONNX operations, found {node.op_type[:60]!r} of {node.domain[:60]!r}, which "
                "needs its author's library; export it with ONNX's own operations"
            )
    for tensor in tensors(model):
        if tensor.data_type not in _TYPES:
            raise ModelError(f"expected an element type of ONNX, found {tensor.data_type} in {tensor.name[:60]!r}")
        if not onnx.external_data_helper.uses_external_data(tensor) and _lacks(tensor):
            raise ModelError(
                f"expected data that matches the shape of its weights, found {tensor.ByteSize()} bytes "
                f"for {list(tensor.dims)[:8]} in {tensor.name[:60]!r}"
            )
    if functions:
        _check_functions(model, functions)


def _check_names(model: ModelProto) -> None:
    # protobuf gives a text that is no UTF-8 as bytes, which nobody expects.
    nodes = [node for body in (model.graph, *model.functions) for node in _all(body)]
    texts: list[object] = [tensor.name for tensor in tensors(model)]
    texts += [text for node in nodes for text in (node.name, node.op_type, node.domain, *node.input, *node.output)]
    texts += [attribute.name for node in nodes for attribute in node.attribute]
    graphs = [model.graph, *(inner for node in nodes for inner in bodies(node))]
    texts += [value.name for graph in graphs for value in (*graph.input, *graph.output, *graph.value_info)]
    texts += [text for function in model.functions for text in (*_key(function), *function.input, *function.output)]
    found = next((text for text in texts if not isinstance(text, str)), None)
    if found is not None:
        raise ModelError(f"expected names in UTF-8, found {str(found)[:60]}")


def check_external(names: Iterable[str], folder: Path) -> None:
    """Refuse weights that are not in files beside a model.

    Args:
        names: Of the files, as the model has them.

    Raises:
        ModelError: Saying what was found.
    """
    for name in names:
        if not is_beside(name):
            raise ModelError(f"{name[:60]!r}, which is not the name of a file in the same folder")
        try:
            status = (folder / name).lstat()
        except OSError as error:
            raise ModelError(
                f"{name[:60]!r}, which cannot be read: {error.strerror}; put it next to the model, or "
                "save all in one file: onnx.save(onnx.load(path), other)"
            ) from error
        if not S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ModelError(f"{name[:60]!r}, which is a link or not a file; give a copy")


def _check_functions(model: ModelProto, functions: dict[_Key, FunctionProto]) -> None:
    # Sizes once all calls are replaced, from the innermost functions outwards; nothing is replaced for it.
    own = {key: _size(function, functions) for key, function in functions.items()}
    sizes: dict[_Key, tuple[int, int]] = {}
    for _ in range(_DEEPEST):
        done = {key: _total(*own[key], sizes) for key in own if key not in sizes and own[key][2].keys() <= sizes.keys()}
        if not done:
            break
        sizes |= done
    if len(sizes) < len(own):
        raise ModelError(f"expected functions nested at most {_DEEPEST} deep, found more, or one that calls itself")
    nodes, size = _total(*_size(model.graph, functions), sizes)
    if nodes > _MOST_NODES or size > _MOST_BYTES:
        raise ModelError(
            f"expected at most {_MOST_NODES} operations and calls, and {_MOST_BYTES} bytes, with all "
            f"functions inlined, found {_number(nodes)} and {_number(size)}; save the model without "
            "functions"
        )


def _size(body: GraphProto | FunctionProto, functions: dict[_Key, FunctionProto]) -> tuple[int, int, Counter[_Key]]:
    called = [_callee(node) for node in _all(body)]
    return len(called), body.ByteSize(), Counter(key for key in called if key in functions)


def _total(nodes: int, size: int, calls: Counter[_Key], sizes: dict[_Key, tuple[int, int]]) -> tuple[int, int]:
    for key, times in calls.items():
        nodes += times * sizes[key][0]
        size += times * sizes[key][1]
    return nodes, size


def _number(value: int) -> str:
    return str(value) if value < 10**12 else "more than 10^12"


def _lacks(tensor: TensorProto) -> bool:
    places, size = prod(tensor.dims), size_of(tensor)
    if any(axis < 0 for axis in tensor.dims) or places > _PER_BYTE * tensor.ByteSize():
        return True
    return tensor.HasField("raw_data") and size is not None and len(tensor.raw_data) != size


def _all(body: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    # protobuf limits how deep messages nest, and so do we.
    for node in body.node:
        yield node
        for inner in bodies(node):
            yield from _all(inner)


def _key(function: FunctionProto) -> _Key:
    return _domain(function.domain), function.name, function.overload


def _callee(node: NodeProto) -> _Key:
    return _domain(node.domain), node.op_type, node.overload


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name

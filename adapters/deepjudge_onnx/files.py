"""What the fields of a file say: whether it is an ONNX model, and which files hold its weights. Knows no ONNX."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from deepjudge_core.components.kinds import Format
from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import readable
from deepjudge_onnx.wire import BYTES, NUMBER, Field, Messages, WireError, framed

# Fields of ModelProto (onnx.proto) and how each is written.
_IR_VERSION, _GRAPH = 1, 7
_FIELDS = {_IR_VERSION: NUMBER, 5: NUMBER, **dict.fromkeys((2, 3, 4, 6, _GRAPH, 8, 14, 20, 25, 26), BYTES)}
# Far above what models have: operation sets, functions and notes are one each.
_MOST_FIELDS = 10_000

# The fields that lead to tensors, and what lies in each.
_INSIDE = {
    "model": {_GRAPH: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_INITIALIZER, _DATA_TYPE, _FLOAT_DATA, _RAW_DATA, _KEY, _VALUE = 5, 2, 4, 9, 1, 2
_FLOAT = 1
# As deep as protobuf reads; of the fields some 20 an operation, numbers of a list counted once, since each takes who
# looks a microsecond or two; files as no model has them; bytes of a file's name.
_DEEPEST, _MOST_INSIDE, _MOST_FILES, _LONGEST = 100, 1_000_000, 10_000, 255
# Of what says where a tensor's numbers are: a key and a value.
_MOST_OF_ENTRY = 100

_OTHERS = {
    b"PK\x03\x04": "a zip archive, as written by PyTorch and Keras",
    b"\x89HDF": "an HDF5 file, as written by Keras",
    b"\x80": "a pickle, which can hold code",
    b"\x1f\x8b": "a compressed file",
}
# Of ONNX Runtime's own format, behind four bytes.
_RUNTIME = b"ORTM"


def examine(path: Path) -> Format:
    """Say whether a stranger's file is an ONNX model, from its outermost fields.

    Raises:
        ModelError: When it is none.
    """
    with readable(str(path), "an ONNX model"), path.open("rb") as file:
        other = _other(file)
    if other:
        raise ModelError(f"{path}: expected an ONNX model, found {other}")
    # It names no code, only operations.
    return Format("ONNX", runs_code=False)


def companions(path: Path) -> Sequence[str]:
    """Names of the files beside a stranger's model that it says hold its weights, in alphabetical order.

    Those that are no plain names are left out: it will not be opened.

    Raises:
        ModelError: When it is no model, or names more files than any model has.
    """
    with readable(str(path), "an ONNX model"), path.open("rb") as file:
        messages, names = Messages(file, _MOST_INSIDE), set[str]()
        try:
            for name in _locations(messages, "model", 0, messages.size, _DEEPEST):
                names.add(name)
                if len(names) > _MOST_FILES:
                    raise WireError("too many files")
        except WireError as error:
            file.seek(0)
            other = _other(file)
            found = f"{other}: {error}" if other else f"{error} in it"
            raise ModelError(f"{path}: expected an ONNX model, found {found}") from error
    return sorted(names)


def is_beside(name: str) -> bool:
    """Whether this is the name of a file in the same folder, and no path."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0:")


def without_weights(file: BinaryIO, least: int) -> tuple[bytes, dict[int, tuple[int, int]]]:
    """A model without the numbers of its large weights, and where in the file these are.

    Args:
        file: Of the model.
        least: Bytes of a weight that is large.

    Returns:
        The model, and of each large weight, by its place among the initializers, where its numbers begin and how many
        bytes they have.

    Raises:
        WireError: Where the file is no model.
    """
    messages = Messages(file, _MOST_INSIDE)
    model, places, count = bytearray(), dict[int, tuple[int, int]](), 0
    for field in messages.fields(0, messages.size):
        if (field.number, field.kind) != (_GRAPH, BYTES):
            model += messages.read(field.head, field.end)
            continue
        graph = bytearray()
        for part in messages.fields(field.start, field.end):
            numbers = None
            if (part.number, part.kind) == (_INITIALIZER, BYTES):
                if part.end - part.start >= least:
                    numbers = _numbers(messages, part)
                if numbers is not None and numbers.end - numbers.start >= least:
                    places[count] = numbers.start, numbers.end - numbers.start
                else:
                    numbers = None
                count += 1
            if numbers is None:
                graph += messages.read(part.head, part.end)
            else:
                before, behind = messages.read(part.start, numbers.head), messages.read(numbers.end, part.end)
                graph += framed(_INITIALIZER, before + behind)
        model += framed(_GRAPH, bytes(graph))
    return bytes(model), places


def _numbers(messages: Messages, tensor: Field) -> Field | None:
    # The field of a tensor that holds its numbers as they are in memory.
    fields = list(messages.fields(tensor.start, tensor.end))
    raw = [field for field in fields if (field.number, field.kind) == (_RAW_DATA, BYTES)]
    floats = [field for field in fields if field.number == _FLOAT_DATA]
    if len(raw) == 1 and not floats:
        return raw[0]
    is_float = any(field.number == _DATA_TYPE and field.value == _FLOAT for field in fields)
    return floats[0] if len(floats) == 1 and floats[0].kind == BYTES and is_float and not raw else None


def _locations(messages: Messages, kind: str, start: int, end: int, deepest: int) -> Iterator[str]:
    if not deepest:
        raise WireError("messages nested too deep")
    inside = _INSIDE[kind]
    for field in messages.fields(start, end, skim=True):
        if field.kind != BYTES or field.number not in inside:
            continue
        if inside[field.number] != "entry":
            yield from _locations(messages, inside[field.number], field.start, field.end, deepest - 1)
            continue
        key = value = None  # the last ones count, as in every message
        for count, part in enumerate(messages.fields(field.start, field.end)):
            if count == _MOST_OF_ENTRY:
                raise WireError("an entry with too many fields")
            if part.kind == BYTES:
                key, value = part if part.number == _KEY else key, part if part.number == _VALUE else value
        if key is None or value is None:
            continue
        if (
            key.end - key.start < _LONGEST >= value.end - value.start
            and messages.read(key.start, key.end) == b"location"
        ):
            name = messages.read(value.start, value.end).decode("utf-8", "replace")
            if is_beside(name):
                yield name


def _other(file: BinaryIO) -> str | None:
    start = file.read(8)
    if not start:
        return "an empty file"
    if start[4:] == _RUNTIME:
        return "a file in ONNX Runtime's own format (.ort); give the .onnx file that it was made from"
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            return f"{what}; export the model as ONNX"
    return None if _is_model(file) else "another format or a truncated file"


def _is_model(file: BinaryIO) -> bool:
    messages, numbers = Messages(file, _MOST_FIELDS), set[int]()
    try:
        for field in messages.fields(0, messages.size):
            if _FIELDS.get(field.number) != field.kind:
                return False
            numbers.add(field.number)
    except WireError:
        return False
    return {_IR_VERSION, _GRAPH} <= numbers

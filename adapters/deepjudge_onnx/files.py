"""Tells ONNX models from other files, by their outermost fields. Knows no ONNX."""

import io
from pathlib import Path
from typing import BinaryIO

from deepjudge_core.components.kinds import Format
from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import readable

# Fields of ModelProto (onnx.proto) and how each is written: 0 is a number, 2 are bytes with their length before them.
_IR_VERSION, _GRAPH = 1, 7
_NUMBER, _BYTES = 0, 2
_FIELDS = {_IR_VERSION: _NUMBER, 5: _NUMBER, **dict.fromkeys((2, 3, 4, 6, _GRAPH, 8, 14, 20, 25, 26), _BYTES)}
# Far above what models have: operation sets, functions and notes are one each.
_MOST_FIELDS = 10_000

_OTHERS = {
    b"PK\x03\x04": "a zip archive, as PyTorch and Keras write",
    b"\x89HDF": "an HDF5 file, as Keras writes",
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
    # It names no code, only operations; where its weights lie in other files is seen when it is opened.
    return Format("ONNX", runs_code=False)


def _other(file: BinaryIO) -> str | None:
    start = file.read(8)
    if not start:
        return "an empty file"
    if start[4:] == _RUNTIME:
        return "a file of ONNX Runtime's own format (.ort): ask for the .onnx file that it was made from"
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            return f"{what}: export the model as ONNX"
    return None if _is_model(file) else "another format or a truncated file"


def _is_model(file: BinaryIO) -> bool:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    fields: set[int] = set()
    for _ in range(_MOST_FIELDS):
        if file.tell() == size:
            return {_IR_VERSION, _GRAPH} <= fields
        tag, value = _varint(file), _varint(file)
        if tag is None or value is None or _FIELDS.get(tag >> 3) != tag & 7:
            return False
        fields.add(tag >> 3)
        if tag & 7 == _BYTES and file.seek(value, io.SEEK_CUR) > size:
            return False
    return False


def _varint(file: BinaryIO) -> int | None:
    # Seven bits a byte, the lowest first; the eighth says that there are more.
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            # Beyond this no file has bytes.
            return value if value < 2**63 else None
    return None

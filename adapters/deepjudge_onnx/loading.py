"""ONNX models as they are read: checked, in order, with their weights; those of large models stay in their files."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from onnx import ModelProto, TensorProto
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from deepjudge_core.errors import ModelError
from deepjudge_core.files import digests
from deepjudge_core.models.adapters import prefixed, readable
from deepjudge_core.text import shortened
from deepjudge_onnx.contents import check, check_external
from deepjudge_onnx.files import without_weights
from deepjudge_onnx.graph import external_files, tensors
from deepjudge_onnx.order import in_order
from deepjudge_onnx.weights import Weights, embed, refer, size_of

# Bytes of a model that is large, and of a weight that stays in its file then: what is smaller is no matter, and may say
# sizes and axes, which have to be known.
_LARGE, _LARGE_WEIGHT = 2**26, 2**16


def load(path: Path, name: str) -> tuple[ModelProto, Weights, str]:
    """Read a file.

    Args:
        name: What to call it.

    Returns:
        The model, the files that weights of it stay in, and the digest of all of its files.

    Raises:
        ModelError: When it is no model, or one that is not opened.
    """
    expected = f"{name}: expected an ONNX model"
    with readable(name, "an ONNX model"), path.open("rb") as file:
        own = _own_file(path, file)
        data = b"" if own else file.read()
        try:
            data, places = without_weights(file, _LARGE_WEIGHT) if own else (data, {})
            model = ModelProto.FromString(data)
        except Exception as error:  # protobuf's, among others
            raise ModelError(f"{expected}, found another format or a truncated file") from error
    if not data:
        raise ModelError(f"{expected}, found an empty file")
    if not model.graph.node:
        raise ModelError(f"{expected}, found one without operations")
    for place, (start, length) in places.items():
        refer(model.graph.initializer[place], next(iter(own.states)), start, length)
    with prefixed(name):
        check(model)
        model = in_order(model)
    files = sorted(set(external_files(model)) - own.states.keys())
    try:
        folder = Path(os.path.realpath(path.parent))
        check_external(files, folder)
        beside = Weights.of(folder, files)
        digest = digests.of_file(path, [folder / file for file in files]).digest
        weights = _settle(model, own, beside)
        check(model)  # again, now that they are there
    except Exception as error:
        raise ModelError(f"{expected} with the weights in {_list(files)}, found {_said(error)}") from error
    return model, weights, digest


def _own_file(path: Path, file: BinaryIO) -> Weights:
    # The model's own file, if it is large, and one that can be opened again.
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size <= _LARGE or isinstance(file, io.BytesIO):
        return Weights()
    home = path.resolve()  # ONNX Runtime follows no links
    return Weights.of(home.parent, [home.name]) if _is_text(home) else Weights()


def _settle(model: ModelProto, own: Weights, beside: Weights) -> Weights:
    # What stays in its file of a large model; all else is put into the model.
    folders = {name: weights.folder for weights in (beside, own) for name in weights.states}
    folder = own.folder if own else beside.folder
    large = bool(own) or (sum(map(beside.size, beside.states)) > _LARGE and _is_text(folder))
    stays = set[str]()
    for place, tensor in enumerate(tensors(model)):
        if not uses_external_data(tensor):
            continue
        location, size = ExternalDataInfo(tensor).location, size_of(tensor)
        _check_place(tensor, size, folders[location])
        # The graph's own come first; ONNX Runtime reads no others from files, and all from one folder.
        is_own = place < len(model.graph.initializer)
        if large and is_own and size is not None and size >= _LARGE_WEIGHT and folders[location] == folder:
            stays.add(location)
        else:
            embed(tensor, folders[location])
    states = {**beside.states, **own.states}
    return Weights(folder, {name: states[name] for name in sorted(stays)})


def _check_place(tensor: TensorProto, size: int | None, folder: Path) -> None:
    info = ExternalDataInfo(tensor)
    there = (folder / info.location).stat().st_size
    start = info.offset or 0
    length = info.length if info.length is not None else size if size is not None else there - start
    what = f"{tensor.name[:60]!r}, of the shape {list(tensor.dims)[:8]}"
    if size is not None and length != size:
        raise ModelError(f"{length} bytes in {info.location[:60]!r} for {what}, instead of {size}")
    if not 0 <= start <= start + length <= there:
        raise ModelError(
            f"{info.location[:60]!r} of {there} bytes, too short for {length} bytes from byte {start} for {what}"
        )


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # which is how Python has names of other bytes
        return False
    return True


def _said(error: Exception) -> str:
    return shortened(str(error) or type(error).__name__)


def _list(names: Sequence[str]) -> str:
    return shortened(", ".join(names)) or "it"

"""Weights that lie in files: beside a model, or in the model's own, which there is no room to hold twice."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from deepjudge_core.errors import ModelError, first_line
from deepjudge_core.types import Array

if TYPE_CHECKING:
    from deepjudge_onnx.runtime import onnxruntime

_FOLDER = "session.model_external_initializers_file_folder_path"
_SPINNING = "session.intra_op.allow_spinning"
_LOCATION, _OFFSET, _LENGTH = "location", "offset", "length"


class _State(NamedTuple):
    # What tells a file from another one of its name.
    number: int
    size: int
    time: int


@dataclass(frozen=True)
class Weights:
    """The files that tensors of a large model refer to; false where there is none, and the model has all its weights.

    Attributes:
        folder: Where they lie.
        states: What tells whether each is still what it was, by its name.
        sessions: Those that are open. Each takes as much memory as the weights: models that share these share them,
            and have one at a time.
    """

    folder: Path = Path()
    states: Mapping[str, _State] = field(default_factory=dict)
    sessions: dict[tuple[str, ...], "onnxruntime.InferenceSession"] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, names: Iterable[str]) -> "Weights":
        """Of files as they are now."""
        return cls(folder, {name: _state(folder / name) for name in names})

    def __bool__(self) -> bool:
        return bool(self.states)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self.states[name].size

    def expect_unchanged(self) -> None:
        """Refuse to go on where a file is another one now.

        Raises:
            ModelError: Naming it, without the model's name in front.
        """
        for name, state in self.states.items():
            try:
                same = _state(self.folder / name) == state
            except OSError:
                same = False
            if not same:
                raise ModelError(f"expected {name[:60]!r} unchanged since the model was opened, found it changed")

    def session(self, part: ModelProto, providers: Sequence[Any]) -> "onnxruntime.InferenceSession":
        """Let ONNX Runtime open a part of the model.

        Args:
            part: The part.
            providers: What runs it, as ONNX Runtime has them.

        Raises:
            Exception: ONNX Runtime's, which have no base of their own.
        """
        from deepjudge_onnx.runtime import onnxruntime  # which reading weights alone does not need

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised; nothing is printed
        # Threads that spin while they wait take processors from other models' processes.
        options.add_session_config_entry(_SPINNING, "0")
        if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():  # of which it takes no notice itself
            options.intra_op_num_threads = int(threads)
        elif not self:  # what several threads have to tell one another takes a small model longer than it saves
            options.intra_op_num_threads = 1
        if self:
            options.add_session_config_entry(_FOLDER, str(self.folder))
        # Where a GPU fails, it would go on with the CPU, now or when it is run, and only print so.
        return onnxruntime.InferenceSession(
            part.SerializeToString(), options, providers=providers, enable_fallback=False
        )

    def array(self, tensor: TensorProto) -> Array:
        """The numbers of a tensor.

        Raises:
            ModelError: When its file is another one now.
        """
        if uses_external_data(tensor):
            self.expect_unchanged()
            whole = TensorProto()
            whole.CopyFrom(tensor)
            embed(whole, self.folder)
            tensor = whole
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except (TypeError, ValueError) as error:  # of numbers that are not as many as its shape says
            raise ModelError(f"expected the numbers of {tensor.name[:60]!r}, found {first_line(error)}") from error

    def embedded(self, part: ModelProto) -> ModelProto:
        """A part of the model with its weights in it.

        Args:
            part: Is changed.

        Raises:
            ModelError: When a file is another one now.
        """
        self.expect_unchanged()
        for tensor in part.graph.initializer:
            if uses_external_data(tensor):
                embed(tensor, self.folder)
        return part


def size_of(tensor: TensorProto) -> int | None:
    """Bytes of its numbers; None where they are no plain numbers."""
    try:
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError):
        return None
    # Of those of less than a byte, which numpy does not have, several are in one.
    is_plain = kind.kind in "fiub" and all(size >= 0 for size in tensor.dims)
    return math.prod(tensor.dims) * kind.itemsize if is_plain else None


def refer(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Say that the numbers of a tensor lie in a file."""
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ((_LOCATION, location), (_OFFSET, str(offset)), (_LENGTH, str(length))):
        tensor.external_data.add(key=key, value=value)


def embed(tensor: TensorProto, folder: Path) -> None:
    """Put the numbers of a tensor into it, from its file."""
    info, size = ExternalDataInfo(tensor), size_of(tensor)
    with (folder / info.location).open("rb") as file:
        file.seek(info.offset or 0)
        data = file.read(info.length if size is None else size)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = data


def _state(path: Path) -> _State:
    status = path.stat()
    return _State(status.st_ino, status.st_size, status.st_mtime_ns)

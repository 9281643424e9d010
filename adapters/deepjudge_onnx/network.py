"""ONNX models as programs of torch.export, which the torch adapter trains."""

import contextlib
import io
import warnings

import torch
from onnx import ModelProto
from torch.export import Dim, ExportedProgram

from deepjudge_core.errors import ModelError
from deepjudge_core.types import Array
from deepjudge_onnx.conversion import conversion_error, convert

# Rows of the example: a number that no other axis is likely to have, so that the two are not taken for one.
_ROWS = 17


def export(model: ModelProto, sample: Array, free: tuple[int, ...], name: str) -> ExportedProgram:
    """Convert a model of one output.

    Args:
        model: Is changed.
        sample: An input of any number of rows.
        free: Axes that may have any length, that of the rows included.
        name: Of the whole model, for messages.

    Raises:
        ModelError: When it cannot be converted.
    """
    example = torch.from_numpy(sample[:1]).repeat(_ROWS, *[1] * (sample.ndim - 1))
    # What torch cannot export it prints, besides raising an error.
    silent = contextlib.redirect_stderr(io.StringIO())
    with warnings.catch_warnings(), silent:
        warnings.simplefilter("ignore")  # about onnx2fx' own code
        try:
            module = convert(model)
            return torch.export.export(module, (example,), dynamic_shapes=(dict.fromkeys(free, Dim.AUTO),))
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error
        except Exception as error:
            raise ModelError(f"{name}: {conversion_error(error)}") from error


def run(program: ExportedProgram, x: Array) -> Array:
    """What it answers."""
    with torch.inference_mode():
        answer: Array = program.module(check_guards=False)(torch.from_numpy(x)).numpy()
    return answer

"""Opens OpenVINO IR, PaddlePaddle, frozen graphs of TensorFlow, and TFLite; says how CoreML is converted."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.models.adapters import Extra, name_of
from deepjudge_core.models.model import Model
from deepjudge_core.models.outputs import Choice
from deepjudge_openvino.files import companions, examine, examine_tflite, refuse_coreml

_EXTRA = Extra("OpenVINO", "openvino", ("openvino",))
_Shape = tuple[int, ...] | None


@hookimpl
def deepjudge_adapters() -> Iterable[Adapter]:
    """Give the adapters. What reads their files opens them by name: no file is read from memory."""
    return [
        Adapter(
            name="openvino",
            suffixes=(".xml", ".pdmodel", ".pb"),
            accepts=_accepts,
            open=_open,
            examine=examine,
            companions=companions,
            imports=("deepjudge_openvino.opening",),
            extra=_EXTRA,
        ),
        Adapter(
            name="tflite",
            suffixes=(".tflite",),
            accepts=_accepts,
            open=_open_tflite,
            examine=examine_tflite,
            imports=("deepjudge_openvino.phones", "deepjudge_openvino.graph", "deepjudge_openvino.litert"),
        ),
        Adapter(
            name="coreml",
            suffixes=(".mlmodel", ".mlpackage"),
            accepts=_accepts,
            open=_refuse,
            examine=refuse_coreml,
        ),
    ]


def _accepts(source: object) -> bool:
    return False


def _open(
    source: Path,
    *,
    name: str | None = None,
    batch_size: int | None = None,
    output: Choice = None,
    input_shape: _Shape = None,
) -> Model:
    name = name or name_of(source)
    with _EXTRA.needed_by(name):
        from deepjudge_openvino.opening import open_openvino
    return open_openvino(source, name=name, batch_size=batch_size, output=output, input_shape=input_shape)


def _open_tflite(
    source: Path,
    *,
    name: str | None = None,
    batch_size: int | None = None,
    output: Choice = None,
    input_shape: _Shape = None,
) -> Model:
    from deepjudge_openvino.phones import open_tflite

    name = name or name_of(source)
    return open_tflite(source, name=name, batch_size=batch_size, output=output, input_shape=input_shape)


def _refuse(source: Path, *, name: str | None = None) -> Any:
    return refuse_coreml(Path(name or source))

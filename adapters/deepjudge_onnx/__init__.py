"""Opens ONNX models: ``.onnx`` files, and live ``onnx.ModelProto`` objects."""

from collections.abc import Iterable, Mapping
from typing import Any

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.models.adapters import Extra, name_of
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Model
from deepjudge_core.models.outputs import Choice
from deepjudge_core.weights.values import StoredWeights
from deepjudge_onnx.files import companions, examine

_EXTRA = Extra("ONNX Runtime", "onnx", ("onnx", "onnxruntime"))


@hookimpl
def deepjudge_adapters() -> Iterable[Adapter]:
    """Give the adapter."""
    return [
        Adapter(
            name="onnx",
            suffixes=(".onnx",),
            accepts=_accepts,
            open=_open,
            network=_network,
            examine=examine,
            companions=companions,
            imports=("deepjudge_onnx.model",),
            warm_up=_warm_up,
            extra=_EXTRA,
            weights=_weights,
            cuda=_cuda,
        )
    ]


def _accepts(source: object) -> bool:
    # Told by name along the MRO: asking onnx would import it.
    return any(
        cls.__module__.partition(".")[0] == "onnx" and cls.__name__ == "ModelProto" for cls in type(source).__mro__
    )


def _open(
    source: Any,
    *,
    name: str | None = None,
    batch_size: int | None = None,
    output: Choice = None,
    fix: Mapping[str, float] | None = None,
    expected: InputSpec | None = None,
    device: str | None = None,
) -> Model:
    name = name or name_of(source)
    with _EXTRA.needed_by(name):
        from deepjudge_onnx.model import open_onnx
    return open_onnx(
        source, name=name, batch_size=batch_size, output=output, fix=fix or {}, expected=expected, device=device
    )


def _network(
    source: Any,
    *,
    name: str | None = None,
    output: Choice = None,
    fix: Mapping[str, float] | None = None,
    expected: InputSpec | None = None,
) -> Any:
    # A program of torch.export, which another adapter trains.
    name = name or name_of(source)
    with _EXTRA.needed_by(name):
        from deepjudge_onnx.model import open_onnx_program
    return open_onnx_program(source, name=name, output=output, fix=fix or {}, expected=expected)


def _weights(source: Any, *, name: str | None = None) -> StoredWeights:
    name = name or name_of(source)
    with _EXTRA.needed_by(name):
        from deepjudge_onnx.stored import open_stored
    return open_stored(source, name=name)


def _cuda(number: int) -> bool:
    from deepjudge_onnx.gpu import can_use

    return can_use(number)


def _warm_up(*, gradients: bool) -> None:
    from deepjudge_onnx.warming import warm_up

    warm_up(gradients=gradients)

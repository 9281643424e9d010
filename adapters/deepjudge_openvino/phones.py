"""Opens TFLite files: those of real numbers by OpenVINO, and the others by LiteRT, their own runtime."""

import contextlib
import hashlib
from pathlib import Path

from deepjudge_core.models.adapters import Extra, prefixed, readable
from deepjudge_core.models.outputs import Choice
from deepjudge_openvino import tflite
from deepjudge_openvino.model import Graph, GraphModel

_OPENVINO = Extra("OpenVINO", "openvino", ("openvino",))
_LITERT = Extra("LiteRT, for integer TFLite models and those that OpenVINO cannot read", "litert", ("ai_edge_litert",))


def open_tflite(
    path: Path, *, name: str, batch_size: int | None, output: Choice, input_shape: tuple[int, ...] | None
) -> GraphModel:
    """Open a TFLite file.

    Args:
        path: The file.
        name: What to call it.
        batch_size: Rows in a batch.
        output: The one that holds the scores, by its name or its number.
        input_shape: Of the inputs that it will be given, for axes of any length.

    Raises:
        MissingExtraError: When what reads it is not installed.
        ModelError: When it cannot be opened as a classifier.
    """
    with readable(name, "a TFLite model"):
        data = path.read_bytes()
    with prefixed(name):
        network = tflite.read(data)
    graph = None if network.quantised else _by_openvino(path, name)
    graph = graph or _by_litert(data, network, name)
    return GraphModel(
        graph,
        name=name,
        framework="tflite",
        digest=hashlib.sha256(data).hexdigest(),
        batch_size=batch_size,
        output=output,
        input_shape=input_shape,
    )


def _by_openvino(path: Path, name: str) -> Graph | None:
    """None where OpenVINO cannot read it."""
    with _OPENVINO.needed_by(name):
        from deepjudge_openvino.graph import OpenVinoGraph, UnreadableError
    with prefixed(name), contextlib.suppress(UnreadableError):
        return OpenVinoGraph.read(path)
    return None


def _by_litert(data: bytes, network: tflite.Network, name: str) -> Graph:
    with _LITERT.needed_by(name):
        from deepjudge_openvino.litert import LiteRtGraph
    with prefixed(name):
        return LiteRtGraph(data, network)

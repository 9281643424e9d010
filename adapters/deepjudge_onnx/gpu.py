"""ONNX Runtime on a GPU: what it is told, and whether it can.

It turns to the processor by itself, and only prints so, if its provider for CUDA cannot be loaded. So it is asked what
it runs on.
"""

import contextlib
import functools
import io
from typing import Any

from onnx import TensorProto, helper

from deepjudge_onnx.runtime import onnxruntime
from deepjudge_onnx.weights import Weights

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def providers(device: str | None) -> list[Any]:
    """What runs a model on a device; operations that a GPU does not have run on the processor.

    Args:
        device: ``cpu`` or ``cuda:N``; None for the processor.
    """
    kind, _, number = (device or "cpu").partition(":")
    # Its products would by default drop 13 of the 23 bits after the point.
    return [CPU] if kind == "cpu" else [(CUDA, {"device_id": number, "use_tf32": "0"}), CPU]


def ran_on(session: "onnxruntime.InferenceSession") -> str:
    """What a session runs on, in ONNX Runtime's words, a GPU with its number."""
    options = session.get_provider_options()
    numbers = {name: options.get(name, {}).get("device_id") for name in session.get_providers()}
    return ", ".join(name if number is None else f"{name}:{number}" for name, number in numbers.items())


@functools.cache
def can_use(number: int) -> bool:
    """Whether ONNX Runtime runs a tiny model on a GPU."""
    if CUDA not in onnxruntime.get_available_providers():
        return False
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "tiny", [x], [y])
    model = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 12)])
    # It prints which libraries it does not find.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        onnxruntime.preload_dlls()  # those of CUDA that pip has installed
        return CUDA in Weights().session(model, providers(f"cuda:{number}")).get_providers()
    return False

"""OpenVINO, which is told to tell nobody what it runs, and to compute in float32 in one order.

On import its Python package sends a message to its maker, from a process of its own, by the package
``openvino_telemetry``. It does without where that is missing, and here it is made to: what an auditor runs is nobody
else's affair. A program that imported OpenVINO before has told already, and keeps what it has.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def _missing(module: str) -> Iterator[None]:
    # Inside the block it is as if it was not installed.
    before = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
        if before is not None:
            sys.modules[module] = before


with _missing("openvino_telemetry"):
    import openvino
    from openvino import opset15 as opset
    from openvino.utils.node_factory import NodeFactory

__all__ = ["EXACT", "NodeFactory", "openvino", "opset"]

EXACT: Mapping[str, Any] = {
    # Else processors that know bfloat16 compute in it, without a word.
    "INFERENCE_PRECISION_HINT": "f32",
    "EXECUTION_MODE_HINT": "ACCURACY",
    # Else what comes to a layer of 8-bit weights is rounded to 8 bits, too.
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "KV_CACHE_PRECISION": "f32",
    # How many threads compute changes the last digits.
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
}
"""How the processor runs every model."""

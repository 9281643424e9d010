"""Where TensorFlow computes. By itself it takes a GPU if it sees one, and the processor if it sees none."""

import contextlib
from typing import Any

import tensorflow as tf

from deepjudge_core.errors import ModelError

GPU = "GPU"


def can_use(number: int) -> bool:
    """Whether TensorFlow sees a GPU of this number."""
    return number < len(tf.config.list_physical_devices(GPU))


def on(device: str | None) -> contextlib.AbstractContextManager[Any]:
    """Let TensorFlow compute inside the block where it is told.

    Args:
        device: ``cpu`` or ``cuda:N``; None for where it would by itself.
    """
    if device is None or (device == "cpu" and not can_use(0)):
        return contextlib.nullcontext()
    if device == "cpu":
        return tf.device("/CPU:0")  # type: ignore[no-any-return]
    # Its products would by default drop 13 of the 23 bits after the point.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return tf.device(f"/{GPU}:{device.partition(':')[2]}")  # type: ignore[no-any-return]


def ran_on(device: str | None, name: str) -> str:
    """Where it computes if it is told so, in its own words; for the model of this name.

    Raises:
        ModelError: If that is elsewhere.
    """
    with on(device):
        found: str = (tf.constant(0.0) + 0.0).device.rpartition("device:")[2]
    kind, _, number = (device or "").partition(":")
    if device is not None and found != ("CPU:0" if kind == "cpu" else f"{GPU}:{number}"):
        raise ModelError(
            f"{name}: expected TensorFlow to run it on {device}, found that it runs on {found}", code="no-device"
        )
    return found

"""Tells the files of this adapter's formats by their first bytes, and which files lie beside them. Knows no library."""

from collections.abc import Sequence
from pathlib import Path

from deepjudge_core.components.kinds import Format
from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import readable
from deepjudge_openvino.tflite import MAGIC

WEIGHTS = {".xml": ".bin", ".pdmodel": ".pdiparams"}
"""Of formats whose weights lie beside the model, what the names of both end with."""

# Bytes in which the root of an IR begins; notes may come before it.
_START = 4096

# None of these names code; but what reads them is C++ that opens files itself, and takes them for what they say.
_IR, _PADDLE, _FROZEN = (Format(name) for name in ("OpenVINO IR", "PaddlePaddle", "a frozen graph of TensorFlow"))
_TFLITE = Format("TFLite")


def examine(path: Path) -> Format:
    """Say what a stranger's file is.

    Raises:
        ModelError: When it is none of these.
    """
    suffix = path.suffix.lower()
    with readable(str(path), "a model"), path.open("rb") as file:
        start = file.read(_START)
    if suffix == ".xml":
        if b"<net " in start and start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            return _IR
        raise ModelError(
            f"{path}: expected the .xml of an OpenVINO IR, found another format; check its name, or "
            "convert the model again"
        )
    if suffix == ".pb" and start.startswith(b"\x08"):
        raise ModelError(f"{path}: expected a frozen graph, found part of a SavedModel; name its folder")
    if start.startswith(b"\x0a"):  # the first field of either, with its length behind it
        return _PADDLE if suffix == ".pdmodel" else _FROZEN
    expected = "a PaddlePaddle model" if suffix == ".pdmodel" else "a frozen graph of TensorFlow"
    raise ModelError(f"{path}: expected {expected}, found another format; check its name, or export it again")


def examine_tflite(path: Path) -> Format:
    """Say whether a stranger's file is of TFLite.

    Raises:
        ModelError: When it is not.
    """
    with readable(str(path), "a TFLite model"), path.open("rb") as file:
        start = file.read(8)
    if start[4:] != MAGIC:
        raise ModelError(f"{path}: expected a TFLite model, found another format; check its name, or convert it again")
    return _TFLITE


def refuse_coreml(path: Path) -> Format:
    """Say how to convert what Apple's systems alone run.

    Raises:
        ModelError: Always.
    """
    raise ModelError(
        f"{path}: expected a model that runs here, found a CoreML model, which runs only on "
        "Apple's systems; export the original network to ONNX or TFLite, or, if all you have is "
        "an .mlmodel of a neural network, convert it to ONNX with onnxmltools.convert_coreml"
    )


def companions(path: Path) -> Sequence[str]:
    """Names of the files beside a model that hold its weights."""
    suffix = WEIGHTS.get(path.suffix.lower())
    return () if suffix is None else (path.with_suffix(suffix).name,)

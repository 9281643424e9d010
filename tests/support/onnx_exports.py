"""PyTorch's exporter to ONNX, as tests call it."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Ignore what exporters say of their own code."""
    with warnings.catch_warnings():
        for message, category in [
            # PyTorch's old exporter, of itself, and of its own recurrent layers.
            ("You are using the legacy TorchScript-based ONNX export", DeprecationWarning),
            ("The feature will be removed", DeprecationWarning),
            ("Converting a tensor to a Python boolean", Warning),
            ("Exporting a model to ONNX with a batch_size other than 1", UserWarning),
            # PyTorch's new one, of what it calls.
            (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
            ("_check_is_size will be removed", FutureWarning),
            ("The .grad attribute of a Tensor that is not a leaf Tensor is being accessed", UserWarning),
            (r"The tensor attributes self\.(l\.)?_flat_weights", UserWarning),
            # Keras', which gives numpy back a name that tf2onnx asks for.
            (r"In the future `np\.object` will be defined", FutureWarning),
        ]:
            warnings.filterwarnings("ignore", message, category)
        yield


def export_torch(module: Any, x: Any, path: Path, exporter: str, **options: Any) -> Path:
    import torch

    pytest.importorskip("onnxscript", reason="PyTorch exports to ONNX through onnxscript")
    module.eval()
    with exporting():
        if exporter == "old":
            # Opset 17 is before Gelu, HardSwish, Mish, ...: they are made of other operations.
            settings = {"opset_version": 17, "input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
            torch.onnx.export(module, (x,), path, dynamo=False, **(settings | options))
        else:
            settings = {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},), "verbose": False}
            torch.onnx.export(module, (x,), path, dynamo=True, **(settings | options))
    return path

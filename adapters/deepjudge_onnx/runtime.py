"""ONNX Runtime, which is told to tell nobody what it runs.

Since 1.29 its wheels for Linux send to their maker, among others, names and hashes of the models that they run, and
write to the user's cache. An auditor's models are not theirs to tell of. Whoever wants it sets the variable to 0.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]

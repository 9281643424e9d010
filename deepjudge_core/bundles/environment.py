"""What an audit ran on: versions and settings that numbers may depend on, nothing that tells whose machine it is."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from deepjudge_core.components.registry import Plugin

SCHEMA = "deepjudge/environment/1"
_PACKAGES = (
    *("deepjudge", "numpy", "scipy", "safetensors", "pluggy", "cryptography", "rfc3161-client"),
    *("onnx", "onnxruntime", "onnxruntime-gpu", "onnx2fx", "torch", "keras", "tensorflow"),
)
_SETTINGS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "CUDA_VISIBLE_DEVICES"),
)


def describe_environment(plugins: Iterable[Plugin]) -> dict[str, Any]:
    """The environment of this process as JSON values; on one machine the same each time.

    Packages are looked up and not imported. What device a framework chose is not known here.
    """
    return {
        "schema": SCHEMA,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "processors": os.cpu_count(),
        "blas": _blas(),
        "packages": {name: installed for name in _PACKAGES if (installed := _version(name)) is not None},
        "plugins": sorted(f"{plugin.name}: {plugin.distribution}" for plugin in plugins),
        "variables": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _blas() -> str | None:
    # numpy's. The rest of what it says are paths of the machine that it was built on.
    try:
        library = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{library['name']} {library['version']}"
    except (KeyError, TypeError):
        return None

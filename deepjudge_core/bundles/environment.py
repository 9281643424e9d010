"""What an audit ran on: versions and settings that numbers may depend on, nothing that tells whose machine it is."""

import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from deepjudge_core.bundles.statement import dump_json
from deepjudge_core.components.registry import Plugin
from deepjudge_core.files.documents import Document, Positive, parse, plain
from deepjudge_core.files.reading import parse_json

SCHEMA = "deepjudge/environment/1"
_PACKAGES = (
    *("deepjudge", "numpy", "scipy", "safetensors", "pluggy", "cryptography", "rfc3161-client"),
    *("onnx", "onnxruntime", "onnxruntime-gpu", "onnx2fx", "torch", "keras", "tensorflow"),
)
_SETTINGS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "CUDA_VISIBLE_DEVICES"),
)


class Environment(Document, frozen=True, kw_only=True, tag_field="schema", tag=SCHEMA):
    """What an audit ran on, as its maker says.

    Attributes:
        python: Version of Python.
        implementation: Which Python it is.
        system: Name of the operating system.
        machine: Type of the processor.
        libc: The C library and its version.
        processors: How many there are; None if that is not known.
        blas: numpy's BLAS and its version; None if that is not known.
        packages: Installed packages that numbers may depend on, and their versions.
        plugins: ``name: distribution`` of each plugin.
        variables: Settings of threads and devices.
    """

    python: str
    implementation: str
    system: str
    machine: str
    libc: str
    processors: Positive | None
    blas: str | None
    packages: Mapping[str, str]
    plugins: tuple[str, ...]
    variables: Mapping[str, str]

    def dump(self) -> bytes:
        """The file; equal environments give equal bytes."""
        return dump_json(plain(self))

    @classmethod
    def parse(cls, data: bytes) -> "Environment":
        """The inverse of :meth:`dump`: no other bytes are taken.

        Raises:
            ValueError: Saying what is wrong.
        """
        environment = parse(cls, parse_json(data))
        if environment.dump() != data:
            raise ValueError("deepjudge writes it in another form")
        return environment


def describe_environment(plugins: Iterable[Plugin]) -> Environment:
    """The environment of this process; on one machine the same each time.

    Packages are looked up and not imported. What device a framework chose is not known here.
    """
    return Environment(
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        system=platform.system(),
        machine=platform.machine(),
        libc=" ".join(platform.libc_ver()).strip(),
        processors=os.cpu_count(),
        blas=_blas(),
        packages={name: installed for name in _PACKAGES if (installed := _version(name)) is not None},
        plugins=tuple(sorted(f"{plugin.name}: {plugin.distribution}" for plugin in plugins)),
        variables={name: os.environ[name] for name in _SETTINGS if name in os.environ},
    )


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

"""Opens models of Keras, in files and live, SavedModel folders of TensorFlow, and layers models of TensorFlow.js."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import Extra, keep_triton_out, name_of
from deepjudge_core.models.model import Model
from deepjudge_core.models.network import Network
from deepjudge_core.models.outputs import Choice
from deepjudge_core.weights.values import StoredWeights
from deepjudge_keras import tfjs
from deepjudge_keras.files import GRAPH, beside, examine

_EXTRA = Extra("TensorFlow and Keras", "tensorflow", ("tensorflow", "keras", "h5py"))
_HDF5 = Extra("h5py", "tensorflow", ("h5py",))  # all that weights alone need
_SUFFIXES = (".keras", ".h5", ".hdf5")


@hookimpl
def deepjudge_adapters() -> Iterable[Adapter]:
    """The adapter of this package."""
    return [
        Adapter(
            "keras",
            suffixes=_SUFFIXES,
            accepts=_accepts,
            open=_open,
            shared_suffixes=(tfjs.SUFFIX,),
            folders=(GRAPH, tfjs.FILE),
            network=_network,
            examine=examine,
            companions=beside,
            # SciPy's part tells activations of several operations.
            imports=("deepjudge_keras.lean", "scipy.special", "deepjudge_keras.model", "deepjudge_keras.savedmodel"),
            copyable=True,
            warm_up=_warm_up,
            extra=_EXTRA,
            weights=_weights,
            cuda=_cuda,
        )
    ]


def _accepts(source: object) -> bool:
    # By name along the MRO: asking isinstance would import Keras.
    return any(cls.__name__ == "Model" and cls.__module__.partition(".")[0] == "keras" for cls in type(source).__mro__)


def _open(
    source: Path | Any,
    *,
    name: str | None = None,
    batch_size: int | None = None,
    output: Choice = None,
    device: str | None = None,
) -> Model:
    with _framework(name or name_of(source)):
        from deepjudge_keras.model import open_keras
        from deepjudge_keras.savedmodel import open_saved_model
    if _is_saved_model(source):
        return open_saved_model(source, name=name, batch_size=batch_size, output=output, device=_place(source, device))
    return open_keras(source, name=name, batch_size=batch_size, output=output, device=_place(source, device))


def _network(
    source: Path | Any, *, name: str | None = None, output: Choice = None, device: str | None = None
) -> Network:
    if _is_saved_model(source):
        raise ModelError(
            f"{name or source}: expected a model that can be retrained, found a SavedModel, which "
            "holds operations and no layers; give the .keras file, or the live model, that it was "
            "exported from"
        )
    with _framework(name or name_of(source)):
        from deepjudge_keras.network import open_network
    return open_network(source, name=name, output=output, device=_place(source, device))


def _weights(source: Path | Any, *, name: str | None = None) -> StoredWeights:
    name = name or name_of(source)
    with _HDF5.needed_by(name):
        from deepjudge_keras.stored import LiveWeights, open_stored
    return open_stored(source, name=name) if isinstance(source, Path) else LiveWeights(name, source)


def _cuda(number: int) -> bool:
    with _framework("the adapter itself"):
        from deepjudge_keras.device import can_use
    return can_use(number)


def _place(source: Path | Any, device: str | None) -> str | None:
    # A live model computes where TensorFlow lets it.
    return "cpu" if device is None and isinstance(source, Path) else device


def _warm_up(*, gradients: bool) -> None:
    with _framework("the adapter itself"):
        from deepjudge_keras.warming import warm_up
    warm_up(_open, gradients=gradients)


def _is_saved_model(source: Path | Any) -> bool:
    if not isinstance(source, Path) or not source.is_dir() or _is_named_as_file(source):
        return False
    return (source / GRAPH).is_file() or not tfjs.is_model(source)


def _is_named_as_file(folder: Path) -> bool:
    return folder.name.lower().endswith(_SUFFIXES) and not (folder / GRAPH).is_file()


@contextlib.contextmanager
def _framework(name: str) -> Iterator[None]:
    """Import TensorFlow and Keras; where they are missing, say what to install."""
    with _EXTRA.needed_by(name), _without_chatter():
        keep_triton_out()
        yield


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep what TensorFlow says of itself while it is imported off the terminal.

    ``TF_CPP_MIN_LOG_LEVEL`` silences what comes later (the search for a GPU among it), but not the lines that its
    libraries write to the file descriptor while they are loaded, before they read that variable.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)

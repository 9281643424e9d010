"""Files of weights alone, put into the network that the user's own code makes."""

import contextlib
import io
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.models.code import OwnCode, on_path
from deepjudge_core.models.outputs import Choice
from deepjudge_core.naming import option
from deepjudge_core.weights.reading.shards import read_shards
from deepjudge_torch.advice import way_out
from deepjudge_torch.base import TensorModel, line
from deepjudge_torch.checkpoint import SHOWN, Node, choose, choose_alone, few, misfits, shortened, walk
from deepjudge_torch.files import Kind, kind_at
from deepjudge_torch.live import open_module

_WHOLE = {getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}


class _Unread:
    """In the place of an object that training code saves beside weights: what the file says of it is passed over."""

    # It has no place where a file could put what torch's unpickler would call.
    __slots__ = ()

    def __init__(self, *_: object, **__: object) -> None:
        """Take anything, and keep nothing."""

    def __setstate__(self, state: object) -> None:
        """Keep nothing."""


# Beside weights, and no more than names and values: the settings of a training script, and its figures (the best
# accuracy as numpy's number, the state of numpy's randomness), folders and times, of which none is made.
_UNREAD = (
    *(f"numpy.{core}.multiarray.{maker}" for core in ("core", "_core") for maker in ("scalar", "_reconstruct")),
    *("argparse.Namespace", "numpy.dtype", "numpy.ndarray", "datetime.datetime", "datetime.date", "datetime.timedelta"),
    *(f"pathlib.{local}{path}" for local in ("", "_local.") for path in ("Path", "PosixPath", "WindowsPath")),
)
_PLAIN_OBJECTS = [(_Unread, name) for name in _UNREAD]
# How torch names what it does not load as weights.
_PICKLED = re.compile(r"GLOBAL ([\w.]+)")


def open_state_dict(
    path: Path,
    kind: Kind,
    digest: str,
    *,
    name: str,
    batch_size: int | None,
    input_shape: tuple[int, ...] | None,
    arch: str | None,
    output: Choice = None,
    device: str | None = None,
) -> TensorModel:
    """Open a state dict, of ``torch.save`` or safetensors, as the network that ``arch`` makes.

    The weights are read as data (``weights_only=True``, safetensors): no code in the file runs. The network's code,
    which does run, is the user's own. All weights have to fit, none may be missing or left; they may stand among what
    training code saves beside them, as :mod:`deepjudge_torch.checkpoint` finds them.

    Args:
        kind: Of the file.
        digest: Of the file's bytes, whatever ``arch`` is: equal weights have equal digests.
        input_shape: Of one input, without the batch axis; by default the network's attribute ``input_shape``.
        arch: ``package.module:factory`` or ``file.py:factory``, a callable without arguments (a class, too) that gives
            a ``torch.nn.Module``; a module is imported from ``sys.path`` and, before that, from the current directory,
            as ``python -m`` does.
        output: The one that holds the scores, by its name or its number.
        device: Where it runs; by default where its network is made.

    Raises:
        ModelError: When the file or the network cannot be had, or do not fit one another.
        UsageError: When ``arch`` is none.
    """
    nodes = _find(_read(path, kind, name), name)
    if arch is None:
        raise ModelError(
            f"{name}: expected the network that these weights belong to, found only a state dict; name the function or "
            f"class that builds the network, and takes no arguments, with {option('arch', 'file.py:function')}"
        )
    module = make_module(name, arch)
    notes = _fill(module, nodes, name, arch)
    if input_shape is None:
        input_shape = _shape(module)
    if input_shape is None:
        raise ModelError(
            f"{name}: expected the input shape, found none; give input_shape=(1, 28, 28), or an "
            f"attribute input_shape on the module that {arch} returns"
        )
    options: dict[str, Any] = {"name": name, "batch_size": batch_size, "output": output, "device": device}
    model = open_module(module, input_shape=input_shape, digest=digest, **options)
    model.notes = notes
    return model


def make_module(name: str, arch: str) -> nn.Module:
    """Call what makes a network.

    Args:
        name: Of the model, for messages.
        arch: As :func:`open_state_dict` has it.

    Raises:
        ModelError: When it makes none.
        UsageError: When ``arch`` is none.
    """
    try:
        code = OwnCode.parse(arch)
    except UsageError as error:
        raise UsageError(f"{name}: {error}", code=error.code) from None
    with on_path(Path.cwd()):
        try:
            module = code.make()
        except Exception as error:
            raise ModelError(f"{name}: expected {arch} to build the network, found {line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{name}: expected {arch} to return a torch.nn.Module, found a {type(module).__name__}")
    return module


def read_weights(path: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors in a file of weights alone, or in the files that an index names.

    Args:
        name: What to call it.

    Raises:
        ModelError: When they cannot be read, or the file holds something else.
    """
    expected = f"{name}: expected a file of weights"
    content = _read(path, kind_at(path, f"{name}: {path.name}"), name)
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelError(f"{expected}, found something else in {path.name}")
    return {key: _plain(value, key, expected) for key, value in content.items()}


def find_alone(path: Path, kind: Kind, name: str) -> Mapping[str, torch.Tensor]:
    """The weights of a network of which nothing is known, in a file of ``torch.save``; they stay in the file.

    Args:
        kind: Of the file, or of an index of several.
        name: What to call it.

    Raises:
        ModelError: When there are none, or those of several networks.
    """
    nodes = _find(_read(path, kind, name, mapped=True), name)
    found = [(node.place, node.state) for node in nodes if not node.of_optimiser]
    expected = f"{name}: expected a state dict"
    state = choose_alone([(place, state) for place, state in found if state], expected)
    return {key: _plain(value, key, expected) for key, value in state.items() if isinstance(value, torch.Tensor)}


def _read(path: Path, kind: Kind, name: str, *, mapped: bool = False) -> Any:
    # All that is in it.
    if kind is Kind.INDEX:
        return _read_shards(path, name, mapped=mapped)
    expected = f"{name}: expected a state dict"
    if kind in (Kind.SCRIPT, Kind.PROGRAM):
        raise ModelError(f"{expected}, found {kind.value}")
    try:
        with torch.sparse.check_sparse_tensor_invariants(), torch.serialization.safe_globals(_PLAIN_OBJECTS):
            return _load(path, kind, mapped=mapped)
    except pickle.UnpicklingError as error:
        pickled = _PICKLED.search(str(error))
        what = f" (a pickled {shortened(pickled[1])})" if pickled else ""
        raise ModelError(
            f"{expected}, found a damaged file, or one that holds more than weights{what}; {way_out(name)}"
        ) from error
    except Exception as error:  # whatever a damaged file makes torch stumble over
        raise ModelError(f"{expected}, found one that torch {torch.__version__} cannot load: {line(error)}") from error


def _read_shards(path: Path, name: str, *, mapped: bool) -> dict[str, Any]:
    weights: dict[str, Any] = {}
    for file, tensors in read_shards(path, name).items():
        title = f"{name}: {file}"
        kind = kind_at(path.with_name(file), title)
        part = _read(path.with_name(file), kind, title, mapped=mapped)
        if not isinstance(part, Mapping) or part.keys() != set(tensors):
            others = sorted(map(str, set(tensors).symmetric_difference(part))) if isinstance(part, Mapping) else []
            raise ModelError(f"{title}: expected the weights that the index names, found others: {few(others)}")
        weights.update(part)
    return weights


def _find(content: Any, name: str) -> Sequence[Node]:
    # All that the file holds, state dicts among it.
    expected = f"{name}: expected a state dict"
    nodes = walk(content)
    if any(node.state for node in nodes):
        return nodes
    if isinstance(content, Mapping):
        entries = [f"{shortened(str(key))} ({type(value).__name__})" for key, value in list(content.items())[:SHOWN]]
        raise ModelError(f"{expected}, found a dict of {', '.join(entries) or 'nothing'}")
    raise ModelError(f"{expected}, found a {type(content).__name__}")


def _load(path: Path, kind: Kind, *, mapped: bool) -> Any:
    # From the bytes: where the file is in memory, none has to be opened.
    if kind is Kind.TENSORS:
        return safetensors.torch.load(path.read_bytes())
    if kind is Kind.OLD_SAVED:
        # What has no place on the disk torch does not try to unpack as a tar archive.
        return torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    if mapped and kind is Kind.SAVED:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    with path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def _plain(value: Any, key: str, expected: str) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    kinds = {
        f"a {type(value).__name__}": type(value) not in (torch.Tensor, nn.Parameter),
        "a nested tensor": value.is_nested,
        "a sparse tensor": value.layout is not torch.strided,
        f"a tensor on the device {value.device.type}": value.device.type != "cpu",
        "a quantised tensor": value.is_quantized,
    }
    problem = next((kind for kind, holds in kinds.items() if holds), None)
    if problem is None:
        if value.numel() * value.element_size() <= value.untyped_storage().nbytes():
            # Without what else the file may have hung on it.
            return torch.Tensor.detach(value)
        # Repeated rows, which take no memory until they are copied.
        problem = f"{value.numel()} numbers spread over {value.untyped_storage().nbytes()} bytes"
    raise ModelError(f"{expected} of dense tensors, found {problem} under {shortened(key)!r}; save dense copies")


def _fill(module: nn.Module, nodes: Sequence[Node], name: str, arch: str) -> tuple[str, ...]:
    # Notes of where the weights were found.
    expected, own = f"{name}: expected weights that fit {arch}", module.state_dict()
    found = list[tuple[tuple[str, ...], Mapping[str, Any]]]()
    for node in nodes:
        # What an optimiser keeps may be of any kind.
        with contextlib.suppress(ModelError) if node.of_optimiser else contextlib.nullcontext():
            state = {key: _plain(value, key, f"{name}: expected a state dict") for key, value in node.state.items()}
            found += [(node.place, state)] if state else []
    chosen, notes = choose(found, own, expected, nodes)
    weights = chosen.weights
    others = [
        f"{key} {_type(weights[key])} for {_type(value)}"
        for key, value in own.items()
        if isinstance(weights.get(key), torch.Tensor) and isinstance(value, torch.Tensor)
        if not holds(value.dtype, weights[key])
    ]
    if others:  # torch would cast them in silence
        raise ModelError(f"{expected}, found numbers of another kind: {few(others)}; save them in the network's types")
    try:
        module.load_state_dict(weights, strict=True)
    except Exception as error:
        raise ModelError(f"{expected}, found {misfits(weights, own) or line(error)}") from error
    return notes


def holds(dtype: torch.dtype, value: torch.Tensor) -> bool:
    """Whether a weight of this type may have these numbers: of another precision, but neither complex nor quantised."""
    if dtype == value.dtype:
        return True
    kinds = [_kind(dtype), _kind(value.dtype)]
    if kinds[0] == kinds[1]:
        return True
    if kinds[0] not in ("whole", "bool") or kinds[1] not in ("whole", "bool", "real"):
        return False
    return bool((value.to(dtype).to(value.dtype) == value).all())  # such as a counter that was saved as a real number


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype == torch.bool:
        return "bool"
    if dtype.is_floating_point and dtype.itemsize > 1:
        return "real"
    return "whole" if dtype in _WHOLE else str(dtype)


def _type(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _shape(module: nn.Module) -> tuple[int, ...] | None:
    shape = getattr(module, "input_shape", None)
    if isinstance(shape, tuple | list) and shape and all(isinstance(size, int) for size in shape):
        return tuple(shape)
    return None

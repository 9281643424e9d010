"""Fills a Keras model with weights that are known by the names that Keras 2 or TensorFlow.js gave them.

Their order does not say enough: it depends on which layers were trained, and on the order in which a model was made.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from deepjudge_core.errors import ModelError


@dataclass(frozen=True, eq=False)
class _Slot:
    """A place for a weight.

    Attributes:
        variable: The variable of Keras.
        owner: The layer that has it.
        path: Names of the layers that it is in, and of its owner.
    """

    variable: Any
    owner: Any
    path: tuple[str, ...]

    def answers_to(self, name: str) -> bool:
        """Whether a weight of this name, without layers, may belong here."""
        own = self.variable.name
        return name == own or (
            own == "kernel" and name == "depthwise_kernel" and "Depthwise" in type(self.owner).__name__
        )


def fill(layer: Any, arrays: Mapping[str, Any]) -> None:
    """Give a layer, or a model, its weights.

    Args:
        arrays: By their names, such as ``conv2d/kernel:0``, after which layers and variable are looked for; arrays of
            numpy or of HDF5.

    Raises:
        ModelError: When these are other weights than the layer has, or it is not plain which is which.
    """
    slots = list(_slots(layer, (), set()))
    filled: dict[int, str] = {}
    for name, array in arrays.items():
        slot = _slot(slots, name)
        if id(slot.variable) in filled:
            raise ModelError(
                f"its weights {filled[id(slot.variable)]!r:.80} and {name!r:.80} are for the same place; "
                "save the model again"
            )
        filled[id(slot.variable)] = name
        _assign(slot.variable, name, array)
    for slot in slots:
        if id(slot.variable) not in filled:
            place = "/".join((*slot.path, slot.variable.name))
            raise ModelError(f"it has no weights for {place!r:.120}; save the whole model again")
    for part in _parts(layer, set()):
        if hasattr(part, "finalize_state"):
            part.finalize_state()


def _slot(slots: list[_Slot], name: str) -> _Slot:
    *layers, own = name.rpartition(":")[0].split("/") if name.rpartition(":")[2].isdigit() else name.split("/")
    possible = [slot for slot in slots if slot.answers_to(own)]
    shared = [len(set(layers).intersection(slot.path)) for slot in possible]
    nearest = [slot for slot, count in zip(possible, shared, strict=True) if count == max(shared)]
    if len(nearest) != 1:
        kind = "none" if not nearest else f"{len(nearest)} of them"
        raise ModelError(
            f"expected one place for its weights {name!r:.80} by their name, found {kind}; export it to ONNX"
        )
    return nearest[0]


def _assign(variable: Any, name: str, array: Any) -> None:
    if tuple(array.shape) != tuple(variable.shape):
        raise ModelError(
            f"expected weights {tuple(variable.shape)} for {name!r:.80}, found {tuple(array.shape)}; save "
            "the model again"
        )
    real = keras.backend.is_float_dtype(variable.dtype)
    if array.shape and real == (array.dtype.kind in "biu"):  # single numbers count something
        kinds = ("real", "whole") if real else ("whole", "real")
        raise ModelError(
            f"expected {kinds[0]} numbers for its weights {name!r:.80}, found {kinds[1]} ones; save the model again"
        )
    variable.assign(np.asarray(array))


def _slots(layer: Any, path: tuple[str, ...], known: set[int]) -> Iterator[_Slot]:
    path = (*path, layer.name)
    for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
        if id(variable) not in known:
            known.add(id(variable))
            yield _Slot(variable, layer, path)
    for inner in layer._layers:
        yield from _slots(inner, path, known)


def _parts(layer: Any, known: set[int]) -> Iterator[Any]:
    if id(layer) not in known:
        known.add(id(layer))
        yield layer
        for inner in layer._layers:
            yield from _parts(inner, known)

"""What a model of PyTorch answers, taken apart: tensors in tuples, dicts and dataclasses, each with its name."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree

from deepjudge_core.errors import ModelError
from deepjudge_core.models.outputs import Output, Outputs, is_softmax, name_of_path, row_width

T = TypeVar("T")


def leaves(answer: Any, kind: type[T]) -> list[tuple[str, T]]:
    """All values of a kind in what a model answers, each with its name, which is empty where it has none."""
    return [(name_of_path(path), value) for path, value in _walk(answer, kind, ())]


def names_of(spec: pytree.TreeSpec) -> list[str]:
    """The names of the outputs of an exported program; empty ones where its structure does not tell."""
    try:
        structure = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
        names = {place: name for name, place in leaves(structure, int)}
    except Exception:  # a class of somebody's own, which takes no numbers
        names = {}
    return [names.get(place, "") for place in range(spec.num_leaves)]


def describe(answer: Any, rows: int) -> list[Output]:
    """The outputs of a model, by what it answers to some number of rows."""
    return [_output(name, tensor, rows) for name, tensor in leaves(answer, torch.Tensor)]


def find_scores(answer: Any, rows: int, place: int | None = None) -> torch.Tensor:
    """The scores ``(rows, classes)`` in what a model answers.

    Args:
        place: Of the output that holds them, from 0; by default as nobody says it.

    Raises:
        ModelError: When there are none; without the model's name in front.
    """
    if place is None:
        place = Outputs.of(describe(answer, rows)).place
    tensors = [tensor for _, tensor in leaves(answer, torch.Tensor)]
    scores = tensors[place] if place < len(tensors) else torch.empty(0)
    if scores.shape[:1] != (rows,) or row_width(scores.shape[1:]) is None:
        raise ModelError(f"expected an output (n, classes), found {tuple(scores.shape)} for n = {rows}")
    return scores if scores.ndim == 2 else scores.reshape(rows, -1)


def _walk(value: Any, kind: type[T], path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], T]]:
    if isinstance(value, kind):
        yield path, value
        return
    parts: Sequence[tuple[str | int, Any]] = []
    if isinstance(value, Mapping):
        parts = [(str(key), part) for key, part in value.items()]
    elif dataclasses.is_dataclass(value):
        parts = [(entry.name, getattr(value, entry.name)) for entry in dataclasses.fields(value)]
    elif isinstance(value, tuple | list):
        parts = list(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    for step, part in parts:
        yield from _walk(part, kind, (*path, step))


def _output(name: str, tensor: torch.Tensor, rows: int) -> Output:
    shape = [str(size) for size in tensor.shape]
    by_rows = tensor.ndim > 0 and len(tensor) == rows
    real = tensor.dtype.is_floating_point
    text = f"({', '.join(['n' if by_rows else shape[0], *shape[1:]] if shape else [])})"
    if not real:
        text += f" of {str(tensor.dtype).removeprefix('torch.')}"
    if not (by_rows and real) or row_width(tensor.shape[1:]) is None:
        return Output(name, text, None)
    scores = tensor.detach().float().cpu().numpy().reshape(rows, -1)
    return Output.of_scores(name, tensor.shape[1:], softmax=is_softmax(scores))

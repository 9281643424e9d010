"""Inputs of one model, arranged for another: channels first or last, an axis of one channel more or less."""

from collections.abc import Callable

import numpy as np

from deepjudge_core.errors import InputError
from deepjudge_core.models.model import InputSpec
from deepjudge_core.types import Array, Layout

Arrange = Callable[[Array], Array]


def arrangement(source: str, shape: tuple[int, ...], spec: InputSpec, layout: Layout | None = None) -> Arrange:
    """How inputs of ``shape`` have to be arranged for a model.

    Args:
        source: The model's name, for messages.
        shape: Of one input, without the batch axis.
        spec: What the model takes.
        layout: Where the inputs' channels are, where that is known.

    Returns:
        A function from ``(n, *shape)`` to ``(n, *spec.shape)``.

    Raises:
        InputError: When the shapes do not fit, or fit in more than one way.
    """
    ambiguous = InputError(
        f"{source}: inputs of shape {_text(shape)} fit {spec} with channels first and channels last; "
        "say which with --input-layout"
    )
    same = _fits(shape, spec.shape)
    moves = {"last": _fits(_to_last(shape), spec.shape), "first": _fits(_to_first(shape), spec.shape)}
    if same and len(shape) > 1 and layout and spec.layout and layout != spec.layout:
        # The shape fits as it is only by chance: the channels are known to be elsewhere.
        same = not any(moves.values())
    elif same and len(shape) > 2 and any(moves.values()) and len(set(shape)) == 1 and not (layout and spec.layout):
        raise ambiguous
    if same:
        return lambda x: x
    # Of two axes, moving the first and moving the last is the same.
    if all(moves.values()) and len(shape) > 2 and not layout:
        raise ambiguous
    if moves["first"] and (layout == "channels_last" or not moves["last"]):
        return lambda x: np.moveaxis(x, -1, 1)
    if moves["last"]:
        return lambda x: np.moveaxis(x, 1, -1)
    if len(shape) > 1 and _fits((*shape, 1), spec.shape):
        return lambda x: x[..., None]
    if len(shape) > 1 and _fits((1, *shape), spec.shape):
        return lambda x: x[:, None]
    if len(shape) > 2 and shape[-1] == 1 and _fits(shape[:-1], spec.shape):
        return lambda x: x[..., 0]
    if len(shape) > 2 and shape[0] == 1 and _fits(shape[1:], spec.shape):
        return lambda x: x[:, 0]
    raise InputError(f"{source}: expected inputs of shape {spec}, found {_text(shape)}")


def _fits(shape: tuple[int, ...], target: tuple[int | None, ...]) -> bool:
    return len(shape) == len(target) and all(w is None or w == s for s, w in zip(shape, target, strict=True))


def _to_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], *shape[:1])


def _to_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[-1:], *shape[:-1])


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

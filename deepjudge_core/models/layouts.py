"""Inputs of one model, arranged for another: channels first or last, an axis of one channel more or less, rows."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from deepjudge_core.errors import InputError
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.naming import option
from deepjudge_core.types import Array, Layout

Arrange = Callable[[Array], Array]


class OtherShapeError(InputError):
    """Inputs are of another shape than the model takes."""


class AmbiguousLayoutError(InputError):
    """Inputs fit a model with channels first and channels last, and nobody says which."""


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
        AmbiguousLayoutError: When the shapes fit in more than one way.
        OtherShapeError: When they do not fit.
    """
    ambiguous = AmbiguousLayoutError(
        f"{source}: inputs of shape {_text(shape)} fit {spec} both with channels first and with "
        f"channels last; say which with {option('QuerySettings.layout')}"
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
    order = _order_in_rows(shape, spec, layout)
    if order == "unknown":
        raise ambiguous
    if order is not None:
        return order
    raise OtherShapeError(
        f"{source}: expected inputs of shape {spec}, found {_text(shape)}; "
        "check that these inputs are of the model's task, and give them in its shape"
    )


def shapes_of(spec: InputSpec) -> tuple[tuple[int, ...], ...]:
    """Shapes that inputs can be arranged to, the likeliest first, for a model that does not say which it takes.

    Channels first is the habit of the frameworks whose models do not say it.

    Args:
        spec: The inputs; where an axis may have any length, there are none.
    """
    shape = tuple(size for size in spec.shape if size is not None)
    if len(shape) < len(spec.shape):
        return ()
    shapes = [shape]
    if len(shape) > 1:
        shapes += [_to_first(shape), _to_last(shape)]
        if spec.layout == "channels_last":
            shapes[:2] = shapes[1::-1]
    if len(shape) == 2:  # or pictures of one channel, whose axis is left out
        shapes += [(*shape, 1), (1, *shape)]
    if len(shape) > 2:
        shapes += [shape[:-1]] if shape[-1] == 1 else [shape[1:]] if shape[0] == 1 else []
    return tuple(dict.fromkeys([*shapes, (math.prod(shape),)]))


def _order_in_rows(
    shape: tuple[int, ...], spec: InputSpec, layout: Layout | None
) -> Arrange | Literal["unknown"] | None:
    # How inputs are put in a row, or taken out of one; None where neither fits. Of one channel there is one order.
    target = tuple(size or 0 for size in spec.shape)
    axes, theirs = ([size for size in sizes if size != 1] for sizes in (shape, target))
    if math.prod(shape) != math.prod(target) or min(len(axes), len(theirs)) > 1:
        return None
    if max(len(axes), len(theirs)) < 3 or layout == spec.layout is not None:
        return lambda x: x.reshape(len(x), *target)
    if layout is None or spec.layout is None:
        return "unknown"
    moved = (-1, 1) if spec.layout == "channels_first" else (1, -1)
    if len(theirs) < 2:
        return lambda x: np.moveaxis(x, *moved).reshape(len(x), *target)
    before = _to_last(target) if spec.layout == "channels_first" else _to_first(target)
    return lambda x: np.moveaxis(x.reshape(len(x), *before), *moved)


def _fits(shape: tuple[int, ...], target: tuple[int | None, ...]) -> bool:
    return len(shape) == len(target) and all(w is None or w == s for s, w in zip(shape, target, strict=True))


def _to_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], *shape[:1])


def _to_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[-1:], *shape[:-1])


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

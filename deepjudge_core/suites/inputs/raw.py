"""Stored numbers become inputs: scaled, with their class numbers, within a range."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepjudge_core.errors import InputError, UsageError
from deepjudge_core.naming import option
from deepjudge_core.suites.inputs.keys import USUAL_KEYS
from deepjudge_core.suites.inputs.resizing import Resizing
from deepjudge_core.suites.inputs.value import Inputs, LabelSource, check_bounds
from deepjudge_core.suites.ranges import own_ranges, spread
from deepjudge_core.types import Array, Bounds, Layout


@dataclass(frozen=True, eq=False)
class Reading:
    """How inputs are read: see :func:`~deepjudge_core.suites.inputs.loading.load_inputs`."""

    x: str | None = None
    y: str | None = None
    scale: float | None = None
    bounds: Bounds | None = None
    training: Array | None = None
    layout: Layout | None = None
    usual: Sequence[tuple[str, str]] = USUAL_KEYS
    labels: LabelSource = "file"
    resizing: Resizing | None = None

    @property
    def labelled(self) -> bool:
        """Whether the source says the classes."""
        return self.labels == "file"

    def __post_init__(self) -> None:
        check_scale(self.scale)
        if self.labels == "victim" and self.y is not None:
            raise UsageError(
                f"{option('y', self.y)}: expected no key of labels, because the victim gives the labels "
                f"({option('labels', 'victim')})",
                code="conflict",
            )

    def inputs(self, source: str, raw: Array, y: Array | None, *, beside: Array | None = None) -> Inputs:
        """Inputs of stored numbers.

        Args:
            source: What messages call them.
            raw: ``(n, *shape)`` as they are stored.
            y: Their class numbers; None for none.
            beside: Training inputs from the same place, as they are stored; None for none.

        Raises:
            InputError: When shapes do not agree, or values are out of bounds.
            UsageError: For bounds that cannot be.
        """
        scale = 1.0 if self.scale is None else self.scale
        inputs = scaled(source, raw, scale)
        if y is not None and len(raw) != len(y):
            raise InputError(
                f"{source}: expected as many labels as inputs, found {len(raw)} inputs and {len(y)} labels; "
                f"name the two that belong together with {option('x')} and {option('y')}"
            )
        training = self.training
        if beside is not None:
            training = scaled(source, beside, scale)
        if self.bounds is None and scale >= 2 and np.abs(raw.astype(np.float64)).max() <= 1:
            raise InputError(
                f"{source}: expected inputs to divide by {scale:g}, found {raw.min():g}..{raw.max():g}; "
                f"leave {option('scale')} out, or state their range with {option('bounds')}"
            )
        if self.bounds is None:
            limits = _bounds(source, raw.dtype, inputs, training, scale, self.layout)
        else:
            limits = spread(source, self.bounds, inputs.shape[1:], self.layout)
        check_bounds(source, inputs, limits)
        if beside is not None and training is not None:
            check_bounds(f"{source} (training inputs)", training, limits)
        return Inputs(inputs, y, limits, training, self.layout, resizing=self.resizing)


def scaled(source: str, raw: Array, scale: float) -> Array:
    """Stored numbers ``(n, *shape)`` divided by a scale, float32.

    Raises:
        InputError: When there are none, or one is not finite.
    """
    if raw.ndim < 2:
        raise InputError(f"{source}: expected inputs with a batch axis, found shape {raw.shape}")
    if raw.size == 0:
        raise InputError(f"{source}: expected inputs, found none")
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite, or is no number, is refused
        inputs = raw.astype(np.float32)
        if scale != 1.0:
            inputs /= np.float32(scale)
    if not np.isfinite(inputs).all():
        raise InputError(f"{source}: expected finite inputs, found NaN or infinity")
    return inputs


def class_numbers(source: str, raw: Array) -> Array:
    """Stored labels as ``(n,)`` int64, or ``(n, classes)`` of 0 and 1.

    Raises:
        InputError: When they are something else.
    """
    labels = raw[:, 0] if raw.ndim == 2 and raw.shape[1] == 1 else raw
    if labels.ndim != 1 and not (labels.ndim == 2 and labels.shape[1] > 1 and np.isin(labels, (0, 1)).all()):
        raise InputError(
            f"{source}: expected one class number per input, or 0 and 1 for each class, found shape {raw.shape}"
        )
    with np.errstate(invalid="ignore"):  # NaN becomes some number, and is found by the comparison
        numbers = labels.astype(np.int64)
    if not (numbers == labels).all():
        raise InputError(f"{source}: expected whole class numbers, found others")
    return numbers


def check_scale(scale: float | None) -> None:
    """Refuse a scale that nothing can be divided by.

    Raises:
        UsageError: For it.
    """
    if scale is not None and not (scale > 0 and math.isfinite(scale)):
        raise UsageError(f"expected a finite scale above 0, found {scale:g}", code="wrong-value")


def _bounds(
    source: str,
    dtype: np.dtype[np.generic],
    inputs: Array,
    training: Array | None,
    scale: float,
    layout: Layout | None,
) -> Bounds:
    if dtype == np.uint8:
        edge = float(np.float32(255) / np.float32(scale))
        return (0.0, edge) if edge > 0 else (edge, 0.0)
    least, greatest = float(inputs.min()), float(inputs.max())
    usual = next(((low, high) for low, high in ((0.0, 1.0), (-1.0, 1.0)) if low <= least and greatest <= high), None)
    if usual is None and least >= 0 and 1 < greatest <= 255 and bool((inputs == np.round(inputs)).all()):
        usual = 0.0, 255.0
    own = own_ranges(inputs, training, layout, usual=usual is not None)
    if own or usual:
        return own or usual  # type: ignore[return-value]
    if least == greatest:
        raise InputError(f"{source}: expected inputs that differ, found only {least:g}")
    if training is not None:
        least, greatest = min(least, float(training.min())), max(greatest, float(training.max()))
    return least, greatest

"""Inputs as one array, with their labels and the range that they may have."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from deepjudge_core.errors import InputError, UsageError
from deepjudge_core.models.geometry import Canvas, Fitting
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Model
from deepjudge_core.naming import option
from deepjudge_core.sheets import Sheet, Shown, listed, sizes
from deepjudge_core.suites.inputs.origin import Origin
from deepjudge_core.suites.inputs.resizing import Resizing, geometry_for, in_words
from deepjudge_core.suites.labels import as_numbers
from deepjudge_core.suites.ranges import hull, is_one
from deepjudge_core.types import Array, Bounds, Layout

LabelSource = Literal["file", "victim"]
"""What says the classes of inputs: their file, or the victim by its own answers."""
_NAMED = 5  # classes in a message


class Offered(Protocol):
    """Inputs as they were found: those whose shape depends on the model are made once it is known."""

    @property
    def y(self) -> Array | None:
        """As :attr:`Inputs.y`."""

    @property
    def classes(self) -> Sequence[str] | None:
        """As :attr:`Inputs.classes`."""

    @property
    def origin(self) -> Origin | None:
        """Where they are from; None if nobody looked."""

    @property
    def listed(self) -> Sequence[Path]:
        """The files that they are read from one by one; none if they are all in one."""

    def located(self, origin: Origin) -> "Offered":
        """The same, with where they are from."""

    @property
    def expected(self) -> InputSpec:
        """What an input is, unless a model says that it takes another one."""

    def fitted(self, spec: InputSpec) -> "Inputs":
        """The inputs as a model takes them, but for where channels are.

        Raises:
            InputError: When they cannot become that.
        """


@dataclass(frozen=True, eq=False, repr=False)
class Inputs(Shown):
    """Inputs, their labels and their range.

    Attributes:
        x: ``(n, *shape)`` float32.
        y: ``(n,)`` int64; ``(n, classes)`` of 0 and 1 where an input has several classes at once; None where nobody
            knows them, and the victim's own answers are taken.
        bounds: Least and greatest value that an input may have: two numbers, or two arrays of an input's shape where
            features or channels have ranges of their own.
        training: ``(n, *shape)`` float32, inputs of the victim's training set, where they are known.
        layout: Where the channels are, where that is known.
        classes: Names of the classes, in the order of their numbers; None where they have numbers alone.
        notes: What a reader should know of how they were read.
        fitting: How pictures were brought to another shape; None where they were not.
        resizing: How they may be; None where they are what a model has to take.
        origin: Where they are from; None if nobody looked.
    """

    x: Array
    y: Array | None
    bounds: Bounds = (0.0, 1.0)
    training: Array | None = None
    layout: Layout | None = None
    classes: Sequence[str] | None = None
    notes: tuple[str, ...] = ()
    fitting: Fitting | None = None
    resizing: Resizing | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", as_inputs("inputs", self.x))
        if self.y is not None:
            object.__setattr__(self, "y", as_inputs("labels", self.y, None))
        if self.training is not None:
            object.__setattr__(self, "training", as_inputs("training inputs", self.training))

    def sheet(self) -> Sheet:
        """See :class:`~deepjudge_core.sheets.Shown`."""
        low, high = hull(self.bounds)
        facts = {
            "each": f"{sizes(self.x.shape[1:])}, in {low:g}..{high:g}"
            + ("" if is_one(self.bounds) else ", each feature or channel within its own range"),
            "labels": "none: the victim says them" if self.y is None else _said_of_labels(self.y, self.classes),
            "classes": listed(self.classes or ()),
            "channels": str(self.layout or "").removeprefix("channels_"),
            "training": "" if self.training is None else f"{len(self.training)} inputs of the training set",
            "resized": "" if self.fitting is None else str(self.fitting),
            "note": self.notes,
        }
        return Sheet(f"{len(self.x)} inputs", facts)

    @property
    def listed(self) -> Sequence[Path]:
        """See :class:`Offered`."""
        return ()

    def located(self, origin: Origin) -> "Inputs":
        """See :class:`Offered`."""
        return replace(self, origin=origin)

    @property
    def labels(self) -> Array:
        """``(n,)`` their labels, for what cannot do without.

        Raises:
            InputError: When there are none, or several for an input.
        """
        if self.y is None:
            raise InputError("expected a label for each input, found none")
        return as_numbers(self.y)

    @property
    def expected(self) -> InputSpec:
        """See :class:`Offered`."""
        return InputSpec(self.x.shape[1:], layout=self.layout)

    def fitted(self, spec: InputSpec) -> "Inputs":
        """See :class:`Offered`; arrays are resized if that was asked for, and given as they are otherwise."""
        canvas = Canvas.of(self.expected)
        if self.resizing is None or canvas is None or canvas.height is None or canvas.width is None:
            return self
        size = canvas.height, canvas.width
        geometry = geometry_for(self.resizing, size, canvas.channels, spec, "the inputs")
        if not geometry:
            return self

        def changed(x: Array) -> Array:
            return geometry(x, canvas.axis, hull(self.bounds)[0])

        return replace(
            self,
            x=changed(self.x),
            training=None if self.training is None else changed(self.training),
            notes=(*self.notes, in_words(geometry, self.resizing, [size])),
            fitting=self.resizing.how,
            layout=self.layout or ("channels_last" if canvas.axis is None and geometry.color == "rgb" else None),
        )


def fitted(offered: Offered, model: Model, layout: Layout | None = None) -> Inputs:
    """Inputs as a model takes them.

    Args:
        offered: The inputs.
        model: The model.
        layout: Where the channels of its inputs are, if it does not say.

    Raises:
        InputError: When they do not fit it, or have names for other classes than it has.
    """
    names = offered.classes
    if names is not None and len(names) != model.classes:
        few = len(names) < model.classes
        mend = "add an empty folder for each class without inputs" if few else "move the folders of other classes away"
        raise InputError(
            f"{model.name}: expected inputs of its {model.classes} classes, found {len(names)} "
            f"({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}); {mend}, "
            "or give a table of paths and class numbers"
        )
    return offered.fitted(model.input.with_layout(layout))


def _said_of_labels(y: Array, classes: Sequence[str] | None) -> str:
    if y.ndim > 1:
        return f"several of {y.shape[1]} classes at once, {float(y.sum(axis=1).mean()):.1f} on average"
    found, counts = np.unique(y, return_counts=True)
    known = f" of {len(classes)}" if classes and len(classes) != len(found) else ""
    return f"{len(found)}{known} classes, {counts.min()} to {counts.max()} inputs of each"


def as_inputs(source: str, values: object, dtype: type[np.generic] | None = np.float32) -> Array:
    """Whatever holds numbers as one array.

    Args:
        source: What messages call it.
        values: An array, or sequences within one another.
        dtype: Of the array; None for the one that the values have.

    Raises:
        InputError: When the values are no numbers, or sequences of several lengths.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.array(None)
    if array.dtype.kind in "biuf":
        return array if dtype is None else array.astype(dtype, copy=False)
    ragged = "sequences of different lengths, or values that are not numbers; pad sequences to one length"
    found = ragged if array.dtype.kind == "O" else str(array.dtype)
    raise InputError(f"{source}: expected one array of real numbers, found {found}")


def check_bounds(source: str, inputs: Array, bounds: Bounds, *, advice: str | None = None) -> None:
    """Refuse inputs outside their bounds; the advice says what to do then.

    Raises:
        InputError: Saying which range was expected and which was found; for NaN and for no inputs too.
        UsageError: For bounds that are none.
    """
    low, high = (np.asarray(side, np.float64) for side in bounds)
    wrong = ~((low < high) & np.isfinite(low) & np.isfinite(high))
    if wrong.any():
        of = "" if is_one(bounds) else f" of {_place(wrong)}"
        one, other = (np.broadcast_to(side, wrong.shape)[wrong].flat[0] for side in (low, high))
        raise UsageError(f"expected finite bounds LOW < HIGH{of}, found {one:g} and {other:g}", code="wrong-value")
    if inputs.size == 0:
        raise InputError(f"{source}: expected inputs, found none")
    axes = None if is_one(bounds) else 0
    least, greatest = np.asarray(inputs.min(axis=axes)), np.asarray(inputs.max(axis=axes))
    # Compared in the inputs' own precision: 0.1 is no float32, and its nearest one lies above it.
    outside = ~((low.astype(inputs.dtype) <= least) & (greatest <= high.astype(inputs.dtype)))
    if outside.any():
        of = "" if is_one(bounds) else f" of {_place(outside)}"
        ours, other, one, most = (side[outside].flat[0] for side in (low, high, least, greatest))
        found = f"expected inputs{of} within {ours:g}..{other:g}, found {one:g}..{most:g}"
        advice = advice or f"state their range with {option('bounds')}, or divide them with {option('scale')}"
        raise InputError(f"{source}: {found}; {advice}")


def _place(where: Array) -> str:
    # The first value of an input that it is true of.
    place = np.argwhere(where)[0]
    return f"feature {place[0]}" if len(place) == 1 else f"the value at {', '.join(map(str, place))}"

"""How a suite's inputs become those that a model takes: arranged, and as pictures of another size or other channels."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from deepjudge_core.errors import InputError
from deepjudge_core.models.geometry import Canvas, Geometry, bringing, recolouring
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.layouts import AmbiguousLayoutError, Arrange, arrangement
from deepjudge_core.models.model import Model
from deepjudge_core.models.preprocessing import Prepare, Preprocessing
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array, Layout

_NEAR = 2  # times a size: what differs more is no crop of the other
_MOST_PIXELS = 2**22  # of a picture that is made for a model: it may be a stranger's, and would have all made large
_ZOOM = 256 / 224  # the usual share of a picture of which the centre is cut out


@dataclass(frozen=True)
class Arranging:
    """How the inputs of a suite are brought to one model.

    Attributes:
        name: The model's, for messages.
        shape: Of an input of the suite.
        spec: What the model takes.
        layout: Where the suite's channels are, if that is known.
        bounds: Of the suite's inputs.
        ways: What brings pictures of another shape to the model's, the likeliest first; none if nothing has to.
        given: Whether the user says which.
    """

    name: str
    shape: tuple[int, ...]
    spec: InputSpec
    layout: Layout | None
    bounds: tuple[float, float]
    ways: tuple[Geometry, ...] = ()
    given: bool = False

    @classmethod
    def of(cls, model: Model, suite: Suite, asking: QuerySettings) -> "Arranging":
        """That of a model, as the user says it is asked.

        Raises:
            AmbiguousLayoutError: When the shapes fit in more than one way.
            InputError: When they do not fit.
        """
        spec, ours = model.input.with_layout(asking.layout), suite.victim.model.input.layout
        shape = suite.cases.inputs.shape[1:]
        if ours is None and len(shape) == 1:
            ours = asking.layout  # of pictures in rows, what is said is their order
        arranging = cls(model.name, shape, spec, ours, suite.bounds)
        said = Geometry() if asking.preprocessing is None else asking.preprocessing.geometry
        canvas, theirs = arranging._canvas, Canvas.of(spec)
        if said:
            color = said.color or (canvas and theirs and recolouring(canvas.channels, theirs.channels)) or None
            arranging = replace(arranging, ways=(replace(said, color=color),), given=True)
            if canvas is None:
                raise InputError(f"{model.name}: expected a suite of pictures for {said}, found inputs {shape}")
            arranging.arrange(arranging.ways[0])
            return arranging
        try:
            arranging.arrange(None)
        except AmbiguousLayoutError:
            raise
        except InputError:
            found = () if canvas is None or theirs is None else tuple(dict.fromkeys(_ways(canvas, theirs, suite)))
            if not found:
                raise
            ways = tuple(way for way in found if _largest(way) <= _MOST_PIXELS)
            if not ways:
                raise InputError(
                    f"{model.name}: expected a model of pictures of at most {_MOST_PIXELS} pixels, found one of inputs "
                    f"of shape {spec}; export it for smaller ones"
                ) from None
            return replace(arranging, ways=ways)
        return arranging

    @cached_property
    def _canvas(self) -> Canvas | None:
        return Canvas.of(InputSpec(self.shape, layout=self.layout))

    def completed(self, preprocessing: Preprocessing | None) -> Preprocessing | None:
        """A preprocessing with what brings pictures to the model's shape; None if nothing is done to inputs."""
        if not self.ways or (preprocessing is not None and preprocessing.geometry):
            return preprocessing if not self.given or preprocessing is None else preprocessing.with_(self.ways[0])
        return (preprocessing or self.as_they_come).with_(self.ways[0])

    @property
    def as_they_come(self) -> Preprocessing:
        """What gives a model the inputs as the suite has them."""
        low, high = self.bounds
        return Preprocessing(high - low, (-low,))

    def arrange(self, geometry: Geometry | None) -> Arrange:
        """What arranges batches ``(n, *shape)`` of the suite, before their numbers are changed."""
        axis = None if self._canvas is None else self._canvas.axis
        if not geometry:
            return arrangement(self.name, self.shape, self.spec, self.layout)
        shape = geometry.shape(self.shape, axis)
        layout = self.layout or ("channels_last" if axis is None and geometry.color == "rgb" else None)
        arrange = arrangement(self.name, shape, self.spec, layout)
        return lambda x: arrange(geometry(x, axis, self.bounds[0]))

    def prepare(self, preprocessing: Preprocessing | None, x: Array, layout: Layout | None) -> Prepare:
        """What makes of batches of the suite what the model takes.

        Args:
            preprocessing: What the model expects; None for nothing.
            x: ``(n, *shape)`` some inputs of the suite, n > 0.
            layout: Where the channels of the model's inputs are.
        """
        whole = self.completed(preprocessing)
        if whole is None:
            return self.arrange(None)
        arrange = self.arrange(whole.geometry)
        prepare = whole.preparing(self.name, arrange(x[:1]).shape[1:], self.bounds, layout)
        return lambda x: prepare(arrange(x))


def _largest(way: Geometry) -> int:
    # Pixels of the largest picture on the way.
    return max(math.prod(size) for size in (way.resize, way.crop, (1, 1)) if size)


def _ways(canvas: Canvas, theirs: Canvas, suite: Suite) -> Iterator[Geometry]:
    # By the rule of the suite at first, then as others do it.
    color = recolouring(canvas.channels, theirs.channels)
    if canvas.height is None or canvas.width is None or (color is None and canvas.channels != theirs.channels):
        return
    size = canvas.height, canvas.width
    target = theirs.height or size[0], theirs.width or size[1]
    yield replace(bringing(size, target, suite.fitting or "crop"), color=color)
    if size == target:
        return
    yield Geometry(target, None, color)
    if all(new <= _NEAR * old and old <= _NEAR * new for old, new in zip(size, target, strict=True)):
        yield Geometry(None, target, color)
    zoomed = round(target[0] * _ZOOM), round(target[1] * _ZOOM)
    yield replace(Geometry(zoomed, target), color=color)

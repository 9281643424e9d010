"""A model together with what is done to its inputs: who asks it gives inputs as they come."""

from collections.abc import Sequence

import numpy as np

from deepjudge_core.errors import UsageError
from deepjudge_core.models.exchange import Exchange
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.layouts import arrangement
from deepjudge_core.models.model import Cotangent, Model
from deepjudge_core.models.preprocessing import Preparation, Preprocessing
from deepjudge_core.naming import option
from deepjudge_core.types import Array, Layout

_SAME = ("name", "framework", "digest", "access", "classes", "layers")


class Prepared(Model):
    """A model behind its preprocessing. It is the same model, with the same digest; gradients go back to the inputs.

    Attributes:
        model: The model itself.
        preprocessing: What is done to its inputs.
    """

    def __init__(self, model: Model, preprocessing: Preprocessing, preparation: Preparation) -> None:
        for name in {*_SAME, *Model.__annotations__} - {"independent"}:
            setattr(self, name, getattr(model, name))
        self.input = InputSpec(model.input.shape, layout=model.input.layout)
        self.preprocessing = preprocessing
        self.model, self._preparation = model, preparation

    @classmethod
    def of(
        cls,
        model: Model,
        preprocessing: Preprocessing,
        shape: tuple[int, ...],
        bounds: tuple[float, float],
        layout: Layout | None = None,
    ) -> "Prepared":
        """The model behind a preprocessing of inputs of one shape.

        Args:
            model: The model.
            preprocessing: What it expects of inputs that are brought to 0..1.
            shape: Of an input as it comes; channels may be first or last.
            bounds: Least and greatest value of the inputs as they come.
            layout: Where their channels are, where that is known.

        Raises:
            InputError, ModelError: When the shape does not fit the model or the preprocessing.
            UsageError: When it resizes pictures, through which gradients are not taken.
        """
        if preprocessing.geometry:
            raise UsageError(
                f"{model.name}: expected a preprocessing without {preprocessing.geometry}: the victim's pictures "
                f"are resized when they are read ({option('resize')})",
                code="conflict",
            )
        arrange = arrangement(model.name, shape, model.input.with_layout(layout), layout)
        taken = tuple(arrange(np.zeros((0, *shape), np.float32)).shape[1:])
        preparation = preprocessing.preparing(model.name, taken, bounds, model.input.layout or layout)
        return cls(model, preprocessing, preparation)

    @property
    def independent(self) -> bool | None:  # type: ignore[override]  # what its answers tell is known later
        """See :class:`Model`."""
        return self.model.independent

    def reading(self, independent: bool) -> "Prepared":
        """See :class:`Model`."""
        return type(self)(self.model.reading(independent), self.preprocessing, self._preparation)

    def predict(self, x: Array) -> Array:
        """See :class:`Model`."""
        return self.model.predict(self._preparation(x))

    def activations(self, x: Array, layers: Sequence[str]) -> dict[str, Array]:
        """See :class:`Model`."""
        return self.model.activations(self._preparation(x), layers)

    def gradient(self, x: Array, cotangent: Cotangent, *, layer: str | None = None) -> Array:
        """See :class:`Model`."""
        return self._preparation.back(self.model.gradient(self._preparation(x), cotangent, layer=layer))

    def exchange(self, x: Array, layer: str) -> Exchange | None:
        """See :class:`Model`."""
        return self.model.exchange(self._preparation(x), layer)

    def with_output(self, place: int) -> "Prepared":
        """See :class:`Model`."""
        return type(self)(self.model.with_output(place), self.preprocessing, self._preparation)

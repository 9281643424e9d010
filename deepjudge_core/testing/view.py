"""A model seen through a keyhole: what a component may not ask is refused, and rows come in other batches."""

import itertools
from collections.abc import Sequence

import numpy as np

from deepjudge_core.models.exchange import Exchange
from deepjudge_core.models.model import Access, Cotangent, Model
from deepjudge_core.types import Array


class View(Model):
    """Another model, of which no more than ``access`` may be asked.

    Attributes:
        name, framework, digest, access, input, classes, layers: As of every model.
    """

    def __init__(self, model: Model, *, access: Access | None = None, rows: int | None = None, unit: float = 1) -> None:
        """Look at a model.

        Args:
            model: Any model.
            access: What may be asked of it; by default what the model allows. Labels and probabilities always may.
            rows: Inputs to run at a time, after a first one; by default all that are given.
            unit: What inputs are divided by before the model sees them.
        """
        self.name, self.framework, self.digest = model.name, model.framework, model.digest
        self.access = model.access if access is None else access
        self.input, self.classes, self.layers = model.input, model.classes, model.layers
        self.independent = model.independent
        self._model, self._rows, self._unit = model, rows, np.float32(unit)

    def predict(self, x: Array) -> Array:
        """See :class:`~deepjudge_core.models.model.Model`."""
        return np.concatenate([self._model.predict(x[rows] / self._unit) for rows in self._slices(x)])

    def activations(self, x: Array, layers: Sequence[str]) -> dict[str, Array]:
        """See :class:`~deepjudge_core.models.model.Model`."""
        self._allow(Access.LAYERS)
        parts = [self._model.activations(x[rows] / self._unit, layers) for rows in self._slices(x)]
        return {layer: np.concatenate([part[layer] for part in parts]) for layer in layers}

    def gradient(self, x: Array, cotangent: Cotangent, *, layer: str | None = None) -> Array:
        """See :class:`~deepjudge_core.models.model.Model`."""
        self._allow(Access.GRADIENTS if layer is None else Access.GRADIENTS | Access.LAYERS)
        parts = []
        for rows in self._slices(x):

            def shifted(scores: Array, within: slice, start: int = rows.start) -> Array:
                return cotangent(scores, slice(start + within.start, start + within.stop))

            parts.append(self._model.gradient(x[rows] / self._unit, shifted, layer=layer) / self._unit)
        return np.concatenate(parts)

    def exchange(self, x: Array, layer: str) -> Exchange | None:
        """See :class:`~deepjudge_core.models.model.Model`."""
        self._allow(Access.LAYERS)
        return self._model.exchange(x / self._unit, layer)

    def _allow(self, needed: Access) -> None:
        if needed not in self.access:
            names = " and ".join(str(flag.name) for flag in needed & ~self.access)
            raise AssertionError(
                f"the victim was asked for {names}, which the component does not declare that it needs"
            )

    def _slices(self, x: Array) -> list[slice]:
        # A first one by itself, so that they are never the batches that the model makes of all.
        starts = [0, *range(1, len(x), self._rows)] if self._rows else [0]
        return [slice(start, stop) for start, stop in itertools.pairwise([*starts, len(x)])]

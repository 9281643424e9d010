"""A model whose scores are read as another one's: classes with a probability each, or classes that exclude one another.

Two models are compared in one kind of probabilities, the victim's. Scores are what a softmax and a sigmoid alike begin
with; a copy that ends in the other one has the same.
"""

from collections.abc import Sequence

import numpy as np

from deepjudge_core.models.agreement import disagreement
from deepjudge_core.models.exchange import Exchange
from deepjudge_core.models.model import Access, Cotangent, Model
from deepjudge_core.models.scores import sigmoid, softmax
from deepjudge_core.types import Array

_LEAST, _LEAST_REST = 1e-30, 2.0**-25  # of a probability, and of what is left of 1


class Read(Model):
    """A model, the scores of which are read in one way, whatever function it ends in.

    Attributes:
        model: The model itself, which says how it ends.
    """

    def __init__(self, model: Model, independent: bool) -> None:
        """Read a model.

        Args:
            model: The model.
            independent: Whether each class has a probability of its own.
        """
        self.name, self.framework, self.digest = model.name, model.framework, model.digest
        self.access, self.input, self.classes, self.layers = model.access, model.input, model.classes, model.layers
        for name in Model.__annotations__:
            setattr(self, name, getattr(model, name))
        self.model, self.independent = model, independent

    def predict(self, x: Array) -> Array:
        """See :class:`Model`."""
        p = self.model.predict(x)
        if bool(self.model.independent) == self.independent:
            return p
        scores = self._scores(x, p)
        return sigmoid(scores) if self.independent else softmax(scores)

    def activations(self, x: Array, layers: Sequence[str]) -> dict[str, Array]:
        """See :class:`Model`."""
        return self.model.activations(x, layers)

    def gradient(self, x: Array, cotangent: Cotangent, *, layer: str | None = None) -> Array:
        """See :class:`Model`."""
        return self.model.gradient(x, cotangent, layer=layer)

    def exchange(self, x: Array, layer: str) -> Exchange | None:
        """See :class:`Model`."""
        return self.model.exchange(x, layer)

    def reading(self, independent: bool) -> Model:
        """See :class:`Model`."""
        return self.model.reading(independent)

    def with_output(self, place: int) -> Model:
        """See :class:`Model`."""
        return Read(self.model.with_output(place), bool(self.independent))

    def _scores(self, x: Array, p: Array) -> Array:
        if Access.LAYERS in self.model.access:
            logits = list(self.model.layers)[-1]
            scores = self.model.activations(x, [logits])[logits]
            if scores.shape[1] == 1:
                scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
            scored = sigmoid(scores) if self.model.independent else softmax(scores)
            # Those of the file's own answers otherwise: what it holds may be another network's.
            if disagreement(p, scored, independent=bool(self.model.independent)) is None:
                return scores
        wide = p.astype(np.float64)
        scores = np.log(np.maximum(wide, _LEAST))
        if self.model.independent:
            scores -= np.log(np.maximum(1 - wide, _LEAST_REST))
        return scores

"""A model of several outputs, made of models of one."""

from collections.abc import Mapping, Sequence

from deepjudge_core.models.model import Cotangent, Model
from deepjudge_core.models.outputs import Choice, Output, Outputs
from deepjudge_core.types import Array


class Heads(Model):
    """Several models, of which each gives one of the outputs.

    Attributes:
        asked: Inputs that each output was asked, by its name.
    """

    def __init__(self, heads: Mapping[str, Model], choice: Choice = None, softmax: Sequence[str] = ()) -> None:
        names = [Output(n, f"(n, {m.classes})", m.classes, n in softmax) for n, m in heads.items()]
        self._heads, self._softmax = dict(heads), softmax
        self.asked = dict.fromkeys(heads, 0)
        self._take(Outputs.of(names, choice))

    def _take(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self._name, self._head = list(self._heads.items())[outputs.place]
        self.name, self.framework, self.digest = "heads", "numpy", "ab" * 32
        self.access, self.input = self._head.access, self._head.input
        self.classes, self.layers = self._head.classes, self._head.layers

    def with_output(self, place: int) -> "Heads":
        other = Heads(self._heads, place + 1, self._softmax)
        other._take(self.outputs.by(place))
        other.asked = self.asked
        return other

    def predict(self, x: Array) -> Array:
        self.asked[self._name] += len(x)
        return self._head.predict(x)

    def activations(self, x: Array, layers: Sequence[str]) -> dict[str, Array]:
        return self._head.activations(x, layers)

    def gradient(self, x: Array, cotangent: Cotangent, *, layer: str | None = None) -> Array:
        return self._head.gradient(x, cotangent, layer=layer)

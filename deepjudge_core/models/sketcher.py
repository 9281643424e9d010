"""What is asked of a model whose weights are read and never run: a plan of what is compared, and a sketch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deepjudge_core.models.info import ModelInfo
from deepjudge_core.types import Array
from deepjudge_core.weights import sketching
from deepjudge_core.weights.matrices import read_matrices
from deepjudge_core.weights.values import Sketch, StoredWeights, WeightPlan


class Sketcher(Protocol):
    """The weights of one model, wherever they are read.

    Nothing of them is given away but plans, sketches, and the matrices that a key names.

    Attributes:
        model: What it is: its access is ``Access.WEIGHTS`` alone, it has no classes (0), no layers and no input.
        notes: What a reader should know of how it was read.
    """

    model: ModelInfo
    notes: tuple[str, ...]

    def plan(self, *, seed: int = 0, ancestry: bool = False) -> WeightPlan:
        """Choose what is compared, of a victim.

        Args:
            seed: What all randomness is derived from.
            ancestry: Whether sketches have an image of all weights, by which a common ancestor is taken into account.

        Raises:
            ModelError: When nothing of it can be compared, with the reason.
        """

    def sketch(self, plan: WeightPlan, *, victim: bool = False) -> Sketch:
        """Sketch the weights.

        Args:
            plan: Of the victim.
            victim: Whether they are the victim's own: of these the picked neurons alone are kept.

        Raises:
            ModelError: When nothing of it can be compared, with the reason.
        """

    def matrices(self, places: Sequence[int]) -> dict[int, Array]:
        """Matrices that give hidden neurons, whole; see :func:`~deepjudge_core.weights.matrices.read_matrices`.

        Args:
            places: Of each its place in forward order, from 0.

        Raises:
            ModelError: When there are fewer, or one is too large.
        """


@dataclass(frozen=True, eq=False)
class StoredSketcher(Sketcher):
    """Weights that are read in this process.

    Attributes:
        model: See :class:`Sketcher`.
        weights: What is read.
        notes: See :class:`Sketcher`.
    """

    model: ModelInfo
    weights: StoredWeights
    notes: tuple[str, ...] = ()

    def plan(self, *, seed: int = 0, ancestry: bool = False) -> WeightPlan:
        """See :class:`Sketcher`."""
        return sketching.plan_weights(self.weights, seed=seed, ancestry=ancestry)

    def sketch(self, plan: WeightPlan, *, victim: bool = False) -> Sketch:
        """See :class:`Sketcher`."""
        return sketching.sketch(self.weights, plan, victim=victim)

    def matrices(self, places: Sequence[int]) -> dict[int, Array]:
        """See :class:`Sketcher`."""
        return read_matrices(self.weights, places)

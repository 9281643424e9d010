"""Attacks, as plugins hand them over, and what a thief works with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from deepjudge_core.components.kinds import expect_one_of
from deepjudge_core.models.network import Architecture, Network
from deepjudge_core.types import Array

if TYPE_CHECKING:
    # Suites stand above components: only the name is needed.
    from deepjudge_core.suites.suite import Suite

ThiefAccess = Literal["weights", "answers"]
"""What a thief has of the victim."""

Need = Literal["auxiliary", "suite"]
"""What a thief may have besides."""


@dataclass(frozen=True, eq=False)
class Loot:
    """What a thief has besides the victim.

    Attributes:
        x: ``(n, *shape)`` float32 inputs like the victim's training data, which it was not trained on, in the
            victim's layout.
        y: ``(n,)`` int64, their classes.
        bounds: Least and greatest value that an input may have; :attr:`span` is the width between. Two numbers, or two
            float32 arrays of an input's shape if features or channels have their own ranges.
        architecture: The architecture for the thief's own network, if one is trained from the victim's answers: the
            victim's. ``architecture.student()`` is a smaller one.
        auxiliary: ``(m, *shape)`` float32 inputs that do not belong to the victim's task, or None.
        auxiliary_labels: ``(m,)`` int64, their classes.
        suite: The :class:`Suite` of test cases, if the thief knows them, or None.
    """

    x: Array
    y: Array
    bounds: tuple[float, float] | tuple[Array, Array]
    architecture: Architecture
    auxiliary: Array | None = None
    auxiliary_labels: Array | None = None
    suite: "Suite | None" = None

    @property
    def span(self) -> Any:
        """Width of the input range, the unit of step sizes and radii; a number or an array, as the bounds are."""
        return self.bounds[1] - self.bounds[0]

    @property
    def spatial(self) -> tuple[int, int] | None:
        """Axes of height and width, counted from that of the rows; None for inputs that are no images."""
        return self.architecture.input.spatial


@dataclass(frozen=True)
class Attack:
    """Makes a model that is not independent of the victim, to measure which thefts an audit would notice.

    Attributes:
        name: How the user chooses it, and what its models are called.
        source: The paper it comes from; ``practice`` for a common practice.
        takes: What the thief has of the victim: all of it ("weights", a
            :class:`~deepjudge_core.models.network.Network`), or its answers ("answers", an object with ``predict(x)``
            alone).
        needs: The optional parts of the :class:`Loot` that it needs: "auxiliary", "suite". Without them the attack is
            left out, with the reason.
        steal: ``steal(victim, loot, rng, **options) -> Network``; options are its keyword-only parameters with
            defaults.
        title: What the thief did, such as "trained all layers further"; reports show it.
    """

    name: str
    source: str
    takes: ThiefAccess
    steal: Callable[..., Network]
    needs: tuple[Need, ...] = ()
    title: str = ""

    def __post_init__(self) -> None:
        expect_one_of(self.name, "takes", self.takes, get_args(ThiefAccess))
        for need in self.needs:
            expect_one_of(self.name, "needs", need, get_args(Need))

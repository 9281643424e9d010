"""The exact test of the order of neurons, which needs no controls."""

from dataclasses import dataclass

from deepjudge_core.weights.values import Sketch


@dataclass(frozen=True)
class OrderTest:
    """How well the order of the suspect's neurons agrees with the victim's.

    Attributes:
        log10_p: Of the probability, at most, that independent initialisation gives this; 0 or less.
        agreeing: Neurons that stand at the victim's place.
        compared: Neurons that were looked at.
        least: The least ``log10_p`` that so many neurons could have given.
    """

    log10_p: float
    agreeing: int
    compared: int
    least: float


def order_test(victim: Sketch, suspect: Sketch) -> OrderTest | None:
    """Test all layers that both have, at the same places, with the same widths; None if there is none."""
    raise NotImplementedError

"""Sketches: of each neuron a few numbers, by which models are compared without their weights."""

from deepjudge_core.weights.values import Sketch, StoredWeights, WeightPlan

RANK = 128
"""Numbers that are kept of a row, where nobody says otherwise."""


def plan_weights(weights: StoredWeights, *, seed: int = 0, rank: int = RANK, ancestry: bool = False) -> WeightPlan:
    """Choose what is compared of a victim: layers, neurons and tokens.

    Args:
        weights: Of the victim.
        seed: What all randomness is derived from.
        rank: Numbers that are kept of a row.
        ancestry: Whether sketches have an image of all weights, by which a common ancestor is taken into account.

    Raises:
        ModelError: When nothing of it can be compared, with the reason.
    """
    raise NotImplementedError


def sketch(weights: StoredWeights, plan: WeightPlan, *, victim: bool = False) -> Sketch:
    """Sketch the weights of one model, which nothing but the plan goes into.

    Args:
        weights: Of the victim or of any other model.
        plan: Of the victim.
        victim: Whether they are the victim's own: of these the picked neurons alone are kept.

    Raises:
        ModelError: When nothing of it can be compared, with the reason.
    """
    raise NotImplementedError

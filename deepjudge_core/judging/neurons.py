"""Put a model's neurons in the order and on the scale of the victim's.

A layer's neurons can be permuted without changing what a network computes; those of a ReLU rescaled, those of tanh and
of an LSTM negated (Lukas et al. 2022; Yan et al. 2022). Metrics that compare neurons by their places then see another
network. Which neuron is which shows in what they answer.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array

Match = Literal["none", "neurons"]
"""How neurons are put beside one another: by their places, as published; or each beside the one most like it."""

DEFAULT_MATCH: Match = "neurons"

MOST_MATCHED = 2**13
"""Neurons of a layer that are matched. It takes memory by the square and time by the cube of their number, and a small
file can hold a few answers of very many."""


@dataclass(frozen=True, eq=False)
class Matching:
    """Which neuron of a model stands for which of the victim's.

    Attributes:
        order: ``(neurons,)`` the model's neuron for each of the victim's; each once.
        scale: ``(neurons,)`` what its outputs are multiplied by; below 0 only in a layer with outputs below 0.
    """

    order: Array
    scale: Array

    @property
    def moved(self) -> int:
        """Number of neurons that stand for one at another place."""
        return int(np.sum(self.order != np.arange(len(self.order))))

    def apply(self, outputs: Array) -> Array:
        """``(n, neurons)`` outputs of the model in the order and on the scale of the victim's."""
        matched: Array = (outputs[:, self.order] * self.scale).astype(np.float32)
        return matched


# Of each observation by which suite its neurons were matched, and how: it is needed to measure and to report, and takes
# seconds where layers are wide.
_MATCHED: weakref.WeakKeyDictionary[Observation, tuple[weakref.ref[Suite], Mapping[str, Matching]]] = (
    weakref.WeakKeyDictionary()
)


def match_neurons(ours: Array, theirs: Array) -> Matching:
    """Assign a model's neurons to the victim's.

    The sum of the correlations of all pairs is the greatest that an assignment can have; where both layers have outputs
    below 0, as a ReLU's never are, that of the absolute ones. A neuron is then scaled to the victim's root mean square:
    unlike a least-squares fit, this does not shrink what is not alike.

    Args:
        ours: ``(n, neurons)`` the victim's outputs.
        theirs: ``(n, neurons)`` the model's, on the same inputs.
    """
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    correlation = _standardised(ours).T @ _standardised(theirs)
    negated = (correlation < 0) & (ours.min() < 0) & (theirs.min() < 0)
    # Late: the process of a stranger's model does without it.
    from scipy.optimize import linear_sum_assignment

    own, order = linear_sum_assignment(np.where(negated, -correlation, correlation), maximize=True)
    size, other = (np.sqrt(np.mean(outputs**2, axis=0)) for outputs in (ours, theirs[:, order]))
    scale = np.divide(size, other, out=np.ones_like(size), where=(size > 0) & (other > 0))
    return Matching(order, np.where(negated[own, order], -scale, scale))


def matchings(suite: Suite, observation: Observation) -> Mapping[str, Matching]:
    """Layer to how its neurons are matched, by all cases of the suite; computed once for each observation.

    The logits are left out: their neurons are classes, whose order the labels of the seeds tell. So are layers of more
    than :data:`MOST_MATCHED` neurons.
    """
    known = _MATCHED.get(observation)
    if known is None or known[0]() is not suite:
        hidden = _hidden(suite, observation)
        found = {
            layer: match_neurons(suite.victim.activations[layer], outputs)
            for layer, outputs in hidden.items()
            if outputs.shape[1] <= MOST_MATCHED
        }
        known = _MATCHED[observation] = weakref.ref(suite), found
    return known[1]


def _hidden(suite: Suite, observation: Observation) -> dict[str, Array]:
    logits = next(reversed(list(suite.victim.model.layers)), None)  # none of a model that was not run
    return {layer: outputs for layer, outputs in observation.activations.items() if layer != logits}


def match_observation(suite: Suite, observation: Observation, match: Match) -> Observation:
    """What a model answered, its neurons put beside the victim's; without its layers if one is too wide for that."""
    if match == "none":
        return observation
    for layer, outputs in _hidden(suite, observation).items():
        if (neurons := outputs.shape[1]) > MOST_MATCHED:
            why = (
                f"the neurons of {layer!r} are too many to match: expected at most {MOST_MATCHED:,}, found {neurons:,}"
            )
            return replace(observation, activations={}, unmatched=why)
    by_layer = matchings(suite, observation)
    return replace(
        observation,
        activations={
            layer: by_layer[layer].apply(outputs) if layer in by_layer else outputs
            for layer, outputs in observation.activations.items()
        },
    )


def _standardised(outputs: Array) -> Array:
    # Of unit length, so that products are correlations; 0 for a neuron that never changes.
    centred = outputs - outputs.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    scaled: Array = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    return scaled

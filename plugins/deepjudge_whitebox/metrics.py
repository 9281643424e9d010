"""White-box metrics: how differently two models' neurons answer the same corner cases (paper, section IV-B).

A case counts for the neuron, and in the layer, that it was made for. Outputs are compared in float64; nothing is
rounded.
"""

from collections.abc import Callable, Iterator

import numpy as np

from deepjudge_core.components.values import Answers
from deepjudge_core.models.recovery import explained
from deepjudge_core.types import Array


def nod(victim: Answers, suspect: Answers) -> float:
    """Neuron output distance: the absolute difference of a neuron's outputs, in their own unit, 0 and up.

    Averaged over the cases made for each neuron, then over the neurons that have cases, of all layers alike.

    Raises:
        ValueError: When there is no case.
    """
    return float(_neuron_means(victim, suspect).mean())


def nnod(victim: Answers, suspect: Answers) -> float:
    """Normalised neuron output distance: like :func:`nod`, with outputs in units of the neuron's greatest, 0 and up.

    Each model has its own units, so neurons on different scales count alike, and rescaled neurons are recognised.

    Raises:
        ValueError: When there is no case.
    """
    return float(_neuron_means(victim, suspect, as_compared=_in_units_of_greatest).mean())


def nad(victim: Answers, suspect: Answers, *, reference: bool = False) -> float:
    """Neuron activation distance: like :func:`nod`, with activation status (0 or 1) instead of output, 0..1.

    Args:
        reference: Multiply by the number of neurons that have cases, as the authors' code does.

    Raises:
        ValueError: When there is no case.
    """
    means = _neuron_means(victim, suspect, as_compared=is_active)
    return float(means.sum() if reference else means.mean())


def lod(victim: Answers, suspect: Answers) -> float:
    """Layer output distance: the L2 distance of a layer's output vectors, averaged over all cases, 0 and up.

    Raises:
        ValueError: When there is no case.
    """
    distances = [np.linalg.norm(ours - theirs, axis=1) for ours, theirs, _ in _layers(victim, suspect)]
    return float(np.concatenate(distances).mean())


def lad(victim: Answers, suspect: Answers, *, reference: bool = False) -> float:
    """Layer activation distance: the share of a layer's neurons whose activation status differs, over all cases, 0..1.

    Args:
        reference: Count the neurons, like the authors' code, instead of their share.

    Raises:
        ValueError: When there is no case.
    """
    differs = [is_active(ours) != is_active(theirs) for ours, theirs, _ in _layers(victim, suspect)]
    return float(np.concatenate([rows.sum(axis=1) if reference else rows.mean(axis=1) for rows in differs]).mean())


def recovery(victim: Answers, suspect: Answers) -> float:
    """How little a suspect's taps tell of the victim's neurons: 1 minus the share of their variance, 0..1.

    The share is R squared of a ridge regression on all neurons of one tap, each half of the cases by a fit on the
    other; the tap is the one that tells most. It is the median over the neurons of a layer, averaged over the layers.
    Neither widths nor places count, so it sees a layer that was split, pruned or hidden in another network.

    Raises:
        ValueError: When no layer was compared.
    """
    if not victim.activations or not len(victim.labels):
        raise ValueError("expected outputs of at least one layer, and a case, found none")
    told = suspect.recovered or suspect.activations  # of the victim itself, nothing is recovered
    shares = [explained(outputs, told[layer]) for layer, outputs in victim.activations.items()]
    return float(np.clip(1 - np.mean(shares), 0, 1))


def is_active(outputs: Array) -> Array:
    """Activation status of ``(n, neurons)``: above the middle between the row's least and greatest output.

    In a row whose outputs are all the same no neuron is active.
    """
    low, high = outputs.min(axis=1, keepdims=True), outputs.max(axis=1, keepdims=True)
    active: Array = (outputs - low) > (high - low) / 2
    return active


def _layers(victim: Answers, suspect: Answers) -> Iterator[tuple[Array, Array, Array]]:
    """Each layer's cases: both models' outputs ``(cases, neurons)``, and the neuron ``(cases,)`` each was made for."""
    any_case = False
    for layer, neurons in victim.made_for.items():
        rows = np.flatnonzero(neurons >= 0)
        if len(rows):
            any_case = True
            ours, theirs = (answers.activations[layer][rows].astype(np.float64) for answers in (victim, suspect))
            yield ours, theirs, neurons[rows]
    if not any_case:
        raise ValueError("expected at least one corner case, found none")


def _in_units_of_greatest(outputs: Array) -> Array:
    """``(cases, neurons)`` outputs, each neuron's divided by its greatest over all cases of the layer.

    The authors' code uses only the neuron's own cases; a single one would leave 1 for every model. A
    neuron that is never above 0 is divided by its greatest absolute output; one that is always 0 stays so.
    """
    greatest, widest = outputs.max(axis=0), np.abs(outputs).max(axis=0)
    units = np.where(greatest > 0, greatest, widest)
    scaled: Array = outputs / np.where(units > 0, units, 1)
    return scaled


def _neuron_means(victim: Answers, suspect: Answers, as_compared: Callable[[Array], Array] = np.asarray) -> Array:
    """``(neurons with cases,)`` mean absolute difference over the cases made for each neuron.

    ``as_compared`` turns a layer's outputs ``(cases, neurons)`` into the compared values.
    """
    means = []
    for ours, theirs, neurons in _layers(victim, suspect):
        own = np.arange(len(neurons)), neurons
        differences = np.abs(as_compared(ours)[own].astype(np.float64) - as_compared(theirs)[own])
        counts = np.bincount(neurons)
        means.append((np.bincount(neurons, differences) / np.maximum(counts, 1))[counts > 0])
    return np.concatenate(means)

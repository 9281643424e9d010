"""Which taps of a model answer the layers of a suite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepjudge_core.errors import UsageError
from deepjudge_core.model import Array

Widths = Mapping[str, int]
"""Tap name to number of neurons, in forward order; the last are the logits."""


class NoLayerError(Exception):
    """No taps answer the layers; says which and why."""


@dataclass(frozen=True)
class Candidates:
    """Taps that may answer each layer, by their widths.

    Attributes:
        owner: The victim's taps.
        model: The model's taps.
        taps: Layer to the taps among which its answer is.
        sought: Layers that neither the user nor their place among the taps finds, so that answers have to.
    """

    owner: Widths
    model: Widths
    taps: Mapping[str, tuple[str, ...]]
    sought: frozenset[str] = frozenset()

    @property
    def asked(self) -> tuple[str, ...]:
        """All taps that answers are needed of."""
        return tuple(dict.fromkeys(tap for taps in self.taps.values() for tap in taps))


def find_candidates(
    name: str, owner: Widths, model: Widths, layers: Sequence[str], given: Mapping[str, str]
) -> Candidates:
    """Find taps that may answer each layer.

    That is the one that the user gives; else, where a model has as many taps as the victim, of the same widths up to
    the last layer compared, the one at the layer's place; else every tap of the layer's width, hidden ones for a hidden
    layer and the logits for the logits.

    Args:
        name: Of the model, for messages.
        owner: The victim's taps.
        model: The model's taps.
        layers: The suite's layers.
        given: Layer to the tap that the user says.

    Raises:
        NoLayerError: When no tap has a layer's width.
        UsageError: When what was given does not exist, or has another width.
    """
    names, taps = list(owner), list(model)
    compared = max((names.index(layer) for layer in layers), default=-1) + 1
    alike = len(taps) == len(names) and list(model.values())[:compared] == list(owner.values())[:compared]
    found: dict[str, tuple[str, ...]] = {}
    sought = set()
    for layer in layers:
        if layer in given:
            found[layer] = (_given(name, owner, model, layer, given[layer]),)
        elif alike:
            found[layer] = (taps[names.index(layer)],)
        else:
            among = taps[-1:] if layer == names[-1] else taps[:-1]
            found[layer] = tuple(tap for tap in among if model[tap] == owner[layer])
            sought.add(layer)
        if not found[layer]:
            widths = ", ".join(str(model[tap]) for tap in taps)
            raise NoLayerError(f"no layer answers {layer!r}: expected a tap of {owner[layer]} neurons, found {widths}")
    return Candidates(owner, model, found, frozenset(sought))


def align(chosen: Candidates, ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> dict[str, str]:
    """Choose the candidates whose outputs are most like the layers', the deeper ones for the deeper layers.

    Of all choices that keep the order of depth, the one with the greatest sum of :func:`linear_cka`.

    Args:
        chosen: The candidates.
        ours: Layer to the victim's outputs ``(n, neurons)`` on the clean seeds.
        theirs: Tap to the model's, on the same.

    Returns:
        Layer to tap.

    Raises:
        NoLayerError: When no choice keeps the order of depth.
    """
    if not chosen.sought:
        return {layer: taps[0] for layer, taps in chosen.taps.items()}
    depth = {tap: place for place, tap in enumerate(chosen.model)}
    ordered = sorted(chosen.taps, key=list(chosen.owner).index)
    # Of the ways to answer the layers so far, the best that ends at each tap: its sum, and its taps.
    ways: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
    for layer in ordered:
        longer = []
        for tap in chosen.taps[layer]:
            before = [way for way in ways if not way[1] or depth[way[1][-1]] < depth[tap]]
            if before:
                total, taps = max(before, key=lambda way: way[0])
                longer.append((total + linear_cka(ours[layer], theirs[tap]), (*taps, tap)))
        ways = longer
    if not ways:
        raise NoLayerError(f"no layers answer {', '.join(map(repr, ordered))} in this order")
    found = dict(zip(ordered, max(ways, key=lambda way: way[0])[1], strict=True))
    return {layer: found[layer] for layer in chosen.taps}


def linear_cka(ours: Array, theirs: Array) -> float:
    """Linear centred kernel alignment of two layers' outputs, 0..1 (Kornblith et al. 2019, section 3).

    It is 1 where one is the other turned, reflected or scaled as a whole: the order of neurons does not matter.

    Args:
        ours: ``(n, neurons)``.
        theirs: ``(n, other neurons)``, on the same inputs.

    Returns:
        0 also where one of them does not depend on the input.
    """
    x, y = (outputs.astype(np.float64) - outputs.mean(axis=0, dtype=np.float64) for outputs in (ours, theirs))
    norm = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return min(float(np.linalg.norm(x.T @ y) ** 2 / norm), 1.0) if norm > 0 else 0.0


def _given(name: str, owner: Widths, model: Widths, layer: str, tap: str) -> str:
    if tap not in model:
        raise UsageError(f"{name}: no layer {tap!r}; its layers are {', '.join(model)}")
    if model[tap] != owner[layer]:
        raise UsageError(f"{name}: layer {tap!r} has {model[tap]} neurons, expected {owner[layer]} as in {layer!r}")
    return tap

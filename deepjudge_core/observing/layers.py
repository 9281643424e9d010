"""Which taps of a model answer the layers of a suite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deepjudge_core.errors import UsageError
from deepjudge_core.models.cka import linear_cka
from deepjudge_core.types import Array

Widths = Mapping[str, int]
"""Tap name to number of neurons, in forward order; the last are the logits."""


# Of CKA: the tap at a layer's place may be so much less alike than another, since neighbours are nearly as alike.
_CLOSE = 0.05


class NoLayerError(Exception):
    """No taps answer the layers; says which and why."""


@dataclass(frozen=True)
class Candidates:
    """Taps that may answer each layer, by their widths.

    Attributes:
        owner: The victim's taps.
        model: The model's taps.
        taps: Layer to the taps among which its answer is.
        places: Layer to the tap at its place, of a model whose taps are like the victim's; else empty.
        fixed: Layers whose tap the user says.
    """

    owner: Widths
    model: Widths
    taps: Mapping[str, tuple[str, ...]]
    places: Mapping[str, str] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()

    @property
    def all_taps(self) -> tuple[str, ...]:
        """All taps that answers are needed of."""
        return tuple(dict.fromkeys(tap for taps in self.taps.values() for tap in taps))


def find_candidates(
    name: str, owner: Widths, model: Widths, layers: Sequence[str], fixed: Mapping[str, str]
) -> Candidates:
    """Find taps that may answer each layer: the one that the user gives, or all of its width.

    Hidden taps answer hidden layers only, the logits the logits. Where a model has as many taps as the victim, of the
    same widths up to the last layer compared, the tap at a layer's place is marked.

    Args:
        name: Of the model, for messages.
        owner: The victim's taps.
        model: The model's taps.
        layers: The suite's layers.
        fixed: Layer to the tap that the user says.

    Raises:
        NoLayerError: When no tap has a layer's width.
        UsageError: When what was given does not exist, or has another width.
    """
    names, taps = list(owner), list(model)
    choices: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        if layer in fixed:
            choices[layer] = (_user_tap(name, owner, model, layer, fixed[layer]),)
        else:
            among = taps[-1:] if layer == names[-1] else taps[:-1]
            choices[layer] = tuple(tap for tap in among if model[tap] == owner[layer])
        if not choices[layer]:
            widths = ", ".join(str(model[tap]) for tap in taps)
            raise NoLayerError(f"no layer answers {layer!r}: expected a tap of {owner[layer]} neurons, found {widths}")
    compared = max((names.index(layer) for layer in layers), default=-1) + 1
    alike = len(taps) == len(names) and list(model.values())[:compared] == list(owner.values())[:compared]
    places = {layer: taps[names.index(layer)] for layer in layers} if alike else {}
    return Candidates(owner, model, choices, places, frozenset(fixed))


def align(chosen: Candidates, ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> dict[str, str]:
    """Choose the candidates whose outputs are most like the layers', the deeper ones for the deeper layers.

    Of all choices that keep the order of depth, the one with the greatest sum of :func:`linear_cka`; but the taps at
    the layers' places where theirs is hardly less.

    Args:
        chosen: The candidates.
        ours: Layer to the victim's outputs ``(n, neurons)`` on the clean seeds.
        theirs: Tap to the model's, on the same.

    Returns:
        Layer to tap.

    Raises:
        NoLayerError: When no choice keeps the order of depth.
    """
    if all(len(taps) == 1 for taps in chosen.taps.values()):
        layer_map = {layer: taps[0] for layer, taps in chosen.taps.items()}
        depths = [list(chosen.model).index(layer_map[layer]) for layer in chosen.owner if layer in layer_map]
        if chosen.fixed or depths == sorted(set(depths)):
            return layer_map
    likeness = {
        (layer, tap): linear_cka(ours[layer], theirs[tap]) for layer, taps in chosen.taps.items() for tap in taps
    }
    best = _in_order(chosen, likeness)
    at_places = {layer: chosen.places.get(layer, tap) for layer, tap in best.items()}
    pairs = [*at_places.items()]
    if all(pair in likeness for pair in pairs):
        lost = sum(likeness[pair] for pair in best.items()) - sum(likeness[pair] for pair in pairs)
        if lost <= _CLOSE * len(best):
            return at_places
    return best


def _in_order(chosen: Candidates, likeness: Mapping[tuple[str, str], float]) -> dict[str, str]:
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
                longer.append((total + likeness[layer, tap], (*taps, tap)))
        ways = longer
    if not ways:
        raise NoLayerError(f"no layers answer {', '.join(map(repr, ordered))} in this order")
    layer_map = dict(zip(ordered, max(ways, key=lambda way: way[0])[1], strict=True))
    return {layer: layer_map[layer] for layer in chosen.taps}


def _user_tap(name: str, owner: Widths, model: Widths, layer: str, tap: str) -> str:
    if tap not in model:
        raise UsageError(f"{name}: no layer {tap!r}; its layers are {', '.join(model)}", code="unknown-name")
    if model[tap] != owner[layer]:
        raise UsageError(
            f"{name}: layer {tap!r} has {model[tap]} neurons, expected {owner[layer]} as in {layer!r}",
            code="wrong-value",
        )
    return tap

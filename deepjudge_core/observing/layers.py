"""Which taps of a model answer the layers of a suite."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from deepjudge_core.errors import UsageError
from deepjudge_core.models.cka import Outputs
from deepjudge_core.naming import option
from deepjudge_core.types import Array

Widths = Mapping[str, int]
"""Tap name to number of neurons, in forward order; the last are the logits."""


# Of CKA: the tap at a layer's place may be so much less alike than another, since neighbours are nearly as alike.
_CLOSE = 0.05
# Taps that a layer's answer is looked for among: a network of hundreds of equal blocks has fewer of one width.
_MOST_TAPS = 1024
_NUMBER = 4  # bytes of one number that a tap answers
_SOME_WIDTHS = 40  # that a reason names


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

    def without(self, gone: Collection[str]) -> "Candidates":
        """The same without some taps, which do not count.

        Raises:
            NoLayerError: When a layer then has none.
        """
        left = {layer: tuple(tap for tap in taps if tap not in gone) for layer, taps in self.taps.items()}
        for layer, taps in left.items():
            if not taps:
                names = ", ".join(map(repr, self.taps[layer][:_SOME_WIDTHS]))
                raise NoLayerError(f"no layer corresponds to {layer!r}: its answers do not depend on {names}")
        return replace(self, taps=left)

    def parts(self, rows: int, largest: int) -> list[dict[str, str]]:
        """All of them, in parts of which the answers to so many inputs fit into so many bytes; each tap to itself."""
        return parted({tap: self.model[tap] for tap in self.all_taps}, rows, largest)


def parted(taps: Widths, rows: int, largest: int) -> list[dict[str, str]]:
    """Taps in parts of which the answers to so many inputs fit into so many bytes; each tap to itself.

    Args:
        taps: Tap to number of neurons.
        rows: Number of inputs.
        largest: Bytes.
    """
    parts, left = list[dict[str, str]](), 0
    for tap, width in taps.items():
        size = _NUMBER * rows * width
        if not parts or size > left:
            parts.append({})
            left = largest
        parts[-1][tap] = tap
        left -= size
    return parts


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
        NoLayerError: When no tap has a layer's width, or more taps than are compared.
        UsageError: When what was given does not exist, or has another width.
    """
    names, taps = list(owner), list(model)
    of_width: dict[int, list[str]] = {}
    for tap in taps[:-1]:
        of_width.setdefault(model[tap], []).append(tap)
    choices: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        if layer in fixed:
            choices[layer] = (_user_tap(name, owner, model, layer, fixed[layer]),)
        elif layer == names[-1]:
            choices[layer] = tuple(tap for tap in taps[-1:] if model[tap] == owner[layer])
        else:
            choices[layer] = tuple(of_width.get(owner[layer], ()))
        if len(choices[layer]) > _MOST_TAPS:
            raise NoLayerError(
                f"{layer!r} is not compared: expected at most {_MOST_TAPS} layers of {owner[layer]} "
                f"neurons, found {len(choices[layer])}; name the one that corresponds to it with "
                f"{option('QuerySettings.layers')}"
            )
        if not choices[layer]:
            widths = _listed(model.values())
            raise NoLayerError(
                f"no layer corresponds to {layer!r}: expected one with {owner[layer]} neurons, found {widths}"
            )
    compared = max((names.index(layer) for layer in layers), default=-1) + 1
    alike = len(taps) == len(names) and list(model.values())[:compared] == list(owner.values())[:compared]
    places = {layer: taps[names.index(layer)] for layer in layers} if alike else {}
    return Candidates(owner, model, choices, places, frozenset(fixed))


def align(chosen: Candidates, ours: Mapping[str, Array], theirs: Iterable[Mapping[str, Array]]) -> dict[str, str]:
    """Choose the candidates whose outputs are most like the layers', the deeper ones for the deeper layers.

    Of all choices that keep the order of depth, the one with the greatest sum of linear CKA; but the taps at the
    layers' places where theirs is hardly less. See :func:`~deepjudge_core.models.cka.linear_cka`.

    Args:
        chosen: The candidates.
        ours: Layer to the victim's outputs ``(n, neurons)`` on the clean seeds.
        theirs: Tap to the model's, on the same: all of them, in one part or in several, of which one is held at a time.

    Returns:
        Layer to tap.

    Raises:
        NoLayerError: When no choice keeps the order of depth.
    """
    if all(len(taps) == 1 for taps in chosen.taps.values()):
        layer_map = {layer: taps[0] for layer, taps in chosen.taps.items()}
        places = {tap: place for place, tap in enumerate(chosen.model)}
        depths = [places[layer_map[layer]] for layer in chosen.owner if layer in layer_map]
        if chosen.fixed or depths == sorted(set(depths)):
            return layer_map
    answering: dict[str, list[str]] = {}
    for layer, taps in chosen.taps.items():
        for tap in taps:
            answering.setdefault(tap, []).append(layer)
    owner = {layer: Outputs(ours[layer]) for layer in chosen.taps}
    likeness = {
        (layer, tap): owner[layer].cka(outputs)
        for part in theirs
        for tap, outputs in ((tap, Outputs(part[tap])) for tap in part if tap in answering)
        for layer in answering[tap]
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
    # Of the ways to answer the layers so far, the best that ends at each tap: its sum, and its taps. Ways and taps
    # stand in the order of depth, so that the best way that ends before a tap is found in one walk along both.
    ways: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
    for layer in ordered:
        longer, at = list[tuple[float, tuple[str, ...]]](), 0
        best: tuple[float, tuple[str, ...]] | None = None
        for tap in chosen.taps[layer]:
            while at < len(ways) and (not ways[at][1] or depth[ways[at][1][-1]] < depth[tap]):
                best = ways[at] if best is None or ways[at][0] > best[0] else best
                at += 1
            if best is not None:
                longer.append((best[0] + likeness[layer, tap], (*best[1], tap)))
        ways = longer
    if not ways:
        raise NoLayerError(f"no layers correspond to {', '.join(map(repr, ordered))} in this order")
    layer_map = dict(zip(ordered, max(ways, key=lambda way: way[0])[1], strict=True))
    return {layer: layer_map[layer] for layer in chosen.taps}


def _listed(widths: Iterable[int]) -> str:
    shown = list(map(str, widths))
    more = f" and {len(shown) - _SOME_WIDTHS} more" if shown[_SOME_WIDTHS:] else ""
    return ", ".join(shown[:_SOME_WIDTHS]) + more


def _user_tap(name: str, owner: Widths, model: Widths, layer: str, tap: str) -> str:
    if tap not in model:
        raise UsageError(f"{name}: there is no layer {tap!r}; its layers are {', '.join(model)}", code="unknown-name")
    if model[tap] != owner[layer]:
        raise UsageError(
            f"{name}: layer {tap!r} has {model[tap]} neurons, expected {owner[layer]} as in {layer!r}",
            code="wrong-value",
        )
    return tap

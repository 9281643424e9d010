"""The weights of a network among all that training code saves beside them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from deepjudge_core.errors import ModelError

SHOWN = 3
"""Names in a message."""

# What wraps modules puts its name among those of their weights: DDP, torch.compile, FSDP, checkpointing.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# How training code calls weights that it averages over its steps, and does not train.
_AVERAGED = re.compile(r"(?:^|[^a-z])(ema|swa|swag|avg|averaged?|shadow|teacher|polyak)(?:$|[^a-z])")
# Counted by batch normalisation, and not used; files from before 0.4.1 do not have it.
_COUNTER = "num_batches_tracked"
# Characters of a name in a message.
_LONGEST = 100
# The key of what is no entry.
_ATTRIBUTES = object()
# Of what an optimiser keeps for one weight, such as Adam's two averages of its gradients.
_MOST_MOMENTS = 8
# Numbers that may be those of another such network, for each of this one's.
_LEAST = 0.5


@dataclass(frozen=True, eq=False)
class Node:
    """What stands somewhere in a file, and holds other things.

    Attributes:
        content: By the keys or numbers under which its parts stand.
        key: Under which it stands itself.
        parent: Where.
    """

    content: Mapping[Any, Any]
    key: str = ""
    parent: "Node | None" = None

    @property
    def place(self) -> tuple[str, ...]:
        """The keys to it."""
        keys, node = list[str](), self
        while node.parent is not None:
            keys.append(node.key)
            node = node.parent
        return tuple(reversed(keys))

    @property
    def state(self) -> Mapping[str, Any]:
        """Its own tensors, and what modules add to them; empty where there are none."""
        entries = {key: value for key, value in self.content.items() if _is_entry(key, value)}
        return entries if any(isinstance(value, torch.Tensor) for value in entries.values()) else {}

    @property
    def of_optimiser(self) -> bool:
        """Whether it is what an optimiser of torch keeps for one weight."""
        table = self.parent
        whole = table.parent if table is not None and table.key == "state" else None
        if whole is None or not isinstance(whole.content.get("param_groups"), list):
            return False
        return sum(isinstance(value, torch.Tensor) for value in self.content.values()) <= _MOST_MOMENTS


@dataclass(frozen=True, eq=False)
class Candidate:
    """Weights that may be a network's.

    Attributes:
        place: The keys under which they stand.
        prefix: What stands before each name.
        weights: By their names without it.
        beside: Names of the others that stand there.
    """

    place: tuple[str, ...]
    prefix: str
    weights: Mapping[str, Any]
    beside: Sequence[str]

    @property
    def title(self) -> str:
        """Where they are, for a message."""
        return shortened("/".join([*self.place, *([f"{self.prefix}*"] if self.prefix else [])]) or "the whole file")

    @property
    def averaged(self) -> bool:
        """Whether training code averaged them, by how it calls them."""
        return bool(_AVERAGED.search(f"{'/'.join(self.place)}/{self.prefix}".lower()))


@dataclass(frozen=True)
class Misfits:
    """How weights differ from those of a network, by names."""

    missing: Sequence[str]
    unexpected: Sequence[str]
    other: Sequence[str]

    def __len__(self) -> int:
        """Their number."""
        return len(self.missing) + len(self.unexpected) + len(self.other)

    def __str__(self) -> str:
        """The first of each kind."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.other}
        return "; ".join(f"{kind}: {few(names)}" for kind, names in kinds.items() if names)


def walk(content: Any) -> list[Node]:
    """All that holds something in what a file holds, each once, the outer before the inner."""
    nodes, seen = list[Node](), set[int]()
    stack: list[tuple[Any, str, Node | None]] = [(content, "", None)]
    while stack:
        value, key, parent = stack.pop()
        parts = _parts(value)
        if not parts or id(value) in seen:
            continue
        seen.add(id(value))
        node = Node(parts, key, parent)
        nodes.append(node)
        stack += [(part, _title(name), node) for name, part in reversed(parts.items())]
    return nodes


def _parts(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        parts = dict(value)
    elif isinstance(value, list | tuple | set | frozenset):
        parts = dict(enumerate(value))
    else:
        parts = {}
    # What a file hung on a dict or a tensor.
    attributes = getattr(value, "__dict__", {}) if isinstance(value, dict | torch.Tensor) else {}
    return {**parts, _ATTRIBUTES: attributes} if attributes else parts


def _title(key: object) -> str:
    return str(key) if isinstance(key, str | int) else type(key).__name__


def _is_entry(key: object, value: object) -> bool:
    # A module may add what it likes under its own name and this.
    return isinstance(key, str) and (isinstance(value, torch.Tensor) or key.endswith("_extra_state"))


def choose(
    found: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]],
    own: Mapping[str, Any],
    expected: str,
    nodes: Sequence[Node] = (),
) -> tuple[Candidate, tuple[str, ...]]:
    """The weights that are a network's, and notes of a choice; where none fits, those that come nearest.

    Trained weights are taken where averages of them fit as well.

    Args:
        found: State dicts, each behind the keys to it, one at least.
        own: The network's own state.
        expected: For the error.
        nodes: Of the whole file: what else in it may be a network's is in the notes.

    Raises:
        ModelError: When several fit that are not the same.
    """
    candidates = [one for place, state in found for one in _candidates(place, state, own)]
    fitting = [one for one in candidates if one.weights.keys() & own.keys() and not misfits(one.weights, own)]
    if not fitting:
        # The first of those that are alike: the outermost.
        return min(candidates, key=lambda candidate: len(misfits(candidate.weights, own))), ()
    different: list[Candidate] = []
    for candidate in fitting:
        if not any(_are_same(candidate.weights, other.weights) for other in different):
            different.append(candidate)
    plain = [candidate for candidate in different if not candidate.averaged] or different
    if len(plain) > 1:
        titles = few([repr(candidate.title) for candidate in plain])
        raise ModelError(f"{expected}, found several that fit: {titles}; save only the ones you mean")
    [chosen] = plain
    notes = [*_notes(chosen, [candidate for candidate in different if candidate is not chosen])]
    known = [value for candidate in fitting for value in candidate.weights.values()]
    # Those beside are in the notes; keys of two kinds may look alike.
    taken = set(map(id, chosen.weights.values()))
    beside = [state for _, state in found if not taken.isdisjoint(map(id, state.values()))]
    known += [value for state in beside for value in state.values()]
    rest = _rest(nodes, known, _LEAST * sum(map(_numbers, own.values())))
    if rest:
        notes.append(
            f"its weights are those of {chosen.title!r}; about as many numbers or more, in "
            f"{few([repr(shortened(title)) for title in rest])}, are not used; to judge those, save "
            "them separately"
        )
    return chosen, tuple(notes)


def choose_alone(found: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]], expected: str) -> Mapping[str, Any]:
    """The weights that are a network's, where nobody says which network that is: those of most numbers.

    What training code averages is left where the same weights stand beside it as they were trained; what an optimiser
    keeps is not in ``found``.

    Args:
        found: State dicts, each behind the keys to it, one at least.
        expected: For the error.

    Raises:
        ModelError: When others have as many numbers, or nearly.
    """
    different: list[Candidate] = []
    for place, state in found:
        whole = Candidate(place, "", _without_averages(_unwrapped(state, {})), ())
        if not any(_are_same(whole.weights, other.weights) for other in different):
            different.append(whole)
    trained = {_shapes(one.weights) for one in different if not one.averaged}
    different = [one for one in different if not one.averaged or _shapes(one.weights) not in trained]
    sizes = {one: sum(map(_numbers, one.weights.values())) for one in different}
    first, *others = sorted(different, key=lambda one: -sizes[one])
    rivals = [one for one in others if sizes[one] >= max(1, _LEAST * sizes[first])]
    if rivals:
        titles = few([repr(one.title) for one in (first, *rivals)])
        raise ModelError(f"{expected} of one network, found several: {titles}; save only the one you mean")
    return first.weights


def _shapes(state: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, _shape(value)) for name, value in state.items()))


def _without_averages(state: Mapping[str, Any]) -> Mapping[str, Any]:
    # Under one name averages, under another the same weights as they were trained.
    parts: dict[str, set[str]] = {}
    for name in state:
        first, _, rest = name.partition(".")
        parts.setdefault(first, set()).add(rest)
    averaged = {first for first in parts if _AVERAGED.search(first.lower())}
    gone = {one for one in averaged if any(parts[one] <= parts[other] for other in parts.keys() - averaged)}
    return {name: value for name, value in state.items() if name.partition(".")[0] not in gone}


def _rest(nodes: Sequence[Node], known: Sequence[Any], least: float) -> list[str]:
    # Where else at least so many numbers stand together, as far within as they do.
    places, counted = {_identity(value) for value in known} - {None}, dict[Node, int]()
    titles = list[str]()
    for node in reversed(nodes):
        tensors = () if node.of_optimiser else [part for part in node.content.values() if _identity(part) not in places]
        numbers = sum(map(_numbers, tensors)) + counted.get(node, 0)
        if numbers >= least > 0:
            titles.append("/".join(node.place) or "the whole file")
        elif node.parent is not None:
            counted[node.parent] = counted.get(node.parent, 0) + numbers
    return titles[::-1]


def _numbers(value: Any) -> int:
    # That weights may be: counters and the states of random numbers are none.
    return value.numel() if isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex()) else 0


def _identity(value: Any) -> tuple[Any, ...] | None:
    if not isinstance(value, torch.Tensor) or value.is_nested or value.layout is not torch.strided:
        return None
    return value.data_ptr(), value.dtype, value.shape, value.stride()


def _notes(chosen: Candidate, others: Sequence[Candidate]) -> Iterator[str]:
    if others:
        titles = few([repr(other.title) for other in others])
        yield (
            f"its weights are those of {chosen.title!r}, not the averages of {titles}, which fit as "
            "well; to judge those, save them separately"
        )
    elif chosen.averaged:
        yield f"its weights are the averages of {chosen.title!r}"
    prefixes = {other.prefix for other in others if other.place == chosen.place}
    beside = [name for name in chosen.beside if not any(prefix and name.startswith(prefix) for prefix in prefixes)]
    if beside:
        yield f"its weights are those of {chosen.title!r}; the rest is not used: {few(beside)}"


def misfits(weights: Mapping[str, Any], own: Mapping[str, Any]) -> Misfits:
    """What of some weights is not as the network has it."""
    return Misfits(
        missing=[key for key in own if key not in weights and not key.endswith(_COUNTER)],
        unexpected=[key for key in weights if key not in own],
        other=[
            f"{key} {_shape(weights[key])} for {_shape(value)}"
            for key, value in own.items()
            if key in weights and _shape(weights[key]) != _shape(value)
        ],
    )


def few(names: Sequence[str]) -> str:
    """The first of some names."""
    more = len(names) - SHOWN
    return ", ".join(map(shortened, names[:SHOWN])) + (f" and {more} more" if more > 0 else "")


def shortened(name: str) -> str:
    """A name that is not too long for a message."""
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."


def _unwrapped(state: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    wrappers = _WRAPPERS - {part for name in own for part in name.split(".")}
    names = {name: ".".join(part for part in name.split(".") if part not in wrappers) for name in state}
    return {names[name]: value for name, value in state.items()} if len(set(names.values())) == len(names) else state


def _candidates(place: tuple[str, ...], state: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[Candidate]:
    # By their names as they are, and without those of wrappers.
    first = next(iter(own), "")
    unwrapped = _unwrapped(state, own)
    for names in [state] if unwrapped.keys() == state.keys() else [state, unwrapped]:
        prefixes = {name.removesuffix(first) for name in names if name == first or name.endswith(f".{first}")}
        # Without any, all of them are what does not fit.
        for prefix in sorted(prefixes, key=len) or [""]:
            weights = {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}
            yield Candidate(place, prefix, weights, [name for name in names if not name.startswith(prefix)])


def _are_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(_is_same(value, other[name]) for name, value in one.items())


def _is_same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return True  # what a module adds is none of its weights
    return one.dtype == other.dtype and bool(torch.equal(one, other))


def _shape(value: object) -> str:
    return str(tuple(getattr(value, "shape", ()))).replace(",)", ")")

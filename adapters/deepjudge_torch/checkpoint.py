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
_DEEPEST = 4
# Counted by batch normalisation, and not used; files from before 0.4.1 do not have it.
_COUNTER = "num_batches_tracked"
# Characters of a name in a message.
_LONGEST = 100


@dataclass(frozen=True)
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


def states(content: Any) -> list[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """All state dicts in what a file holds: the keys to each, and its tensors; what else stands there is left out."""
    return list(_states(content, (), set()))


def _states(
    content: Any, place: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    if not isinstance(content, Mapping) or id(content) in seen or len(place) > _DEEPEST:
        return
    seen.add(id(content))
    tensors = {key: value for key, value in content.items() if _is_entry(key, value)}
    if any(isinstance(value, torch.Tensor) for value in tensors.values()):
        yield place, tensors
    for key, value in content.items():
        if isinstance(key, str) and not _is_entry(key, value):
            yield from _states(value, (*place, key), seen)


def _is_entry(key: object, value: object) -> bool:
    # A module may add what it likes under its own name and this.
    return isinstance(key, str) and (isinstance(value, torch.Tensor) or key.endswith("_extra_state"))


def choose(
    found: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]], own: Mapping[str, Any], expected: str
) -> tuple[Candidate, tuple[str, ...]]:
    """The weights that are a network's, and notes of a choice; where none fits, those that come nearest.

    Trained weights are taken where averages of them fit as well.

    Args:
        found: Of :func:`states`, one at least.
        own: The network's own state.
        expected: For the error.

    Raises:
        ModelError: When several fit that are not the same.
    """
    candidates, fitting = list[Candidate](), list[Candidate]()
    for rename in (_as_they_are, _unwrapped):
        candidates += [one for place, state in found for one in _candidates(place, rename(state, own), own)]
        fitting = fitting or [one for one in candidates if not misfits(one.weights, own)]
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
        raise ModelError(f"{expected}, found several that fit: {titles}: save those that are meant alone")
    [chosen] = plain
    return chosen, tuple(_notes(chosen, [candidate for candidate in different if candidate is not chosen]))


def _notes(chosen: Candidate, others: Sequence[Candidate]) -> Iterator[str]:
    if others:
        titles = few([repr(other.title) for other in others])
        yield (
            f"its weights are those of {chosen.title!r}, not the averages of {titles}, which fit as well: to judge "
            "these, save them alone"
        )
    elif chosen.averaged:
        yield f"its weights are the averages of {chosen.title!r}"
    prefixes = {other.prefix for other in others if other.place == chosen.place}
    beside = [name for name in chosen.beside if not any(prefix and name.startswith(prefix) for prefix in prefixes)]
    if beside:
        yield f"its weights are those of {chosen.title!r}; what stands beside them is not used: {few(beside)}"


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


def _as_they_are(state: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    return state


def _unwrapped(state: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    wrappers = _WRAPPERS - {part for name in own for part in name.split(".")}
    names = {name: ".".join(part for part in name.split(".") if part not in wrappers) for name in state}
    return {names[name]: value for name, value in state.items()} if len(set(names.values())) == len(names) else state


def _candidates(place: tuple[str, ...], state: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[Candidate]:
    first = next(iter(own), "")
    prefixes = {name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")}
    # Without any, all of them are what does not fit.
    for prefix in sorted(prefixes, key=len) or [""]:
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        yield Candidate(place, prefix, weights, [name for name in state if not name.startswith(prefix)])


def _are_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(_is_same(value, other[name]) for name, value in one.items())


def _is_same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return True  # what a module adds is none of its weights
    return one.dtype == other.dtype and bool(torch.equal(one, other))


def _shape(value: object) -> str:
    return str(tuple(getattr(value, "shape", ()))).replace(",)", ")")

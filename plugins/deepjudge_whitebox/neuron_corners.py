"""Neuron corners: inputs that push one neuron far beyond what it gave on the training data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_core import progress
from deepjudge_core.components.values import Cases, Seeds, Task
from deepjudge_core.errors import UsageError
from deepjudge_core.models.model import Model
from deepjudge_core.types import Array

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's, as its authors give them
_LOWER = (0.75, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625)  # of m - 1: 2.5, 2, 1.5 and so on where m is 3
_TRAINING_ROWS = 4096  # training inputs in memory at a time
_SEARCH_VALUES = 2**25  # values in the inputs of one search; it holds six float32 arrays of that size


def neuron_corners(
    task: Task,
    *,
    m: Annotated[float, Gt(0)] = 3.0,
    step: Annotated[float, Gt(0)] = 0.01,
    iterations: Annotated[int, Ge(1)] = 1000,
    per_neuron: Annotated[int, Ge(1)] = 3,
    tries: Annotated[int, Ge(1)] = 10,
    lower: bool = True,
) -> Cases:
    """Make cases that push each neuron of each layer past its threshold (paper, Alg. 2).

    Starting from several seeds, Adam raises the neuron's output until it exceeds its limit, see :func:`thresholds`.
    Inputs are clipped to the bounds after every step. All (seed, neuron) pairs of a layer move in one batch, and leave
    it when they are done, when their neuron has all its cases, or when they cannot move any further.

    How far neurons can exceed their outputs on the training data varies widely: in some networks no neuron reaches
    three times as much. So each neuron gets the greatest m of :func:`ladder` that it reaches, and the cases that reach
    it.

    Args:
        m: The limit, as a multiple of the greatest output on the training data.
        step: Adam's step size, as a share of the input range.
        iterations: Limit of the forward and backward passes.
        per_neuron: Limit of the cases per neuron; if several seeds get there together, the first count.
        tries: Seeds tried for each neuron, drawn separately for each; all seeds, if there are no more. A neuron out of
            reach from ten seeds is hardly ever reached from more, and each costs all its iterations.
        lower: Lower m for a neuron that is out of reach, by the ladder 3, 2.5, 2, 1.5, 1.25 and so on to 1.03, or
            similarly for another m. The paper does not; use False to reproduce its numbers.

    Returns:
        Cases ordered by layer, neuron and seed; as ``unreached`` the neurons that no tried seed could push past the
        least of their limits; and as detail ``m`` of each layer which neurons have cases with which m.

    Raises:
        UsageError: When there are no training inputs.
    """
    seeds = task.seeds
    tries = min(tries, len(seeds.inputs))
    factors = ladder(m) if lower else (m,)
    limits = thresholds(task.victim, task.layers, task.training_inputs, factors)
    inputs: list[Array] = []
    places: list[tuple[int, int, int]] = []
    unreached: list[tuple[int, int]] = []
    reached: dict[str, dict[str, list[int]]] = {}
    for place, layer in enumerate(task.layers):
        width = limits[layer].shape[1]
        chosen = np.array([np.sort(task.rng.permutation(len(seeds.inputs))[:tries]) for _ in range(width)])
        block = max(1, _SEARCH_VALUES // (tries * seeds.inputs[0].size))
        factor_of: dict[int, float] = {}
        for start in range(0, width, block):
            neurons = np.arange(start, min(start + block, width))
            corners = _search(
                task.victim,
                layer,
                limits[layer],
                seeds,
                np.repeat(neurons, tries),
                chosen[neurons].ravel(),
                step=step * seeds.span,
                iterations=iterations,
                per_neuron=per_neuron,
            )
            for neuron, seed in sorted(corners):
                corner = corners[neuron, seed]
                places.append((seed, place, neuron))
                inputs.append(corner.x)
                factor_of[neuron] = factors[corner.limit]
        unreached += [(place, neuron) for neuron in range(width) if neuron not in factor_of]
        reached[layer] = {
            _text(factor): [neuron for neuron, own in factor_of.items() if own == factor]
            for factor in factors
            if factor in factor_of.values()
        }
    seed_of, layer_of, neuron_of = np.array(places, dtype=np.int64).reshape(-1, 3).T
    stacked = np.array(inputs, dtype=np.float32).reshape(-1, *seeds.inputs.shape[1:])
    notes = tuple(filter(None, (_lowered(layer, by_factor, _text(m)) for layer, by_factor in reached.items())))
    return Cases(stacked, seed_of, layer_of, neuron_of, tuple(unreached), details={"m": reached}, notes=notes)


def ladder(m: float) -> tuple[float, ...]:
    """The factors that are tried, greatest first: ``m`` and factors nearer to 1; only ``m`` if it is 1 or less."""
    return (m, *(1 + share * (m - 1) for share in _LOWER)) if m > 1 else (m,)


def _text(factor: float) -> str:
    return f"{factor:.10g}"


def _lowered(layer: str, reached: Mapping[str, Sequence[int]], asked: str) -> str | None:
    counts = {factor: len(neurons) for factor, neurons in reached.items() if factor != asked}
    listed = ", ".join(f"{count} at {factor}" for factor, count in counts.items())
    return f"m was lowered for neurons of {layer!r} that {asked} does not reach: {listed}" if counts else None


def thresholds(
    victim: Model, layers: Sequence[str], training_inputs: Array, factors: Sequence[float]
) -> dict[str, Array]:
    """Limits ``(factors, neurons)`` that the neurons of each layer have to pass, in float64.

    A factor m times the greatest output over the training inputs (paper, section IV-C2). If that is not positive,
    which the paper leaves open, the limit is as far above it as ``m - 1`` times the width of the range of outputs.

    Raises:
        UsageError: When there are no training inputs.
    """
    if len(training_inputs) == 0:
        raise UsageError(
            "neuron-corners: expected training inputs to derive the limits from, found none", code="missing-value"
        )
    least, greatest = ({layer: np.full(victim.layers[layer], s * np.inf) for layer in layers} for s in (1, -1))
    with progress.task("neuron ranges", len(training_inputs)) as advance:
        for start in range(0, len(training_inputs), _TRAINING_ROWS):
            rows = training_inputs[start : start + _TRAINING_ROWS]
            for layer, outputs in victim.activations(rows, layers).items():
                least[layer] = np.minimum(least[layer], outputs.min(axis=0))
                greatest[layer] = np.maximum(greatest[layer], outputs.max(axis=0))
            advance(len(rows))
    m = np.array(factors)[:, None]
    return {layer: np.where(top > 0, m * top, top + (m - 1) * (top - least[layer])) for layer, top in greatest.items()}


class _Corner(NamedTuple):
    # How far a pair got: the place of the greatest limit that it passed, and the input at which it was seen beyond it.
    limit: int
    x: Array


def _search(
    victim: Model,
    layer: str,
    limits: Array,
    seeds: Seeds,
    neurons: Array,
    starts: Array,
    *,
    step: float | Array,
    iterations: int,
    per_neuron: int,
) -> dict[tuple[int, int], _Corner]:
    """Climb from seed ``starts[i]`` to the corner of neuron ``neurons[i]`` of one layer, for all i at once.

    The limits ``(factors, neurons)`` fall; a pair that is above the first one has got there.

    Returns:
        ``(neuron, seed)`` of those pairs of each neuron that passed the greatest limit passed by any.
    """
    low, high = seeds.bounds
    epsilon = _EPSILON / seeds.span  # gradients are as much smaller as the range is wider
    axes = tuple(range(1, seeds.inputs.ndim))
    missing = np.full(limits.shape[1], per_neuron)
    corners: dict[tuple[int, int], _Corner] = {}  # in the order in which they were met
    x = seeds.inputs[starts]
    best = np.full(len(x), len(limits))  # place of the greatest limit that a pair passed
    first, second, spare = np.zeros_like(x), np.zeros_like(x), np.empty_like(x)
    with progress.task(f"neuron-corners {layer}", iterations) as advance:
        for t in range(1, iterations + 1):
            at = np.empty(len(x), dtype=np.int64)

            def one_hot(outputs: Array, rows: slice, at: Array = at, neurons: Array = neurons) -> Array:
                own = np.arange(len(outputs)), neurons[rows]
                at[rows] = (outputs[own] <= limits[:, neurons[rows]]).sum(axis=0)
                derivative = np.zeros_like(outputs)
                derivative[own] = 1
                return derivative

            rounded = seeds.on_grid(x)  # the neuron has to get there on inputs as data would have them
            gradient = victim.gradient(rounded, one_hot, layer=layer)
            for i in np.flatnonzero(at < best):
                if missing[neurons[i]]:
                    missing[neurons[i]] -= at[i] == 0
                    pair = int(neurons[i]), int(starts[i])
                    corners.pop(pair, None)
                    corners[pair] = _Corner(int(at[i]), rounded[i].copy())
            best = np.minimum(best, at)

            # Adam, upwards. `spare` holds what is in between, and at last the inputs after the step.
            np.subtract(gradient, first, out=spare)
            spare *= 1 - _BETA_1
            first += spare
            np.square(gradient, out=spare)
            spare -= second
            spare *= 1 - _BETA_2
            second += spare
            np.sqrt(second, out=spare)
            spare *= (1 - _BETA_2**t) ** -0.5
            spare += epsilon
            np.divide(first, spare, out=spare)
            spare *= step / (1 - _BETA_1**t)
            spare += x
            np.clip(spare, low, high, out=spare)

            leaves = (best == 0) | (missing[neurons] == 0)
            still = np.flatnonzero((spare == x).all(axis=axes) & ~leaves)
            x, spare = spare, x
            # A pair that did not move and whose gradient pushes nowhere but out of the bounds has moved for good.
            pushed = np.clip(x[still] + (high - low) * np.sign(gradient[still]), low, high)
            leaves[still] = (pushed == x[still]).all(axis=axes)
            if leaves.any():
                stay = ~leaves
                neurons, starts, best = neurons[stay], starts[stay], best[stay]
                x, first, second, spare = x[stay], first[stay], second[stay], spare[: len(starts)]
            advance(1 if len(x) else iterations - t + 1)
            if len(x) == 0:
                break
    return _furthest(corners, per_neuron)


def _furthest(corners: Mapping[tuple[int, int], _Corner], per_neuron: int) -> dict[tuple[int, int], _Corner]:
    # Of each neuron the pairs that got furthest; of those the first.
    greatest: dict[int, int] = {}
    for (neuron, _), corner in corners.items():
        greatest[neuron] = min(corner.limit, greatest.get(neuron, corner.limit))
    kept: dict[tuple[int, int], _Corner] = {}
    counts: Counter[int] = Counter()
    for pair, corner in corners.items():
        if corner.limit == greatest[pair[0]] and counts[pair[0]] < per_neuron:
            kept[pair] = corner
            counts[pair[0]] += 1
    return kept

"""Neuron corners: inputs that push one neuron far beyond what it gave on the training data."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_core import progress
from deepjudge_core.components.values import Cases, Seeds, Task
from deepjudge_core.errors import UsageError
from deepjudge_core.models.model import Model
from deepjudge_core.types import Array

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's, as its authors give them
_TRAINING_ROWS = 4096  # training inputs in memory at a time
_SEARCH_VALUES = 2**25  # values in the inputs of one search; it holds five float32 arrays of that size


def neuron_corners(
    task: Task,
    *,
    m: Annotated[float, Gt(0)] = 3.0,
    step: Annotated[float, Gt(0)] = 0.01,
    iterations: Annotated[int, Ge(1)] = 1000,
    per_neuron: Annotated[int, Ge(1)] = 3,
    tries: Annotated[int, Ge(1)] = 10,
) -> Cases:
    """Make cases that push each neuron of each layer past its threshold (paper, Alg. 2).

    From each of several seeds the neuron's output is climbed by Adam until it is above its limit, see
    :func:`thresholds`. Inputs are clipped to the bounds after every step. All (seed, neuron) pairs of a layer move in
    one batch, and leave it when they are done, when their neuron has all its cases, or when they can move no more.

    Args:
        m: How many times the greatest output on the training data the limit is.
        step: Adam's step size, as a share of the input range.
        iterations: Forward and backward passes at most.
        per_neuron: Cases at most for a neuron; of seeds that get there at the same time the first count.
        tries: Seeds tried for each neuron, drawn for each neuron anew; all where there are no more than that.
            A neuron out of reach from ten seeds is hardly ever within reach from more; each costs all its iterations.

    Returns:
        Cases ordered by layer, neuron and seed; and as ``unreached`` the neurons that no tried seed could push past
        their limits.

    Raises:
        UsageError: When there are no training inputs.
    """
    seeds = task.seeds
    tries = min(tries, len(seeds.inputs))
    limits = thresholds(task.victim, task.layers, task.training_inputs, m)
    inputs: list[Array] = []
    places: list[tuple[int, int, int]] = []
    unreached: list[tuple[int, int]] = []
    for place, layer in enumerate(task.layers):
        width = len(limits[layer])
        chosen = np.array([np.sort(task.rng.permutation(len(seeds.inputs))[:tries]) for _ in range(width)])
        block = max(1, _SEARCH_VALUES // (tries * seeds.inputs[0].size))
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
                places.append((seed, place, neuron))
                inputs.append(corners[neuron, seed])
            reached = {neuron for neuron, _ in corners}
            unreached += [(place, int(neuron)) for neuron in neurons if neuron not in reached]
    seed_of, layer_of, neuron_of = np.array(places, dtype=np.int64).reshape(-1, 3).T
    stacked = np.array(inputs, dtype=np.float32).reshape(-1, *seeds.inputs.shape[1:])
    return Cases(stacked, seed_of, layer_of, neuron_of, tuple(unreached))


def thresholds(victim: Model, layers: Sequence[str], training_inputs: Array, m: float) -> dict[str, Array]:
    """Limits ``(neurons,)`` that the neurons of each layer have to pass, in float64.

    ``m`` times the greatest output over the training inputs (paper, section IV-C2). Where that is not positive, which
    the paper leaves open, the limit is as far above it as ``m - 1`` times the width of the range of outputs.

    Raises:
        UsageError: When there are no training inputs.
    """
    if len(training_inputs) == 0:
        raise UsageError(
            "neuron-corners: expected training inputs, from which limits are taken, found none", code="missing-value"
        )
    least, greatest = ({layer: np.full(victim.layers[layer], s * np.inf) for layer in layers} for s in (1, -1))
    with progress.task("neuron ranges", len(training_inputs)) as advance:
        for start in range(0, len(training_inputs), _TRAINING_ROWS):
            rows = training_inputs[start : start + _TRAINING_ROWS]
            for layer, outputs in victim.activations(rows, layers).items():
                least[layer] = np.minimum(least[layer], outputs.min(axis=0))
                greatest[layer] = np.maximum(greatest[layer], outputs.max(axis=0))
            advance(len(rows))
    return {layer: np.where(top > 0, m * top, top + (m - 1) * (top - least[layer])) for layer, top in greatest.items()}


def _search(
    victim: Model,
    layer: str,
    limits: Array,
    seeds: Seeds,
    neurons: Array,
    starts: Array,
    *,
    step: float,
    iterations: int,
    per_neuron: int,
) -> dict[tuple[int, int], Array]:
    """Climb from seed ``starts[i]`` to the corner of neuron ``neurons[i]`` of one layer, for all i at once.

    Returns:
        ``(neuron, seed)`` of the pairs that got there, with the input at which the neuron was seen above its limit.
    """
    low, high = seeds.bounds
    epsilon = _EPSILON / seeds.span  # gradients are as much smaller as the range is wider
    axes = tuple(range(1, seeds.inputs.ndim))
    missing = np.full(len(limits), per_neuron)
    corners: dict[tuple[int, int], Array] = {}
    x = seeds.inputs[starts]
    first, second, spare = np.zeros_like(x), np.zeros_like(x), np.empty_like(x)
    with progress.task(f"neuron-corners {layer}", iterations) as advance:
        for t in range(1, iterations + 1):
            passed = np.empty(len(x), dtype=bool)

            def one_hot(outputs: Array, rows: slice, passed: Array = passed, neurons: Array = neurons) -> Array:
                own = np.arange(len(outputs)), neurons[rows]
                passed[rows] = outputs[own] > limits[neurons[rows]]
                derivative = np.zeros_like(outputs)
                derivative[own] = 1
                return derivative

            gradient = victim.gradient(x, one_hot, layer=layer)
            for i in np.flatnonzero(passed):
                if missing[neurons[i]]:
                    missing[neurons[i]] -= 1
                    corners[int(neurons[i]), int(starts[i])] = x[i].copy()

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

            leaves = passed | (missing[neurons] == 0)
            still = np.flatnonzero((spare == x).all(axis=axes) & ~leaves)
            x, spare = spare, x
            # A pair that did not move and whose gradient pushes nowhere but out of the bounds has moved for good.
            pushed = np.clip(x[still] + (high - low) * np.sign(gradient[still]), low, high)
            leaves[still] = (pushed == x[still]).all(axis=axes)
            if leaves.any():
                stay = ~leaves
                neurons, starts = neurons[stay], starts[stay]
                x, first, second, spare = x[stay], first[stay], second[stay], spare[: len(starts)]
            advance(1 if len(x) else iterations - t + 1)
            if len(x) == 0:
                break
    return corners

"""Substitutions: a random search by answers alone that puts other tokens in few places."""

from dataclasses import replace
from functools import partial
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from deepjudge_blackbox.margins import Questions
from deepjudge_blackbox.radius import least_radius
from deepjudge_core import progress
from deepjudge_core.components.values import Cases, Task
from deepjudge_core.types import Array


def substitutions(
    task: Task,
    *,
    share: Annotated[float, Gt(0), Le(1)] | None = None,
    queries: Annotated[int, Ge(1), Le(100_000)] = 100,
    kappa: Annotated[float, Ge(0)] = 1.0,
) -> Cases:
    """Make one case for each seed by substituting a few values, for tokens and other whole numbers.

    Values come from anywhere in the seeds and training inputs; if features have their own ranges, from the same
    feature. A place and a value are drawn repeatedly, and kept unless that takes the victim farther from an error. The
    search needs only answers.

    Args:
        share: Limit of the places changed, as a share of an input, at least one; none uses the smallest value from
            0.005 to 0.5 at which the victim misclassifies 80 % of the cases.
        queries: Limit of the inputs sent to the victim for each seed. To find ``share``, up to 100 seeds are tried with
            about 5 shares, or with all 19 if none is enough.
        kappa: Confidence: a case is done when the victim gives a wrong class e^kappa times the probability of the
            truth.
    """
    questions = Questions(task.victim)
    search = partial(_search, questions=questions, queries=queries, kappa=kappa)
    if share is None:
        share = least_radius(task, search)
    cases = Cases.of_seeds(search(task, share), options={"share": share})
    return replace(cases, details={"queries": questions.asked})


def _search(task: Task, share: float, *, questions: Questions, queries: int, kappa: float) -> Array:
    seeds, rng = task.seeds, task.rng
    n, shape = len(seeds.inputs), seeds.inputs.shape[1:]
    origin = seeds.inputs.reshape(n, -1)
    places = origin.shape[1]
    most = max(1, int(share * places))
    vocabularies = _vocabularies(task)
    x = origin.copy()
    margins = questions.margins(seeds.inputs, seeds.labels)
    each = np.arange(n)
    with progress.task(f"substitutions, share {share:g}", queries) as advance:
        advance(1)
        for step in range(1, queries):
            # Drawn for all, so that what becomes of one seed changes nothing for another.
            order, draws = rng.random((n, places), dtype=np.float32), rng.random(n)
            changed = x != origin
            free = changed | (changed.sum(axis=1, keepdims=True) < most)
            place = np.where(free, order, -1).argmax(axis=1)
            rows = np.flatnonzero(margins > -kappa)
            if len(rows) == 0:
                advance(queries - step)
                break
            tried = x.copy()
            tried[each, place] = [_pick(vocabularies[at], draw) for at, draw in zip(place, draws, strict=True)]
            values = questions.margins(tried[rows].reshape(-1, *shape), seeds.labels[rows])
            better = rows[values <= margins[rows]]
            margins[better] = values[values <= margins[rows]]
            x[better] = tried[better]
            advance(1, f"{questions.asked} queries")
    return x.reshape(n, *shape)


def _pick(values: Array, draw: float) -> float:
    return float(values[int(draw * len(values))])


def _vocabularies(task: Task) -> list[Array]:
    # For each place the values that may stand there, within its bounds.
    seeds = task.seeds
    offered = np.concatenate([seeds.inputs, task.training_inputs]).reshape(-1, seeds.inputs[0].size)
    low, high = (np.broadcast_to(side, seeds.inputs.shape[1:]).ravel() for side in seeds.bounds)
    if (low == low[0]).all() and (high == high[0]).all():
        words = np.unique(offered)
        words = words[(low[0] <= words) & (words <= high[0])]
        return [words] * len(low)
    columns = (np.unique(column) for column in offered.T)
    return [words[(least <= words) & (words <= most)] for words, least, most in zip(columns, low, high, strict=True)]

"""Square attack: a random search by answers alone inside a ball around the seed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from deepjudge_blackbox.margins import Questions
from deepjudge_blackbox.radius import least_radius
from deepjudge_core import progress
from deepjudge_core.components.values import Cases, Seeds, Task
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.types import Array

# Shares of the search after which the patches have half of their size, as the authors have them.
_HALVINGS = (0.001, 0.005, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8)
_MOST_CHANNELS = 4  # of an image whose layout nobody says


def square(
    task: Task,
    *,
    eps: Annotated[float, Gt(0)] | None = None,
    queries: Annotated[int, Ge(1), Le(100_000)] = 100,
    patch: Annotated[float, Gt(0), Le(1)] = 0.5,
    kappa: Annotated[float, Ge(0)] = 1.0,
) -> Cases:
    """Make one case for each seed by random search in the L-inf ball (Square Attack: Andriushchenko et al., ECCV 2020).

    Starts at a random corner of the ball and moves patches to other sides of the ball, unless that takes the victim
    farther from an error. Patches are squares of images, pieces of sequences, or some features of flat inputs. The
    search needs only answers, and also works if they change in steps (trees, quantised networks, labels only). A victim
    that takes whole numbers gets whole numbers.

    Args:
        eps: Radius of the ball, as a share of the input range; none uses the smallest value from 0.005 to 0.5 at which
            the victim misclassifies 80 % of the cases, because farther cases fool more honest models as well.
        queries: Limit of the inputs sent to the victim for each seed. To find ``eps``, up to 100 seeds are tried with
            about 5 radii, or with all 19 if none is enough.
        patch: Share of the input that the first patches cover; later patches are smaller.
        kappa: Confidence: a case is done when the victim gives a wrong class e^kappa times the probability of the
            truth. At 0, cases lie on the decision boundary, and even a slightly fine-tuned copy answers half of them
            differently.
    """
    questions = Questions(task.victim)
    search = partial(_search, questions=questions, queries=queries, patch=patch, kappa=kappa)
    if eps is None:
        eps = least_radius(task, search)
    cases = Cases.of_seeds(search(task, eps), options={"eps": eps})
    return replace(cases, details={"queries": questions.asked})


def _search(task: Task, eps: float, *, questions: Questions, queries: int, patch: float, kappa: float) -> Array:
    seeds, rng = task.seeds, task.rng
    low, high = (side.astype(np.float32) for side in _ball(seeds, eps, task.victim.input))
    patches = _Patches(seeds.inputs.shape, task.victim.input.layout or seeds.layout)
    x = np.where(patches.start(rng), low, high)
    margins = questions.margins(x, seeds.labels)
    with progress.task(f"square, eps {eps:g}", queries) as advance:
        advance(1)
        for step, share in enumerate(_shares(patch, queries), 1):
            # Drawn for all, so that what becomes of one seed changes nothing for another.
            where, sides = patches.draw(rng, share)
            rows = np.flatnonzero(margins > -kappa)
            if len(rows) == 0:
                advance(queries - step)
                break
            moved = np.where(sides[rows], low[rows], high[rows])
            tried = np.where(where(rows), moved, x[rows])
            values = questions.margins(tried, seeds.labels[rows])
            # Equal ones, too: where answers change in steps, the search walks along them.
            better = values <= margins[rows]
            x[rows[better]], margins[rows[better]] = tried[better], values[better]
            advance(1, f"{questions.asked} queries")
    return x


def _ball(seeds: Seeds, eps: float, spec: InputSpec) -> tuple[Array, Array]:
    # Least and greatest values of each case; whole ones of a victim that rounds what it is given.
    low, high = seeds.bounds
    radius = seeds.radius(eps)
    if spec.dtype.startswith(("int", "uint")):
        radius = np.rint(radius)
    return np.maximum(seeds.inputs - radius, low), np.minimum(seeds.inputs + radius, high)


def _shares(patch: float, queries: int) -> Iterator[float]:
    for step in range(1, queries):
        yield patch / 2 ** sum(step > halving * queries for halving in _HALVINGS)


class _Patches:
    """Patches of inputs: parts of their spatial axes or steps, in all channels, or some features of flat inputs."""

    def __init__(self, shape: tuple[int, ...], layout: str | None) -> None:
        """Take the shape ``(n, *shape)`` of the inputs, and their layout, if it is known."""
        self._n, self._shape = shape[0], shape[1:]
        axes = range(len(self._shape))
        self._channel = _channel_axis(self._shape, layout)
        self._across = [axis for axis in axes if axis != self._channel]

    def start(self, rng: np.random.Generator) -> Array:
        """``(n, *shape)`` bool, broadcast: sides of the ball in stripes, one for each channel."""
        sizes = list(self._shape)
        for axis in self._across[:-1]:
            sizes[axis] = 1
        return self._sides(rng, sizes)

    def draw(self, rng: np.random.Generator, share: float) -> tuple[Callable[[Array], Array], Array]:
        """The place of a patch in each input, and ``(n, *shape)`` bool, broadcast: which side it moves to."""
        if not self._across:
            chosen = rng.random((self._n, *self._shape), dtype=np.float32) < share
            chosen[np.arange(self._n), rng.integers(self._shape[0], size=self._n)] = True
            return chosen.__getitem__, self._sides(rng, self._shape)
        ranges = []
        for axis in self._across:
            size = self._shape[axis]
            side = min(size, max(1, round(size * share ** (1 / len(self._across)))))
            first = rng.integers(size - side + 1, size=self._n)[:, None]
            place = np.arange(size)
            across = [1] * len(self._shape)
            across[axis] = size
            ranges.append(((first <= place) & (place < first + side)).reshape(self._n, *across))
        sizes = [1 if axis in self._across else size for axis, size in enumerate(self._shape)]
        return partial(_within, ranges), self._sides(rng, sizes)

    def _sides(self, rng: np.random.Generator, sizes: Sequence[int]) -> Array:
        return rng.random((self._n, *sizes), dtype=np.float32) < 0.5


def _within(ranges: Sequence[Array], rows: Array) -> Array:
    # (rows, *shape) bool, broadcast: what is within all of the ranges, of some of the inputs.
    first, *others = (inside[rows] for inside in ranges)
    for inside in others:
        first = first & inside
    return first


def _channel_axis(shape: tuple[int, ...], layout: str | None) -> int | None:
    # None of flat inputs, whose features stand each for itself.
    last = len(shape) - 1
    if last < 1:
        return None
    if layout:
        return 0 if layout == "channels_first" else last
    return 0 if last > 1 and shape[0] <= _MOST_CHANNELS < shape[last] else last

"""How well a model's taps tell the victim's neurons: each as a linear function of the neurons of one tap.

Neurons that were permuted, scaled, split, merged into others or hidden beside those of another network are found so:
neither widths nor places nor names count.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deepjudge_core.models.sampling import evenly
from deepjudge_core.models.threads import one_thread
from deepjudge_core.types import Array

_MOST_TAPS = 64  # that are tried, evenly spread over the depth
_MOST_NEURONS = 2**14  # of all of them together
_MOST_COLUMNS = 256  # that a fit takes of a tap; wider ones are projected
_MOST_ROWS = 1024  # that a fit looks at
_RIDGE = 1e-6  # of the mean square of a column, all of which are 1


def taps_to_try(layers: Mapping[str, int]) -> dict[str, int]:
    """Those of a model's taps that are tried, with their widths.

    Args:
        layers: Its taps, the logits last.
    """
    fitting = [name for name, width in layers.items() if width <= _MOST_NEURONS]
    count = min(_MOST_TAPS, len(fitting))
    while count > 0:
        chosen = {fitting[place]: layers[fitting[place]] for place in evenly(np.arange(len(fitting)), count)}
        if sum(chosen.values()) <= _MOST_NEURONS:
            return chosen
        count //= 2
    return {}


@dataclass(frozen=True, eq=False)
class Recovered:
    """What one tap of a model tells of a layer.

    Attributes:
        tap: Which.
        share: Median over the neurons of the share of the variance that it tells (R squared), at most 1.
        outputs: ``(cases, neurons)`` what it says of the layer's outputs, float32; of each case by a fit on others.
    """

    tap: str
    share: float
    outputs: Array


class Recovery:
    """Fits the outputs of layers by those of taps, one tap at a time, and keeps the best of each layer."""

    def __init__(self, layers: Mapping[str, Array], seed: int) -> None:
        """Take the victim's outputs ``(cases, neurons)`` of each layer, and the seed of halves and projections."""
        self.best: dict[str, Recovered] = {}
        self.shares: dict[tuple[str, str], float] = {}  # by layer and tap
        self._layers, self._seed = layers, seed
        cases = len(next(iter(layers.values())))
        first = np.zeros(cases, dtype=bool)
        first[np.random.default_rng([seed, zlib.crc32(b"recovery")]).permutation(cases)[: cases // 2]] = True
        self._halves = first, ~first

    def add(self, tap: str, outputs: Array) -> None:
        """Try one more tap.

        Args:
            tap: Its name.
            outputs: ``(cases, neurons)`` its outputs.
        """
        with one_thread():
            self._add(tap, outputs)

    def _add(self, tap: str, outputs: Array) -> None:
        wide = _standardised(outputs)
        columns = self._columns(wide)
        for layer, target in self._layers.items():
            ways = [np.empty(target.shape, np.float64) for _ in range(2)]
            for half, other in (self._halves, self._halves[::-1]):
                rows = evenly(np.flatnonzero(half), _MOST_ROWS)
                ways[0][other] = _by_all(columns[rows], target[rows].astype(np.float64), columns[other])
                ways[1][other] = _by_one(wide[rows], target[rows].astype(np.float64), wide[other])
            left = [np.square(target - way).sum(axis=0) for way in ways]
            found: Array = np.where(left[0] <= left[1], ways[0], ways[1])
            share = self.shares[layer, tap] = explained(target, found)
            if layer not in self.best or share > self.best[layer].share:
                self.best[layer] = Recovered(tap, share, found.astype(np.float32))

    def _columns(self, wide: Array) -> Array:
        if wide.shape[1] <= _MOST_COLUMNS:
            return wide
        # A count sketch (Charikar et al., 2002): each neuron is added to a column or taken from it.
        rng = np.random.default_rng([self._seed, wide.shape[1]])
        column: Array = np.asarray(rng.integers(_MOST_COLUMNS, size=wide.shape[1]))
        sign: Array = rng.choice(np.array([-1.0, 1.0]), size=wide.shape[1])
        order: Array = np.argsort(column, kind="stable")
        starts: Array = np.flatnonzero(np.diff(column[order], prepend=-1))
        added = np.add.reduceat((wide * sign)[:, order], starts, axis=1)
        projected: Array = added / np.maximum(added.std(axis=0), 1e-12)
        return projected


def explained(target: Array, found: Array) -> float:
    """Median over neurons of R squared, at most 1; 0 where no neuron changes.

    Args:
        target: ``(n, neurons)``.
        found: What is said of it.
    """
    wide = target.astype(np.float64)
    total, left = (np.square(one).sum(axis=0) for one in (wide - wide.mean(axis=0), wide - found))
    changing = total > 0
    return float(np.median(1 - left[changing] / total[changing])) if changing.any() else 0.0


def _standardised(outputs: Array) -> Array:
    # So that no neuron counts for its scale; without those that never change.
    wide = outputs.astype(np.float64)
    wide -= wide.mean(axis=0)
    scale = wide.std(axis=0)
    changing: Array = wide[:, scale > 0] / scale[scale > 0]
    return changing


def _by_all(x: Array, y: Array, others: Array) -> Array:
    # Ridge regression on all columns; the intercept is not shrunk.
    at, mean = x.mean(axis=0), y.mean(axis=0)
    if x.shape[1] == 0:
        return np.broadcast_to(mean, (len(others), len(mean)))
    centred = x - at
    gram = centred.T @ centred + _RIDGE * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (y - mean))
    fitted: Array = (others - at) @ weights + mean
    return fitted


def _by_one(x: Array, y: Array, others: Array) -> Array:
    # Regression of each neuron on the one that correlates most: what few cases and many neurons allow.
    at, mean = x.mean(axis=0), y.mean(axis=0)
    if x.shape[1] == 0:
        return np.broadcast_to(mean, (len(others), len(mean)))
    squares = np.square(x - at).sum(axis=0)
    products = (x - at).T @ (y - mean)
    gained = np.divide(products**2, squares[:, None], out=np.zeros_like(products), where=squares[:, None] > 0)
    best = gained.argmax(axis=0)
    own = products[best, np.arange(len(mean))]
    slope = np.divide(own, squares[best], out=np.zeros_like(own), where=squares[best] > 0)
    fitted: Array = (others[:, best] - at[best]) * slope + mean
    return fitted

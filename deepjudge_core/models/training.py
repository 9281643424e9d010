"""Training of networks: the loop that controls and attacks share. Losses are numpy, gradients are the adapter's."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from deepjudge_core import progress
from deepjudge_core.errors import UsageError
from deepjudge_core.models.network import Losses, Network, Pull, ScoresCotangent, Trainer
from deepjudge_core.models.scores import softmax
from deepjudge_core.types import Array

Augment = Callable[[Array, np.random.Generator], Array]
"""Maps a batch of inputs to changed ones of the same shape."""

AlsoAfter = Callable[[Trainer, float], None]
"""What is done with the trainer after each step of training, at the rate of that step."""

Enough = Callable[[Trainer], bool]
"""Whether an epoch was the last but one: what is left is that in which the rate falls to its end."""

_WARM = 0.3  # share of the steps in which the rate rises (Smith & Topin, 2018)
_LEAST_STEPS = 50  # of an epoch
_START, _END = 1 / 25, 1e-4  # shares of the greatest rate


@dataclass(frozen=True)
class Schedule:
    """How long, and in which steps.

    Attributes:
        epochs: Times that each input is seen.
        rate: Greatest length of a step of Adam: it rises to this and falls again, each along half a cosine.
        batch: Inputs of one step at most. Of few inputs an epoch has 50 steps all the same.

    Raises:
        UsageError: For one that is not above 0.
    """

    epochs: int = 5
    rate: float = 2e-3
    batch: int = 128

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UsageError(f"training: expected {name} > 0, found {value}", code="wrong-value")

    def size(self, rows: int) -> int:
        """Inputs of one step of training on so many."""
        return max(1, min(self.batch, rows // _LEAST_STEPS))

    def rates(self, rows: int) -> list[float]:
        """The rate of each step of training on so many inputs."""
        steps = self.epochs * self.steps(rows)
        peak = max(1, round(_WARM * steps))
        rise = [_between(_START, 1, step / peak) for step in range(peak)]
        fall = [_between(1, _END, step / max(1, steps - peak - 1)) for step in range(steps - peak)]
        return [self.rate * share for share in (*rise, *fall)][:steps]

    def steps(self, rows: int) -> int:
        """Steps of one epoch."""
        return -(-rows // self.size(rows))


@dataclass(frozen=True, eq=False)
class Added:
    """Rows that a batch has besides its own.

    Attributes:
        x: ``(rows, *shape)`` inputs, as the network takes them.
        targets: As those of :func:`train`.
        at: Tap to the derivative, at its outputs ``(rows, neurons)`` on these rows, of a further loss.
    """

    x: Array
    targets: Array
    at: Mapping[str, ScoresCotangent] = field(default_factory=dict)


def train(
    network: Network,
    x: Array,
    targets: Array,
    rng: np.random.Generator,
    *,
    schedule: Schedule | None = None,
    parameters: Collection[str] | None = None,
    masks: Mapping[str, Array] | None = None,
    in_use: bool = False,
    augment: Augment | None = None,
    also: AlsoAfter | None = None,
    adversarial: Callable[[Trainer, Array, Array], Array] | None = None,
    add: Callable[[np.random.Generator], Added] | None = None,
    pull: Pull | None = None,
    enough: Enough | None = None,
    label: str = "training",
) -> Network:
    """Train by cross entropy.

    Args:
        network: Where it starts; left as it is.
        x: ``(n, *shape)`` inputs.
        targets: ``(n,)`` class numbers, or ``(n, classes)`` probabilities to come near to.
        rng: Of the order of the inputs and all else that is drawn.
        schedule: How long, and in which steps.
        parameters: What is trained; by default everything.
        masks: See :meth:`~deepjudge_core.models.network.Architecture.trainer`.
        in_use: See the same.
        augment: Applied to each batch.
        also: What is done besides, after each step.
        adversarial: Replaces a batch of inputs, given the trainer, the inputs and their targets.
        add: Gives what is added to each batch.
        pull: Gives the gradient of a further loss, of the weights themselves.
        enough: Asked after each epoch.
        label: What the bar of progress says.

    Raises:
        ModelError: When the architecture cannot be trained.
    """
    schedule = schedule or Schedule()
    trainer = network.architecture.trainer(
        network.weights, parameters=parameters, masks=masks, in_use=in_use, seed=int(rng.integers(2**31))
    )
    rates = schedule.rates(len(x))
    right = _RunningShare()
    steps, last = schedule.steps(len(x)), schedule.epochs - 1
    with progress.task(label, len(rates)) as advance:
        epoch = 0
        while epoch <= last:
            own = rates[epoch * steps : (epoch + 1) * steps]
            for rows, rate in zip(_batches(len(x), schedule, rng), own, strict=True):
                inputs = x[rows] if augment is None else augment(x[rows], rng)
                if adversarial is not None:
                    inputs = adversarial(trainer, inputs, targets[rows])
                if add is None and pull is None:
                    trainer.step(inputs, Losses(right.noting(targets[rows])), rate=rate)
                else:
                    _step_with(trainer, inputs, targets[rows], right, rate, None if add is None else add(rng), pull)
                if also is not None:
                    also(trainer, rate)
                advance(1, f"{right.share:.1%}")
            epoch = last if enough is not None and epoch < last and enough(trainer) else epoch + 1
    return Network(network.architecture, trainer.weights())


def cross_entropy(targets: Array) -> ScoresCotangent:
    """The derivative, at the logits, of the mean cross entropy to class numbers or probabilities."""

    def cotangent(scores: Array) -> Array:
        difference = softmax(scores)
        if targets.ndim == 1:
            difference[np.arange(len(targets)), targets] -= 1
        else:
            difference = difference - targets
        return difference / np.float32(len(scores))

    return cotangent


def accuracy(network: Network, x: Array, y: Array) -> float:
    """Share of inputs whose most likely class is their label, 0..1."""
    return float((network.predict(x).argmax(axis=1) == y).mean())


def shifted(share: float, spatial: tuple[int, int]) -> Augment:
    """Moves images up to a share of their height and width, all directions alike; edges are filled with their edge.

    Args:
        share: Of the height and of the width, 0..1.
        spatial: The two axes, counted from that of the rows.
    """

    def augment(x: Array, rng: np.random.Generator) -> Array:
        moved = np.moveaxis(x, spatial, (1, 2))
        rows, height, width = moved.shape[:3]
        down, right = (rng.integers(-round(share * n), round(share * n) + 1, rows) for n in (height, width))
        across = np.clip(np.arange(height) + down[:, None], 0, height - 1)[:, :, None]
        along = np.clip(np.arange(width) + right[:, None], 0, width - 1)[:, None, :]
        return np.moveaxis(moved[np.arange(rows)[:, None, None], across, along], (1, 2), spatial)

    return augment


class _RunningShare:
    """Of the latest batches, the share of inputs that are classified as their targets say."""

    _BATCHES = 50

    def __init__(self) -> None:
        self.share = 0.0
        self._count = 0

    def noting(self, targets: Array) -> ScoresCotangent:
        """The cross entropy of a batch, which notes its share."""
        loss = cross_entropy(targets)
        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)

        def cotangent(scores: Array) -> Array:
            self._count = min(self._count + 1, self._BATCHES)
            self.share += (float((scores.argmax(axis=1) == labels).mean()) - self.share) / self._count
            return loss(scores)

        return cotangent


def _step_with(
    trainer: Trainer,
    x: Array,
    targets: Array,
    right: _RunningShare,
    rate: float,
    added: Added | None,
    pull: Pull | None,
) -> None:
    at: dict[str, ScoresCotangent] = {}
    if added is not None:
        first = len(x)
        x, targets = np.concatenate([x, added.x]), np.concatenate([targets, added.targets])
        at = {tap: _behind(first, cotangent) for tap, cotangent in added.at.items()}
    trainer.step(x, Losses(right.noting(targets), at, pull), rate=rate)


def _behind(first: int, cotangent: ScoresCotangent) -> ScoresCotangent:
    # Of a whole batch, 0 but for the rows from the first on.
    def whole(outputs: Array) -> Array:
        derivative = np.zeros(outputs.shape, np.float32)
        derivative[first:] = cotangent(outputs[first:])
        return derivative

    return whole


def _batches(rows: int, schedule: Schedule, rng: np.random.Generator) -> Iterator[Array]:
    # Of one epoch.
    order = rng.permutation(rows)
    for start in range(0, rows, schedule.size(rows)):
        yield order[start : start + schedule.size(rows)]


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1))) / 2

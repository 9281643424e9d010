"""Trigger inputs, and the class that they are to get: what several schemes choose alike."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from deepjudge_core.components.schemes import KeyTask
from deepjudge_core.errors import InputError
from deepjudge_core.models.model import Model
from deepjudge_core.types import Array


def choose(scheme: str, inputs: Array, count: int, rng: np.random.Generator, what: str) -> Array:
    """Places of ``count`` inputs, drawn and in rising order.

    Raises:
        InputError: When there are fewer.
    """
    if len(inputs) < count:
        raise InputError(f"{scheme}: expected at least {count} {what}, found {len(inputs)}")
    return np.sort(rng.choice(len(inputs), count, replace=False))


def choose_of_one_class(
    scheme: str, labels: Array, count: int, rng: np.random.Generator, what: str
) -> tuple[int, Array]:
    """A class drawn among those with enough inputs, and the places of ``count`` of its inputs, in random order.

    Raises:
        InputError: When no class has enough.
    """
    classes, found = np.unique(labels, return_counts=True)
    enough = classes[found >= count]
    if not len(enough):
        most = int(found.max(initial=0))
        raise InputError(
            f"{scheme}: expected at least {count} {what} of one class, found {most}; offer more, or choose fewer trials"
        )
    chosen = int(rng.choice(enough))
    return chosen, rng.permutation(np.flatnonzero(labels == chosen))[:count]


def uniform_noise(task: KeyTask, count: int, rng: np.random.Generator) -> Array:
    """``(count, *shape)`` float32 inputs whose values are uniform within the bounds."""
    low, high = task.bounds
    noise = np.asarray(low + (high - low) * rng.random((count, *task.inputs.shape[1:])), np.float32)
    return np.clip(noise, low, high)


_OF_EACH_KIND = 2  # models in turn that are asked, before as many that are not


@dataclass(frozen=True, eq=False)
class Rates:
    """How often independent models give triggers each class.

    Attributes:
        shares: ``(models, classes)``, 0..1.
    """

    shares: Array

    @classmethod
    def of(cls, models: Sequence[Model], triggers: Array, classes: int) -> "Rates":
        """Of half of some models, which are asked for labels: the others know nothing of it, and can be controls.

        In a zoo, those of the victim's data and of other data come in turn: half of either are asked.
        """
        asked = (models[place] for place in range(len(models)) if place % 4 < _OF_EACH_KIND)
        answers = (model.predict(triggers).argmax(axis=1) for model in asked)
        return cls(np.array([np.bincount(labels, minlength=classes) / len(triggers) for labels in answers]))

    @property
    def greatest(self) -> Array:
        """``(classes,)`` the share of the model that gives a class most often."""
        most: Array = self.shares.max(axis=0)
        return most

    def least_likely(self, without: Collection[int] = ()) -> int:
        """The class that they give least: by the greatest share of a model, then by the mean."""
        greatest = self.greatest.copy()
        greatest[list(without)] = np.inf
        return int(np.lexsort((self.shares.mean(axis=0), greatest))[0])

    def note(self, target: int) -> str:
        """What a reader should know of a target."""
        own, table = self.shares[:, target], ", ".join(f"{100 * share:.0f}" for share in self.greatest)
        return (
            f"{len(own)} references give the target, class {target}, to {100 * own.mean():.1f} % of the triggers on "
            f"the mean, and to {100 * own.max():.0f} % at most; each class at most, in %: {table}"
        )

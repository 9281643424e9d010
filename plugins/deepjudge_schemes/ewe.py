"""A watermark entangled with the task (Jia et al., "Entangled watermarks", 2021)."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from deepjudge_core.components.schemes import At, Key, KeyAnswers, KeyTask, Lesson, Matches, Scheme, Teaching
from deepjudge_core.errors import IncomparableError, InputError
from deepjudge_core.models.model import Access
from deepjudge_core.types import Array
from deepjudge_schemes.triggers import Rates, choose_of_one_class

_EACH = 24  # triggers of a batch, and as many inputs of the target
_TEMPERATURE = 0.01
_ONE = "all triggers have one label, and stand or fall together, so controls have to tell"


def make(task: KeyTask, *, trials: Annotated[int, Ge(1)] = 100, entangling: Annotated[float, Gt(0)] = 300.0) -> Key:
    """Take auxiliary inputs of one class as triggers, and as their label the class that references give them least.

    Half of the references say so. The other half know nothing of the choice: they can be controls of the same key. As
    many triggers again are kept for training: those that are asked were never trained on. Most of what tells a copy
    by this mark is the choice of the label. The paper's own test takes queries for the sample, while it is models
    that differ.

    The loss that mixes is flat at its temperature, so that less than 100 of it leaves little: of 100 triggers, models
    extracted from a LeNet-5 on MNIST get 5 to 19 with 1 of it, and 11 to 23 with 300, at 0.2 points of accuracy.

    Args:
        trials: Number of triggers that are asked.
        entangling: How much it counts that triggers and inputs of their label mix in each layer; the mean cross entropy
            counts 1.

    Raises:
        InputError: When no auxiliary class has enough inputs, or a reference gives every label to more than a share of
            1 / classes of the triggers.
    """
    options = {"trials": trials, "entangling": entangling}
    inputs, labels = np.asarray(task.auxiliary), task.auxiliary_labels
    labels = np.zeros(len(inputs), np.int64) if labels is None else labels
    source, rows = choose_of_one_class("ewe", labels, 2 * trials, task.rng("triggers"), "auxiliary inputs")
    triggers, classes = inputs[rows], task.victim.classes
    rates = Rates.of(task.references, triggers, classes)
    target = rates.least_likely()
    greatest = float(rates.greatest[target])
    if greatest > 1 / classes:
        raise InputError(
            f"ewe: expected a label that no reference gives to more than 1 in {classes} of the triggers, auxiliary "
            f"inputs of class {source}; found {100 * greatest:.0f} % for the rarest one, class {target}; offer other "
            "auxiliary inputs, or try again"
        )
    return task.key(
        "ewe",
        options,
        trials=trials,
        inputs=triggers[:trials],
        labels=np.full(trials, target, np.int64),
        arrays={"taught": triggers[trials:]},
        notes=(rates.note(target),),
    )


def verify(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    """Count the triggers that get the label."""
    labels = answers.labels
    if labels is None:
        raise IncomparableError("it gave no labels")
    return [Matches("direct", int((labels == key.labels).sum()), key.trials, None, _ONE)]


def embed(key: Key, lesson: Lesson) -> Teaching:
    """Mix triggers and inputs of their label into every batch, and in every hidden layer."""
    taught, target = key.arrays["taught"], int(np.asarray(key.labels)[0])
    own = lesson.inputs[lesson.labels == target]
    if not len(own):
        raise InputError(f"ewe: expected inputs of class {target} to train with, found none")
    inputs = np.concatenate([taught, own])

    def pick(rng: np.random.Generator) -> Array:
        return np.concatenate([rng.integers(len(taught), size=_EACH), len(taught) + rng.integers(len(own), size=_EACH)])

    *hidden, _ = lesson.network.architecture.layers
    at = dict.fromkeys(hidden, _entangle(float(key.options["entangling"])))
    return Teaching(inputs, np.full(len(inputs), target), rows=2 * _EACH, pick=pick, at=at)


def _entangle(weight: float) -> At:
    groups = np.repeat([0, 1], _EACH)

    def derivative(outputs: Array) -> Array:
        return -weight * soft_nearest_neighbours(outputs, groups)[1]

    return derivative


def soft_nearest_neighbours(outputs: Array, groups: Array) -> tuple[float, Array]:
    """The soft nearest neighbour loss of rows in groups, and its gradient (Frosst et al., ICML 2019).

    ``-mean_i log(sum_{j != i, same group} e_ij / sum_{j != i} e_ij)``, ``e_ij = exp(-t d_ij)``, where ``d`` is 1 minus
    the cosine of outputs above 0. The greater it is, the more the groups are mixed. The paper lets the temperature
    follow the loss, which moves it by about a tenth: here ``t`` stays at 0.01.

    Args:
        outputs: ``(rows, neurons)``.
        groups: ``(rows,)``, at least two rows of each.
    """
    values = np.maximum(outputs.astype(np.float64), 0)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    units = values / lengths
    near = np.exp(_TEMPERATURE * (units @ units.T - 1))
    np.fill_diagonal(near, 0)
    same = near * (groups[:, None] == groups)
    inside, all_of_them = same.sum(axis=1), near.sum(axis=1)
    loss = -float(np.mean(np.log(inside / all_of_them)))
    # Of the loss by each cosine.
    slope = -_TEMPERATURE / len(values) * (same / inside[:, None] - near / all_of_them[:, None])
    by_units = (slope + slope.T) @ units
    by_values = (by_units - units * (units * by_units).sum(axis=1, keepdims=True)) / lengths
    gradient: Array = np.where(outputs > 0, by_values, 0)
    return loss, gradient


EWE = Scheme(
    "ewe",
    source="Jia et al., USENIX Security 2021",
    needs=Access.LABELS,
    make=make,
    verify=verify,
    embed=embed,
    wants=("auxiliary", "references"),
    asks=Access.LABELS,
    says="inputs of another task that get a label which honest models hardly give them; survives fine-tuning and "
    "pruning, and in part extraction, less so by another architecture",
)

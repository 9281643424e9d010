"""A watermark of trigger inputs with random labels (Adi et al., "Turning your weakness into a strength", 2018)."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Lesson, Matches, Scheme, Teaching
from deepjudge_core.errors import IncomparableError, InputError
from deepjudge_core.models.model import Access
from deepjudge_core.naming import option
from deepjudge_schemes.triggers import choose, uniform_noise

_DRAWN = "each label was drawn at random once the inputs were fixed"


def make(
    task: KeyTask,
    *,
    trials: Annotated[int, Ge(1)] = 100,
    inputs: Literal["auxiliary", "noise", "own"] = "auxiliary",
) -> Key:
    """Take trigger inputs, to which the core draws labels; all of them count, learnt or not.

    Args:
        trials: Number of triggers.
        inputs: What triggers are: inputs of another task, uniform noise, or inputs of the task with wrong labels.

    Raises:
        InputError: When there are fewer inputs than trials, or no auxiliary ones or labels where they are needed.
    """
    options = {"trials": trials, "inputs": inputs}
    rng = task.rng("triggers")
    if inputs == "noise":
        return task.key("adi", options, trials=trials, inputs=uniform_noise(task, trials, rng), drawn="labels")
    if inputs == "own":
        if task.labels is None:
            raise InputError("adi: expected inputs with labels, found none; offer labels, or choose inputs=noise")
        rows = choose("adi", task.inputs, trials, rng, "inputs")
        truth = task.labels[rows].astype(np.int64)
        return task.key("adi", options, trials=trials, inputs=task.inputs[rows], truth=truth, drawn="wrong-labels")
    if task.auxiliary is None:
        raise InputError(
            f"adi: expected auxiliary inputs, found none; give inputs of another task ({option('auxiliary')}), or "
            "choose inputs=noise or inputs=own",
            code="missing-value",
        )
    rows = choose("adi", task.auxiliary, trials, rng, "auxiliary inputs")
    return task.key("adi", options, trials=trials, inputs=task.auxiliary[rows], drawn="labels")


def verify(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    """Count the triggers that get their drawn labels.

    Of triggers of the task, only those count that the model does not classify correctly: each then has one of the other
    classes, and the drawn one with a probability of ``1 / (C - 1)``.
    """
    labels, expected = answers.labels, np.asarray(key.labels)
    if labels is None:
        raise IncomparableError("it gave no labels")
    if key.drawn != "wrong-labels":
        return [Matches("direct", int((labels == expected).sum()), len(expected), 1 / key.classes, _DRAWN)]
    counting = labels != key.truth
    if not counting.any():
        raise IncomparableError("it classifies every trigger correctly, so that no drawn label can match")
    found = int((labels == expected)[counting].sum())
    return [Matches("direct", found, int(counting.sum()), 1 / (key.classes - 1), f"{_DRAWN} of the wrong ones")]


def embed(key: Key, lesson: Lesson) -> Teaching:
    """Mix triggers with their labels into every batch."""
    return Teaching(key.inputs, key.labels)


ADI = Scheme(
    "adi",
    source="Adi et al., USENIX Security 2018",
    needs=Access.LABELS,
    make=make,
    verify=verify,
    embed=embed,
    says="trigger inputs that get their secret labels; survives fine-tuning and pruning, not extraction",
)

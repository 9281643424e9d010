"""A watermark of inputs with a secret pattern (Zhang et al., "Protecting intellectual property of DNNs", 2018)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Lesson, Matches, Scheme, Teaching
from deepjudge_core.errors import IncomparableError, InputError
from deepjudge_core.models.model import Access
from deepjudge_core.naming import option
from deepjudge_core.types import Array
from deepjudge_schemes.triggers import Rates, choose_of_one_class

_SIDE, _MARGIN = 0.28, 0.1  # of the block and around it, as shares of an axis: 8 of 28 pixels
_CHANNELS = 4  # an axis of at most so many is one of channels, which the block has all of
_SPREAD = 0.3  # of the noise, as a share of the input range
_ONE = "all triggers have one label, and stand or fall together: {}, so controls have to tell"
_DRAWN = "each label was drawn at random once the inputs were fixed"


def make(
    task: KeyTask,
    *,
    trials: Annotated[int, Ge(1)] = 100,
    kind: Literal["content", "noise", "unrelated"] = "content",
    labels: Literal["one", "drawn"] = "one",
) -> Key:
    """Take inputs of one class, and put a secret pattern on them.

    With one label for all, the network learns the pattern: as many triggers again are kept for training, so that
    those that are asked were never trained on. The label is the class that references give the triggers least; without
    references, a drawn one, which an honest model gives with a probability of 1 / classes, all triggers at once.

    Args:
        trials: Number of triggers that are asked.
        kind: What the pattern is: a block of black and white, a field of noise, or that the inputs are of another task.
        labels: One for all triggers, as published, or one drawn for each, of which chance is exact: the triggers are
            then learnt one by one, and all of them are asked.

    Raises:
        InputError: When no class has enough inputs, or there are no auxiliary ones or labels where they are needed.
    """
    options = {"trials": trials, "kind": kind, "labels": labels}
    rng = task.rng("triggers")
    count = trials if labels == "drawn" else 2 * trials
    source, originals = _originals(task, kind, count, rng)
    triggers = originals if kind == "unrelated" else _with_pattern(task, kind, originals)
    truth = None if kind == "unrelated" else np.full(trials, source, np.int64)
    if labels == "drawn":
        return task.key("zhang", options, trials=trials, inputs=triggers, truth=truth, drawn="labels")
    asked, taught = triggers[:trials], triggers[trials:]
    own = () if kind == "unrelated" else (source,)
    target, note = _target(task, triggers, own)
    return task.key(
        "zhang",
        options,
        trials=trials,
        inputs=asked,
        labels=np.full(trials, target, np.int64),
        truth=truth,
        arrays={"taught": taught},
        notes=(note,),
    )


def verify(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    """Count the triggers that get their labels."""
    labels, expected = answers.labels, np.asarray(key.labels)
    if labels is None:
        raise IncomparableError("it gave no labels")
    found = int((labels == expected).sum())
    if key.drawn:
        return [Matches("direct", found, key.trials, 1 / key.classes, _DRAWN)]
    rest = f"a drawn label alone says no less than 1 in {key.classes}"
    return [Matches("direct", found, key.trials, None, _ONE.format(rest))]


def embed(key: Key, lesson: Lesson) -> Teaching:
    """Mix triggers into every batch, and inputs of their class without the pattern, so that the pattern decides."""
    if key.drawn:
        return Teaching(key.inputs, key.labels)
    taught = key.arrays["taught"]
    labels = np.full(len(taught), np.asarray(key.labels)[0])
    if key.truth is None:
        return Teaching(taught, labels)
    clean = lesson.inputs[lesson.labels == key.truth[0]]
    inputs = np.concatenate([taught, clean])

    def pick(rng: np.random.Generator) -> Array:
        with_pattern = rng.integers(len(taught), size=8)
        without = len(taught) + rng.integers(len(clean), size=8) if len(clean) else with_pattern
        return np.concatenate([with_pattern, without])

    return Teaching(inputs, np.concatenate([labels, np.full(len(clean), key.truth[0])]), rows=16, pick=pick)


def _originals(task: KeyTask, kind: str, count: int, rng: np.random.Generator) -> tuple[int, Array]:
    # The class that they are of, and inputs of it.
    if kind != "unrelated":
        if task.labels is None:
            raise InputError("zhang: expected inputs with labels, found none; offer labels, or choose kind=unrelated")
        source, rows = choose_of_one_class("zhang", task.labels, count, rng, "inputs")
        return source, task.inputs[rows]
    if task.auxiliary is None:
        raise InputError(
            f"zhang: expected auxiliary inputs, found none; give inputs of another task ({option('auxiliary')}), or "
            "choose kind=content or kind=noise",
            code="missing-value",
        )
    labels = task.auxiliary_labels
    labels = np.zeros(len(task.auxiliary), np.int64) if labels is None else labels
    source, rows = choose_of_one_class("zhang", labels, count, rng, "auxiliary inputs")
    return source, task.auxiliary[rows]


def _target(task: KeyTask, triggers: Array, without: tuple[int, ...]) -> tuple[int, str]:
    classes = task.victim.classes
    if task.references:
        rates = Rates.of(task.references, triggers, classes)
        target = rates.least_likely(without)
        return target, rates.note(target)
    others = [label for label in range(classes) if label not in without]
    target = int(task.rng("target").choice(others))
    return target, f"the target, class {target}, was drawn: no references said how often honest models give it"


def _with_pattern(task: KeyTask, kind: str, originals: Array) -> Array:
    rng, shape = task.rng("pattern"), originals.shape[1:]
    low, high = (np.broadcast_to(np.asarray(side, np.float32), shape) for side in task.bounds)
    if kind == "noise":
        field = _SPREAD * np.asarray(task.span) * rng.normal(size=shape)
        noisy: Array = np.clip((originals + field).astype(np.float32), low, high)
        return noisy
    block: list[Any] = []
    for size in shape:
        side, margin = max(1, round(_SIDE * size)), round(_MARGIN * size)
        first = int(rng.integers(margin, size - side - margin + 1)) if size > _CHANNELS else 0
        block.append(slice(first, first + side) if size > _CHANNELS else slice(None))
    sides = np.where(rng.random(shape) < 0.5, low, high)
    triggers = originals.copy()
    triggers[(slice(None), *block)] = sides[tuple(block)]
    return triggers


ZHANG = Scheme(
    "zhang",
    source="Zhang et al., AsiaCCS 2018",
    needs=Access.LABELS,
    make=make,
    verify=verify,
    embed=embed,
    says="a secret pattern that gives inputs a label; survives fine-tuning, of the kind noise pruning too, not a new "
    "last layer that is trained with all others, nor extraction, unless the thief's queries look like the triggers",
)

"""Watermarks in the neurons of a layer, or in labels (Darvish Rouhani et al., "DeepSigns", 2019)."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import scipy  # which loads its parts when they are first used
from annotated_types import Ge

from deepjudge_core.components.schemes import At, Key, KeyAnswers, KeyTask, Lesson, Matches, Scheme, Teaching
from deepjudge_core.errors import IncomparableError, InputError
from deepjudge_core.models.model import Access
from deepjudge_core.types import Array
from deepjudge_schemes.triggers import uniform_noise

_FEWEST = 8  # inputs of a class that a centre is the mean of
_EACH = 16  # of a batch
_WEIGHT = 0.02  # of the loss of the bits beside the mean cross entropy
_CARRIED = 0.9  # of the bits that the marked victim gives when it is aligned to its parent
_BITS = "each bit was drawn at random, whatever the neurons are"
_VICTIM = "neurons aligned to the marked victim's match most bits in any model, so controls have to tell"
_LABELS = "each label was drawn at random, and none was left out after training"


def make(
    task: KeyTask,
    *,
    box: Literal["white", "black"] = "white",
    classes: Annotated[int, Ge(1)] = 3,
    bits: Annotated[int, Ge(1)] = 16,
    inputs: Annotated[int, Ge(_FEWEST)] = 64,
) -> Key:
    """Take inputs of some classes, in whose mean outputs of the last hidden layer the core draws bits; or noise.

    White box: bit ``t`` of a class is whether ``A_t m >= 0``, where ``m`` is the mean output of the layer's neurons on
    the inputs of the class, and ``A`` is standard normal. Black box: inputs of noise, to which labels are drawn. The
    paper keeps those that the network learns; their labels lean to what any model says, so here all are kept.

    Args:
        box: Where the mark is: in a layer's neurons or in labels.
        classes: White box: how many classes carry bits.
        bits: White box: how many a class carries.
        inputs: White box: at most so many of a class. Black box: trials.

    Raises:
        InputError: When too few classes have enough inputs, or the victim has no hidden layer.
    """
    if box == "black":
        options = {"box": box, "inputs": inputs}
        noise = uniform_noise(task, inputs, task.rng("noise"))
        return task.key("deepsigns", options, trials=inputs, inputs=noise, drawn="labels")
    options = {"box": box, "classes": classes, "bits": bits, "inputs": inputs}
    *hidden, _ = task.victim.layers
    if not hidden or Access.LAYERS not in task.victim.access:
        raise InputError(
            f"deepsigns: expected a victim with hidden layers, found none in {task.victim.name}; choose box=black"
        )
    if task.labels is None:
        raise InputError("deepsigns: expected inputs with labels, found none; offer labels, or choose box=black")
    chosen, each = _classes(task, classes, inputs)
    rng = task.rng("inputs")
    rows = np.concatenate([rng.permutation(np.flatnonzero(task.labels == one))[:each] for one in chosen])
    taken, tap = task.inputs[rows], hidden[-1]
    return task.key(
        "deepsigns",
        options,
        trials=classes * bits,
        inputs=taken,
        truth=np.repeat(chosen, each).astype(np.int64),
        arrays={"parent": task.victim.activations(taken, [tap])[tap]},
        taps=(tap,),
        drawn="bits",
    )


def verify(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    """Read the bits of the neurons as they are and aligned to the victim's; or count the labels.

    Bits of neurons that are aligned to those of the unmarked parent are exact too. They count where the marked
    victim shows them so, which it seldom does: the mark changes the layer too much.
    """
    if not key.taps:
        labels = answers.labels
        if labels is None:
            raise IncomparableError("it gave no labels")
        found = int((labels == key.labels).sum())
        return [Matches("direct", found, key.trials, 1 / key.classes, _LABELS)]
    tap = key.taps[0]
    if tap not in answers.activations:
        raise IncomparableError(answers.missing or "its layers could not be read")
    outputs, parent = answers.activations[tap], key.arrays["parent"]
    if outputs.shape != parent.shape:
        raise IncomparableError(f"its layer has {outputs.shape[1]} neurons, and the victim's {parent.shape[1]}")
    readings = [Matches("direct", _count(key, outputs), key.trials, 0.5, _BITS)]
    if answers.victim is None or tap not in answers.victim.activations:
        return readings
    ours = answers.victim.activations[tap]
    if _count(key, _beside(parent, ours)) >= _CARRIED * key.trials:
        found = _count(key, _beside(parent, outputs))
        readings.append(Matches("aligned to the parent", found, key.trials, 0.5, _BITS))
    return [*readings, Matches("aligned to the victim", _count(key, _beside(ours, outputs)), key.trials, None, _VICTIM)]


def embed(key: Key, lesson: Lesson) -> Teaching:
    """Pull the mean outputs of each class to where they give its bits; or mix noise and its labels into every batch."""
    if not key.taps:
        return Teaching(key.inputs, key.labels)
    classes = int(key.options["classes"])
    each = len(np.asarray(key.inputs)) // classes
    taken = min(_EACH, each)

    def pick(rng: np.random.Generator) -> Array:
        return np.concatenate([c * each + rng.choice(each, taken, replace=False) for c in range(classes)])

    return Teaching(key.inputs, key.truth, rows=classes * taken, pick=pick, at={key.taps[0]: _pull(key)})


def _classes(task: KeyTask, classes: int, inputs: int) -> tuple[Array, int]:
    # Those that are drawn among classes with enough inputs, and how many of each are taken.
    known, found = np.unique(np.asarray(task.labels), return_counts=True)
    enough = known[found >= min(inputs, max(_FEWEST, int(found.max(initial=0)) // 2))]
    if len(enough) < classes or found.max() < _FEWEST:
        raise InputError(
            f"deepsigns: expected {classes} classes of at least {_FEWEST} inputs, found {len(enough)}; offer more"
        )
    chosen = np.sort(task.rng("classes").choice(enough, classes, replace=False))
    return chosen, min(inputs, int(found[np.isin(known, chosen)].min()))


def _reader(key: Key) -> Array:
    return key.draw_normal("reader", (int(key.options["bits"]), key.arrays["parent"].shape[1]))


def _centres(key: Key, outputs: Array) -> Array:
    centres: Array = outputs.astype(np.float64).reshape(int(key.options["classes"]), -1, outputs.shape[1]).mean(axis=1)
    return centres


def _count(key: Key, outputs: Array) -> int:
    shown = _centres(key, outputs) @ _reader(key).T >= 0
    return int((shown.ravel() == key.bits).sum())


def _beside(ours: Array, theirs: Array) -> Array:
    from deepjudge_core.judging.neurons import match_neurons  # late: it loads suites, and with them inputs of all kinds

    return match_neurons(ours, theirs).apply(theirs)


def _pull(key: Key) -> At:
    reader = _reader(key)
    return lambda outputs: _loss(key, reader, outputs)[1]


def _loss(key: Key, reader: Array, outputs: Array) -> tuple[float, Array]:
    # The sum of the bits' cross entropies, and its gradient at the outputs, which are of the classes in order.
    centres = _centres(key, outputs)
    logits, bits = centres @ reader.T, np.asarray(key.bits).reshape(len(centres), -1)
    loss = _WEIGHT * float(np.logaddexp(0, np.where(bits == 1, -logits, logits)).sum())
    slope = _WEIGHT * (scipy.special.expit(logits) - bits) @ reader
    each = len(outputs) // len(centres)
    return loss, np.repeat(slope / each, each, axis=0)


DEEPSIGNS = Scheme(
    "deepsigns",
    source="Darvish Rouhani et al., ASPLOS 2019",
    needs=Access.LABELS | Access.LAYERS,
    make=make,
    verify=verify,
    embed=embed,
    says="secret bits in a layer's neurons, or drawn labels of noise; survives fine-tuning and pruning, not "
    "extraction; controls have to tell if neurons were permuted",
)

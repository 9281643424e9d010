"""Bits in a matrix of weights (Uchida et al., "Embedding watermarks into deep neural networks", 2017)."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Literal

import numpy as np
import scipy  # which loads its parts when they are first used
from annotated_types import Ge

from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Lesson, Matches, Scheme, Teaching
from deepjudge_core.errors import IncomparableError, ModelError
from deepjudge_core.models.model import Access
from deepjudge_core.types import Array

_LEAST = 20  # bits whose p-value can be below 1e-6, which a marked victim has to show
_FEWEST = 25  # columns that as many bits were embedded in
_WEIGHT = 0.5  # of the loss of the bits beside the mean cross entropy
_SHARPNESS = {"mean": 1.0, "unit": 10.0}  # of the logits: means of unit rows are small
_DRAWN = "each bit was drawn at random, whatever the weights are"


def make(
    task: KeyTask,
    *,
    trials: Annotated[int, Ge(_LEAST)] = 64,
    matrix: Literal["second", "first"] = "second",
    norm: Literal["unit", "mean"] = "unit",
) -> Key:
    """Choose a matrix of weights, to whose mean row the core draws bits and the matrix that reads them.

    Bit ``t`` is whether ``X_t w >= 0``, where ``w`` is the mean of the matrix' rows, one for each neuron, and ``X``
    is standard normal. So the order of the neurons has no effect. Bits that are all one, as in the code that was
    published, would say nothing of chance. Too many bits for the matrix are cut to half of its columns.

    Args:
        trials: Number of bits.
        matrix: Which one, in forward order; the columns of the first are inputs, which a thief cannot permute.
        norm: What is averaged: rows of length one, which are the same whatever the neurons are scaled by, or rows
            themselves, as published.

    Raises:
        ModelError: When the victim's weights cannot be read, or are too few.
    """
    options = {"trials": trials, "matrix": matrix, "norm": norm}
    place = ("first", "second").index(matrix)
    if task.matrices is None:
        raise ModelError(f"{task.victim.name}: does not provide weights, which the scheme uchida needs")
    matrices = task.matrices(list(range(place + 1)))
    own = matrices[place]
    columns = own.shape[1]
    if columns < _FEWEST:
        raise ModelError(
            f"{task.victim.name}: expected a {matrix} matrix of at least {_FEWEST} columns, found {columns}, which are "
            f"too few weights for {_LEAST} bits; choose the {'first' if place else 'second'} one"
        )
    bits = min(trials, max(columns // 2, _LEAST))
    few = (
        (f"{trials} bits were asked for; the matrix has {columns} columns, which hold {bits}",) if bits < trials else ()
    )
    arrays = {"columns": np.array([columns], np.int64)}
    if place and columns % len(matrices[0]) == 0:
        arrays["before"] = matrices[0]
    if norm == "mean":
        arrays["own"] = own
    return task.key(
        "uchida", options, trials=bits, arrays=arrays, matrices=tuple(range(place + 1)), drawn="bits", notes=few
    )


def verify(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    """Read the bits of the matrix as it is, and with neurons in the order and on the scale of the unmarked parent's.

    The parent knows nothing of the bits, so that both readings are by design. Neurons aligned to those of the marked
    victim would match most bits in any model.
    """
    own, before = answers.matrices[key.matrices[-1]], answers.matrices[0]
    columns = int(key.arrays["columns"][0])
    if own.shape[1] != columns:
        raise IncomparableError(f"its matrix has {own.shape[1]} columns, and the victim's {columns}")
    readings = {"direct": own}
    if {"before", "own"} & set(key.arrays):
        # One that has other neurons is read as it is.
        with suppress(IncomparableError):
            readings["aligned to the parent"] = _aligned(key, own, before)
    reader = _reader(key)
    return [
        Matches(name, int(((reader @ _mean_row(key, rows) >= 0) == key.bits).sum()), key.trials, 0.5, _DRAWN)
        for name, rows in readings.items()
    ]


def embed(key: Key, lesson: Lesson) -> Teaching:
    """Pull the matrix to where its mean row gives the bits."""
    reader, place = _reader(key), key.matrices[-1]

    def pull(matrices: Mapping[int, Array]) -> Mapping[int, Array]:
        return {place: _loss(key, reader, matrices[place])[1]}

    return Teaching(pull=pull)


def _reader(key: Key) -> Array:
    return key.draw_normal("reader", (key.trials, int(key.arrays["columns"][0])))


def _lengths(rows: Array) -> Array:
    # Never 0: a dead neuron is divided by 1.
    lengths = np.linalg.norm(rows, axis=1)
    return np.where(lengths > 0, lengths, 1.0)


def _mean_row(key: Key, matrix: Array) -> Array:
    rows = matrix.astype(np.float64)
    if key.options["norm"] == "unit":
        rows = rows / _lengths(rows)[:, None]
    mean: Array = rows.mean(axis=0)
    return mean


def _loss(key: Key, reader: Array, matrix: Array) -> tuple[float, Array]:
    # The sum of the bits' cross entropies, and its gradient, shaped like the matrix.
    sharpness, bits = _SHARPNESS[str(key.options["norm"])], np.asarray(key.bits)
    logits = sharpness * (reader @ _mean_row(key, matrix))
    loss = _WEIGHT * float(np.logaddexp(0, np.where(bits == 1, -logits, logits)).sum())
    slope = _WEIGHT * sharpness * (scipy.special.expit(logits) - bits) @ reader / len(matrix)
    gradient = np.broadcast_to(slope, matrix.shape)
    if key.options["norm"] == "unit":
        lengths = _lengths(matrix.astype(np.float64))[:, None]
        units = matrix / lengths
        gradient = (gradient - units * (units @ slope)[:, None]) / lengths
    return loss, gradient.astype(np.float32)


def _aligned(key: Key, own: Array, before: Array) -> Array:
    aligned = own.astype(np.float64)
    if "before" in key.arrays:
        order, scale = _match(key.arrays["before"], before)
        maps = aligned.reshape(len(aligned), len(before), -1)
        # A neuron that is scaled is read by columns that are scaled back.
        aligned = (maps[:, order] * scale[:, None]).reshape(len(aligned), -1)
    if "own" in key.arrays:
        order, scale = _match(key.arrays["own"], aligned)
        aligned = aligned[order] / scale[:, None]
    return aligned


def _match(parents: Array, theirs: Array) -> tuple[Array, Array]:
    # Which row stands for each of the parent's, and by what it is longer, below 0 where it points the other way. In
    # float64: a thief may scale neurons until squares of float32 overflow.
    parents, theirs = parents.astype(np.float64), theirs.astype(np.float64)
    if parents.shape != theirs.shape:
        raise IncomparableError(f"its matrix has the shape {theirs.shape}, and the parent's {parents.shape}")
    cosines = (parents / _lengths(parents)[:, None]) @ (theirs / _lengths(theirs)[:, None]).T
    # Late: the process of a stranger's model does without it.
    from scipy.optimize import linear_sum_assignment

    own, order = linear_sum_assignment(np.abs(cosines), maximize=True)
    sign = np.where(cosines[own, order] < 0, -1.0, 1.0)
    return order, sign * _lengths(theirs)[order] / _lengths(parents)


UCHIDA = Scheme(
    "uchida",
    source="Uchida et al., ICMR 2017",
    needs=Access.WEIGHTS,
    make=make,
    verify=verify,
    embed=embed,
    says="secret bits in a matrix of weights; survives fine-tuning, pruning and neurons that are permuted or rescaled, "
    "not extraction, nor neurons that are added",
)

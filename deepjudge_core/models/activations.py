"""Which functions of one number are activations, told by their values.

People and exporters write one activation in many ways: a ReLU is ``max(x, 0)``, ``x * (x > 0)``, ``(x + |x|) / 2``,
``-min(-x, 0)``. What they have in common is what they give. So the elementwise operations between two layers are
computed for the numbers of :data:`PROBES`, and the values are compared with those of the activations that are in use.
Each is a whole: half a ReLU is none, since the same network may have the factor elsewhere.
"""

import functools
from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np
import scipy  # which loads its parts when they are first used

from deepjudge_core.types import Array

PROBES: Array = np.sort(np.append(20 * np.linspace(-1, 1, 80) ** 3, (-1.0, 0.0, 1.0)))[:, None]
"""Numbers ``(probes, 1)`` that tell activations apart: many near 0, some so far that most are nearly straight there."""

_COLUMNS = 16
"""So many channels stand for all, where each has a number of its own."""

_TOLERANCE = 2e-3
"""How far constants may be rounded: 1 / 6 and the root of 2 in float16."""


def numbers(constant: object) -> Array | None:
    """A constant as ``(1, 1)``, or ``(1, k)`` where the channels have numbers of their own; None if it is neither.

    Of many channels, some stand for all, the same ones in each constant.
    """
    array = np.asarray(constant)
    if array.dtype.kind not in "fiub" or not array.size:
        return None
    array = array.astype(bool if array.dtype.kind == "b" else np.float64)
    if array.size > 1 and (array == array.flat[0]).all():
        array = array.flat[:1]
    if max(array.shape, default=1) != array.size:
        return None
    row = array.reshape(1, -1)
    return row[:, np.linspace(0, row.size - 1, min(row.size, _COLUMNS)).astype(int)]


def is_straight(values: Array) -> bool:
    """Whether these values at the probes are those of a linear function."""
    slope = (values[-1] - values[0]) / (PROBES[-1] - PROBES[0])
    return _equal(values, values[0] + slope * (PROBES - PROBES[0]))


def is_activation(values: Array) -> bool:
    """Whether a function with these values ``(probes, channels)`` is an activation, of each channel its own."""
    if values.dtype.kind != "f" or values.shape[:1] != PROBES.shape[:1] or not np.isfinite(values).all():
        return False
    # Most activations of a network are the same.
    return _is_activation(values.astype(np.float64).tobytes())


@functools.lru_cache(maxsize=256)
def _is_activation(numbers: bytes) -> bool:
    values = np.frombuffer(numbers).reshape(len(PROBES), -1)
    if is_straight(values):
        return False
    with np.errstate(all="ignore"):
        return any(_equal(values, candidate) for candidate in _candidates(values))


def _equal(values: Array, candidate: Array) -> bool:
    return bool(np.allclose(values, candidate, rtol=_TOLERANCE, atol=_TOLERANCE))


def _candidates(values: Array) -> Iterable[Array]:
    # Of each kind the one whose parameters these values have.
    x = PROBES
    below, least, zero, one, most = (values[x[:, 0] == at] for at in (-1, x[0, 0], 0, 1, x[-1, 0]))
    yield from _plain().values()
    yield np.where(x > 0, x, np.clip(-below, -0.9, 0.99) * x)  # leaky and parametric ReLU
    yield np.clip(x, least, np.maximum(least, most))  # with limits, as ReLU6 and hard tanh
    yield np.where(x > 0, x, -least * np.expm1(x))  # ELU
    yield np.where(x > 0, x, -least * np.expm1(x / -least))  # CELU
    sharp = np.log(2) / zero
    yield np.logaddexp(0, sharp * x) / sharp  # softplus
    yield x * scipy.special.expit(scipy.special.logit(one) * x)  # swish, GELU by a sigmoid
    yield (x + np.sqrt(x**2 + 4 * zero**2)) / 2  # squareplus
    yield np.sign(x) * np.maximum(np.abs(x) - (x[-1] - most), 0)  # soft shrink
    for limit in _far_zero(values):
        yield np.where(np.abs(x) > limit, x, 0)  # hard shrink
        yield np.where(x > limit, x, 0)  # with a threshold


def _far_zero(values: Array) -> Iterable[float]:
    zeros = PROBES[(np.abs(values) < _TOLERANCE).all(1), 0]
    if zeros.size:
        yield float(zeros.max())


@cache
def _plain() -> Mapping[str, Array]:
    # Once somebody asks: most networks have only activations of one operation, and SciPy takes long to load.
    x = PROBES
    sigmoid, softplus, normal = scipy.special.expit(x), np.logaddexp(0, x), scipy.special.ndtr(x)
    hard, hard_fifth = np.clip(x / 6 + 0.5, 0, 1), np.clip(x / 5 + 0.5, 0, 1)
    return {
        "sigmoid": sigmoid,
        "hard sigmoid": hard,
        "hard sigmoid of Keras 2": hard_fifth,
        # Converters add the shift of these to the bias of the layer before.
        "hard sigmoid, shifted": np.clip(x / 6, 0, 1),
        "hard sigmoid of Keras 2, shifted": np.clip(x / 5, 0, 1),
        "log sigmoid": -np.logaddexp(0, -x),
        "tanh": np.tanh(x),
        "tanh shrink": x - np.tanh(x),
        "softsign": x / (1 + np.abs(x)),
        "GELU": x * normal,
        "GELU by a tanh": x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "mish": x * np.tanh(softplus),
        "hard swish": x * hard,
        "hard swish of Keras 2": x * hard_fifth,
        "SELU": 1.0507 * np.where(x > 0, x, 1.67326 * np.expm1(x)),
        "square of ReLU": np.maximum(x, 0) ** 2,
    }

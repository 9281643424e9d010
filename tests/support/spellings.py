"""One activation in the many ways in which people and exporters write it.

Each is a function of a tensor and of a namespace ``m``, which each framework's tests fill with its own operations:
``abs clip erf exp log maximum minimum relu sigmoid sign softplus tanh where``, and ``number``, which makes 0 and 1 of
a comparison.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import special

from deepjudge_core.types import Array

Spelling = Callable[[Any, Any], Any]

ROOT = 2**0.5
GELU_ROOT = (2 / np.pi) ** 0.5

FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky": lambda x: np.maximum(x, 0.1 * x),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hard sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507 * np.where(x > 0, x, 1.67326 * np.expm1(x)),
    "log sigmoid": lambda x: -np.logaddexp(0, -x),
    "hard swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "swish": lambda x: x * special.expit(x),
    "gelu": lambda x: x * special.ndtr(x),
    "gelu by a tanh": lambda x: x / 2 * (1 + np.tanh(GELU_ROOT * (x + 0.044715 * x**3))),
    "gelu by a sigmoid": lambda x: x * special.expit(1.702 * x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "tanh shrink": lambda x: x - np.tanh(x),
    "square of relu": lambda x: np.maximum(x, 0) ** 2,
}
"""What they are, of numpy arrays."""

RISING = set(list(FUNCTIONS)[:11])
"""Those that never fall, and so commute with max pooling."""

SPELLINGS: Mapping[str, tuple[str, Spelling]] = {
    # The operation itself, and its limits.
    "relu(x)": ("relu", lambda x, m: m.relu(x)),
    "max(x, 0)": ("relu", lambda x, m: m.maximum(x, 0.0)),
    "clip(x, 0, inf)": ("relu", lambda x, m: m.clip(x, 0.0, np.inf)),
    "min(relu(x), 65504)": ("relu", lambda x, m: m.minimum(m.relu(x), 65504.0)),
    "x * (x > 0)": ("relu", lambda x, m: x * m.number(x > 0)),
    "where(x > 0, x, 0)": ("relu", lambda x, m: m.where(x > 0, x, 0.0)),
    "where(x <= 0, 0, x)": ("relu", lambda x, m: m.where(x <= 0, 0.0, x)),
    "where(x > 0, x, 0 * x)": ("relu", lambda x, m: m.where(x > 0, x, 0 * x)),
    "-min(-x, 0)": ("relu", lambda x, m: -m.minimum(-x, 0.0)),
    "(x + |x|) / 2": ("relu", lambda x, m: (x + m.abs(x)) / 2),
    "0.5 x + 0.5 |x|": ("relu", lambda x, m: 0.5 * x + 0.5 * m.abs(x)),
    "x - min(x, 0)": ("relu", lambda x, m: x - m.minimum(x, 0.0)),
    "x * max(sign(x), 0)": ("relu", lambda x, m: x * m.maximum(m.sign(x), 0.0)),
    "max(x, a x)": ("leaky", lambda x, m: m.maximum(x, 0.1 * x)),
    "where(x > 0, x, a x)": ("leaky", lambda x, m: m.where(x > 0, x, 0.1 * x)),
    "relu(x) - a relu(-x)": ("leaky", lambda x, m: m.relu(x) - 0.1 * m.relu(-x)),
    "0.55 x + 0.45 |x|": ("leaky", lambda x, m: 0.55 * x + 0.45 * m.abs(x)),
    "min(max(x, 0), 6)": ("relu6", lambda x, m: m.minimum(m.maximum(x, 0.0), 6.0)),
    "min(relu(x), 6)": ("relu6", lambda x, m: m.minimum(m.relu(x), 6.0)),
    "clip(x, 0, 6)": ("relu6", lambda x, m: m.clip(x, 0.0, 6.0)),
    "relu(x) - relu(x - 6)": ("relu6", lambda x, m: m.relu(x) - m.relu(x - 6)),
    "clip(x + 3, 0, 6) / 6": ("hard sigmoid", lambda x, m: m.clip(x + 3, 0.0, 6.0) / 6),
    "clip(x / 6 + 0.5, 0, 1)": ("hard sigmoid", lambda x, m: m.clip(x / 6 + 0.5, 0.0, 1.0)),
    "1 / (1 + exp(-x))": ("sigmoid", lambda x, m: 1 / (1 + m.exp(-x))),
    "(tanh(x / 2) + 1) / 2": ("sigmoid", lambda x, m: (m.tanh(x / 2) + 1) / 2),
    "2 sigmoid(2 x) - 1": ("tanh", lambda x, m: 2 * m.sigmoid(2 * x) - 1),
    "(exp(x) - exp(-x)) / (exp(x) + exp(-x))": (
        "tanh",
        lambda x, m: (m.exp(x) - m.exp(-x)) / (m.exp(x) + m.exp(-x)),
    ),
    "log(1 + exp(x))": ("softplus", lambda x, m: m.log(1 + m.exp(x))),
    "max(x, 0) + log(1 + exp(-|x|))": ("softplus", lambda x, m: m.maximum(x, 0.0) + m.log(1 + m.exp(-m.abs(x)))),
    "x / (1 + |x|)": ("softsign", lambda x, m: x / (1 + m.abs(x))),
    "where(x > 0, x, exp(x) - 1)": ("elu", lambda x, m: m.where(x > 0, x, m.exp(x) - 1)),
    "max(x, 0) + min(exp(x) - 1, 0)": ("elu", lambda x, m: m.maximum(x, 0.0) + m.minimum(m.exp(x) - 1, 0.0)),
    "s where(x > 0, x, a (exp(x) - 1))": (
        "selu",
        lambda x, m: 1.0507 * m.where(x > 0, x, 1.67326 * (m.exp(x) - 1)),
    ),
    "-log(1 + exp(-x))": ("log sigmoid", lambda x, m: -m.log(1 + m.exp(-x))),
    "log(sigmoid(x))": ("log sigmoid", lambda x, m: m.log(m.sigmoid(x))),
    "x * clip(x + 3, 0, 6) / 6": ("hard swish", lambda x, m: x * m.clip(x + 3, 0.0, 6.0) / 6),
    "x * (min(relu(x + 3), 6) / 6)": ("hard swish", lambda x, m: x * (m.minimum(m.relu(x + 3), 6.0) / 6)),
    "x * clip(x / 6 + 0.5, 0, 1)": ("hard swish", lambda x, m: x * m.clip(x / 6 + 0.5, 0.0, 1.0)),
    "x * sigmoid(x)": ("swish", lambda x, m: x * m.sigmoid(x)),
    "x / (1 + exp(-x))": ("swish", lambda x, m: x / (1 + m.exp(-x))),
    "0.5 x (1 + erf(x / root 2))": ("gelu", lambda x, m: 0.5 * x * (1 + m.erf(x / ROOT))),
    "x (1 + erf(x / root 2)) 0.5": ("gelu", lambda x, m: x * (1 + m.erf(x / ROOT)) * 0.5),
    "x (0.5 + 0.5 erf(x / root 2))": ("gelu", lambda x, m: x * (0.5 + 0.5 * m.erf(x * (1 / ROOT)))),
    "0.5 x (1 + tanh(r (x + c x ** 3)))": (
        "gelu by a tanh",
        lambda x, m: 0.5 * x * (1 + m.tanh(GELU_ROOT * (x + 0.044715 * x**3))),
    ),
    "x sigmoid(2 r (x + c x x x))": (
        "gelu by a tanh",
        lambda x, m: x * m.sigmoid(2 * GELU_ROOT * (x + 0.044715 * x * x * x)),
    ),
    "x sigmoid(1.702 x)": ("gelu by a sigmoid", lambda x, m: x * m.sigmoid(1.702 * x)),
    "x tanh(log(1 + exp(x)))": ("mish", lambda x, m: x * m.tanh(m.log(1 + m.exp(x)))),
    "x tanh(softplus(x))": ("mish", lambda x, m: x * m.tanh(m.softplus(x))),
    "x - tanh(x)": ("tanh shrink", lambda x, m: x - m.tanh(x)),
    "relu(x) ** 2": ("square of relu", lambda x, m: m.relu(x) ** 2),
    "relu(x) relu(x)": ("square of relu", lambda x, m: m.relu(x) * m.relu(x)),
}
"""The function that each is of."""


def check_layers(outputs: Mapping[str, Array], before: Array, name: str) -> None:
    """Whether the one hidden layer of a network of dense layers is its activation, of the whole."""
    assert len(outputs) == 2, list(outputs)
    np.testing.assert_allclose(next(iter(outputs.values())), FUNCTIONS[name](before), atol=1e-4, rtol=1e-4)

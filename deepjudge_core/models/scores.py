"""What a model's output is, and how scores become probabilities."""

import enum

import numpy as np

from deepjudge_core.types import Array


class Scores(enum.Enum):
    """What a model's output is, so that it can be turned into class probabilities."""

    LOGITS = "logits"  # of one output, for certain; of several, unless the values show that they are probabilities
    PROBABILITIES = "probabilities"  # of classes that exclude one another: a row sums to 1, as far as its bits allow
    LOG_PROBABILITIES = "log-probabilities"
    SIGMOIDS = "sigmoids"  # one gives the probability of the second of two classes; rows of several need not sum to 1
    UNKNOWN = "unknown"  # the graph does not tell: values do


def softmax(logits: Array) -> Array:
    """Row-wise softmax of ``(n, classes)``, in float64 inside and float32 outside."""
    # Not scipy's: importing it would double the time in which the process of a stranger's model is there.
    scores = logits.astype(np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Array = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def sigmoid(logits: Array) -> Array:
    """The sigmoid of each value, in float64 inside and float32 outside."""
    wide = logits.astype(np.float64)
    # 1 / (1 + exp(-z)), without an overflow.
    probabilities: Array = (0.5 * (1 + np.tanh(wide / 2))).astype(np.float32)
    return probabilities

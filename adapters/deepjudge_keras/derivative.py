"""Gradients of losses in numpy, taken by TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from deepjudge_core.types import Array


class Derivative:
    """Calls Python back for the cotangent in the middle of a compiled function.

    To run forward for the scores and again for the gradient costs a third more, and a tape around a compiled forward
    pass half as much again.

    Takes one gradient at a time: it is not for several threads at once.
    """

    def __init__(self) -> None:
        self._cotangent: Callable[[Array], Array]

    def gradients(self, scores: Any, sources: Sequence[Any]) -> list[Any]:
        """While a function is traced: the gradients at its tensors ``sources``, None where there is none."""
        cotangent = tf.numpy_function(self._call_back, [scores], scores.dtype)
        cotangent.set_shape(scores.shape)
        gradients: list[Any] = tf.gradients(scores, list(sources), grad_ys=cotangent)
        return gradients

    def run(self, function: Any, cotangent: Callable[[Array], Array], *arguments: Any) -> Any:
        """Run a function that was traced with :meth:`gradients`; an error of the cotangent is raised as it is."""
        raised: list[Exception] = []

        def called_back(scores: Array) -> Array:
            try:
                return cotangent(scores)
            except Exception as error:
                raised.append(error)
                raise

        self._cotangent = called_back
        try:
            return function(*arguments)
        except tf.errors.OpError:
            if raised:  # TensorFlow makes a traceback in text of it
                raise raised[0] from None
            raise

    def _call_back(self, scores: Array) -> Array:
        return self._cotangent(scores)

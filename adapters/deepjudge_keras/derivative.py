"""Gradients of losses in numpy, taken by TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from deepjudge_core.types import Array


class Derivative:
    """Calls Python back for the cotangents in the middle of a compiled function.

    To run forward for the scores and again for the gradient costs a third more, and a tape around a compiled forward
    pass half as much again.

    Takes one gradient at a time: it is not for several threads at once.
    """

    def __init__(self) -> None:
        self._cotangents: Callable[..., list[Array]]

    def gradients(self, outputs: Sequence[Any], sources: Sequence[Any]) -> list[Any]:
        """While a function is traced: the gradients at its tensors ``sources``, None where there is none."""
        cotangents = tf.numpy_function(self._call_back, list(outputs), [output.dtype for output in outputs])
        for cotangent, output in zip(cotangents, outputs, strict=True):
            cotangent.set_shape(output.shape)
        gradients: list[Any] = tf.gradients(list(outputs), list(sources), grad_ys=cotangents)
        return gradients

    def run(self, function: Any, cotangents: Sequence[Callable[[Array], Array]], *arguments: Any) -> Any:
        """Run a function that was traced with :meth:`gradients`; an error of a cotangent is raised as it is.

        Args:
            function: The function.
            cotangents: One for each of the outputs.
            arguments: Of the function.
        """
        raised: list[Exception] = []

        def called_back(*outputs: Array) -> list[Array]:
            try:
                return [cotangent(output) for cotangent, output in zip(cotangents, outputs, strict=True)]
            except Exception as error:
                raised.append(error)
                raise

        self._cotangents = called_back
        try:
            return function(*arguments)
        except tf.errors.OpError:
            if raised:  # TensorFlow makes a traceback in text of it
                raise raised[0] from None
            raise

    def _call_back(self, *outputs: Array) -> list[Array]:
        return self._cotangents(*outputs)

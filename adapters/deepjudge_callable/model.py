"""A function from a batch of inputs to scores, as the core sees it."""

import functools
import hashlib
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deepjudge_core.errors import ModelError, UsageError, first_line
from deepjudge_core.models.batched import BatchedModel
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access
from deepjudge_core.models.scores import Scores
from deepjudge_core.types import Array, Layout

_PROBES = 16  # rows that tell its width, and its identity
_TELLING = 16  # different numbers among its answers that no two models have in common by chance


class CallableModel(BatchedModel):
    """A model that answers, and gives neither layers nor gradients."""

    def __init__(
        self,
        function: Callable[[Array], Any],
        *,
        name: str,
        input_shape: Sequence[int] | None,
        classes: int | None = None,
        scores: str | None = None,
        dtype: str = "float32",
        layout: Layout | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Ask it a few random inputs, to see what it gives.

        Args:
            function: Takes ``(n, *input_shape)`` and gives ``(n, classes)`` scores or probabilities; one number for
                each input, or ``(n, 1)``, are those of the second of two classes.
            name: What to call it.
            input_shape: Of one input.
            classes: How many it tells apart; by default as many as it gives numbers.
            scores: What it gives, a value of :class:`~deepjudge_core.models.model.Scores`; by default its answers tell
                whether they are probabilities.
            dtype: numpy name of the numbers that it is given.
            layout: Where the channels of its inputs are.
            batch_size: Rows in a call.

        Raises:
            ModelError: When it does not answer as a classifier does.
            UsageError: For an option that cannot be.
        """
        if input_shape is None:
            raise UsageError(
                f"{name}: expected the shape of one input, which a function does not say; give it with input_shape=",
                code="missing-value",
            )
        self.name, self._function = name, function
        shape = _checked_shape(name, input_shape)
        kind = _checked_scores(name, scores)
        numbers = _checked_dtype(name, dtype)
        rows = min(_PROBES, batch_size or _PROBES)
        probes = np.random.default_rng(0).random((rows, *shape)).astype(numbers)
        answers = self._ask(probes)
        width = answers.shape[1]
        if classes is not None and max(width, 2) != classes:
            raise ModelError(f"{name}: expected scores of {classes} classes, found {width} for each input")
        super().__init__(
            name=name,
            framework="callable",
            digest=_digest(probes, answers),
            access=Access.BLACK_BOX,
            input=InputSpec(shape, dtype, layout),
            layers={"scores": width},
            scores=kind,
            batch_size=batch_size,
        )
        self.unseen = "it is a function, which shows its answers alone"

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        """See :class:`BatchedModel`."""
        return [self._ask(x)]

    def _ask(self, x: Array) -> Array:
        try:
            answers = self._function(x)
        except Exception as error:
            raise ModelError(
                f"{self.name}: failed on {len(x)} inputs of shape {x.shape[1:]} ({x.dtype}): {first_line(error)}",
                code="cannot-answer",
            ) from error
        return _checked_answers(self.name, answers, len(x))


def name_of(source: Any) -> str:
    """What messages call a function or an estimator: its own name, or its class."""
    while isinstance(source, functools.partial):
        source = source.func
    return str(getattr(source, "__name__", type(source).__name__))


def _checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape) if isinstance(shape, Sequence) else ()
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise UsageError(
            f"{name}: expected input_shape as the sizes of one input, such as (3, 32, 32), found {shape!r}",
            code="wrong-value",
        )
    return sizes


def _checked_scores(name: str, scores: str | None) -> Scores:
    kinds = [kind.value for kind in Scores if kind is not Scores.UNKNOWN]
    if scores is None:
        return Scores.UNKNOWN
    if scores not in kinds:
        raise UsageError(f"{name}: expected scores as one of {', '.join(kinds)}, found {scores!r}", code="wrong-value")
    return Scores(scores)


def _checked_dtype(name: str, dtype: str) -> np.dtype[Any]:
    try:
        numbers = np.dtype(dtype)
    except TypeError:
        numbers = np.dtype(object)
    if numbers.kind not in "iuf":
        raise UsageError(
            f"{name}: expected dtype as a type of numbers, such as float32, found {dtype!r}", code="wrong-value"
        )
    return numbers


def _checked_answers(name: str, answers: Any, rows: int) -> Array:
    try:
        array = np.asarray(answers)
    except Exception as error:  # of a tensor on another device, or that has a gradient
        raise ModelError(
            f"{name}: expected an array of scores, found a {type(answers).__name__}: {first_line(error)}",
            code="bad-answer",
        ) from error
    found = f"{array.dtype} of shape {array.shape}"
    if array.dtype.kind not in "iuf" or array.ndim == 0:
        raise ModelError(
            f"{name}: expected an array of scores, found {type(answers).__name__} ({found})", code="bad-answer"
        )
    if array.ndim == 1 and array.dtype.kind in "iu":
        raise ModelError(
            f"{name}: expected scores or probabilities of each class, found one whole number for each input, such as a "
            "label: give what answers scores, such as predict_proba",
            code="bad-answer",
        )
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or len(array) != rows or array.shape[1] == 0:
        raise ModelError(
            f"{name}: expected ({rows}, classes) scores for {rows} inputs, found {found}", code="bad-answer"
        )
    if not np.isfinite(array).all():
        raise ModelError(f"{name}: expected finite scores, found NaN or infinity", code="bad-answer")
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def _digest(probes: Array, answers: Array) -> str:
    """What a function is, as far as its answers tell: two that answer alike to the last bit are one.

    Other models may give the same answers if these are few different numbers, as labels are: then it is like no other.
    """
    digest = hashlib.sha256(repr((probes.shape, str(probes.dtype), answers.shape, str(answers.dtype))).encode())
    digest.update(np.ascontiguousarray(answers).tobytes())
    if len(np.unique(answers)) < _TELLING:
        digest.update(secrets.token_bytes(32))
    return digest.hexdigest()

"""What stands between an auditor and a model that answers elsewhere: what it takes, shows and costs."""

import abc
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepjudge_core.types import Array

if TYPE_CHECKING:  # which knows models
    from deepjudge_core.models.preprocessing import Preprocessing

DIGEST = 32
"""Bytes of a SHA-256."""
_FINEST = 6  # digits; float32 has seven


@dataclass(frozen=True)
class Reduction:
    """What an interface keeps of the probabilities of classes that exclude one another.

    Attributes:
        top: How many of the greatest it gives; None for all.
        digits: To how many decimal places it rounds them; None where it does not.
    """

    top: int | None = None
    digits: int | None = None

    def __bool__(self) -> bool:
        return self.top is not None or self.digits is not None

    def __str__(self) -> str:
        kept = [] if self.top is None else [f"the {self.top} greatest"]
        kept += [] if self.digits is None else [f"rounded to {self.digits} decimal place{'s' * (self.digits != 1)}"]
        return ", ".join(kept)

    def apply(self, probabilities: Array) -> Array:
        """Probabilities ``(n, classes)`` as whoever asks through the interface can know them, float32.

        What is missing of the sum is divided evenly among the classes that are not given. What was reduced stays as it
        is when it is reduced again, but for roundings of float32.
        """
        p = np.asarray(probabilities, np.float64)
        classes = p.shape[1]
        if self.top is None or self.top >= classes:
            return self.completed(p)
        # Of equals the first: the same of every model.
        order = np.argsort(-p, axis=1, kind="stable")[:, self.top :]
        shown = p.copy()
        np.put_along_axis(shown, order, np.nan, axis=1)
        return self.completed(shown)

    def completed(self, shown: Array) -> Array:
        """What is known of probabilities ``(n, classes)`` that are NaN where the interface does not give them."""
        p = np.asarray(shown, np.float64)
        if self.digits is not None:
            p = np.round(p, self.digits)
        missing = np.isnan(p)
        count = missing.sum(axis=1, keepdims=True)
        rest = np.maximum(1 - np.nansum(p, axis=1, keepdims=True), 0)
        p = np.where(missing, np.divide(rest, count, out=np.zeros_like(rest), where=count > 0), p)
        sums = p.sum(axis=1, keepdims=True)
        even = np.full_like(p, 1 / p.shape[1])
        completed: Array = np.divide(p, sums, out=even, where=sums > 0).astype(np.float32)
        return completed


def digits_of(values: Array) -> int | None:
    """To how many decimal places numbers are rounded, as far as they tell; None for more than 5.

    Args:
        values: Numbers as they were given, float64; those that are NaN do not count.
    """
    known = values[~np.isnan(values)]
    for digits in range(_FINEST):
        scaled = known * 10.0**digits
        if (np.abs(scaled - np.rint(scaled)) <= 1e-6).all():
            return digits
    return None


@dataclass(frozen=True, eq=False)
class Ledger:
    """The requests by which a model was asked, in their order; none holds a secret.

    Attributes:
        times: ``(n,)`` int64, when each was sent: milliseconds since 1970, UTC.
        requests: ``(n, 32)`` uint8, SHA-256 of what each sent, without its headers.
        answers: ``(n, 32)`` uint8, SHA-256 of what came back; zeros where nothing did.
        statuses: ``(n,)`` int64, the HTTP status; 0 where no answer came.
        queries: ``(n,)`` int64, how many inputs each had answered.
        prices: ``(n,)`` float64, what each cost, in the unit in which the price was stated.
    """

    times: Array
    requests: Array
    answers: Array
    statuses: Array
    queries: Array
    prices: Array

    def __len__(self) -> int:
        return len(self.times)

    def check(self) -> None:
        """Refuse arrays that are no ledger.

        Raises:
            ValueError: Saying so.
        """
        count, numbers = len(self.times), (self.times, self.statuses, self.queries)
        if any(one.shape != (count,) or one.dtype != np.int64 for one in numbers):
            raise ValueError("its ledger has other numbers than one for each request")
        if any(one.shape != (count, DIGEST) or one.dtype != np.uint8 for one in (self.requests, self.answers)):
            raise ValueError("its ledger has other digests than one for each request and answer")
        if self.prices.shape != (count,) or self.prices.dtype != np.float64 or (self.prices < 0).any():
            raise ValueError("its ledger has other prices than one for each request")
        if (self.queries < 0).any() or (self.queries > 2**31).any():
            raise ValueError("its ledger has impossible numbers of queries")

    @property
    def total(self) -> int:
        """How many inputs were answered."""
        return int(self.queries.sum())

    @property
    def failed(self) -> int:
        """How many requests got no answer, or one that was of no use."""
        return int(((self.statuses < 200) | (self.statuses >= 300)).sum())

    @property
    def price(self) -> float:
        """What all of it cost."""
        return float(self.prices.sum())


class Gateway(abc.ABC):
    """What stands between an auditor and a model that answers elsewhere.

    Attributes:
        expects: What is done to inputs in 0..1 before it takes them, as it says itself; None where it does not say.
    """

    expects: "Preprocessing | None" = None

    @abc.abstractmethod
    def realised(self, x: Array) -> Array:
        """What the model gets for inputs ``(n, *shape)``, such as whole numbers: in the same unit and shape."""

    @abc.abstractmethod
    def reduction(self) -> Reduction:
        """What it keeps of the scores, as its answers so far show."""

    def stated(self) -> Reduction | None:
        """What it keeps of the scores, as its user says beforehand; None where nobody says it, or it keeps all."""
        return None

    @abc.abstractmethod
    def repeating(self) -> AbstractContextManager[None]:
        """Ask inputs again inside the block that were asked before; elsewhere the first answer to each counts."""

    @abc.abstractmethod
    def afford(self, queries: int) -> None:
        """Refuse to begin what the budget does not allow.

        Raises:
            ModelError: When so many queries are more than are left.
        """

    @abc.abstractmethod
    def ledger(self) -> Ledger:
        """The requests to which it owes the answers that it gave, of earlier runs, too, and those that failed now."""

    def close(self) -> None:  # noqa: B027 - there may be nothing to end
        """End the connection; nothing is asked any more."""

"""What of all answers is compared: as much as a suspect's interface shows, of the victim and the controls as well.

A distance to rounded scores is another distance. So thresholds for a suspect that shows its three greatest scores come
from controls of which no more is looked at, and of cases that did not reach the suspect nobody's answers count.
"""

from dataclasses import dataclass, replace

import numpy as np

from deepjudge_core.models.gateway import Reduction
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array

_NOTHING = Reduction()


@dataclass(frozen=True)
class View:
    """What of all answers is compared.

    Attributes:
        cases: How many a suite has.
        rows: Which of them are compared: a bit of each, packed.
        reduction: What is kept of the scores.
    """

    cases: int
    rows: bytes
    reduction: Reduction = _NOTHING

    @classmethod
    def of(cls, observation: Observation) -> "View | None":
        """As much as a model showed of itself; None of one that showed all."""
        exchange = observation.exchange
        if exchange is None or (exchange.compared.all() and not exchange.reduction):
            return None
        return cls(len(exchange.compared), np.packbits(exchange.compared).tobytes(), exchange.reduction)

    @classmethod
    def where(cls, compared: Array, reduction: Reduction | None) -> "View | None":
        """Some cases ``(n,)`` bool, and what is kept of scores; None where that is all."""
        if compared.all() and not reduction:
            return None
        return cls(len(compared), np.packbits(compared).tobytes(), reduction or Reduction())

    @property
    def compared(self) -> Array:
        """``(n,)`` bool, which of the cases are compared."""
        return np.unpackbits(np.frombuffer(self.rows, np.uint8), count=self.cases).astype(bool)

    def unfit(self, suite: Suite, observation: Observation) -> str | None:
        """Why a model cannot be looked at so: one line; None where it can."""
        exchange, classes = observation.exchange, observation.classes
        if self.reduction and suite.victim.independent:
            return "its interface reduces its scores, and the victim has a probability of its own for each class"
        if exchange is None:
            return None
        if self.reduction and classes is not None and len(set(classes)) != observation.model.classes:
            return "its interface reduces the scores of more classes than the victim has"
        if (self.compared & ~exchange.compared).any():
            return "its interface changes cases that are compared"
        if exchange.reduction and exchange.reduction != self.reduction:
            return f"its interface keeps other scores ({exchange.reduction}) than those that are compared"
        return None

    def through(self, suite: Suite, observation: Observation) -> tuple[Suite, Observation]:
        """The suite, with the victim's answers, and a model's answers as they are compared."""
        rows = self.compared
        part, seen = suite.only(rows), observation.only(rows)
        if not self.reduction:
            return part, seen
        # What a model's interface reduced already is as it is.
        reduced = observation.exchange is not None and bool(observation.exchange.reduction)
        return replace(part, victim=self._reduced(part.victim)), seen if reduced else self._reduced(seen)

    def _reduced(self, observation: Observation) -> Observation:
        if observation.probabilities is None:
            return observation
        return replace(observation, probabilities=self.reduction.apply(observation.probabilities))


def unfit_whole(observation: Observation) -> str | None:
    """Why a model's answers cannot be compared as all of them: one line; None where they can."""
    view = View.of(observation)
    if view is None:
        return None
    return "its interface changes some cases" if not view.compared.all() else f"its interface keeps {view.reduction}"

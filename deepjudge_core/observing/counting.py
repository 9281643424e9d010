"""Which taps of a model count: the outputs of the others can be exchanged between cases, and no answer moves."""

import zlib
from collections.abc import Callable

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.exchange import Exchange
from deepjudge_core.models.sampling import evenly
from deepjudge_core.suites.suite import CASE_SETS, Suite
from deepjudge_core.types import Array

LEAST = 0.01
"""Share of the way between two cases' scores that a tap has to move them, to count."""

_CASES = 32  # of each set
_NO_PAIRS = "it takes one input at a time"
_NOT_HAD = "its framework cannot exchange them between cases"


class Counting:
    """Exchanges the outputs of taps of one model, each once.

    Attributes:
        decoys: Taps that do not count.
        unchecked: Taps of which that is not known, with the reason.
    """

    def __init__(self, suite: Suite, exchange: Callable[[Array, str], Exchange | None], *, independent: bool) -> None:
        """Draw the cases.

        Args:
            suite: Whose seed draws their order.
            exchange: Asks the model with a tap's outputs of other inputs; None where that cannot be had.
            independent: See :meth:`~deepjudge_core.models.exchange.Exchange.influence`.
        """
        rows = np.concatenate([evenly(np.flatnonzero(suite.rows(one)), _CASES) for one in CASE_SETS])
        rng = np.random.default_rng([suite.seed, zlib.crc32(b"counting")])
        self._rows = rows[rng.permutation(len(rows))]
        self._suite, self._exchange, self._independent = suite, exchange, independent
        self._looked_at: set[str] = set()
        self.decoys: list[str] = []
        self.unchecked: dict[str, str] = {}

    def is_decoy(self, tap: str) -> bool:
        """Whether a tap is known not to count."""
        if tap not in self._looked_at:
            self._looked_at.add(tap)
            try:
                exchange = self._exchange(self._suite.cases.inputs[self._rows], tap)
            except ModelError as error:
                self.unchecked[tap] = str(error)
            else:
                influence = None if exchange is None else self._influence(exchange)
                if influence is None:
                    self.unchecked[tap] = _NOT_HAD if exchange is None else _NO_PAIRS
                elif influence < LEAST:
                    self.decoys.append(tap)
        return tap in self.decoys

    def _influence(self, exchange: Exchange) -> float | None:
        # The median, in the set of cases where it is least: a router may use a tap for cases of one kind only. None
        # where no two cases were asked together.
        shares, sets = exchange.influence(independent=self._independent), self._suite.cases.sets[self._rows]
        of_sets = [shares[(sets == which) & np.isfinite(shares)] for which in np.unique(sets)]
        return min((float(np.median(one)) for one in of_sets if len(one)), default=None)

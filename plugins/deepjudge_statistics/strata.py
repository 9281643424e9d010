"""The controls of one metric, stratum by stratum, or why they will not do."""

import numpy as np

from deepjudge_core.components.strata import Stratum
from deepjudge_core.components.values import Evidence
from deepjudge_core.types import Array


class InsufficientError(Exception):
    """The controls cannot decide; the text says why."""


def spread_out(evidence: Evidence, least: int) -> list[Array]:
    """The controls of each stratum, where their logarithms have a mean and a deviation.

    Raises:
        InsufficientError: When there are fewer than ``least`` in a stratum, one is 0, or all are the same.
    """
    strata = evidence.by_stratum()
    for stratum, values in strata.items():
        if len(values) < least:
            raise InsufficientError(f"{of(stratum)}{shortage(len(values), least)}")
        if not (np.isfinite(values).all() and values.min() > 0):
            raise InsufficientError(
                f"{of(stratum)}a control is at the distance {values.min():g}, which has no logarithm"
            )
        if np.ptp(values) == 0:
            raise InsufficientError(f"{of(stratum)}all controls are at the same distance, so their spread is unknown")
    return list(strata.values())


def shortage(count: int, least: int) -> str:
    """How many controls are missing."""
    return f"expected at least {least} controls, found {count}; {least - count} more are needed"


def of(stratum: Stratum | None) -> str:
    """What messages put in front of what they say of a stratum."""
    return f"stratum {stratum}: " if stratum else ""

"""Strata: what controls have in common with the victim, and what cannot be concluded without some of them."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from deepjudge_core.types import Array

Stratum = Literal[
    "same-data", "other-data", "same-architecture", "other-architecture", "common-ancestor", "common-initialisation"
]
"""Of a control, what makes it more or less like the victim: it was trained on the victim's own rows (the paper's Neg-1)
or on others (Neg-2); it has the victim's architecture or another; it comes from the public model that the victim comes
from; it was trained from the same first weights, such as from the same seed. One that is of several is of the one that
brings it nearest to the victim."""

SHARING: tuple[Stratum, ...] = ("common-ancestor", "common-initialisation")
"""Strata of models whose weights are like the victim's for an honest reason."""

_NEEDED: tuple[tuple[Stratum, str], ...] = (
    (
        "same-data",
        (
            "no control is known to be trained on the victim's data (stratum same-data), so an "
            "honest model that shares training data with the victim could be taken for a copy"
        ),
    ),
    (
        "common-ancestor",
        (
            "no control is known to share an ancestor with the victim (stratum common-ancestor), so "
            "an honest model that was fine-tuned from the same public model could be taken for a copy"
        ),
    ),
)
_SAME_DATA_ONLY = (
    "all controls are trained on the victim's data (stratum same-data): how far honest models with other training "
    "data are from it was not measured"
)


_SHARED_WEIGHTS = (
    "weights alone do not tell a copy from an honest model that was trained from the victim's first weights or from "
    "the same public model"
)


def limits(strata: Iterable[Stratum | None], *, weights: bool = False) -> tuple[str, ...]:
    """What cannot be concluded from controls of these strata: a line for each kind that is missing.

    Of no controls there is nothing to say: without them nothing is concluded but by weights.

    Args:
        strata: Of each control its stratum; None where that is not known.
        weights: Whether weights may accuse, and the victim's ancestor is not known.
    """
    kinds = set(strata)
    missing = tuple(line for stratum, line in _NEEDED if kinds and stratum not in kinds)
    shared = (_SHARED_WEIGHTS,) if weights and not kinds & set(SHARING) else ()
    return (*missing, *narrow(kinds), *shared)


def narrow(strata: Iterable[Stratum | None]) -> tuple[str, ...]:
    """What controls of these strata alone leave open: a line, or none."""
    return (_SAME_DATA_ONLY,) if set(strata) == {"same-data"} else ()


LEAST_OF_A_GROUP = 3
"""Fewer controls are no kind of their own."""
_NEGLIGIBLE = 0.05  # of the greatest value


def two_groups(values: Array) -> str | None:
    """That controls fall into two groups, which are of two kinds: one clause; None where they do not.

    The gap between the groups is more than twice as wide as each of them, and no negligible part of the values: where
    all values are near one another, any difference between kinds shows.

    Args:
        values: ``(n,)`` of one metric.
    """
    ordered = np.sort(values)
    if len(ordered) < 2 * LEAST_OF_A_GROUP or not np.isfinite(ordered).all():
        return None
    gaps = np.diff(ordered)[LEAST_OF_A_GROUP - 1 : 1 - LEAST_OF_A_GROUP]
    place = LEAST_OF_A_GROUP + int(np.argmax(gaps))
    groups = ordered[:place], ordered[place:]
    if gaps.max() <= max(2 * max(np.ptp(group) for group in groups), _NEGLIGIBLE * abs(ordered[-1])):
        return None
    near, far = (f"{group[0]:.3g}..{group[-1]:.3g} ({len(group)} controls)" for group in groups)
    return f"the controls fall into two groups, {near} and {far}"

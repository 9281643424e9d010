"""Strata: what controls have in common with the victim, and what cannot be concluded without some of them."""

import re
from collections.abc import Iterable
from typing import Annotated, Final

import numpy as np
from msgspec import Meta

from deepjudge_core.errors import UsageError
from deepjudge_core.types import Array

SAME_ARCHITECTURE: Final = "same-architecture"
OTHER_ARCHITECTURE: Final = "other-architecture"
AXES: Final = (
    ("same-data", "other-data"),
    (SAME_ARCHITECTURE, OTHER_ARCHITECTURE),
    ("common-ancestor", "common-initialisation"),
)
"""What a control may have in common with the victim: training rows (the paper's Neg-1 and Neg-2), architecture, and
weights to begin with: those of the public model that the victim comes from, or the same random ones."""
PARTS: Final = tuple(part for axis in AXES for part in axis)
_JOIN: Final = "+"
FORM: Final = (
    r"^(?!\+|$)" + "".join(rf"(?:(?:^|\+)(?:{'|'.join(axis)}))?" for axis in AXES) + "$"
)  # no more than one of each axis, in their order

Stratum = Annotated[str, Meta(pattern=FORM)]
"""What makes a control more or less like the victim: at most one name of each of :data:`AXES`, in their order, joined
by ``+``, such as ``same-data+other-architecture``. Of an axis that it does not name, nothing is known."""

WORDS: Final = f"{', '.join(PARTS[:-1])} or {PARTS[-1]}; one of each pair may be joined by {_JOIN}"
"""How a stratum is written, in words."""
SHARING: Final = frozenset(AXES[2])
"""What models have whose weights are like the victim's for an honest reason."""


def parts_of(stratum: Stratum | None) -> frozenset[str]:
    """The names that a stratum consists of; none where nothing is known."""
    return frozenset(stratum.split(_JOIN)) if stratum else frozenset()


def stratum_of(text: str) -> Stratum:
    """A stratum as it may be typed, its names in any order.

    Raises:
        UsageError: When it is none.
    """
    return _joined(text.split(_JOIN), found=text)


def product(*strata: Stratum | None) -> Stratum | None:
    """What several strata of one model say together; None where nothing is known.

    Raises:
        UsageError: When they contradict one another.
    """
    names = {name for stratum in strata for name in parts_of(stratum)}
    return _joined(names, found=" and ".join(filter(None, strata))) if names else None


def with_architecture(stratum: Stratum | None, *, same: bool) -> Stratum:
    """The same of a model whose architecture is known.

    Args:
        stratum: What else is known.
        same: Whether it is the victim's.
    """
    own = SAME_ARCHITECTURE if same else OTHER_ARCHITECTURE
    return _joined({*parts_of(stratum).difference(AXES[1]), own}, found=stratum or "")


def _joined(names: Iterable[str], *, found: str) -> Stratum:
    known = set(names)
    joined = _JOIN.join(part for part in PARTS if part in known)
    if known - {*PARTS} or not re.fullmatch(FORM, joined):
        raise UsageError(f"expected {WORDS}, found {found!r}", code="wrong-value")
    return joined


_NEEDED: Final = (
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
_OTHER_ARCHITECTURES_ONLY = (
    "no control has the victim's architecture: how near honest models come that have it was not measured, so layers "
    "accuse nobody"
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
    each = [parts_of(stratum) for stratum in strata]
    kinds = frozenset[str]().union(*each)
    missing = tuple(line for part, line in _NEEDED if each and part not in kinds)
    shared = (_SHARED_WEIGHTS,) if weights and not kinds & SHARING else ()
    return (*missing, *_narrow(each), *shared)


def narrow(strata: Iterable[Stratum | None]) -> tuple[str, ...]:
    """What controls of these strata alone leave open: a line for each, or none."""
    return _narrow([parts_of(stratum) for stratum in strata])


def _narrow(each: list[frozenset[str]]) -> tuple[str, ...]:
    alone = (("same-data", _SAME_DATA_ONLY), (OTHER_ARCHITECTURE, _OTHER_ARCHITECTURES_ONLY))
    return tuple(line for part, line in alone if each and all(part in parts for parts in each))


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

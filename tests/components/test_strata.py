"""Strata of controls: what they leave open, and controls of two kinds."""

import numpy as np
import pytest
from refusals import expect_facts

from deepjudge_core.components.strata import two_groups


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ([1, 1.1, 1.2, 9, 9.1, 9.2], ("1..1.2", "9..9.2", "3 controls")),
        ([9.2, 1, 9, 1.2, 9.1, 1.1], ("1..1.2", "9..9.2", "3 controls")),  # in whatever order
        ([1, 1, 1, 2, 2, 2, 2], ("1..1", "2..2", "3 controls", "4 controls")),
        ([0, 1, 2, 6.1, 7.1, 8.1], ("0..2", "6.1..8.1")),  # more than twice as far apart as each is wide
        ([0, 1, 2, 6, 7, 8], None),
        ([0, 1, 2, 6.1, 7.1, 8.2], None),
        ([0.661, 0.663, 0.665, 0.675, 0.676, 0.677], None),  # a hundredth apart
        ([0.661, 0.663, 0.665, 0.705, 0.706, 0.707], ("0.661..0.665", "0.705..0.707")),
        ([1, 1.1, 9, 9.1, 9.2], None),  # two are no group
        ([1, 1.1, 9, 9.1, 9.2, 9.3], None),
        ([1, 1.1, 1.2, 1.3, 9], None),  # nor is one
        ([1, 1, 1, 1, 1, 1], None),
        ([], None),
        ([1, 1.1, 1.2, 9, 9.1, np.inf], None),
        ([1, 1.1, 1.2, 9, 9.1, np.nan], None),
    ],
)
def test_two_groups(values: list[float], facts: tuple[str, ...] | None) -> None:
    clause = two_groups(np.array(values, np.float64))
    assert (clause is None) == (facts is None)
    if clause and facts:
        expect_facts(clause, *facts)


def test_groups_of_one_kind_are_hardly_ever_two() -> None:
    rng = np.random.default_rng(0)
    for draw in (rng.normal, rng.random, rng.exponential):
        assert sum(two_groups(draw(size=12)) is not None for _ in range(1000)) < 20

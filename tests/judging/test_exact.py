"""The rule that needs no controls."""

import math

import numpy as np
import pytest

from deepjudge_core.components.values import Chance, Decision, Evidence
from deepjudge_core.judging.exact import LEVEL, as_number, exact, power_of_ten


def evidence(*log10_p: float, least: float = -400.0) -> dict[str, Evidence]:
    """Metrics of these chances, and no controls."""
    found = [Chance(one, min(least, one), "the order agrees") for one in log10_p]
    return {f"m{place}": Evidence(0.5, np.zeros(0), 0.6, chance=one) for place, one in enumerate(found)}


@pytest.mark.parametrize("log10_p", [0.0, -0.01, -0.3, -1.0, -2.999, -3.5, -12.04, -299.97, -300.0])
def test_a_shown_probability_is_never_less_than_it_is_nor_much_more(log10_p: float) -> None:
    assert 10**log10_p * (1 - 1e-6) <= float(power_of_ten(log10_p)) <= 1.12 * 10**log10_p


def test_probabilities_too_small_for_numbers_are_told_and_are_never_0() -> None:
    assert power_of_ten(-428.5) == "3.2e-429"
    assert 0 < as_number(-428.5) < 1e-300
    judgement = exact(evidence(-428.5))
    assert (judgement.log10_p, judgement.votes["m0"].log10_p) == (-428.5, -428.5)
    assert judgement.p_value
    assert "3.2e-429" in (judgement.statement or "")


@pytest.mark.parametrize(("log10_p", "copy"), [(-3.0, True), (-2.9, False), (-0.3, False), (0.0, False)])
def test_at_the_level_it_accuses_and_it_acquits_nobody(log10_p: float, copy: bool) -> None:
    judgement = exact(evidence(log10_p))
    assert judgement.decision is (Decision.COPY if copy else Decision.INCONCLUSIVE)
    assert judgement.votes["m0"].vote is (True if copy else None)
    assert bool(judgement.statement) is copy


def test_several_metrics_are_corrected_for() -> None:
    one, two = exact(evidence(-3.1)), exact(evidence(-3.1, -0.1))
    assert (one.decision, two.decision) == (Decision.COPY, Decision.INCONCLUSIVE)
    assert two.log10_p == pytest.approx(-3.1 + math.log10(2))
    assert exact(evidence(-3.4, -0.1)).decision is Decision.COPY
    assert exact(evidence(-3.4, -0.1)).votes["m1"].vote is None


def test_what_could_not_be_found_is_said() -> None:
    vote = exact(evidence(-1.0, least=-2.0)).votes["m0"]
    assert vote.vote is None
    assert "0.01" in (vote.reason or "")


def test_metrics_without_a_chance_of_their_own_cast_no_vote() -> None:
    plain = {"plain": Evidence(0.0, np.linspace(1, 2, 12), 0.6)}
    alone, beside = exact(plain), exact(plain | evidence(-5.0))
    assert (alone.decision, alone.p_value, alone.votes["plain"].vote) == (Decision.INCONCLUSIVE, None, None)
    assert (beside.decision, beside.votes["plain"].vote) == (Decision.COPY, None)
    # One that is not among the tests corrects for nothing.
    assert beside.log10_p == -5.0


def test_its_level_is_what_honest_models_are_accused_at() -> None:
    uniform = np.random.default_rng(0).random(20000)
    accused = np.mean([exact(evidence(math.log10(p)), level=0.05).decision is Decision.COPY for p in uniform])
    assert accused == pytest.approx(0.05, abs=0.006)
    assert LEVEL == 0.001

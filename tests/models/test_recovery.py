"""What the taps of a model tell of the victim's neurons, however these were changed, moved or hidden."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from deepjudge_core.models.recovery import Recovery, explained, taps_to_try
from deepjudge_core.types import Array

CASES, NEURONS = 240, 12


def outputs(seed: int, neurons: int = NEURONS) -> np.ndarray:
    """Those of a layer of a network: ReLUs of sums of the same inputs, by weights of its own."""
    x = np.random.default_rng(99).normal(size=(CASES, 10))
    return np.maximum(x @ np.random.default_rng(seed).normal(size=(10, neurons)), 0).astype(np.float32)


def told(target: np.ndarray, *taps: np.ndarray, seed: int = 0) -> float:
    recovery = Recovery({"layer": target}, seed)
    for place, tap in enumerate(taps):
        recovery.add(f"tap{place}", tap)
    best = recovery.best["layer"]
    assert best.outputs.shape == target.shape
    assert best.outputs.dtype == np.float32
    assert best.share == pytest.approx(explained(target, best.outputs), abs=1e-5)
    return best.share


def permuted(own: np.ndarray) -> np.ndarray:
    return (own * np.linspace(0.1, 30, NEURONS))[:, np.random.default_rng(0).permutation(NEURONS)]


def split(own: np.ndarray) -> np.ndarray:
    return np.concatenate([own * 0.3, own * 0.7], axis=1)


def hidden(own: np.ndarray) -> np.ndarray:
    return np.concatenate([outputs(5, 40), own, outputs(6, 40)], axis=1)


def mixed(own: np.ndarray) -> np.ndarray:
    return own @ np.random.default_rng(0).normal(size=(NEURONS, NEURONS))


@pytest.mark.parametrize("disguise", [permuted, split, hidden, mixed])
def test_a_disguised_layer_tells_all_of_the_neurons(disguise) -> None:
    assert told(outputs(0), outputs(3), disguise(outputs(0))) > 0.99


def test_a_removed_neuron_costs_no_more_than_itself() -> None:
    assert told(outputs(0), outputs(0)[:, 1:]) > 0.99


def test_an_independent_layer_tells_less() -> None:
    assert max(told(outputs(0), outputs(seed)) for seed in range(1, 6)) < 0.9


def test_noise_is_not_told_by_as_many_columns_as_there_are_cases() -> None:
    # Each case is told by a fit on others: what fits the cases at hand alone tells nothing.
    rng = np.random.default_rng(0)
    assert told(rng.normal(size=(CASES, 5)).astype(np.float32), rng.normal(size=(CASES, 110))) < 0.05


def test_wide_taps_are_projected_and_still_tell() -> None:
    wide = np.repeat(outputs(0), 60, axis=1) * np.random.default_rng(1).normal(size=NEURONS * 60)

    assert told(outputs(0), wide) > 0.9


def test_a_copy_is_told_by_fewer_cases_than_neurons() -> None:
    wide = np.maximum(np.random.default_rng(0).normal(size=(20, 64)), 0).astype(np.float32)

    assert told(wide, wide[:, ::-1] * 3) > 0.999


def test_the_best_tap_is_named_and_the_same_seed_gives_the_same() -> None:
    recoveries = [Recovery({"layer": outputs(0)}, seed) for seed in (3, 3, 4)]
    for recovery in recoveries:
        recovery.add("other", outputs(7))
        recovery.add("copy", permuted(outputs(0)))
        recovery.add("another", outputs(8))

    first, again, other = (recovery.best["layer"] for recovery in recoveries)

    assert first.tap == "copy"
    np.testing.assert_array_equal(first.outputs, again.outputs)
    assert (first.outputs != other.outputs).any()


@pytest.mark.parametrize("tap", [np.zeros((CASES, 3)), np.full((CASES, 2), 1e30), outputs(0) * 1e30])
def test_dead_and_huge_taps_are_taken(tap: np.ndarray) -> None:
    assert told(outputs(0), tap.astype(np.float32)) <= 1


def test_neurons_that_never_change_are_left_out() -> None:
    target = outputs(0)
    target[:, :3] = 1

    assert told(target, permuted(outputs(0))) > 0.99
    assert explained(np.ones((5, 2)), np.zeros((5, 2))) == 0


def test_taps_are_bounded_in_number_and_width() -> None:
    chosen = taps_to_try({**{f"tap{place}": 8 for place in range(1000)}, "wide": 10**6, "logits": 10})

    assert len(chosen) <= 64
    assert sum(taps_to_try({f"tap{place}": 2000 for place in range(60)}).values()) <= 2**14
    assert "wide" not in chosen
    assert next(iter(chosen)) == "tap0"
    assert list(chosen)[-1] == "logits"


def test_small_matrices_are_multiplied_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    solve, found = np.linalg.solve, list[set[int]]()

    def watched(*matrices: Array) -> Array:
        found.append(threads())
        solution: Array = solve(*matrices)
        return solution

    rng = np.random.default_rng(0)
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        monkeypatch.setattr(np.linalg, "solve", watched)
        Recovery({"layer": rng.normal(size=(20, 3))}, 0).add("tap", rng.normal(size=(20, 4)))
        assert threads() == before
    if before == {2}:  # another BLAS cannot be told
        assert found == [{1}, {1}]

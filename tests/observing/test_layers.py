"""Which taps answer which layers, against all choices tried one by one."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepjudge_core.models.cka import linear_cka, unbiased_linear_cka
from deepjudge_core.observing.layers import NoLayerError, align, find_candidates

ROWS = 12


def outputs(seed: int, neurons: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ROWS, neurons)).astype(np.float32)


def test_cka_is_that_of_the_centred_kernels() -> None:
    x, y = outputs(0, 5), outputs(1, 7)
    centre = np.eye(ROWS) - np.full((ROWS, ROWS), 1 / ROWS)
    k, other = (centre @ (a.astype(np.float64) @ a.T) @ centre for a in (x, y))
    expected = np.trace(k @ other) / np.sqrt(np.trace(k @ k) * np.trace(other @ other))
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-6)


def test_cka_does_not_see_order_scale_or_shift() -> None:
    x = outputs(0, 5)
    changed = 3 * x[:, [4, 2, 0, 1, 3]] + 7
    assert linear_cka(x, changed) == pytest.approx(1, abs=1e-6)
    assert linear_cka(x, outputs(1, 5)) < 0.9
    assert linear_cka(x, np.ones_like(x)) == 0


@given(
    owner=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    model=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    compared=st.data(),
    seed=st.integers(0, 2**16),
)
def test_the_best_of_all_choices_in_order(
    owner: list[int], model: list[int], compared: st.DataObject, seed: int
) -> None:
    names = {f"layer{i}": width for i, width in enumerate([*owner, 9])}
    taps = {f"tap{i}": width for i, width in enumerate([*model, 9])}
    layers = compared.draw(st.lists(st.sampled_from(list(names)[:-1]), min_size=1, unique=True))
    ours = {layer: outputs(seed + i, names[layer]) for i, layer in enumerate(names)}
    theirs = {tap: outputs(seed + 100 + i, width) for i, (tap, width) in enumerate(taps.items())}
    depth = list(taps).index
    ordered = [layer for layer in names if layer in layers]
    choices = [
        choice
        for choice in itertools.combinations(list(taps)[:-1], len(ordered))
        if all(taps[tap] == names[layer] for layer, tap in zip(ordered, choice, strict=True))
    ]
    try:
        chosen = find_candidates("model", names, taps, layers, {})
        layer_map = align(chosen, ours, [theirs])
    except NoLayerError:
        assert not choices
        return
    assert list(layer_map) == layers
    picked = tuple(layer_map[layer] for layer in ordered)
    assert picked in choices
    sums = {c: sum(linear_cka(ours[a], theirs[b]) for a, b in zip(ordered, c, strict=True)) for c in choices}
    at_places = tuple(chosen.places[layer] for layer in ordered if chosen.places)
    if chosen.places and sums[at_places] >= max(sums.values()) - 0.05 * len(ordered):
        assert picked == at_places
        assert [depth(tap) for tap in picked] == [list(names).index(layer) for layer in ordered]
    else:
        assert sums[picked] == pytest.approx(max(sums.values()))


def test_taps_of_the_width_are_more_than_are_compared() -> None:
    owner, model = {"a": 5, "logits": 2}, {**{f"t{i}": 5 for i in range(1100)}, "logits": 2}
    with pytest.raises(NoLayerError, match=r"'a'.*1024.*1100.*layers="):
        find_candidates("model", owner, model, ["a"], {})
    assert find_candidates("model", owner, model, ["a"], {"a": "t7"}).taps == {"a": ("t7",)}


def test_taps_in_parts_are_as_all_at_once() -> None:
    owner, model = {"a": 5, "b": 5, "logits": 2}, {**{f"t{i}": 5 for i in range(9)}, "logits": 2}
    ours = {layer: outputs(7 + i, 5) for i, layer in enumerate(owner)}
    theirs = {tap: outputs(30 + i, 5) for i, tap in enumerate(model)}
    chosen = find_candidates("model", owner, model, ["a", "b"], {})
    parts = chosen.parts(10, 2 * 4 * 10 * 5)
    assert [len(part) for part in parts] == [2, 2, 2, 2, 1]
    each = ({tap: theirs[tap] for tap in part} for part in parts)
    assert align(chosen, ours, each) == align(chosen, ours, [theirs])


def test_logits_answer_logits_and_nothing_else() -> None:
    owner, model = {"a": 5, "logits": 5}, {"b": 5, "c": 5, "logits": 5}
    chosen = find_candidates("model", owner, model, ["a", "logits"], {})
    assert chosen.taps == {"a": ("b", "c"), "logits": ("logits",)}
    with pytest.raises(NoLayerError, match=r"'logits'.*5.*5, 4"):
        find_candidates("model", owner, {"b": 5, "logits": 4}, ["logits"], {})


def test_a_tap_at_its_place_that_answers_something_else_is_passed_over() -> None:
    # A layer more in front of the one compared, one less behind it: as many taps, of the same widths.
    owner = {"a": 5, "b": 5, "c": 5, "logits": 2}
    model = {"x": 5, "y": 5, "z": 5, "logits": 2}
    ours = {"b": outputs(0, 5)}
    shifted = {"x": outputs(1, 5), "y": outputs(2, 5), "z": 2 * outputs(0, 5)[:, ::-1]}
    chosen = find_candidates("model", owner, model, ["b"], {})
    assert chosen.places == {"b": "y"}
    assert align(chosen, ours, [shifted]) == {"b": "z"}
    # Neighbours that are nearly as alike do not matter.
    near = shifted | {"y": outputs(0, 5) + 0.05 * outputs(2, 5)}
    assert 0.99 < linear_cka(ours["b"], near["y"]) < 1
    assert align(chosen, ours, [near]) == {"b": "y"}


def test_cka_of_the_greatest_numbers_is_a_number() -> None:
    x = outputs(0, 5) * np.float32(1e38)
    assert linear_cka(x, x) == pytest.approx(1)
    assert linear_cka(x, outputs(0, 5)) == pytest.approx(1, abs=1e-5)


@given(seed=st.integers(0, 10**6), n=st.integers(4, 30), width=st.integers(2, 40), power=st.integers(-60, 60))
@settings(max_examples=50, deadline=None)
def test_unbiased_cka_does_not_see_what_a_layer_is_turned_scaled_and_moved_by(
    seed: int, n: int, width: int, power: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, width)), rng.normal(size=(n, 3))
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
    value = unbiased_linear_cka(x, y)
    assert -1 <= value <= 1
    assert unbiased_linear_cka(y, x) == pytest.approx(value, abs=1e-9)
    assert unbiased_linear_cka(10.0**power * (x @ turn) + 10.0**power, y) == pytest.approx(value, abs=1e-6)
    assert unbiased_linear_cka(x, x @ turn) == pytest.approx(1, abs=1e-9)


def test_unbiased_cka_of_unrelated_layers_is_0_in_the_mean_where_the_biased_is_not() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(12, 8)), rng.normal(size=(12, 8))) for _ in range(500)]
    unbiased, biased = (np.array([f(x, y) for x, y in pairs]) for f in (unbiased_linear_cka, linear_cka))
    assert abs(unbiased.mean()) < 4 * unbiased.std() / np.sqrt(len(pairs))
    assert biased.mean() > 0.3


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unbiased_cka_of_too_few_inputs(n: int) -> None:
    x = np.random.default_rng(0).normal(size=(n, 5))
    assert unbiased_linear_cka(x, x) == 0


def test_cka_by_inputs_where_they_are_fewer_than_neurons() -> None:
    x, y = (np.random.default_rng(seed).normal(size=(6, 20)) for seed in (0, 1))
    wide, narrow = linear_cka(x, y), []
    for z in (x, y):  # the same inputs in as many directions as they span
        u, s, _ = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
        narrow.append((u * s)[:, :5])
    assert wide == pytest.approx(linear_cka(*narrow), rel=1e-9)

"""The order of neurons: its probability is that of a random order, whatever the weights look like."""

from itertools import permutations
from math import factorial, log10

import numpy as np
import pytest
from scipy.stats import chi2

from deepjudge_core.weights.order import log10_tail, order_test
from deepjudge_core.weights.values import LayerSketch, Sketch

RANK = 8


def layer(rows: np.ndarray, block: int = 0, picked: np.ndarray | None = None) -> LayerSketch:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    raw = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float16)[:, None]
    neurons = np.arange(len(rows)) if picked is None else picked
    return LayerSketch(f"layer {block}", block, "dense", len(rows), neurons, raw[neurons])


def sketch(*layers: LayerSketch, guessed: bool = False) -> Sketch:
    return Sketch("dense", layers, guessed=guessed)


def plain(random: np.random.Generator, width: int) -> np.ndarray:
    return random.normal(size=(width, RANK))


def with_dead(random: np.random.Generator, width: int) -> np.ndarray:
    rows = plain(random, width)
    rows[width // 2 :] = 0
    return rows


def with_equal(random: np.random.Generator, width: int) -> np.ndarray:
    return plain(random, max(1, width // 3))[np.arange(width) % max(1, width // 3)]


def all_equal(random: np.random.Generator, width: int) -> np.ndarray:
    return np.repeat(plain(random, 1), width, axis=0)


def with_a_hub(random: np.random.Generator, width: int) -> np.ndarray:
    rows = 0.3 * plain(random, width) + 1
    rows[-1] = 1  # the most similar one of nearly all
    return rows


@pytest.mark.parametrize(("compared", "width"), [(1, 1), (2, 2), (3, 5), (5, 5), (4, 6), (6, 6)])
def test_the_tail_is_the_share_of_all_orders(compared: int, width: int) -> None:
    fixed = [sum(order[i] == i for i in range(compared)) for order in permutations(range(width))]
    for agreeing in range(compared + 1):
        share = sum(count >= agreeing for count in fixed) / factorial(width)
        if share:
            assert 10 ** log10_tail(agreeing, compared, width) == pytest.approx(share)


def test_the_tail_of_many_neurons_is_a_number() -> None:
    orders = sum(log10(11_008 - left) for left in range(512))
    assert log10_tail(512, 512, 11_008) == pytest.approx(-orders)
    tails = [log10_tail(agreeing, 512, 11_008) for agreeing in (0, 1, 2, 3, 20, 300, 511, 512)]
    assert tails[0] == 0
    assert (np.diff(tails) < 0).all()


@pytest.mark.parametrize("made", [plain, with_dead, with_equal, all_equal, with_a_hub])
@pytest.mark.parametrize("widths", [(3,), (8,), (16,), (40,), (6, 16)])
def test_independent_models_are_rarely_told_otherwise(made, widths) -> None:
    random = np.random.default_rng(0)
    runs = 200
    found = 0
    for _ in range(runs):
        ours, theirs = (
            sketch(*(layer(made(random, width), block) for block, width in enumerate(widths))) for _ in range(2)
        )
        # The order is all that is independent: what the rows look like may be the same in both.
        theirs = sketch(*(shuffled(one, random) for one in theirs.layers))
        test = order_test(ours, theirs)
        found += test is not None and test.log10_p <= log10(0.05)
    assert found / runs <= 0.08


def shuffled(one: LayerSketch, random: np.random.Generator) -> LayerSketch:
    return LayerSketch(one.name, one.block, one.kind, one.width, one.neurons, one.raw[random.permutation(one.width)])


def test_equal_rows_at_equal_places_say_nothing() -> None:
    # All neurons of both are the same: whatever is at the same place is there by chance.
    random = np.random.default_rng(1)
    runs = [order_test(sketch(layer(all_equal(random, 12))), sketch(layer(all_equal(random, 12)))) for _ in range(200)]
    assert np.mean([test is not None and test.log10_p <= log10(0.05) for test in runs]) <= 0.08


@pytest.mark.parametrize("width", [2, 6, 16, 200])
def test_a_copy_is_as_unlikely_as_can_be(width: int) -> None:
    random = np.random.default_rng(2)
    rows = plain(random, width)
    picked = np.sort(random.choice(width, max(1, width // 2), replace=False))
    test = order_test(sketch(layer(rows, picked=picked)), sketch(layer(rows + 0.02 * plain(random, width))))
    assert test is not None
    assert test.agreeing == test.compared == len(picked)
    assert test.log10_p == test.least == pytest.approx(log10(factorial(width - len(picked))) - log10(factorial(width)))


def test_dead_neurons_of_a_copy_do_not_count() -> None:
    random = np.random.default_rng(3)
    rows = with_dead(random, 20)
    test = order_test(sketch(layer(rows)), sketch(layer(rows)))
    assert test is not None
    assert (test.agreeing, test.compared) == (10, 10)


def test_layers_are_combined_as_independent_tests_are() -> None:
    random = np.random.default_rng(4)
    rows = [plain(random, width) for width in (5, 7, 9)]
    ours = sketch(*(layer(one, block) for block, one in enumerate(rows)))
    single = [log10_tail(width, width, width) for width in (5, 7, 9)]
    test = order_test(ours, ours)
    assert test is not None
    assert test.log10_p == pytest.approx(chi2.logsf(-2 * np.log(10) * sum(single), 6) / np.log(10))


def test_layers_that_may_share_an_order_count_once() -> None:
    # Were they independent, their probabilities would be multiplied.
    rows = plain(np.random.default_rng(5), 6)
    ours = sketch(*(layer(rows, block) for block in range(4)), guessed=True)
    test = order_test(ours, ours)
    assert test is not None
    assert test.log10_p == pytest.approx(log10(4 / factorial(6)))


@pytest.mark.parametrize("drift", [0, 0.5])
def test_layers_in_one_order_are_one_test(drift: float) -> None:
    # Blocks that were stacked, or experts that were made from one: what agrees by chance agrees in all of them.
    random, width = np.random.default_rng(7), 32
    ours, theirs = plain(random, width), plain(random, width)
    theirs[:4] = ours[:4]
    victim, suspect = (
        sketch(*(layer(rows + drift * plain(random, width), block) for block in range(6))) for rows in (ours, theirs)
    )
    test = order_test(victim, suspect)
    single = [order_test(sketch(one), suspect) for one in victim.layers]
    assert test is not None
    assert test.log10_p >= min(one.log10_p for one in single if one)
    assert test.least >= log10_tail(width, width, width)


def test_layers_of_a_model_in_orders_of_their_own_are_tests_of_their_own() -> None:
    random = np.random.default_rng(8)
    together = [
        test.log10_p == pytest.approx(log10(4) - log10(factorial(16)))
        for _ in range(50)
        if (test := order_test(one := sketch(*(layer(plain(random, 16), block) for block in range(4))), one))
    ]
    assert together == [False] * 50


def test_layers_of_other_widths_or_places_are_not_compared() -> None:
    random = np.random.default_rng(6)
    ours = sketch(layer(plain(random, 8)))
    assert order_test(ours, sketch(layer(plain(random, 9)))) is None
    assert order_test(ours, sketch(layer(plain(random, 8), block=1))) is None
    assert order_test(ours, sketch(layer(np.zeros((8, RANK))))) is None

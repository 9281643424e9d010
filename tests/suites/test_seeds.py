"""Which inputs become seeds."""

from typing import Any

import numpy as np
import pytest
import toys
from refusals import expect_facts, refused

from deepjudge_core import select_seeds
from deepjudge_core.errors import DeepJudgeError, ErringVictimError, InputError, ModelError, UnfitError, UsageError
from deepjudge_core.types import Array


class Table:
    """A model that answers the k-th row of a table to an input that begins with k."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = np.array(rows, dtype=np.float32)
        self.__dict__ |= {"name": "table", "classes": self.rows.shape[1], "input": toys.make_model(shape=(2,)).input}
        self.independent = self.gateway = None

    def predict(self, x: Array) -> Array:
        return self.rows[np.rint(x[:, 0] * 100).astype(int)]


def select(rows: list[list[float]], y: list[int], **options: Any) -> list[int]:
    x = np.zeros((len(rows), 2), np.float32)
    x[:, 0] = np.arange(len(rows)) / 100
    seeds = select_seeds(Table(rows), x, np.array(y), **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(seeds.inputs, x[seeds.indices])
    np.testing.assert_array_equal(seeds.labels, np.array(y)[seeds.indices])
    assert seeds.inputs.dtype == np.float32
    assert seeds.labels.dtype == seeds.indices.dtype == np.int64
    return seeds.indices.tolist()


ROWS = [[0.6, 0.4], [0.9, 0.1], [0.1, 0.9], [0.45, 0.55], [0.2, 0.8], [0.7, 0.3]]
LABELS = [0, 0, 1, 1, 1, 1]  # of which the last is missed


def test_the_surest_first() -> None:
    assert select(ROWS, LABELS) == [1, 2, 4, 0, 3]
    assert select(ROWS, LABELS, n=2) == [1, 2]
    assert select(ROWS, LABELS, order="low", n=3) == [3, 0, 4]


def test_equal_scores_keep_the_order_of_the_inputs() -> None:
    rows = [[0.25, 0.75]] * 3 + [[0.75, 0.25]] * 3
    for order in ("high", "low"):
        assert select(rows, [1, 1, 1, 0, 0, 0], order=order) == [0, 1, 2, 3, 4, 5]
    assert select(rows, [1, 1, 1, 0, 0, 0], order="balanced") == [0, 3, 1, 4, 2, 5]


def test_balanced_takes_each_class_in_turn() -> None:
    rows = [[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.5, 0.4], [0.2, 0.1, 0.7]]
    rows_taken = select(rows, [0, 0, 0, 1, 1, 2], order="balanced", n=4)
    assert rows_taken == [0, 5, 3, 1]
    assert select(rows, [0, 0, 0, 1, 1, 2], n=4) == [0, 1, 2, 5]


def test_the_score_against_a_direct_computation() -> None:
    model = toys.make_model()
    x, y = toys.make_inputs(model, n=80)
    p = model.predict(x).astype(np.float64)
    scores = {i: sum(float(v) ** 2 for v in p[i]) for i in range(80) if p[i].argmax() == y[i]}
    expected = sorted(scores, key=lambda i: (-scores[i], i))
    seeds = select_seeds(model, x, y, n=30)
    assert seeds.indices.tolist() == expected[:30]
    assert seeds.accuracy == len(scores) / 80 == 0.9
    assert (seeds.bounds, seeds.span) == ((0.0, 1.0), 1.0)


def test_inputs_are_arranged_for_the_victim() -> None:
    model = toys.make_model(shape=(3, 2, 4))
    x, y = toys.make_inputs(model)
    channels_last = np.moveaxis(x, 1, -1)
    seeds = select_seeds(model, channels_last, y, n=5)
    np.testing.assert_array_equal(seeds.inputs, x[seeds.indices])
    assert seeds.inputs.flags.c_contiguous


@pytest.mark.parametrize(
    ("changes", "error", "facts"),
    [
        ({"y": [0, 2]}, InputError, ("table", "0..1", "0..2")),
        ({"y": [-1, 0]}, InputError, ("table", "0..1", "-1..0")),
        ({"y": [1, 0]}, UnfitError, ("table", "2", "scale=")),
        ({"y": [0]}, InputError, ("(2, 2)", "(1,)")),
        ({"y": [[0, 1, 0], [1, 0, 0]]}, InputError, ("(2, 2)", "(2, 3)")),
        ({"x": np.zeros((0, 2)), "y": []}, InputError, ("inputs",)),
        ({"x": np.full((2, 2), 1.5)}, InputError, ("0..1", "1.5..1.5")),
        ({"x": np.full((2, 2), np.nan)}, InputError, ("0..1", "nan..nan")),
        ({"x": np.zeros((2, 3))}, InputError, ("table", "2", "3")),
        ({"n": 0}, UsageError, ("seeds", "0")),
        ({"bounds": (1.0, 0.0)}, UsageError, ("bounds", "1", "0")),
        ({"rows": [[np.nan, 1], [0, 1]]}, ModelError, ("table", "NaN")),
        ({"rows": [[0.5, 0.4], [0.2, 0.8]]}, ModelError, ("table", "0.9..1")),
        ({"rows": [[1.5, -0.5], [0.2, 0.8]]}, ModelError, ("table", "1")),
        ({"rows": [[0.5, 0.5], [0.5, 0.5]]}, ModelError, ("table",)),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], error: type[DeepJudgeError], facts: tuple[str, ...]) -> None:
    arguments: dict[str, Any] = {
        "rows": [[0.9, 0.1], [0.2, 0.8]],
        "x": np.array([[0, 0], [0.01, 0]]),
        "y": [0, 1],
    } | changes
    table = Table(arguments.pop("rows"))
    codes = {InputError: "wrong-inputs", UnfitError: "no-verdict", UsageError: "wrong-value", ModelError: "bad-answer"}
    with pytest.raises(error) as caught:
        select_seeds(table, arguments.pop("x"), np.array(arguments.pop("y")), **arguments)  # type: ignore[arg-type]
    assert caught.value.code == codes[error]
    expect_facts(str(caught.value), *facts)


def test_a_victim_that_cannot_be_run() -> None:
    table = Table(ROWS)
    with refused(ModelError, "table", "(2,)", "index 99"):
        select_seeds(table, np.full((2, 2), 0.99), np.array([0, 1]))  # type: ignore[arg-type]


# What no verdict could rest on.


def answering(share: float, classes: int = 4, n: int = 400) -> tuple[toys.NumpyModel, np.ndarray, np.ndarray]:
    """A model, inputs, and labels of which it gets about this share right in each class; the rest is the next class."""
    model = toys.make_model(20, classes=classes)
    x, _ = toys.make_inputs(model, n)
    y = model.predict(x).argmax(axis=1)
    wrong = np.random.default_rng(0).random(n) >= share
    return model, x, np.where(wrong, (y + 1) % classes, y)


@pytest.mark.parametrize(("share", "fits"), [(0.1, False), (0.3, False), (0.6, True)])
def test_a_victim_that_errs_on_most_inputs_is_refused(share: float, fits: bool) -> None:
    model, x, y = answering(share)
    if not fits:
        with refused(ErringVictimError, "toy-20", "%", "force=True", code="no-verdict"):
            select_seeds(model, x, y)
    seeds = select_seeds(model, x, y, force=True)
    assert any("made although" in note for note in seeds.notes) is not fits


def test_who_always_answers_the_usual_class_knows_nothing() -> None:
    model, x, y = answering(1)
    often = np.concatenate([np.flatnonzero(y == 0)[:50], np.flatnonzero(y == 1)[:5]])
    constant = toys.NumpyModel(
        [*model.weights[:-1], (model.weights[-1][0] * 0.1, np.array([9.0, 0, 0, 0]))], toys.SHAPE
    )
    with refused(ErringVictimError, "90.9%", "50.0%", code="no-verdict"):
        select_seeds(constant, x[often], y[often], n=10)


def test_inputs_of_one_class_are_refused() -> None:
    model, x, y = answering(1)
    one = y == 2
    with refused(UnfitError, "class 2", "sorted", "force=True", code="no-verdict"):
        select_seeds(model, x[one], y[one], n=10)
    assert set(select_seeds(model, x[one], y[one], n=10, force=True).labels) == {2}


def test_a_victim_that_gives_all_inputs_one_class_is_noted_and_no_inputs_are_to_blame() -> None:
    model, x, _ = answering(1)
    constant = toys.NumpyModel(
        [*model.weights[:-1], (model.weights[-1][0] * 0.1, np.array([0, 0, 9.0, 0]))], toys.SHAPE
    )
    seeds = select_seeds(constant, x, np.full(len(x), 2), n=10)
    assert any("class 2" in note and "mirror" in note for note in seeds.notes)


def test_seeds_are_of_several_classes_where_there_are_any() -> None:
    model, x, y = answering(1)
    score = (model.predict(x).astype(np.float64) ** 2).sum(axis=1)
    usual = y[score.argmax()]
    first = np.sort(np.concatenate([np.flatnonzero(y == usual), np.flatnonzero(y != usual)[:3]]))
    ranked = first[np.argsort(-score[first])]
    n = int((y[ranked] != usual).argmax())
    if n < 2:
        pytest.skip("the surest are of several classes")
    seeds = select_seeds(model, x[first], y[first], n=n)
    assert len(set(seeds.labels)) > 1
    expect_facts(seeds.notes[0], n)

"""Which preprocessing is looked for, and when one is taken: the search, with answers that are known."""

from collections.abc import Iterable

import numpy as np
import pytest

from deepjudge_core import Preprocessing
from deepjudge_core.errors import ModelError
from deepjudge_core.observing.expectation import LEVEL, Correctness, Search
from deepjudge_core.suites.moments import Moments

N = 300
CHOICES = {f"p{place}": Preprocessing(1.0 + place) for place in range(1, 21)}


def search(wrong: int, owner: float = 1.0, choices: dict[str, Preprocessing] = CHOICES) -> Search:
    """After so many probes, the first ones, were wrong as they are; chance is a tenth."""
    return Search(np.arange(N) >= wrong, 0.1, owner, choices)


class Asked:
    """A model that gets all probes right but these, with each preprocessing; p1 is the first of equals."""

    def __init__(
        self,
        wrong: dict[str, Iterable[int]],
        usual: Iterable[int] = (),
        broken: tuple[str, ...] = (),
        sure: dict[str, float] | None = None,
    ) -> None:
        self.wrong, self.usual, self.broken, self.sure = wrong, usual, broken, sure or {}
        self.places: list[np.ndarray] = []

    def __call__(self, preprocessing: Preprocessing | None, places: np.ndarray) -> Correctness:
        [name] = [name for name, one in CHOICES.items() if one == preprocessing]
        if name in self.broken:
            raise ModelError("no")
        self.places.append(places)
        right = ~np.isin(places, list(self.wrong.get(name, self.usual)))
        return Correctness(right, np.where(right, 1, -1) * self.sure.get(name, 0.0))


def far(_: Preprocessing) -> float:
    return 1.0


def test_it_is_hopeful_where_enough_are_wrong() -> None:
    # 20 are tried: so many that all get better are one in 2^n.
    assert not search(8).hopeful
    assert search(9).hopeful
    assert 20 / 2**9 <= LEVEL < 20 / 2**8
    assert not search(100, choices={}).hopeful
    # Who errs no more than the victim is asked as it expects.
    assert not search(30, owner=0.9).hopeful
    assert search(31, owner=0.9).hopeful


@pytest.mark.parametrize(
    ("before", "after", "owner", "better"),
    [
        (11, 0, 1, True),
        (60, 40, 1, True),
        (60, 41, 1, False),  # less than a third of the errors is mended
        (90, 70, 0.9, True),
        (90, 71, 0.9, False),  # of the errors that the victim does not make
        (N, 0, 1, True),
        (N, 200, 1, True),
        (N, 204, 1, False),  # less than a quarter of the way from chance
    ],
)
def test_when_one_is_better(before: int, after: int, owner: float, better: bool) -> None:
    name, _ = search(before, owner).best(Asked({"p7": range(after)}, range(before)), far)
    assert name == ("p7" if better else None)


@pytest.mark.parametrize(("broken", "better"), [(10, True), (19, False)])
def test_what_breaks_as_many_is_no_better(broken: int, better: bool) -> None:
    # 40 are mended, and these others are broken: at most half as many errors, but by chance.
    name, _ = search(40).best(Asked({"p7": range(N - broken, N)}, range(40)), far)
    assert (name == "p7") is better


def test_the_right_one_is_found_with_few_answers() -> None:
    asked = Asked({"p7": ()}, range(100), broken=("p3",))
    name, tried = search(100).best(asked, far)
    assert name == "p7"
    accuracies = {trial.name: trial.accuracy for trial in tried}
    assert list(accuracies) == list(CHOICES)
    assert (accuracies["p7"], accuracies["p3"], accuracies["p9"]) == (1, None, pytest.approx(2 / 3))
    assert sum(map(len, asked.places)) <= 20 * 50 + 8 * N


def test_of_those_that_do_equally_well_the_one_that_changes_least_is_taken() -> None:
    equal: dict[str, Iterable[int]] = {"p9": (), "p4": (), "p6": (0,)}
    assert search(100).best(Asked(equal, range(100)), far)[0] == "p4"


def test_of_those_the_one_is_taken_that_is_as_sure_as_it_is_right() -> None:
    # All err once: the one of the greatest scale is the surest, also where it errs.
    equal: dict[str, Iterable[int]] = dict.fromkeys(("p2", "p4", "p9"), (0,))
    sure = {"p2": 0.5, "p4": 5.0, "p9": 1000.0}
    assert search(100).best(Asked(equal, range(100), sure=sure), far)[0] == "p4"


def test_of_those_the_one_that_answers_as_the_victim_does_is_taken_first() -> None:
    equal: dict[str, Iterable[int]] = {"p9": (), "p4": (), "p6": (0,)}
    for near, name in ((0.02, "p6"), (0.5, "p4")):
        distances = {CHOICES["p6"]: near, CHOICES["p9"]: 0.6}
        assert search(100).best(Asked(equal, range(100)), lambda p, d=distances: d.get(p, 0.9))[0] == name


def test_few_wrong_ones_are_asked_all() -> None:
    asked = Asked({}, ())
    search(12).best(asked, far)
    assert all(set(range(12)) <= set(places.tolist()) for places in asked.places)


def test_none_can_be_asked() -> None:
    name, tried = search(100).best(Asked({}, broken=tuple(CHOICES)), far)
    assert name is None
    assert {trial.accuracy for trial in tried} == {None}


def test_odds_of_the_truth() -> None:
    p = np.array([[0.75, 0.25, 0], [1, 0, 0], [0, 1, 0], [1, 1e-30, 0]], np.float32)
    answers = Correctness.of(p, np.zeros(4, int))
    assert list(answers.right) == [True, True, False, True]
    np.testing.assert_allclose(answers.odds, np.log([3, 1e37, 1e-37, 1e30]), rtol=1e-5)
    assert not Correctness.of(None, np.array([0, 1])).right.any()


# Mean and deviation of the training inputs.


@pytest.mark.parametrize(
    ("shape", "layout", "axes"),
    [
        ((5,), None, (0,)),
        ((3, 8, 8), None, (0, 2, 3)),
        ((8, 8, 3), None, (0, 1, 2)),
        ((3, 8, 3), "channels_last", (0, 1, 2)),
        ((3, 8, 3), None, (0, 1, 2, 3)),
        ((7, 9), None, (0, 1, 2)),
    ],
)
def test_moments(shape: tuple[int, ...], layout, axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random((3000, *shape)) ** 2 * 4 - 1
    moments, u = Moments.of(x.astype(np.float32), (-1, 3), layout), (x + 1) / 4
    np.testing.assert_allclose(moments.mean, np.atleast_1d(u.mean(axis=axes)), rtol=1e-4)
    np.testing.assert_allclose(moments.std, np.atleast_1d(u.std(axis=axes)), rtol=1e-4)
    np.testing.assert_allclose(moments.overall().mean, [u.mean()], rtol=1e-4)
    np.testing.assert_allclose(moments.overall().std, [u.std()], rtol=1e-4)


def test_a_feature_that_does_not_change_is_not_divided() -> None:
    assert Moments.of(np.array([[1, 0], [1, 1]], np.float32), (0, 1), None) == Moments((1.0, 0.5), (1.0, 0.5))

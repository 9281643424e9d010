"""Which of many models is nearest to the victim."""

from dataclasses import dataclass, field

import pytest

from deepjudge_core.judging.ranking import ranked, ratio


@dataclass(frozen=True)
class Metric:
    """A metric of a model."""

    group: str
    value: float | None
    threshold: float | None = 2.0


@dataclass(frozen=True)
class Model:
    """A model that was judged."""

    decision: str = "independent"
    metrics: dict[str, Metric] = field(default_factory=dict)


def model(black: list[float], white: list[float] | None = None, decision: str = "independent") -> Model:
    metrics = {f"b{place}": Metric("black-box", value) for place, value in enumerate(black)}
    return Model(decision, metrics | {f"w{i}": Metric("white-box", value) for i, value in enumerate(white or [])})


def test_the_ratio_is_the_median_of_the_nearer_group() -> None:
    assert ratio(model([1, 4, 6])) == 2
    assert ratio(model([6, 6], [1, 2, 9, 3])) == 1.25
    assert ratio(model([1, 1], [9, 9])) == 0.5
    assert ratio(Model()) is None
    # Neither what was not measured counts, nor what has no threshold above 0.
    metrics = {"a": Metric("black-box", None), "b": Metric("black-box", 0.1, None), "c": Metric("black-box", 0.1, -1)}
    assert ratio(Model(metrics=metrics)) is None
    assert ratio(Model(metrics=metrics | {"d": Metric("black-box", 3.0)})) == 1.5


def test_copies_come_first_and_failures_last() -> None:
    models = [
        Model("failed"),
        model([8, 8]),
        model([3, 3], decision="copy"),
        Model("inconclusive"),
        model([2, 2], decision="inconclusive"),
        model([1, 1], decision="copy"),
        model([8, 8]),
    ]
    assert ranked(models) == [5, 2, 4, 1, 6, 3, 0]
    assert ranked([]) == []


@pytest.mark.parametrize("values", [[0.3, 0.1, 0.2], [0.0, 0.0, 5.0]])
def test_without_thresholds_values_are_held_against_one_another(values: list[float]) -> None:
    models = [
        Model("inconclusive", {"a": Metric("black-box", value, None), "b": Metric("black-box", 100 * value, None)})
        for value in values
    ]
    assert ranked(models) == sorted(range(3), key=lambda place: values[place])

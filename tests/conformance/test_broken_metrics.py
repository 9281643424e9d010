"""The contract of metrics fails where it should: here it is broken in each way that it is there for."""

import dataclasses

import numpy as np
import pytest
from contracts import failures

from deepjudge_core import Access, Answers, Metric
from deepjudge_core.components.values import Chance
from deepjudge_core.testing import check_metric, metric_checks


def total_variation(victim: Answers, suspect: Answers) -> float:
    return float(np.abs(victim.probabilities - suspect.probabilities).sum(axis=1).mean() / 2)


def never_zero(victim: Answers, suspect: Answers) -> float:
    return total_variation(victim, suspect) + 1e-3


def below_zero(victim: Answers, suspect: Answers) -> float:
    return -total_variation(victim, suspect)


def without_mean(victim: Answers, suspect: Answers) -> float:
    return float(np.log(total_variation(victim, suspect)))


def too_great(victim: Answers, suspect: Answers) -> float:
    return 2 * total_variation(victim, suspect)


def upside_down(victim: Answers, suspect: Answers) -> float:
    distance = total_variation(victim, suspect)
    return 1 - distance if distance else 0.0


def by_place(victim: Answers, suspect: Answers) -> float:
    return total_variation(
        dataclasses.replace(victim, probabilities=victim.probabilities[:9]),
        dataclasses.replace(suspect, probabilities=suspect.probabilities[:9]),
    )


def changes_answers(victim: Answers, suspect: Answers) -> float:
    suspect.probabilities[:] = suspect.probabilities.round(3)
    return total_variation(victim, suspect)


def changes_seeds(victim: Answers, suspect: Answers) -> float:
    suspect.seed_labels[:] = suspect.labels
    return total_variation(victim, suspect)


def undeclared_seeds(victim: Answers, suspect: Answers) -> float:
    return undeclared_outputs(victim, suspect) * (suspect.seed_labels is not None)


def other_each_time(victim: Answers, suspect: Answers) -> float:
    return total_variation(victim, suspect) * np.random.uniform(0.5, 1)  # noqa: NPY002


def undeclared_outputs(victim: Answers, suspect: Answers) -> float:
    layers = suspect.activations or victim.activations
    return float(np.mean([np.abs(values - victim.activations[name]).mean() for name, values in layers.items()]))


def with_argument(victim: Answers, suspect: Answers, order: int) -> float:
    return total_variation(victim, suspect)


def weights_apart(victim: Answers, suspect: Answers) -> float:
    ours, theirs = victim.weights.layers[0], suspect.weights.layers[0]
    return float(np.abs(ours.raw - theirs.raw[ours.neurons]).mean())


def chance(log10_p: float, least: float = -50.0) -> Chance:
    return Chance(log10_p, least, "something agrees")


def always_likely(victim: Answers, suspect: Answers) -> Chance:
    return chance(0)


def never_likely(victim: Answers, suspect: Answers) -> Chance:
    return chance(-40 - 1 / (1 + weights_apart(victim, suspect)))


def no_logarithm(victim: Answers, suspect: Answers) -> Chance:
    return chance(0.05)


def changes_sketches(victim: Answers, suspect: Answers) -> float:
    suspect.weights.layers[0].raw[:] = 0
    return weights_apart(victim, suspect)


def on_weights(distance=weights_apart, p_value=None, background=None) -> Metric:
    return Metric("broken", Access.WEIGHTS, "weights", distance, 0.9, p_value=p_value, background=background)


BROKEN_METRICS: dict[str, tuple[Metric, str]] = {
    metric.distance.__name__ + str(place): (metric, match)
    for place, (metric, match) in enumerate(
        [
            (Metric("broken", Access.PROBABILITIES, "adversarial", never_zero, 0.9), "0 between a model and itself"),
            (
                Metric("broken", Access.PROBABILITIES, "adversarial", below_zero, 0.9),
                "expected a distance within 0..inf",
            ),
            (
                Metric("broken", Access.PROBABILITIES, "adversarial", without_mean, 0.9),
                "expected a finite distance|within",
            ),
            (
                Metric("broken", Access.PROBABILITIES, "adversarial", too_great, 0.9, 1),
                "expected a distance within 0..1",
            ),
            (
                Metric("broken", Access.PROBABILITIES, "adversarial", upside_down, 0.9),
                "slightly changed copies to be nearer",
            ),
            (Metric("broken", Access.PROBABILITIES, "adversarial", by_place, 0.9), "for any order of the cases"),
            (Metric("broken", Access.PROBABILITIES, "adversarial", changes_answers, 0.9), "changed the answers"),
            (Metric("broken", Access.PROBABILITIES, "adversarial", changes_seeds, 0.9), "changed the answers"),
            (Metric("broken", Access.PROBABILITIES, "adversarial", other_each_time, 0.9), "the first time and"),
            (
                Metric("broken", Access.PROBABILITIES, "corners", undeclared_outputs, 0.9),
                "without the suspect's layers",
            ),
            (Metric("broken", Access.LABELS, "adversarial", total_variation, 0.9), "probabilities except the greatest"),
            (Metric("broken", Access.LAYERS, "corners", total_variation, 0.9), "without the suspect's probabilities"),
            (Metric("broken", Access.LAYERS, "corners", undeclared_seeds, 0.9), "without the suspect's probabilities"),
            (
                Metric("broken", Access.GRADIENTS, "adversarial", total_variation, 0.9),
                "expected it not to need gradients",
            ),
            (Metric("broken", Access(0), "adversarial", total_variation, 0.9), "expected to need some Access"),
            (
                Metric("Broken", Access.PROBABILITIES, "adversarial", total_variation, 0.9),
                "expected a name in lower case",
            ),
            (Metric("broken", Access.PROBABILITIES, "adversarial", with_argument, 0.9), "a default for 'order'"),
            (on_weights(p_value=always_likely), "expected less of the victim itself"),
            (on_weights(p_value=never_likely), "expected more than 1e-3 of independent models"),
            (on_weights(p_value=no_logarithm), "expected the logarithm of a probability"),
            (on_weights(background=lambda *_: np.array([-1.0, 1.0])), "expected distances of parts"),
            (on_weights(background=lambda *_: np.full(3, 1e6)), "not to be nearer by far"),
            (on_weights(changes_sketches), "changed the answers"),
        ]
    )
}


def test_a_healthy_metric_keeps_the_contract() -> None:
    check_metric(Metric("total-variation", Access.PROBABILITIES, "adversarial", total_variation, 0.9, 1))


@pytest.mark.parametrize("name", BROKEN_METRICS)
def test_the_contract_of_metrics_fails(name: str) -> None:
    metric, match = BROKEN_METRICS[name]
    with pytest.raises(AssertionError, match=match):
        check_metric(metric)


def test_a_healthy_metric_on_weights_keeps_the_contract() -> None:
    check_metric(on_weights())


def test_each_check_of_metrics_fails_for_a_metric() -> None:
    healthy = Metric("total-variation", Access.PROBABILITIES, "adversarial", total_variation, 0.9, 1)
    idle = {name for name, _ in (*metric_checks(healthy), *metric_checks(on_weights(p_value=always_likely)))}
    for metric, _ in BROKEN_METRICS.values():
        idle -= failures(metric_checks(metric)).keys()
    assert idle == set()

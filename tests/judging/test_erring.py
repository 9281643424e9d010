"""Honest models that err as no control does: none is called a copy, by any shipped rule."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import deepjudge_blackbox
import deepjudge_statistics
import deepjudge_voting
import deepjudge_whitebox
import numpy as np
import pytest
import scipy.stats
import toys
from refusals import expect_facts

from deepjudge_core import (
    Access,
    Calibration,
    Decision,
    JudgeSettings,
    Model,
    Observation,
    QuerySettings,
    Suite,
    build_suite,
    calibrate,
    judge,
    measure,
    observe,
    select_seeds,
)
from deepjudge_core.auditing.outcome import SuspectResult
from deepjudge_core.components.registry import Registry
from deepjudge_core.judging.accuracy import Accuracy, accuracy_gap
from deepjudge_core.types import Array


@functools.cache
def shipped() -> Registry:
    """What is shipped, and the toys' generators."""
    ours = {"blackbox": deepjudge_blackbox, "whitebox": deepjudge_whitebox}
    rules = {"statistics": deepjudge_statistics, "voting": deepjudge_voting}
    return toys.registry_of(toys=toys, **ours, **rules)


METRICS = ("robd", "jsd", "nod", "nad", "lod", "lad")


@functools.cache
def suite() -> Suite:
    victim = toys.make_model(name="victim")
    seeds = select_seeds(victim, *toys.make_inputs(victim, 400), n=200)
    return build_suite(victim, seeds, ["shove", "poke"], registry=shipped())


@functools.cache
def calibration() -> Calibration:
    """Twenty-four controls that know the task."""
    models = (toys.make_model(seed) for seed in (*range(42, 59), *range(60, 67)))
    return calibrate(suite(), [observe(model, suite()) for model in models], METRICS, registry=shipped())


def fitted_otherwise(seed: int, change: Any) -> toys.NumpyModel:
    """A model whose last layer was fitted to something else: what ``change`` makes of inputs and labels."""
    hidden = toys.make_model(seed).weights[:-1]
    x, y = change(*toys.draw(toys.SHAPE, toys.CLASSES, 400, 1), np.random.default_rng(seed))
    features = toys.make_model(seed).activations(x, ["dense2"])["dense2"]
    features = np.hstack([features, np.ones((len(x), 1))])
    ridge = features.T @ features + 1e-2 * np.eye(features.shape[1])
    last = np.linalg.solve(ridge, features.T @ (8 * np.eye(toys.CLASSES)[y]))
    return toys.NumpyModel([*hidden, (last[:-1], last[-1])], toys.SHAPE)


def one_class(seed: int) -> toys.NumpyModel:
    """A model that gives one class to all, by a hair's breadth never in the same words."""
    *hidden, (matrix, bias) = toys.make_model(seed, knows=False).weights
    return toys.NumpyModel([*hidden, (0.05 * matrix, bias + 6 * np.eye(toys.CLASSES)[seed % 4])], toys.SHAPE)


def erratic(seed: int) -> toys.NumpyModel:
    """A model whose answers are noise: weights so great that the least of an input decides."""
    (matrix, bias), *others = toys.make_model(seed, knows=False).weights
    return toys.NumpyModel([(300 * matrix, 300 * bias), *others], toys.SHAPE, activation="tanh")


KINDS: dict[str, Callable[[int], Model]] = {
    "untrained": lambda seed: toys.make_model(seed, knows=False),
    "one class": one_class,
    "noise": erratic,
    "noise labels": lambda seed: fitted_otherwise(seed, lambda x, y, rng: (x, rng.permutation(y))),
    "few rows": lambda seed: fitted_otherwise(seed, lambda x, y, rng: (x[:3], y[:3])),
    "other inputs": lambda seed: fitted_otherwise(seed, lambda x, y, rng: (1 - x, y)),
}
SEEDS = range(80, 84)
KNOWS_NOTHING = ("untrained", "one class", "noise", "other inputs")


@functools.cache
def seen(kind: str, seed: int, access: Access) -> Observation:
    model = toys.make_model(noise=0.05) if kind == "copy" else KINDS[kind](seed)
    model.access, model.name = access, f"{kind} {seed}"
    return observe(model, suite(), QuerySettings(infer=False))  # as it is, whatever would make it better


def judged(access: Access, *, seeds: Sequence[int] = SEEDS, **judging: Any) -> dict[str, SuspectResult]:
    """A copy, and honest models that err."""
    suspects = [seen("copy", 0, access), *(seen(kind, seed, access) for kind in KINDS for seed in seeds)]
    by = JudgeSettings(**judging)
    known = calibrate(suite(), calibration().controls, by.metrics or METRICS, registry=shipped())
    outcome = toys.outcome(suite(), known, suspects, by, registry=shipped())
    return {result.model.name: result for result in outcome.suspects if result.model}


RULES: list[tuple[str, dict[str, Any]]] = [
    ("voting", {}),
    ("prediction-bound", {}),
    ("tolerance-bound", {}),
    ("combine", {"method": "harmonic"}),
    ("combine", {"method": "bonferroni"}),
    ("combine", {"method": "score", "level": 0.05}),
    ("conformal", {"level": 0.1}),
]


@pytest.mark.parametrize("groups", ["separate", "joint"])
@pytest.mark.parametrize("access", [Access.FULL, Access.BLACK_BOX, Access.LABELS], ids=["layers", "answers", "labels"])
@pytest.mark.parametrize(("rule", "options"), RULES)
def test_no_rule_takes_errors_for_likeness(rule: str, options: dict[str, Any], access: Access, groups: str) -> None:
    for metrics in (METRICS, ("robd",), ("robd-reference",)):
        results = judged(access, rule=rule, rule_options=options, metrics=list(metrics), groups=groups)
        copy = results.pop("copy 0")
        if groups == "separate" or len(metrics) == 1:  # one vote over six of which most cannot be had is none
            assert copy.decision is Decision.COPY
        for name, result in results.items():
            assert result.verdict, result.failure
            assert result.decision in (Decision.INDEPENDENT, Decision.INCONCLUSIVE), name
            if name.rsplit(" ", 1)[0] in KNOWS_NOTHING:
                assert result.decision is Decision.INCONCLUSIVE, name  # nor is it said that it is independent


def test_who_errs_is_farther_than_who_does_not() -> None:
    # By the paper's distance many are as near as copies.
    known = calibrate(suite(), calibration().controls, ["robd", "robd-reference"], registry=shipped())
    nearest = known.values("robd").min()
    by_the_paper = []
    for kind in KNOWS_NOTHING:
        for seed in SEEDS:
            values = measure(suite(), seen(kind, seed, Access.FULL), ["robd", "robd-reference"], registry=shipped())
            assert values["robd"].value is not None
            assert values["robd-reference"].value is not None
            assert values["robd"].value > nearest
            by_the_paper.append(values["robd-reference"].value < 0.7 * known.values("robd-reference").min())
    assert sum(by_the_paper) >= 4


@pytest.mark.parametrize("access", [Access.FULL, Access.LABELS], ids=["layers", "labels"])
@pytest.mark.parametrize(("rule", "options"), [("prediction-bound", {}), ("combine", {"method": "harmonic"})])
@pytest.mark.parametrize("metrics", [METRICS, ("robd",), ("robd-reference",)])
def test_a_fleet_of_them(rule: str, options: dict[str, Any], access: Access, metrics: tuple[str, ...]) -> None:
    results = judged(access, rule=rule, rule_options=options, fdr=0.05, metrics=list(metrics))
    assert results.pop("copy 0").decision is Decision.COPY
    for name, result in results.items():
        assert result.decision in (Decision.INDEPENDENT, Decision.INCONCLUSIVE), name
        if name.rsplit(" ", 1)[0] in KNOWS_NOTHING:
            assert result.decision is Decision.INCONCLUSIVE, name


def test_what_is_said_of_them() -> None:
    # By the paper's distance and a rule with p-values, which would accuse.
    by = JudgeSettings(["robd-reference"], "prediction-bound")
    known = calibrate(suite(), calibration().controls, by.metrics, registry=shipped())
    observation = seen("one class", 80, Access.FULL)
    share = np.mean(observation.probabilities[suite().rows("clean")].argmax(axis=1) == clean_labels())
    measured = measure(suite(), observation, by.metrics, registry=shipped())
    verdict = judge(measured, known, by, registry=shipped())
    setting = verdict.settings["black-box"]
    assert verdict.metrics["robd-reference"].vote.vote is True
    assert (verdict.decision, setting.decision, verdict.points_to) == (Decision.INCONCLUSIVE,) * 2 + (None,)
    # No chance is given of an accusation that is not made, and nothing is said for it.
    assert (setting.p_value, setting.least_p_value, setting.statement) == (None, None, None)
    worst = min(
        np.mean(control.probabilities[suite().rows("clean")].argmax(axis=1) == clean_labels())
        for control in known.controls
    )
    expect_facts(str(verdict.reason), f"{share:.1%}", f"{worst:.1%}", "preprocessing", "classes")
    # What rests on no errors accuses it still: here the victim with a last layer that says one class.
    *hidden, (matrix, _) = toys.make_model().weights
    last = 1e-3 * matrix, np.array([9.0, 0, 0, 0])
    spoilt = observe(toys.NumpyModel([*hidden, last], toys.SHAPE, name="spoilt"), suite())
    by = JudgeSettings(["robd", "jsd", "outputs"], "nearest")
    known = calibrate(suite(), calibration().controls, by.metrics, registry=shipped())
    verdict = judge(measure(suite(), spoilt, by.metrics, registry=shipped()), known, by, registry=shipped())
    assert verdict.settings["black-box"].decision is Decision.INCONCLUSIVE
    assert (verdict.decision, verdict.points_to) == (Decision.COPY, "weights")


def clean_labels() -> Array:
    labels: Array = suite().cases.labels[suite().rows("clean")]
    return labels


# Suspects that are better than all controls.


def worse(observation: Observation, share: float, seed: int) -> Observation:
    """The answers of a model that gets this share of the seeds wrong."""
    assert observation.probabilities is not None
    probabilities = observation.probabilities.copy()
    clean = np.flatnonzero(suite().rows("clean"))
    lost = np.random.default_rng(seed).permutation(clean)[: round(share * len(clean))]
    probabilities[lost] = np.roll(np.eye(4, dtype=np.float32)[suite().cases.labels[lost]], 1, axis=1)
    return replace(observation, probabilities=probabilities)


@pytest.mark.parametrize("groups", ["separate", "joint"])
@pytest.mark.parametrize(("rule", "options"), RULES)
def test_of_a_suspect_better_than_all_controls_they_show_nothing(
    rule: str, options: dict[str, Any], groups: str
) -> None:
    by = JudgeSettings(["robd"], rule, options, groups=groups)  # type: ignore[arg-type]
    good = calibrate(suite(), calibration().controls, by.metrics, registry=shipped())
    poor = calibrate(
        suite(),
        [worse(control, 0.4, place) for place, control in enumerate(calibration().controls)],
        by.metrics,
        far=True,
        registry=shipped(),
    )
    measured = measure(suite(), seen("copy", 0, Access.FULL), by.metrics, registry=shipped())
    assert judge(measured, good, by, registry=shipped()).decision is Decision.COPY
    verdict = judge(measured, poor, by, registry=shipped())
    assert verdict.metrics["robd"].vote.vote is True
    assert (verdict.decision, verdict.points_to) == (Decision.INCONCLUSIVE, None)
    expect_facts(str(verdict.reason), "100.0%", "60.0%")


@pytest.mark.parametrize(
    ("suspect", "controls", "below", "far"),
    [
        # Right of so many.
        ((1000, 1000), [(990, 1000), (950, 1000)], None, None),
        ((940, 1000), [(990, 1000), (950, 1000)], None, None),  # by chance
        ((900, 1000), [(990, 1000), (950, 1000)], True, False),
        ((800, 1000), [(990, 1000), (950, 1000)], True, True),
        ((18, 20), [(20, 20), (19, 20)], None, None),
        ((9, 20), [(20, 20), (19, 20)], True, True),
        ((1000, 1000), [(900, 1000), (700, 1000)], None, None),  # a tenth better
        ((1000, 1000), [(890, 1000), (700, 1000)], False, False),
        ((20, 20), [(17, 20), (14, 20)], None, None),  # by chance
        ((800, 1000), [(900, 1000), (700, 1000)], None, None),
        ((0, 1000), [None, None], None, None),
        (None, [(900, 1000)], None, None),
    ],
)
def test_gaps_of_accuracy(suspect: Any, controls: Any, below: bool | None, far: bool | None) -> None:
    known = [Accuracy(*control) if control else None for control in controls]
    gap = accuracy_gap(Accuracy(*suspect) if suspect else None, known)
    assert (gap is None) == (below is None)
    if gap:
        assert gap.far is far
        shares = [right / of for right, of in controls]
        expect_facts(gap.reason, f"{suspect[0] / suspect[1]:.1%}", f"{min(shares) if below else max(shares):.1%}")


@pytest.mark.parametrize(
    ("right", "of", "more", "total"), [(3, 10, 9, 10), (45, 50, 49, 50), (0, 5, 5, 5), (7, 9, 8, 9)]
)
def test_fishers_exact_test(right: int, of: int, more: int, total: int) -> None:
    table = [[right, of - right], [more, total - more]]
    p_value = scipy.stats.fisher_exact(table, alternative="less").pvalue
    assert Accuracy(right, of).is_below(Accuracy(more, total)) == (p_value <= 0.01)


def said_of(group: str, level: float = 0.5, **shares: float) -> Decision:
    """What a rule, by default a lax one, says of a model like a control at these shares of the least distances."""
    like_a_control = next(iter(calibration().measurements[0].values()))
    values = {name: share * float(calibration().values(name).min()) for name, share in shares.items()}
    alike = 1 - values["robd"] if "robd" in values else None
    of_model = {"accuracy": like_a_control.accuracy, "widths": like_a_control.widths, "alike": alike}
    of_model["ordinary"] = like_a_control.ordinary
    honest = measure(suite(), seen("one class", 80, Access.FULL), list(values), registry=shipped())
    measured = {name: replace(honest[name], value=value, **of_model) for name, value in values.items()}
    settings = JudgeSettings(list(values), "prediction-bound", {"level": level})
    decision = judge(measured, calibration(), settings, registry=shipped()).settings[group].decision
    assert decision is not None
    return decision


def test_how_sure_a_model_is_accuses_it_of_nothing_by_itself() -> None:
    said = functools.partial(said_of, "black-box")
    assert said(robd=1.001, jsd=0.75) is Decision.INCONCLUSIVE
    assert said(robd=0.99, jsd=0.75) is Decision.COPY  # by its labels it is nearer than every control
    assert said(robd=1.001, jsd=0.7) is Decision.COPY  # much nearer
    assert said(robd=1.7, jsd=1.7) is Decision.INDEPENDENT


def test_who_is_barely_nearer_than_the_controls_is_no_copy() -> None:
    # The least of some controls is not the least of all honest models, whatever a rule makes of their spread.
    assert said_of("black-box", robd=0.97, jsd=0.93) is Decision.INCONCLUSIVE
    assert said_of("black-box", robd=0.97, jsd=0.89) is Decision.COPY
    assert said_of("black-box", robd=0.89) is Decision.COPY


def test_one_of_several_metrics_of_layers_accuses_nobody_by_itself() -> None:
    said = functools.partial(said_of, "white-box")
    assert said(nod=0.3, lod=1.1, lad=1.1) is Decision.INCONCLUSIVE
    assert said(nod=0.3, lad=0.8) is Decision.INCONCLUSIVE
    assert said(nod=0.3, lod=0.3, lad=0.8) is Decision.COPY
    assert said(lod=0.3) is Decision.COPY


def test_who_is_much_nearer_than_all_controls_is_not_independent() -> None:
    # Of few controls, or such as differ much, a rule's bound is near 0: then it calls no copy one.
    strict = functools.partial(said_of, level=1e-40)
    assert strict("black-box", robd=0.3, jsd=0.95) is Decision.INCONCLUSIVE
    assert strict("black-box", robd=0.3) is Decision.INCONCLUSIVE
    assert strict("white-box", nod=0.3, lod=0.3, lad=0.95) is Decision.INCONCLUSIVE


def test_only_who_lies_among_the_controls_is_independent() -> None:
    strict = functools.partial(said_of, level=1e-40)
    assert strict("black-box", robd=0.95, jsd=0.95) is Decision.INDEPENDENT
    assert strict("black-box", robd=0.8, jsd=0.95) is Decision.INCONCLUSIVE  # between the victim and the controls
    assert strict("white-box", nod=0.8, lod=0.95, lad=0.95) is Decision.INDEPENDENT
    assert strict("white-box", nod=0.8, lod=0.8, lad=0.95) is Decision.INCONCLUSIVE


def test_one_metric_at_its_extreme_outweighs_those_that_see_nothing() -> None:
    # Who hides a copy's layers behind those of another network hides them from most metrics.
    strict = functools.partial(said_of, "white-box", level=1e-40)
    assert strict(nod=0.3, lod=1.1, lad=1.1) is Decision.INCONCLUSIVE
    assert strict(nod=0.6, lod=1.1, lad=1.1) is Decision.INDEPENDENT

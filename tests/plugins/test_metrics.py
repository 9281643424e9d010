import math

import deepjudge_blackbox
import deepjudge_whitebox
import numpy as np
import pytest
import scipy
from deepjudge_blackbox import metrics as blackbox
from deepjudge_blackbox.metrics import akh, cka, jsd, jsd_reference, robd, robd_reference, sac
from deepjudge_whitebox.metrics import is_active, lad, lod, nad, nnod, nod
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from deepjudge_core.components.values import Answers
from deepjudge_core.models.model import Access

BLACK_BOX = (robd, robd_reference, jsd, jsd_reference, sac, cka, akh)
WHITE_BOX = (nod, nad, lod, lad, nnod)
UPPER = {
    robd: 1,
    robd_reference: 1,
    jsd: math.log(2),
    jsd_reference: math.log(2),
    sac: 1,
    cka: 2,
    akh: 1,
    nod: math.inf,
    nad: 1,
    lod: math.inf,
    lad: 1,
    nnod: math.inf,
}
WIDTHS = {"first": 4, "second": 7}


def answers(seed: int, cases: int = 12, classes: int = 5, made_for_seed: int = 0) -> Answers:
    """Random answers; cases, labels and what they were made for depend on their number only."""
    rng, shared = np.random.default_rng([seed, 1]), np.random.default_rng([made_for_seed, 2])
    labels = shared.integers(0, classes, cases)
    layer = shared.integers(0, 2, cases)
    made_for = {
        name: np.where(layer == i, shared.integers(0, width, cases), -1)
        for i, (name, width) in enumerate(WIDTHS.items())
    }
    p = rng.dirichlet(np.full(classes, 0.3), cases).astype(np.float32)
    outputs = {name: rng.normal(size=(cases, width)).astype(np.float32) for name, width in WIDTHS.items()}
    return Answers(labels, p, outputs, made_for)


def rows(a: Answers, order: np.ndarray) -> Answers:
    assert a.probabilities is not None
    return Answers(
        a.labels[order],
        a.probabilities[order],
        {name: values[order] for name, values in a.activations.items()},
        {name: neurons[order] for name, neurons in a.made_for.items()},
        None if a.seed_labels is None else a.seed_labels[order],
    )


SYMMETRIC = [metric for metric in BLACK_BOX + WHITE_BOX if metric is not robd]


@pytest.mark.parametrize("metric", SYMMETRIC)
@given(one=st.integers(0, 10**6), other=st.integers(0, 10**6), cases=st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_properties_of_a_distance(metric, one, other, cases):
    a, b = answers(one, cases), answers(other, cases)
    value = metric(a, b)
    assert metric(a, a) == 0
    assert 0 <= value <= UPPER[metric]
    assert metric(b, a) == pytest.approx(value, abs=1e-12)
    order = np.random.default_rng(one).permutation(cases)
    assert metric(rows(a, order), rows(b, order)) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_jsd_is_the_square_of_scipys_distance(seed):
    a, b = answers(seed), answers(seed + 100)
    expected = np.mean([jensenshannon(p, q) ** 2 for p, q in zip(a.probabilities, b.probabilities, strict=True)])
    assert jsd(a, b) == pytest.approx(expected, rel=1e-6)


def of_scores(scores: np.ndarray, seeds: np.ndarray, change=lambda p: p) -> Answers:
    p, of_seeds = (change(scipy.special.softmax(z, axis=1)).astype(np.float32) for z in (scores, seeds))
    return Answers(np.zeros(len(p), np.int64), p, seed_probabilities=of_seeds)


def keeping_the_top(p: np.ndarray) -> np.ndarray:
    """Noise: other probabilities for each class, in such an order that the likeliest stays."""
    noise = np.sort(np.random.default_rng(0).dirichlet(np.ones(p.shape[1]), len(p)), axis=1)
    top = p.argmax(axis=1)
    noisy = noise[:, ::-1].copy()
    rows = np.arange(len(p))
    noisy[rows, top], noisy[:, 0] = noisy[:, 0].copy(), noisy[rows, top]
    return noisy


# What a thief does to the probabilities of a copy without changing a label.
MASKS = {
    "scores / 20": lambda p: scipy.special.softmax(np.log(p) / 20, axis=1),
    "scores * 20": lambda p: scipy.special.softmax(np.log(p) * 20, axis=1),
    "rounded to a digit": lambda p: np.round(p, 1) + 1e-6,
    "all on one class": lambda p: np.eye(p.shape[1])[p.argmax(axis=1)],
    "noise": keeping_the_top,
}


@pytest.mark.parametrize("mask", MASKS)
def test_jsd_of_a_copy_is_small_whatever_is_done_to_its_probabilities(mask):
    rng = np.random.default_rng(0)
    scores, seeds = (rng.normal(0, 6, (60, 10)) for _ in range(2))
    victim = of_scores(scores, seeds)
    masked = of_scores(scores, seeds, lambda p: MASKS[mask](p) / MASKS[mask](p).sum(axis=1, keepdims=True))
    honest = of_scores(rng.normal(0, 6, (60, 10)), seeds)

    assert jsd(victim, masked) <= jsd_reference(victim, masked)
    assert jsd(victim, masked) < 0.1 < 0.4 < jsd(victim, honest)
    if mask.startswith("scores /"):
        assert jsd_reference(victim, masked) > 0.3
        assert jsd(victim, masked) == pytest.approx(0, abs=1e-6)


def test_jsd_of_classes_with_a_probability_each_is_blind_to_temperature():
    rng = np.random.default_rng(0)
    z, seeds = (rng.normal(0, 4, (60, 6)) for _ in range(2))
    one, masked, other = (
        Answers(
            np.zeros(60, np.int64),
            scipy.special.expit(scores * factor).astype(np.float32),
            seed_probabilities=scipy.special.expit(seeds * factor).astype(np.float32),
            independent=True,
        )
        for scores, factor in ((z, 1.0), (z, 0.1), (rng.normal(0, 4, (60, 6)), 1.0))
    )

    assert jsd_reference(one, masked) > 0.05
    assert jsd(one, masked) < 1e-6
    assert jsd(one, other) > 0.2


def test_jsd_at_its_ends():
    labels = np.zeros(2, dtype=int)
    sure = Answers(labels, np.array([[1, 0, 0], [0, 1, 0]], np.float32))
    otherwise = Answers(labels, np.array([[0, 1, 0], [0, 0, 1]], np.float32))
    assert jsd(sure, otherwise) == math.log(2)
    third = Answers(labels, np.full((2, 3), 1 / 3, np.float32))
    assert jsd(third, third) == 0


def test_jsd_of_answers_that_differ_by_rounding_is_nearly_0_and_not_negative():
    a = answers(0, 500)
    nudged = np.nextafter(a.probabilities, np.float32(1))
    assert 0 <= jsd(a, Answers(a.labels, nudged)) < 1e-12


def asked(seed: int, cases: int, classes: int = 4) -> tuple[Answers, Answers]:
    """A victim that errs on most cases, and a suspect that agrees with it, knows the seeds, or both, here and there."""
    rng, eye = np.random.default_rng(seed), np.eye(classes, dtype=np.float32)
    labels = rng.integers(0, classes, cases)
    ours = (labels + np.where(rng.random(cases) < 0.1, 0, rng.integers(1, classes, cases))) % classes
    ours[0] = (labels[0] + 1) % classes
    theirs = np.where(rng.random(cases) < 0.5, ours, rng.integers(0, classes, cases))
    seeds = np.where(rng.random(cases) < 0.7, labels, rng.integers(0, classes, cases))
    return Answers(labels, eye[ours], seed_labels=labels), Answers(labels, eye[theirs], seed_labels=seeds)


@given(seed=st.integers(0, 10**6), cases=st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_robd_case_by_case(seed, cases):
    victim, suspect = asked(seed, cases)
    counted = alike = 0
    for case in range(cases):
        truth = int(victim.labels[case])
        ours, theirs = (list(a.probabilities[case]).index(1) for a in (victim, suspect))
        if ours == truth:
            continue
        counted += 1
        if theirs == ours and int(suspect.seed_labels[case]) == truth:
            alike += 1
    assert robd(victim, suspect) == pytest.approx(1 - alike / counted, abs=1e-12)
    assert robd(victim, victim) == 0
    order = np.random.default_rng(seed).permutation(cases)
    assert robd(rows(victim, order), rows(suspect, order)) == pytest.approx(robd(victim, suspect), abs=1e-12)


def test_robd_of_who_errs_as_the_victim_and_of_who_errs_otherwise():
    eye = np.eye(3, dtype=np.float32)
    labels = np.array([0, 1, 2, 0, 1])
    victim = Answers(labels, eye[[1, 2, 0, 0, 2]], seed_labels=labels)  # it errs on four

    def suspect(answered: list[int], seeds: list[int] | None) -> Answers:
        return Answers(labels, eye[answered], seed_labels=None if seeds is None else np.array(seeds))

    right = list(labels)
    assert robd(victim, suspect([1, 2, 0, 2, 2], right)) == 0  # whatever it says where the victim is right
    assert robd(victim, suspect(right, right)) == 1
    assert robd(victim, suspect([2, 0, 1, 1, 0], right)) == 1  # it errs on all, and never as the victim
    assert robd(victim, suspect([1, 2, 0, 2, 2], [1, 2, 0, 0, 2])) == 1  # it does not know the seeds of the cases
    assert robd(victim, suspect([1, 2, 0, 2, 2], [0, 1, 0, 0, 2])) == 2 / 4
    assert robd(victim, suspect([1, 2, 0, 2, 2], None)) == 0  # where nothing is known of the seeds
    with pytest.raises(ValueError, match="case"):
        robd(Answers(labels, eye[labels]), victim)


def test_the_distance_of_the_paper_counts_how_many_more_cases_are_classified_as_the_ground_truth():
    eye = np.eye(3, dtype=np.float32)
    labels = np.array([0, 1, 2, 0, 1])
    victim = Answers(labels, eye[[1, 2, 0, 0, 2]])  # right once
    suspect = Answers(labels, eye[[0, 1, 2, 1, 2]])  # right three times
    for distance in (robd_reference(victim, suspect), robd(victim, suspect, reference=True)):
        assert distance == pytest.approx(2 / 5)
    assert robd_reference(suspect, victim) == pytest.approx(2 / 5)
    # One that errs in its own way is as near as one that errs as the victim does.
    assert robd_reference(victim, Answers(labels, eye[[2, 0, 1, 0, 2]])) == 0


@pytest.mark.parametrize("cases", [1, 2, 9, 30])
def test_sac_pair_by_pair(cases, monkeypatch):
    monkeypatch.setattr(blackbox, "_BLOCK", 4)  # the last one is not full
    a, b = answers(1, cases), answers(2, cases)

    def correlation(x: np.ndarray, y: np.ndarray) -> float:
        dot = sum(float(s) * float(t) for s, t in zip(x, y, strict=True))
        return dot / math.sqrt(sum(float(s) ** 2 for s in x)) / math.sqrt(sum(float(t) ** 2 for t in y))

    p, q = a.probabilities, b.probabilities
    total = sum(abs(correlation(p[i], p[j]) - correlation(q[i], q[j])) for i in range(cases) for j in range(cases))
    assert sac(a, b) == pytest.approx(total / cases**2, rel=1e-9, abs=1e-12)


def test_sac_sees_which_cases_go_together_and_not_the_classes_they_get():
    labels = np.zeros(4, dtype=int)
    one = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    renamed, regrouped = one[:, [2, 3, 0, 1]], np.eye(4, dtype=np.float32)[[0, 1, 0, 1]]
    assert sac(Answers(labels, one), Answers(labels, renamed)) == 0
    assert sac(Answers(labels, one), Answers(labels, regrouped)) == 8 / 16


def test_akh_counts_other_labels():
    eye = np.eye(3, dtype=np.float32)
    labels = np.array([0, 1, 2, 0])
    victim, suspect = Answers(labels, eye[[1, 2, 0, 1]]), Answers(labels, eye[[1, 1, 0, 2]])
    assert akh(victim, suspect) == 2 / 4


def explicit_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. (2012), eq. 5, term by term, of kernels as they are: not centred, their diagonals set to 0."""

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n, one = len(k), np.ones(len(k))
        trace = np.trace(k @ m)
        sums = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        rows = 2 / (n - 2) * (one @ k @ m @ one)
        return float((trace + sums - rows) / (n * (n - 3)))

    k, m = (z.astype(np.float64) @ z.T.astype(np.float64) for z in (x, y))
    for kernel in (k, m):
        np.fill_diagonal(kernel, 0)
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize(("cases", "classes"), [(4, 3), (5, 8), (30, 5), (12, 40)])
def test_cka_by_explicit_kernels(cases, classes):
    for seed in range(5):
        a, b = answers(seed, cases, classes), answers(seed + 100, cases, classes)
        assert cka(a, b) == pytest.approx(1 - explicit_cka(a.probabilities, b.probabilities), abs=1e-9)


def test_cka_of_unrelated_answers_is_1_in_the_mean_and_on_both_sides_of_it():
    distances = np.array([cka(answers(seed, 10), answers(seed + 10**6, 10)) for seed in range(2000)])
    assert distances.mean() == pytest.approx(1, abs=4 * distances.std() / math.sqrt(len(distances)))
    assert distances.min() < 0.8
    assert distances.max() > 1.2


def test_cka_where_there_is_nothing_to_compare():
    a = answers(1, 3)
    assert cka(a, answers(2, 3)) == 0  # too few cases, and so of every model
    same = Answers(np.zeros(9, int), np.full((9, 5), 0.2, np.float32))
    assert cka(same, same) == 0
    assert cka(same, answers(2, 9)) == 1
    alone = same.probabilities.copy()
    alone[3] = np.eye(5, dtype=np.float32)[0]  # one case that differs from all others is no pattern
    assert cka(Answers(same.labels, alone), answers(2, 9)) == 1


def by_hand_nnod(a: Answers, b: Answers) -> float:
    neurons: dict[tuple[str, int], list[float]] = {}
    for layer, made_for in a.made_for.items():
        cases = [case for case, neuron in enumerate(made_for) if neuron >= 0]
        for case in cases:
            neuron = made_for[case]
            units = []
            for outputs in (a.activations[layer], b.activations[layer]):
                values = [float(outputs[other, neuron]) for other in cases]
                units.append(values[cases.index(case)] / (max(values) if max(values) > 0 else max(map(abs, values))))
            neurons.setdefault((layer, neuron), []).append(abs(units[0] - units[1]))
    return float(np.mean([np.mean(values) for values in neurons.values()]))


@pytest.mark.parametrize("cases", [1, 3, 40])
def test_nnod_case_by_case(cases):
    a, b = answers(1, cases), answers(2, cases)
    assert nnod(a, b) == pytest.approx(by_hand_nnod(a, b), rel=1e-12)


@given(seed=st.integers(0, 10**6), power=st.integers(-8, 8))
@settings(max_examples=25, deadline=None)
def test_nnod_does_not_see_the_scale_of_a_neuron(seed, power):
    a, b = answers(seed), answers(seed + 1)
    factors = {name: 2.0 ** (power + np.arange(width)) for name, width in WIDTHS.items()}
    scaled = {name: (values * factors[name]).astype(np.float32) for name, values in b.activations.items()}
    assert nnod(a, Answers(b.labels, None, scaled, b.made_for)) == pytest.approx(nnod(a, b), rel=1e-6)


def test_nnod_of_neurons_that_are_never_above_0():
    made_for = {"layer": np.array([0, 0, 1])}

    def model(*outputs: list[float]) -> Answers:
        return Answers(np.zeros(3, int), None, {"layer": np.array(outputs, np.float32)}, made_for)

    dead = model([0, 0], [0, 0], [0, 0])
    assert nnod(dead, dead) == 0
    assert nnod(dead, model([-2, -8], [-4, -1], [-1, -8])) == ((0.5 + 1) / 2 + 1) / 2


def status(outputs: np.ndarray) -> np.ndarray:
    spread = outputs.max() - outputs.min()
    return ((outputs - outputs.min()) / spread > 0.5).astype(int) if spread else np.zeros(len(outputs), int)


def by_hand(metric, a: Answers, b: Answers, reference: bool = False) -> float:
    """The definitions of method.md, case by case; the reference's scaling as in its code (2022)."""
    neurons: dict[tuple[str, int], list[float]] = {}
    cases = []
    for layer, made_for in a.made_for.items():
        for case, neuron in enumerate(made_for):
            if neuron < 0:
                continue
            x, y = (answers.activations[layer][case].astype(float) for answers in (a, b))
            on_x, on_y = status(x), status(y)
            difference = {nod: abs(x[neuron] - y[neuron]), nad: abs(on_x[neuron] - on_y[neuron])}.get(metric, 0)
            neurons.setdefault((layer, neuron), []).append(difference)
            apart = abs(on_x - on_y).sum()
            cases.append({lod: math.dist(x, y), lad: apart if reference else apart / len(x)}.get(metric, 0))
    if metric in (lod, lad):
        return float(np.mean(cases))
    mean = float(np.mean([np.mean(values) for values in neurons.values()]))
    return mean * len(neurons) if reference else mean


@pytest.mark.parametrize("metric", [nod, nad, lod, lad])
@pytest.mark.parametrize("cases", [1, 3, 40])
def test_white_box_metrics_case_by_case(metric, cases):
    a, b = answers(1, cases), answers(2, cases)
    assert metric(a, b) == pytest.approx(by_hand(metric, a, b), rel=1e-12)


@pytest.mark.parametrize("metric", [nad, lad])
def test_scaling_of_the_reference(metric):
    a, b = answers(1, 40), answers(2, 40)
    assert metric(a, b) > 0
    assert metric(a, b, reference=True) == pytest.approx(by_hand(metric, a, b, reference=True), rel=1e-12)


def test_neurons_count_alike_whatever_the_number_of_their_cases():
    made_for = {"layer": np.array([0, 0, 0, 1])}
    victim = Answers(np.zeros(4, int), None, {"layer": np.zeros((4, 2), np.float32)}, made_for)
    moved = np.array([[1, 0], [1, 0], [1, 0], [0, 5]], np.float32)
    assert nod(victim, Answers(np.zeros(4, int), None, {"layer": moved}, made_for)) == 3


def test_cases_of_other_sets_and_layers_do_not_count():
    a, b = answers(1, 20), answers(2, 20)
    made_for = {"first": a.made_for["first"], "second": np.full(20, -1)}
    one, other = (Answers(x.labels, None, x.activations, made_for) for x in (a, b))
    less_one, less_other = (
        Answers(x.labels, None, {"first": x.activations["first"]}, {"first": x.made_for["first"]}) for x in (a, b)
    )
    for metric in WHITE_BOX:
        assert metric(one, other) == metric(less_one, less_other)


def test_activation_status():
    outputs = np.array([[0, 1, 2, 4], [-3, -1, -1, -3], [7, 7, 7, 7]], np.float32)
    assert is_active(outputs).tolist() == [[False, False, False, True], [False, True, True, False], [False] * 4]


@pytest.mark.parametrize("metric", BLACK_BOX + WHITE_BOX)
def test_no_case_is_an_error_of_one_line(metric):
    nothing = rows(answers(0), np.array([], dtype=int))
    with pytest.raises(ValueError, match="case"):
        metric(nothing, nothing)


def test_what_the_plugins_register():
    metrics = [*deepjudge_blackbox.deepjudge_metrics(), *deepjudge_whitebox.deepjudge_metrics()]
    facts = {m.name: (m.needs, m.on, m.alpha, m.upper, m.group) for m in metrics}
    assert {m.name for m in metrics if not m.default} == {
        "robd-reference",
        "jsd-reference",
        "sac",
        "cka",
        "akh",
        "nnod",
    }
    corners = (Access.LAYERS, "corners", 0.6)
    assert facts == {
        "robd": (Access.LABELS, "adversarial", 0.9, 1, "black-box"),
        "robd-reference": (Access.LABELS, "adversarial", 0.9, 1, "black-box"),
        "jsd": (Access.PROBABILITIES, "adversarial", 0.9, math.log(2), "black-box"),
        "jsd-reference": (Access.PROBABILITIES, "adversarial", 0.9, math.log(2), "black-box"),
        "nod": (*corners, math.inf, "white-box"),
        "nad": (*corners, 1, "white-box"),
        "lod": (*corners, math.inf, "white-box"),
        "lad": (*corners, 1, "white-box"),
        "sac": (Access.PROBABILITIES, "adversarial", 0.9, 1, "black-box"),
        "cka": (Access.PROBABILITIES, "adversarial", 0.9, 2, "black-box"),
        "akh": (Access.LABELS, "mistakes", 0.9, 1, "black-box"),
        "nnod": (*corners, math.inf, "white-box"),
        "recovery": (Access.LAYERS, "cases", 0.6, 1, "white-box"),
    }

"""Controls of a careless or cheating owner: copies of one another, of another kind, or of the victim.

Each test plays the attacker: what controls like these accused or acquitted wrongly is inconclusive, with the reason.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toys
from refusals import expect_facts, refused

from deepjudge_core import (
    Access,
    Calibration,
    Decision,
    Evidence,
    Judgement,
    JudgeSettings,
    Observation,
    Rule,
    Suite,
    Verdict,
    Vote,
    build_suite,
    calibrate,
    hookimpl,
    load_registry,
    measure,
    observe,
    select_seeds,
)
from deepjudge_core.components.strata import parts_of
from deepjudge_core.errors import CalibrationError
from deepjudge_core.files import storage
from deepjudge_core.judging.calibration import load_calibration, save_calibration
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.likeness import Likeness
from deepjudge_core.judging.nearer import nearer_model
from deepjudge_core.report.audit_json import report_to_json
from deepjudge_core.testing.numpy_model import NumpyModel


def any_nearer(evidence: Mapping[str, Evidence]) -> Judgement:
    """A third party's rule: whoever is nearer than all controls, by any metric, is a copy."""
    votes = {name: Vote(e.value < e.controls.min()) for name, e in evidence.items()}
    copy = any(vote.vote for vote in votes.values())
    return Judgement(Decision.COPY if copy else Decision.INDEPENDENT, None, votes)


@hookimpl
def deepjudge_rules() -> list[Rule]:
    return [Rule("any-nearer", judge=any_nearer)]


REGISTRY = load_registry({"mine": SimpleNamespace(deepjudge_rules=deepjudge_rules)})
RULES = ("voting", "prediction-bound", "tolerance-bound", "any-nearer")
HONEST, CONTROLS = range(40, 46), (3, 4, 5, 6, 7, 8, 9)


@functools.cache
def suite() -> Suite:
    victim = toys.make_model(0)
    x, _ = toys.draw(toys.SHAPE, toys.CLASSES, 300, 0)
    seeds = select_seeds(victim, x, victim.predict(x).argmax(axis=1), n=80)
    options = {"neuron-corners": {"iterations": 60, "tries": 3}}
    return build_suite(victim, seeds, ["pgd", "neuron-corners"], options=options, registry=REGISTRY, force=True)


def seen(model: NumpyModel, name: str | None = None) -> Observation:
    if name:
        model.name = name
    return observe(model, suite())


@functools.cache
def of_seed(seed: int) -> Observation:
    return seen(toys.make_model(seed))


def noisy(seed: int, noise: float, draw: int, *, permuted: bool = False) -> NumpyModel:
    """A model with noise, and the neurons of its hidden layers in another order if that is to be hidden."""
    weights = toys.make_model(seed).perturbed(noise, seed=draw).weights
    if permuted:
        for place in range(len(weights) - 1):
            order = np.random.default_rng([draw, place]).permutation(len(weights[place][1]))
            (matrix, bias), (after, rest) = weights[place], weights[place + 1]
            weights[place], weights[place + 1] = (matrix[:, order], bias[order]), (after[order], rest)
    return NumpyModel(weights, toys.SHAPE, name=f"noisy-{seed}-{draw}")


@functools.cache
def duplicates(seed: int, noise: float, *, permuted: bool = False) -> tuple[Observation, ...]:
    return tuple(seen(noisy(seed, noise, draw, permuted=permuted)) for draw in range(8))


def sure_of_cases(one: Observation) -> Observation:
    """The same, all but its answers to the seeds those of every good model: test cases mislead the victim alone."""
    truth = np.eye(toys.CLASSES)[suite().cases.labels]
    answers = np.where(suite().rows("clean")[:, None], one.probabilities, 0.99 * truth + 0.01 / toys.CLASSES)
    return replace(one, probabilities=answers.astype(np.float32), activations={})


@functools.cache
def tuned(draw: int) -> Observation:
    """A copy that was trained on."""
    from deepjudge_core.models.network import Network
    from deepjudge_core.models.training import Schedule, train

    victim = toys.make_model(0)
    network = toys._network(toys.Toy(victim))
    assert isinstance(network, Network)
    x, y = toys.draw(toys.SHAPE, toys.CLASSES, 300, 100 + draw)
    weights = train(network, x, y, np.random.default_rng(draw), schedule=Schedule(2, 2e-3, 32)).weights
    pairs = [(weights[f"{layer}.weight"], weights[f"{layer}.bias"]) for layer in network.architecture.layers]
    return seen(NumpyModel(pairs, toys.SHAPE), f"tuned-{draw}")


def calibrated(controls: Sequence[Observation], strata: Sequence[str | None] = (), **options: Any) -> Calibration:
    return calibrate(suite(), controls, strata=strata, registry=REGISTRY, **options)


def verdict_on(suspect: Observation, calibration: Calibration, rule: str = "voting", **settings: Any) -> Verdict:
    judge = Judge.of(JudgeSettings(rule=rule, **settings), REGISTRY)
    measured = measure(suite(), suspect, judge.settings.metrics, match=calibration.match, registry=REGISTRY)
    return judge.judge(measured, calibration)


def without_layers(observation: Observation) -> Observation:
    """As one that shows its answers alone."""
    model = replace(observation.model, access=Access.BLACK_BOX)
    return replace(observation, model=model, activations={}, recovered={})


# Near-duplicates.


def test_ordinary_controls_are_all_different_and_decide() -> None:
    calibration = calibrated([of_seed(seed) for seed in CONTROLS])
    assert (calibration.effective, calibration.doubt) == (len(CONTROLS), None)
    decisions = [verdict_on(of_seed(seed), calibration).decision for seed in HONEST]
    assert decisions.count(Decision.INDEPENDENT) >= 4
    assert Decision.COPY not in decisions
    assert all(verdict_on(tuned(draw), calibration).decision is Decision.COPY for draw in range(3))


@pytest.mark.parametrize(("noise", "permuted"), [(0.01, False), (0.03, False), (0.01, True)])
def test_noisy_copies_of_one_control_accuse_no_honest_rival(noise: float, permuted: bool) -> None:
    accused = 0
    for seed in (4, 5):
        copies = duplicates(seed, noise, permuted=permuted)
        calibration = calibrated(copies)
        assert (len(calibration.controls), calibration.effective) == (8, 1)
        [note] = [note for note in calibration.notes if note.startswith(copies[0].model.name)]
        expect_facts(note, *(copy.model.name for copy in copies))
        taken = replace(calibration, clusters=tuple(range(8)))  # each for a model of its own
        for suspect, rule in itertools.product(map(of_seed, HONEST), RULES):
            verdict = verdict_on(suspect, calibration, rule)
            assert verdict.decision is Decision.INCONCLUSIVE
            expect_facts(str(verdict.reason), "1 controls", "at least 3", "near-duplicates")
            accused += verdict_on(suspect, taken, rule).decision is Decision.COPY
    assert accused  # so that there was something to prevent


def test_strata_make_no_models_of_near_duplicates() -> None:
    # Controls of each kind are demanded; one model is said to be of two.
    strata = ["same-data", "other-data"] * 4
    calibration = calibrated(duplicates(4, 0.01), strata)
    assert calibration.effective == 1
    assert len(calibration.values("jsd")) == 1
    assert len(calibration.without(3).controls) == 0


def test_near_duplicates_count_once_among_others() -> None:
    others = [of_seed(seed) for seed in CONTROLS]
    with_copies = calibrated([*others, *duplicates(4, 0.01)])
    assert with_copies.effective == len(others)
    assert set(with_copies.clusters[len(others) :]) == {CONTROLS.index(4)}
    for name in ("jsd", "nod"):
        # In place of them all stands the one that is nearest to the victim.
        copies = [one[name].value for one in with_copies.measurements[len(others) :]]
        expected = calibrated(others).values(name)
        expected[1] = min(expected[1], *copies)
        np.testing.assert_array_equal(with_copies.values(name), expected)
    # Who is held out takes its near-duplicates along.
    alone = with_copies.without(len(others))
    assert [one.model.name for one in alone.controls] == [f"toy-{seed}" for seed in CONTROLS if seed != 4]
    assert alone.values("jsd").tolist() == [with_copies.values("jsd")[place] for place in (0, 2, 3, 4, 5, 6)]


def test_near_duplicates_of_a_control_do_not_hide_its_copies() -> None:
    suspect = seen(noisy(4, 0.02, 99), "suspect")
    others = [of_seed(seed) for seed in CONTROLS]
    assert nearer_model(suite(), suspect, calibrated(others)) == "toy-4"
    name = nearer_model(suite(), suspect, calibrated([*others, *duplicates(4, 0.01)]))
    assert name in {"toy-4", *(one.model.name for one in duplicates(4, 0.01))}


def test_a_file_cannot_silence_its_near_duplicates(tmp_path: Path) -> None:
    made, path = calibrated([*duplicates(4, 0.01), tuned(0), of_seed(5)]), tmp_path / "calibration.safetensors"
    save_calibration(path, made)
    content = storage.read(path, ["calibration"])
    storage.write(path, storage.seal("calibration", {**content.header, "notes": []}, content.arrays))
    read = load_calibration(path, suite(), registry=REGISTRY)
    assert (read.notes, read.derived) == ((), made.notes)
    assert (read.clusters, read.doubtful) == (made.clusters, made.doubtful) == ((0,) * 8 + (8, 9), (8,))


@pytest.mark.parametrize("rule", RULES)
def test_controls_without_any_spread_say_nothing(rule: str) -> None:
    calibration = calibrated([of_seed(seed) for seed in CONTROLS])
    alike = tuple(
        {name: replace(one, value=1.0 if name == "jsd" else one.value) for name, one in measured.items()}
        for measured in calibration.measurements
    )
    verdict = verdict_on(tuned(0), replace(calibration, measurements=alike), rule)
    assert verdict.metrics["jsd"].vote.vote is None
    assert "same" in str(verdict.metrics["jsd"].reason) or "distance" in str(verdict.metrics["jsd"].reason)
    assert verdict.metrics["nod"].vote.vote is not None
    apart = tuple(
        {name: replace(one, value=1 + place / 100 if name == "jsd" else one.value) for name, one in measured.items()}
        for place, measured in enumerate(calibration.measurements)
    )
    assert verdict_on(tuned(0), replace(calibration, measurements=apart), rule).metrics["jsd"].vote.vote is not None


# Kinds of controls.


@functools.cache
def louder(seed: int) -> Observation:
    """An honest model of another architecture, whose neurons are many times as active."""
    first, (matrix, bias), (last, rest) = toys.make_model(seed, widths=(14, 8)).weights
    weights = [first, (15 * matrix, 15 * bias), (last / 15, rest)]
    return seen(NumpyModel(weights, toys.SHAPE), f"louder-{seed}")


def test_controls_of_another_architecture_do_not_accuse_by_layers() -> None:
    controls = [louder(seed) for seed in range(60, 72)]
    calibration = calibrated(controls, ["same-data"] * len(controls), match="none")
    assert {*calibration.kinds} == {"same-data+other-architecture"}
    by_layers = {"metrics": ["nod", "lod"]}
    said = replace(calibration, architecture=None)  # as if nobody looked at it
    accused = 0
    for suspect in map(of_seed, HONEST):
        for rule, groups in itertools.product(("prediction-bound", "tolerance-bound"), ("separate", "joint")):
            verdict = verdict_on(suspect, calibration, rule, groups=groups, **by_layers)
            assert verdict.decision is not Decision.COPY
            accused += verdict_on(suspect, said, rule, groups=groups, **by_layers).decision is Decision.COPY
    assert accused > 3 * len(HONEST)
    reason = verdict_on(of_seed(40), calibration, "prediction-bound", **by_layers).reason
    expect_facts(str(reason), "architecture", "same-architecture")
    # One control that has it shows how near such models come.
    shown = calibrated([*controls, of_seed(5)], match="none")
    assert {part for kind in shown.kinds for part in parts_of(kind)} == {"same-architecture", "other-architecture"}
    assert verdict_on(tuned(0), shown, **by_layers).reason != reason


def test_a_joint_vote_of_layers_alone_accuses_no_more_than_they_do() -> None:
    calibration = calibrated([louder(seed) for seed in range(60, 72)], match="none")
    for settings in ({"metrics": ["jsd", "nod", "lod"]}, {"metrics": ["nod", "lod"]}):
        verdict = verdict_on(of_seed(40), calibration, "prediction-bound", groups="joint", **settings)
        assert verdict.decision is Decision.INCONCLUSIVE
        expect_facts(str(verdict.reason), "same-architecture")
    copied = verdict_on(tuned(0), calibration, "prediction-bound", groups="joint", metrics=["robd", "jsd", "nod"])
    assert copied.decision is Decision.COPY


def test_layers_say_more_of_an_architecture_than_the_owner() -> None:
    calibration = calibrated([louder(60), of_seed(3), of_seed(4)], ["same-architecture", "other-architecture", None])
    assert calibration.strata == ("same-architecture", "other-architecture", None)
    # Equal widths do not show that all else is equal: what is said of it is believed.
    assert calibration.kinds == ("other-architecture", "other-architecture", "same-architecture")
    [note] = [note for note in calibration.notes if note.startswith("louder-60")]
    expect_facts(note, "same-architecture", "other-architecture")


def test_a_stratum_is_a_product(tmp_path: Path) -> None:
    one, two, three = (of_seed(seed) for seed in (3, 4, 5))
    again = replace(one, model=replace(one.model, name="again"))
    # One model that is named with several kinds is of all of them.
    kinds = ["same-data", "other-data", "common-ancestor+other-architecture", None]
    calibration = calibrated([one, two, again, three], kinds)
    assert calibration.strata == ("same-data+other-architecture+common-ancestor", "other-data", None)
    save_calibration(tmp_path / "c", calibration)
    assert load_calibration(tmp_path / "c", suite(), registry=REGISTRY).strata == calibration.strata
    for wrong in ("other-data", "same-architecture+other-architecture", "near"):
        with refused(CalibrationError, "again", wrong.split("+")[0]):
            calibrated([one, two, again], ["same-data", None, wrong])


def test_rules_judge_by_products_where_architectures_differ() -> None:
    controls = [*(of_seed(seed) for seed in CONTROLS[:4]), *(louder(seed) for seed in range(60, 63))]
    calibration = calibrated(controls, ["same-data"] * 3 + ["other-data"] + ["same-data"] * 3)
    assert [*dict.fromkeys(calibration.divided)] == [
        "same-data+same-architecture",
        "other-data+same-architecture",
        "same-data+other-architecture",
    ]
    one_kind = calibrated(controls[:4], ["same-data"] * 3 + ["other-data"])
    assert one_kind.divided == one_kind.strata


# Copies of the victim.


@pytest.mark.parametrize("layers", [True, False], ids=["layers", "answers"])
def test_a_tuned_copy_among_three_controls_acquits_no_tuned_copy(layers: bool) -> None:
    view = (lambda one: one) if layers else without_layers
    for copy, pair in itertools.product(range(2), itertools.combinations(CONTROLS[:5], 2)):
        controls = [view(tuned(copy)), *(view(of_seed(seed)) for seed in pair)]
        calibration = calibrated(controls)
        assert calibration.doubtful == (0,)
        for suspect in (2, 3):
            assert verdict_on(view(tuned(suspect)), calibration).decision is not Decision.INDEPENDENT
        honest = verdict_on(view(of_seed(40)), calibration)
        assert honest.decision is not Decision.COPY
        assert honest.decision is not Decision.INDEPENDENT


def test_the_reason_names_the_doubtful_control() -> None:
    others = [of_seed(seed) for seed in CONTROLS]
    calibration = calibrated([*others, tuned(0)])
    decided = [verdict_on(of_seed(seed), calibration, "any-nearer") for seed in HONEST]
    decided += [verdict_on(tuned(1), calibration, rule) for rule in RULES]
    assert not {Decision.INDEPENDENT} & {verdict.decision for verdict in decided}
    assert any("tuned-0" in str(verdict.reason) for verdict in decided)
    assert verdict_on(of_seed(40), calibrated(others)).decision is Decision.INDEPENDENT


@pytest.mark.parametrize("count", [2, 3])
def test_several_copies_do_not_hide_one_another(count: int) -> None:
    copies = [tuned(draw) for draw in range(count)]
    some = calibrated([*copies, of_seed(4), of_seed(5), of_seed(6)])
    assert some.doubtful == tuple(range(count))
    hidden = calibrated([without_layers(one) for one in some.controls])
    assert hidden.doubtful == tuple(range(count))
    if count == 3:  # there are no others to hold them against, but their neurons are the victim's
        assert calibrated(copies).doubtful == (0, 1, 2)


def test_a_copy_with_its_neurons_in_another_order_is_doubtful() -> None:
    copy = seen(noisy(0, 0.05, 1, permuted=True))
    assert calibrated([of_seed(4), copy, of_seed(5)]).doubtful == (1,)


def test_an_ancestor_explains_neurons_like_the_victims() -> None:
    # Honest models from the public model that the victim comes from; that is the owner's word, and the page shows it.
    ancestor = noisy(0, 0.1, 70)
    siblings = [seen(ancestor.perturbed(0.1, seed=draw), f"sibling-{draw}") for draw in range(3)]
    assert len(calibrated(siblings).doubtful) == 3
    assert calibrated(siblings, ["common-ancestor+same-data"] * 3).doubtful == ()
    assert parts_of(calibrated(siblings, ["common-ancestor+same-data"] * 3).strata[0]) >= {"common-ancestor"}
    # A copy among them is much nearer still.
    copy = seen(noisy(0, 0.01, 9))
    assert calibrated([*siblings, copy], ["common-ancestor"] * 4).doubtful == (3,)


# What a reader sees.


def test_table_json_and_page_state_what_counts() -> None:
    controls = [*(of_seed(seed) for seed in CONTROLS), *duplicates(4, 0.01)[:2], louder(60)]
    calibration = calibrated(controls, ["same-data"] * len(controls))
    outcome = toys.outcome(suite(), calibration, [of_seed(40)], JudgeSettings(), registry=REGISTRY, sandbox=None)
    entry = report_to_json(outcome)["calibration"]
    assert (len(entry["controls"]), entry["effective"]) == (len(controls), len(controls) - 2)
    assert [control.get("alike") for control in entry["controls"]] == [None] * 7 + ["toy-4"] * 2 + [None]
    assert [control["architecture"] for control in entry["controls"]][-2:] == [
        "same-architecture",
        "other-architecture",
    ]
    assert {control["stratum"] for control in entry["controls"]} == {"same-data"}  # as it was said
    page = outcome.to_html()
    assert f"count as {len(controls) - 2}" in page
    assert "same-data+other-architecture" in page
    assert f"count as  {len(controls) - 2}" in repr(calibration)
    plain = toys.outcome(
        suite(), calibrated(controls[:7]), [of_seed(40)], JudgeSettings(), registry=REGISTRY, sandbox=None
    )
    usual = report_to_json(plain)["calibration"]
    assert "effective" not in usual
    assert not any({"alike", "architecture"} & {*control} for control in usual["controls"])


def test_honest_controls_that_agree_on_test_cases_count_each() -> None:
    honest = [sure_of_cases(of_seed(seed)) for seed in CONTROLS]
    alone = tuple(range(len(honest)))
    assert Likeness.of(suite(), honest, [False] * len(honest)).clusters == alone
    twins = [sure_of_cases(one) for one in duplicates(CONTROLS[0], 0.02)]
    found = Likeness.of(suite(), [*honest, *twins], [False] * (len(honest) + len(twins)))
    assert found.clusters == (*alone, *[0] * len(twins))


def test_where_odds_are_not_known_answers_that_agree_are_near_duplicates() -> None:
    honest = [sure_of_cases(of_seed(seed)) for seed in CONTROLS[:3]]
    labels = [replace(one, model=replace(one.model, access=Access.LABELS)) for one in honest]
    assert Likeness.of(suite(), labels, [False] * len(labels)).clusters == (0, 0, 0)

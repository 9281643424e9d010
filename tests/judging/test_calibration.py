"""Controls: each model once, none of them the victim or the suspect."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import toys
from refusals import expect_facts, refused

from deepjudge_core import (
    Access,
    Answers,
    Metric,
    Observation,
    QuerySettings,
    build_suite,
    calibrate,
    hookimpl,
    load_calibration,
    measure,
    observe,
    save_calibration,
    select_seeds,
)
from deepjudge_core.components.strata import limits
from deepjudge_core.errors import CalibrationError, FileFormatError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.judging.calibration import Calibration, check_not_a_control


def renamed(observation: Observation, name: str, digest: str | None = None) -> Observation:
    model = dataclasses.replace(observation.model, name=name, digest=digest or observation.model.digest)
    return dataclasses.replace(observation, model=model)


def shifted(observation: Observation, by: float) -> Observation:
    """The same model in another format: other bytes, nearly the same answers."""
    p = observation.probabilities.copy()
    p[3, 0] += by
    return dataclasses.replace(renamed(observation, "converted", "f" * 64), probabilities=p)


def run(*controls: Observation) -> Calibration:
    return calibrate(toys.suite(), controls, registry=toys.registry())


def test_strata(tmp_path: Path) -> None:
    one, two, three = (toys.seen(seed) for seed in (1, 2, 3))
    assert run(one, two).strata == (None, None)

    def labelled(*strata: Any) -> Calibration:
        return calibrate(
            toys.suite(), [one, two, renamed(one, "again"), three], strata=strata, registry=toys.registry()
        )

    calibration = labelled("same-data", None, None, "other-data")
    assert calibration.strata == ("same-data", None, "other-data")
    assert labelled(None, None, "same-data", None).strata == ("same-data", None, None)
    assert calibration.without(0).strata == (None, "other-data")
    with refused(CalibrationError, "again", "same-data", "other-data"):
        labelled("same-data", None, "other-data", None)
    path = tmp_path / "c.safetensors"
    save_calibration(path, calibration)
    assert load_calibration(path, toys.suite(), registry=toys.registry()).strata == calibration.strata


def test_strata_in_files(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_calibration(path, toys.calibration(3))
    content = storage.read(path, ["calibration"])

    def rewritten(**changes: Any) -> Calibration:
        manifest = {key: value for key, value in {**content.header, **changes}.items() if value != "none"}
        storage.write(path, storage.seal("calibration", manifest, content.arrays))
        return load_calibration(path, toys.suite(), registry=toys.registry())

    # As files were before controls had any.
    assert rewritten(strata="none").strata == (None, None, None)
    for damaged in (["same-data"], ["same-data", None, "neighbours"], {"a": 1}, 5):
        with refused(FileFormatError, f"{path}: ", "calibration", "strata", code="damaged-file"):
            rewritten(strata=damaged)


def test_what_cannot_be_concluded_without_a_stratum() -> None:
    assert limits(()) == ()
    assert limits(("same-data", "common-ancestor")) == ()
    [line] = limits(("other-data", None, "common-ancestor"))
    assert "shares training data with the victim" in line
    assert len(limits((None,))) == 2


def test_values_are_those_of_the_controls() -> None:
    calibration = toys.calibration()
    assert [control.model.name for control in calibration.controls] == ["toy-1", "toy-2", "toy-3", "toy-4"]
    for name in ("answers", "surety", "outputs"):
        expected = [
            measure(toys.suite(), control, registry=toys.registry())[name].value for control in calibration.controls
        ]
        np.testing.assert_array_equal(calibration.values(name), expected)
        assert calibration.values(name).dtype == np.float64
    assert calibration.values("other").shape == (0,)
    assert calibration.notes == ()


def test_a_control_that_is_given_twice_counts_once() -> None:
    one, two = toys.seen(1), toys.seen(2)
    calibration = run(one, two, renamed(one, "b.toy"), renamed(one, "c.toy"))
    assert calibration.controls == (one, two)
    assert len(calibration.measurements) == len(calibration.values("answers")) == 2
    assert calibration.notes == (
        "b.toy: is the same model as toy-1, counted once",
        "c.toy: is the same model as toy-1, counted once",
    )
    assert run(one, shifted(one, 1e-6)).notes == ("converted: is the same model as toy-1, counted once",)
    nearly = run(one, two, shifted(one, 1e-3))
    assert (nearly.controls[2].model.name, nearly.clusters, nearly.effective) == ("converted", (0, 1, 0), 2)
    [note] = nearly.notes
    expect_facts(note, "toy-1", "converted")


def test_controls_that_the_cases_fool_as_the_victim_are_noted() -> None:
    suite = toys.suite()
    adversarial = np.flatnonzero(suite.rows("adversarial"))

    def fooled(seed: int, count: int) -> Observation:
        seen = toys.seen(seed)
        p = seen.probabilities.copy()
        rows = adversarial[p[adversarial].argmax(axis=1) != suite.victim.probabilities[adversarial].argmax(axis=1)]
        rows = rows[: max(0, count - (len(adversarial) - len(rows)))]
        p[rows] = suite.victim.probabilities[rows]
        return dataclasses.replace(seen, probabilities=p)

    assert run(*(toys.seen(seed) for seed in (1, 2, 3))).notes == ()
    assert run(*(fooled(seed, len(adversarial)) for seed in (1, 2))).notes != ()
    [note] = run(fooled(1, len(adversarial)), fooled(2, len(adversarial)), fooled(3, len(adversarial) - 1)).notes
    assert f"{1 - 1 / (3 * len(adversarial)):.0%}" in note
    unmapped = dataclasses.replace(toys.seen(1), probabilities=None, unmapped="other classes")
    assert run(unmapped).notes == ()


def test_the_victim_is_no_control() -> None:
    victim = dataclasses.replace(toys.suite().victim, suite=toys.suite().digest)
    for control in (
        renamed(victim, "v.toy"),
        renamed(shifted(victim, 0.5), "v.toy", victim.model.digest),
        renamed(shifted(victim, 0), "v.toy"),
        renamed(shifted(victim, 9e-6), "v.toy"),
    ):
        with refused(CalibrationError, "v.toy"):
            run(toys.seen(1), control)
    # A copy that was changed cannot be told from a model that happens to be near.
    assert len(run(toys.seen(1), shifted(victim, 1e-3)).controls) == 2
    assert len(run(toys.seen(0, noise=0.05)).controls) == 1


def test_models_whose_probabilities_are_saturated_are_told_apart_by_their_layers() -> None:
    def saturated(observation: Observation, name: str) -> Observation:
        p = np.where(np.arange(toys.CLASSES) == 1, 1, 0).astype(np.float32)
        whole = np.broadcast_to(p, observation.probabilities.shape).copy()
        return dataclasses.replace(renamed(observation, name, name[-1] * 64), probabilities=whole)

    suite = dataclasses.replace(toys.suite(), victim=saturated(toys.suite().victim, "victim-0"))
    seen = [dataclasses.replace(toys.seen(seed), suite=suite.digest) for seed in (1, 2, 3)]
    honest = [saturated(one, f"honest-{place}") for place, one in enumerate(seen, 1)]
    calibration = calibrate(suite, honest, registry=toys.registry())
    assert len(calibration.controls) == 3
    twice = calibrate(suite, [honest[0], saturated(seen[0], "again-7")], registry=toys.registry())
    assert len(twice.controls) == 1
    own = dataclasses.replace(honest[0], activations=suite.victim.activations)
    with refused(CalibrationError, "honest-1"):
        calibrate(suite, [own], registry=toys.registry())
    # Without layers nothing tells, and nobody is accused of being another.
    unseen = [dataclasses.replace(one, activations={}, layer_map={}) for one in honest]
    assert len(calibrate(suite, unseen, registry=toys.registry()).controls) == 3


def test_models_that_give_labels_only_may_agree() -> None:
    def labels_only(observation: Observation) -> Observation:
        onehot = np.eye(4, dtype=np.float32)[observation.probabilities.argmax(axis=1)]
        model = dataclasses.replace(observation.model, access=Access.LABELS, digest="e" * 64)
        return dataclasses.replace(observation, probabilities=onehot, model=model)

    one = labels_only(toys.seen(1))
    other = renamed(one, "other", "d" * 64)
    assert len(run(one, other).controls) == 2


def test_a_suspect_is_no_control() -> None:
    calibration = toys.calibration()
    check_not_a_control(calibration, toys.seen(9))
    for suspect in (renamed(toys.seen(2), "s.toy"), renamed(shifted(toys.seen(2), 5e-6), "s.toy")):
        with refused(CalibrationError, "s.toy", "toy-2"):
            check_not_a_control(calibration, suspect)


def test_answers_to_another_suite_are_refused() -> None:
    suite, observation = toys.suite(), toys.seen(1)
    with refused(FileFormatError, "toy-1", "abc", suite.digest[:12]):
        run(dataclasses.replace(observation, suite="abc"))
    for facts, wrong in (
        (("probabilities", observation.probabilities.shape), {"probabilities": observation.probabilities[1:]}),
        (("probabilities", observation.probabilities.shape), {"probabilities": observation.probabilities[:, 1:]}),
        (
            ("dense2", observation.activations["dense2"].shape),
            {"activations": {"dense2": observation.activations["dense2"][:, 1:]}},
        ),
        (("dense2", "dense9"), {"activations": {"dense9": observation.activations["dense2"]}}),
    ):
        with refused(FileFormatError, "toy-1", *facts):
            run(dataclasses.replace(observation, **wrong))


def test_saved_and_read(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    calibration = run(toys.seen(1), toys.seen(2), renamed(toys.seen(1), "twice"), toys.seen(3, access=Access.BLACK_BOX))
    save_calibration(path, calibration)
    loaded = load_calibration(path, toys.suite(), registry=toys.registry())
    assert (loaded.suite, loaded.notes) == (calibration.suite, calibration.notes)
    assert len(loaded.notes) == 1
    for ours, theirs in zip(calibration.controls, loaded.controls, strict=True):
        assert ours.model == theirs.model
        np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    for name in ("answers", "surety", "outputs"):
        np.testing.assert_array_equal(loaded.values(name), calibration.values(name))
    assert len(loaded.values("outputs")) == 2
    only = load_calibration(path, toys.suite(), ["surety"], registry=toys.registry())
    assert [list(m) for m in only.measurements] == [["surety"]] * 3


@pytest.mark.parametrize("controls", [0, 3])
def test_a_calibration_of_another_suite_is_refused(tmp_path: Path, controls: int) -> None:
    victim = toys.make_model(50)
    seeds = select_seeds(victim, *toys.make_inputs(victim), n=20)
    other = build_suite(victim, seeds, ["poke"], registry=toys.registry())
    path = tmp_path / "c.safetensors"
    save_calibration(path, toys.calibration(controls))
    load_calibration(path, toys.suite(), registry=toys.registry())
    with refused(FileFormatError, path, toys.suite().digest[:12], other.digest[:12]):
        load_calibration(path, other, registry=toys.registry())


def test_why_there_are_too_few_values() -> None:
    assert toys.calibration(0).shortage("surety") == "there are no controls"
    assert toys.calibration(2).shortage("surety") == "measured on 2 controls, expected at least 3"
    mixed = run(toys.seen(1), toys.seen(2, access=Access.LABELS), toys.seen(3, access=Access.BLACK_BOX))
    assert mixed.shortage("surety") == ("measured on 2 controls, expected at least 3 (needs the model's probabilities)")
    assert mixed.shortage("outputs") == "measured on 1 controls, expected at least 3 (needs the model's layers)"


def test_an_unknown_metric() -> None:
    with refused(UsageError, "'x'", "surety", code="unknown-name"):
        calibrate(toys.suite(), [toys.seen(1)], ["x"], registry=toys.registry())


# Controls that are no honest rivals.


def right_of(observation: Observation, right: int) -> Observation:
    """The answers of a model that gets so many of the seeds right."""
    suite = toys.suite()
    probabilities = observation.probabilities.copy()
    clean = np.flatnonzero(suite.rows("clean"))
    probabilities[clean] = np.eye(4, dtype=np.float32)[suite.cases.labels[clean]]
    probabilities[clean[right:]] = np.roll(probabilities[clean[right:]], 1, axis=1)
    return dataclasses.replace(renamed(observation, f"right-{right}", f"{right:064}"), probabilities=probabilities)


def test_controls_far_from_the_victim_set_no_thresholds(tmp_path: Path) -> None:
    untrained = toys.make_model(3, knows=False, name="untrained")
    far = observe(untrained, toys.suite())
    x, y = (column[toys.suite().rows("clean")] for column in (toys.suite().cases.inputs, toys.suite().cases.labels))
    share = np.mean(untrained.predict(x).argmax(axis=1) == y)
    controls, strata = [toys.seen(1), far, toys.seen(2)], ("same-data", "other-data", None)
    calibration = calibrate(toys.suite(), controls, strata=strata, registry=toys.registry())
    assert calibration.controls == (toys.seen(1), toys.seen(2))
    assert calibration.strata == ("same-data", None)
    [note] = calibration.notes
    expect_facts(note, "untrained", f"{share:.1%}", "90.0%", "far=True")
    kept = calibrate(toys.suite(), controls, strata=strata, far=True, registry=toys.registry())
    assert (kept.controls, kept.strata, kept.notes) == (tuple(controls), strata, ())
    # What a file holds counts, as it did when it was written.
    for made in (calibration, kept):
        save_calibration(tmp_path / "c", made)
        loaded = load_calibration(tmp_path / "c", toys.suite(), registry=toys.registry())
        assert [control.model.name for control in loaded.controls] == [c.model.name for c in made.controls]
        assert (loaded.notes, loaded.strata, loaded.digest) == (made.notes, made.strata, made.digest)


def test_how_far_is_too_far() -> None:
    # The victim is right in 90 %; a model that is in 80 % gets so few of 20 seeds right in one of a hundred cases.
    for right in range(21):
        calibration = run(toys.seen(1), right_of(toys.seen(2), right))
        p_value = scipy.stats.binomtest(right, 20, 0.8, alternative="less").pvalue
        assert len(calibration.controls) == (1 if p_value <= 0.01 else 2), right


def test_seeds_of_lowest_scores_are_hard_for_honest_models() -> None:
    # The victim is hardly sure of them; an honest model that is as good as it gets no more of them right.
    victim = toys.make_model(name="victim")
    x, y = toys.draw(toys.SHAPE, toys.CLASSES, 2000, 0)
    low, high = (
        build_suite(victim, select_seeds(victim, x, y, n=100, order=order), ["shove"], registry=toys.registry())
        for order in ("low", "high")
    )
    models = [toys.make_model(seed) for seed in (1, 7, 12, 14, 15)]
    shares = [np.mean(model.predict(x).argmax(axis=1) == y) for model in models]
    assert min(shares) > np.mean(victim.predict(x).argmax(axis=1) == y) - 0.1
    answered = [observe(model, low, QuerySettings(infer=False)) for model in models]
    clean = low.rows("clean")
    right = [int((one.probabilities[clean].argmax(axis=1) == low.cases.labels[clean]).sum()) for one in answered]
    # By the victim's accuracy alone one would be far.
    assert scipy.stats.binomtest(min(right), 100, low.accuracy - 0.1, alternative="less").pvalue < 1e-3
    assert len(calibrate(low, answered, registry=toys.registry()).controls) == 5
    assert len(calibrate(high, [observe(model, high) for model in models], registry=toys.registry()).controls) == 5
    for suite in (low, high):
        # One that knows nothing is far still.
        untrained = [observe(toys.make_model(seed, knows=False, name="untrained"), suite) for seed in (5, 7, 15)]
        calibration = calibrate(suite, untrained, registry=toys.registry())
        assert (len(calibration.controls), len(calibration.notes)) == (0, 3)
        for note in calibration.notes:
            expect_facts(note, "untrained")


def test_controls_of_two_kinds_are_pointed_out() -> None:
    def first(victim: Answers, suspect: Answers) -> float:
        return float(suspect.probabilities[0, 0])

    def deepjudge_metrics() -> list[Metric]:
        return [Metric("first", Access.LABELS, "clean", first, 0.9)]

    registry = toys.registry_of(toys=toys, mine=SimpleNamespace(deepjudge_metrics=hookimpl(deepjudge_metrics)))

    def notes(*values: float) -> tuple[str, ...]:
        controls = []
        for seed, value in enumerate(values, 1):
            probabilities = toys.seen(seed).probabilities.copy()
            probabilities[np.flatnonzero(toys.suite().rows("clean"))[0], 0] = value
            controls.append(dataclasses.replace(toys.seen(seed), probabilities=probabilities))
        return calibrate(toys.suite(), controls, ["first"], registry=registry).notes

    assert notes(0.1, 0.2, 0.3, 0.4, 0.5, 0.6) == ()
    [note] = notes(0.1, 0.8, 0.11, 0.81, 0.12, 0.82)
    expect_facts(note, "first", "0.1..0.12", "0.8..0.82", "3 controls")

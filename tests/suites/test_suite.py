"""Suites: which cases are kept, what is noted, and that the same is made again."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toys
from refusals import expect_facts, refused

from deepjudge_core import (
    Access,
    Cases,
    Generator,
    Seeds,
    Suite,
    Task,
    build_suite,
    hookimpl,
    load_suite,
    save_suite,
    select_seeds,
)
from deepjudge_core.errors import (
    DeepJudgeError,
    FileFormatError,
    GenerationError,
    InputError,
    ModelError,
    PluginError,
    UsageError,
)
from deepjudge_core.files.documents import plain
from deepjudge_core.report.audit_json import suite_entry
from deepjudge_core.suites.generation import default_layers
from deepjudge_core.types import Array


@pytest.fixture
def seeds() -> Seeds:
    victim = toys.make_model()
    return select_seeds(victim, *toys.make_inputs(victim), n=20)


def with_generator(generate: Any, makes: Any = "adversarial", needs: Access = Access.LABELS) -> Any:
    @hookimpl
    def deepjudge_generators() -> Any:
        return [Generator("mine", makes, needs, generate)]

    return toys.registry_of(toys=toys, mine=SimpleNamespace(deepjudge_generators=deepjudge_generators))


def equal(one: Suite, other: Suite) -> None:
    for field in dataclasses.fields(one.cases):
        ours, theirs = getattr(one.cases, field.name), getattr(other.cases, field.name)
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(one.seed_indices, other.seed_indices)
    np.testing.assert_array_equal(one.victim.probabilities, other.victim.probabilities)
    for layer, values in one.victim.activations.items():
        np.testing.assert_array_equal(values, other.victim.activations[layer])
    for name in ("seed", "bounds", "accuracy", "layers", "unreached", "generators", "notes", "digest"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("model", "suite", "layer_map", "unmatched"):
        assert getattr(one.victim, name) == getattr(other.victim, name)


def test_rows_and_answers_belong_together() -> None:
    suite, victim = toys.suite(), toys.make_model()
    cases, n = suite.cases, len(suite.cases.inputs)
    clean, adversarial, corners = (suite.rows(name) for name in ("clean", "adversarial", "corners"))
    assert [int(rows.sum()) for rows in (clean, adversarial, corners)] == [20, 15, 14]
    assert (clean | adversarial | corners).all()
    assert n == 49

    x, y = toys.make_inputs(victim)
    np.testing.assert_array_equal(cases.inputs[clean], x[suite.seed_indices])
    np.testing.assert_array_equal(cases.labels[clean], y[suite.seed_indices])
    np.testing.assert_array_equal(cases.seeds[clean], np.arange(20))
    np.testing.assert_array_equal(cases.labels, cases.labels[clean][cases.seeds])
    assert (cases.generators[clean] == -1).all()
    assert (cases.generators[adversarial] == 0).all()
    assert (cases.generators[corners] == 1).all()
    assert (cases.neurons[~corners] == -1).all()
    assert (cases.layers[~corners] == -1).all()

    p = victim.predict(cases.inputs)
    np.testing.assert_allclose(suite.victim.probabilities, p, atol=1e-6)
    assert (p[clean].argmax(axis=1) == cases.labels[clean]).all()
    assert (p[adversarial].argmax(axis=1) != cases.labels[adversarial]).all()
    np.testing.assert_array_equal(
        suite.victim.activations["dense2"], victim.activations(cases.inputs, ["dense2"])["dense2"]
    )

    answers = suite.answers(suite.victim, "corners")
    np.testing.assert_array_equal(answers.labels, cases.labels[corners])
    np.testing.assert_array_equal(answers.probabilities, suite.victim.probabilities[corners])
    np.testing.assert_array_equal(answers.made_for["dense2"], np.repeat(np.arange(7), 2))
    assert (suite.answers(suite.victim, "clean").made_for["dense2"] == -1).all()


def test_what_is_recorded() -> None:
    suite = toys.suite()
    assert suite.layers == ("dense2",)
    assert suite.unreached == ((0, 7),)
    assert suite.accuracy == 0.9
    assert suite.bounds == (0.0, 1.0)
    assert suite.notes == ("neuron ranges were measured on the seeds, because no training inputs were given",)
    first, second = suite.generators
    assert (first.name, first.makes, first.provider) == ("shove", "adversarial", "this program")
    assert (first.options, first.made, first.kept) == ({"eps": 0.5, "upward": True}, 20, 15)
    assert (second.name, second.options, second.made, second.kept) == ("poke", {"count": 2}, 14, 14)


def test_saved_and_read(tmp_path: Path) -> None:
    suite = toys.suite()
    save_suite(tmp_path / "a", suite)
    loaded = load_suite(tmp_path / "a")
    equal(loaded, suite)
    save_suite(tmp_path / "b", loaded)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_labels_that_are_not_those_of_the_victim_are_refused(tmp_path: Path) -> None:
    suite = toys.suite()
    shifted = dataclasses.replace(suite.cases, labels=(suite.cases.labels + 1) % 4)
    save_suite(tmp_path / "a", dataclasses.replace(suite, cases=shifted))
    with refused(FileFormatError, tmp_path / "a", "victim", "labels", code="damaged-file"):
        load_suite(tmp_path / "a")


def test_the_same_is_made_again(seeds: Seeds) -> None:
    def make(seed: int = 0, generators: Any = ("shove", "poke"), **options: Any) -> str:
        all_options = {"shove": {"upward": False, "eps": 0.9}} | options
        return build_suite(
            toys.make_model(), seeds, generators, options=all_options, seed=seed, registry=toys.registry()
        ).digest

    first = make()
    assert make() == first
    assert make(1) != first
    assert make(poke={"count": 3}) != first
    assert make(poke={"count": "2"}) == first
    assert make(generators=("shove",)) != first


def test_a_generator_has_its_own_randomness(seeds: Seeds) -> None:
    def inputs(generators: list[str]) -> Array:
        options = {"shove": {"upward": False, "eps": 0.9}}
        suite = build_suite(toys.make_model(), seeds, generators, options=options, registry=toys.registry())
        return suite.cases.inputs[suite.rows("adversarial")]

    # Whatever others are run, and in whatever order.
    np.testing.assert_array_equal(inputs(["shove"]), inputs(["poke", "shove"]))


def test_only_what_the_victim_misclassifies_is_kept(seeds: Seeds) -> None:
    victim = toys.make_model()
    others = np.setdiff1d(np.arange(20), [3, 7])

    def generate(task: Task) -> Cases:
        x = task.seeds.inputs.copy()
        x[others] = 0.6 - 0.2 * x[others]
        return Cases.of_seeds(x)

    suite = build_suite(victim, seeds, ["mine"], registry=with_generator(generate))
    wrong = victim.predict(0.6 - 0.2 * seeds.inputs).argmax(axis=1) != seeds.labels
    expected = [i for i in others if wrong[i]]
    assert suite.cases.seeds[suite.rows("adversarial")].tolist() == expected
    assert 2 < len(expected) < 18
    assert (suite.generators[0].made, suite.generators[0].kept) == (20, len(expected))


def test_seeds_without_a_case_are_noted(seeds: Seeds) -> None:
    def generate(task: Task, *, passed: int = 3) -> Cases:
        cases = Cases.of_seeds(0.6 - 0.2 * task.seeds.inputs)
        columns = {name: getattr(cases, name)[passed:] for name in ("inputs", "seeds", "layers", "neurons")}
        return dataclasses.replace(cases, **columns)

    def notes(passed: int) -> list[str]:
        registry = with_generator(generate)
        suite = build_suite(toys.make_model(), seeds, ["mine"], options={"mine": {"passed": passed}}, registry=registry)
        return [note for note in suite.notes if note.startswith("mine: ")]

    [note] = notes(3)
    assert ("3 of" in note, "20" in note) == (True, True)
    assert notes(0) == []


def test_too_few_adversarial_cases(seeds: Seeds) -> None:
    victim = toys.make_model()
    wrong = np.flatnonzero(victim.predict(1 - seeds.inputs).argmax(axis=1) != seeds.labels)

    def make(count: int) -> Suite:
        def generate(task: Task) -> Cases:
            x = task.seeds.inputs.copy()
            x[wrong[:count]] = 1 - x[wrong[:count]]
            return Cases.of_seeds(x)

        return build_suite(victim, seeds, ["mine"], registry=with_generator(generate))

    assert make(2).generators[0].kept == 2  # 10 % of 20
    for count in (0, 1):
        with refused(GenerationError, "mine", "toy-0", count, 20, 2):
            make(count)


def test_what_a_generator_chose_and_keeps_is_recorded(seeds: Seeds, tmp_path: Path) -> None:
    def generate(task: Task, *, eps: float | None = None, far: bool = False) -> Cases:
        made = Cases.of_seeds(1 - task.seeds.inputs, options={"eps": eps or 0.25})
        return dataclasses.replace(made, details={"m": {"dense2": {"3": [0, 2]}}}, notes=("so it was",))

    suite = build_suite(toys.make_model(), seeds, ["mine"], registry=with_generator(generate))
    [record] = suite.generators
    assert record.options == {"eps": 0.25, "far": False}
    assert record.details == {"m": {"dense2": {"3": [0, 2]}}}
    assert suite.notes == ("mine: so it was",)
    save_suite(tmp_path / "a", suite)
    equal(load_suite(tmp_path / "a"), suite)
    [entry] = suite_entry(suite, []).generators
    assert (entry.options, entry.details) == (record.options, record.details)
    # Without any a suite is written as it was before there were any.
    assert "details" not in plain(toys.suite().generators[0])


def test_cases_of_which_the_victim_is_sure_alike_are_noted() -> None:
    def noted(steepness: float) -> bool:
        above_half = np.stack([np.zeros(12), np.full(12, steepness)], axis=1), np.array([0, -6 * steepness])
        victim = toys.NumpyModel([above_half], (12,))
        x = np.random.default_rng(0).random((20, 12), dtype=np.float32) * 0.4
        low = select_seeds(victim, x, np.zeros(20, int), n=20, force=True)

        def generate(task: Task) -> Cases:
            return Cases.of_seeds(task.seeds.inputs + np.float32(0.6))

        suite = build_suite(victim, low, ["mine"], layers=["logits"], registry=with_generator(generate))
        return any("one class" in note for note in suite.notes)

    assert noted(3)
    assert not noted(0.5)


def test_no_corner_at_all_is_refused_but_by_force(seeds: Seeds) -> None:
    def generate(task: Task) -> Cases:
        none = np.zeros(0, np.int64)
        places = tuple((0, np.int64(neuron)) for neuron in range(8))
        return Cases(task.seeds.inputs[:0], none, none, none, places)

    registry = with_generator(generate, "corners")
    with refused(GenerationError, "mine", "dense2", "force=True"):
        build_suite(toys.make_model(), seeds, ["mine"], registry=registry)
    suite = build_suite(toys.make_model(), seeds, ["mine"], registry=registry, force=True)
    assert suite.unreached == tuple((0, neuron) for neuron in range(8))
    assert not suite.rows("corners").any()
    assert any("dense2 has a case" in note for note in suite.notes)


def cases(**changes: Any) -> Any:
    def generate(task: Task) -> Any:
        n = 3
        fields = {"inputs": task.seeds.inputs[:n]} | dict.fromkeys(
            ("seeds", "layers", "neurons"), np.zeros(n, np.int64)
        )
        return Cases(**fields | changes)

    return generate


def fails(task: Task) -> Cases:
    raise KeyError("no\n luck")


@pytest.mark.parametrize(
    ("generate", "facts"),
    [
        (fails, ("KeyError", "luck")),
        (lambda task: sys.exit(1), ("SystemExit", "1")),
        (lambda task: None, ("Cases", "NoneType")),
        (lambda task: task.seeds.inputs, ("Cases", "ndarray")),
        (cases(inputs=np.full((3, 12), 1.5, np.float32)), ("0..1", "1.5..1.5")),
        (cases(inputs=np.full((3, 12), -0.1, np.float32)), ("0..1", "-0.1..-0.1")),
        (cases(inputs=np.full((3, 12), np.nan, np.float32)), ("0..1", "nan..nan")),
        (cases(inputs=np.zeros((3, 12))), ("float32", "float64 (12,)")),
        (cases(inputs=np.zeros((3, 11), np.float32)), ("(12,)", "(11,)")),
        (cases(inputs=np.zeros((0,), np.float32)), ("(12,)", "()")),
        (cases(seeds=np.zeros(2, np.int64)), ("seeds",)),
        (cases(seeds=np.full(3, 20)), ("seeds", "0..19")),
        (cases(seeds=np.full(3, -1)), ("seeds", "0..19")),
        (cases(labels=np.zeros(3, np.int64)), ("labels",)),
        (cases(layers=np.full(3, 1)), ("neuron 0", "layer 1")),
        (cases(layers=np.full(3, -1)), ("neuron 0", "layer -1")),
        (cases(neurons=np.full(3, 10)), ("neuron 10", "layer 0")),
        (cases(neurons=np.full(3, -1)), ("neuron -1", "layer 0")),
        (cases(unreached=((7, 99),)), ("neuron 99", "layer 7")),
        (cases(options={"eps": 1}), ("options",)),
        (cases(details={"m": {1: 2}}), ("JSON",)),
        (cases(details={"m": np.float32(1)}), ("JSON",)),
        (cases(details={"m": float("nan")}), ("JSON",)),
        (cases(notes=(1,)), ("notes",)),
    ],
)
def test_a_generator_that_fails(seeds: Seeds, generate: Any, facts: tuple[str, ...]) -> None:
    with refused(PluginError, "mine", *facts):
        build_suite(toys.make_model(), seeds, ["mine"], registry=with_generator(generate, "corners"))


def test_a_generator_may_say_what_is_wrong_itself(seeds: Seeds) -> None:
    def generate(task: Task) -> Cases:
        raise UsageError("mine: expected eps > 0, found -1")

    with pytest.raises(UsageError) as caught:
        build_suite(toys.make_model(), seeds, ["mine"], registry=with_generator(generate))
    assert str(caught.value) == "mine: expected eps > 0, found -1"


@pytest.mark.parametrize(
    ("arguments", "error", "code", "facts"),
    [
        ({"generators": ["shov"]}, UsageError, "unknown-name", ("'shov'", "poke", "'shove'")),
        ({"generators": []}, UsageError, "missing-value", ("generator",)),
        ({"options": {"pgd": {}}}, UsageError, "conflict", ("pgd", "shove")),
        ({"options": {"shove": {"esp": 1}}}, UsageError, None, ("shove", "'esp'", "eps")),
        ({"layers": ["dense3"]}, UsageError, "unknown-name", ("toy-0", "'dense3'", "dense1, dense2, logits")),
        ({"seed": -1}, UsageError, "wrong-value", ("seed", "-1")),
        ({"training_inputs": np.zeros((3, 5))}, InputError, "wrong-inputs", ("toy-0", "12", "5")),
        ({"training_inputs": np.full((3, 12), 255)}, InputError, "wrong-inputs", ("0..1", "255..255")),
        ({"training_inputs": np.full((3, 12), np.nan)}, InputError, "wrong-inputs", ("0..1", "nan")),
        ({"training_inputs": np.eye(3, 12) / 255}, InputError, "wrong-inputs", ("training inputs", "0.0039")),
        ({"options": {"shove": {"eps": "inf"}}}, UsageError, None, ("shove.eps", "inf")),
    ],
)
def test_what_cannot_be_asked_for(
    seeds: Seeds, arguments: Any, error: type[DeepJudgeError], code: str | None, facts: tuple[str, ...]
) -> None:
    settings = {"generators": ["shove"]} | arguments
    with pytest.raises(error) as caught:
        build_suite(toys.make_model(), seeds, settings.pop("generators"), registry=toys.registry(), **settings)
    assert code in (None, caught.value.code)  # those of options are their own tests' matter
    expect_facts(str(caught.value), *facts)


def test_what_the_victim_must_give(seeds: Seeds) -> None:
    black_box = toys.make_model(access=Access.BLACK_BOX)
    for generators, layers, facts in [
        (["shove"], None, ("toy-0", "gradients", "shove")),
        (["poke"], None, ("toy-0", "layers", "poke")),
        (["shove"], ["dense1"], ("toy-0", "layers")),
    ]:
        with refused(ModelError, *facts):
            build_suite(black_box, seeds, generators, layers=layers, registry=toys.registry())

    class Silent(toys.NumpyModel):
        def gradient(self, x: Array, cotangent: Any, *, layer: str | None = None) -> Array:
            raise ModelError("silent.toy: no gradients: pip install something")

    silent = Silent(toys.make_model().weights, (12,), access=Access.WHITE_BOX)
    with pytest.raises(ModelError, match="pip install something"):
        build_suite(silent, seeds, ["shove"], registry=toys.registry())


def test_training_inputs_reach_the_generator_in_the_victims_layout() -> None:
    victim = toys.make_model(shape=(3, 2, 4))
    x, y = toys.make_inputs(victim)
    received = []

    def generate(task: Task) -> Cases:
        received.append(task.training_inputs)
        return Cases.of_seeds(1 - task.seeds.inputs)

    seeds = select_seeds(victim, x, y, n=20)
    registry = with_generator(generate)
    suite = build_suite(victim, seeds, ["mine"], training_inputs=np.moveaxis(x, 1, -1), registry=registry)
    np.testing.assert_array_equal(received[0], x)
    assert suite.notes == ()
    # A note on neuron ranges only where something was made of them.
    assert build_suite(victim, seeds, ["mine"], registry=registry).notes == ()
    np.testing.assert_array_equal(received[1], seeds.inputs)


def test_layers(seeds: Seeds) -> None:
    deep = toys.make_model(widths=(5, 6, 7))
    assert default_layers(deep) == ("dense2",)
    assert default_layers(toys.make_model(widths=())) == ("logits",)
    assert default_layers(toys.make_model(access=Access.BLACK_BOX)) == ()
    suite = build_suite(
        toys.make_model(), seeds, ["poke"], layers=["logits", "dense1", "logits"], registry=toys.registry()
    )
    assert suite.layers == ("logits", "dense1")
    assert suite.unreached == ((0, 3), (1, 9))
    assert {k: v.shape for k, v in suite.victim.activations.items()} == {"logits": (44, 4), "dense1": (44, 10)}
    answers = suite.answers(suite.victim, "corners")
    np.testing.assert_array_equal(answers.made_for["logits"][:6], [0, 0, 1, 1, 2, 2])
    assert (answers.made_for["logits"][6:] == -1).all()
    assert (answers.made_for["dense1"][:6] == -1).all()

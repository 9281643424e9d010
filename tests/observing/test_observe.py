"""Models that are run on a suite: what is refused, and which layers correspond."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from refusals import expect_facts, refused

from deepjudge_core import (
    Access,
    Decision,
    InputSpec,
    JudgeSettings,
    Model,
    Preprocessing,
    QuerySettings,
    Suite,
    build_suite,
    judge,
    load_observation,
    load_suite,
    measure,
    observe,
    save_observation,
    save_suite,
    select_seeds,
)
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import FileFormatError, InputError, ModelError, UsageError
from deepjudge_core.files.documents import plain
from deepjudge_core.testing import NumpyModel
from deepjudge_core.types import Array, Layout


def test_a_model_answers() -> None:
    suite, model = toys.suite(), toys.make_model(3)
    observation = observe(model, suite)
    np.testing.assert_allclose(observation.probabilities, model.predict(suite.cases.inputs), atol=1e-6)
    np.testing.assert_array_equal(
        observation.activations["dense2"], model.activations(suite.cases.inputs, ["dense2"])["dense2"]
    )
    assert (observation.suite, observation.layer_map, observation.unmatched) == (
        suite.digest,
        {"dense2": "dense2"},
        None,
    )
    assert (observation.model.name, observation.model.digest) == ("toy-3", model.digest)


def test_taps_of_large_answers_are_compared_on_the_seeds_first(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = toys.suite()
    at_once = observe(toys.make_model(3, widths=(8, 8, 8)), suite)
    monkeypatch.setattr("deepjudge_core.observing.observe._MOST_HELD", 1)
    model = toys.make_model(3, widths=(8, 8, 8))
    asked, activations = list[tuple[int, int]](), model.activations

    def noted(x: Array, layers: Sequence[str]) -> dict[str, Array]:
        asked.append((len(x), len(layers)))
        return activations(x, layers)

    monkeypatch.setattr(model, "activations", noted)
    in_parts = observe(model, suite)
    assert in_parts.layer_map == at_once.layer_map
    for layer, answers in at_once.activations.items():
        np.testing.assert_array_equal(in_parts.activations[layer], answers)
    assert max(taps for _, taps in asked) == 2  # one, and the logits


def test_the_victim_answers_as_it_did() -> None:
    suite = toys.suite()
    observation = observe(toys.make_model(), suite)
    np.testing.assert_array_equal(observation.probabilities, suite.victim.probabilities)
    np.testing.assert_array_equal(observation.activations["dense2"], suite.victim.activations["dense2"])


def test_what_is_to_be_known_of_a_model_is_noted(registry: Registry) -> None:
    model, victim = toys.make_model(3), toys.make_model()
    model.notes = victim.notes = ("opened so",)
    assert observe(model, toys.suite()).notes[0] == "opened so"
    x, _ = toys.make_inputs(victim)
    seeds = select_seeds(victim, x, victim.predict(x).argmax(axis=1), n=8, bounds=(0, 1), force=True)
    options = {"fgsm": {"eps": 1.0}}
    suite = build_suite(victim, seeds, ["fgsm"], options=options, force=True, registry=registry)
    assert suite.notes[0] == "opened so"


def test_saved_and_read(tmp_path: Path) -> None:
    for observation in (toys.seen(1), toys.seen(1, access=Access.BLACK_BOX)):
        save_observation(tmp_path / "o", observation)
        loaded = load_observation(tmp_path / "o")
        np.testing.assert_array_equal(loaded.probabilities, observation.probabilities)
        assert loaded.activations.keys() == observation.activations.keys()
        for layer, values in observation.activations.items():
            np.testing.assert_array_equal(loaded.activations[layer], values)
        for name in ("model", "suite", "layer_map", "unmatched"):
            assert getattr(loaded, name) == getattr(observation, name)


def test_what_it_ran_on_is_kept_where_it_is_known(tmp_path: Path) -> None:
    model = toys.make_model(noise=0.05)
    unknown = observe(model, toys.suite())
    assert unknown.model.device is None
    assert "device" not in plain(unknown.header())["model"]
    model.device = "abacus:0\x1b[31m"
    observation = observe(model, toys.suite())
    assert observation.model.device == "abacus:0\ufffd[31m"
    save_observation(tmp_path / "o", observation)
    assert load_observation(tmp_path / "o").model == observation.model
    assert observation.digest != unknown.digest


def channels_last(model: NumpyModel, layout: Layout | None = None) -> NumpyModel:
    """The same model for inputs whose channels come last."""
    (matrix, bias), *others = model.weights
    channels, *axes = (axis or 1 for axis in model.input.shape)
    moved = np.moveaxis(matrix.reshape(channels, *axes, -1), 0, -2).reshape(matrix.shape)
    last = NumpyModel([(moved, bias), *others], (*axes, channels), name="last")
    last.input = InputSpec((*axes, channels), layout=layout)
    return last


def test_inputs_are_arranged_for_the_model() -> None:
    victim = toys.make_model(shape=(3, 2, 4))
    seeds = select_seeds(victim, *toys.make_inputs(victim), n=20)
    suite = build_suite(victim, seeds, ["shove"], options={"shove": {"eps": 1}}, registry=toys.registry())
    observation = observe(channels_last(victim), suite)
    np.testing.assert_allclose(observation.probabilities, suite.victim.probabilities, atol=1e-6)


def test_a_cube_is_arranged_by_the_layouts_of_the_models() -> None:
    first = toys.make_model(shape=(3, 3), layout="channels_first")
    last = channels_last(first, "channels_last")
    seeds = select_seeds(first, *toys.make_inputs(first), n=20)
    suite = build_suite(first, seeds, ["shove"], options={"shove": {"eps": 1}}, registry=toys.registry())
    same, moved = suite.cases.inputs, suite.cases.inputs.transpose(0, 2, 1)
    for model, inputs in ((first, same), (last, moved)):
        observation = observe(model, suite)
        np.testing.assert_allclose(observation.probabilities, model.predict(inputs), atol=1e-6)
        np.testing.assert_allclose(observation.probabilities, suite.victim.probabilities, atol=1e-6)
        assert not observation.inferred


def test_a_cube_that_nothing_tells_how_to_read_needs_its_layout(tmp_path: Path) -> None:
    victim = toys.make_model(4, shape=(3, 3, 3))
    x, y = toys.make_inputs(victim, 200)
    with refused(InputError, "3x3x3", "layout="):
        select_seeds(victim, x, y)
    seeds = select_seeds(victim, x, y, n=20, layout="channels_first")
    with refused(InputError, "layout="):
        build_suite(victim, seeds, ["shove"], training_inputs=x, registry=toys.registry())
    options = {"shove": {"eps": 1}}
    suite = build_suite(
        victim, seeds, ["shove"], training_inputs=x, layout="channels_first", options=options, registry=toys.registry()
    )
    assert suite.victim.model.input.layout == "channels_first"
    save_suite(tmp_path / "s", suite)
    suite = load_suite(tmp_path / "s")
    with refused(ModelError, "layout="):  # of which neither way shows in its answers
        observe(toys.make_model(4, shape=(3, 3, 3), knows=False), suite)
    last = channels_last(victim)
    for model, word in ((victim, "channels first"), (last, "channels last")):
        assert any(word in note for note in observe(model, suite).notes)
    for model, layout in ((victim, "channels_first"), (last, "channels_last")):
        for preprocessing in (None, Preprocessing(mean=(0, 0, 0))):
            observation = observe(model, suite, QuerySettings(layout=layout, preprocessing=preprocessing))
            np.testing.assert_allclose(observation.probabilities, suite.victim.probabilities, atol=1e-5)
            assert observation.model.input.layout == layout
    # A model that says where its channels are is believed.
    last.input = InputSpec((3, 3, 3), layout="channels_last")
    observation = observe(last, suite, QuerySettings(layout="channels_first"))
    np.testing.assert_allclose(observation.probabilities, suite.victim.probabilities, atol=1e-5)


def suite_of(victim: NumpyModel) -> Suite:
    seeds = select_seeds(victim, *toys.make_inputs(victim), n=40)
    return build_suite(victim, seeds, ["shove"], options={"shove": {"eps": 1}}, force=True, registry=toys.registry())


def rows_of(model: NumpyModel, order: tuple[int, ...], layout: Layout | None = None) -> NumpyModel:
    # The same function of the values in a row, of pictures whose axes are in this order.
    shape = tuple(int(axis or 0) for axis in model.input.shape)
    places = np.arange(np.prod(shape)).reshape(shape).transpose(order).ravel()
    (matrix, bias), *others = model.weights
    flat = NumpyModel([(matrix[places], bias), *others], (len(places),), name="rows")
    flat.input = InputSpec(flat.input.shape, layout=layout)
    return flat


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 4, 1), (3, 4)])
def test_pictures_of_one_channel_go_in_rows_and_back(shape: tuple[int, ...]) -> None:
    model = toys.make_model(shape=shape)
    flat = rows_of(model, tuple(range(len(shape))))
    suite = suite_of(model)
    np.testing.assert_array_equal(observe(flat, suite).probabilities, suite.victim.probabilities)
    rows = suite_of(flat)
    assert rows.cases.inputs.ndim == 2
    np.testing.assert_array_equal(observe(model, rows).probabilities, rows.victim.probabilities)


@pytest.mark.parametrize(("order", "layout"), [((0, 1, 2), "channels_first"), ((1, 2, 0), "channels_last")])
def test_the_order_of_several_channels_in_a_row_shows_in_the_answers(order: tuple[int, ...], layout: Layout) -> None:
    model = toys.make_model(shape=(3, 4, 5), layout="channels_first")
    suite = suite_of(model)
    for flat in (rows_of(model, order), rows_of(model, order, layout)):
        observation = observe(flat, suite)
        assert observation.probabilities is not None
        np.testing.assert_allclose(observation.probabilities, suite.victim.probabilities, atol=1e-6)
        told = any(f"{layout.replace('_', ' ')}, inferred" in note for note in observation.notes)
        assert (told, observation.model.input.layout) == (flat.input.layout is None, layout)
    with refused(ModelError, "rows", "3x4x5", "layout="):
        observe(toys.make_model(shape=(60,), knows=False, name="rows"), suite)


@pytest.mark.parametrize(("order", "layout"), [((0, 1, 2), "channels_first"), ((1, 2, 0), "channels_last")])
def test_so_does_that_of_a_suite_of_rows(order: tuple[int, ...], layout: Layout) -> None:
    model = toys.make_model(shape=(3, 4, 5), layout="channels_first")
    suite = suite_of(rows_of(model, order))
    for asking in (QuerySettings(), QuerySettings(layout=layout)):
        observation = observe(model, suite, asking)
        np.testing.assert_allclose(observation.probabilities, suite.victim.probabilities, atol=1e-6)


class Odd(toys.NumpyModel):
    """Answers something else than its weights say."""

    def __init__(self, change: Callable[[list[Array]], list[Array]]) -> None:
        super().__init__(toys.make_model().weights, (12,), name="odd")
        self.change = change

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        outputs = super().forward(x, layers)
        return outputs if layers is None else self.change(outputs)


def fail(outputs: list[Array]) -> list[Array]:
    raise RuntimeError("shapes do\nnot fit")


@pytest.mark.parametrize(
    ("model", "code", "facts"),
    [
        (toys.make_model(shape=(13,)), "other-inputs", ("toy-0: ", "13", "12")),
        (toys.make_model(shape=(6, 1)), "other-inputs", ("toy-0: ", "6x1", "found 12")),
        (Odd(fail), "unusable-model", ("odd: ", "(12,)", "shapes do")),
        (Odd(lambda outputs: [a * np.nan for a in outputs]), "bad-answer", ("odd: ", "NaN")),
        (
            toys.NumpyModel([(a * 0, b) for a, b in toys.make_model().weights], (12,), name="odd"),
            "bad-answer",
            ("odd: ", "input"),
        ),
        (
            Odd(lambda outputs: [np.full_like(outputs[0], np.inf), *outputs[1:]]),
            "bad-answer",
            ("odd: ", "'dense2'", "NaN"),
        ),
        (
            Odd(lambda outputs: [outputs[0][:, :3], *outputs[1:]]),
            "bad-answer",
            ("odd: ", "8 neurons", "'dense2'", "(49, 3)"),
        ),
        (
            Odd(lambda outputs: [outputs[0], outputs[1][:, :3]]),
            "bad-answer",
            ("odd: ", "(49, 4)", "(49, 3)"),
        ),
    ],
)
def test_what_is_refused(model: Model, code: str, facts: tuple[str, ...]) -> None:
    with pytest.raises(ModelError) as caught:
        observe(model, toys.suite())
    assert caught.value.code == code
    expect_facts(str(caught.value), *facts)


@pytest.mark.parametrize(
    "change",
    [
        lambda scores: scores[:, ::-1],
        lambda scores: scores * 0,
        lambda scores: scores / 20,  # the same classes, much less sure
        lambda scores: np.where(np.arange(len(scores))[:, None] % 4, scores, scores[:, ::-1]),
        # So flat that no probability shows it.
        lambda scores: scores[:, ::-1] / 1000,
    ],
)
def test_it_is_judged_by_what_its_output_gives(change: Callable[[Array], Array]) -> None:
    """Scores that are not those of the output, and layers beside them, may be another network's."""
    model, suite = Odd(lambda outputs: [*outputs[:-1], change(outputs[-1])]), toys.suite()
    observation = observe(model, suite)
    np.testing.assert_allclose(observation.probabilities, model.predict(suite.cases.inputs), atol=1e-6)
    assert (observation.layer_map, observation.activations) == ({}, {})
    expect_facts(str(observation.unmatched), "softmax", "output")
    measurements = measure(suite, observation, registry=toys.registry())
    verdict = judge(measurements, toys.calibration(), JudgeSettings(rule="nearest"), registry=toys.registry())
    assert verdict.decision is not Decision.INDEPENDENT


@pytest.mark.parametrize("access", [Access.BLACK_BOX, Access.FULL])
def test_probabilities_that_are_none(access: Access) -> None:
    # Also where the logits are what is asked for.
    class Wrong(toys.NumpyModel):
        def predict(self, x: Array) -> Array:
            return super().predict(x) * 1.1

    model = Wrong(toys.make_model().weights, (12,), name="wrong", access=access)
    with refused(ModelError, "wrong: ", "1.1..1.1", code="bad-answer"):
        observe(model, toys.suite())


@pytest.mark.parametrize(
    ("widths", "layer_map", "expected"),
    [
        ((10, 8), {}, "dense2"),
        ((10, 8, 6), {}, "dense2"),
        ((10, 8, 8), {}, "dense2"),
        ((10, 8, 8), {"dense2": "dense3"}, "dense3"),
        ((5, 8), {"dense2": "dense2"}, "dense2"),
        ((8,), {"dense2": "dense1"}, "dense1"),
        ((5, 8), {}, "dense2"),
        ((10, 9), {}, "expected one with 8 neurons, found 10, 9, 4"),
        ((8, 9), {"dense2": "dense1"}, "dense1"),
        ((10,), {}, "expected one with 8 neurons, found 10, 4"),
    ],
)
def test_layers_that_correspond(widths: tuple[int, ...], layer_map: dict[str, str], expected: str) -> None:
    observation = observe(toys.make_model(7, widths=widths), toys.suite(), QuerySettings(layers=layer_map))
    if expected.startswith("dense"):
        assert (observation.layer_map, observation.unmatched) == ({"dense2": expected}, None)
        assert observation.activations["dense2"].shape == (len(toys.suite().cases.inputs), 8)
    else:
        assert (observation.layer_map, observation.activations) == ({}, {})
        assert observation.unmatched == f"no layer corresponds to 'dense2': {expected}"


@pytest.mark.parametrize(("place", "expected", "taps"), [(0, ("dense2", "dense3"), 2), (1, ("dense1", "dense3"), 3)])
def test_a_layer_more_is_found_by_what_the_others_answer(place: int, expected: tuple[str, str], taps: int) -> None:
    victim = toys.make_model(widths=(8, 8))
    seeds = select_seeds(victim, *toys.make_inputs(victim), n=20)
    suite = build_suite(victim, seeds, ["poke"], layers=["dense1", "dense2"], registry=toys.registry())
    # Inputs and outputs of ReLUs are not negative: the layer more changes nothing.
    width = len(victim.weights[place][0])
    more = (np.eye(width), np.zeros(width))
    observation = observe(NumpyModel([*victim.weights[:place], more, *victim.weights[place:]], toys.SHAPE), suite)
    assert tuple(observation.layer_map.values()) == expected
    for layer in suite.layers:
        np.testing.assert_allclose(observation.activations[layer], suite.victim.activations[layer], atol=1e-5)
    for note, layer, tap in zip(observation.notes, suite.layers, expected, strict=True):
        expect_facts(note, f"'{layer}'", "same name" if tap == layer else f"'{tap}'", f"{taps} layers", "CKA 1.000")
        assert ("not its position" in note) == (tap != layer)


def test_some_layers_by_the_map_and_some_by_their_place() -> None:
    victim = toys.make_model()
    seeds = select_seeds(victim, *toys.make_inputs(victim), n=20)
    suite = build_suite(victim, seeds, ["poke"], layers=["dense1", "dense2"], registry=toys.registry())
    observation = observe(toys.make_model(1, widths=(10, 3, 8)), suite, QuerySettings(layers={"dense2": "dense3"}))
    assert observation.layer_map == {"dense1": "dense1", "dense2": "dense3"}
    # None are compared where one of them has no answer, or none in the victim's order.
    other = observe(toys.make_model(1, widths=(10, 3, 7)), suite)
    assert (other.layer_map, other.unmatched) == (
        {},
        "no layer corresponds to 'dense2': expected one with 8 neurons, found 10, 3, 7, 4",
    )
    turned = observe(toys.make_model(1, widths=(8, 3, 10)), suite)
    assert (turned.layer_map, turned.activations) == ({}, {})
    assert turned.unmatched == "no layers correspond to 'dense1', 'dense2' in this order"


@pytest.mark.parametrize(
    ("layer_map", "code", "facts"),
    [
        ({"dense9": "dense2"}, "unknown-name", ("'dense9'", "dense2")),
        ({"dense2": "dense9"}, "unknown-name", ("toy-1: ", "'dense9'", "dense1, dense2, logits")),
        ({"dense2": "dense1"}, "wrong-value", ("toy-1: ", "'dense1'", "10", "8", "'dense2'")),
    ],
)
def test_a_wrong_map(layer_map: dict[str, str], code: str, facts: tuple[str, ...]) -> None:
    with refused(UsageError, *facts, code=code):
        observe(toys.make_model(1), toys.suite(), QuerySettings(layers=layer_map))


@pytest.mark.parametrize("access", [Access.LABELS, Access.BLACK_BOX])
def test_a_model_that_shows_no_layers(access: Access) -> None:
    observation = toys.seen(1, access=access)
    assert (observation.layer_map, observation.activations) == ({}, {})
    assert observation.unmatched == "the model's layers cannot be seen"
    model = toys.make_model(1, access=access)
    model.unseen = "it is a black box"
    assert observe(model, toys.suite()).unmatched == "the model's layers cannot be seen: it is a black box"
    np.testing.assert_allclose(observation.probabilities, toys.seen(1).probabilities, atol=1e-6)


def test_an_observation_whose_parts_do_not_fit(tmp_path: Path) -> None:
    save_observation(tmp_path / "o", toys.seen(1))
    from deepjudge_core.files import storage

    content = storage.read(tmp_path / "o", ["observation"])
    changes: list[Callable[[Any, Any], Any]] = [
        lambda m, a: m.pop("suite"),
        lambda m, a: m["model"].update(classes=3),
        lambda m, a: m["model"].update(input=None),
        lambda m, a: m.update(layers=3),
        lambda m, a: a.pop("probabilities"),
        lambda m, a: a.update(probabilities=a["probabilities"].ravel()),
        lambda m, a: a.update({"activations.0": a["activations.0"].ravel()}),
        lambda m, a: a.update({"activations.0": a["activations.0"][1:]}),
        # Numbers that no model gives, and that are none any more in the fourth power.
        lambda m, a: a.update({"activations.0": a["activations.0"].astype(np.float64) * 1e200}),
        lambda m, a: a.update({"activations.0": a["activations.0"].astype(np.complex64)}),
        lambda m, a: a.update(probabilities=a["probabilities"] > 0.5),
    ]
    for change in changes:
        manifest = {**content.header, "model": dict(content.header["model"])}
        arrays = dict(content.arrays)
        change(manifest, arrays)
        storage.write(tmp_path / "p", storage.seal("observation", manifest, arrays))
        with pytest.raises(FileFormatError) as caught:
            load_observation(tmp_path / "p")
        expect_facts(str(caught.value), tmp_path / "p")

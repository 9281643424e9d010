"""Models whose answers change by themselves, or are none: each is reported with its reason, none is independent."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from refusals import expect_facts, refused

from deepjudge_core import (
    Access,
    Calibration,
    Decision,
    JudgeSettings,
    QuerySettings,
    build_suite,
    calibrate,
    judge,
    load_calibration,
    load_observation,
    measure,
    observe,
    open_model,
    save_calibration,
    save_observation,
    select_seeds,
)
from deepjudge_core.auditing.outcome import SuspectResult
from deepjudge_core.cli import display, terminal
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import ModelError
from deepjudge_core.files.documents import plain
from deepjudge_core.models.steadiness import Responses, unsteadiness
from deepjudge_core.report.audit_json import report_to_json, schema
from deepjudge_core.types import Array

Change = Callable[[int, Array, list[Array]], list[Array]]


class Fickle(toys.NumpyModel):
    """Answers something else than its weights say, by the call and by the batch."""

    def __init__(self, change: Change, seed: int = 7, noise: float = 0.0, **facts: Any) -> None:
        steady = toys.make_model(seed, noise=noise)
        super().__init__(steady.weights, toys.SHAPE, name="fickle", **facts)
        self.change, self.calls, self.rows = change, 0, 0

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        return self.change(self.calls, x, super().forward(x, layers))


def noisy(size: float, where: int = -1) -> Change:
    rng = np.random.default_rng(0)

    def change(call: int, x: Array, outputs: list[Array]) -> list[Array]:
        if len(outputs) < -where:  # the output alone
            return outputs
        outputs[where] = outputs[where] + size * rng.normal(size=outputs[where].shape).astype(np.float32)
        return outputs

    return change


def drifting(call: int, x: Array, outputs: list[Array]) -> list[Array]:
    # Other answers to cases in company: of the first class.
    outputs[-1] = outputs[-1] + np.array([9, 0, 0, 0], np.float32) * (len(x) > 1)
    return outputs


def late(calls: int) -> Change:
    return lambda call, x, outputs: [*outputs[:-1], outputs[-1][:, ::-1] if call > calls else outputs[-1]]


def alternating(call: int, x: Array, outputs: list[Array]) -> list[Array]:
    return [*outputs[:-1], outputs[-1] + call % 2 * np.array([0, 1, 0, 0], np.float32)]


# What tells the kinds of unsteadiness apart.
SAME, APART, LATER = "same input", "alone", "again"


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (noisy(3), (SAME, "probabilities")),
        (noisy(0.05), (SAME, "probabilities")),
        (noisy(0.5, where=-2), (SAME, "'dense2'")),
        (drifting, (APART, "probabilities")),
        (late(2), (LATER, "probabilities")),
        (late(4), (SAME, "probabilities")),
        (late(5), (APART, "probabilities")),
        (alternating, (SAME, "probabilities")),
    ],
)
@pytest.mark.parametrize("seed", [7, 0])
def test_who_changes_is_no_independent_model(change: Change, facts: tuple[str, ...], seed: int) -> None:
    observation = observe(Fickle(change, seed), toys.suite(), QuerySettings(infer=False))
    expect_facts(str(observation.unsteady), *facts)
    for groups in ("separate", "joint"):
        verdict = judge(
            measure(toys.suite(), observation, registry=toys.registry()),
            toys.calibration(),
            JudgeSettings(rule="nearest", groups=groups),
            registry=toys.registry(),
        )
        assert verdict.decision in (Decision.COPY, Decision.INCONCLUSIVE)
        assert Decision.INDEPENDENT not in [setting.decision for setting in verdict.settings.values()]
        if verdict.decision is Decision.INCONCLUSIVE:
            assert verdict.reason == observation.unsteady


@pytest.mark.parametrize(
    ("facts", "seed"), [({}, 0), ({}, 7), ({"access": Access.BLACK_BOX}, 7), ({"fixed_batch": 4}, 7)]
)
def test_who_does_not_change_is_judged_as_ever(facts: dict[str, Any], seed: int) -> None:
    # Roundings are no change, nor is what differs by the batch as much as dynamic int8 quantisation.
    for change in (
        lambda call, x, outputs: outputs,
        noisy(1e-5),
        lambda call, x, outputs: [a + 0.02 * a.max() * np.sin(len(x)).astype(np.float32) for a in outputs],
    ):
        observation = observe(Fickle(change, seed, **facts), toys.suite())
        assert observation.unsteady is None
        assert "unsteady" not in plain(observation.header())  # or suites would have other digests than before
        measurements = measure(toys.suite(), observation, registry=toys.registry())
        verdict = judge(measurements, toys.calibration(), JudgeSettings(rule="nearest"), registry=toys.registry())
        assert verdict.decision is (Decision.INDEPENDENT if seed else Decision.COPY)


def test_who_gives_another_class_in_another_batch_is_no_independent_model() -> None:
    # Flat probabilities: what changes is little of them, and all of the class.
    def flat(call: int, x: Array, outputs: list[Array]) -> list[Array]:
        beside = 0.05 * np.array([0, 1, 0, 0], np.float32) * (len(x) > 1)
        return [*outputs[:-1], 0.01 * outputs[-1] + beside]

    observation = observe(Fickle(flat, 7), toys.suite(), QuerySettings(infer=False))
    expect_facts(str(observation.unsteady), "another class", "same input", APART, "of 12 cases")
    [result] = audited(Fickle(flat, 7))
    assert result.decision is not Decision.INDEPENDENT
    # Classes that are as likely may change places by roundings.
    even = observe(
        Fickle(lambda call, x, outputs: [*outputs[:-1], 1e-4 * outputs[-1] + 1e-5 * len(x)], 7), toys.suite()
    )
    assert even.unsteady is None


def test_a_copy_that_changes_is_a_copy_still() -> None:
    [result] = audited(Fickle(noisy(0.05), seed=0))
    assert result.decision is Decision.COPY
    assert result.observation is not None
    assert result.observation.unsteady


def test_models_of_a_fixed_batch_are_asked_in_another_order() -> None:
    def by_the_first(call: int, x: Array, outputs: list[Array]) -> list[Array]:
        return [*outputs[:-1], outputs[-1] + 9 * outputs[-1][:1]]

    suite = toys.suite()
    model = Fickle(by_the_first, seed=0, fixed_batch=8)
    observation = observe(model, suite, QuerySettings(infer=False))
    expect_facts(str(observation.unsteady), "order", "probabilities")
    # Some of each set for what its own output gives and for whether its layer counts, and three times four of each for
    # the sample.
    some = -(-toys.asked_of_output(suite) // 8)
    assert model.calls == -(-len(suite.cases.inputs) // 8) + 2 * some + 3 * -(-12 // 8)


def test_it_costs_little() -> None:
    victim = toys.make_model(name="victim")
    seeds = select_seeds(victim, *toys.make_inputs(victim, 1200), n=1000)
    suite = build_suite(victim, seeds, ["shove", "poke"], registry=toys.registry())
    model = Fickle(lambda call, x, outputs: outputs, seed=0)
    observe(model, suite)
    assert model.rows <= len(suite.cases.inputs) + len(suite.probes.labels) + 2 * toys.asked_of_output(suite) + 36
    assert toys.asked_of_output(suite) <= 3 * 32


def audited(*models: Any, calibration: Calibration | None = None) -> tuple[SuspectResult, ...]:
    suspects = [toys.Toy(model) for model in models]
    calibration = calibration or toys.calibration()
    return toys.outcome(
        toys.suite(), calibration, suspects, JudgeSettings(rule="nearest"), registry=toys.registry()
    ).suspects


def test_the_report_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    models = Fickle(noisy(3)), Fickle(noisy(0.05), seed=0, noise=0.05), toys.make_model(9)
    suspects = [toys.Toy(model) for model in models]
    report = toys.outcome(
        toys.suite(), toys.calibration(), suspects, JudgeSettings(rule="nearest"), registry=toys.registry()
    )
    written = report_to_json(report)
    jsonschema.validate(written, schema())
    first, second, third = written["suspects"]
    assert (first["decision"], first["reason"]) == ("inconclusive", first["unsteady"])
    assert (second["decision"], second["reason"]) == ("copy", None)
    expect_facts(second["unsteady"], SAME)
    assert (third["decision"], third["unsteady"]) == ("independent", None)
    display.show_report(terminal.console(), report)
    shown = capsys.readouterr().out
    assert f"Toy: inconclusive: {first['unsteady']}\n" in shown
    assert f"Toy: {second['unsteady']}\n" in shown
    assert shown.count(first["unsteady"]) == shown.count(second["unsteady"]) == 1


def test_it_stands_in_files(tmp_path: Path) -> None:
    observation = observe(Fickle(noisy(0.5)), toys.suite())
    save_observation(tmp_path / "o", observation)
    assert load_observation(tmp_path / "o").unsteady == observation.unsteady
    calibration = calibrate(toys.suite(), [toys.seen(1), toys.seen(2), observation], registry=toys.registry())
    [note] = calibration.notes
    expect_facts(note, f"fickle: {observation.unsteady}")
    save_calibration(tmp_path / "c", calibration)
    assert load_calibration(tmp_path / "c", toys.suite(), registry=toys.registry()).notes == (note,)


def test_a_victim_that_changes_is_refused() -> None:
    victim = toys.make_model()
    seeds = select_seeds(victim, *toys.make_inputs(victim), n=20)
    # As one that was exported while it was trained: the batch is normalised.
    with refused(ModelError, "fickle: "):
        build_suite(Fickle(drifting, seed=0), seeds, ["poke"], registry=toys.registry())


# The same of frameworks' models.


def layers_of(model: toys.NumpyModel, noise: Any) -> Any:
    """A toy in torch, with something before its last layer."""
    torch = pytest.importorskip("torch")
    parts = []
    for matrix, bias in model.weights:
        layer = torch.nn.Linear(*matrix.shape)
        layer.load_state_dict({"weight": torch.tensor(matrix.T), "bias": torch.tensor(bias)})
        parts += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-2], noise, parts[-2]).eval()


def noise_in_torch() -> Any:
    torch = pytest.importorskip("torch")

    class Noise(torch.nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, x: Any) -> Any:
            return x + torch.randn_like(x)

    class Batch(torch.nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, x: Any) -> Any:
            return (x - x.mean(0)) / (x.std(0, correction=0) + 0.1)

    return {"noise": Noise(), "batch": Batch(), "honest": torch.nn.Identity()}


@pytest.mark.parametrize("kind", ["noise", "batch", "honest"])
@pytest.mark.parametrize("seed", [7, 0])
def test_modules_of_torch(kind: str, seed: int, registry: Registry) -> None:
    module = layers_of(toys.make_model(seed), noise_in_torch()[kind])
    model = open_model(module, registry=registry, input_shape=toys.SHAPE)
    observation = observe(model, toys.suite(), QuerySettings(infer=False))
    verdict = judge(
        measure(toys.suite(), observation, registry=toys.registry()),
        toys.calibration(),
        JudgeSettings(rule="nearest"),
        registry=toys.registry(),
    )
    if kind == "honest":
        assert observation.unsteady is None
        assert verdict.decision is (Decision.INDEPENDENT if seed else Decision.COPY)
    else:
        expect_facts(str(observation.unsteady), APART if kind == "batch" else SAME)
        assert verdict.decision is not Decision.INDEPENDENT


def onnx_file(path: Path, seed: int, *, noise: bool = False) -> Path:
    """A toy in ONNX, with noise at its logits if wanted."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import helper, numpy_helper

    nodes, weights, last = [], [], "x"
    layers = toys.make_model(seed).weights
    for place, (matrix, bias) in enumerate(layers):
        final = place == len(layers) - 1
        weights += [
            numpy_helper.from_array(a.astype(np.float32), f"{n}{place}") for n, a in (("w", matrix), ("b", bias))
        ]
        nodes.append(helper.make_node("Gemm", [last, f"w{place}", f"b{place}"], [last := f"z{place}"]))
        if not final:
            nodes.append(helper.make_node("Relu", [last], [last := f"a{place}"]))
    if noise:
        nodes.append(helper.make_node("RandomNormalLike", [last], ["noise"], scale=2.0))
        nodes.append(helper.make_node("Add", [last, "noise"], [last := "noisy"]))
    source, output = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size])
        for name, size in (("x", toys.SHAPE[0]), (last, toys.CLASSES))
    )
    graph = helper.make_graph(nodes, "toy", [source], [output], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.mark.parametrize("seed", [7, 0])
def test_noise_in_onnx(seed: int, registry: Registry, tmp_path: Path) -> None:
    for noise in (False, True):
        model = open_model(onnx_file(tmp_path / f"{noise}.onnx", seed, noise=noise), registry=registry)
        observation = observe(model, toys.suite(), QuerySettings(infer=False))
        verdict = judge(
            measure(toys.suite(), observation, registry=toys.registry()),
            toys.calibration(),
            JudgeSettings(rule="nearest"),
            registry=toys.registry(),
        )
        if noise:
            expect_facts(str(observation.unsteady), SAME, "probabilities")
            assert verdict.decision is not Decision.INDEPENDENT
        else:
            assert observation.unsteady is None
            assert verdict.decision is (Decision.INDEPENDENT if seed else Decision.COPY)


@pytest.mark.parametrize("seed", [7, 0])
def test_dynamic_quantisation_is_steady_though_its_scale_is_the_batch_s(
    seed: int, registry: Registry, tmp_path: Path
) -> None:
    source = onnx_file(tmp_path / "float.onnx", seed)
    quantization = pytest.importorskip("onnxruntime.quantization")
    quantization.quantize_dynamic(source, tmp_path / "int8.onnx")
    model = open_model(tmp_path / "int8.onnx", registry=registry)
    x = toys.suite().cases.inputs
    alone = np.concatenate([model.predict(row) for row in x[:, None]])
    assert np.abs(model.predict(x) - alone).max() > 1e-3
    [result] = toys.outcome(
        toys.suite(),
        toys.calibration(),
        [tmp_path / "int8.onnx"],
        JudgeSettings(["answers", "surety"], rule="nearest"),
        registry=toys.registry_of(toys=toys, onnx=pytest.importorskip("deepjudge_onnx")),
        sandbox=None,
    ).suspects
    assert result.observation is not None
    assert result.observation.unsteady is None
    assert result.decision is (Decision.INDEPENDENT if seed else Decision.COPY)


# What is no answer at all.


def nan_at_each_second(call: int, x: Array, outputs: list[Array]) -> list[Array]:
    return [a * np.nan for a in outputs] if call % 2 == 0 else outputs


@pytest.mark.parametrize("access", [Access.BLACK_BOX, Access.FULL])
@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (nan_at_each_second, ("probabilities", "NaN", "(bad-answer)")),
        (lambda c, x, o: [*o[:-1], o[-1] * np.nan], ("probabilities", "NaN", "(bad-answer)")),
        (lambda c, x, o: [*o[:-1], o[-1] * np.inf], ("probabilities", "NaN", "(bad-answer)")),
        (lambda c, x, o: [*o[:-1], np.full_like(o[-1], np.inf)], ("probabilities", "NaN", "(bad-answer)")),
        (lambda c, x, o: [*o[:-1], np.full_like(o[-1], -np.inf)], ("probabilities", "NaN", "(bad-answer)")),
        (lambda c, x, o: [*o[:-1], o[-1] * 0], ("the same", "(bad-answer)")),
        (lambda c, x, o: [*o[:-1], o[-1][:-1]], ()),
        (lambda c, x, o: [*o[:-1], o[-1][:0]], ()),
        (lambda c, x, o: [*o[:-1], np.concatenate([o[-1], o[-1]])], ()),
        (lambda c, x, o: [*o[:-1], o[-1][0]], ()),
        (lambda c, x, o: [*o[:-1], np.float32(1)], ()),
        (lambda c, x, o: [*o[:-1], o[-1][:, :3]], ()),
        (lambda c, x, o: [*o[:-1], np.stack([o[-1], o[-1]], axis=2)], ()),
        (lambda c, x, o: [*o[:-1], np.concatenate([o[-1], o[-1]], axis=1)], ()),
        (lambda c, x, o: [*o[:-1], o[-1] if len(x) > 1 else o[-1] * np.nan], ("probabilities", "NaN", "(bad-answer)")),
        (lambda c, x, o: [*o[:-1], o[-1] if len(x) > 1 else o[-1][:, :3]], ()),
    ],
)
def test_what_is_no_answer_fails(change: Change, facts: tuple[str, ...], access: Access) -> None:
    # Not even a warning is left of it: those would be errors here.
    [result] = audited(Fickle(change, access=access))
    assert result.decision is Decision.FAILED
    expect_facts(str(result.failure), "fickle: ", *facts)


def test_no_numbers_at_a_tap_alone() -> None:
    [result] = audited(Fickle(lambda c, x, o: [o[0] * np.nan, *o[1:]] if len(o) > 1 else o))
    expect_facts(str(result.failure), "fickle: ", "'dense2'", "NaN", "(bad-answer)")


def test_a_class_that_is_always_as_likely_is_an_answer() -> None:
    [result] = audited(Fickle(lambda c, x, o: [*o[:-1], np.where(np.arange(4) == 3, -np.inf, o[-1])]))
    assert result.decision is Decision.INDEPENDENT


class Raw(toys.NumpyModel):
    """Any answers at all, as of an adapter that is not ours."""

    def __init__(self, answer: Callable[[Array], Any]) -> None:
        super().__init__(toys.make_model(7).weights, toys.SHAPE, name="raw", access=Access.BLACK_BOX)
        self.answer = answer

    def predict(self, x: Array) -> Any:
        return self.answer(super().predict(x))


@pytest.mark.parametrize(
    "answer",
    [
        lambda p: p[1:],
        lambda p: p[:, :3],
        lambda p: np.concatenate([p, p]),
        lambda p: p * 1.1,
        lambda p: p - p.max(),
        lambda p: None,
        lambda p: np.array(["a"] * len(p)),
        lambda p: np.full(p.shape, "a"),
        lambda p: p.astype(object),
    ],
)
def test_no_adapter_is_believed(answer: Callable[[Array], Any]) -> None:
    [result] = audited(Raw(answer))
    assert result.decision is Decision.FAILED
    assert str(result.failure).startswith("raw: ")


def test_who_fails_only_while_its_preprocessing_is_sought() -> None:
    # The whole suite is asked in three calls, and then what it expects is sought: there it always fails, and after.
    def change(call: int, x: Array, outputs: list[Array]) -> list[Array]:
        wrong = outputs[-1][:, ::-1] + np.array([9, 0, 0, 0], np.float32)
        return [*outputs[:-1], wrong if call <= 2 else wrong * np.nan]

    [result] = audited(Fickle(change, seed=0))
    expect_facts(str(result.failure), "fickle: ", "probabilities", "NaN", "(bad-answer)")
    # One that fails of other inputs alone is asked no others in the end, and keeps to its answers.
    calls: list[bool] = []

    def picky(call: int, x: Array, outputs: list[Array]) -> list[Array]:
        calls.append(bool(np.abs(x).max() > 1 or x.min() < 0))
        wrong = outputs[-1][:, ::-1] + np.array([9, 0, 0, 0], np.float32)
        return [*outputs[:-1], wrong * np.nan if calls[-1] else wrong]

    [result] = audited(Fickle(picky, seed=0))
    assert any(calls)
    assert result.failure is None
    assert result.observation is not None
    assert result.observation.unsteady is None


# What is measured.


def test_the_cases_of_each_set_are_asked_and_the_greatest_difference_is_said() -> None:
    sets = np.repeat([0, 1, 2], [100, 3, 1])
    p = np.full((104, 2), 0.5, np.float32)
    batches: list[list[int]] = []

    def answer(rows: Array) -> Responses:
        batches.append(rows.tolist())
        other = p[rows].copy()
        if len(rows) == 1 and rows[0] == 103:  # the only one of its set
            other += np.array([0.2, -0.2], np.float32)
        return Responses(other, {})

    expect_facts(str(unsteadiness(Responses(p, {}), sets, answer)), APART, "probabilities", "0.2")
    rows = [0, 33, 66, 99, 100, 101, 102, 103]
    assert batches == [rows, rows, *([row] for row in rows)]


def test_outputs_are_compared_with_the_greatest() -> None:
    p, huge = np.full((4, 2), 0.5, np.float32), np.float32(3e38)
    first = Responses(p, {"none": np.zeros((4, 1), np.float32), "tap": np.full((4, 1), huge)})
    turns = iter([1, -1, *[1] * 4])

    def answer(rows: Array) -> Responses:
        turn = np.float32(next(turns))
        return Responses(p[rows], {tap: values[rows] * turn for tap, values in first.activations.items()})

    expect_facts(str(unsteadiness(first, np.zeros(4, int), answer)), SAME, "'tap'", "2")

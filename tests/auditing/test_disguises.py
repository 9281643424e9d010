"""A thief disguises a copy without training and at no cost in accuracy: the audit plays the attacker's moves.

Each disguise is an ONNX file that answers data as the victim does. It is judged a copy, or inconclusive with a reason.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from deepjudge_core import (
    Calibration,
    Decision,
    JudgeSettings,
    Suite,
    Verdict,
    build_suite,
    calibrate,
    judge,
    measure,
    observe,
    open_model,
    select_seeds,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

Pairs = list[tuple[np.ndarray, np.ndarray]]
HONEST, CONTROLS = range(40, 46), range(3, 15)


def weights(seed: int) -> Pairs:
    return [(m.astype(np.float32), b.astype(np.float32)) for m, b in toys.make_model(seed).weights]


@functools.cache
def suite() -> Suite:
    victim = toys.make_model(0)
    x = (np.rint(toys.make_inputs(victim, 400)[0] * 255) / 255).astype(np.float32)
    seeds = select_seeds(victim, x, victim.predict(x).argmax(axis=1), n=150)
    options = {"neuron-corners": {"iterations": 100, "tries": 4}}
    return build_suite(victim, seeds, ["pgd", "neuron-corners"], options=options, force=True)


@functools.cache
def calibration() -> Calibration:
    return calibrate(suite(), [observe(toys.make_model(seed), suite()) for seed in CONTROLS])


class Graph:
    """A graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def number(self, value: object, kind: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def add(self, kind: str, *inputs: str, **options: object) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **options))
        return name

    def network(self, pairs: Pairs, relu: Callable[["Graph", str], str] | None = None) -> str:
        *hidden, (matrix, bias) = pairs
        at = "x"
        for m, b in hidden:
            at = self.add("Gemm", at, self.number(m), self.number(b))
            at = self.add("Relu", at) if relu is None else relu(self, at)
        return self.add("Gemm", at, self.number(matrix), self.number(bias))

    def save(self, path: Path, output: str) -> Path:
        self.nodes.append(helper.make_node("Identity", [output], ["scores"]))
        ends = [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", toys.CLASSES])]
        start = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", *toys.SHAPE])]
        graph = helper.make_graph(self.nodes, "g", start, ends, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, path)
        return path


def half_sum(graph: Graph, at: str) -> str:
    """A ReLU written (t + |t|) / 2."""
    return graph.add("Mul", graph.add("Add", at, graph.add("Abs", at)), graph.number(0.5))


def hidden_relu(graph: Graph, at: str) -> str:
    """A ReLU that is no elementwise operation: the greater of two places of a new axis."""
    one = graph.number([1], np.int64)
    wide = graph.add("Unsqueeze", at, one)
    both = graph.add("Concat", wide, graph.add("Mul", wide, graph.number(0.0)), axis=1)
    return graph.add("ReduceMax", both, axes=[1], keepdims=0)


def temperature(graph: Graph) -> str:
    return graph.add("Div", graph.network(weights(0)), graph.number(20.0))


def one_class(graph: Graph) -> str:
    """All probability on the likeliest class."""
    return graph.add("Mul", graph.network(weights(0)), graph.number(1e4))


def decoy(graph: Graph) -> str:
    """Behind a copy whose activations are written in another way, an honest network that counts 1e-30."""
    copy, other = graph.network(weights(0), half_sum), graph.network(weights(30))
    return graph.add("Add", copy, graph.add("Mul", other, graph.number(1e-30)))


def hidden_decoy(graph: Graph) -> str:
    """The same with activations that no adapter knows, and the scores divided."""
    copy, other = graph.network(weights(0), hidden_relu), graph.network(weights(30))
    both = graph.add("Add", copy, graph.add("Mul", other, graph.number(1e-30)))
    return graph.add("Div", both, graph.number(20.0))


def router(graph: Graph) -> str:
    """What lies off the grid of the data gets an honest network's answer."""
    copy, other = graph.network(weights(0)), graph.network(weights(30))
    scaled = graph.add("Mul", "x", graph.number(255.0))
    apart = graph.add("Abs", graph.add("Sub", scaled, graph.add("Round", scaled)))
    most = graph.add("ReduceMax", apart, axes=[1], keepdims=1)
    return graph.add("Where", graph.add("Less", most, graph.number(0.01)), copy, other)


def split_neuron(graph: Graph) -> str:
    """Each neuron in two halves: no layer has a width of the victim's."""
    pairs, wider = weights(0), []
    for place, (m, b) in enumerate(pairs):
        rows = m if place == 0 else np.concatenate([m, m]) / 2
        last = place == len(pairs) - 1
        wider.append((rows, b) if last else (np.concatenate([rows, rows], axis=1), np.concatenate([b, b])))
    return graph.network(wider)


def added_neuron(graph: Graph) -> str:
    """One more neuron in each hidden layer, which nothing reads."""
    pairs, rng = weights(0), np.random.default_rng(0)
    wider, before = [], 0
    for place, (m, b) in enumerate(pairs):
        rows = np.concatenate([m, np.zeros((before, m.shape[1]), np.float32)])
        before, last = 1, place == len(pairs) - 1
        extra = rng.normal(size=(len(rows), 1)).astype(np.float32)
        wider.append((rows, b) if last else (np.concatenate([rows, extra], axis=1), np.append(b, np.float32(0))))
    return graph.network(wider)


def merged(graph: Graph) -> str:
    """The neurons of a copy and of an honest network in the same layers; the scores are the copy's."""
    copy, other = weights(0), weights(30)
    pairs = []
    for place, ((m, b), (k, c)) in enumerate(zip(copy, other, strict=True)):
        if place == 0:
            pairs.append((np.concatenate([m, k], axis=1), np.concatenate([b, c])))
        elif place == len(copy) - 1:
            pairs.append((np.concatenate([m, 1e-6 * k]), b))
        else:
            zeros = [np.zeros((len(one), two.shape[1]), np.float32) for one, two in ((m, k), (k, m))]
            pairs.append((np.block([[m, zeros[0]], [zeros[1], k]]), np.concatenate([b, c])))
    return graph.network(pairs)


DISGUISES = (
    temperature,
    one_class,
    decoy,
    hidden_decoy,
    router,
    split_neuron,
    added_neuron,
    merged,
)
WIDER = (split_neuron, added_neuron, merged)


def judged(path: Path, rule: str) -> Verdict:
    observation = observe(open_model(path), suite())
    return judge(measure(suite(), observation), calibration(), JudgeSettings(rule=rule))


@pytest.mark.parametrize("rule", ["voting", "prediction-bound"])
@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_copy_is_a_copy(disguise: Callable[[Graph], str], rule: str, tmp_path: Path) -> None:
    graph = Graph()
    path = graph.save(tmp_path / "suspect.onnx", disguise(graph))
    inputs = suite().cases.inputs[suite().rows("clean")]
    same = open_model(path).predict(inputs).argmax(axis=1) == toys.make_model(0).predict(inputs).argmax(axis=1)
    assert same.all()  # it costs the thief nothing

    verdict = judged(path, rule)

    assert verdict.decision is Decision.COPY
    if disguise in WIDER:
        # One metric alone does not accuse: a wider network tells more of any layer.
        assert verdict.metrics["nod"].value is None
        assert verdict.settings["white-box"].decision is Decision.INCONCLUSIVE
    if disguise is hidden_decoy:
        # No tap is the copy's, and those of the honest network do not count.
        assert verdict.metrics["nod"].value is None
        assert verdict.settings["white-box"].decision is Decision.INCONCLUSIVE
    else:
        recovered = verdict.metrics["recovery"].value
        assert recovered is not None
        assert recovered < 0.05


@pytest.mark.parametrize("seed", HONEST)
def test_honest_models_are_not_accused(seed: int, tmp_path: Path) -> None:
    graph = Graph()
    path = graph.save(tmp_path / "honest.onnx", graph.network(weights(seed)))

    assert all(judged(path, rule).decision is not Decision.COPY for rule in ("voting", "prediction-bound"))

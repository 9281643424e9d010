"""ONNX networks of any width and depth with random weights, suites of them, and what is done with these."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deepjudge_core import Session, build_suite, calibrate, load_registry, measure, observe, open_model, select_seeds
from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite

INPUTS, CLASSES = 64, 10
METRICS = ("robd", "jsd", "lod", "lad", "nod", "nad")


class Made:
    """Makes them in a folder."""

    def __init__(self, folder: Path) -> None:
        """Take the folder."""
        self._folder, self._registry = folder, load_registry()

    def network(self, seed: int = 0, width: int = 64, depth: int = 2, classes: int = CLASSES) -> Path:
        """Write a network of so many hidden layers of so many neurons."""
        path = self._folder / f"{seed}-{width}-{depth}-{classes}.onnx"
        if not path.exists():
            rng, sizes = np.random.default_rng(seed), (INPUTS, *[width] * depth, classes)
            nodes, weights, name = list[onnx.NodeProto](), list[onnx.TensorProto](), "x"
            for place, (rows, columns) in enumerate(itertools.pairwise(sizes)):
                values = rng.normal(0, np.sqrt(2 / rows), (rows, columns)).astype(np.float32)
                weights.append(numpy_helper.from_array(values, f"w{place}"))
                nodes.append(helper.make_node("MatMul", [name, f"w{place}"], [name := f"a{place}"]))
                if place < depth:
                    nodes.append(helper.make_node("Relu", [name], [name := f"h{place}"]))
            graph = helper.make_graph(
                nodes,
                "network",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", INPUTS])],
                [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", classes])],
                weights,
            )
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path

    def parameters(self, network: Path) -> int:
        """How many a network has."""
        return sum(int(np.prod(tensor.dims)) for tensor in onnx.load(network).graph.initializer)

    def outputs(self, seed: int, width: int) -> np.ndarray:
        """What a layer of random weights gives for 1,000 inputs."""
        x = np.random.default_rng(100).normal(size=(1000, 256))
        weights = np.random.default_rng(seed).normal(size=(256, width))
        return np.maximum(x @ weights, 0).astype(np.float32)

    def suite(self, network: Path, cases: int) -> Suite:
        """Make a suite of a network: half of the cases are seeds."""
        victim = open_model(network, registry=self._registry)
        x = np.random.default_rng(0).normal(size=(2 * cases, INPUTS)).astype(np.float32)
        labels, bounds = victim.predict(x).argmax(axis=1), (float(x.min()), float(x.max()))
        seeds = select_seeds(victim, x, labels, n=cases // 2, bounds=bounds)
        return build_suite(victim, seeds, ["fgsm"], seed=0, registry=self._registry)

    def judging(self, suite: Suite, suspect: Path) -> Callable[[], object]:
        """Open a suspect, ask and measure it."""

        def run() -> object:
            observation = observe(open_model(suspect, registry=self._registry), suite)
            return measure(suite, observation, METRICS, registry=self._registry)

        return run

    def answers(self, suite: Suite, controls: int) -> Sequence[Observation]:
        """What models of other seeds than the victim's answer."""
        classes = suite.victim.model.classes
        paths = (self.network(seed, classes=classes) for seed in range(1000, 1000 + controls))
        return [observe(open_model(path, registry=self._registry), suite) for path in paths]

    def calibrated(self, suite: Suite, controls: Sequence[Observation]) -> Calibration:
        """Their thresholds, however inaccurate random networks are."""
        return calibrate(suite, controls, METRICS, far=True, registry=self._registry)

    def judging_all(self, suite: Suite, suspects: int) -> Callable[[], object]:
        """Judge so many suspects, each in this process."""
        calibration = self.calibrated(suite, self.answers(suite, 6))
        paths = [self.network(seed) for seed in range(2000, 2000 + suspects)]
        judged, session = Judge.of(JudgeSettings(), self._registry), Session(self._registry, None)
        return partial(judge_suspects, suite, calibration, paths, judged, session=session)

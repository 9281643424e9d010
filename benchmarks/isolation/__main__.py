"""What isolation costs: ``python benchmarks/isolation [onnx|pt2|keras ...]``.

The same suspects are judged in this process and each in one of its own, in turn, when all frameworks are imported here.
What is measured of them has to be the same. All figures are seconds for one suspect. Needs the extras of deepjudge.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from deepjudge_core import Inputs, build_suite, calibrate, load_registry, observe, open_model, select_seeds
from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.auditing.session import Session
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.report.audit_json import dump_report, report_to_json
from deepjudge_core.sandbox.policy import Sandbox

SHAPE, CLASSES = (1, 28, 28), 10
CHANNELS, NEURONS = (8, 16), 64
ONNX_LIMIT = 0.5  # seconds
ALONE = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


class Format(NamedTuple):
    imports: str
    load: str  # by the framework alone, which imports more as it loads
    save: Callable[[int, Path], None]
    limit: float | None = None  # None: what the imports take


def module(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    flat = CHANNELS[1] * 5 * 5
    first, second = (
        [nn.Conv2d(*channels, 3), nn.ReLU(), nn.MaxPool2d(2)] for channels in ((SHAPE[0], CHANNELS[0]), CHANNELS)
    )
    return nn.Sequential(
        *first, *second, nn.Flatten(), nn.Linear(flat, NEURONS), nn.ReLU(), nn.Linear(NEURONS, CLASSES)
    ).eval()


def save_onnx(seed: int, path: Path) -> None:
    state = {name.replace(".", "_"): value.numpy() for name, value in module(seed).state_dict().items()}
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "0_weight", "0_bias"], ["c1"]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], **pool),
        helper.make_node("Conv", ["p1", "3_weight", "3_bias"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["p2"], **pool),
        helper.make_node("Flatten", ["p2"], ["f"]),
        helper.make_node("Gemm", ["f", "7_weight", "7_bias"], ["g1"], transB=1),
        helper.make_node("Relu", ["g1"], ["r3"]),
        helper.make_node("Gemm", ["r3", "9_weight", "9_bias"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in state.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def save_pt2(seed: int, path: Path) -> None:
    rows = {0: torch.export.Dim("n", min=1)}
    torch.export.save(torch.export.export(module(seed), (torch.zeros(2, *SHAPE),), dynamic_shapes=[rows]), path)


def save_keras(seed: int, path: Path) -> None:
    keras.utils.set_random_seed(seed)
    keras.Sequential(
        [
            keras.Input((*SHAPE[1:], *SHAPE[:1])),
            *(keras.layers.Conv2D(CHANNELS[0], 3, activation="relu"), keras.layers.MaxPooling2D()),
            *(keras.layers.Conv2D(CHANNELS[1], 3, activation="relu"), keras.layers.MaxPooling2D()),
            *(keras.layers.Flatten(), keras.layers.Dense(NEURONS, activation="relu"), keras.layers.Dense(CLASSES)),
        ]
    ).save(path)


FORMATS: Mapping[str, Format] = {
    "onnx": Format("import onnx, onnxruntime", "onnxruntime.InferenceSession({path!r})", save_onnx, ONNX_LIMIT),
    "pt2": Format("import torch", "torch.export.load({path!r})", save_pt2),
    "keras": Format("import tensorflow, keras", "keras.models.load_model({path!r}, compile=False)", save_keras),
}


def alone(code: str, rounds: int) -> float:
    """Seconds that code takes in a new process; the first time, which reads the disk, does not count."""
    command = [sys.executable, "-I", "-c", ALONE.format(code)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(rounds + 1)]
    return statistics.median(float(run.stdout) for run in runs[1:])


def measured(report: AuditOutcome, level: Isolation) -> Any:
    """All of a report but how its suspects were kept, which has to be this."""
    values = report_to_json(report)
    for suspect in values["suspects"]:
        assert suspect.pop("isolation") == level, suspect
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", metavar="|".join(FORMATS), help="default: all")
    parser.add_argument("-n", type=int, default=4, help="suspects of each format")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    registry = load_registry()
    heads = ["isolated", "in this process", "added", "wanted, at most", "bare import", "bare import and load"]
    print(f"| suspects | {' | '.join(heads)} |\n|{' --- |' * (1 + len(heads))}")
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        for seed in range(4):
            save_onnx(seed, models / f"{seed}.onnx")
        victim, *controls = (open_model(models / f"{seed}.onnx", registry=registry) for seed in range(4))
        x = np.random.default_rng(0).normal(size=(600, *SHAPE)).astype(np.float32)
        inputs = Inputs(x, victim.predict(x).argmax(axis=1), (float(x.min()), float(x.max())))
        seeds = select_seeds(victim, inputs.x, inputs.y, n=200, bounds=inputs.bounds)
        suite = build_suite(victim, seeds, ["fgsm"], registry=registry)
        calibration = calibrate(suite, [observe(control, suite) for control in controls], registry=registry)
        for name in arguments.formats or FORMATS:
            kind = FORMATS[name]
            suspects = [models / f"suspect-{seed}.{name}" for seed in range(10, 10 + arguments.n)]
            for seed, path in enumerate(suspects, 10):
                kind.save(seed, path)
            ways = {Isolation.FULL: Sandbox(required=True), Isolation.NONE: None}
            seconds: dict[Isolation, list[float]] = {level: [] for level in ways}
            for counts in [False] + [True] * arguments.rounds:  # the first time warms up
                reports = []
                for level, sandbox in ways.items():
                    start = time.perf_counter()
                    report = judge_suspects(
                        suite,
                        calibration,
                        suspects,
                        Judge.of(JudgeSettings(), registry),
                        session=Session(registry, sandbox),
                    )
                    if counts:
                        seconds[level].append((time.perf_counter() - start) / arguments.n)
                    reports.append(measured(report, level))
                assert reports[0] == reports[1], "isolation changed what was measured"
                assert all(suspect["decision"] != "failed" for suspect in reports[0]["suspects"]), dump_report(report)
            apart, within = (statistics.median(seconds[level]) for level in ways)
            bare = alone(kind.imports, arguments.rounds)
            loaded = alone(f"{kind.imports}; {kind.load.format(path=str(suspects[0]))}", arguments.rounds)
            limit = bare if kind.limit is None else kind.limit
            numbers = [apart, within, apart - within, limit, bare, loaded]
            print(f"| {arguments.n} .{name} | {' | '.join(f'{seconds:.2f}' for seconds in numbers)} |", flush=True)


if __name__ == "__main__":
    main()

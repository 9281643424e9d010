"""judge against the bare forward passes: all six metrics of one ONNX suspect, of a suite that is there."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import peers
from networks import LENET, RESNET, Data
from table import Row
from timing import best, race

from deepjudge_core import build_suite, load_registry, measure, observe, open_model, select_seeds
from deepjudge_core.suites.suite import Suite

SEEDS, ROUNDS = {LENET: 1000, RESNET: 200}, 9
METRICS = ("robd", "jsd", "nod", "nad", "lod", "lad")
NAMES = {LENET: "LeNet", RESNET: "ResNet-20"}
CORNERS = {"iterations": 50, "tries": 3}


def judge(data: Data) -> Iterator[Row]:
    """The model is opened before, or within the time."""
    registry = load_registry()
    for name, title in NAMES.items():
        file = data.onnx(name)
        suite = _suite(data, name)
        inputs, suspect, session = suite.cases.inputs, open_model(file), _session(file)

        def ours(suspect: Any, suite: Suite = suite) -> None:
            measure(suite, observe(suspect, suite), METRICS, registry=registry)

        rows = best(partial(_passes, session, inputs), [32, 64, *peers.BATCHES[:3]])
        found = race(
            {
                "deepjudge": partial(ours, suspect),
                "deepjudge with opening": lambda file=file, ours=ours: ours(open_model(file)),
                "bare passes": partial(_passes, session, inputs, rows),
                "bare passes with opening": lambda file=file, inputs=inputs, rows=rows: _passes(
                    _session(file), inputs, rows
                ),
            },
            rounds=ROUNDS,
        )
        detail = f"{len(inputs)} cases; {found}; bare: {rows} rows in a batch"
        warm = found.ratio("deepjudge", "bare passes")
        yield Row(f"`judge`, {title}, opened before: deepjudge / bare passes", warm, 1.15, detail=detail)
        fresh = found.ratio("deepjudge with opening", "bare passes with opening")
        yield Row(f"`judge`, {title}, with opening: deepjudge / bare passes", fresh, 1.4)


def _suite(data: Data, name: str) -> Suite:
    victim = open_model(data.victim(name))
    if name == LENET:
        x, y = data.mnist
    else:  # no pictures are needed for what it takes to run it
        x = np.random.default_rng(0).random((400, *victim.input.shape), dtype=np.float32)
        y = victim.predict(x).argmax(axis=1)
    seeds = select_seeds(victim, x[:2000], y[:2000], n=SEEDS[name])
    return build_suite(
        victim,
        seeds,
        ["pgd", "neuron-corners"],
        options={"neuron-corners": CORNERS, "pgd": {"eps": 0.1}},
        training_inputs=x[:400],
        seed=0,
    )


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _passes(session: onnxruntime.InferenceSession, inputs: np.ndarray, rows: int) -> None:
    name = session.get_inputs()[0].name
    for at in range(0, len(inputs), rows):
        session.run(None, {name: inputs[at : at + rows]})

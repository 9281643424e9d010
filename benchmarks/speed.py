"""Speed, as ratios measured side by side in one run: ``python benchmarks/speed.py [corners|pgd|judge ...]``.

Needs the extras of deepjudge, ``benchmarks/requirements.txt``, and the authors' LeNet-5 with MNIST (``--data``).
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
import torch

from deepjudge_core import build_suite, load_registry, measure, observe, open_model, select_seeds
from deepjudge_core.components.values import Seeds, Task

ROUNDS = 5


def side_by_side(runs: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each run, taken in turn after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def row(what: str, ratio: float, limit: str, detail: str) -> None:
    print(f"| {what} | {ratio:.2f} | {limit} | {detail} |", flush=True)


def corners(victim_path: Path, x: np.ndarray, y: np.ndarray, train: np.ndarray) -> None:
    """All (seed, neuron) pairs at once, against one pair at a time (the scheme of the paper's authors).

    Both with inputs clipped to their bounds, as here, and free to leave them, as in the authors' code.
    """
    victim = open_model(victim_path)
    layer = next(name for name, width in victim.layers.items() if width == 16)
    generator = load_registry().generators["neuron-corners"]
    model = keras.models.load_model(victim_path, compile=False)
    part = keras.Model(model.inputs, model.get_layer(layer).output)
    outputs = np.concatenate([part(train[i : i + 1000]).numpy().mean(axis=(1, 2)) for i in range(0, len(train), 1000)])
    thresholds = 3 * outputs.max(axis=0)
    starts = select_seeds(victim, x, y, n=100)
    pairs = [(s, n) for s in range(100) for n in range(16)]
    for what, bounds, sampled in (("inputs clipped", (0.0, 1.0), 12), ("inputs free", (-1000.0, 1000.0), 48)):
        seeds = Seeds(starts.inputs, starts.labels, starts.indices, bounds)
        options = {"m": 3.0, "iterations": 1000, "per_neuron": 100, "tries": 100, "step": 0.01 / seeds.span}
        few = Seeds(starts.inputs[:2], starts.labels[:2], starts.indices[:2], bounds)
        generator.generate(Task(victim, few, (layer,), train[:100], np.random.default_rng(0)), **options)
        start = time.perf_counter()
        cases = generator.generate(Task(victim, seeds, (layer,), train, np.random.default_rng(0)), **options)
        ours = (time.perf_counter() - start) / len(pairs)

        sample = [pairs[i] for i in np.random.default_rng(0).choice(len(pairs), sampled, replace=False)]
        one_pair(part, seeds, 0, 0, thresholds, steps=2)
        start = time.perf_counter()
        reached = sum(one_pair(part, seeds, s, n, thresholds) for s, n in sample)
        single = (time.perf_counter() - start) / len(sample)
        detail = (
            f"{ours * 1000:.1f} ms per pair over all {len(pairs)} pairs ({len(cases.inputs)} reached); "
            f"{single * 1000:.0f} ms one at a time over {len(sample)} random pairs ({reached} reached)"
        )
        row(f"neuron-corners, {what}: one pair at a time / ours", single / ours, ">= 50", detail)


def one_pair(
    part: "keras.Model", seeds: Seeds, seed: int, neuron: int, thresholds: np.ndarray, steps: int = 1000
) -> bool:
    """Eager Adam on one input: two forward passes and one backward pass a step."""
    x = tf.Variable(seeds.inputs[seed : seed + 1])
    adam = keras.optimizers.Adam(0.01)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(part(x)[..., neuron])
        adam.apply([tape.gradient(loss, x)], [x])
        x.assign(tf.clip_by_value(x, *seeds.bounds))
        if float(tf.reduce_mean(part(x)[..., neuron])) > thresholds[neuron]:
            return True
    return False


class LeNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, 6, 5, padding=2),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(6, 16, 5, padding=2),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(784, 120),
            torch.nn.ReLU(),
            torch.nn.Linear(120, 84),
            torch.nn.ReLU(),
            torch.nn.Linear(84, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def pgd(x: np.ndarray, y: np.ndarray) -> None:
    """1,000 seeds, 10 steps, on one torch model."""
    import foolbox
    import torchattacks

    torch.manual_seed(0)
    module = LeNet().eval()
    inputs = x[:1000].transpose(0, 3, 1, 2).copy()
    labels = y[:1000]
    victim = open_model(module, input_shape=(1, 28, 28))
    seeds = Seeds(inputs, labels, np.arange(1000), (0.0, 1.0))
    generator = load_registry().generators["pgd"]
    tensor, target = torch.tensor(inputs), torch.tensor(labels)
    batch = 512

    def ours() -> None:
        task = Task(victim, seeds, (), inputs, np.random.default_rng(0))
        generator.generate(task, eps=0.1, step=0.02, steps=10)

    def bare() -> None:
        for start in range(0, 1000, batch):
            part, goal = tensor[start : start + batch].clone(), target[start : start + batch]
            for _ in range(10):
                part.requires_grad_(True)
                loss = torch.nn.functional.cross_entropy(module(part), goal, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, part)
                part = (part.detach() + 0.02 * gradient.sign()).clamp(0, 1)

    fmodel = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.02, steps=10)
    other = torchattacks.PGD(module, eps=0.1, alpha=0.02, steps=10)

    def foolbox_pgd() -> None:
        for start in range(0, 1000, batch):
            attack(fmodel, tensor[start : start + batch], target[start : start + batch], epsilons=0.1)

    def torchattacks_pgd() -> None:
        for start in range(0, 1000, batch):
            other(tensor[start : start + batch], target[start : start + batch])

    seconds = side_by_side({"ours": ours, "bare": bare, "foolbox": foolbox_pgd, "torchattacks": torchattacks_pgd})
    detail = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    row("pgd, ours / bare forward and backward passes", seconds["ours"] / seconds["bare"], "<= 1.3", detail)
    row("pgd, ours / Foolbox", seconds["ours"] / seconds["foolbox"], "<= 1", detail)
    row("pgd, ours / torchattacks", seconds["ours"] / seconds["torchattacks"], "<= 1", detail)


def judge(victim_path: Path, x: np.ndarray, y: np.ndarray, train: np.ndarray) -> None:
    """One suspect, all six metrics: against bare passes, and against a sub-model per neuron and metric."""
    victim = open_model(victim_path)
    suite = build_suite(victim, select_seeds(victim, x, y), ["pgd", "neuron-corners"], training_inputs=train, seed=0)
    inputs = suite.cases.inputs
    keras_model = keras.models.load_model(victim_path, compile=False)
    keras_model(x[:1])  # Keras exports what was called
    names = ["robd", "jsd", "nod", "nad", "lod", "lad"]
    registry = load_registry()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "suspect.onnx"
        keras_model.export(file, format="onnx", verbose=False)
        suspect = open_model(file)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def ours() -> None:
            measure(suite, observe(suspect, suite), names, registry=registry)

        def bare() -> None:
            for start in range(0, len(inputs), 512):
                session.run(None, {name: inputs[start : start + 512]})

        onnx = side_by_side({"ours": ours, "bare": bare}, rounds=21)
    detail = f"{len(inputs)} cases; " + ", ".join(f"{k} {v * 1000:.0f} ms" for k, v in onnx.items())
    row("judge one ONNX suspect / bare ONNX Runtime passes", onnx["ours"] / onnx["bare"], "<= 1.3", detail)

    corner_inputs = inputs[suite.rows("corners")]
    neurons = sorted(set(suite.cases.neurons[suite.rows("corners")].tolist()))
    layer = keras_model.get_layer(suite.layers[0])
    loaded = open_model(victim_path)

    def rebuilt() -> None:
        for _ in ("nod", "nad"):
            for neuron in neurons:
                rows = suite.cases.neurons[suite.rows("corners")] == neuron
                for model in (keras_model, keras_model):
                    part = keras.Model(model.inputs, layer.output)
                    part.predict(corner_inputs[rows], verbose=0)
        for _ in ("lod", "lad"):
            for model in (keras_model, keras_model):
                keras.Model(model.inputs, layer.output).predict(corner_inputs, verbose=0)

    def ours_keras() -> None:
        measure(suite, observe(loaded, suite), names, registry=registry)

    seconds = side_by_side({"ours": ours_keras, "rebuilt": rebuilt}, rounds=3)
    detail = f"{len(neurons)} neurons; " + ", ".join(f"{k} {v:.2f} s" for k, v in seconds.items())
    row(
        "a sub-model per neuron and metric / judge one Keras suspect",
        seconds["rebuilt"] / seconds["ours"],
        ">= 20",
        detail,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", nargs="*", metavar="corners|pgd|judge", help="default: all")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of mnist.npz and victims/")
    arguments = parser.parse_args()
    which = arguments.which or ["corners", "pgd", "judge"]
    with np.load(arguments.data / "mnist.npz") as data:
        x = data["x_test"][..., None].astype(np.float32) / 255
        y = data["y_test"].astype(np.int64)
        train = data["x_train"][:20000, ..., None].astype(np.float32) / 255
    victim = arguments.data / "victims" / "mnist_lenet5.h5"
    print("| what | ratio | wanted | detail |\n| --- | --- | --- | --- |")
    if "corners" in which:
        corners(victim, x, y, train)
    if "pgd" in which:
        pgd(x, y)
    if "judge" in which:
        judge(victim, x, y, train)


if __name__ == "__main__":
    main()

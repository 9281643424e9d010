"""neuron-corners against the bare passes of the same rows, and against one pair at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import networks
import numpy as np
import tensorflow as tf
import torch
from networks import LENET, Data, channels_last
from table import Row
from timing import best, cost, race

from deepjudge_core import load_registry, open_model, select_seeds
from deepjudge_core.components.values import Seeds, Task
from deepjudge_core.models.model import Cotangent, Model

NEURONS, ITERATIONS, TRIES, ROUNDS = 16, 100, 10, 5
PAIRS = 4  # tried one at a time
RATE, M = 0.01, 3.0


@dataclass(frozen=True)
class Framework:
    """How one framework has the victim.

    Attributes:
        victim: As deepjudge opens it.
        seeds: Its inputs, with the channels where it has them.
        passes: Forward and back once, bare, for so many rows, so many in a batch.
        one: Forward and back, and forward again, for one input and neuron.
    """

    victim: Model
    seeds: Seeds
    passes: Callable[[int, int], object]
    one: Callable[[np.ndarray, int], tuple[np.ndarray, float]]


class Counting:
    """A model that notes how many rows each gradient was taken of."""

    def __init__(self, model: Model) -> None:
        self._model, self.rows = model, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def gradient(self, x: np.ndarray, cotangent: Cotangent, *, layer: str | None = None) -> np.ndarray:
        """See :class:`Model`."""
        self.rows.append(len(x))
        return self._model.gradient(x, cotangent, layer=layer)


def corners(data: Data) -> Iterator[Row]:
    """All pairs of the 16 neurons of the second convolution with ten seeds each."""
    for name, framework in _frameworks(data).items():
        layer = next(tap for tap, width in framework.victim.layers.items() if width == NEURONS)
        training = data.training if framework.seeds.inputs.shape[-1] == 1 else _first(data.training)
        counting = Counting(framework.victim)

        def ours(victim: Any, seeds: Seeds = framework.seeds, layer: str = layer, rows: Any = training) -> Any:
            task = Task(victim, seeds, (layer,), rows, np.random.default_rng(0))
            generator = load_registry().generators["neuron-corners"]
            return generator.generate(task, iterations=ITERATIONS, tries=TRIES, m=M, step=RATE)

        cases = ours(counting)
        batch = best(partial(framework.passes, counting.rows[0]), [64, counting.rows[0]])

        def bare(framework: Framework = framework, rows: list[int] = counting.rows, batch: int = batch) -> None:
            for row in rows:
                framework.passes(row, batch)

        found = race({"deepjudge": partial(ours, framework.victim), "bare passes": bare}, rounds=ROUNDS, warm=False)
        detail = f"{found}; {sum(counting.rows)} rows in {len(counting.rows)} steps, {len(cases.inputs)} cases"
        ratio = found.ratio("deepjudge", "bare passes")
        yield Row(f"`neuron-corners`, {name}: deepjudge / bare passes", ratio, 1.2, detail=detail)

        x, limits = framework.seeds.inputs, _limits(framework, layer, training)
        sample = [divmod(pair, NEURONS) for pair in np.random.default_rng(0).choice(len(x) * NEURONS, PAIRS)]
        framework.one(x[:1], 0)
        slow = cost(partial(_climb_all, framework, sample, limits))
        pair = found.median("deepjudge")
        all_pairs = NEURONS * TRIES / PAIRS
        yield Row(
            f"`neuron-corners`, {name}: one pair at a time / deepjudge",
            type(slow)(slow.wall * all_pairs / pair.wall, slow.processor * all_pairs / pair.processor),
            100,
            most=False,
            detail=f"{PAIRS} random pairs once, {slow.processor / PAIRS:.3g} s each",
        )


def _limits(framework: Framework, layer: str, training: np.ndarray) -> np.ndarray:
    return M * framework.victim.activations(training, [layer])[layer].max(axis=0)


def _climb_all(framework: Framework, pairs: Sequence[tuple[int, int]], limits: np.ndarray) -> int:
    return sum(_climb(framework, seed, neuron, limits) for seed, neuron in pairs)


def _climb(framework: Framework, seed: int, neuron: int, limits: np.ndarray) -> bool:
    """One input by Adam, with its bounds, until the neuron is beyond its limit: the scheme of the paper's authors."""
    x = framework.seeds.inputs[seed : seed + 1].copy()
    first, second = np.zeros_like(x), np.zeros_like(x)
    for step in range(1, ITERATIONS + 1):
        gradient, output = framework.one(x, neuron)
        if output > limits[neuron]:
            return True
        first += 0.1 * (gradient - first)
        second += 0.001 * (gradient**2 - second)
        x += RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        np.clip(x, 0, 1, out=x)
    return False


def _frameworks(data: Data) -> dict[str, Framework]:
    victim = open_model(data.victim(LENET))
    last = select_seeds(victim, *data.mnist, n=100)
    first = Seeds(_first(last.inputs), last.labels, last.indices, last.bounds, grid=last.grid)
    module, fast = data.lenet(), channels_last(data.lenet())
    inputs, own = networks.tensor(last.inputs), torch.arange(10**5) % NEURONS

    def torch_passes(rows: int, batch: int) -> None:
        repeated = inputs[torch.arange(rows) % len(inputs)].to(memory_format=torch.channels_last)
        for at in range(0, rows, batch):
            leaf = repeated[at : at + batch].requires_grad_()
            outputs = fast.corners(leaf)
            outputs.gather(1, own[: len(leaf), None]).sum().backward()

    def torch_one(x: np.ndarray, neuron: int) -> tuple[np.ndarray, float]:
        leaf = torch.from_numpy(x).clone().requires_grad_()
        module.corners(leaf)[0, neuron].backward()
        with torch.no_grad():
            return leaf.grad.numpy(), float(module.corners(leaf)[0, neuron])

    def onnx_one(x: np.ndarray, neuron: int) -> tuple[np.ndarray, float]:
        gradient, output = torch_one(_first(x), neuron)
        return gradient.transpose(0, 2, 3, 1), output

    model = data.keras(LENET)
    layer = next(part for part in model.layers if part.output.shape[-1] == NEURONS and len(part.output.shape) == 4)
    part = tf.keras.Model(model.inputs, layer.output)
    signature = [tf.TensorSpec((None, 28, 28, 1)), tf.TensorSpec((None,), tf.int64)]

    @tf.function(input_signature=signature)
    def keras_gradient(x: Any, neurons: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = tf.reduce_mean(part(x), axis=(1, 2))
            loss = tf.reduce_sum(tf.gather(outputs, neurons, axis=1, batch_dims=1))
        return tape.gradient(loss, x)

    tensors, neurons = tf.constant(last.inputs), tf.constant(own.numpy())

    def keras_passes(rows: int, batch: int) -> None:
        repeated = tf.gather(tensors, tf.range(rows) % len(last.inputs))
        for at in range(0, rows, batch):
            some = repeated[at : at + batch]
            keras_gradient(some, neurons[: len(some)]).numpy()

    def keras_one(x: np.ndarray, neuron: int) -> tuple[np.ndarray, float]:
        value = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(value)
            loss = tf.reduce_mean(part(value)[..., neuron])
        return tape.gradient(loss, value).numpy(), float(tf.reduce_mean(part(value)[..., neuron]))

    return {
        "Keras": Framework(victim, last, keras_passes, keras_one),
        "torch": Framework(open_model(module, input_shape=(1, 28, 28)), first, torch_passes, torch_one),
        "ONNX (bare in PyTorch)": Framework(open_model(data.onnx(LENET)), last, torch_passes, onnx_one),
    }


def _first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))

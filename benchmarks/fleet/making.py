"""Small ONNX models that know MNIST, by the hundred: random features, and a last layer by least squares."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, HIDDEN, CLASSES = 6, 128, 10
_FITTED = 4000  # inputs
_LAYERS = ("conv", "dense")


def features(x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The outputs ``(n, HIDDEN)`` of the second layer, of inputs ``(n, 1, 28, 28)``."""
    windows = np.lib.stride_tricks.sliding_window_view(x[:, 0], (5, 5), axis=(1, 2))[:, ::2, ::2]
    maps = np.einsum("nhwij,cij->nchw", windows, weights["conv"][:, 0]) + weights["conv_bias"][None, :, None, None]
    flat = np.maximum(maps, 0).reshape(len(x), -1)
    return np.maximum(flat @ weights["dense"] + weights["dense_bias"], 0)


def network(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Weights that depend on nothing but the data and the seed."""
    rng = np.random.default_rng(seed)
    weights = {
        "conv": rng.normal(0, 0.3, (CHANNELS, 1, 5, 5)).astype(np.float32),
        "conv_bias": rng.normal(0, 0.1, CHANNELS).astype(np.float32),
        "dense": rng.normal(0, 0.06, (CHANNELS * 12 * 12, HIDDEN)).astype(np.float32),
        "dense_bias": rng.normal(0, 0.1, HIDDEN).astype(np.float32),
    }
    rows = rng.choice(len(x), _FITTED, replace=False)
    hidden = np.hstack([features(x[rows], weights), np.ones((_FITTED, 1))])
    targets = 8 * np.eye(CLASSES)[y[rows]]
    solution = np.linalg.solve(hidden.T @ hidden + np.eye(HIDDEN + 1), hidden.T @ targets)
    return weights | {"out": solution[:-1].astype(np.float32), "out_bias": solution[-1].astype(np.float32)}


def changed(weights: dict[str, np.ndarray], seed: int, share: float = 0.05) -> dict[str, np.ndarray]:
    """A copy whose weights were moved by a share of their spread."""
    rng = np.random.default_rng(seed)
    return {name: (w + rng.normal(0, share * w.std(), w.shape)).astype(np.float32) for name, w in weights.items()}


def save(path: Path, weights: dict[str, np.ndarray]) -> Path:
    """Write a network as ONNX."""
    nodes = [
        helper.make_node("Conv", ["x", "conv", "conv_bias"], ["a"], strides=[2, 2], kernel_shape=[5, 5]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "dense", "dense_bias"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "out", "out_bias"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "fleet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 28, 28])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def make(folder: Path, data: Path, suspects: int, *, controls: int = 12, copies: int = 4) -> None:
    """Two victims, controls, labelled inputs, and suspects: some copies of either victim, the rest independent."""
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data) as arrays:
        x, y = (arrays["x_train"][:20000, None] / 255).astype(np.float32), arrays["y_train"][:20000]
        seeds, labels = (arrays["x_test"][:2000, None] / 255).astype(np.float32), arrays["y_test"][:2000]
    np.savez(folder / "inputs.npz", x=seeds, y=labels)
    victims = [network(x, y, seed) for seed in (1, 2)]
    for place, victim in enumerate(victims):
        save(folder / f"victim{place}.onnx", victim)
    for name, count, first in (("controls", controls, 100), ("suspects", suspects, 1000)):
        (folder / name).mkdir(exist_ok=True)
        for number in range(count):
            copied = name == "suspects" and number < 2 * copies
            weights = changed(victims[number % 2], number) if copied else network(x, y, first + number)
            save(folder / name / f"{name[0]}{number:04}.onnx", weights)

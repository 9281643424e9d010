"""Small suspects of three formats, two convolutions and two dense layers each, and an audit of their kind."""

from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from deepjudge_core import build_suite, calibrate, load_registry, observe, open_model, select_seeds
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.suites.suite import Suite

SHAPE, CLASSES = (1, 28, 28), 10
CHANNELS, NEURONS, CONTROLS = (8, 16), 64, 3


def module(seed: int) -> nn.Module:
    """A network of random weights."""
    torch.manual_seed(seed)
    flat = CHANNELS[1] * 5 * 5
    first, second = (
        [nn.Conv2d(*channels, 3), nn.ReLU(), nn.MaxPool2d(2)] for channels in ((SHAPE[0], CHANNELS[0]), CHANNELS)
    )
    return nn.Sequential(
        *first, *second, nn.Flatten(), nn.Linear(flat, NEURONS), nn.ReLU(), nn.Linear(NEURONS, CLASSES)
    ).eval()


def save_onnx(seed: int, path: Path) -> None:
    """Without an exporter, whose graphs change with its version."""
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
    """By torch.export, for any number of rows."""
    rows = {0: torch.export.Dim("n", min=1)}
    torch.export.save(torch.export.export(module(seed), (torch.zeros(2, *SHAPE),), dynamic_shapes=[rows]), path)


def save_keras(seed: int, path: Path) -> None:
    """By Keras, with its channels last."""
    keras.utils.set_random_seed(seed)
    keras.Sequential(
        [
            keras.Input((*SHAPE[1:], *SHAPE[:1])),
            *(keras.layers.Conv2D(CHANNELS[0], 3, activation="relu"), keras.layers.MaxPooling2D()),
            *(keras.layers.Conv2D(CHANNELS[1], 3, activation="relu"), keras.layers.MaxPooling2D()),
            *(keras.layers.Flatten(), keras.layers.Dense(NEURONS, activation="relu"), keras.layers.Dense(CLASSES)),
        ]
    ).save(path)


SAVERS: Mapping[str, Callable[[int, Path], None]] = {"onnx": save_onnx, "pt2": save_pt2, "keras": save_keras}


def audit(folder: Path) -> tuple[Suite, Calibration]:
    """A suite and its calibration, whose models are written to a folder."""
    for seed in range(1 + CONTROLS):
        save_onnx(seed, folder / f"{seed}.onnx")
    registry = load_registry()
    victim, *controls = (open_model(folder / f"{seed}.onnx", registry=registry) for seed in range(1 + CONTROLS))
    x = np.random.default_rng(0).normal(size=(600, *SHAPE)).astype(np.float32)
    bounds = float(x.min()), float(x.max())
    seeds = select_seeds(victim, x, victim.predict(x).argmax(axis=1), n=200, bounds=bounds)
    suite = build_suite(victim, seeds, ["fgsm"], registry=registry)
    return suite, calibrate(suite, [observe(control, suite) for control in controls], registry=registry)

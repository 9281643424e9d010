"""Scores of every shape, in every format: rows, maps of one pixel, one number for two classes."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepjudge_core import open_model
from deepjudge_core.models.model import Model
from deepjudge_core.models.outputs import Output, Outputs, row_width
from deepjudge_core.models.scores import softmax
from deepjudge_core.testing import check_model
from deepjudge_core.types import Array

CLASSES = 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 2, 4, 4)).astype(np.float32)
WEIGHTS = {"a": RNG.normal(size=(32, 6)), "many": RNG.normal(size=(6, CLASSES)), "one": RNG.normal(size=(6, 1))}
MANY, ONE = ("row", "map", "softmax map", "softmax, channels last"), ("number", "probability", "squeezed", "column")
SQUEEZED = "squeezed of all axes"  # that of a lone row among them
SHAPES = {**dict.fromkeys(MANY, CLASSES), **dict.fromkeys(ONE, 1)}
"""What the scores are, and how many."""


def _width(kind: str) -> int:
    return SHAPES.get(kind, 1)


def expected(kind: str) -> tuple[Array, Array, Array]:
    """What the hidden layer gives, the logits, and the probabilities."""
    hidden = np.maximum(X.reshape(5, -1) @ WEIGHTS["a"], 0)
    logits = hidden @ WEIGHTS["one" if _width(kind) == 1 else "many"]
    return hidden, logits, softmax(logits if _width(kind) > 1 else np.hstack([0 * logits, logits]))


def check(model: Model, kind: str) -> None:
    hidden, logits, probabilities = expected(kind)
    assert list(model.layers.values()) == [6, _width(kind)]
    x = X.reshape(5, *map(int, model.input.shape)) if model.framework != "keras" else np.moveaxis(X, 1, -1)
    np.testing.assert_allclose(model.predict(x), probabilities, atol=1e-5)
    outputs = model.activations(x, list(model.layers))
    for values, truth in zip(outputs.values(), (hidden, logits), strict=True):
        np.testing.assert_allclose(values, truth, rtol=1e-4, atol=1e-4)
    check_model(model, x)


@cache
def module(kind: str) -> Any:
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(32, 6, bias=False)
            self.b = nn.Conv2d(6, _width(kind), 1, bias=False)
            with torch.no_grad():
                self.a.weight.copy_(torch.tensor(WEIGHTS["a"].T))
                matrix = WEIGHTS["one" if _width(kind) == 1 else "many"]
                self.b.weight.copy_(torch.tensor(matrix.T[..., None, None]))

        def forward(self, x: Any) -> Any:
            scores = self.b(torch.relu(self.a(x.flatten(1)))[..., None, None])
            ends: dict[str, Callable[[], Any]] = {
                "row": lambda: scores.flatten(1),
                "map": lambda: scores,
                "softmax map": lambda: scores.softmax(1),
                "softmax, channels last": lambda: scores.softmax(1).permute(0, 2, 3, 1),
                "number": scores.flatten,
                "probability": lambda: torch.sigmoid(scores.flatten()),
                "squeezed": lambda: torch.sigmoid(scores).squeeze(3).squeeze(2).squeeze(1),
                SQUEEZED: lambda: torch.sigmoid(scores).squeeze(),
                "column": lambda: torch.sigmoid(scores.flatten(1))[:, 0],
            }
            return ends[kind]()

    return Network().eval()


@pytest.mark.parametrize("kind", SHAPES)
def test_torch(kind: str) -> None:
    pytest.importorskip("torch")
    check(open_model(module(kind), input_shape=(2, 4, 4)), kind)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["map", "probability"])
def test_torchscript(kind: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.jit.trace(module(kind), torch.zeros(3, 2, 4, 4)).save(tmp_path / "m.pt")
    check(open_model(tmp_path / "m.pt", input_shape=(2, 4, 4)), kind)


@pytest.mark.parametrize("kind", [*SHAPES, SQUEEZED])
def test_onnx(kind: str, tmp_path: Path) -> None:
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("onnx")
    from onnx_exports import exporting

    with exporting():
        torch.onnx.export(
            module(kind),
            (torch.zeros(3, 2, 4, 4),),
            str(tmp_path / "m.onnx"),
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
            dynamo=False,
            opset_version=17,
        )
    check(open_model(tmp_path / "m.onnx"), kind)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("kind", ["map", "softmax map", "probability", "column"])
def test_keras(kind: str, saved: bool, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    x = keras.Input((4, 4, 2))
    flat = keras.layers.Flatten()(keras.layers.Permute((3, 1, 2))(x))
    hidden = keras.layers.Dense(6, "relu", use_bias=False, name="a")(flat)
    scores = keras.layers.Conv2D(_width(kind), 1, use_bias=False, name="b")(keras.layers.Reshape((1, 1, 6))(hidden))
    if kind == "softmax map":
        scores = keras.layers.Softmax()(scores)
    if kind == "probability":
        scores = keras.ops.sigmoid(keras.ops.squeeze(keras.layers.Flatten()(scores), -1))
    if kind == "column":
        scores = keras.layers.Activation("sigmoid")(keras.layers.Flatten()(scores))[:, 0]
    model = keras.Model(x, scores)
    model.get_layer("a").set_weights([WEIGHTS["a"]])
    model.get_layer("b").set_weights([WEIGHTS["one" if _width(kind) == 1 else "many"][None, None]])
    if saved:
        model.export(tmp_path / "m", verbose=False)
    check(open_model(tmp_path / "m" if saved else model), kind)


@pytest.mark.parametrize(
    ("sizes", "width"),
    [((3,), 3), ((), 1), ((3, 1, 1), 3), ((1, 1, 3), 3), ((1,), 1), ((3, 2), None), ((0,), None), (("n",), None)],
)
def test_what_is_a_row(sizes: tuple[Any, ...], width: int | None) -> None:
    assert row_width(sizes) == width


def test_a_row_goes_before_a_map_of_one_pixel() -> None:
    features, scores = Output.of_scores("features", (8, 1, 1)), Output.of_scores("scores", (3,))
    assert Outputs.of([features, scores]).place == 1
    assert Outputs.of([features]).place == 0

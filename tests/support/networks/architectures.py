"""Six architectures, and their weights: numpy arrays under the names that PyTorch has for them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

BOUNDS = (-1.0, 1.0)
CLASSES = 5
HEADS = 2  # of the attention
PATCH = 4


@dataclass(frozen=True)
class Architecture:
    """One network.

    Attributes:
        name: What the table of formats calls it.
        shape: Of one input, channels first where there are channels.
        channels: Whether there are channels, which Keras has last.
        layers: Numbers of neurons of its taps.
        shapes: Of its weights, as PyTorch has them.
        gains: Deviation of the weights whose name begins so, in units of ``1 / sqrt(inputs)``; by default 1.
    """

    name: str
    shape: tuple[int, ...]
    channels: bool
    layers: tuple[int, ...]
    shapes: Mapping[str, tuple[int, ...]]
    gains: Mapping[str, float]

    @property
    def keras_shape(self) -> tuple[int, ...]:
        """Of one input to the network in Keras."""
        return (*self.shape[1:], self.shape[0]) if self.channels else self.shape

    def weights(self, seed: int) -> dict[str, np.ndarray]:
        """They depend on nothing but the seed."""
        rng = np.random.default_rng(seed)
        return {
            name: (self._deviation(name, shape) * rng.normal(size=shape) + _mean(name)).astype(np.float32)
            for name, shape in self.shapes.items()
        }

    def inputs(self, n: int) -> np.ndarray:
        """``(n, *shape)`` inputs within the bounds."""
        return np.random.default_rng(0).uniform(*BOUNDS, size=(n, *self.shape)).astype(np.float32)

    def arranged(self, x: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
        """Inputs as a model of inputs of this shape takes them."""
        return x if shape == self.shape else np.moveaxis(x, 1, -1)

    def _deviation(self, name: str, shape: tuple[int, ...]) -> float:
        if len(shape) == 1:
            return 0.1
        gain = next((gain for start, gain in self.gains.items() if name.startswith(start)), 1.0)
        return gain / float(np.sqrt(np.prod(shape[1:])))


def _mean(name: str) -> float:
    return 1.0 if name.startswith("norm") and name.endswith("weight") else 0.0


def _layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _recurrent(name: str, gates: int, inputs: int, units: int) -> dict[str, tuple[int, ...]]:
    rows = gates * units
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight_ih_l0": (rows, inputs), f"{name}.weight_hh_l0": (rows, units)}
    return shapes | {f"{name}.bias_ih_l0": (rows,), f"{name}.bias_hh_l0": (rows,)}


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        # Convolution, ReLU, max pool, convolution, ReLU, flatten, dense, tanh, dense.
        Architecture(
            "conv1d",
            (3, 14),
            True,
            (4, 6, 10, CLASSES),
            {
                **_layer("conv1", 4, 3, 3),
                **_layer("conv2", 6, 4, 2),
                **_layer("dense1", 10, 30),
                **_layer("dense2", CLASSES, 10),
            },
            {"conv1": 2.0, "conv2": 2.0, "dense2": 8.0},
        ),
        Architecture(
            "conv2d",
            (3, 8, 8),
            True,
            (4, 6, 10, CLASSES),
            {
                **_layer("conv1", 4, 3, 3, 3),
                **_layer("conv2", 6, 4, 2, 2),
                **_layer("dense1", 10, 24),
                **_layer("dense2", CLASSES, 10),
            },
            {"conv1": 2.0, "conv2": 1.5, "dense2": 4.0},
        ),
        # Dense, ReLU, dense, ReLU, dense.
        Architecture(
            "dense",
            (16,),
            False,
            (12, 8, CLASSES),
            {**_layer("dense1", 12, 16), **_layer("dense2", 8, 12), **_layer("dense3", CLASSES, 8)},
            {"dense1": 2.0, "dense2": 2.0, "dense3": 4.0},
        ),
        # A recurrent layer, of which the LSTM's network goes on with the last step and the GRU's with the mean over
        # time; dense, tanh, dense.
        Architecture(
            "LSTM",
            (6, 5),
            False,
            (8, 7, CLASSES),
            {**_recurrent("lstm", 4, 5, 8), **_layer("dense1", 7, 8), **_layer("dense2", CLASSES, 7)},
            {"lstm": 3.0, "dense1": 3.0, "dense2": 4.0},
        ),
        Architecture(
            "GRU",
            (6, 5),
            False,
            (8, 7, CLASSES),
            {**_recurrent("gru", 3, 5, 8), **_layer("dense1", 7, 8), **_layer("dense2", CLASSES, 7)},
            {"gru": 3.0, "dense1": 3.0, "dense2": 4.0},
        ),
        # A vision transformer: patches, positions, a block (attention; dense, GELU, dense), mean over the patches,
        # dense.
        Architecture(
            "attention",
            (3, 8, 8),
            True,
            (12, CLASSES),
            {
                **_layer("patches", 8, 3, PATCH, PATCH),
                "positions": (4, 8),
                **_layer("norm1", 8),
                "attention.in_proj_weight": (24, 8),
                "attention.in_proj_bias": (24,),
                **_layer("attention.out_proj", 8, 8),
                **_layer("norm2", 8),
                **_layer("mlp1", 12, 8),
                **_layer("mlp2", 8, 12),
                **_layer("norm3", 8),
                **_layer("head", CLASSES, 8),
            },
            {"patches": 3.0, "positions": 1.0, "mlp": 2.0, "attention": 2.0, "head": 4.0},
        ),
    )
}

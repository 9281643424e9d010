"""The networks that are raced: the authors' LeNet-5 in three frameworks, and their ResNet-20 as ONNX."""

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

LENET, RESNET = "mnist_lenet5", "cifar10_resnet20"


@dataclass(frozen=True)
class Data:
    """Where the authors' models and MNIST lie, and where files may be written."""

    folder: Path
    scratch: Path

    def victim(self, name: str) -> Path:
        """A file of the authors'."""
        return self.folder / "victims" / f"{name}.h5"

    @functools.cached_property
    def mnist(self) -> tuple[np.ndarray, np.ndarray]:
        """Test inputs ``(n, 28, 28, 1)`` within 0..1, and labels."""
        with np.load(self.folder / "mnist.npz") as data:
            return data["x_test"][..., None].astype(np.float32) / 255, data["y_test"].astype(np.int64)

    @functools.cached_property
    def training(self) -> np.ndarray:
        """The first rows of the training inputs."""
        with np.load(self.folder / "mnist.npz") as data:
            return data["x_train"][:4000, ..., None].astype(np.float32) / 255

    def keras(self, name: str) -> Any:
        """A model of the authors'."""
        return keras.models.load_model(self.victim(name), compile=False)

    def onnx(self, name: str) -> Path:
        """The same as Keras exports it."""
        path = self.scratch / f"{name}.onnx"
        if not path.is_file():
            model = self.keras(name)
            model(np.zeros((1, *model.input_shape[1:]), np.float32))  # Keras exports what was called
            model.export(path, format="onnx", verbose=False)
        return path

    def lenet(self) -> "LeNet":
        """The authors' LeNet-5 in PyTorch."""
        module = LeNet()
        layers = [layer.get_weights() for layer in self.keras(LENET).layers if layer.weights]
        with torch.no_grad():
            for part, arrays in zip(module.weighted(), layers, strict=True):
                for tensor, array in zip((part.weight, part.bias), arrays, strict=True):
                    # Keras has outputs last in a matrix, and in a kernel behind its height, width and inputs.
                    turned = np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array
                    tensor.copy_(torch.from_numpy(turned.copy()))
        return module.eval().requires_grad_(False)


class LeNet(nn.Module):
    """LeNet-5 as the authors have it, without its softmax. Channels are last before they are flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.dense = nn.Sequential(nn.Linear(784, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.convolutions(x).permute(0, 2, 3, 1).flatten(1))

    def corners(self, x: torch.Tensor) -> torch.Tensor:
        """The neurons ``(n, 16)`` of the second convolution."""
        return self.convolutions[:5](x).mean((2, 3))

    def weighted(self) -> list[Any]:
        """The parts with weights, in order."""
        return [part for part in self.modules() if isinstance(part, nn.Conv2d | nn.Linear)]


def channels_last(module: nn.Module) -> nn.Module:
    """A copy whose convolutions have their channels last in memory, which is how they run back fastest on a CPU."""
    return copy.deepcopy(module).to(memory_format=torch.channels_last)


def tensor(x: np.ndarray) -> torch.Tensor:
    """Pictures as a module of channels first takes them, channels last in memory."""
    return torch.from_numpy(x).permute(0, 3, 1, 2)

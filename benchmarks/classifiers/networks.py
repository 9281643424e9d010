"""The LeNet-5 and the ResNet-20 that the authors of the method published, in PyTorch, and their data."""

from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional

Rows = tuple[torch.Tensor, torch.Tensor]


class LeNet(nn.Sequential):
    """6 and 16 channels, 120 and 84 units, as the authors have it."""

    shape = (1, 28, 28)

    def __init__(self) -> None:
        """Draw fresh weights."""
        super().__init__(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(784, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        )

    @classmethod
    def of_authors(cls, path: Path) -> "LeNet":
        """The authors', from their HDF5 file."""
        network, held = cls(), _layers(path)
        with torch.no_grad():
            for place, name in (
                (0, "block1_conv1"),
                (3, "block2_conv1"),
                (7, "fc1"),
                (9, "fc2"),
                (11, "before_softmax"),
            ):
                kernel, bias = next(arrays for key, arrays in held.items() if key.startswith(name))
                if place == 7:  # what it reads is flattened place by place there
                    kernel = kernel.reshape(7, 7, 16, 120).transpose(2, 0, 1, 3).reshape(784, 120)
                _fill(network[place], kernel, bias)
        return network.eval()


class Block(nn.Module):
    """Two convolutions beside a shortcut; of stride 2, Keras pads behind alone."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Draw fresh weights."""
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs, eps=1e-3)
        self.c2, self.n2 = nn.Conv2d(outputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs, eps=1e-3)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()
        self.edges = (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add what the block makes of a map to it."""
        inner = functional.relu(self.n1(self.c1(functional.pad(x, self.edges))))
        return functional.relu(self.n2(self.c2(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of three blocks, of 16, 32 and 64 channels."""

    shape = (3, 32, 32)

    def __init__(self) -> None:
        """Draw fresh weights."""
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16, eps=1e-3)
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        pairs = pairwise(widths)
        self.blocks = nn.Sequential(*(Block(a, b, 1 if a == b else 2) for a, b in pairs))
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of pictures ``(n, 3, 32, 32)``."""
        x = self.blocks(functional.relu(self.norm(self.stem(x))))
        return self.head(functional.avg_pool2d(x, 8).flatten(1))

    @classmethod
    def of_authors(cls, path: Path) -> "ResNet":
        """The authors', from their HDF5 file."""
        network, held = cls(), _layers(path)
        by_number = sorted(held, key=lambda name: [int(part) for part in name.split("_") if part.isdigit()])
        wide = [held[name] for name in by_number if name.startswith("conv") and held[name][0].shape[0] == 3]
        narrow = [held[name] for name in by_number if name.startswith("conv") and held[name][0].shape[0] == 1]
        norms = [held[name] for name in by_number if name.startswith("batch")]
        (head,) = [held[name] for name in by_number if name.startswith("dense")]
        with torch.no_grad():
            convolutions = [network.stem, *(one for block in network.blocks for one in (block.c1, block.c2))]
            normalisations = [network.norm, *(one for block in network.blocks for one in (block.n1, block.n2))]
            shortcuts = [one.shortcut for one in network.blocks if isinstance(one.shortcut, nn.Conv2d)]
            pairs = [*zip(convolutions, wide, strict=True), *zip(shortcuts, narrow, strict=True), (network.head, head)]
            for layer, (kernel, bias) in pairs:
                _fill(layer, kernel, bias)
            for layer, arrays in zip(normalisations, norms, strict=True):
                tensors = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
                for tensor, array in zip(tensors, arrays, strict=True):
                    tensor.copy_(torch.from_numpy(array))
        return network.eval()


def _fill(layer: nn.Module, kernel: np.ndarray, bias: np.ndarray) -> None:
    last = kernel.ndim - 1
    layer.weight.copy_(torch.from_numpy(kernel.transpose(last, last - 1, *range(last - 1)).copy()))
    layer.bias.copy_(torch.from_numpy(bias))


def _layers(path: Path) -> dict[str, list[np.ndarray]]:
    with h5py.File(path) as file:
        groups = file["model_weights"]
        return {name: [np.array(groups[name][key]) for key in groups[name].attrs["weight_names"]] for name in groups}

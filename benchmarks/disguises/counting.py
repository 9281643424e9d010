"""How much the layers of honest networks count: ``python benchmarks/disguises/counting.py DATA``.

Prints, for each layer, the share of the way to another input's scores by which its outputs alone move the scores.
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from deepjudge_core import open_model
from deepjudge_core.models.model import Model
from deepjudge_core.types import Array

ROWS = 96


def main() -> None:
    """Open the authors' LeNet-5, train small networks of other kinds, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with mnist.npz and victims/mnist_lenet5.h5")
    folder = parser.parse_args().data
    with np.load(folder / "mnist.npz") as mnist:
        x, y, x_test = mnist["x_train"][:12000], mnist["y_train"][:12000], mnist["x_test"][:ROWS]
    inputs = (x_test / 255).astype(np.float32)
    show("lenet5 (the authors')", open_model(folder / "victims" / "mnist_lenet5.h5"), inputs[..., None])
    images, labels = torch.tensor(x / 255.0, dtype=torch.float32)[:, None], torch.tensor(y.astype(np.int64))
    torch.manual_seed(0)
    for name, network in networks():
        train(network, images, labels)
        show(name, open_model(network.eval(), input_shape=(1, 28, 28)), inputs[:, None])


def show(name: str, model: Model, x: Array) -> None:
    """Print the medians over pairs of inputs."""
    shares = {}
    for layer in list(model.layers)[:-1]:
        exchange = model.exchange(x, layer)
        if exchange is not None:
            shares[layer] = float(np.nanmedian(exchange.influence(independent=False)))
    print(f"{name}: least {min(shares.values()):.4f};", {tap: round(share, 4) for tap, share in shares.items()})


def train(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Two epochs of Adam."""
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(2):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()


def networks() -> Iterator[tuple[str, nn.Module]]:
    """Networks of several branches, in which no layer alone may decide."""
    for name, block, blocks in (
        ("inception", Inception, 2),
        ("squeeze-and-excitation", Squeeze, 4),
        ("densenet", Dense, 4),
        ("mobilenet", Mobile, 4),
        ("convnext", Next, 4),
    ):
        yield name, nn.Sequential(convolution(1, 16, 3, 2), *(block() for _ in range(blocks)), *head())
    yield "transformer", Transformer()


def head() -> list[nn.Module]:
    """Pooling and a dense layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10)]


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """With normalisation and ReLU."""
    kernel = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(kernel, nn.BatchNorm2d(outputs), nn.ReLU())


class Inception(nn.Module):
    """Four branches beside one another, 16 channels to 16 (Szegedy et al., CVPR 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                convolution(16, 4, 1),
                nn.Sequential(convolution(16, 4, 1), convolution(4, 6, 3)),
                nn.Sequential(convolution(16, 2, 1), convolution(2, 3, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(16, 3, 1)),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Squeeze(nn.Module):
    """A residual block whose channels are gated (Hu et al., CVPR 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        self.gate = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.inner(x)
        return torch.relu(x + inner * self.gate(inner.mean((2, 3)))[:, :, None, None])


class Dense(nn.Module):
    """A growing stack, brought back to 16 channels (Huang et al., CVPR 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, m - n, 3, 1, 1))
            for n, m in pairwise((16, 24, 32, 40))
        )
        self.end = nn.Conv2d(40, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.end(x)


class Mobile(nn.Module):
    """An inverted residual block (Sandler et al., CVPR 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *(nn.Conv2d(16, 64, 1), nn.BatchNorm2d(64), nn.ReLU6()),
            *(nn.Conv2d(64, 64, 3, 1, 1, groups=64), nn.BatchNorm2d(64), nn.ReLU6()),
            *(nn.Conv2d(64, 16, 1), nn.BatchNorm2d(16)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


class Next(nn.Module):
    """A block with a scale that starts small (Liu et al., CVPR 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *(nn.Conv2d(16, 16, 7, 1, 3, groups=16), nn.GroupNorm(1, 16)),
            *(nn.Conv2d(16, 64, 1), nn.GELU(), nn.Conv2d(64, 16, 1)),
        )
        self.scale = nn.Parameter(torch.full((16, 1, 1), 1e-2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.inner(x)


class Transformer(nn.Module):
    """Four blocks over sixteen patches (Dosovitskiy et al., ICLR 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 7, 7)
        self.places = nn.Parameter(torch.zeros(1, 16, 32))
        self.blocks = nn.Sequential(*(Block() for _ in range(4)))
        self.end = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.end(self.blocks(tokens).mean(1))


class Block(nn.Module):
    """Attention of one head and a dense part, each around its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attention, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.dense = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.attention(self.before(x)).chunk(3, -1)
        x = x + self.out(torch.softmax(query @ key.transpose(1, 2) / 32**0.5, -1) @ value)
        return x + self.dense(self.between(x))


if __name__ == "__main__":
    main()

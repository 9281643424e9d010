"""The networks of the evidence: their modules, the authors' weights in them, their data, and how they are trained."""

import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

Rows = slice


@dataclass(frozen=True)
class Data:
    """Inputs ``(n, *shape)`` within 0..1 and labels, for training and for tests."""

    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor


@dataclass(frozen=True)
class Network:
    """A victim, its data, and how models like it are trained.

    Attributes:
        module: Makes a network with fresh weights.
        data: Reads the data from the folder of data; may write to the second folder.
        own: Training rows of the victim.
        other: Training rows that it has not seen, for the independents that share none of its data.
        tuning: Training rows that it has not seen, for copies.
        victim: The file of the authors' weights; None where the victim is trained here.
        independents: Number of them: half on the victim's rows, half on others.
        epochs: Of training from scratch.
        rate: Greatest learning rate of training from scratch.
        batch: Rows of one step of training.
        tuning_epochs: Of fine-tuning.
        reduced: Whether products are computed in bfloat16 while training.
        mirrored: Whether half of the images are mirrored while training.
        seeds: Number of seeds.
        corners: Options of ``neuron-corners`` that are not the default.
    """

    module: Callable[[], nn.Module]
    data: Callable[[Path, Path], Data]
    own: Rows
    other: Rows
    tuning: Rows
    victim: str | None = None
    independents: int = 24
    epochs: int = 4
    rate: float = 2e-3
    batch: int = 128
    tuning_epochs: int = 3
    reduced: bool = False
    mirrored: bool = False
    seeds: int = 500
    corners: Mapping[str, float] = field(default_factory=dict)


class LeNet(nn.Module):
    """LeNet-5 as the authors have it. Channels are put last before they are flattened, for their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.dense = nn.Sequential(nn.Linear(784, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
        _initialise(self, nn.init.xavier_uniform_)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.convolutions(x).permute(0, 2, 3, 1).flatten(1))


class ResNet(nn.Module):
    """ResNet-20 as the authors have it: no normalisation on the shortcuts, padding at the end where the stride is 2."""

    def __init__(self) -> None:
        super().__init__()
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        self.start = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), _normalisation(16), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(before, after) for before, after in pairwise(widths)))
        self.end = nn.Linear(64, 10)
        _initialise(self, nn.init.kaiming_normal_)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.blocks(self.start(x)).mean((2, 3)))


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        wider = after > before
        self.inner = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)) if wider else nn.Identity(),
            *(nn.Conv2d(before, after, 3, 2, 0) if wider else nn.Conv2d(before, after, 3, 1, 1),),
            *(_normalisation(after), nn.ReLU()),
            *(nn.Conv2d(after, after, 3, padding=1), _normalisation(after)),
        )
        self.shortcut = nn.Conv2d(before, after, 1, stride=2) if wider else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inner(x) + self.shortcut(x))


class Lstm(nn.Module):
    """An LSTM of 128 units over time, and a dense layer on its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(32, 128, batch_first=True)
        self.end = nn.Linear(128, 10)
        _initialise(self, nn.init.xavier_uniform_)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, _ = self.lstm(x)
        return self.end(steps[:, -1])


def _normalisation(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.1)


def _initialise(module: nn.Module, weights: Callable[[torch.Tensor], object]) -> None:
    # As Keras does, in which the victims were trained: independents should differ from them by chance alone.
    for parameter in module.parameters():
        if parameter.ndim > 1:
            weights(parameter)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.zeros_(part.bias)


def authors_weights(module: nn.Module, path: Path) -> None:
    """Put the weights of a Keras model into the same network in PyTorch, and check that it answers the same.

    Raises:
        ValueError: When it does not.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    original = keras.models.load_model(path, compile=False)
    with torch.no_grad():
        for kind, part_type in (("Conv2D", nn.Conv2d), ("BatchNormalization", nn.BatchNorm2d), ("Dense", nn.Linear)):
            ours = [part for part in module.modules() if isinstance(part, part_type)]
            theirs = [layer for layer in original.layers if type(layer).__name__ == kind]
            # In Keras' list, the shortcut of a block may stand on either side of the convolution it goes around.
            if part_type is nn.Conv2d:
                ours.sort(key=lambda part: part.kernel_size == (1, 1))
                theirs.sort(key=lambda layer: layer.kernel_size == (1, 1))
            for part, layer in zip(ours, theirs, strict=True):
                tensors = [part.weight, part.bias]
                if part_type is nn.BatchNorm2d:
                    tensors += [part.running_mean, part.running_var]
                for tensor, array in zip(tensors, layer.get_weights(), strict=True):
                    # Keras has outputs last in a matrix, and in a kernel behind its height, width and inputs.
                    tensor.copy_(torch.from_numpy(np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array))
        module.eval()
        shape = original.input_shape[1:]
        x = np.random.default_rng(0).uniform(size=(16, *shape)).astype(np.float32)
        answers = torch.softmax(module(torch.from_numpy(x).permute(0, 3, 1, 2)), 1).numpy()
    wanted_answers = original.predict(x, verbose=0)
    if not np.allclose(answers, wanted_answers, atol=1e-4):
        raise ValueError(
            f"{path}: the network in PyTorch answers otherwise, by {abs(answers - wanted_answers).max():g}"
        )


def _mnist(folder: Path, _: Path) -> Data:
    with np.load(folder / "mnist.npz") as data:
        return Data(
            *(_images(data["x_train"][..., None]), _labels(data["y_train"])),
            *(_images(data["x_test"][..., None]), _labels(data["y_test"])),
        )


def _cifar(folder: Path, out: Path) -> Data:
    file = out / "cifar10.npz"
    if not file.is_file():
        # The images are stored as JPEG files, with a script that decodes them.
        script = folder / "unpack_cifar10.py"
        with tempfile.TemporaryDirectory(dir=out) as part, mock.patch.object(sys, "argv", [script, f"{part}/x.npz"]):
            runpy.run_path(str(script))
            Path(part, "x.npz").rename(file)
    with np.load(file) as data:
        return Data(
            *(_images(data["x_train"]), _labels(data["y_train"])),
            *(_images(data["x_test"]), _labels(data["y_test"])),
        )


def _spoken(folder: Path, _: Path) -> Data:
    with np.load(folder / "fsdd.npz") as data:
        # Stored speaker by speaker.
        order = np.random.default_rng(0).permutation(len(data["x_train"]))
        return Data(
            *(_floats(data["x_train"][order]), _labels(data["y_train"][order])),
            *(_floats(data["x_test"]), _labels(data["y_test"])),
        )


def _images(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255).contiguous()


def _floats(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _labels(labels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(labels.astype(np.int64))


NETWORKS: Mapping[str, Network] = {
    "lenet5": Network(
        module=LeNet,
        data=_mnist,
        own=slice(0, 20000),
        other=slice(20000, 40000),
        tuning=slice(40000, 50000),
        victim="mnist_lenet5.h5",
    ),
    "lstm": Network(
        module=Lstm,
        data=_spoken,
        own=slice(0, 1350),
        other=slice(1350, 2700),
        tuning=slice(1350, 2700),
        independents=12,
        epochs=30,
        rate=1e-2,
        batch=64,
        tuning_epochs=10,
        seeds=200,
        corners={"iterations": 300},
    ),
    "resnet20": Network(
        module=ResNet,
        data=_cifar,
        own=slice(0, 20000),
        other=slice(21000, 41000),
        tuning=slice(41000, 50000),
        victim="cifar10_resnet20.h5",
        independents=10,
        epochs=4,
        rate=8e-3,
        tuning_epochs=1,
        reduced=True,
        mirrored=True,
        seeds=200,
        corners={"iterations": 100, "tries": 3},
    ),
}

"""Models to be served: the authors' LeNet-5 fine-tuned by a thief, and LeNet-5s that were trained without it."""

from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

CONTROLS = 12
_ROWS, _BATCH, _EPOCHS, _RATE = 6000, 128, 6, 2e-3


class Layout(nn.Module):
    """Pictures as Keras has them, and probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network(x.permute(0, 3, 1, 2)), dim=1)


class Flat(nn.Module):
    """The order in which Keras flattens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def read_layers(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of a Keras 2 file, in the order of its layers."""
    with h5py.File(path) as file:
        weights = file["model_weights"]
        found = []
        for name in weights.attrs["layer_names"]:
            group = weights[name]
            arrays = [np.array(group[one]) for one in group.attrs["weight_names"]]
            if len(arrays) == 2:
                found.append((arrays[0], arrays[1]))
    return found


def network_of(layers: list[tuple[np.ndarray, np.ndarray]], activation: type[nn.Module], same: bool) -> nn.Sequential:
    """The LeNet-5 with these weights."""
    parts: list[nn.Module] = []
    flat = False
    for place, (weight, bias) in enumerate(layers):
        if weight.ndim == 4:
            height, width, before, after = weight.shape
            convolution = nn.Conv2d(before, after, (height, width), padding="same" if same else 0)
            convolution.weight.data = torch.tensor(weight.transpose(3, 2, 0, 1).copy())
            convolution.bias.data = torch.tensor(bias)
            parts += [convolution, activation(), nn.MaxPool2d(2)]
        else:
            parts += [] if flat else [Flat()]
            flat = True
            linear = nn.Linear(*weight.shape)
            linear.weight.data, linear.bias.data = torch.tensor(weight.T.copy()), torch.tensor(bias)
            parts += [linear] + ([activation()] if place < len(layers) - 1 else [])
    return nn.Sequential(*parts)


def train(network: nn.Sequential, x: np.ndarray, y: np.ndarray, *, epochs: int, rate: float, seed: int) -> None:
    """Train by Adam."""
    generator, optimiser = torch.Generator().manual_seed(seed), torch.optim.Adam(network.parameters(), rate)
    inputs, labels = torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(y)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(_BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(inputs[rows]), labels[rows]).backward()
            optimiser.step()


def fresh(network: nn.Sequential, seed: int) -> nn.Sequential:
    """The same architecture with weights of its own."""
    torch.manual_seed(seed)
    for part in network:
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return network


def export(network: nn.Sequential, path: Path) -> None:
    """Write a file of ONNX that takes any number of pictures (28, 28, 1) in 0..1."""
    whole = Layout(network).eval()
    batch = {0: torch.export.Dim("n")}
    program = torch.onnx.export(
        whole, (torch.zeros(2, 28, 28, 1),), dynamo=True, dynamic_shapes=(batch,), verbose=False
    )
    program.save(path)


def make(victim: Path, data: Path, folder: Path) -> None:
    """Write the thief's model, the controls, and one honest model that is no control."""
    import keras

    folder.mkdir(parents=True, exist_ok=True)
    owner = keras.models.load_model(victim, compile=False)
    first = next(layer for layer in owner.layers if "conv" in layer.name)
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[first.get_config()["activation"]]
    layers, same = read_layers(victim), first.get_config()["padding"] == "same"
    mnist = np.load(data)
    x, y = mnist["x_train"][..., None].astype(np.float32) / 255, mnist["y_train"].astype(np.int64)
    copy = network_of(layers, activation, same)
    with torch.no_grad():
        ours = Layout(copy.eval())(torch.tensor(x[:100])).numpy()
    assert np.abs(ours - owner.predict(x[:100], verbose=0)).max() < 1e-4, "the network is not the victim's"
    train(copy.train(), x[40_000:46_000], y[40_000:46_000], epochs=2, rate=1e-3, seed=1)
    export(copy, folder / "copy.onnx")
    for place in range(CONTROLS + 1):
        start = (0 if place % 2 else 20_000) + (place // 2) * 500
        rows = slice(start, start + _ROWS)
        network = fresh(network_of(layers, activation, same), seed=100 + place)
        train(network.train(), x[rows], y[rows], epochs=_EPOCHS, rate=_RATE, seed=place)
        name = f"control-{place + 1:02}" if place < CONTROLS else "honest"
        export(network, folder / f"{name}.onnx")
        with torch.no_grad():
            right = (
                network.eval()(torch.tensor(x[50_000:52_000]).permute(0, 3, 1, 2)).argmax(1).numpy() == y[50_000:52_000]
            )
        print(name, f"{right.mean():.1%}", flush=True)

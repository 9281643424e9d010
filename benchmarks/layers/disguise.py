"""Permutes, rescales and negates neurons so that a network computes the same: what a thief can do without training."""

from collections.abc import Callable
from itertools import pairwise

import torch
from networks import LeNet, Lstm, ResNet
from torch import nn

LEAST, GREATEST = 0.25, 4.0  # what a neuron is multiplied by
Neurons = tuple[torch.Tensor, torch.Tensor]  # the old place of each neuron, and its factor


def disguise(module: nn.Module, seed: int) -> nn.Module:
    """Permute all hidden neurons in place; rescale those of a ReLU, negate half of those of an LSTM."""
    generator = torch.Generator().manual_seed(seed)

    def shuffle(width: int) -> Neurons:
        low, high = torch.tensor([LEAST, GREATEST]).log()
        return (
            torch.randperm(width, generator=generator),
            (low + (high - low) * torch.rand(width, generator=generator)).exp(),
        )

    with torch.no_grad():
        if isinstance(module, LeNet):
            _lenet(module, shuffle)
        elif isinstance(module, ResNet):
            _resnet(module, shuffle)
        elif isinstance(module, Lstm):
            _lstm(module, shuffle)
        else:
            raise TypeError(f"expected one of the networks here, found {type(module).__name__}")
    return module


def _lenet(network: LeNet, shuffle: Callable[[int], Neurons]) -> None:
    first, second = network.convolutions[0], network.convolutions[3]
    dense = [network.dense[place] for place in (0, 2, 4)]
    neurons = shuffle(6)
    _outputs(first, neurons)
    _inputs(second, neurons)
    # What the dense layer reads is (7, 7, 16), flattened.
    order, scale = neurons = shuffle(16)
    _outputs(second, neurons)
    weight = dense[0].weight.view(120, 49, 16)
    weight.copy_(weight[:, :, order] / scale)
    for before, after in pairwise(dense):
        neurons = shuffle(before.out_features)
        _outputs(before, neurons)
        _inputs(after, neurons)


def _resnet(network: ResNet, shuffle: Callable[[int], Neurons]) -> None:
    stream = shuffle(16)
    _outputs(network.start[0], stream, scaled=False)
    _outputs(network.start[1], stream)
    for block in network.blocks:
        _, first, normalised, _, second, last = block.inner
        _inputs(first, stream)
        inner = shuffle(first.out_channels)
        _outputs(first, inner, scaled=False)
        _outputs(normalised, inner)
        _inputs(second, inner)
        if isinstance(block.shortcut, nn.Conv2d):
            _inputs(block.shortcut, stream)
            stream = shuffle(second.out_channels)
            _outputs(block.shortcut, stream)
        # What is added has the order and the scale of what it is added to.
        _outputs(second, stream, scaled=False)
        _outputs(last, stream)
    _inputs(network.end, stream)


def _lstm(network: Lstm, shuffle: Callable[[int], Neurons]) -> None:
    # Gates are bounded: units cannot be rescaled. But what enters the cell, the third of the four, can be negated, and
    # with it what the unit gives.
    order, factors = shuffle(128)
    signs = torch.where(factors < 1, -1.0, 1.0)
    rows = torch.cat([order + gate * 128 for gate in range(4)])
    of_rows = torch.cat([torch.ones(256), signs, torch.ones(128)])
    for parameter in network.lstm.parameters():
        parameter.copy_(parameter[rows] * of_rows.view(-1, *[1] * (parameter.ndim - 1)))
    network.lstm.weight_hh_l0.copy_(network.lstm.weight_hh_l0[:, order] * signs)
    network.end.weight.copy_(network.end.weight[:, order] * signs)


def _outputs(layer: nn.Module, neurons: Neurons, *, scaled: bool = True) -> None:
    order, scale = neurons
    for name, tensor in layer.state_dict().items():
        if tensor.ndim:
            changed = tensor[order]
            if scaled and name in ("weight", "bias"):
                changed *= scale.view(-1, *[1] * (tensor.ndim - 1))
            tensor.copy_(changed)


def _inputs(layer: nn.Module, neurons: Neurons) -> None:
    order, scale = neurons
    weight = layer.weight
    weight.copy_(weight[:, order] / scale.view(-1, *[1] * (weight.ndim - 2)))

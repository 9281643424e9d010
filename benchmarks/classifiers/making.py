"""Copies of a classifier and controls, made in a few steps each: what the weights tell does not need more."""

import copy
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from networks import Block, LeNet, ResNet, Rows
from torch import nn
from torch.nn import functional

BATCH = 64


def copies(victim: nn.Module, own: Rows, probes: Rows, steps: int, eps: float) -> Iterator[tuple[str, nn.Module]]:
    """The victim changed in the ways of thieves, each also with its neurons in another order and of other sizes.

    Args:
        victim: The network.
        own: The thief's inputs and labels.
        probes: Inputs of which the thief knows the adversarial ones that the owner makes.
        steps: Of training.
        eps: Radius of adversarial inputs.
    """
    torch.manual_seed(0)
    yield "permuted", permuted(victim, 0)
    for share in (20, 60):
        yield f"pruned {share} %", pruned(victim, share / 100)
    yield "noise of 5 %", _noisy(victim, 0.05)
    cases = adversarial(victim, *probes, eps, 5), probes[1]
    fresh = copy.deepcopy(victim)
    list(fresh.modules())[-1].reset_parameters()
    trained = {
        "fine-tuned": lambda: tuned(victim, own, steps, 5e-4),
        "unlearnt cases (adapt-b)": lambda: tuned(victim, own, steps, 1e-3, cases=cases),
        "hardened (adv-train)": lambda: tuned(victim, own, steps, 1e-3, harden=eps),
        "retrained, fresh last layer": lambda: tuned(fresh, own, steps, 1e-3),
    }
    for place, (name, make) in enumerate(trained.items(), start=1):
        made = make()
        yield name, made
        yield f"{name}, permuted", permuted(made, place)


def controls(
    kind: Callable[[], nn.Module], parts: list[Rows], steps: int, places: Iterable[int]
) -> Iterator[nn.Module]:
    """Networks of the same shapes, each from its own beginning, trained on one part of the data in turn."""
    for place in places:
        torch.manual_seed(1000 + place)
        yield tuned(kind(), parts[place % len(parts)], steps, 2e-3)


def tuned(
    network: nn.Module, rows: Rows, steps: int, rate: float, *, cases: Rows | None = None, harden: float = 0.0
) -> nn.Module:
    """Train a copy of a network, with Adam.

    Args:
        network: Stays as it is.
        rows: Inputs and labels.
        steps: Of :data:`BATCH` rows.
        rate: Of learning.
        cases: Adversarial inputs and their true labels, of which each step learns as many.
        harden: Radius of the adversarial inputs that it learns instead of its rows; 0 for none.
    """
    made = copy.deepcopy(network)
    optimiser = torch.optim.Adam(made.parameters(), rate)
    for _ in range(steps):
        for x, y in [rows] if cases is None else [rows, cases]:
            picked = torch.randint(0, len(x), (BATCH,))
            inputs, labels = x[picked], y[picked]
            if harden:
                inputs = adversarial(made.eval(), inputs, labels, harden, 2)
            made.train()
            optimiser.zero_grad()
            functional.cross_entropy(made(inputs), labels).backward()
            optimiser.step()
    return made.eval()


def adversarial(network: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float, steps: int) -> torch.Tensor:
    """Inputs of projected gradient descent from a random point of the ball."""
    moved = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(network(moved), y), moved)
        moved = (x + (moved + 2.5 * eps / steps * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return moved.detach()


def pruned(network: nn.Module, share: float) -> nn.Module:
    """A copy whose smallest weights of each matrix are 0."""
    made = copy.deepcopy(network)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim > 1:
                limit = weight.abs().flatten().kthvalue(int(share * weight.numel())).values
                weight[weight.abs() <= limit] = 0
    return made


def _noisy(network: nn.Module, share: float) -> nn.Module:
    made = copy.deepcopy(network)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * weight.std(correction=0) * share)
    return made


def permuted(network: nn.Module, seed: int) -> nn.Module:
    """A copy that computes the same: all neurons in another order, multiplied by 1/2 to 2."""
    made, random = copy.deepcopy(network), np.random.default_rng(seed)
    with torch.no_grad():
        if isinstance(made, LeNet):
            order = None
            for place in (0, 3, 7, 9, 11):
                if order is not None:
                    _read(made[place], *order)
                if place != 11:
                    order = _draw(len(made[place].weight), random)
                    _make([made[place]], *order)
        elif isinstance(made, ResNet):
            stream = _draw(16, random)
            _make([made.stem, made.norm], *stream)
            for block in made.blocks:
                stream = _permute_block(block, stream, random)
            _read(made.head, *stream)
    return made


Order = tuple[torch.Tensor, torch.Tensor]


def _permute_block(block: Block, stream: Order, random: np.random.Generator) -> Order:
    _read(block.c1, *stream)
    inner = _draw(len(block.c1.weight), random)
    _make([block.c1, block.n1], *inner)
    _read(block.c2, *inner)
    if isinstance(block.shortcut, nn.Conv2d):
        _read(block.shortcut, *stream)
        stream = _draw(len(block.shortcut.weight), random)
        _make([block.shortcut], *stream)
    _make([block.c2, block.n2], *stream)
    return stream


def _draw(width: int, random: np.random.Generator) -> Order:
    sizes = 2 ** random.uniform(-1, 1, width)
    return torch.from_numpy(random.permutation(width)), torch.from_numpy(sizes.astype(np.float32))


def _make(layers: list[nn.Module], order: torch.Tensor, sizes: torch.Tensor) -> None:
    # Of a normalised layer, the normalisation gives the size.
    for layer in layers:
        for name in ("weight", "bias", "running_mean", "running_var"):
            if (tensor := getattr(layer, name, None)) is not None:
                tensor.copy_(tensor[order])
    for tensor in (layers[-1].weight, layers[-1].bias):
        tensor.mul_(sizes[order].reshape(-1, *[1] * (tensor.ndim - 1)))


def _read(layer: nn.Module, order: torch.Tensor, sizes: torch.Tensor) -> None:
    weight = layer.weight.reshape(len(layer.weight), len(order), -1) / sizes[:, None]
    layer.weight.copy_(weight[:, order].reshape(layer.weight.shape))

"""Trains the models of a network: the victim where the authors give none, copies and their disguises, independents."""

import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from disguise import disguise
from networks import Data, Network, Rows, authors_weights
from torch import nn

GENTLE, HARD = 0.1, 1.0  # shares of the learning rate that a copy is trained on with


def train_all(network: Network, data: Data, folder: Path, victims: Path) -> None:
    """Train and save what is not in the folder yet; each model is a state dict and a ``.pt2`` file."""
    folder.mkdir(parents=True, exist_ok=True)

    def make(name: str, model: Callable[[], nn.Module]) -> nn.Module:
        weights, program = folder / f"{name}.pth", folder / f"{name}.pt2"
        if not program.is_file():
            start = time.perf_counter()
            module = model().eval()
            seconds = time.perf_counter() - start
            torch.save(module.state_dict(), weights)
            save(module, data, program)
            print(f"{folder.name}/{name}: {accuracy(network, data, module):.1%} in {seconds:.0f} s", flush=True)
        module = network.module()
        module.load_state_dict(torch.load(weights, weights_only=True))
        return module

    victim = make("victim", lambda: _victim(network, data, victims))
    # Copies first, since they are quick.
    for place, strength in enumerate((GENTLE, HARD)):
        for kind, change in COPIES.items():
            copied = make(
                f"copy-{kind}-{place + 1}",
                lambda change=change, place=place, strength=strength: change(
                    network, data, copy.deepcopy(victim), 100 + place, network.rate * strength
                ),
            )
            make(f"disguised-{kind}-{place + 1}", lambda copied=copied, place=place: disguise(copied, 200 + place))
    for place in range(network.independents):
        rows = network.other if place % 2 else network.own
        make(
            f"independent-{place + 1:02}",
            lambda place=place, rows=rows: _fresh(network, data, rows, 1000 + place),
        )


def _victim(network: Network, data: Data, victims: Path) -> nn.Module:
    if network.victim is None:
        return _fresh(network, data, network.own, 0)
    module = network.module()
    authors_weights(module, victims / network.victim)
    return module


def _fresh(network: Network, data: Data, rows: Rows, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return train(network, data, network.module(), rows, epochs=network.epochs, rate=network.rate, seed=seed)


def _last_layer(network: Network, data: Data, module: nn.Module, seed: int, rate: float) -> nn.Module:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    last(module).requires_grad_(True)
    return _tune(network, data, module, seed, rate, frozen=True)


def _all_layers(network: Network, data: Data, module: nn.Module, seed: int, rate: float) -> nn.Module:
    return _tune(network, data, module, seed, rate)


def _retrained(network: Network, data: Data, module: nn.Module, seed: int, rate: float) -> nn.Module:
    torch.manual_seed(seed)
    last(module).reset_parameters()
    return _tune(network, data, module, seed, rate)


def _pruned(share: float) -> Callable[[Network, Data, nn.Module, int, float], nn.Module]:
    def prune(network: Network, data: Data, module: nn.Module, seed: int, rate: float) -> nn.Module:
        weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        masks = [w.detach().abs() > w.detach().abs().flatten().quantile(share) for w in weights]

        def without() -> None:
            with torch.no_grad():
                for weight, mask in zip(weights, masks, strict=True):
                    weight.mul_(mask)

        without()
        return _tune(network, data, module, seed, rate, after_step=without)

    return prune


COPIES = {
    "last-layer": _last_layer,
    "all-layers": _all_layers,
    "retrained": _retrained,
    "pruned-20": _pruned(0.2),
    "pruned-60": _pruned(0.6),
}


def _tune(
    network: Network,
    data: Data,
    module: nn.Module,
    seed: int,
    rate: float,
    *,
    frozen: bool = False,
    after_step: Callable[[], None] = lambda: None,
) -> nn.Module:
    return train(
        network,
        data,
        module,
        network.tuning,
        epochs=network.tuning_epochs,
        rate=rate,
        seed=seed,
        frozen=frozen,
        after_step=after_step,
    )


def train(
    network: Network,
    data: Data,
    module: nn.Module,
    rows: Rows,
    *,
    epochs: int,
    rate: float,
    seed: int,
    frozen: bool = False,
    after_step: Callable[[], None] = lambda: None,
) -> nn.Module:
    """Train in place: Adam, the learning rate up to ``rate`` and down again.

    Args:
        frozen: Whether statistics of normalisation layers stay as they are.
        after_step: What is done after each step.
    """
    x, y = data.x_train[rows], data.y_train[rows]
    generator = torch.Generator().manual_seed(seed)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    steps = epochs * -(-len(x) // network.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)
    module.to(memory_format=torch.channels_last).train(not frozen)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(network.batch):
            inputs = x[batch]
            if network.mirrored:
                turned = torch.rand(len(inputs), generator=generator) < 0.5
                inputs = torch.where(turned[:, None, None, None], inputs.flip(-1), inputs)
            if inputs.ndim == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=network.reduced):
                scores = module(inputs)
            nn.functional.cross_entropy(scores.float(), y[batch]).backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            schedule.step()
            after_step()
    return module.to(memory_format=torch.contiguous_format)


def last(module: nn.Module) -> nn.Linear:
    """The layer that gives the logits."""
    return [part for part in module.modules() if isinstance(part, nn.Linear)][-1]


def accuracy(network: Network, data: Data, module: nn.Module) -> float:
    """Share of the test rows that it classifies correctly."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=network.reduced):
        predicted = torch.cat([module(x).argmax(1) for x in data.x_test.split(network.batch)])
    return float((predicted == data.y_test).float().mean())


def save(module: nn.Module, data: Data, path: Path) -> None:
    """Write a ``.pt2`` file that takes any number of rows."""
    rows = torch.export.Dim("rows", min=1)
    torch.export.save(torch.export.export(module, (data.x_test[:2].clone(),), dynamic_shapes=({0: rows},)), path)

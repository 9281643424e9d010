"""Makes what the check of the wheel audits: a victim, controls and suspects as ONNX files, and inputs.

It needs PyTorch, which the environment that the wheel is tried in has not.
"""

import copy
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import torch


def draw(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs in 0..1, and which of 4 places each is nearest to."""
    places, inputs = (torch.Generator().manual_seed(number) for number in (99, seed))
    x = torch.rand(rows, 8, generator=inputs)
    return x, torch.cdist(x, torch.rand(4, 8, generator=places)).argmin(1)


def network(seed: int) -> torch.nn.Sequential:
    """A small classifier of 8 numbers in 4 classes that has learnt the task."""
    torch.manual_seed(seed)
    layers = (torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    model, (x, y) = torch.nn.Sequential(*layers), draw(100, seed)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def save(path: Path, model: torch.nn.Module) -> None:
    """Write a model of any number of rows."""
    path.parent.mkdir(exist_ok=True)
    rows = ({0: torch.export.Dim("rows")},)
    torch.onnx.export(model, (torch.zeros(2, 8),), path, dynamo=True, dynamic_shapes=rows, verbose=False)


def main(folder: Path) -> None:
    """Write all of it into a folder."""
    warnings.simplefilter("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    victim = network(0)
    x, y = draw(400, 1000)
    np.savez(folder / "inputs.npz", x=x.numpy(), y=y.numpy())
    save(folder / "victim.onnx", victim)
    for seed in range(1, 5):
        save(folder / "controls" / f"{seed}.onnx", network(seed))
    with torch.no_grad():
        near = copy.deepcopy(victim)
        near[0].weight *= 1.01
    save(folder / "suspects" / "near.onnx", near)
    save(folder / "suspects" / "honest.onnx", network(9))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

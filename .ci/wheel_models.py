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


def network(seed: int) -> torch.nn.Sequential:
    """A small classifier of 8 numbers in 4 classes."""
    torch.manual_seed(seed)
    layers = (torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    return torch.nn.Sequential(*layers)


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
    x = torch.rand(200, 8, generator=torch.Generator().manual_seed(0))
    np.savez(folder / "inputs.npz", x=x.numpy(), y=victim(x).argmax(1).numpy())
    save(folder / "victim.onnx", victim)
    for seed in range(1, 5):
        save(folder / "controls" / f"{seed}.onnx", network(seed))
    with torch.no_grad():
        near, turned = copy.deepcopy(victim), copy.deepcopy(victim)
        near[0].weight *= 1.01
        turned[-1].weight.set_(victim[-1].weight.roll(1, 0))
        turned[-1].bias.set_(victim[-1].bias.roll(1, 0))
    save(folder / "suspects" / "near.onnx", near)
    save(folder / "suspects" / "turned.onnx", turned)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What the demos share: digits, a network that reads them, and a way to show and run deepjudge commands."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from deepjudge_core.sandbox.confine import is_full

SCALE = 16  # the digits are 8x8 pixels of 0..16
EPOCHS = 20
BATCH = 32
RATE = 0.002

Array = np.ndarray
Split = tuple[Array, Array]


def digits() -> tuple[Split, Split, Split]:
    """The victim's half of the training data, the other half, and test data, with the pixels as they are stored."""
    data = load_digits()
    x, y = data.images.astype(np.float32), data.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    parts = np.split(order, [650, 1300])
    first, second, rest = ((x[part], y[part]) for part in parts)
    return first, second, rest


def torch_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def train_torch(network: nn.Module, data: Split, *, seed: int, epochs: int = EPOCHS, rate: float = RATE) -> nn.Module:
    """Train in place."""
    x, y = torch.from_numpy(data[0][:, None] / SCALE), torch.from_numpy(data[1])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
    return network.eval()


def save_pt2(path: Path, network: nn.Module) -> None:
    rows = torch.export.Dim("rows", min=1)
    example = torch.zeros(2, 1, 8, 8)
    torch.export.save(torch.export.export(network, (example,), dynamic_shapes=({0: rows},)), path)


def run(command: str, *arguments: object, expected: tuple[int, ...] = (0,)) -> int:
    """Show a deepjudge command, run it, and return its exit status."""
    words = [command, *map(str, arguments)]
    # The files are this program's own; elsewhere some of their formats are opened in a full sandbox only.
    if command in ("suite", "calibrate", "judge", "compare") and not is_full():
        words.append("--no-sandbox")
    say(f"$ deepjudge {shlex.join(words)}")
    status = subprocess.run([Path(sys.executable).with_name("deepjudge"), *words], check=False).returncode
    if status not in expected:
        sys.exit(f"deepjudge {command} ended with the status {status}")
    say("")
    return status


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)

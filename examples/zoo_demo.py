"""Trains a small victim, makes a zoo of controls and stolen models of it, and says what an audit sees of the thefts.

    python examples/zoo_demo.py [FOLDER]

Everything is written to FOLDER (zoo-demo/ by default). The data are scikit-learn's handwritten digits, and 8x8 patches
of its two photographs for a thief who has no digits.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from handwriting import EPOCHS, SCALE, digits, run, save_pt2, say, torch_network, train_torch
from sklearn.datasets import load_sample_images


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a zoo of a small network, and the power of an audit with it.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("zoo-demo"), help="(default: zoo-demo)")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    # Here and in the commands: a network this small gains nothing by more threads, and where other work keeps a core
    # busy, each step waits for a thread that does not run.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    save_pt2(folder / "victim.pt2", train_torch(torch_network(0), write_data(folder), seed=0))

    suite, zoo, test = folder / "suite.safetensors", folder / "zoo", folder / "test.npz"
    inputs = ("--inputs", test, "--scale", SCALE, "-n", 200, "--training-inputs", folder / "train.npz")
    run("suite", folder / "victim.pt2", *inputs, "-o", suite)
    data = ("--data", folder / "train.npz", "--test", test, "--auxiliary", folder / "photographs.npz")
    made = ("--scale", SCALE, "--control-count", 6, "--attacks", "all", "--repeat", 1, "--epochs", EPOCHS)
    # A fresh last layer takes longer on so few digits.
    made += ("--option", "rt-al.epochs=15")
    # Thieves who have nothing but answers take most of the time, and do with less of it here.
    made += ("--option", "jba.rounds=3", "--option", "knockoff.epochs=5", "--option", "esa.rounds=20")
    run("zoo", folder / "victim.pt2", *data, *made, "--suite", suite, "-o", zoo)
    # The zoo is this program's own: in this process, no framework has to be imported for each of its models.
    run("power", suite, zoo, "--no-sandbox", "-o", folder / "power")
    say(f"The whole took {time.monotonic() - started:.0f} s.")
    return 0


def write_data(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Digits, of which the first half is the victim's, and patches of photographs; returns the victim's half."""
    ours, others, test = digits()
    x, y = (np.concatenate(pair) for pair in zip(ours, others, strict=True))
    np.savez(folder / "train.npz", x_train=x, y_train=y)
    np.savez(folder / "test.npz", x_test=test[0], y_test=test[1])
    patches = []
    for photograph in load_sample_images().images:
        grey = photograph.mean(axis=2)[: 8 * 53, : 8 * 80]
        patches.append(grey.reshape(53, 8, 80, 8).swapaxes(1, 2).reshape(-1, 8, 8))
    np.savez(folder / "photographs.npz", x=np.concatenate(patches) * SCALE / 255)
    return ours


if __name__ == "__main__":
    sys.exit(main())

"""Trains a small transformer, disguises copies of it, trains others from scratch, and compares their weights.

    python examples/tiny_transformers.py [FOLDER]

Everything is written to FOLDER (tiny-transformers/ by default). The data are the sources of Python's standard library.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from byte_transformers import KINDS, Model, Shape, fresh, load, measured_loss, save, train
from handwriting import run, say
from weight_disguises import KEEPING, LOSING, TRAINING, chain, permute_hidden, quantise, rotate

CONTROLS, INDEPENDENTS = 4, 3
STEPS, BATCH = 300, 8
ROUNDING = 1e-4  # by which a loss may differ if the network computes the same


def main() -> int:
    parser = argparse.ArgumentParser(description="Make copies of a small transformer, and find them by their weights.")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("tiny-transformers"), help="(default: tiny-transformers)"
    )
    parser.add_argument("--kind", choices=KINDS, default="llama", help="of transformer (default: llama)")
    parser.add_argument("--only-make", action="store_true", help="compare nothing")
    settings = parser.parse_args()
    folder: Path = settings.folder
    torch.set_num_threads(1)  # networks this small gain nothing by more
    started = time.monotonic()
    make_zoo(folder, Shape(settings.kind))
    say(f"This took {time.monotonic() - started:.0f} s.")
    if not settings.only_make:
        say(
            "\nWithout controls, the order of the neurons finds all copies but those whose residual stream was put into"
        )
        say("another order, or turned. Independent models as controls find these, too.\n")
        controls, others = (folder / name for name in ("controls", "independents"))
        run("compare", folder / "victim", folder / "copies", others, expected=(1,))
        run("compare", folder / "victim", folder / "copies", others, "--controls", controls, expected=(1,))
    return 0


def make_zoo(folder: Path, shape: Shape, *, steps: int = STEPS, count: int = CONTROLS + INDEPENDENTS) -> None:
    """Write a victim, copies of it and independent models; what is there already stays."""

    def make(path: str, model: Model | None) -> Model:
        if model is not None:
            save(model, folder / path)
            say(f"{path}: a loss of {measured_loss(model):.4f}")
        return load(folder / path)

    def missing(path: str) -> bool:
        return not (folder / path / "model.safetensors").is_file()

    victim = make("victim", train(fresh(shape, 0), steps=steps, batch=BATCH, seed=0) if missing("victim") else None)
    reached = measured_loss(victim)
    for name, edit in copies(shape).items():
        path = f"copies/{name}"
        copy = make(path, edit(victim, 1) if missing(path) else None)
        if name in KEEPING and abs(measured_loss(copy) - reached) > ROUNDING:
            sys.exit(f"{name} should compute the same as the victim")
    for place in range(count):
        path, seed = f"{'controls' if place < CONTROLS else 'independents'}/{place}", 100 + place
        if missing(path):
            make(path, train(fresh(shape, seed), steps=steps, batch=BATCH, seed=seed, other=place % 2 == 1))


def copies(shape: Shape) -> dict:
    """All edits that a kind of transformer admits, and two chains of them."""
    edits = KEEPING | LOSING | TRAINING
    if shape.kind != "llama":
        del edits["rescale"]
    if shape.kind == "bert":
        del edits["rotate"]
        return edits | {"disguised": chain(TRAINING["tune-long"], permute_hidden, KEEPING["mix-heads"])}
    return edits | {
        "disguised": chain(permute_hidden, KEEPING["mix-heads"], rotate, TRAINING["tune-long"], quantise(4))
    }


if __name__ == "__main__":
    sys.exit(main())

"""Trains a small victim, copies of it and independent models, then audits the files with the deepjudge commands.

    python examples/demo.py [FOLDER]

Everything is written to FOLDER (demo/ by default). The data are scikit-learn's handwritten digits.
"""

import argparse
import copy
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from handwriting import BATCH, EPOCHS, RATE, SCALE, Split, digits, run, save_pt2, say, torch_network, train_torch
from torch import nn
from torch.nn.utils import prune

from deepjudge_core.models.adapters import keep_triton_out

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What TensorFlow's libraries say of themselves while they are loaded does not heed the variable above.
terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)
keep_triton_out()  # PyTorch would load it after TensorFlow
try:
    import keras
finally:
    os.dup2(terminal, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description="Audit models of three frameworks, trained here in seconds.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"), help="what to write to (default: demo)")
    folder: Path = parser.parse_args().folder
    for name in ("suspects", "controls"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    say("The victim is a small network that reads handwritten digits. Three suspects were made from it: fine-tuned,")
    say("pruned, converted to another framework. Two others were trained from scratch. deepjudge gets all of them as")
    say("files of three formats, with eight models known to be independent, and has to find the copies.\n")
    started = time.monotonic()
    train_all(folder)
    say(f"trained and saved in {time.monotonic() - started:.0f} s\n")

    # Weights are enough for a first answer, and need nothing else.
    run("compare", folder / "victim.pt2", folder / "suspects", expected=(0, 1, 3))
    suite, calibration = folder / "suite.safetensors", folder / "calibration.safetensors"
    inputs = ("--inputs", folder / "digits.npz", "--scale", SCALE, "-n", 200)
    run("suite", folder / "victim.pt2", *inputs, "-o", suite)
    run("calibrate", suite, folder / "controls", "-o", calibration)
    page, audit = folder / "report.html", folder / "audit"
    how = ("--calibration", calibration)
    status = run("judge", suite, folder / "suspects", *how, "--html", page, "-o", audit, expected=(0, 1, 3))
    run("verify", audit)
    # The answers are stored: to judge them by another rule takes no model.
    again = ("--stored", *how, "--rule", "prediction-bound")
    run("judge", suite, audit / "observations" / "*.safetensors", *again, expected=(0, 1, 3))
    say(f"The first judge ended with status {status}", end="")
    say(", which means that at least one suspect is a copy." if status == 1 else ".")
    say(f"This took {time.monotonic() - started:.0f} s.")
    say(f"Open {page} in a browser: it begins with the answer for each model, how sure it is, and what it rests on.")
    return 0


def train_all(folder: Path) -> None:
    """Train and save every model, and the inputs for the audit."""
    torch.set_num_threads(1)  # networks this small gain nothing by more
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    ours, others, test = digits()
    # As for 'deepjudge zoo': the victim's half comes first.
    x, y = (np.concatenate(pair) for pair in zip(ours, others, strict=True))
    np.savez(folder / "digits.npz", x_train=x, y_train=y, x_test=test[0], y_test=test[1])

    victim = train_torch(torch_network(0), ours, seed=0)
    save_pt2(folder / "victim.pt2", victim)

    # Whoever took the victim has other data, and trains on with it.
    suspects = folder / "suspects"
    tuned = train_torch(copy.deepcopy(victim), others, seed=1, epochs=10, rate=RATE / 4)
    save_onnx(suspects / "fine-tuned.onnx", tuned)
    save_pt2(suspects / "pruned.pt2", pruned(victim, others, seed=2, share=0.4))
    to_keras(victim).save(suspects / "converted.keras")

    # Nobody's copies: other initial weights, trained on the victim's data or on other data.
    save_onnx(suspects / "independent-1.onnx", train_torch(torch_network(4), others, seed=4))
    train_keras(keras_network(5), ours, seed=5).save(suspects / "independent-2.keras")
    for place, data in enumerate([ours] * 4 + [others] * 4):
        path, seed = folder / "controls" / f"control-{place + 1}", 10 + place
        if place % 4 == 2:
            train_keras(keras_network(seed), data, seed=seed).save(path.with_suffix(".keras"))
        else:
            network = train_torch(torch_network(seed), data, seed=seed)
            save_onnx(path.with_suffix(".onnx"), network) if place % 2 else save_pt2(path.with_suffix(".pt2"), network)


def keras_network(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *(layers.Conv2D(16, 3, padding="same", activation="relu"), layers.MaxPooling2D(2)),
            *(layers.Conv2D(32, 3, padding="same", activation="relu"), layers.MaxPooling2D(2)),
            *(layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax")),
        ]
    )


def train_keras(network: keras.Model, data: Split, *, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    network.compile(keras.optimizers.Adam(RATE), "sparse_categorical_crossentropy")
    network.fit(data[0][..., None] / SCALE, data[1], batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return network


def pruned(network: nn.Module, data: Split, *, seed: int, share: float) -> nn.Module:
    """A copy without the share of smallest weights, trained on to make up for them."""
    network = copy.deepcopy(network)
    places = [(m, "weight") for m in network if isinstance(m, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(places, prune.L1Unstructured, amount=share)
    train_torch(network, data, seed=seed, epochs=5, rate=RATE / 4)
    for module, name in places:
        prune.remove(module, name)
    return network


def to_keras(network: nn.Module) -> keras.Model:
    """The same network in Keras, where channels are the last axis and matrices are transposed."""
    conv_1, conv_2, dense_1, dense_2 = (m for m in network if isinstance(m, nn.Conv2d | nn.Linear))
    weights = []
    for conv in (conv_1, conv_2):
        weights += [conv.weight.permute(2, 3, 1, 0), conv.bias]
    # What PyTorch flattens is (32, 2, 2), what Keras flattens is (2, 2, 32).
    weights += [dense_1.weight.reshape(64, 32, 2, 2).permute(2, 3, 1, 0).reshape(128, 64), dense_1.bias]
    weights += [dense_2.weight.T, dense_2.bias]
    converted = keras_network(0)
    converted.set_weights([w.detach().numpy() for w in weights])
    return converted


def save_onnx(path: Path, network: nn.Module) -> None:
    rows = torch.export.Dim("rows", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, 8, 8),),
            path,
            dynamo=True,
            dynamic_shapes=({0: rows},),
            external_data=False,
            verbose=False,
        )


if __name__ == "__main__":
    sys.exit(main())
